"""What a connection counts and keeps so that it can be resumed (RSocket 1.0, "Resuming Operation").

A position is a number of bytes since SETUP, in one direction: of frames of streams (requests, REQUEST_N, CANCEL,
PAYLOAD, ERROR), as they were sent after fragmentation, without their length fields. All other frames, and every frame
on stream 0, have none and are never sent again.
"""

from collections import deque
from typing import Final

from rsocket_broker.errors import ProtocolViolation
from rsocket_broker.protocol.codes import TYPE_SHIFT, ErrorCode, FrameType
from rsocket_broker.protocol.frames import PREFIX, read_start
from rsocket_broker.quota import STEP, Holding, Kind, counted

_FIRST_KIND: Final = FrameType.REQUEST_RESPONSE << TYPE_SHIFT
_BEYOND_KINDS: Final = FrameType.METADATA_PUSH << TYPE_SHIFT
"""The types with a position stand side by side: 0x04 to 0x0B."""
SMALL: Final = 4096
"""Bytes up to which runs of frames are kept as one: each costs 120 bytes beside its own, and a frame may have 9."""
GRAIN: Final = 64
"""The same as a part of the budget, where that is small."""


class Pool:
    """Bytes that all connections of a broker retain together: parallel sessions must not multiply their budget.

    Where that is too much, those pay that hold more than their share. A few that take all there is cost nobody else
    anything, and still no more than twice the limit is ever held.
    """

    __slots__ = ("limit", "members", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.members = 0
        """Ledgers that may keep something."""
        self.used = 0

    def bears(self, size: int) -> bool:
        """Whether one ledger may hold `size` bytes now."""
        return self.used <= self.limit or size * self.members <= self.limit


def measure(frames: bytes, begin: int, end: int) -> tuple[int, list[tuple[int, int]]]:
    """Of the whole frames that stand in `frames[begin:end]`: how many bytes have a position, and where the frames
    without one begin and end."""
    at, size = begin, 0
    others = []
    while at < end:
        high, low, stream_id, kind = read_start(frames, at)
        length = high << 16 | low
        after = at + PREFIX + length
        if _FIRST_KIND <= kind < _BEYOND_KINDS and stream_id:
            size += length
        else:
            others.append((at, after))
        at = after
    return size, others


class Ledger:
    """The positions of one connection, and the frames sent that the peer has not confirmed."""

    __slots__ = (
        "_aside",
        "_blocks",
        "_budget",
        "_counted",
        "_grain",
        "_holding",
        "_pool",
        "first",
        "received",
        "sent",
        "size",
    )

    def __init__(self, budget: int, pool: Pool, holding: Holding | None = None) -> None:
        """`holding` is that of the line."""
        self.sent = 0
        """Position behind the last frame sent."""
        self.received = 0
        """Position behind the last frame received."""
        self.first = 0
        """Position of the earliest frame that can be sent again."""
        self.size = 0
        """Bytes that are kept."""
        self._budget = budget
        self._grain = min(SMALL, budget // GRAIN)
        self._pool = pool
        pool.members += 1
        self._holding = Holding() if holding is None else holding
        self._counted = 0
        """What the holding knows of `size`."""
        self._blocks: deque[tuple[int, bytes]] = deque()
        """Runs of whole frames with a position, length fields included, each with the position behind it."""
        self._aside: list[bytes] = []
        """Frames without a position that go out when the peer is back."""

    @property
    def is_over(self) -> bool:
        """More is kept than this connection may, or all of them together, or all lines of this client."""
        if self.size > self._budget or not self._pool.bears(self.size):
            return True
        return self.size >= STEP and not self._holding.bears()

    @property
    def is_filling(self) -> bool:
        """Half the budget is kept: time to ask the peer how far it has come."""
        return self.size * 2 > self._budget

    def take_in(self, data: bytes, begin: int, end: int) -> None:
        """Whole frames were received: those in `data[begin:end]`."""
        self.received += measure(data, begin, end)[0]

    def record(self, frames: bytes) -> list[bytes]:
        """Whole frames are sent. Returns those that have no position, and are not kept."""
        size, others = measure(frames, 0, len(frames))
        left_out = [frames[begin:end] for begin, end in others]
        if others:
            frames = _without(frames, others)
        if size:
            self.sent += size
            self._charge(len(frames))
            if self._blocks and len(self._blocks[-1][1]) + len(frames) <= self._grain:
                frames = self._blocks.pop()[1] + frames
            self._blocks.append((self.sent, frames))
        return left_out

    def put_aside(self, frame: bytes) -> None:
        """Keeps a frame without a position until `take_back`."""
        self._charge(len(frame))
        if self._aside and len(self._aside[-1]) + len(frame) <= self._grain:
            self._aside[-1] += frame
        else:
            self._aside.append(frame)

    def take_back(self) -> list[bytes]:
        """All that was put aside, in its order; it is kept no longer."""
        aside, self._aside = self._aside, []
        self._charge(-sum(map(len, aside)))
        return aside

    def trim(self) -> None:
        """Forgets the oldest frames until no more is kept than may be."""
        while self._blocks and self.is_over:
            self._drop()

    def release(self, position: int) -> None:
        """The peer has received everything before `position`. One that cannot be is ignored."""
        if position <= self.sent:
            while self._blocks and self._blocks[0][0] <= position:
                self._drop()

    def replay(self, position: int) -> list[bytes]:
        """Everything that was sent from `position` on. Raises ProtocolViolation, with REJECTED_RESUME, when that is
        not to be had: it was never sent, it is kept no longer, or no frame begins there."""
        if position > self.sent:
            raise _impossible("more was received than was sent")
        if position < self.first:
            raise _impossible("what was sent from there on is kept no longer")
        start, found = self.first, []
        for end, frames in self._blocks:
            if position <= start:
                found.append(frames)
            elif position < end:
                found.append(frames[_offset(frames, position - start) :])
            start = end
        return found

    def clear(self) -> None:
        """Nothing will be sent again, and nothing more recorded. To be called once."""
        while self._blocks:
            self._drop()
        self.take_back()
        self._pool.members -= 1

    def _drop(self) -> None:
        self.first, frames = self._blocks.popleft()
        self._charge(-len(frames))

    def _charge(self, size: int) -> None:
        self.size += size
        self._pool.used += size
        if abs(self.size - self._counted) >= STEP or (self._counted and self.size < STEP):
            self._counted = counted(self.size)
            self._holding.note(Kind.RETAINED, self._counted)


def _without(frames: bytes, others: list[tuple[int, int]]) -> bytes:
    begins = [0, *(end for _, end in others)]
    ends = [*(begin for begin, _ in others), len(frames)]
    return b"".join(frames[begin:end] for begin, end in zip(begins, ends, strict=True))


def _offset(frames: bytes, size: int) -> int:
    """Where in `frames` the frame stands that has `size` bytes of frames before it."""
    at = 0
    while size > 0:
        high, low, _, _ = read_start(frames, at)
        length = high << 16 | low
        at += PREFIX + length
        size -= length
    if size:
        raise _impossible("no frame begins there")
    return at


def _impossible(why: str) -> ProtocolViolation:
    return ProtocolViolation(f"the session cannot be resumed from that position: {why}", ErrorCode.REJECTED_RESUME)
