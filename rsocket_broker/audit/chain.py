"""The hash chain of a book: how a record becomes bytes, what its hash is, and which record is the first bad one. Pure.

A record's body is one line of canonical JSON (keys sorted, no spaces, ASCII), which holds the hash of the record
before it; its hash is the SHA-256 of that line. So `sha256sum` and a JSON parser are enough to check one elsewhere.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import attrs

from rsocket_broker import jsontext
from rsocket_broker.audit.events import Book

START = "0" * 64
"""What stands for the hash before the first record."""

Facts = Mapping[str, object]

_encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


@attrs.frozen(slots=True)
class Entry:
    """One record as it is kept: `body` is its canonical JSON, `hash` the SHA-256 of that in hex; the others say again
    what is in the body, to find it by."""

    book: Book
    number: int
    time: str
    event: str
    body: str
    hash: str


@attrs.frozen(slots=True)
class Head:
    """Where a book begins and ends: the number and hash of the last record taken away, and of the last one there."""

    book: Book
    base: int = 0
    base_hash: str = START
    count: int = 0
    hash: str = START


@attrs.frozen(slots=True)
class Fault:
    """The first record of a book that is not as it was written."""

    book: Book
    number: int
    reason: str

    def __str__(self) -> str:
        return f"record {self.number} of {self.book.value}: {self.reason}"


@attrs.frozen(slots=True)
class Verdict:
    """What a whole record is worth: where each book ends, and the first fault of each that has one."""

    heads: list[Head]
    faults: list[Fault]

    @classmethod
    def of(cls, heads: list[Head], faults: Iterable[Fault | None]) -> Self:
        """The first of the faults of each book counts."""
        first: dict[Book, Fault] = {}
        for fault in faults:
            if fault is not None:
                first.setdefault(fault.book, fault)
        return cls(heads, list(first.values()))


@attrs.frozen(slots=True)
class Mark:
    """A record and its hash, as somebody noted them elsewhere: what no later forger can know to fit."""

    book: Book
    number: int
    hash: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """From BOOK:NUMBER:HASH. Raises ValueError."""
        book, number, known = text.split(":")
        if len(known) != len(START):
            raise ValueError("a hash has 64 digits")
        return cls(Book(book), int(number), known.lower())

    def __str__(self) -> str:
        return f"{self.book.value}:{self.number}:{self.hash}"


def entry(head: Head, time: str, event: str, facts: Facts) -> Entry:
    """The record that comes after `head`. Raises ValueError or TypeError for facts that have no JSON."""
    number = head.count + 1
    body = canonical(
        {
            "book": head.book.value,
            "number": number,
            "time": time,
            "event": event,
            "facts": dict(facts),
            "previous": head.hash,
        }
    )
    return Entry(head.book, number, time, event, body, digest(body))


def after(head: Head, added: Entry) -> Head:
    """The head once `added` stands in the book."""
    return Head(head.book, head.base, head.base_hash, added.number, added.hash)


def canonical(value: object) -> str:
    return _encoder.encode(value)


def digest(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()


def content(entry: Entry) -> dict[str, Any]:
    """What a record says; empty for one that is no JSON any more."""
    try:
        return jsontext.parse_object(entry.body.encode("utf-8", "surrogatepass"))
    except jsontext.JsonError:
        return {}


def first_fault(entries: Iterable[Entry], head: Head) -> Fault | None:
    """What is wrong with a book whose records are `entries` in the order of their numbers; None when all is well."""
    number, previous = head.base, head.base_hash
    for each in entries:
        number += 1
        reason = _problem(each, head.book, number, previous)
        if reason is not None:
            return Fault(head.book, number, reason)
        previous = each.hash
    if number < head.count:
        return Fault(head.book, number + 1, "it is missing")
    if number > head.count:
        return Fault(head.book, head.count + 1, "it stands behind the end of the book")
    if previous != head.hash:
        return Fault(head.book, number, "it is not the one that the book ends with")
    return None


def misplaced_base(head: Head, trims: Sequence[Facts]) -> Fault | None:
    """What is wrong with the beginning of a book, given the facts of the `trim` records, in their order."""
    ours = [facts for facts in trims if facts.get("book") == head.book.value]
    told = (ours[-1].get("last"), ours[-1].get("hash")) if ours else (0, START)
    if told == (head.base, head.base_hash):
        return None
    return Fault(head.book, head.base + 1, "the record does not say that those before it were taken away")


def missing_mark(mark: Mark, heads: Sequence[Head], found: str | None) -> Fault | None:
    """Whether a record is still the one that `mark` names, whose hash is `found` now; it may be a trimmed one."""
    head = next((each for each in heads if each.book is mark.book), Head(mark.book))
    if mark.number < head.base:
        return None
    known = head.base_hash if mark.number == head.base else found
    if known is not None and hmac.compare_digest(known.encode(), mark.hash.encode()):
        return None
    return Fault(mark.book, mark.number, "it is not the one that the mark names")


def _problem(found: Entry, book: Book, number: int, previous: str) -> str | None:
    if found.number != number:
        return "it is missing" if found.number > number else "it stands there twice"
    if digest(found.body) != found.hash:
        return "its text or its hash was changed"
    body = content(found)
    if (body.get("book"), body.get("number")) != (book.value, number):
        return "another record stands in its place"
    if (body.get("time"), body.get("event")) != (found.time, found.event):
        return "its date or its kind was changed"
    if body.get("previous") != previous:
        return "it does not follow the record before it"
    return None
