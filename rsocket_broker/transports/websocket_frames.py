"""RSocket's byte stream in and out of WebSocket messages (RFC 6455): one RSocket frame per binary message. Sans-I/O.

On a stream each RSocket frame follows its length in 3 bytes; in a message it stands alone, since the message has an
end of its own. So headers are exchanged and payloads are left as they are.

Frames of data are read here: the `websockets` library takes 4 µs for each, and one read may bring 40,000 of them. What
must be answered (a close; a ping, the last where many came at once) is left to the library, as are the handshakes.
"""

import os
import struct

from websockets.frames import BINARY, CONT, TEXT, CloseCode
from websockets.protocol import SERVER, Protocol

from rsocket_broker.transports.websocket_control import CONTROL as _CONTROL
from rsocket_broker.transports.websocket_control import FIN as _FIN
from rsocket_broker.transports.websocket_control import FIRST_BYTES, Control, apply_mask
from rsocket_broker.transports.websocket_control import MASK as _MASK
from rsocket_broker.transports.websocket_control import MASKED as _MASKED
from rsocket_broker.transports.websocket_control import OPCODE as _OPCODE

LENGTH = 3
"""Bytes of the length before an RSocket frame on a stream."""
MAX_MESSAGE = 0xFF_FFFF
"""The longest RSocket frame, and so the longest message: what `LENGTH` bytes can say."""

_WHOLE, _START, _MIDDLE, _LAST = _FIN | BINARY, int(BINARY), int(CONT), _FIN | CONT
_CONTINUES = (_MIDDLE, _LAST)
_KNOWN = FIRST_BYTES | {_WHOLE, _START}
_SHORT = [bytes((_WHOLE, size)) for size in range(126)]
"""The headers of short messages, without a mask."""


class Framing(Control):
    """The state of one WebSocket whose opening handshake is done. `protocol` is the library's part of it."""

    def __init__(self, protocol: Protocol, limit: int = MAX_MESSAGE) -> None:
        super().__init__(protocol, limit)
        self._masked_in = _MASKED if protocol.side is SERVER else 0
        self.held = bytearray()
        """The start of a WebSocket frame that is not complete."""
        self.message = bytearray()
        """The start of a message in fragments."""
        self._in_fragments = False
        self._unsent = b""
        """The start of an RSocket frame that is not complete."""

    @property
    def unsent(self) -> int:
        """Bytes of an incomplete RSocket frame that wait for the rest."""
        return len(self._unsent)

    # --- in ----------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes | memoryview) -> bytes:
        """The RSocket stream of the messages that these bytes complete; nothing once `finished` or `broken`."""
        if self.over:
            return b""
        held = self.held
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
        if self._for_library:
            self.settle()
        return result

    def _take(self, view: memoryview, stream: list[bytes | memoryview]) -> int:
        """Puts what is complete into `stream`; returns how many bytes were used up."""
        position, end, masked = 0, len(view), self._masked_in
        while end - position >= 2:
            first, second = view[position], view[position + 1]
            whole = first == _WHOLE and second & _MASKED == masked and not self._in_fragments
            if not whole and (problem := self._problem(first, second)):
                return self._fail(end, *problem)
            start, size = (position + 2, second & 0x7F) if second & 0x7F < 126 else extended(view, position)
            start += _MASK if masked else 0
            stop = start + size
            if start > end:
                break
            if size > self.limit - (len(self.message) if first <= _LAST else 0):
                return self._fail(end, CloseCode.MESSAGE_TOO_BIG, f"a message longer than {self.limit} bytes")
            if stop > end:
                break
            payload = apply_mask(view[start:stop], bytes(view[start - _MASK : start])) if masked else view[start:stop]
            if whole:
                stream += (size.to_bytes(LENGTH), payload)
            elif self._special(first, payload, stream, view[position:stop]):
                return end
            position = stop
        return position

    def _special(
        self, first: int, payload: bytes | memoryview, stream: list[bytes | memoryview], frame: memoryview
    ) -> bool:
        """Any frame but a whole message. True for the last of all."""
        if first & _CONTROL:
            return self.control_received(bytes(frame))
        self.message += payload
        self._in_fragments = first != _LAST
        if first == _LAST:
            stream += (len(self.message).to_bytes(LENGTH), bytes(self.message))
            self.message.clear()
        return False

    def _problem(self, first: int, second: int) -> tuple[CloseCode, str] | None:
        """What is wrong with the first two bytes of a WebSocket frame, as a close code and in words."""
        if first not in _KNOWN or second & _MASKED != self._masked_in:
            return CloseCode.PROTOCOL_ERROR, "an unknown frame, or one that is not masked as it must be"
        if first & _OPCODE == TEXT:
            return CloseCode.UNSUPPORTED_DATA, "a text message, while RSocket is binary"
        if first & _CONTROL:
            too_long = second & 0x7F > 125
            return (CloseCode.PROTOCOL_ERROR, "a control frame that is too long") if too_long else None
        if self._in_fragments != (first in _CONTINUES):
            return CloseCode.PROTOCOL_ERROR, "a fragment that does not continue the last"
        return None

    def _fail(self, end: int, code: CloseCode, problem: str) -> int:
        """Returns `end`: whatever follows is not looked at."""
        self.fail(code, problem)
        return end

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
                pieces += [header(_WHOLE, size, _MASKED), mask, apply_mask(view[start:stop], mask)]
            else:
                pieces += [_SHORT[size] if size < 126 else header(_WHOLE, size, 0), view[start:stop]]
            position = stop
        self._unsent = data[position:]
        return b"".join(pieces)


def extended(view: memoryview, position: int) -> tuple[int, int]:
    """Where a frame goes on behind its length of 2 or 8 bytes, and that length."""
    start = position + 2
    stop = start + (2 if view[position + 1] & 0x7F == 126 else 8)
    return stop, int.from_bytes(view[start:stop])


def header(first: int, size: int, mask: int) -> bytes:
    """The header of a frame, its mask apart: `first` is its first byte, `mask` is MASKED or 0."""
    if size < 126:
        return struct.pack("!BB", first, mask | size)
    if size < 0x1_0000:
        return struct.pack("!BBH", first, mask | 126, size)
    return struct.pack("!BBQ", first, mask | 127, size)
