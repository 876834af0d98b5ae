"""A connection that outlives its line, and waits where it may not ask. `Connection` is the class to use."""

import abc
import asyncio
from collections.abc import Callable
from typing import Final, Self

from rsocket_broker.errors import ConnectionClosed
from rsocket_broker.protocol.events import LeaseReceived, LineLost, LineResumed, ResumeReceived
from rsocket_broker.protocol.limits import Limits
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.quota import Kind
from rsocket_broker.serving import Handlers, Serving
from rsocket_broker.transports.base import Channel, MessageTransport, Peer, Receiver, Transport

_OF_MESSAGES: Final = (Channel.WS, Channel.WSS)


class Lasting(Serving, Receiver):
    """The middle storey of a connection: lines that come and go, and the leases of the peer.

    A server joins a suspended connection to the line of another one that brought the RESUME (`resume`); a client
    connects the same connection once more.
    """

    def __init__(self, protocol: Protocol, handlers: Handlers, clock: Callable[[], float]) -> None:
        super().__init__(protocol, handlers)
        self.peer: Peer
        self.closing: ConnectionClosed | None = None
        """Set as soon as the connection has ended: how."""
        self.times_resumed = 0
        self.on_suspended: Callable[[], None] | None = None
        """Called when the line is lost and the peer may come back. Must not raise."""
        self._clock = clock
        self._transport: Transport | None = None
        self._lease_came = asyncio.Event() if protocol.leased else None
        """Set when the peer lets us ask more; None where leases do not hold."""
        self.may_ask = self._lease_came is None
        """Whether a request may be sent now, without waiting, as far as is known at once. Looked at for every call, so
        whoever lets writing, a lease or the end change says it here."""
        self._change: asyncio.Future[None] | None = None
        """Somebody waits for the line to be lost, or to be back."""
        self._loss: Exception | None = None

    @abc.abstractmethod
    def _settle(self) -> None:
        """Ends the connection if its protocol has."""

    @abc.abstractmethod
    def _arm_timer(self) -> None:
        """The protocol is to be called when it asks for it."""

    @abc.abstractmethod
    def _closed_error(self) -> ConnectionClosed:
        """How it ended."""

    @abc.abstractmethod
    def _note_pressure(self, *, behind: bool) -> None:
        """The peer takes nothing, or takes what is sent again."""

    @abc.abstractmethod
    def abort(self) -> None:
        """Ends the connection at once."""

    @property
    def suspended(self) -> bool:
        """The line was lost, and the peer may come back."""
        return self._protocol.suspended

    def widen(self, limits: Limits) -> None:
        """These limits hold from now on. For a server that has judged a SETUP and not accepted it yet."""
        self._protocol.widen(limits)
        self._work.limit = limits.streams
        if isinstance(self._transport, MessageTransport):
            self._transport.expect(limits.frame)

    @property
    def certificate(self) -> bytes | None:
        """What the peer has shown on the line that there is now, as DER; None where there is none."""
        return None if self._transport is None else self.peer.certificate

    @property
    def bytes_unwritten(self) -> int:
        """Bytes for the peer that the kernel has not taken yet; 0 once the line has gone."""
        return 0 if self._transport is None else self._transport.queued

    # ---- another line ----------------------------------------------------------------------------------------

    def resume(self, door: Self, event: ResumeReceived) -> None:
        """Server: goes on over the line on which `door` has brought a RESUME that is for this connection. A line that
        still stands is dropped: the peer has noticed its loss before us.

        Raises ProtocolViolation, and all stays as it was, when the positions do not fit.
        """
        try:
            self._protocol.resume(event.received, event.available, self._clock())
        finally:
            self._settle()  # it may be over: too much waits for the peer
        self._drop_line()
        transport, rest = door._surrender()
        self._take_line(transport)
        transport.hand_over(self)
        self.peer = transport.peer
        self.times_resumed += 1
        self.writing_resumed()
        self._arm_timer()
        self._tell_change()
        if rest:
            self.data_received(rest)

    def _take_line(self, transport: Transport) -> None:
        self._transport = transport
        if transport.peer.channel in _OF_MESSAGES and isinstance(transport, MessageTransport):
            transport.count_in(self.holding)

    def _surrender(self) -> tuple[Transport, bytes]:
        """Gives the line away, with what came on it behind the RESUME."""
        transport, self._transport = self._transport, None
        assert transport is not None
        rest = self._protocol.surrender()
        self._settle()
        return transport, rest

    def forget_resumption(self) -> None:
        """Nobody may resume this connection any more; one that is suspended ends."""
        self._protocol.forget_resumption()
        self._settle()

    async def wait_line_lost(self) -> None:
        """Until the line is lost. `closing` says then whether that was the end."""
        while self.closing is None and not self._protocol.suspended:
            await self._changed()

    async def wait_resumed(self) -> None:
        """Client: until the server goes on over the line that was connected last. Raises what that line was lost with
        (an OSError or TlsRefused), or ConnectionClosed when the server refuses."""
        line = self._transport
        while self._protocol.suspended:
            if self._transport is None or self._transport is not line:
                raise self._loss or ConnectionResetError("the line was lost")
            await self._changed()
        if self.closing is not None:
            raise self._closed_error()

    def drop_line(self) -> None:
        """The line is of no use any more. A connection that cannot be resumed ends."""
        if not self._lose_line(None):
            self.abort()

    async def _changed(self) -> None:
        if self._change is None:
            self._change = self._loop.create_future()
        await asyncio.shield(self._change)

    def _tell_change(self) -> None:
        change, self._change = self._change, None
        if change is not None:
            change.set_result(None)

    def _lose_line(self, error: Exception | None) -> bool:
        """The line is lost. False, and nothing done, when the connection does not outlive it."""
        if self.closing is not None or not self._protocol.suspend(self._clock()):
            return False
        self._loss = error
        self._drop_line()
        self._may_write.clear()
        self.may_ask = False
        self._note_pressure(behind=True)
        self._settle()  # more may be queued than can be retained
        self._arm_timer()
        self._tell_change()
        if self.on_suspended is not None and self._protocol.suspended:
            self.on_suspended()
        return True

    def _drop_line(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.hand_over(_NOBODY)
            transport.abort()
            self.holding.note(Kind.MESSAGE, 0)
            if self._outgoing:
                self._count_outgoing()

    def _on_line_lost(self, event: LineLost) -> None:
        self._lose_line(TimeoutError(event.text))

    def _on_line_resumed(self, event: LineResumed) -> None:
        self.times_resumed += 1
        self.writing_resumed()
        self._arm_timer()
        self._tell_change()

    # ---- leases ----------------------------------------------------------------------------------------------

    async def turn_to_ask(self) -> None:
        """Waits while the peer is slow to read, or lets us ask nothing. Raises ConnectionClosed when it is gone."""
        await self.drain()
        while self._lease_came is not None and not self._protocol.may_request(self._clock()):
            self._lease_came.clear()
            await self._lease_came.wait()
            await self.drain()

    def _on_lease(self, event: LeaseReceived) -> None:
        if self._lease_came is not None:
            self._lease_came.set()


class _Nobody:
    """The Receiver of a line that was given up: whatever it still brings is of no interest."""

    def transport_ready(self, transport: Transport) -> None: ...

    def data_received(self, data: bytes | memoryview) -> None: ...

    def eof_received(self) -> None: ...

    def writing_paused(self) -> None: ...

    def writing_resumed(self) -> None: ...

    def transport_lost(self, error: Exception | None) -> None: ...


_NOBODY: Final = _Nobody()
