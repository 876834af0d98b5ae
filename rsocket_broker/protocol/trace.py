"""Frames as lines for people: bytes of one connection in, one line for each frame out. Never what a payload says.

    REQUEST_RESPONSE stream=1 flags=METADATA size=62 metadata=17 data=36 route="echo.request"

`size` is the frame's length as it travels, without the three bytes in front of it; all sizes are in bytes. Of
metadata the routes, MIME types and trace ids are told. Tokens, credentials and every other content are told by their
size alone, and the claims in a SETUP by their names, with the values of those that `clients list` shows too.

A line holds nothing but visible ASCII: what a peer chose is written as JSON strings.
"""

import struct
from collections.abc import Iterator
from typing import Final

from rsocket_broker.protocol.codes import FLAGS_MASK, FOLLOWS, MAX_31, TYPE_SHIFT, FrameType
from rsocket_broker.protocol.frames import HEADER, PREFIX
from rsocket_broker.protocol.trace_words import KEPT, Frame, describe

UNFINISHED: Final = 4096
"""Streams on which a message may be in pieces at a time: as many as a peer may have open. Beyond them, metadata of
payloads is told by its size, since what looks like its beginning may be a piece from its middle."""

_START: Final = struct.Struct("!IH")

_WITH_PAYLOAD: Final = frozenset(
    {
        FrameType.REQUEST_RESPONSE,
        FrameType.REQUEST_FNF,
        FrameType.REQUEST_STREAM,
        FrameType.REQUEST_CHANNEL,
        FrameType.PAYLOAD,
    }
)


class FrameTrace:
    """The frames of one connection, both ways. Takes any bytes, whole or in pieces, and raises nothing."""

    def __init__(self) -> None:
        self.metadata_mime = ""
        """As the SETUP said, or `resumed`."""
        self._in = _Direction()
        self._out = _Direction()

    def received(self, data: bytes | memoryview) -> list[str]:
        """One line for each frame that these bytes complete."""
        return [self._line(self._in, *piece) for piece in self._in.cut(data)]

    def sent(self, data: bytes | memoryview) -> list[str]:
        """As `received`, for the other direction."""
        return [self._line(self._out, *piece) for piece in self._out.cut(data)]

    def resumed(self, metadata_mime: str) -> None:
        """A connection goes on here that began on another line, and may be in the midst of messages."""
        self.metadata_mime = metadata_mime
        self._in.lose_count()
        self._out.lose_count()

    def _line(self, direction: "_Direction", length: int, kept: bytes) -> str:
        if length < HEADER:
            return f"nonsense size={length}"
        stream_id, kind_and_flags = _START.unpack_from(kept)
        stream_id &= MAX_31
        kind, flags = kind_and_flags >> TYPE_SHIFT, kind_and_flags & FLAGS_MASK
        begins = direction.begins(kind, flags, stream_id)
        frame = Frame(kept, length, flags, stream_id, self.metadata_mime if begins else "")
        words = describe(kind, frame)
        if kind == FrameType.SETUP:
            self.metadata_mime = frame.mime
        return " ".join(words)


class _Direction:
    """The bytes of one direction, cut into frames of which only the beginning is kept."""

    def __init__(self) -> None:
        self._start = bytearray()
        self._kept = bytearray()
        self._length = 0
        self._left = 0
        self._unfinished: set[int] = set()
        self._lost_count = False

    def cut(self, data: bytes | memoryview) -> Iterator[tuple[int, bytes]]:
        """(length, its first bytes) of each frame that `data` completes."""
        view = memoryview(data)
        while view or (len(self._start) == PREFIX and not self._left):
            if len(self._start) < PREFIX:
                missing = PREFIX - len(self._start)
                self._start += view[:missing]
                view = view[missing:]
                if len(self._start) < PREFIX:
                    return
                self._length = self._left = int.from_bytes(self._start, "big")
            piece = view[: self._left]
            self._kept += piece[: max(0, KEPT - len(self._kept))]
            self._left -= len(piece)
            view = view[len(piece) :]
            if self._left:
                return
            yield self._length, bytes(self._kept)
            self._start.clear()
            self._kept.clear()

    def begins(self, kind: int, flags: int, stream_id: int) -> bool:
        """Whether a frame is the beginning of its message, as against a further fragment."""
        if kind == FrameType.CANCEL or kind == FrameType.ERROR:
            self._unfinished.discard(stream_id)
        if kind not in _WITH_PAYLOAD:
            return True
        goes_on = kind == FrameType.PAYLOAD and (self._lost_count or stream_id in self._unfinished)
        if not flags & FOLLOWS:
            self._unfinished.discard(stream_id)
        elif len(self._unfinished) < UNFINISHED:
            self._unfinished.add(stream_id)
        else:
            self._lost_count = True
        return not goes_on

    def lose_count(self) -> None:
        """From now on no payload passes for the beginning of its message."""
        self._lost_count = True
