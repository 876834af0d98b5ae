"""RSocket over WebSocket as a Transport, on any transport below: the byte stream above, messages below.

A WebSocket has no half-open end: whoever has said goodbye is answered with one goodbye, and gets no more.
"""

import re
from collections.abc import Callable, Sequence

import attrs
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from rsocket_broker.quota import STEP, Holding, Kind, counted
from rsocket_broker.transports.base import Channel, Receiver, Transport
from rsocket_broker.transports.http_request import ASK_FOR_UPGRADE, Refusal
from rsocket_broker.transports.websocket_control import logger
from rsocket_broker.transports.websocket_frames import MAX_MESSAGE, Framing

SUBPROTOCOL = Subprotocol("rsocket")
"""Agreed on where a client offers it; none needs to."""

Select = Callable[[ServerProtocol, Sequence[Subprotocol]], Subprotocol | None]

_TARGET = re.compile(rb"\A([!-~]+) [!-~]+ ")


class WebSocketTransport:
    """A Transport for RSocket above, and the Receiver of WebSocket frames below."""

    def __init__(self, lower: Transport, framing: Framing, receiver: Receiver) -> None:
        channel = Channel.WSS if lower.peer.channel is Channel.TLS else Channel.WS
        self.peer = attrs.evolve(lower.peer, channel=channel)
        self._receiver = receiver
        self._lower = lower
        self._framing = framing
        self._holding = Holding()
        self._counted = 0
        """What the holding knows of an unfinished message."""
        self._closing = False
        self._congested = False
        self._peer_finished = False
        self._error: Exception | None = None

    def start(self) -> None:
        """Takes the line over: the opening handshake is done."""
        self._lower.hand_over(self)
        self._receiver.transport_ready(self)

    # What the user of the RSocket stream calls.

    @property
    def queued(self) -> int:
        return self._lower.queued + self._framing.unsent

    def write(self, chunks: list[bytes]) -> None:
        if not self._closing and not self._framing.finished:
            self._put(self._framing.send(chunks))

    def pause_reading(self) -> None:
        self._lower.pause_reading()

    def resume_reading(self) -> None:
        self._lower.resume_reading()

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._put(self._framing.goodbye())
        self._lower.close()

    def abort(self) -> None:
        self._closing = True
        self._lower.abort()

    def hand_over(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def expect(self, size: int) -> None:
        self._framing.limit = size

    def count_in(self, holding: Holding) -> None:
        self._holding = holding

    # What the transport below calls.

    def transport_ready(self, transport: Transport) -> None:
        raise AssertionError("the transport below was ready before the handshake")

    def data_received(self, data: bytes | memoryview) -> None:
        framing = self._framing
        stream = framing.receive(data)
        unfinished = len(framing.held) + len(framing.message)
        if unfinished - self._counted >= STEP or unfinished < self._counted:
            self._counted = counted(unfinished)
            self._holding.take(Kind.MESSAGE, self._counted)
        if stream:
            self._receiver.data_received(stream)
        if framing.irregular and not self._closing:
            self._settle()

    def eof_received(self) -> None:
        self._finished()

    def writing_paused(self) -> None:
        self._congested = True
        if not self._closing:
            self._receiver.writing_paused()

    def writing_resumed(self) -> None:
        self._congested = False
        if not self._closing:
            self._receiver.writing_resumed()

    def transport_lost(self, error: Exception | None) -> None:
        self._closing = True
        self._receiver.transport_lost(self._error or error)

    # The library's part.

    def _settle(self) -> None:
        """Pings, and the end. A peer that sends pings and reads no pongs gets none."""
        framing = self._framing
        self._put(framing.replies(pongs=not self._congested))
        if framing.broken is not None:
            self._closing = True
            self._error = ConnectionAbortedError(f"the peer broke WebSocket: {framing.broken}")
            self._lower.close()
        elif framing.finished:
            self._finished()

    def _finished(self) -> None:
        """The peer sends no more: it said so, or its end of the stream did. Told once."""
        if not self._peer_finished and not self._closing:
            self._peer_finished = True
            self._receiver.eof_received()

    def _put(self, data: bytes) -> None:
        if data:
            self._lower.write([data])


def accepted(head: bytes, limit: int = MAX_MESSAGE) -> tuple[Framing, bytes]:
    """The answer to a client's opening request, given as it came, and what reads the messages that follow it.

    Raises Refusal.
    """
    protocol, answer = opened(head, limit, _select)
    return Framing(protocol, limit), answer


def opened(head: bytes, limit: int, select: Select | None = None) -> tuple[ServerProtocol, bytes]:
    """The library's state behind an opening request, and the answer. `select` chooses a subprotocol, None none.

    No extension is agreed on: compression would let a small message become a huge one. Raises Refusal.
    """
    protocol = ServerProtocol(select_subprotocol=select or _none, max_size=limit, logger=logger)
    protocol.receive_data(_TARGET.sub(rb"\1 / ", head, count=1))  # the library takes no long addresses
    requests = protocol.events_received()
    if not requests:
        raise Refusal(400, "This is not a request for a WebSocket.")
    response = protocol.accept(requests[0])  # type: ignore[arg-type]  # before the answer there is nothing but requests
    if response.status_code != 101:
        raise Refusal(
            response.status_code,
            f"This is not a request for a WebSocket of version {VERSION}.",
            *ASK_FOR_UPGRADE,
            ("Sec-WebSocket-Version", VERSION),
        )
    protocol.send_response(response)
    return protocol, b"".join(protocol.data_to_send())


VERSION = "13"
"""The only version of WebSocket that there is."""


def _none(protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return None


def _select(protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return SUBPROTOCOL if SUBPROTOCOL in offered else None
