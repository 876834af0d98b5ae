"""Messages longer than a frame (RSocket 1.0, "Fragmentation and Reassembly").

The specification says that a PAYLOAD with both FOLLOWS and COMPLETE ignores FOLLOWS. rsocket-cpp, which every
Flipper app of the RSocket era carries, repeats the final flags on all fragments, so that rule would cut its answers
after the first fragment. Here COMPLETE is meant only where FOLLOWS is clear, on both sides.
"""

from collections.abc import Iterator
from typing import Final

from rsocket_broker.errors import Invalid, Rejected
from rsocket_broker.protocol.codes import COMPLETE, FOLLOWS, METADATA, NEXT, TYPE_SHIFT, FrameType
from rsocket_broker.protocol.frames import HEADER, PREFIX, Octets, joined, start
from rsocket_broker.protocol.limits import Limits
from rsocket_broker.quota import FULL, STEP, Holding, Kind, counted

OVERHEAD: Final = 256
"""What an unfinished message costs beside its bytes, so that a thousand empty ones are not free."""

_PAYLOAD: Final = FrameType.PAYLOAD << TYPE_SHIFT


def fragments(
    stream_id: int, kind: int, leading: bytes, data: Octets, metadata: Octets | None, size: int
) -> Iterator[bytes]:
    """The frames of a message that does not fit into one of `size` bytes.

    `kind` is the type and flags of the message as one frame; `leading` stands between header and payload of the
    first (the initial request-n). Metadata goes out completely before data; COMPLETE only on the last fragment.
    """
    last = (_PAYLOAD | NEXT) | (kind & COMPLETE)
    first = (kind & ~(COMPLETE | METADATA)) | FOLLOWS
    rest_of_metadata = metadata
    sent = 0
    while True:
        room = size - HEADER - len(leading)
        piece: Octets | None = None
        if rest_of_metadata is not None:
            piece = rest_of_metadata[: room - PREFIX]
            room -= PREFIX + len(piece)
            rest_of_metadata = rest_of_metadata[len(piece) :] or None
        # Data must not begin in a frame whose metadata goes on in the next.
        part: Octets = b"" if rest_of_metadata is not None else data[sent : sent + room]
        sent += len(part)
        ended = rest_of_metadata is None and sent >= len(data)
        flags = (last if ended else first) | (0 if piece is None else METADATA)
        body = leading + joined(piece, part)
        yield start(HEADER + len(body), stream_id, flags) + body
        if ended:
            return
        leading, first = b"", _PAYLOAD | NEXT | FOLLOWS


PART: Final = 1024 * 1024
"""Bytes from which a fragment is kept on its own. Smaller ones are put together: each would cost more than it holds."""


class Unfinished:
    """One message whose fragments are still coming."""

    __slots__ = ("_parts", "_size", "metadata", "next")

    def __init__(self) -> None:
        self._parts: list[bytes | bytearray] = []
        self._size = 0
        self.metadata: bytearray | None = None
        self.next = False

    def size(self) -> int:
        return self._size + (0 if self.metadata is None else len(self.metadata))

    def take(self, data: bytes) -> None:
        """Keeps the data of one more fragment. Large ones stay as they are until the end: to put each behind the others
        would move tens of megabytes over and over, and hold everybody up."""
        self._size += len(data)
        if len(data) >= PART:
            self._parts.append(data)
        elif self._parts and type(self._parts[-1]) is bytearray and len(self._parts[-1]) < PART:
            self._parts[-1] += data
        else:
            self._parts.append(bytearray(data))

    @property
    def data(self) -> bytes:
        return b"".join(self._parts)


class Reassembler:
    """The unfinished messages of one connection, at most one for each stream, within one budget."""

    __slots__ = ("_counted", "_held", "_holding", "_limits", "unfinished")

    def __init__(self, limits: Limits, holding: Holding | None = None) -> None:
        """`holding` is that of the line."""
        self._limits = limits
        self._holding = Holding() if holding is None else holding
        self.unfinished: dict[int, Unfinished] = {}
        """By stream id."""
        self._held = 0
        self._counted = 0
        """What the holding knows of that."""

    @property
    def held(self) -> int:
        """Bytes in unfinished messages, with their overhead."""
        return self._held

    def add(self, stream_id: int, data: bytes, metadata: bytes | None, *, has_next: bool) -> None:
        """Takes one fragment, the first or a later one.

        Raises Invalid when the message grows past `Limits.message`, Rejected when all unfinished messages together
        grow past `Limits.reassembly`, or past what the holding may take. The message is dropped then.
        """
        message = self.unfinished.get(stream_id)
        if message is None:
            message = self.unfinished[stream_id] = Unfinished()
            self._held += OVERHEAD
        growth = len(data) + (0 if metadata is None else len(metadata))
        if message.size() + growth > self._limits.message:
            self.drop(stream_id)
            raise Invalid(f"the message is longer than {self._limits.message} bytes")
        if self._held + growth > self._limits.reassembly:
            self.drop(stream_id)
            raise Rejected(f"unfinished messages hold more than {self._limits.reassembly} bytes")
        if self._held + growth - self._counted >= STEP:
            if not self._holding.take(Kind.FRAGMENTS, self._held + growth):
                self.drop(stream_id)
                raise Rejected(FULL)
            self._counted = self._held + growth
        self._held += growth
        message.take(data)
        message.next = message.next or has_next
        if metadata is not None:
            if message.metadata is None:
                message.metadata = bytearray()
            message.metadata += metadata

    def finish(self, stream_id: int) -> tuple[tuple[bytes | None, bytes], bool]:
        """Takes the message out: (metadata, data), and whether any fragment had the NEXT flag."""
        message = self.unfinished[stream_id]
        self.drop(stream_id)
        metadata = None if message.metadata is None else bytes(message.metadata)
        return (metadata, message.data), message.next

    def drop(self, stream_id: int) -> None:
        """Forgets the message, if there is one."""
        message = self.unfinished.pop(stream_id, None)
        if message is not None:
            self._held -= OVERHEAD + message.size()
            if self._counted and (self._held < STEP or self._counted - self._held >= STEP):
                self._counted = counted(self._held)
                self._holding.note(Kind.FRAGMENTS, self._counted)

    def clear(self) -> None:
        """Forgets all of them."""
        self.unfinished.clear()
        self._held = 0
        if self._counted:
            self._counted = 0
            self._holding.note(Kind.FRAGMENTS, 0)
