"""Sessions below others: made by a live one, opened with a token, and ended with whatever is above them.

The tree says who lives; `Children` joins it to the lines that are open, to the tokens, to the clock and to the record
in the database. Ending a session is done at once and in one step: from the moment at which `end` is called no token
of it opens anything and nothing more is served on its line, nor on any line below it. Only the goodbyes take time.
"""

import asyncio
import hmac
import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from time import monotonic
from typing import Final

import attrs

from rsocket_broker.errors import ApplicationError, HomeError, SetupRefused
from rsocket_broker.identity import Identity
from rsocket_broker.moments import utc_now
from rsocket_broker.quiet_log import QuietLog
from rsocket_broker.routing.session import Session
from rsocket_broker.routing.tasks import Tasks
from rsocket_broker.sessions.login import AUDIENCES
from rsocket_broker.sessions.rate import Bucket
from rsocket_broker.sessions.store import Record, SessionStore
from rsocket_broker.sessions.tokens import new_id, new_key, new_token, token_digest
from rsocket_broker.sessions.tree import Node, Tree, TreeLimits, Wish
from rsocket_broker.transports.base import Channel

GOODBYE: Final = 0.05
"""Seconds for the errors and the goodbye to reach a client whose session was ended; then the line is cut."""
LONGEST_SLEEP: Final = 30.0
"""Seconds between two looks at who has expired: the clock of the machine may be set, or stand still while it sleeps."""

UNKNOWN: Final = "There is no session for this token here. Ask for a new one with sessions.login."
EXPIRED: Final = "its time is over"
PARENT_GONE: Final = "the session above it has ended"

logger = logging.getLogger(__name__)


@attrs.frozen(slots=True)
class Ended:
    """What one revoke has ended: the nodes, children first, the sessions of them that had a line, and the number of
    streams that were open on those."""

    nodes: Sequence[Node] = ()
    lines: Sequence[Session] = ()
    streams: int = 0


class Children:
    """The tree of one broker and all that hangs on it. Not thread-safe: it lives on the event loop."""

    def __init__(
        self,
        store: SessionStore | None = None,
        limits: TreeLimits | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Without a `store` nothing is known of sessions that have ended."""
        self.tree = Tree(limits)
        self.store = store
        self._tasks = Tasks()
        self._clock = clock
        self._key = new_key() if store is None else store.key
        self._lines: dict[str, Session] = {}
        """Who is connected, by node."""
        self._tokens: dict[bytes, str] = {}
        """The nodes, by the digest of their token."""
        self._digests: dict[str, bytes] = {}
        self._buckets: dict[str, Bucket] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._unwritten: list[Record] = []
        """What has ended, on its way into the database."""
        self._writing = False
        self._log = QuietLog(logger)

    # --- lines -------------------------------------------------------------------------------------------------------

    def enter(self, session: Session) -> None:
        """A client was let in; where it has a certificate, its session is a root from now on."""
        if not session.is_child:
            self.tree.add_root(session.node)
        self._lines[session.node.id] = session

    def leave(self, session: Session) -> Ended:
        """The line has gone. A root ends with it; a child may come back as long as its token is good."""
        if self._lines.get(session.node.id) is not session:
            return Ended()
        del self._lines[session.node.id]
        return Ended() if session.is_child else self.end(session.node.id, PARENT_GONE)

    def line(self, node_id: str) -> Session | None:
        """The session that is connected for a node."""
        return self._lines.get(node_id)

    def descendants(self, session: Session) -> list[Session]:
        """The sessions below this one that are connected, children before their parents."""
        found = (self._lines.get(node.id) for node in self.tree.descendants(session.node.id))
        return [one for one in found if one is not None]

    # --- tokens ------------------------------------------------------------------------------------------------------

    async def login(self, parent_id: str, wish: Wish) -> tuple[Node, str]:
        """Make a child of a live session. Returns it with its token, which is known to nobody from then on.

        Raises ApplicationError where the wish cannot be granted, Rejected at a limit, HomeError.
        """
        lineage = self.tree.lineage(parent_id)
        root = self._lines.get(lineage[-1].id) if lineage else None
        if root is None:
            raise ApplicationError(f"There is no live session {parent_id[:64]} that could have a child.")
        self.tree.renew_root(root.node.id, root.identity.not_after)  # it may have been renewed since
        node = self.tree.add_child(new_id(), parent_id, wish, self._clock())
        token = new_token()
        digest = token_digest(self._key, node.channel, token.encode())
        self._tokens[digest], self._digests[node.id] = node.id, digest
        self._count_requests(node)
        self._set_timer()
        await self._record(node, tuple(one.id for one in lineage), root.identity, digest)
        logger.info("%s (%s) was made below %s", node.id, node.kind.value, parent_id)
        return node, token

    async def _record(self, node: Node, path: tuple[str, ...], identity: Identity, digest: bytes) -> None:
        if self.store is not None:
            try:
                record = Record(node=node, path=path, principal=str(identity.principal))
                await asyncio.to_thread(self.store.add, record, digest)
            except BaseException:
                self.end(node.id, "it could not be recorded")
                raise
        if self.tree.get(node.id) is None:
            self._write_later([Record(node=node, path=path, principal="", ended=self._clock(), reason=PARENT_GONE)])
            raise ApplicationError("The session that asks has ended meanwhile, and the new one with it.")

    def open(self, token: bytes, channel: Channel, identity: Identity | None) -> tuple[Node, ...]:
        """The session that a token opens on this channel, and those above it. `identity` is that of the certificate
        beside the token, None on a channel without.

        Raises SetupRefused: all the same for a token that is unknown here and for one that is somebody else's.
        """
        digest = token_digest(self._key, channel, token)
        node_id = self._tokens.get(digest)
        if node_id is None or not hmac.compare_digest(self._digests[node_id], digest):
            raise SetupRefused(self._what_became_of(digest))
        now = self._clock()
        for one in self.tree.due(now):
            self.end(one, EXPIRED)
        lineage = self.tree.lineage(node_id)
        root = self._lines.get(lineage[-1].id) if lineage else None
        if root is None or any(node.expires <= now for node in lineage[:-1]):
            raise SetupRefused(self._what_became_of(digest))
        if identity is not None and identity.principal != root.identity.principal:
            raise SetupRefused(UNKNOWN)
        return lineage

    def _what_became_of(self, digest: bytes) -> str:
        """For somebody who holds a token that was good once: nobody else can name its digest."""
        record = self._ended(self._tokens.get(digest), digest)
        if record is None or record.ended is None:
            return UNKNOWN
        return f"The session of this token has ended: {record.reason}. Ask for a new one with sessions.login."

    def holder(self, token: bytes) -> Node | None:
        """The live session that has this token, wherever it is good."""
        found = map(self._tokens.get, self._digests_of(token))
        return next((node for one in found if one is not None and (node := self.tree.get(one))), None)

    def ended(self, node_id: str) -> Record | None:
        """A session of this broker's run that has ended, as long as it is remembered."""
        return self._ended(node_id, None)

    def ended_by_token(self, token: bytes) -> Record | None:
        """The same by its token, wherever that was good."""
        found = (self._ended(self._tokens.get(digest), digest) for digest in self._digests_of(token))
        return next((record for record in found if record is not None), None)

    def _digests_of(self, token: bytes) -> list[bytes]:
        return [token_digest(self._key, channel, token) for channel in AUDIENCES.values()]

    def _ended(self, node_id: str | None, digest: bytes | None) -> Record | None:
        waiting = next((record for record in self._unwritten if record.node.id == node_id), None)
        if waiting is not None or self.store is None:
            return waiting
        if digest is not None:
            return self.store.by_token(digest)
        return None if node_id is None else self.store.get(node_id)

    def above(self, lineage: Sequence[Node]) -> Session:
        """The nearest session above a node that is connected; its root is, at least."""
        return next(line for node in lineage[1:] if (line := self._lines.get(node.id)) is not None)

    # --- rates -------------------------------------------------------------------------------------------------------

    def _count_requests(self, node: Node) -> None:
        if node.rate is not None:
            self._buckets[node.id] = Bucket(node.rate, monotonic())

    def buckets(self, lineage: Iterable[Node]) -> tuple[Bucket, ...]:
        """What the requests of a session are counted in: its own, and those of the sessions above it."""
        return tuple(self._buckets[node.id] for node in lineage if node.id in self._buckets)

    # --- the end -----------------------------------------------------------------------------------------------------

    def end(self, node_id: str, reason: str, answering: Session | None = None) -> Ended:
        """End a session and all below it. When this returns, nothing is served for them any more; their lines close
        by themselves, that of `answering` once it has had the answer to its own request. Nothing happens when the
        session had ended already."""
        above = self.tree.lineage(node_id)[1:]
        nodes = self.tree.revoke(node_id)
        if not nodes:
            return Ended()
        lines = [line for node in nodes if (line := self._lines.pop(node.id, None)) is not None]
        streams = 0
        for line in lines:
            line.over = f"This session has ended: {reason if line.node.id == node_id else PARENT_GONE}."
            line.changed()
            line.access.forget()  # also what waits for a decision
            if line is answering:
                asyncio.get_running_loop().call_later(GOODBYE, _expel, line)
            else:
                streams += _expel(line)
        children = [node for node in nodes if node.parent is not None]
        for node in children:
            self._buckets.pop(node.id, None)
        self._write_later(_records(nodes, above, reason, self._clock()))
        if children:
            words = "%s has ended, and %d sessions below it: %s"
            self._log.write(logging.INFO, "ends", words, node_id, len(nodes) - 1, reason)
        return Ended(nodes, lines, streams)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.tree.next_due
        if due is not None:
            wait = min(max(0.0, (due - self._clock()).total_seconds()), LONGEST_SLEEP)
            self._timer = asyncio.get_running_loop().call_later(wait, self._expire)

    def _expire(self) -> None:
        for node_id in self.tree.due(self._clock()):
            self.end(node_id, EXPIRED)
        self._timer = None
        self._set_timer()

    async def stop(self, timeout: float) -> None:
        """The broker stops: nothing is looked at again by itself, and what has ended is written down."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._tasks.wait(timeout)

    # --- the record --------------------------------------------------------------------------------------------------

    def _write_later(self, ended: list[Record]) -> None:
        """Into the database, off the loop. The digests stay until then, so that their holders are told the reason."""
        if not ended:
            return
        self._unwritten += ended
        if not self._writing:
            self._writing = True
            self._tasks.spawn(self._write())

    async def _write(self) -> None:
        try:
            while self._unwritten:
                batch = list(self._unwritten)
                if self.store is not None:
                    await asyncio.to_thread(self.store.end, batch)
                del self._unwritten[: len(batch)]
                for record in batch:
                    self._forget_token(record.node)
        except (HomeError, sqlite3.Error) as error:
            logger.error("the end of %d sessions could not be recorded: %s", len(self._unwritten), error)
            for record in self._unwritten:
                self._forget_token(record.node)
            self._unwritten.clear()
        finally:
            self._writing = False

    def _forget_token(self, node: Node) -> None:
        digest = self._digests.pop(node.id, None)
        if digest is not None:
            self._tokens.pop(digest, None)


def _records(nodes: Sequence[Node], above: Sequence[Node], reason: str, now: datetime) -> list[Record]:
    """Of the children among the nodes that have ended together; the last of them is the one that was revoked."""
    by_id = {node.id: node for node in (*nodes, *above)}
    found = []
    for node in nodes:
        path, at = [], node.parent
        while at in by_id and at not in path:
            path.append(at)
            at = by_id[at].parent
        why = reason if node is nodes[-1] else PARENT_GONE
        if node.parent is not None:
            found.append(Record(node=node, path=tuple(path), principal="", ended=now, reason=why))
    return found


def _expel(line: Session) -> int:
    """Returns how many streams were open."""
    asyncio.get_running_loop().call_later(GOODBYE, line.connection.abort)
    return line.connection.expel(line.over)
