"""Reading the record: newest first, by kind and client, and all of it to verify. Needs no broker."""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import attrs

from rsocket_broker.audit.audit import COMPONENT, STEPS, read_head
from rsocket_broker.audit.chain import (
    Entry,
    Head,
    Mark,
    Verdict,
    canonical,
    content,
    first_fault,
    misplaced_base,
    missing_mark,
)
from rsocket_broker.audit.events import Book, Event
from rsocket_broker.errors import HomeError
from rsocket_broker.identity import NO_DEVICE
from rsocket_broker.state import State

_COLUMNS = "book, number, " + ", ".join(f"CAST({name} AS BLOB)" for name in ("time", "event", "body", "hash"))
"""Bytes, since text that was changed in the file may be none any more."""


@attrs.frozen(slots=True)
class Wanted:
    """Which records: of these kinds (all where empty), not before `since` (as records have it), of this client."""

    events: Collection[str] = ()
    since: str = ""
    app_id: str | None = None
    device_id: str | None = None

    def takes(self, event: str, body: dict[str, Any]) -> bool:
        """Whether a record is one of these, its date apart."""
        if self.events and event not in self.events:
            return False
        facts = body.get("facts")
        if not isinstance(facts, dict):
            return self.app_id is None
        if self.app_id in (None, facts.get("app_id")) and self.device_id in (None, facts.get("device_id")):
            return True
        device = "" if self.device_id is None else f"{self.device_id or NO_DEVICE} "
        return str(facts.get("client")).startswith(f"{self.app_id}@{device}")


def prepare(state: State) -> None:
    """Let a home that never had a record have an empty one. Raises HomeError."""
    state.migrate(COMPONENT, STEPS)


def newest(state: State, wanted: Wanted, limit: int) -> list[Entry]:
    """The newest records that are wanted, the oldest of them first."""
    found: list[Entry] = []
    events = list(wanted.events)
    books = [book.value for book in Book]
    with state.snapshot() as database:
        rows = database.execute(
            f"SELECT {_COLUMNS} FROM audit WHERE time >= ? AND +book IN ({_marks(books)})"  # noqa: S608
            f" AND (? OR event IN ({_marks(events)})) AND (? IS NULL OR instr(body, ?))"
            " ORDER BY time DESC, book DESC, number DESC",
            (wanted.since, *books, not events, *events, wanted.app_id, _as_in_a_body(wanted.app_id or "")),
        )
        for each in map(_entry, rows):
            if len(found) >= limit:
                break
            if wanted.takes(each.event, content(each)):
                found.append(each)
    return found[::-1]


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def _as_in_a_body(text: str) -> str:
    """A text as JSON has it inside its quotes: most records can be passed over without being read."""
    return canonical(text)[1:-1]


def later(state: State, wanted: Wanted, seen: dict[Book, int]) -> list[Entry]:
    """The records behind those that `seen` names by book, which is brought up to date."""
    found = []
    with state.snapshot() as database:
        for book in Book:
            for each in _of_book(database, book, seen.get(book, 0)):
                seen[book] = each.number
                if each.time >= wanted.since and wanted.takes(each.event, content(each)):
                    found.append(each)
    return sorted(found, key=lambda each: each.time)


def ends(state: State) -> dict[Book, int]:
    """The number of the last record of each book."""
    with state.snapshot() as database:
        return {book: read_head(database, book).count for book in Book}


def everything(state: State) -> Iterator[Entry | Head]:
    """Each book's head and then its records; all as it was at one moment."""
    with state.snapshot() as database:
        for book in Book:
            yield read_head(database, book)
            yield from _of_book(database, book, 0)


def verify(state: State, marks: Collection[Mark] = ()) -> Verdict:
    """Check every book to its end, and that the records which `marks` name are still what they were.

    Raises HomeError when SQLite itself cannot read them.
    """
    try:
        return _verify(state, marks)
    except sqlite3.DatabaseError as error:
        raise HomeError(f"The audit cannot be read: {error}. Restore the home from a backup.") from error


def _verify(state: State, marks: Collection[Mark]) -> Verdict:
    with state.snapshot() as database:
        heads = [read_head(database, book) for book in Book]
        faults = [first_fault(_of_book(database, head.book, 0), head) for head in heads]
        trims = [
            content(_entry(row)).get("facts", {})
            for row in database.execute(
                f"SELECT {_COLUMNS} FROM audit WHERE book = ? AND event = ? ORDER BY number",  # noqa: S608
                (Book.CHANGES.value, Event.TRIMMED.value),
            )
        ]
        faults += [misplaced_base(head, trims) for head in heads]
        faults += [missing_mark(mark, heads, _hash_of(database, mark)) for mark in marks]
    return Verdict.of(heads, faults)


def _of_book(database: sqlite3.Connection, book: Book, behind: int) -> Iterator[Entry]:
    return map(
        _entry,
        database.execute(
            f"SELECT {_COLUMNS} FROM audit WHERE book = ? AND number > ? ORDER BY number",  # noqa: S608
            (book.value, behind),
        ),
    )


def _hash_of(database: sqlite3.Connection, mark: Mark) -> str | None:
    row = database.execute(
        "SELECT hash FROM audit WHERE book = ? AND number = ?", (mark.book.value, mark.number)
    ).fetchone()
    return None if row is None else str(row[0])


def _entry(row: sqlite3.Row) -> Entry:
    return Entry(Book(row[0]), row[1], *(bytes(value).decode("utf-8", "surrogateescape") for value in row[2:]))
