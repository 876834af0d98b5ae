"""RSocket's byte stream in and out of WebSocket messages (RFC 6455): one RSocket frame per binary message. Sans-I/O.

On a stream each RSocket frame follows its length in 3 bytes; in a message it stands alone, since the message has an
end of its own. So headers are exchanged and payloads are left as they are.

Whole binary messages in one WebSocket frame are all that RSocket peers send in practice: they are read here. What is
anything else (fragments, pings, closes, text, nonsense) is given to the `websockets` library, frame by frame.
"""

import logging
import os
import struct

from websockets.frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, CloseCode, Frame
from websockets.protocol import OPEN, SERVER, Protocol

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform for which there is no compiled part
    from websockets.utils import apply_mask

LENGTH = 3
"""Bytes of the length before an RSocket frame on a stream."""
MAX_MESSAGE = 0xFF_FFFF
"""The longest RSocket frame, and so the longest message: what `LENGTH` bytes can say."""

_OPCODE = 0x0F
_OPCODES = frozenset((CONT, TEXT, BINARY, CLOSE, PING, PONG))
_WHOLE = 0x80 | BINARY
"""First byte of a frame that is a whole binary message and uses no extension."""
_MASKED = 0x80
_MASK = 4
_SHORT = [bytes((_WHOLE, size)) for size in range(126)]
"""The headers of short messages, without a mask."""

logger = logging.getLogger("rsocket_broker.transports.websocket.library")
logger.setLevel(logging.WARNING)  # it would tell of each connection, and of each frame


class Framing:
    """The state of one WebSocket whose opening handshake is done. `protocol` is the library's part of it."""

    def __init__(self, protocol: Protocol, limit: int = MAX_MESSAGE) -> None:
        self._protocol = protocol
        self._limit = limit
        self._masked_in = _MASKED if protocol.side is SERVER else 0
        self._held = bytearray()
        """The start of a WebSocket frame that is not complete."""
        self._message = bytearray()
        """The start of a message in fragments."""
        self._unsent = b""
        """The start of an RSocket frame that is not complete."""
        self.irregular = False
        """Set when the library had something to do: then look at `replies`, `finished` and `broken`."""
        self.finished = False
        """The peer has closed: it sends no more, and wants no more."""
        self.broken: str | None = None
        """Why the peer's bytes are of no use any more."""

    @property
    def unsent(self) -> int:
        """Bytes of an incomplete RSocket frame that wait for the rest."""
        return len(self._unsent)

    # --- in ----------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes | memoryview) -> bytes:
        """The RSocket stream of the messages that these bytes complete; nothing once `finished` or `broken`."""
        if self.finished or self.broken is not None:
            return b""
        held = self._held
        if held:
            held += data
            view = memoryview(held)
        else:
            view = memoryview(data)
        stream: list[bytes | memoryview] = []
        taken = self._take(view, stream)
        result = b"".join(stream)
        if not held:
            held += view[taken:]
        elif taken:
            view.release()
            stream.clear()
            del held[:taken]
        return result

    def _take(self, view: memoryview, stream: list[bytes | memoryview]) -> int:
        """Puts what is complete into `stream`; returns how many bytes were used up."""
        protocol, position, end, masked = self._protocol, 0, len(view), self._masked_in
        while end - position >= 2:
            first, second = view[position], view[position + 1]
            if second & _MASKED != masked or first & _OPCODE not in _OPCODES:
                return self._leave_to_library(view[position:], stream, end)
            start, size = position + 2, second & 0x7F
            if size > 125:
                width = 2 if size == 126 else 8
                size = int.from_bytes(view[start : start + width])
                start += width
            start += _MASK if masked else 0
            stop = start + size
            assembled = protocol.current_size
            if start > end:
                break
            if size > self._limit - (assembled or 0):
                return self._leave_to_library(view[position:], stream, end)
            if stop > end:
                break
            if first == _WHOLE and assembled is None:
                payload = view[start:stop]
                stream.append(size.to_bytes(LENGTH))
                stream.append(apply_mask(payload, bytes(view[start - _MASK : start])) if masked else payload)
            else:
                self._leave_to_library(view[position:stop], stream, end)
                if self.finished or self.broken is not None:
                    return end
            position = stop
        return position

    def _leave_to_library(self, frame: memoryview, stream: list[bytes | memoryview], end: int) -> int:
        """A frame that is not a whole binary message, or the start of one that it will refuse. Returns `end`."""
        self.irregular = True
        protocol = self._protocol
        protocol.receive_data(bytes(frame))
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._event(event, stream)
        if protocol.parser_exc is not None:
            self.broken = str(protocol.parser_exc)
        return end

    def _event(self, frame: Frame, stream: list[bytes | memoryview]) -> None:
        if frame.opcode is TEXT:
            self._protocol.fail(CloseCode.UNSUPPORTED_DATA, "RSocket is binary")
            self.broken = "a text message"
        elif frame.opcode is CLOSE:
            self.finished = True
        elif frame.opcode is BINARY or frame.opcode is CONT:
            self._message += frame.data
            if frame.fin:
                stream += [len(self._message).to_bytes(LENGTH), bytes(self._message)]
                self._message.clear()

    def replies(self, *, pongs: bool) -> bytes:
        """What the library wants to say. Of several pongs the last will do (RFC 6455 5.5.3), or none of them."""
        self.irregular = False
        written = self._protocol.data_to_send()
        kept = [each for each in written if each and each[0] & _OPCODE != PONG]
        if pongs and (answers := [each for each in written if each and each[0] & _OPCODE == PONG]):
            kept.insert(0, answers[-1])
        return b"".join(kept)

    # --- out ---------------------------------------------------------------------------------------------------------

    def send(self, chunks: list[bytes]) -> bytes:
        """The messages of the RSocket frames that these bytes complete. The rest waits for more."""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if self._unsent:
            data = self._unsent + data
        view = memoryview(data)
        pieces: list[bytes | memoryview] = []
        position, end, masked = 0, len(data), not self._masked_in
        while end - position >= LENGTH:
            start = position + LENGTH
            size = int.from_bytes(data[position:start])
            stop = start + size
            if stop > end:
                break
            if masked:
                mask = os.urandom(_MASK)
                pieces += [_header(size, _MASKED), mask, apply_mask(view[start:stop], mask)]
            else:
                pieces += [_SHORT[size] if size < 126 else _header(size, 0), view[start:stop]]
            position = stop
        self._unsent = data[position:]
        return b"".join(pieces)

    def goodbye(self) -> bytes:
        """The close frame, unless one was sent, behind whatever else the library still has to say."""
        if self._protocol.state is OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
        return self.replies(pongs=False)


def _header(size: int, mask: int) -> bytes:
    if size < 126:
        return struct.pack("!BB", _WHOLE, mask | size)
    if size < 0x1_0000:
        return struct.pack("!BBH", _WHOLE, mask | 126, size)
    return struct.pack("!BBQ", _WHOLE, mask | 127, size)
