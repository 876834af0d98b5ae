"""Revocation on a broker that runs: from the operator's word to the last frame that its holder gets.

The order is what makes it safe. First the database: from then on no certificate of those identifies anybody, whatever
handshake or resumption is under way, since each SETUP, RESUME and enrolment asks there in the turn in which it is let
in. Then the authority's lists, so that the next handshake has new TLS contexts: it is refused, and no ticket of before
is taken. Then whoever is still there: exchanges, sessions with all below them, and lines that have no session.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Final, Self, TypeVar

import attrs

from rsocket_broker.authority import Authority
from rsocket_broker.authority.revocation import Block, By, Revoked, Selector
from rsocket_broker.enrollment.enroller import Enroller
from rsocket_broker.enrollment.pending import Exchange
from rsocket_broker.errors import BrokerError, EnrollmentRefused
from rsocket_broker.lifecycle.contexts import CurrentContexts
from rsocket_broker.line import Line
from rsocket_broker.moments import timestamp
from rsocket_broker.routing.endpoint import SecureEndpoint
from rsocket_broker.routing.session import Session

BATCH: Final = 32
"""Sessions that are ended in one turn of the loop, some milliseconds: everybody else's calls go on in between."""
LAST_LINE: Final = 5.0
"""Seconds until a line that was cut off must be gone: a hundred times what it has to flush. Beyond, something is wrong
on our side, and the log says so."""

LOOK: Final = 0.001
"""Seconds between two looks at what is still to be written: usually all of it is in the same turn of the loop."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


@attrs.frozen(slots=True, kw_only=True)
class Receipt:
    """What one revocation has ended. When it is given out, nothing more is written to anybody whom it names.

    `certificates` were good until now; where there were none, `revoked_before` says how many had been revoked before.
    `descendants` are the sessions below `sessions`; `streams` were open on all of them; `resumptions` are sessions that
    could have been resumed. `enrolments` were under way, deployments that waited for a device included. `successors`
    are serial numbers (hex) of certificates that stay good, and were issued to renew the one that was revoked. Times
    are aware, and in UTC. Seconds count from the arrival of the command: until it was in the database, until the last
    frame was written, until the last line had closed, which is up to 50 ms more, and until the TLS contexts were made.
    `problem` says what the operator must still do.
    """

    whom: str
    reason: str
    certificates: int
    revoked_before: int
    blocks: tuple[str, ...]
    successors: tuple[str, ...]
    revoked: datetime
    sessions: int = 0
    descendants: int = 0
    streams: int = 0
    resumptions: int = 0
    enrolments: int = 0
    in_database: float | None = None
    last_frame: float | None = None
    last_line: float | None = None
    in_contexts: float | None = None
    problem: str | None = None

    @classmethod
    def of(cls, revoked: Revoked) -> Self:
        """Of what was done in the database alone, where nobody is connected."""
        return cls(
            whom=str(revoked.selector),
            reason=revoked.reason,
            certificates=len(revoked.serials),
            revoked_before=revoked.before,
            blocks=tuple(str(block.selector) for block in revoked.blocks),
            successors=tuple(f"{serial:x}" for serial in revoked.successors),
            revoked=revoked.time,
        )

    def describe(self) -> dict[str, object]:
        """As JSON, durations in milliseconds."""
        found = attrs.asdict(self, filter=lambda field, _: field.name not in _SECONDS)
        seconds = {name: getattr(self, name) for name in _SECONDS}
        times = {f"{name}_ms": None if value is None else round(value * 1000, 3) for name, value in seconds.items()}
        lists = {"blocks": list(self.blocks), "successors": list(self.successors)}
        return {**found, **lists, **times, "revoked": timestamp(self.revoked)}


_SECONDS = ("in_database", "last_frame", "last_line", "in_contexts")


@attrs.define(slots=True)
class _Tally:
    """What was ended so far."""

    sessions: int = 0
    descendants: int = 0
    streams: int = 0
    resumptions: int = 0
    lines: list[Line] = attrs.field(factory=list)


class Revoker:
    """One per broker, on its event loop."""

    def __init__(
        self,
        authority: Authority,
        endpoint: SecureEndpoint,
        enroller: Enroller,
        contexts: CurrentContexts,
        connections: Callable[[], Iterable[Line]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`connections` gives those of the ports for certified clients, with or without a session."""
        self._authority = authority
        self._endpoint = endpoint
        self._enroller = enroller
        self._contexts = contexts
        self._connections = connections
        self._clock = clock
        # Of its own: neither a crowd that enrols nor the contexts of the last one may keep a revocation waiting.
        self._threads = ThreadPoolExecutor(2, "revocation")

    async def revoke(self, selector: Selector, reason: str = "") -> Receipt:
        """Withdraw what `selector` names, and end all that lives by it.

        Raises AuthorityError and HomeError, and has changed nothing then. Cancelled, it has done all or nothing: what
        is in the database counts, and the rest follows.
        """
        return await asyncio.shield(asyncio.ensure_future(self._revoke(selector, reason)))

    async def _revoke(self, selector: Selector, reason: str) -> Receipt:
        begun = self._clock()
        revoked = await self._in_thread(lambda: self._withdraw(selector, reason))
        in_database = self._clock() - begun
        tally = _Tally()
        enrolments = self._drop_enrolments(revoked)
        await self._end_sessions(revoked, tally)
        self._cut_strangers(tally)
        await _until_written(tally.lines)
        last_frame = self._clock() - begun
        # Only now, beside the goodbyes: a handshake that comes before makes them itself.
        contexts = asyncio.ensure_future(self._renew_contexts())
        await _until_gone(tally.lines)
        last_line = self._clock() - begun
        problem = await contexts
        receipt = attrs.evolve(
            Receipt.of(revoked),
            sessions=tally.sessions,
            descendants=tally.descendants,
            streams=tally.streams,
            resumptions=tally.resumptions,
            enrolments=enrolments + await self._drop_deployments(revoked),
            in_database=in_database,
            last_frame=last_frame,
            last_line=last_line,
            in_contexts=self._clock() - begun,
            problem=problem,
        )
        _log.info(
            "revoked %s (%s): %d certificates, %d sessions and %d below them ended in %.0f ms",
            receipt.whom,
            receipt.reason,
            receipt.certificates,
            receipt.sessions,
            receipt.descendants,
            last_frame * 1000,
        )
        return receipt

    def _withdraw(self, selector: Selector, reason: str) -> Revoked:
        """In the database, and for the handshakes from now on."""
        revoked = self._authority.revocations.revoke(selector, reason)
        self._authority.changed()
        return revoked

    async def unblock(self, selector: Selector) -> Block:
        """Let whom `selector` names enrol again. Raises AuthorityError when it is not blocked."""
        block = await self._in_thread(lambda: self._authority.revocations.unblock(selector))
        _log.info("unblocked %s", block.selector)
        return block

    def named(self, by: By, value: str) -> Selector:
        """The selector that an operator means; a client may be named by the id of its session too.

        Raises AuthorityError.
        """
        session = self._endpoint.sessions.get(value) if by is By.CLIENT else None
        if session is not None:
            return Selector.client(session.identity.app_id, session.identity.device_id)
        return self._authority.revocations.selector(by, value)

    def stop(self) -> None:
        """The broker stops. What is in the database counts at the next start."""
        self._threads.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _renew_contexts(self) -> str | None:
        """So that no client has to wait for it. Returns what went wrong: then no handshake is let through at all."""
        try:
            await self._in_thread(self._contexts.prepare)
        except BrokerError as error:
            _log.error("no TLS contexts can be made after a revocation, so nobody gets in: %s", error.public)
            return f"Nobody can connect now, since no revocation list can be made: {error.public}"
        return None

    # --- what is under way -------------------------------------------------------------------------------------------

    def _drop_enrolments(self, revoked: Revoked) -> int:
        def refusal(exchange: Exchange) -> EnrollmentRefused | None:
            block = revoked.blocks[0] if revoked.blocks else None
            if exchange.serial in revoked.serials:
                return _withdrawn(revoked) if block is None else block.refusal()
            return block.refusal() if block is not None and _is_blocked(block, exchange) else None

        return self._enroller.pending.drop(refusal)

    async def _drop_deployments(self, revoked: Revoked) -> int:
        """Those that wait for their device would bring it a certificate that is good for nothing."""
        return await self._enroller.delivery.drop(revoked.serials) if revoked.serials else 0

    # --- who is there ------------------------------------------------------------------------------------------------

    async def _end_sessions(self, revoked: Revoked, tally: _Tally) -> None:
        """Ends the sessions of these certificates, and whatever is below them."""
        words = f"its certificate was revoked ({revoked.reason})"
        doomed = [one for one in self._endpoint.sessions if not one.is_child and revoked.ends(one.identity)]
        for number, session in enumerate(doomed, 1):
            self._end(session, words, tally)
            if not number % BATCH:
                await asyncio.sleep(0)
        self._endpoint.forget(revoked.ends)

    def _end(self, session: Session, words: str, tally: _Tally) -> None:
        children = self._endpoint.children
        if children.line(session.node.id) is not session:
            return  # it has left meanwhile
        lines = [*children.descendants(session), session]
        tally.sessions += 1
        tally.descendants += len(children.tree.descendants(session.node.id))
        tally.resumptions += session.connection.resumable
        for line in lines:
            tally.streams += line.connection.streams_open
            tally.lines.append(line.connection)
        children.end(session.node.id, words)

    def _cut_strangers(self, tally: _Tally) -> None:
        """Lines without a session that nobody would be let in by now: whoever has not said hello, or is on its way
        out, having been replaced."""
        known = {session.connection for session in self._endpoint.sessions}
        known.update(tally.lines)
        for connection in list(self._connections()):
            if connection not in known and not self._is_good(connection):
                connection.abort()
                tally.lines.append(connection)

    def _is_good(self, connection: Line) -> bool:
        certificate = connection.certificate
        if certificate is None:
            return True
        try:
            self._authority.identify(certificate)
        except BrokerError:
            return False
        return True


def _withdrawn(revoked: Revoked) -> EnrollmentRefused:
    return EnrollmentRefused("sign", f"The certificate was revoked at once ({revoked.reason}).", "Ask for another one.")


def _is_blocked(block: Block, exchange: Exchange) -> bool:
    """Whether an exchange can only be one of whom the block names. One whose device is not known yet is refused when
    it is."""
    who, principal = block.selector, exchange.principal
    if who.by is By.APP:
        return who.app_id == (exchange.app_id if principal is None else principal.app_id)
    if principal is None:
        return False
    device = principal.device_id == who.device_id
    return device if who.by is By.DEVICE else device and principal.app_id == who.app_id


async def _until_written(lines: list[Line]) -> None:
    """Until the last byte for each of these lines is with the kernel, or was dropped with the line."""
    deadline = asyncio.get_running_loop().time() + LAST_LINE
    waiting = [line for line in lines if line.bytes_unwritten]
    while waiting and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(LOOK)
        waiting = [line for line in waiting if line.bytes_unwritten]


async def _until_gone(lines: list[Line]) -> None:
    """Until nothing can be written on any of these lines any more."""
    left, gone = len(lines), asyncio.get_running_loop().create_future()

    def count(_: Line) -> None:
        nonlocal left
        left -= 1
        if not left and not gone.done():
            gone.set_result(None)

    for line in lines:
        line.when_lost(count)
    if lines and not (await asyncio.wait([gone], timeout=LAST_LINE))[0]:
        _log.error("%d of %d lines that were cut off are still there after %g s", left, len(lines), LAST_LINE)
