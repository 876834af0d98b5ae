"""`Audit`: writes records, in the transaction of what they tell of, or by and by from a queue that has bounds."""

import enum
import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import cast

import attrs

from rsocket_broker.audit import chain
from rsocket_broker.audit.events import Book, Event
from rsocket_broker.audit.waiting import Note, Waiting
from rsocket_broker.errors import HomeError
from rsocket_broker.moments import utc_now
from rsocket_broker.quiet_log import QuietLog
from rsocket_broker.state import State

COMPONENT = "audit"
STEPS = (
    """
    CREATE TABLE audit (
        book TEXT NOT NULL,
        number INTEGER NOT NULL,     -- from 1, without a gap
        time TEXT NOT NULL,          -- as in the body, to search by
        event TEXT NOT NULL,         -- as in the body, to search by
        body TEXT NOT NULL,          -- canonical JSON
        hash TEXT NOT NULL,          -- SHA-256 of the body, hex
        PRIMARY KEY (book, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX audit_by_time ON audit (time);
    CREATE TABLE audit_heads (
        book TEXT PRIMARY KEY,
        base INTEGER NOT NULL,       -- the last record that was taken away, 0 for none, and its hash
        base_hash TEXT NOT NULL,
        count INTEGER NOT NULL,      -- the last record that is there, and its hash
        hash TEXT NOT NULL
    ) STRICT;
    """,
)

FLUSH_S = 0.25
"""From the first note to the disk. One transaction then takes all that came meanwhile."""
AT_ONCE, BREATH_S = 100, 0.001
"""Notes in one transaction, a hundredth of a second, and the pause in which others may write: nobody who revokes a
certificate is to wait until all that was noted is on the disk."""
CLOSE_S = 1.0
"""For the thread that writes to end what it is at."""
MAX_TEXT = 512
"""Characters kept of one text: peers choose some of them."""
MAX_ITEMS = 100
"""Kept of one list."""

MAX_TRAFFIC = 200_000
"""Records of `traffic` that are kept, of about 700 bytes each with what SQLite needs: 140 MB. One peer that does
its worst (see `waiting`) fills that in a week, so look at, or export, the record more often than that."""
TRIMMED_AT_ONCE = 20_000
"""The oldest, taken away together: it is recorded each time."""

_log = logging.getLogger(__name__)


class Audit:
    """The record of one home. Every method may be called from any thread."""

    def __init__(self, state: State, clock: Callable[[], datetime] = utc_now) -> None:
        self._state = state
        self._clock = clock
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._waiting = Waiting()
        self._closed = False
        self._timer: tuple[float, threading.Timer] | None = None
        self._quiet = QuietLog(_log)
        state.migrate(COMPONENT, STEPS)

    def write(self, database: sqlite3.Connection, event: Event, **facts: object) -> None:
        """A record inside the transaction of the caller: the change and its record stand or fall together.

        Facts are texts, numbers, truth values, None and lists of these; enums and dates become text, texts are cut
        to MAX_TEXT. Raises TypeError for anything else, bytes above all: a secret is more often bytes than not.
        """
        self.write_all(database, [(event, facts)])

    def write_all(self, database: sqlite3.Connection, told: Iterable[tuple[Event, Mapping[str, object]]]) -> None:
        """As `write`, one record after the other. Where many are written in one transaction this costs far less."""
        now = to_text(self._clock())
        self._append(database, [Note(now, event, plain(facts)) for event, facts in told])

    def note(self, event: Event, **facts: object) -> None:
        """A record of its own, on the disk within a second or at `close`; never waits for the disk.

        What peers cause by asking is told once and then counted, see `waiting`. A process that is killed loses what
        it noted last.
        """
        noted = Note(to_text(self._clock()), event, plain(facts))
        with self._lock:
            self._waiting.add(noted, time.monotonic())
            self._wake()

    def flush(self, *, all_of_it: bool = False) -> None:
        """Write what was noted. A disk that fails is told to the log, and what it did not take is counted."""
        with self._flushing:
            with self._lock:
                notes = self._waiting.take(time.monotonic(), all_of_it=all_of_it)
            try:
                while notes:
                    self._write_notes(notes[:AT_ONCE])
                    del notes[:AT_ONCE]
                    if notes:
                        time.sleep(BREATH_S)
            except (HomeError, sqlite3.Error) as error:
                self._quiet.write(
                    logging.ERROR, "audit", "%d audit records could not be written: %s", len(notes), error
                )
                with self._lock:
                    self._waiting.lost(notes, time.monotonic())

    def _write_notes(self, notes: list[Note]) -> None:
        with self._state.transaction() as database:
            self._append(database, notes)

    def close(self) -> None:
        """Write what waits, counts included. What is noted later is not written; calling it again is harmless."""
        with self._lock:
            self._closed = True
            timer, self._timer = self._timer, None
        if timer is not None:
            timer[1].cancel()
            timer[1].join(CLOSE_S)
        self.flush(all_of_it=True)

    def _wake(self) -> None:
        """See that a thread writes what waits when it is due. Called with the lock held."""
        now = time.monotonic()
        due = self._waiting.due(now + FLUSH_S)
        if due is None or self._closed or (self._timer is not None and self._timer[0] <= due):
            return
        if self._timer is not None:
            self._timer[1].cancel()
        timer = threading.Timer(max(0.0, due - now), self._on_time)
        timer.name, timer.daemon = "audit", True
        self._timer = due, timer
        timer.start()

    def _on_time(self) -> None:
        with self._lock:
            self._timer = None
        self.flush()
        with self._lock:
            self._wake()

    def _append(self, database: sqlite3.Connection, notes: Iterable[Note]) -> None:
        """Behind the last record of their books. Where a book ends is written down once for all of them."""
        heads: dict[str, chain.Head] = {}
        for note in notes:
            head = heads[note.event.book.value] = _add(database, _head(database, heads, note.event.book), note)
            if head.book is Book.TRAFFIC and head.count - head.base >= MAX_TRAFFIC:
                self._trim(database, heads)
        for head in heads.values():
            write_head(database, head)

    def _trim(self, database: sqlite3.Connection, heads: dict[str, chain.Head]) -> None:
        """Take the oldest records of `traffic` away, and record among the changes which they were."""
        head = heads[book := Book.TRAFFIC.value]
        through = head.base + TRIMMED_AT_ONCE
        found = database.execute("SELECT hash FROM audit WHERE book = ? AND number = ?", (book, through)).fetchone()
        if found is None:
            return  # somebody was here before us: `audit verify` says so
        database.execute("DELETE FROM audit WHERE book = ? AND number <= ?", (book, through))
        heads[book] = attrs.evolve(head, base=through, base_hash=found[0])
        facts = {"book": book, "first": head.base + 1, "last": through, "hash": found[0]}
        trimmed = Note(to_text(self._clock()), Event.TRIMMED, facts)
        heads[Book.CHANGES.value] = _add(database, _head(database, heads, Book.CHANGES), trimmed)


def _head(database: sqlite3.Connection, heads: Mapping[str, chain.Head], book: Book) -> chain.Head:
    """Where a book ends now: as `heads` has it, or as it was when this transaction began."""
    return heads.get(book.value) or read_head(database, book)


def _add(database: sqlite3.Connection, head: chain.Head, note: Note) -> chain.Head:
    """Put a record behind `head`; the head that the book has then."""
    added = chain.entry(head, note.time, note.event.value, note.facts)
    try:
        _insert(database, added)
    except sqlite3.IntegrityError:  # somebody has set the head back: what we do goes on, and verifying finds it
        last = database.execute("SELECT MAX(number) FROM audit WHERE book = ?", (head.book.value,)).fetchone()
        head = attrs.evolve(head, count=last[0])
        added = chain.entry(head, note.time, note.event.value, note.facts)
        _insert(database, added)
    return chain.after(head, added)


def _insert(database: sqlite3.Connection, added: chain.Entry) -> None:
    database.execute(
        "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)",
        (added.book.value, added.number, added.time, added.event, added.body, added.hash),
    )


def read_head(database: sqlite3.Connection, book: Book) -> chain.Head:
    row = database.execute(
        "SELECT base, base_hash, count, hash FROM audit_heads WHERE book = ?", (book.value,)
    ).fetchone()
    return chain.Head(book) if row is None else chain.Head(book, *row)


def write_head(database: sqlite3.Connection, head: chain.Head) -> None:
    database.execute(
        "INSERT OR REPLACE INTO audit_heads VALUES (?, ?, ?, ?, ?)",
        (head.book.value, head.base, head.base_hash, head.count, head.hash),
    )


def to_text(moment: datetime) -> str:
    """A moment as records have it: UTC, to the millisecond, of one length, so that texts sort as times do."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def plain(facts: Mapping[str, object]) -> dict[str, object]:
    """Facts as a record can hold them."""
    return {
        name: value if type(value) is str and len(value) <= MAX_TEXT else _plain(value) for name, value in facts.items()
    }


def _plain(value: object) -> object:
    kind = type(value)
    if kind is str:
        text = cast("str", value)
        return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
    if value is None or kind is bool or kind is int:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, datetime):
        return to_text(value)
    if isinstance(value, (set, frozenset)):
        value = sorted(value)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [_plain(item) for item in value[:MAX_ITEMS]]
    raise TypeError(f"a record holds no {kind.__name__}")
