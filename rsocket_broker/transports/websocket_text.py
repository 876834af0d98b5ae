"""Messages of text over a WebSocket, on any transport below: for servers, whose clients mask what they send.

A message may have tens of megabytes. It comes in many reads, and each is unmasked, checked and put away when it comes:
when the last has come there is no work left that would hold everybody up.
"""

import codecs
import io

import attrs
from websockets.frames import BINARY, CONT, TEXT, CloseCode
from websockets.protocol import Protocol
from websockets.server import ServerProtocol

from rsocket_broker.quota import STEP, Holding, Kind, counted
from rsocket_broker.transports.base import Channel, TextReceiver, Transport
from rsocket_broker.transports.websocket_control import (
    CONTROL,
    FIN,
    FIRST_BYTES,
    MASK,
    MASKED,
    OPCODE,
    Control,
    apply_mask,
)
from rsocket_broker.transports.websocket_frames import extended, header

_WHOLE, _START, _MIDDLE, _LAST = FIN | TEXT, int(TEXT), int(CONT), FIN | CONT


class TextFraming(Control):
    """The state of one WebSocket with messages of text, whose opening handshake is done. Sans-I/O."""

    def __init__(self, protocol: Protocol, limit: int) -> None:
        super().__init__(protocol, limit)
        self._held = b""
        """The start of a header, or of a control frame, that is not complete."""
        self._message = io.BytesIO()
        """The start of a message. What it gives in the end is no copy."""
        self.unfinished = 0
        """Bytes of that."""
        self._in_fragments = False
        self._left = 0
        """Bytes that are still to come of the frame whose header was read."""
        self._mask = b""
        """The mask of that frame, turned to its next byte."""
        self._is_last = False
        """That frame is the last of its message."""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._split = False
        """The message so far ends inside a character."""

    def receive(self, data: bytes | memoryview) -> list[bytes]:
        """The messages that these bytes complete; none once `finished` or `broken`."""
        messages: list[bytes] = []
        if self.over:
            return messages
        view = memoryview(self._held + data if self._held else data)
        self._held = b""
        position, end = 0, len(view)
        while position < end:
            if self._left:
                stop = min(end, position + self._left)
                if not self._put(view[position:stop], messages):
                    break
            elif (stop := self._begin(view, position, messages)) < 0:
                break
            elif not stop:
                self._held = bytes(view[position:])
                break
            position = stop
        self.settle()
        return messages

    def _begin(self, view: memoryview, position: int, messages: list[bytes]) -> int:
        """Reads a header, and a control frame whole. Returns where it ends: 0 when more must come, -1 when none may."""
        end = len(view)
        if end - position < 2:
            return 0
        first, second = view[position], view[position + 1]
        if problem := self._problem(first, second):
            self.fail(*problem)
            return -1
        start, size = (position + 2, second & 0x7F) if second & 0x7F < 126 else extended(view, position)
        start += MASK
        if start > end:
            return 0
        if first & CONTROL:
            if start + size > end:
                return 0
            return -1 if self.control_received(bytes(view[position : start + size])) else start + size
        if size > self.limit - self.unfinished:
            self.fail(CloseCode.MESSAGE_TOO_BIG, f"a message longer than {self.limit} bytes")
            return -1
        self._left, self._mask = size, bytes(view[start - MASK : start])
        self._is_last, self._in_fragments = bool(first & FIN), not first & FIN
        if not size and not self._put(view[start:start], messages):
            return -1
        return start

    def _put(self, masked: memoryview, messages: list[bytes]) -> bool:
        """Takes a part of the frame in hand, and perhaps the rest of it. False when it is no text."""
        part = apply_mask(masked, self._mask)
        self._left -= len(part)
        ends = self._is_last and not self._left
        if self._split or not part.isascii():
            try:
                self._decoder.decode(part, ends)
            except UnicodeDecodeError:
                self.fail(CloseCode.INVALID_DATA, "a message that is not UTF-8")
                return False
            self._split = bool(self._decoder.getstate()[0])
        if not ends:
            turn = len(part) % MASK
            self._mask = self._mask[turn:] + self._mask[:turn]
            self.unfinished += self._message.write(part)
        elif self.unfinished:
            self._message.write(part)
            messages.append(self._message.getvalue())
            self._message, self.unfinished = io.BytesIO(), 0
        else:
            messages.append(part)
        return True

    def _problem(self, first: int, second: int) -> tuple[CloseCode, str] | None:
        """What is wrong with the first two bytes of a frame, as a close code and in words."""
        if first & ~FIN == BINARY:
            return CloseCode.UNSUPPORTED_DATA, "a binary message, while this port speaks text"
        if first not in FIRST_BYTES or not second & MASKED:
            return CloseCode.PROTOCOL_ERROR, "an unknown frame, or one that is not masked"
        if first & CONTROL:
            too_long = second & 0x7F > 125
            return (CloseCode.PROTOCOL_ERROR, "a control frame that is too long") if too_long else None
        if self._in_fragments != (first & OPCODE == CONT):
            return CloseCode.PROTOCOL_ERROR, "a fragment that does not continue the last"
        return None


def channel_above(lower: Channel) -> Channel:
    """Of a WebSocket, by what is below it."""
    return Channel.WSS if lower is Channel.TLS else Channel.WS


class WebSocketText:
    """A TextTransport for the one above, and the Receiver of the transport below."""

    def __init__(self, lower: Transport, protocol: ServerProtocol, receiver: TextReceiver, limit: int) -> None:
        """`limit` is the longest message of the peer, in bytes."""
        self.peer = attrs.evolve(lower.peer, channel=channel_above(lower.peer.channel))
        self._lower = lower
        self._framing = TextFraming(protocol, limit)
        self._receiver = receiver
        self._holding = Holding()
        self._counted = 0
        """What the holding knows of an unfinished message."""
        self._closing = False
        self._congested = False
        self._error: Exception | None = None

    def start(self) -> None:
        """Takes the line over: the opening handshake is done."""
        self._lower.hand_over(self)
        self._receiver.transport_ready(self)

    # What the user of the messages calls.

    @property
    def queued(self) -> int:
        return self._lower.queued

    def send(self, text: bytes) -> None:
        if not self._closing:
            self._lower.write([header(_WHOLE, len(text), 0), text])

    def count_in(self, holding: Holding) -> None:
        self._holding = holding

    def ping(self) -> None:
        if not self._closing and not self._congested:
            self._put(self._framing.ping())

    def pause_reading(self) -> None:
        self._lower.pause_reading()

    def resume_reading(self) -> None:
        self._lower.resume_reading()

    def close(self, code: int, reason: str) -> None:
        if not self._closing:
            self._closing = True
            self._put(self._framing.goodbye(code, reason))
            self._lower.close()

    def abort(self) -> None:
        self._closing = True
        self._lower.abort()

    # What the transport below calls.

    def transport_ready(self, transport: Transport) -> None:
        raise AssertionError("the transport below was ready before the handshake")

    def data_received(self, data: bytes | memoryview) -> None:
        if self._closing:
            return
        framing = self._framing
        self._receiver.heard(len(data))
        messages = framing.receive(data)
        if framing.unfinished - self._counted >= STEP or framing.unfinished < self._counted:
            self._counted = counted(framing.unfinished)
            self._holding.take(Kind.MESSAGE, self._counted)
        for message in messages:
            if not self._closing:
                self._receiver.message_received(message)
        if framing.irregular and not self._closing:
            self._settle()

    def eof_received(self) -> None:
        if not self._closing:
            self._receiver.eof_received()

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
            self._receiver.eof_received()

    def _put(self, data: bytes) -> None:
        if data:
            self._lower.write([data])
