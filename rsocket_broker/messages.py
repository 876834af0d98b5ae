"""A line of plain messages: Flipper's JSON over WebSocket, where an answer is a message that repeats its number.

`MessageLine` is to a session what `Connection` is to it over RSocket, as far as messages can say it. It knows nothing
of TLS or HTTP: below it is whatever carries messages, above it a responder.
"""

import asyncio
import contextlib
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, NoReturn
from typing import Protocol as Interface

from rsocket_broker.claims import Claims
from rsocket_broker.connection import CATCH_UP, CLOSE_GRACE, LATE
from rsocket_broker.errors import ApplicationError, BrokerError, ConnectionClosed, Rejected, RequestFailed
from rsocket_broker.expiries import Expiries, no_answer
from rsocket_broker.flow import RequestedStream, payload_size
from rsocket_broker.histogram import Histogram
from rsocket_broker.jsontext import JsonError, parse_bytes
from rsocket_broker.payload import ErrorCode, Payload
from rsocket_broker.pressure import Pressure
from rsocket_broker.protocol.frames import Octets
from rsocket_broker.protocol.limits import SECURE, Limits
from rsocket_broker.protocol.relay import Find, Relaying
from rsocket_broker.protocol.runs import Shortcuts
from rsocket_broker.quiet_log import QuietLog
from rsocket_broker.quota import FULL, STEP, Holding, Kind, counted
from rsocket_broker.transports.base import Peer, TextTransport
from rsocket_broker.work import Work

PING_AFTER: Final = 30.0
"""Seconds of silence after which the client is asked for a sign of life: SDKs on Android ping once a minute only."""
SILENCE: Final = 90.0
"""Seconds of silence after which a client is gone: as long as the library in Android's SDKs waits for us."""
SEARCHED: Final = 64 * 1024
"""Bytes of a message that is parsed to find its number: some 20 ms where it is made to take long. In a longer one the
number stands first or last, as in every answer that an SDK writes: to parse it here would hold everybody up, and
whoever takes the message parses it anyhow."""

NORMAL, SERVICE_RESTART, POLICY = 1000, 1012, 1008
"""Close codes (RFC 6455 7.4.1 and its registry). Clients come back after any but the first: it is for those whose place
a newer line has taken, and for those who have said goodbye themselves."""

NO_NUMBER: Final = "A question without a number can have no answer."
NONE_SUCH: Final = "Flipper's JSON, which the app speaks, has calls and messages, and nothing else."

_GAP: Final = rb"\s{0,32}+"
"""White space as it is written for people. Without a bound, a message of nothing else would be searched for seconds."""
_NUMBER: Final = rb'"id"' + _GAP + rb":" + _GAP + rb"(-?(?:0|[1-9]\d{0,17}))" + _GAP
_FIRST: Final = re.compile(_GAP + rb"\{" + _GAP + _NUMBER + rb"[,}]")
_LAST: Final = re.compile(rb"[,{]\s*" + _NUMBER + rb"\}\s*$")
_TAIL: Final = 64
"""Bytes at the end of a message in which a number that stands last is looked for."""
_EVENTS: Final = (b'{"method"', b'{"params"')
"""How SDKs begin what is no answer."""

_failures: Final = QuietLog(logging.getLogger(__name__))


class MessageResponder(Interface):
    """What judges a client, takes its messages, and hears of the end."""

    def setup(self, connection: "MessageLine", setup: Claims) -> None:
        """Judges who comes. Raise SetupRefused to refuse it."""

    def fire_and_forget(self, payload: Payload) -> Awaitable[None] | None:
        """A message. As `Handlers.fire_and_forget`, except that nobody is told of an error."""

    def closed(self, error: ConnectionClosed) -> None:
        """The line has ended, or was refused by `setup`. Called exactly once."""


class MessageLine:
    """A `Line` of messages, and the TextReceiver of its transport. First `open`, then `transport_ready`."""

    def __init__(
        self,
        responder: MessageResponder,
        limits: Limits = SECURE,
        holding: Holding | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Of `limits` hold: `message`, `outgoing`, and `streams` for answers that are waited for."""
        self.holding = Holding() if holding is None else holding
        self.holding.changed = self._on_room
        self._outgoing = 0
        """What the holding knows of what waits for the peer."""
        self.opened = clock()
        self.closing: ConnectionClosed | None = None
        self.metadata_mime = ""
        self.data_mime = ""
        self.keepalive = 0.0
        self.bytes_in = self.bytes_out = self.frames_in = self.frames_out = self.requests_served = 0
        self.answer_seconds: Histogram | None = None
        self.on_suspended: Callable[[], None] | None = None
        self.shortcuts = Shortcuts()
        self.pressure = Pressure(clock, self._choose_reading)
        self._peer: Peer | None = None
        self._responder = responder
        self._limits = limits
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._transport: TextTransport | None = None
        self._early: list[bytes] = []
        """What was sent before the line was ready."""
        self._expiries = Expiries(self._loop)
        self._answers = self._expiries.waits
        self._work = Work(self._loop, limits.streams, self.holding)
        self._refusing = False
        self._may_write = asyncio.Event()
        self._may_write.set()
        self.may_ask = True
        self._queued_before = 0
        self._last_heard = self.opened
        self._timer: asyncio.TimerHandle | None = None
        self._rings = math.inf
        self._lost: asyncio.Future[ConnectionClosed] = self._loop.create_future()

    # ---- what it is, and how it stands -----------------------------------------------------------------------

    relaying: Relaying | None = None
    suspended = resumable = False
    times_resumed = streams_waiting = 0

    @property
    def peer(self) -> Peer:
        assert self._peer is not None
        return self._peer

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def certificate(self) -> bytes | None:
        return None if self._peer is None or self._lost.done() else self._peer.certificate

    @property
    def silence(self) -> float:
        """Seconds since the peer was heard last, or took what was sent while it was not read from."""
        return self._clock() - self._last_heard

    @property
    def streams_open(self) -> int:
        """Answers that are waited for, and messages that are at work."""
        return len(self._answers) + len(self._work)

    @property
    def bytes_waiting(self) -> int:
        return sum(map(len, self._early)) if self._transport is None else self._transport.queued

    @property
    def bytes_unwritten(self) -> int:
        return 0 if self._transport is None or self._lost.done() else self._transport.queued

    @property
    def partners(self) -> set[str]:
        return set()

    def relay(self, name: str, find: Find | None) -> None:
        """Nothing is passed on in messages: they have no routes."""

    def widen(self, limits: Limits) -> None:
        self._limits = limits
        self._work.limit = limits.streams

    def forget_resumption(self) -> None:
        """There is none."""

    # ---- asking ----------------------------------------------------------------------------------------------

    async def wait_to_ask(self, timeout: float | None) -> float | None:
        """As `Connection.wait_to_ask`."""
        ends = None if timeout is None else self._loop.time() + timeout
        try:
            async with asyncio.timeout_at(ends):
                await self.drain()
        except TimeoutError:
            raise no_answer(timeout) from None
        return ends

    def ask(
        self,
        data: Octets,
        metadata: Octets | None,
        timeout: float | None,
        ends: float | None = None,
        about: object = None,
    ) -> "tuple[int, asyncio.Future[Payload | bytes]]":
        """Sends a message that has a number, as its first or last member, and gives that number and the answer's
        future, as `Connection.ask` does. `metadata` is None.

        Raises ConnectionClosed; Rejected when too much waits already; ApplicationError for a message without a number,
        or with one that is waited for.
        """
        text = bytes(data)
        number = number_of(text)
        if metadata or number is None or number in self._answers:
            raise ApplicationError(NONE_SUCH if metadata else NO_NUMBER)
        self._need_room(len(text))
        if len(self._answers) >= self._limits.streams:
            raise Rejected(f"{len(self._answers)} answers are waited for already")
        answer: asyncio.Future[Payload | bytes] = self._loop.create_future()
        if timeout is None:
            self._answers[number] = (answer, math.inf, None, about)
        else:
            self._expiries.add(number, answer, self._loop.time() + timeout if ends is None else ends, timeout, about)
        self._send(text)
        return number, answer

    def asked(self) -> "list[tuple[asyncio.Future[Payload | bytes], Any]]":
        return [(answer, about) for answer, _, _, about in self._answers.values() if about is not None]

    def unask(self, stream_id: int) -> None:
        """Nobody waits for this answer any more: it is ignored when it comes."""
        self._answers.pop(stream_id, None)

    async def request_response(self, payload: Payload, timeout: float | None = None) -> Payload:
        """The answer to a message that has a number. Raises what `ask` does, and TimeoutError."""
        ends = None if self.may_ask else await self.wait_to_ask(timeout)
        number, answer = self.ask(payload.data or b"", payload.metadata, timeout, ends)
        try:
            found = await answer
        finally:
            self.unask(number)
        return Payload(found, None) if isinstance(found, bytes) else found

    def fire_and_forget(self, payload: Payload) -> None:
        """Sends a message. Raises ConnectionClosed, and Rejected when too much waits for a peer that does not read."""
        if payload.metadata:
            raise ApplicationError(NONE_SUCH)
        self._need_room(payload_size(payload))
        self._send(bytes(payload.data or b""))

    def request_stream(self, payload: Payload) -> RequestedStream:
        self._refuse()

    def request_channel(self, payload: Payload, outgoing: AsyncIterator[Payload]) -> RequestedStream:
        self._refuse()

    def metadata_push(self, metadata: bytes) -> None:
        self._refuse()

    @staticmethod
    def _refuse() -> NoReturn:
        raise ApplicationError(NONE_SUCH)

    async def drain(self) -> None:
        """Waits while the peer is slow to read. Raises ConnectionClosed when it is gone."""
        while not self._may_write.is_set():
            await self._may_write.wait()
        if self.closing is not None:
            raise self._closed_error()

    # ---- the end ---------------------------------------------------------------------------------------------

    async def close(self, text: str = "", code: int | None = None, grace: float = CLOSE_GRACE) -> None:
        """Says goodbye, lets it reach the peer for at most `grace` seconds, and ends the line.

        `code` is RSocket's: with CONNECTION_ERROR the client is told that it is not missed.
        """
        told = NORMAL if code == ErrorCode.CONNECTION_ERROR else SERVICE_RESTART
        self._finish(ConnectionClosed(text or "the connection is closed", code), told)
        if not self._lost.done() and not (await asyncio.wait([self._lost], timeout=grace))[0]:
            assert self._transport is not None
            self._transport.abort()
            await self.wait_closed()

    def expel(self, text: str) -> int:
        """As `Connection.expel`. Those who wait for the client are told, which is not."""
        open_now = self.streams_open
        self._finish(ConnectionClosed(text, ErrorCode.CONNECTION_ERROR), POLICY)
        return open_now

    def abort(self) -> None:
        self._finish(ConnectionClosed("the connection was cut"), NORMAL)
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> ConnectionClosed:
        await asyncio.wait([self._lost])
        return self._lost.result()

    def when_lost(self, callback: Callable[[Any], object]) -> None:
        self._lost.add_done_callback(lambda _: callback(self))

    async def drain_requests(self, timeout: float) -> None:
        """Takes no more messages, answers excepted, and waits for those at work, at most `timeout` seconds."""
        self._refusing = True
        await self._work.wait(timeout)

    def end_work(self, refused: "Mapping[asyncio.Task[Any], RequestFailed]") -> None:
        for stream_id, _ in self._work.streams_of(refused):
            self._work.stop(stream_id)

    # ---- TextReceiver ----------------------------------------------------------------------------------------

    def open(self, peer: Peer, claims: Claims) -> None:
        """Lets the responder judge who comes, before anything is said to it. Raises SetupRefused, among others."""
        self._peer = peer
        try:
            self._responder.setup(self, claims)
        except BaseException as error:
            text = error.public if isinstance(error, BrokerError) else "the client was not let in"
            self._finish(ConnectionClosed(text, getattr(error, "code", ErrorCode.REJECTED_SETUP)), POLICY)
            raise

    def transport_ready(self, transport: TextTransport) -> None:
        self._transport = transport
        transport.count_in(self.holding)
        self._last_heard = self._clock()
        if self.closing is not None:  # in between
            transport.abort()
            return
        early, self._early = self._early, []
        for text in early:
            self._put(transport, text)
        self._ring_in(PING_AFTER)

    def heard(self, size: int) -> None:
        self.bytes_in += size
        self._last_heard = self._clock()

    def message_received(self, text: bytes) -> None:
        if self.closing is not None:
            return
        self.frames_in += 1
        number = number_of(text)
        if number is not None:
            wait = self._answers.pop(number, None)
            if wait is not None and not wait[0].done():
                wait[0].set_result(text)
        elif not self._refusing:
            self._serve(text)

    def eof_received(self) -> None:
        self._finish(ConnectionClosed("the client has said goodbye"), NORMAL)

    def writing_paused(self) -> None:
        self._may_write.clear()
        self.may_ask = False
        self._queued_before = 0 if self._transport is None else self._transport.queued
        self._count_outgoing()
        self.pressure.begin()
        self._choose_reading()

    def writing_resumed(self) -> None:
        self._last_heard = self._clock()
        self._may_write.set()
        self.may_ask = self.closing is None
        self._count_outgoing()
        self.pressure.end()
        self._choose_reading()

    def transport_lost(self, error: Exception | None) -> None:
        closing = ConnectionClosed("the connection was lost" if error is None else f"the connection was lost: {error}")
        closing.__cause__ = error
        self._finish(closing, NORMAL)
        if not self._lost.done():
            self._lost.set_result(self._closed_error())
        self.holding.close()

    # ---- one message -----------------------------------------------------------------------------------------

    def _serve(self, text: bytes) -> None:
        self.requests_served += 1
        shortcut = self.shortcuts.fires.get(None)
        if shortcut is not None:
            shortcut(text)
            return
        try:
            work = self._responder.fire_and_forget(Payload(text, None))
            if work is not None:
                self._work.start(self.requests_served, work, self._forgotten(self.requests_served, work))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # a handler's bug must not end the line
            self._explain(error)

    async def _forgotten(self, number: int, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001  # as in _serve
            self._explain(error)
        finally:
            self._work.done(number)

    def _explain(self, error: BaseException) -> None:
        """What nobody foresaw goes into our log, whole; the rest was told by those who have refused it."""
        if not isinstance(error, BrokerError):
            address = "nobody" if self._peer is None else self._peer.address
            kind = type(error).__name__
            _failures.write(logging.ERROR, kind, "a handler failed with a message of %s", address, error=error)

    def _need_room(self, size: int) -> None:
        """Raises what keeps a message of that size from being sent now."""
        if self.closing is not None:
            raise self._closed_error()
        if size > self._limits.message:
            raise Rejected(f"a message has up to {self._limits.message} bytes")
        waiting = self.bytes_waiting
        if waiting > self._limits.outgoing:
            raise Rejected("too much is waiting for a peer that does not read")
        if waiting >= STEP or self._outgoing:
            self._count_outgoing()
            if not self.holding.bears(size):
                raise Rejected(FULL)

    def _count_outgoing(self) -> None:
        """Counts what waits for the peer, where that is much, or was."""
        size = counted(self.bytes_waiting)
        if size != self._outgoing:
            self._outgoing = size
            self.holding.note(Kind.OUTGOING, size)

    def _send(self, text: bytes) -> None:
        if self._transport is None:
            self._early.append(text)
        else:
            self._put(self._transport, text)

    def _put(self, transport: TextTransport, text: bytes) -> None:
        self.frames_out += 1
        self.bytes_out += len(text)
        transport.send(text)

    # ---- reading, silence, the end ---------------------------------------------------------------------------

    def _on_room(self) -> None:
        """As `Connection._on_room`."""
        if self.holding.crowded:
            self.pressure.crowd(self._give_up_waiting)
        else:
            self.pressure.relax()

    def _give_up_waiting(self) -> None:
        """There was no room for too long. A message that has begun cannot be let go alone: its line goes with it."""
        if self.holding.held(Kind.MESSAGE) and not self.holding.bears():
            self._finish(ConnectionClosed(FULL), SERVICE_RESTART)
        self.holding.relax()

    def _choose_reading(self) -> None:
        """Reads only while answers can be written: so a client that asks and does not read is told to wait."""
        if self._transport is None or self.closing is not None:
            return
        if self._may_write.is_set() and not self.pressure.held:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _ring_in(self, delay: float) -> None:
        self._rings = self._clock() + delay
        self._timer = self._loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        """Asks a silent peer for a sign of life, and gives up one that has none."""
        now = self._clock()
        if now - self._rings > LATE:  # what peers have sent meanwhile lies unread: it is read first
            self._ring_in(CATCH_UP)
            self._rings = math.inf
            return
        assert self._transport is not None
        if not self._may_write.is_set():
            if self._transport.queued < self._queued_before:
                self._last_heard = now  # it takes what is sent; we do not read from it
            self._queued_before = self._transport.queued
        if self._outgoing:
            self._count_outgoing()  # what was counted has gone out since, and an idle line sends nothing more
        quiet = now - self._last_heard
        if quiet >= SILENCE:
            self._finish(ConnectionClosed(f"nothing was heard of it for {SILENCE:g} s"), NORMAL)
            return
        if quiet >= PING_AFTER:
            self._transport.ping()
        self._ring_in(PING_AFTER if quiet >= PING_AFTER else max(CATCH_UP, PING_AFTER - quiet))

    def _closed_error(self) -> ConnectionClosed:
        """A fresh one for each who waits: an exception that is raised twice grows a tangled traceback."""
        how = self.closing
        return ConnectionClosed("the connection is closed") if how is None else ConnectionClosed(how.public, how.code)

    def _finish(self, how: ConnectionClosed, told: int) -> None:
        """Ends everything once; the client is told the close code `told`."""
        if self.closing is not None:
            return
        self.closing = how
        self.may_ask = False
        if self._timer is not None:
            self._timer.cancel()
        self._work.stop_all()
        for answer, *_ in self._answers.values():
            if not answer.done():
                answer.set_exception(self._closed_error())
        self._expiries.clear()
        self._early.clear()
        self._may_write.set()
        self.pressure.close()
        if self._transport is not None:
            self._transport.close(told, how.public)
        else:
            self._lost.set_result(self._closed_error())
            self.holding.close()
        try:
            self._responder.closed(self._closed_error())
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # as in _serve
            self._explain(error)


def number_of(text: bytes) -> int | None:
    """The number of an answer: the whole number under the key `id` of a message. None for what is no answer."""
    if text.startswith(_EVENTS):
        return None
    found = _FIRST.match(text) or _LAST.search(text, max(0, len(text) - _TAIL))
    if found is not None:
        return int(found[1])
    if len(text) > SEARCHED or b'"id"' not in text:
        return None
    with contextlib.suppress(JsonError):
        message = parse_bytes(text)
        number = message.get("id") if isinstance(message, dict) else None
        if isinstance(number, int | float) and not isinstance(number, bool) and number == int(number):
            return int(number)
    return None
