"""What every WebSocket has, whatever its messages are: pings, and the end. The `websockets` library does this part.

It never sees a frame of data: it takes 4 µs for each, and one read may bring 40,000 of them.
"""

import logging

from websockets.frames import CLOSE, CONT, PING, PONG, TEXT, CloseCode, Frame
from websockets.protocol import OPEN, Protocol

try:
    from websockets.speedups import apply_mask as apply_mask
except ImportError:  # a platform for which there is no compiled part
    from websockets.utils import apply_mask as apply_mask

OPCODE = 0x0F
CONTROL = 0x08
FIN = 0x80
MASKED = 0x80
MASK = 4
"""Bytes of a mask."""
MAX_REASON = 123
"""Bytes of text that fit a close frame (RFC 6455 5.5)."""
FIRST_BYTES = frozenset({FIN | PING, FIN | PONG, FIN | CLOSE, int(CONT), FIN | CONT, int(TEXT), FIN | TEXT})
"""First bytes of frames that use no extension, those of binary messages apart."""
_CLOSE = FIN | CLOSE

logger = logging.getLogger("rsocket_broker.transports.websocket.library")
logger.setLevel(logging.WARNING)  # it would tell of each connection, and of each frame


class Control:
    """The library's part of one WebSocket whose opening handshake is done. `protocol` is the library's state."""

    def __init__(self, protocol: Protocol, limit: int) -> None:
        self._protocol = protocol
        self.limit = limit
        """Bytes of the longest message that is taken."""
        self._for_library = b""
        """The close, or else the last ping, of the frames in hand."""
        self.irregular = False
        """Set when the library had something to do: then look at `replies`, `finished` and `broken`."""
        self.finished = False
        """The peer has closed: it sends no more, and wants no more."""
        self.broken: str | None = None
        """Why the peer's bytes are of no use any more."""

    @property
    def over(self) -> bool:
        """Whether nothing more of the peer is looked at."""
        return self.finished or self.broken is not None

    def control_received(self, frame: bytes) -> bool:
        """A whole control frame, as it came. True for a close, which is the last of all.

        Nothing is done before `settle`: of many pings the last will do.
        """
        if frame[0] & OPCODE != PONG:
            self._for_library = frame
        return frame[0] == _CLOSE

    def settle(self) -> None:
        """The library takes what the frames in hand have brought for it.

        Not before they are worked off: an exception that it keeps would keep our frames, and views of what is held.
        """
        frame, self._for_library = self._for_library, b""
        if not frame or (self.irregular and frame[0] != _CLOSE):
            return
        self.irregular = True
        protocol = self._protocol
        protocol.receive_data(frame)
        self.finished = any(isinstance(event, Frame) and event.opcode is CLOSE for event in protocol.events_received())
        if protocol.parser_exc is not None:
            self.broken = str(protocol.parser_exc)

    def fail(self, code: CloseCode, problem: str) -> None:
        """The peer has broken the rules: `replies` tells it which."""
        self.irregular = True
        self.broken = problem
        self._protocol.fail(code, problem)

    def replies(self, *, pongs: bool) -> bytes:
        """What the library wants to say. Of several pongs the last will do (RFC 6455 5.5.3), or none of them."""
        self.irregular = False
        written = self._protocol.data_to_send()
        kept = [each for each in written if each and each[0] & OPCODE != PONG]
        if pongs and (answers := [each for each in written if each and each[0] & OPCODE == PONG]):
            kept.insert(0, answers[-1])
        return b"".join(kept)

    def ping(self) -> bytes:
        """A question for a sign of life; nothing after a goodbye."""
        if self._protocol.state is not OPEN:
            return b""
        self._protocol.send_ping(b"")
        return self.replies(pongs=True)

    def goodbye(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> bytes:
        """The close frame, unless one was sent, behind whatever else the library still has to say."""
        if self._protocol.state is OPEN:
            self._protocol.send_close(code, reason.encode()[:MAX_REASON].decode(errors="ignore"))
        return self.replies(pongs=False)
