"""What is noted and not yet on the disk. Pure: time comes in, records come out.

A change of the operator's gets a record each. What peers cause by asking is told once at once; the same again within
PERIOD_S is only counted, and the count has a record at the period's end. A peer that makes many different ones gets
MAX_OF_ONE records in a period and then one with the number of the others; all peers together get MAX_ALL. So one peer
makes fewer than 30,000 records a day, whatever it does, and cannot crowd out what the others do.
"""

from collections.abc import Mapping

import attrs

from rsocket_broker.audit.chain import canonical
from rsocket_broker.audit.events import Book, Event

PERIOD_S = 300.0
"""Seconds in which the same thing is told once, and then counted."""
MAX_OF_ONE = 50
"""Different records of one peer in a period: more than a client that is set up wrongly has methods to try."""
MAX_ALL = 2000
"""Different records in a period; each is remembered until its end, at a kilobyte at most."""
MAX_CHANGES = 10_000
"""Changes that wait for a disk that does not come."""

_SESSION = "session"
"""A fact that tells no two things apart: a client that connects again and again does the same again and again."""
_OF_A_PEER = ("app_id", "device_id", "peer")

Facts = Mapping[str, object]


@attrs.frozen(slots=True)
class Note:
    """A record to be: `time` is the text that it will have."""

    time: str
    event: Event
    facts: Facts


@attrs.define(slots=True)
class _Repeated:
    first: Note
    told: bool = False
    again: int = 0
    since: str = ""
    last: str = ""
    """When the first and the last of `again` came."""
    mixed: bool = False
    """Whether other sessions were among them."""

    def repeat(self, note: Note) -> None:
        self.again += 1
        self.since = self.since or note.time
        self.last = note.time
        self.mixed = self.mixed or note.facts.get(_SESSION) != self.first.facts.get(_SESSION)

    def count(self) -> Note:
        """The record of those that came again; counts anew from here on."""
        facts = {name: value for name, value in self.first.facts.items() if not (self.mixed and name == _SESSION)}
        told = Note(self.last, self.first.event, {**facts, "count": self.again, "since": self.since})
        self.again, self.since, self.mixed = 0, "", False
        return told


class Waiting:
    """Notes that wait, and what was told in this period. Not safe for threads."""

    def __init__(self) -> None:
        self._changes: list[Note] = []
        self._traffic: dict[object, _Repeated] = {}
        self._different: dict[object, int] = {}
        self._ends: float | None = None
        self._untold = False

    def add(self, note: Note, now: float) -> None:
        """Remember a note that was made at `now` (seconds of any clock that only goes forward)."""
        if note.event.book is Book.CHANGES:
            if len(self._changes) < MAX_CHANGES:
                self._changes.append(note)
            else:
                self._count(_left_out(note, {}))
            return
        if self._ends is None:
            self._ends = now + PERIOD_S
        known = self._traffic.get(key := _key(note))
        if known is not None:
            known.repeat(note)
            return
        peer = _peer(note)
        if self._different.get(peer, 0) >= MAX_OF_ONE:
            self._count(_left_out(note, _facts_of_peer(note)))
        elif len(self._traffic) >= MAX_ALL:
            self._count(_left_out(note, {}))
        else:
            self._different[peer] = self._different.get(peer, 0) + 1
            self._traffic[key] = _Repeated(note)
            self._untold = True

    def lost(self, notes: list[Note], now: float) -> None:
        """Count notes that were taken and could not be written."""
        if notes and self._ends is None:
            self._ends = now + PERIOD_S
        for note in notes:
            self._count(_left_out(note, {}))

    def due(self, soon: float) -> float | None:
        """When `take` has something to give: `soon` for what was not told yet, else the period's end; None: never."""
        return soon if self._changes or self._untold else self._ends

    def take(self, now: float, *, all_of_it: bool = False) -> list[Note]:
        """What is to be written now; at the period's end, or with `all_of_it`, the counts as well."""
        taken, self._changes, self._untold = self._changes, [], False
        ended = self._ends is not None and now >= self._ends
        for each in self._traffic.values():
            taken += _tell(each, counts=ended or all_of_it)
        if ended:
            self._traffic.clear()
            self._different.clear()
            self._ends = None
        return taken

    def _count(self, note: Note) -> None:
        """Count under a record that says what was left out; there are few of these, so they need no bound."""
        known = self._traffic.get(key := _key(note))
        if known is None:
            known = self._traffic[key] = _Repeated(note, told=True)
        known.repeat(note)


def _tell(each: _Repeated, *, counts: bool) -> list[Note]:
    told = []
    if not each.told:
        each.told = True
        told.append(each.first)
    if counts and each.again:
        told.append(each.count())
    return told


def _key(note: Note) -> object:
    """What is the same for the same thing again."""
    kept = [
        (name, tuple(value) if type(value) is list else value) for name, value in note.facts.items() if name != _SESSION
    ]
    key = note.event, *kept
    try:
        hash(key)
    except TypeError:  # a list of lists among them
        return note.event, canonical(dict(kept))
    return key


def _peer(note: Note) -> object:
    """Who shares one allowance. All who are refused a certificate share one: they are who they say they are."""
    if note.event is Event.ENROLMENT_REFUSED:
        return note.event
    return tuple(str(note.facts.get(name)) for name in _OF_A_PEER)


def _facts_of_peer(note: Note) -> dict[str, object]:
    if note.event is Event.ENROLMENT_REFUSED:
        return {}
    return {name: note.facts[name] for name in _OF_A_PEER if name in note.facts}


def _left_out(note: Note, facts: dict[str, object]) -> Note:
    return Note(note.time, Event.DROPPED, {"of": note.event.value, **facts})
