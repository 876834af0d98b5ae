"""The start of a frame, and runs of frames that start alike: what a busy connection does for every frame.

    length 24 | stream id 32 | type and flags 16 | length of the metadata 24 | metadata | data
    PREFIX      HEADER ............................ body
    OPENING ................ | what requests to one handler begin with, over and over   | data

Each function here exists twice: in Python, and in C (`_starts.c`) for CPython where a compiler was at hand when the
broker was installed. Both give the same for the same bytes; `ENGINE` says which of them runs.
"""

import functools
import struct
from collections.abc import Callable
from typing import Final

try:
    from rsocket_broker.protocol import _starts
except ImportError:  # no compiler, no headers of Python, or not CPython
    _starts = None  # type: ignore[assignment]

PREFIX: Final = 3
"""Bytes of the length field in front of each frame."""
HEADER: Final = 6
"""Bytes of stream id, type and flags, which start each frame."""
OPENING: Final = PREFIX + 4
"""Bytes in front of the type of a frame: its length and its stream id."""
READERS: Final = 256
"""Lengths of what frames begin with for which Python keeps a reader at a time: a hundred bytes each, made in 2 µs."""

Start = Callable[[bytes, int], tuple[int, int, int, int]]
Pack = Callable[[int, int, int, int], bytes]
Cut = Callable[[bytes, int, int, bytes, int], tuple[list[bytes], int]]

_START: Final = struct.Struct("!BHIH")


@functools.lru_cache(maxsize=READERS)
def _reader(size: int) -> Callable[[bytes, int], tuple[int, int, int, bytes]]:
    """As `read_start`, with the `size` bytes behind the stream id in place of type and flags."""
    return struct.Struct(f"!BHI{size}s").unpack_from


def cut_in_python(data: bytes, at: int, stream_id: int, opening: bytes, most: int) -> tuple[list[bytes], int]:
    """See `cut`."""
    read, head, size = _reader(len(opening)), OPENING + len(opening), len(data)
    bodies: list[bytes] = []
    while size - at >= head:
        high, low, found, begun = read(data, at)
        body, end = at + head, at + PREFIX + low
        if high:
            end += high << 16
        if begun != opening or found != stream_id or not body <= end <= size or end - at > most:
            break
        bodies.append(data[body:end])
        at = end
        stream_id += 2
    return bodies, at


ENGINE: Final = "python" if _starts is None else "compiled"
"""Which of the two runs here."""

read_start: Start = _START.unpack_from if _starts is None else _starts.read_start
"""(buffer, offset) -> length high, length low, stream id, type and flags. Needs nine bytes."""
pack_start: Pack = _START.pack if _starts is None else _starts.pack_start
"""length high, length low, stream id, type and flags -> the nine bytes in front of a body."""
cut: Cut = cut_in_python if _starts is None else _starts.cut
"""(buffer, offset, stream id, opening, most) -> what stands behind `opening` in the frames that stand there one behind
the other, and where the rest begins.

Each of them is whole, has at most `most` bytes with its length field, has the stream id that follows that of the one
before (the first: `stream_id`), and behind that the bytes `opening`. The first that is anything else ends it.
"""
