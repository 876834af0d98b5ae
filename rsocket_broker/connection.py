"""Where the engine meets asyncio: drives a Protocol over a transport, asks the peer, and ends it all once."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final
from typing import Protocol as Interface

from rsocket_broker.asking import FLUSH_AT, Asking
from rsocket_broker.errors import (
    BrokerError,
    Canceled,
    ConnectionClosed,
    RequestFailed,
    SetupRefused,
)
from rsocket_broker.histogram import Histogram
from rsocket_broker.payload import ErrorCode
from rsocket_broker.protocol.events import (
    AnswersReceived,
    CancelReceived,
    ConnectionEnded,
    ErrorReceived,
    Event,
    LeaseReceived,
    LineLost,
    LineResumed,
    MetadataPushReceived,
    PayloadReceived,
    RequestNReceived,
    RequestReceived,
    ResumeReceived,
    SetupAccepted,
    SetupReceived,
)
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.quota import FULL, STEP, Kind, counted
from rsocket_broker.serving import STOPPED, Handlers
from rsocket_broker.transports.base import Transport

LATE: Final = 0.1
"""Seconds by which a timer rings late when something has held the loop up, or the machine was asleep. What peers have
sent meanwhile lies unread, and uvloop, unlike asyncio, may ring before it reads."""
CATCH_UP: Final = 0.1
"""Seconds in which that is read first: else a handler that waits in a debugger would cost everybody the session."""
CLOSE_GRACE: Final = 2.0
"""Seconds that a goodbye may take to reach a peer before the line is cut."""


class Responder(Handlers, Interface):
    """What judges a connection, serves the peer's requests, and hears of the end."""

    def setup(self, connection: "Connection", setup: SetupReceived) -> Awaitable[None] | None:
        """Judges a SETUP (server side only). Raise SetupRefused to refuse it; nothing later is read until this ends."""

    def closed(self, error: ConnectionClosed) -> None:
        """The connection has ended. Called exactly once, whether or not `setup` was."""


Resumer = Callable[["Connection", ResumeReceived], None]
"""Finds the connection that a RESUME is for and calls its `resume`, with the new connection that brought it. Raises
BrokerError (SetupRefused is one) to refuse, in words for the client."""


class Connection(Asking):
    """A live RSocket connection, and the Receiver of its transport.

    Requests may be sent as soon as it is open: on a server when the responder accepted the SETUP, on a client when
    the transport is ready. The calls raise ConnectionClosed when it is not, and RequestFailed when the peer says no.

    One that can be resumed outlives its transport: while it is `suspended` its work goes on, calls wait, and what is
    sent is retained.
    """

    def __init__(
        self,
        protocol: Protocol,
        responder: Responder,
        *,
        clock: Callable[[], float] = time.monotonic,
        resumer: Resumer | None = None,
    ) -> None:
        """Without a `resumer`, a server refuses every RESUME."""
        super().__init__(protocol, responder, clock)
        self.opened = clock()
        self.metadata_mime = ""
        self.data_mime = ""
        self.keepalive = 0.0
        """Seconds between two signs of life, as the peer's SETUP promises them."""
        self.bytes_in = 0
        self.bytes_out = 0
        self.answer_seconds: Histogram | None = None
        """Where requests that a read brought and that were handled at once are observed: from the read to the end of
        that run, which all of its answers leave together. None: nowhere."""
        self._responder = responder
        self._resumer = resumer
        self._actions = _ACTIONS
        protocol.answers_in_runs = True
        self.holding.changed = self._on_room
        self._stalled: list[Event] = []
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[ConnectionClosed] = self._loop.create_future()
        self._deciding = False
        self._queued_before = 0
        self._timer: asyncio.TimerHandle | None = None
        self._rings = 0.0
        """When the timer is to ring, by our clock."""

    @property
    def frames_in(self) -> int:
        return self._protocol.frames_in

    @property
    def frames_out(self) -> int:
        return self._protocol.frames_out

    @property
    def requests_served(self) -> int:
        return self._served + self._protocol.answered_at_once

    @property
    def streams_open(self) -> int:
        return self._protocol.streams

    @property
    def resumable(self) -> bool:
        """Whether it would outlive the loss of its line now, or has."""
        return self._protocol.resumable

    @property
    def silence(self) -> float:
        """Seconds since the peer was heard last, or took what was sent while it was not read from."""
        return self._clock() - self._protocol.last_heard

    async def wait_accepted(self) -> None:
        """Client only: until the server has shown that it accepts the SETUP. Raises ConnectionClosed if it does not.

        RSocket has no answer to a SETUP, so the server is asked for a keepalive.
        """
        if not self._accepted.done():
            self._protocol.send_keepalive(self._clock())
            self._flush_soon()
        await asyncio.wait([self._accepted])
        if self.closing is not None:
            raise self._closed_error()

    # ---- the end ---------------------------------------------------------------------------------------------

    async def close(self, text: str = "", code: int | None = None, grace: float = CLOSE_GRACE) -> None:
        """Says goodbye, lets it reach the peer for at most `grace` seconds, and ends the connection.

        The default code follows the specification: CONNECTION_CLOSE when nothing is open, else CONNECTION_ERROR.
        """
        if self.closing is None:
            self._protocol.close(text, code)
            self._settle()
        if self._transport is not None and not (await asyncio.wait([self._lost], timeout=grace))[0]:
            self._transport.abort()
            await self.wait_closed()

    def expel(self, text: str) -> int:
        """Ends the connection of a peer that is to get nothing more, and every open stream with a word of its own: an
        error (CANCELED) where the specification has one, else a cancel. `text` says why, to the peer and to our side.

        All of it is queued, and no more can be, when this returns; the line closes as soon as it is flushed. `abort`
        drops what the peer does not take, and `when_lost` tells when nothing will be written any more. Returns the
        number of streams that were open.
        """
        streams = self.streams_open
        if self.closing is None:
            self._protocol.end_streams(ErrorCode.CANCELED, text)
            self._protocol.close(text, ErrorCode.CONNECTION_ERROR)
            self._settle()
        return streams

    def abort(self) -> None:
        """Ends the connection at once; what is queued is dropped."""
        self._finish(ConnectionEnded(None, "the connection was cut", by_peer=False))
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> ConnectionClosed:
        """Until the transport has gone; returns why."""
        await asyncio.wait([self._lost])
        return self._lost.result()

    def when_lost(self, callback: Callable[["Connection"], object]) -> None:
        """Calls `callback` on the loop, with this connection, when it has ended for good."""
        self._lost.add_done_callback(lambda _: callback(self))

    async def drain_requests(self, timeout: float) -> None:
        """Refuses new requests from now on and waits for the running ones, at most `timeout` seconds.

        One that is suspended ends at once: nobody could take its answers.
        """
        if self._protocol.suspended:
            self._finish(ConnectionEnded(None, "the session cannot be resumed any more", by_peer=False))
        self._refusing = True
        self._protocol.answer_at_once = None
        await asyncio.gather(self._work.wait(timeout), self._drain_relays(timeout))

    # ---- Receiver: what the transport calls ------------------------------------------------------------------

    def transport_ready(self, transport: Transport) -> None:
        self.peer = transport.peer
        self._take_line(transport)
        self._protocol.begin_resume(self._clock())
        self._flush()
        self._arm_timer()
        if self.closing is not None:
            transport.close()

    def data_received(self, data: bytes | memoryview) -> None:
        self.bytes_in += len(data)
        self._flushing = True
        protocol, now = self._protocol, self._clock()
        answered = protocol.answered_at_once - protocol.owed_at_once
        try:
            self._handle(protocol.receive_data(data, now))
        finally:
            if self.answer_seconds is not None:
                answered = protocol.answered_at_once - protocol.owed_at_once - answered
                if answered:
                    self.answer_seconds.observe(self._clock() - now, answered)
            self._flush()

    def eof_received(self) -> None:
        if self._lose_line(None):
            return
        self._handle(self._protocol.receive_eof(self._clock()))
        self._settle()

    def writing_paused(self) -> None:
        self._may_write.clear()
        self.may_ask = False
        self._queued_before = 0 if self._transport is None else self._transport.queued
        self._note_pressure(behind=True)
        self._choose_reading()

    def writing_resumed(self) -> None:
        self._protocol.heard(self._clock())
        self._may_write.set()
        self.may_ask = self.closing is None and self._lease_came is None
        if self._outgoing:
            self._count_outgoing()
        self._note_pressure(behind=False)
        for gate in self._gates.values():
            gate.set()
        stalled, self._stalled = self._stalled, []
        if stalled:
            self.holding.note(Kind.STALLED, 0)
        self._handle(stalled)
        self._flush()
        self._choose_reading()

    def transport_lost(self, error: Exception | None) -> None:
        if self._lose_line(error):
            return
        self._finish(ConnectionEnded(None, "the connection was lost", by_peer=True), error)
        # Half a message can be 64 MiB, and this object lives in cycles: let go now, not when the collector comes.
        self._protocol.receive_eof(self._clock())
        self._protocol.data_to_send()
        if not self._lost.done():
            self._lost.set_result(self._closed_error())
        self.holding.close()

    # ---- one turn --------------------------------------------------------------------------------------------

    def _handle(self, events: Iterable[Event]) -> None:
        """Acts on events, and stops where the peer must first read what it is owed."""
        protocol = self._protocol
        if self._stalled:
            self._stall(events)
            return
        remaining = iter(events)
        for event in remaining:
            self._actions[type(event)](self, event)
            if protocol.queued > FLUSH_AT:
                self._flush()
                if protocol.is_server and not self._may_write.is_set():
                    self._stall(remaining)

    def _stall(self, events: Iterable[Event]) -> None:
        """What was read waits until the peer reads."""
        size, new = self.holding.held(Kind.STALLED), list(events)
        self._stalled += new
        self.holding.note(Kind.STALLED, counted(size + sum(len(getattr(event, "data", b"")) for event in new)))
        self._settle()

    def _settle(self) -> None:
        if self._protocol.ended is not None:
            self._finish(self._protocol.ended)

    def _flush_soon(self) -> None:
        if self._protocol.queued > FLUSH_AT:
            self._flush()
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """One write for all that this turn of the loop has queued."""
        self._flushing = False
        transport = self._transport
        if transport is None:
            if self._protocol.suspended:
                self._protocol.data_to_send()  # retained there
                self._settle()
            return
        if self._protocol.queued:
            self.bytes_out += self._protocol.queued
            transport.write(self._protocol.data_to_send())
            self._cut_if_unread(transport)
        if self._protocol.has_left:
            self._handle(self._protocol.handle_timer(self._clock()))

    def _cut_if_unread(self, transport: Transport) -> None:
        """Drops a peer that asks much and reads nothing before its answers fill the memory."""
        limits, queued = self._protocol.limits, transport.queued
        if queued >= STEP or self._outgoing:
            self._count_outgoing()
        if queued > limits.outgoing + limits.message and self.closing is None:
            self._finish(ConnectionEnded(None, "the peer does not read what it is sent", by_peer=True))
            transport.abort()

    def _on_room(self) -> None:
        """All lines of the peer together hold too much for what it sends, or there is room again."""
        if self.holding.crowded:
            self.pressure.crowd(self._give_up_waiting)
        else:
            self.pressure.relax()

    def _give_up_waiting(self) -> None:
        """There was no room for too long: the peer loses what it has begun to send, and we what it has sent of that."""
        holding = self.holding
        events = self._protocol.give_up_unfinished(FULL)
        cut_off = holding.held(Kind.FRAME) + holding.held(Kind.MESSAGE)
        if holding.crowded and cut_off and not holding.bears(holding.wanted):
            self._protocol.close(FULL, ErrorCode.CONNECTION_ERROR)
        holding.relax()
        self._handle(events)
        self._settle()
        self._flush()

    def _choose_reading(self) -> None:
        """Reads only while answers can be written. A client goes on: two that wait for each other wait for ever."""
        if self._transport is None or self.closing is not None:
            return
        if self._deciding or self.pressure.held or (self._protocol.is_server and not self._may_write.is_set()):
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        when = self._protocol.next_timer()
        if when is not None and self.closing is None:
            now = self._clock()
            self._rings = max(now, when)
            self._timer = self._loop.call_later(self._rings - now, self._on_timer)

    def _on_timer(self) -> None:
        now = self._clock()
        if now - self._rings > LATE:
            self._rings = math.inf  # once: however late it rings again
            self._timer = self._loop.call_later(CATCH_UP, self._on_timer)
            return
        transport = self._transport
        if transport is not None and not self._may_write.is_set():
            # We do not read now, so silence proves nothing; a peer that takes its answers is alive.
            if transport.queued < self._queued_before:
                self._protocol.heard(now)
            self._queued_before = transport.queued
        elif self.pressure.held:
            self._protocol.heard(now)  # it is not read for others' sake, and only for a moment
        events = self._protocol.handle_timer(now)
        if self._stalled and any(type(event) is LineLost for event in events):
            self._lose_line(None)  # nothing else gets past what is stalled
        self._handle(events)
        self._flush()
        self._arm_timer()

    # ---- events ----------------------------------------------------------------------------------------------

    def _on_setup(self, event: SetupReceived) -> None:
        self.metadata_mime = event.metadata_mime
        self.data_mime = event.data_mime
        self.keepalive = event.keepalive_ms / 1000
        try:
            answer = self._responder.setup(self, event)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # the peer is told, nobody else is hurt
            self._refuse_setup(error)
            return
        if answer is None:
            self._accept_setup()
            return
        self._deciding = True
        self._choose_reading()
        self._start(0, answer, self._decide(answer))

    async def _decide(self, answer: Awaitable[None]) -> None:
        try:
            await answer
        except Exception as error:  # noqa: BLE001  # as above
            self._refuse_setup(error)
        except asyncio.CancelledError:
            self._refuse_setup(Canceled(STOPPED))
            raise
        else:
            self._deciding = False
            self._choose_reading()
            self._accept_setup()
        finally:
            self._work.done(0)
        self._flush_soon()

    def _accept_setup(self) -> None:
        events = self._protocol.accept_setup(self._clock())
        if self._protocol.leased:
            self._lease_came = asyncio.Event()
            self.may_ask = False
        self._arm_timer()
        self._handle(events)

    def _refuse_setup(self, error: BaseException) -> None:
        if isinstance(error, SetupRefused):
            self._protocol.refuse_setup(error.code, error.public)
        else:
            _, text = self._explain(error)
            self._protocol.refuse_setup(ErrorCode.REJECTED_SETUP, text)
        self._settle()

    def _on_resume(self, event: ResumeReceived) -> None:
        try:
            if self._resumer is None:
                raise SetupRefused("resumption is not supported")
            self._resumer(self, event)
        except BrokerError as error:
            self._protocol.refuse_setup(ErrorCode.REJECTED_RESUME, error.public)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # as in _on_setup
            self._protocol.refuse_setup(ErrorCode.REJECTED_RESUME, self._explain(error)[1])
        self._settle()

    def _on_accepted(self, event: SetupAccepted) -> None:
        if not self._accepted.done():
            self._accepted.set_result(None)

    def _on_cancel(self, event: CancelReceived) -> None:
        self._work.stop(event.stream_id)
        if self._is_theirs(event.stream_id):
            self._end_incoming(event.stream_id, RequestFailed("the peer cancelled", ErrorCode.CANCELED))

    def _whom(self) -> str:
        return self._transport.peer.address if self._transport is not None else "nobody"

    def _closed_error(self) -> ConnectionClosed:
        """A fresh one for each who waits: an exception that is raised twice grows a tangled traceback."""
        how = self.closing
        return ConnectionClosed("the connection is closed") if how is None else ConnectionClosed(how.public, how.code)

    def _finish(self, end: ConnectionEnded, cause: Exception | None = None) -> None:
        """Ends everything once: work is cancelled, waiters are told, the goodbye is flushed."""
        if self.closing is not None:
            return
        self.closing = ConnectionClosed(end.text or "the connection is closed", end.code)
        self.may_ask = False
        self.closing.__cause__ = cause
        self._actions = _DEAF
        self._stalled = []
        if self._timer is not None:
            self._timer.cancel()
        self._work.stop_all()
        self._end_requests()
        self._protocol.receive_eof(self._clock())
        self._may_write.set()
        self.pressure.close()
        if self._lease_came is not None:
            self._lease_came.set()
        if not self._accepted.done():
            self._accepted.set_result(None)
        self._flush()
        if self._transport is not None:
            self._transport.close()
        elif not self._lost.done():
            self._lost.set_result(self._closed_error())
            self.holding.close()
        self._tell_change()
        try:
            self._responder.closed(self._closed_error())
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # as in _on_request
            self._explain(error)


_ACTIONS: Final[dict[type, Callable[[Connection, Any], None]]] = {
    SetupReceived: Connection._on_setup,
    SetupAccepted: Connection._on_accepted,
    ResumeReceived: Connection._on_resume,
    LineLost: Connection._on_line_lost,
    LineResumed: Connection._on_line_resumed,
    LeaseReceived: Connection._on_lease,
    RequestReceived: Connection._on_request,
    PayloadReceived: Connection._on_payload,
    AnswersReceived: Connection._on_answers,
    RequestNReceived: Connection._on_request_n,
    CancelReceived: Connection._on_cancel,
    ErrorReceived: Connection._on_error,
    MetadataPushReceived: Connection._on_metadata_push,
    ConnectionEnded: Connection._finish,
}
_DEAF: Final[dict[type, Callable[[Connection, Any], None]]] = dict.fromkeys(_ACTIONS, lambda connection, event: None)
"""After the end nothing reaches a handler, not even what was read together with the end."""
