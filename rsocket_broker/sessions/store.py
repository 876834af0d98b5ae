"""The record of child sessions in the home's database: who made them, until when, and how they ended.

Which session lives is decided in memory, by the tree. No session outlives the broker's process, since its root is a
line to it: what the record still calls alive at a start has ended with the process before. What has ended stays for a
while, so that the holder of an old token is told what became of it, and the operator sees what there was.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Self

import attrs

from rsocket_broker.audit import Audit, Event
from rsocket_broker.sessions.scope import Scope
from rsocket_broker.sessions.tokens import new_id, new_key
from rsocket_broker.sessions.tree import Node, NodeKind
from rsocket_broker.state import State
from rsocket_broker.transports.base import Channel

KEPT = timedelta(days=7)
"""How long a session that has ended is remembered: a week-end, and the days on which somebody asks about it."""
MAX_ENDED = 10_000
"""Sessions that have ended and are remembered; the oldest are forgotten first."""
TRIM_EVERY = 256
"""Ends between two looks at how many are remembered."""

TOLD = 512
"""Characters of a scope that the audit repeats: as many as of any other text, since peers choose them all."""

RESTARTED = "the broker was restarted"

_COMPONENT = "sessions"
_STEPS = (
    """
    CREATE TABLE session_key (one INTEGER PRIMARY KEY CHECK (one = 1), key BLOB NOT NULL) STRICT;
    CREATE TABLE child_session (
        id TEXT PRIMARY KEY, run TEXT NOT NULL, path TEXT NOT NULL, principal TEXT NOT NULL, kind TEXT NOT NULL,
        channel TEXT NOT NULL, since TEXT NOT NULL, expires TEXT NOT NULL, scope TEXT, rate REAL, user TEXT NOT NULL,
        device_id TEXT NOT NULL, name TEXT NOT NULL, platform TEXT NOT NULL, token BLOB NOT NULL UNIQUE,
        ended TEXT, reason TEXT
    ) STRICT;
    CREATE INDEX child_session_ended ON child_session (ended);
    """,
)


@attrs.frozen(slots=True, kw_only=True)
class Record:
    """One child session. `path` are the ids above it, parent first; `principal` is its root's, as text.

    `ended` is an aware datetime, None while it lives; `reason` says why it ended.
    """

    node: Node
    path: tuple[str, ...]
    principal: str
    ended: datetime | None = None
    reason: str = ""


class SessionStore:
    """The table of child sessions. Any thread."""

    def __init__(self, state: State, audit: Audit) -> None:
        """Raises HomeError."""
        self._state = state
        self._audit = audit
        self._since_trim = 0
        self.run = new_id()
        """Of this process: ids of roots mean something within it only."""
        state.migrate(_COMPONENT, _STEPS)
        self.key = self._read_key()
        """What the digests of tokens are made with."""

    @classmethod
    def open(cls, state: State, audit: Audit) -> Self:
        """The table, settled: at the start of a broker. Raises HomeError."""
        store = cls(state, audit)
        store.settle(datetime.now(UTC))
        return store

    def _read_key(self) -> bytes:
        rows = self._state.read("SELECT key FROM session_key")
        if rows:
            return bytes(rows[0]["key"])
        with self._state.transaction() as database:
            database.execute("INSERT OR IGNORE INTO session_key VALUES (1, ?)", (new_key(),))
            return bytes(database.execute("SELECT key FROM session_key").fetchone()["key"])

    def settle(self, now: datetime) -> int:
        """End what a process before this one has left, and forget what ended long ago. Returns how many it ended."""
        left = self._state.read("SELECT id FROM child_session WHERE ended IS NULL AND run != ?", (self.run,))
        old = self._state.read("SELECT 1 FROM child_session WHERE ended < ? LIMIT 1", (_text(now - KEPT),))
        if not left and not old:
            return 0
        with self._state.transaction() as database:
            database.execute(
                "UPDATE child_session SET ended = ?, reason = ? WHERE ended IS NULL AND run != ?",
                (_text(now), RESTARTED, self.run),
            )
            _trim(database, now)
            if left:
                self._audit.write(database, Event.SESSION, action="end", count=len(left), reason=RESTARTED)
        return len(left)

    def add(self, record: Record, token: bytes) -> None:
        """A child session begins; `token` is the digest of its token. Raises HomeError."""
        node = record.node
        row = {
            "id": node.id,
            "run": self.run,
            "path": json.dumps(record.path),
            "principal": record.principal,
            "kind": node.kind.value,
            "channel": node.channel.value,
            "since": _text(node.since),
            "expires": _text(node.expires),
            "scope": None if node.scope is None else json.dumps(node.scope),
            "rate": node.rate,
            "user": node.user,
            "device_id": node.device_id,
            "name": node.name,
            "platform": node.platform,
            "token": token,
        }
        names = ", ".join(row)
        places = ", ".join(f":{name}" for name in row)
        with self._state.transaction() as database:
            database.execute(f"INSERT INTO child_session ({names}) VALUES ({places})", row)  # noqa: S608  # names of ours
            self._audit.write(
                database,
                Event.SESSION,
                action="login",
                session=node.id,
                parent=node.parent,
                client=record.principal,
                kind=node.kind,
                channel=node.channel,
                user=node.user,
                expires=node.expires,
                scope=None if node.scope is None else _told(node.scope),
            )

    def end(self, ended: Iterable[Record]) -> None:
        """Child sessions have ended, each at its time and for its reason. Raises HomeError."""
        with self._state.transaction() as database:
            for record in ended:
                assert record.ended is not None
                node, reason, now = record.node.id, record.reason, _text(record.ended)
                changed = database.execute(
                    "UPDATE child_session SET ended = ?, reason = ? WHERE id = ? AND ended IS NULL", (now, reason, node)
                )
                if changed.rowcount:
                    self._since_trim += 1
                    self._audit.write(database, Event.SESSION, action="end", session=node, reason=reason)
                if self._since_trim >= TRIM_EVERY:
                    self._since_trim = 0
                    _trim(database, record.ended)

    def by_token(self, digest: bytes) -> Record | None:
        """The session, live or ended, whose token has this digest."""
        return next(iter(self._read("WHERE token = ?", digest)), None)

    def get(self, node_id: str) -> Record | None:
        """A session of this process, live or ended."""
        return next(iter(self._read("WHERE id = ? AND run = ?", node_id, self.run)), None)

    def ended(self) -> list[Record]:
        """Those that have ended and are remembered, oldest first."""
        return self._read("WHERE ended IS NOT NULL ORDER BY ended, rowid")

    def _read(self, condition: str, *parameters: object) -> list[Record]:
        rows = self._state.read(f"SELECT * FROM child_session {condition}", parameters)  # noqa: S608  # ours, each
        return [_record(row) for row in rows]


def _told(scope: Scope) -> list[str]:
    """The patterns from the first on, as many as fit, and dots for the others."""
    ends = accumulate(map(len, scope))
    told = [pattern for pattern, end in zip(scope, ends, strict=True) if end <= TOLD]
    return told if len(told) == len(scope) else [*told, "..."]


def _trim(database: sqlite3.Connection, now: datetime) -> None:
    database.execute("DELETE FROM child_session WHERE ended < ?", (_text(now - KEPT),))
    database.execute(
        "DELETE FROM child_session WHERE rowid IN "
        "(SELECT rowid FROM child_session WHERE ended IS NOT NULL ORDER BY ended DESC, rowid DESC LIMIT -1 OFFSET ?)",
        (MAX_ENDED,),
    )


def _record(row: sqlite3.Row) -> Record:
    path: Sequence[str] = json.loads(row["path"])
    node = Node(
        id=row["id"],
        kind=NodeKind(row["kind"]),
        channel=Channel(row["channel"]),
        since=datetime.fromisoformat(row["since"]),
        expires=datetime.fromisoformat(row["expires"]),
        parent=next(iter(path), None),
        scope=None if row["scope"] is None else tuple(json.loads(row["scope"])),
        rate=row["rate"],
        user=row["user"],
        device_id=row["device_id"],
        name=row["name"],
        platform=row["platform"],
    )
    ended = None if row["ended"] is None else datetime.fromisoformat(row["ended"])
    return Record(node=node, path=tuple(path), principal=row["principal"], ended=ended, reason=row["reason"] or "")


def _text(moment: datetime) -> str:
    """In UTC and of one length, so that text sorts as time does."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
