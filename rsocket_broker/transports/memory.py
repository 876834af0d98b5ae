"""Two transports joined in memory: what one writes the other receives, with back-pressure and both kinds of close.

Deliveries happen on later turns of the running loop, never from inside `write`, as with sockets.
"""

import asyncio
from collections import deque

from rsocket_broker.transports.base import Channel, Peer, Receiver

HIGH_WATER = 64 * 1024
"""Bytes not yet delivered at which the writer is asked to pause: small, so that tests meet back-pressure."""
LOW_WATER = 16 * 1024
CLOSE_TIMEOUT = 2.0
"""Seconds that a closed end waits for the other to take its bytes and to close, as over sockets."""


def memory_pair(one: Receiver, other: Receiver) -> tuple["MemoryTransport", "MemoryTransport"]:
    """Two joined transports; both receivers have had `transport_ready` when this returns. Needs a running loop."""
    first, second = MemoryTransport(one), MemoryTransport(other)
    first.join(second)
    second.join(first)
    for end in (first, second):
        end.receiver.transport_ready(end)
    return first, second


class MemoryTransport:
    """One end. `receiver` may be exchanged, which is how TLS puts itself in between."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.peer = Peer("memory", Channel.MEMORY)
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[bytes] = deque()
        self._inbox_size = 0
        self._other: MemoryTransport
        self._scheduled = False
        self._reading = True
        self._writer_paused = False
        self._closing = False
        self._ended = False
        self._eof_told = False
        self._lost = False
        self._deadline: asyncio.TimerHandle | None = None

    def join(self, other: "MemoryTransport") -> None:
        self._other = other

    @property
    def queued(self) -> int:
        return self._other._inbox_size

    def write(self, chunks: list[bytes]) -> None:
        data = b"".join(chunks)
        if self._closing or self._lost or not data:
            return
        self._other._put(data)
        if self.queued > HIGH_WATER and not self._writer_paused:
            self._writer_paused = True
            self.receiver.writing_paused()

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._schedule()

    def close(self) -> None:
        if self._closing or self._lost:
            return
        self._closing = True
        self._inbox.clear()
        self._inbox_size = 0
        self._deadline = self._loop.call_later(CLOSE_TIMEOUT, self.abort)
        self._other._end()
        self._schedule()

    def abort(self) -> None:
        if self._lost:
            return
        self._closing = True
        self._loop.call_soon(self._lose, None)
        self._loop.call_soon(self._other._lose, ConnectionResetError("the other end was dropped"))

    def hand_over(self, receiver: Receiver) -> None:
        self.receiver = receiver

    def _put(self, data: bytes) -> None:
        """Takes what the other end wrote; one that is closing throws it away."""
        if not self._closing and not self._lost:
            self._inbox.append(data)
            self._inbox_size += len(data)
            self._schedule()

    def _end(self) -> None:
        """The other end will write no more."""
        self._ended = True
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and not self._lost:
            self._scheduled = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        while self._inbox and self._reading and not self._closing and not self._lost:
            data = self._inbox.popleft()
            self._inbox_size -= len(data)
            self._other._relieve()
            self.receiver.data_received(memoryview(data))
        if self._lost or self._inbox or not self._ended:
            return
        if self._closing:
            self._finish()
        elif self._reading and not self._eof_told:
            self._eof_told = True
            self.receiver.eof_received()

    def _finish(self) -> None:
        """Both ends have closed: each goes once the other has taken its bytes."""
        for end in (self, self._other):
            if end._closing and end._ended and not end._other._inbox:
                end._loop.call_soon(end._lose, None)

    def _relieve(self) -> None:
        if self._writer_paused and self.queued <= LOW_WATER:
            self._writer_paused = False
            if not self._closing and not self._lost:
                self.receiver.writing_resumed()

    def _lose(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = True
        if self._deadline is not None:
            self._deadline.cancel()
        self._inbox.clear()
        self._inbox_size = 0
        self.receiver.transport_lost(None if self._closing else error)
