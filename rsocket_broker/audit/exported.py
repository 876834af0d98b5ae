"""The record in a file: for each book a line of JSON with its head, then one for each of its records. Pure.

A record's line is its body with `hash` added, canonical again, so any change of any byte shows. Nothing but the file
is needed to check it; whoever could write the file anew from its beginning is found out only by a mark kept elsewhere.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from rsocket_broker import jsontext
from rsocket_broker.audit.chain import (
    Entry,
    Fault,
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
from rsocket_broker.errors import BrokerError

NOT_EXPORTED = "This is no exported audit: it does not begin as `rsocket-broker audit export` writes it."


class NotExported(BrokerError):
    """A file that holds something else."""


def line_of(item: Entry | Head) -> str:
    """One line, without its end."""
    if isinstance(item, Head):
        head = {name: getattr(item, name) for name in _HEAD}
        return canonical({"book": item.book.value, "head": head})
    return canonical({**content(item), "hash": item.hash})


def verify_lines(lines: Iterable[str], marks: Collection[Mark] = ()) -> Verdict:
    """Check a whole file, and that the records which `marks` name are those. Raises NotExported."""
    reader = _Reader(iter(lines), {(mark.book, mark.number) for mark in marks})
    heads: list[Head] = []
    faults: list[Fault | None] = []
    while (head := reader.head) is not None:
        heads.append(head)
        faults.append(first_fault(reader.entries(head), head))
        reader.skip()
    missing = [book for book in Book if book not in {head.book for head in heads}]
    faults += [Fault(book, 1, "all of its book is missing") for book in missing]
    faults += [misplaced_base(head, reader.trims) for head in heads]
    faults += [missing_mark(mark, heads, reader.hashes.get((mark.book, mark.number))) for mark in marks]
    return Verdict.of(heads, faults)


class _Reader:
    """The lines of a file, a book at a time; and what was met on the way."""

    def __init__(self, lines: Iterator[str], watched: Collection[tuple[Book, int]]) -> None:
        self._lines = lines
        self._watched = watched
        self.trims: list[dict[str, Any]] = []
        self.hashes: dict[tuple[Book, int], str] = {}
        self.head = _head(_parsed(next(lines, "").rstrip("\n")))
        """Of the book that comes next; None at the end."""
        if self.head is None:
            raise NotExported(NOT_EXPORTED)

    def entries(self, head: Head) -> Iterator[Entry]:
        """The records up to the next head."""
        self.head = None
        for number, line in enumerate(self._lines, head.base + 1):
            text = line.rstrip("\n")
            parsed = _parsed(text)
            self.head = _head(parsed)
            if self.head is not None:
                return
            found = _entry(parsed) or Entry(head.book, number, "", "", text, "")
            if found.event == Event.TRIMMED.value:
                self.trims.append(content(found).get("facts", {}))
            if (found.book, found.number) in self._watched:
                self.hashes[found.book, found.number] = found.hash
            yield found

    def skip(self) -> None:
        """Go on to the next head behind a fault."""
        while self.head is None and (line := next(self._lines, None)) is not None:
            self.head = _head(_parsed(line.rstrip("\n")))


_HEAD = ("base", "base_hash", "count", "hash")


def _parsed(text: str) -> dict[str, Any]:
    """What a line says; empty unless it is spelt as we spell it."""
    try:
        parsed = jsontext.parse_object(text.encode("utf-8", "surrogatepass"))
    except jsontext.JsonError:
        return {}
    return parsed if canonical(parsed) == text else {}


def _head(parsed: dict[str, Any]) -> Head | None:
    head = parsed.get("head")
    if not isinstance(head, dict) or set(head) != set(_HEAD) or set(parsed) != {"book", "head"}:
        return None
    kinds = (int, str, int, str)
    if not all(type(head[name]) is kind for name, kind in zip(_HEAD, kinds, strict=True)):
        return None
    return Head(book, **head) if (book := _BOOKS.get(str(parsed["book"]))) else None


def _entry(parsed: dict[str, Any]) -> Entry | None:
    known, book = parsed.pop("hash", None), _BOOKS.get(str(parsed.get("book")))
    if book is None or type(known) is not str or type(parsed.get("number")) is not int:
        return None
    return Entry(book, parsed["number"], str(parsed.get("time")), str(parsed.get("event")), canonical(parsed), known)


_BOOKS = {book.value: book for book in Book}
