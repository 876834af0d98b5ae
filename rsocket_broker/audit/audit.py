"""`Audit`: writes records, in the transaction of what they tell of, or by and by from a queue that has bounds."""

import enum
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from rsocket_broker.audit import chain
from rsocket_broker.audit.events import Book, Event
from rsocket_broker.errors import HomeError
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
MAX_TEXT = 512
"""Characters kept of one text: peers choose some of them."""
MAX_ITEMS = 100
"""Kept of one list."""

_log = logging.getLogger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


class Audit:
    """The record of one home. Every method may be called from any thread."""

    def __init__(self, state: State, clock: Callable[[], datetime] = utc_now) -> None:
        self._state = state
        self._clock = clock
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._notes: list[tuple[str, Event, dict[str, object]]] = []
        self._timer: threading.Timer | None = None
        self._quiet = QuietLog(_log)
        state.migrate(COMPONENT, STEPS)

    def write(self, database: sqlite3.Connection, event: Event, **facts: object) -> None:
        """A record inside the transaction of the caller: the change and its record stand or fall together.

        Facts are texts, numbers, truth values, None and lists of these; enums and dates become text, texts are cut
        to MAX_TEXT. Raises TypeError for anything else, bytes above all: a secret is more often bytes than not.
        """
        self._append(database, to_text(self._clock()), event, plain(facts))

    def note(self, event: Event, **facts: object) -> None:
        """A record of its own, on the disk within a second or at `close`; never waits for the disk."""
        now, kept = to_text(self._clock()), plain(facts)
        with self._lock:
            self._notes.append((now, event, kept))
            if self._timer is None:
                self._timer = threading.Timer(FLUSH_S, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Write what was noted. A disk that fails is told to the log, and what could not be written is gone."""
        with self._flushing:
            with self._lock:
                notes, self._notes, self._timer = self._notes, [], None
            if not notes:
                return
            try:
                with self._state.transaction() as database:
                    for time, event, facts in notes:
                        self._append(database, time, event, facts)
            except (HomeError, sqlite3.Error) as error:
                self._quiet.write(
                    logging.ERROR, "audit", "%d audit records could not be written: %s", len(notes), error
                )

    def close(self) -> None:
        """Write what waits. Notes that come later start anew, so calling it again is harmless."""
        with self._lock:
            timer = self._timer
        if timer is not None:
            timer.cancel()
        self.flush()

    def _append(self, database: sqlite3.Connection, time: str, event: Event, facts: chain.Facts) -> None:
        head = read_head(database, event.book)
        added = chain.entry(head, time, event.value, facts)
        database.execute(
            "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)",
            (added.book.value, added.number, time, event.value, added.body, added.hash),
        )
        write_head(database, chain.after(head, added))


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


def to_text(time: datetime) -> str:
    """A moment as records have it: UTC, to the millisecond, of one length, so that texts sort as times do."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def plain(facts: dict[str, object]) -> dict[str, object]:
    """Facts as a record can hold them."""
    return {name: _plain(value) for name, value in facts.items()}


def _plain(value: object) -> object:
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else value[: MAX_TEXT - 1] + "…"
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, datetime):
        return to_text(value)
    if isinstance(value, (set, frozenset)):
        value = sorted(value)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [_plain(item) for item in value[:MAX_ITEMS]]
    raise TypeError(f"a record holds no {type(value).__name__}")
