"""The hash chain of a book: how a record becomes bytes, what its hash is, and which record is the first bad one. Pure.

A record's body is one line of canonical JSON (keys sorted, no spaces, ASCII), which holds the hash of the record
before it; its hash is the SHA-256 of that line. So `sha256sum` and a JSON parser are enough to check one elsewhere.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping

import attrs

from rsocket_broker import jsontext
from rsocket_broker.audit.events import Book

START = "0" * 64
"""What stands for the hash before the first record."""

Facts = Mapping[str, object]


@attrs.frozen(slots=True)
class Entry:
    """One record as it is kept: `body` is its canonical JSON, `hash` the SHA-256 of that in hex."""

    book: Book
    number: int
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
    return Entry(head.book, number, body, digest(body))


def after(head: Head, added: Entry) -> Head:
    """The head once `added` stands in the book."""
    return attrs.evolve(head, count=added.number, hash=added.hash)


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()


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


def _problem(found: Entry, book: Book, number: int, previous: str) -> str | None:
    if found.number != number:
        return "it is missing" if found.number > number else "it stands there twice"
    if digest(found.body) != found.hash:
        return "its text or its hash was changed"
    try:
        body = jsontext.parse_object(found.body.encode("utf-8", "surrogatepass"))
    except jsontext.JsonError:
        return "it is no JSON"
    if (body.get("book"), body.get("number")) != (book.value, number):
        return "another record stands in its place"
    if body.get("previous") != previous:
        return "it does not follow the record before it"
    return None
