"""The events of one app for one plugin: one by one, in order, and never more of them than memory allows."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from rsocket_broker.quota import STEP, Holding, Kind, counted
from rsocket_broker.routing.tasks import Tasks

logger = logging.getLogger(__name__)

MAX_EVENTS = 2000
"""Events that may wait. Apps keep up to 500 for each of their plugins and send them in one burst after `init`."""
MAX_BYTES = 32 * 1024 * 1024
"""Bytes that those events may take: two of the largest messages of Flipper's SDKs (16 MiB)."""

Item = TypeVar("Item")


class EventQueue(Generic[Item]):
    """Hands events to `handle`, which raises nothing, one after the other. Holds them until it is opened.

    An event that finds the queue full is dropped. That is logged once it has run empty again, with a count.
    """

    def __init__(
        self,
        label: str,
        handle: Callable[[Item], Awaitable[None]],
        tasks: Tasks,
        lost: Callable[[int], None] = lambda count: None,
        most: int | None = None,
        *,
        holding: Holding | None = None,
        kind: Kind = Kind.EVENTS,
    ) -> None:
        """`lost` is told of events that were dropped. `most` bytes may wait, MAX_BYTES unless given; they count as
        `kind` in `holding`, that of the line."""
        self._most = MAX_BYTES if most is None else most
        self._label = label
        self._lost = lost
        self._handle = handle
        self._tasks = tasks
        self._waiting: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._holding = Holding() if holding is None else holding
        self._kind = kind
        self._counted = 0
        """What the holding knows of the bytes."""
        self._open = False
        self._closed = False
        self._worker: asyncio.Task[None] | None = None
        self.dropped = 0
        self.idle = True
        """Whether an event that comes now is the only one."""

    @property
    def load(self) -> tuple[int, int]:
        """Events that wait, and the bytes of those and of the one that is being handled."""
        return len(self._waiting), self._bytes

    def put(self, item: Item, size: int) -> None:
        """Take an event that takes `size` bytes, or drop it when the queue is full (an event alone in the queue may
        have any size, and counts for no more than a full queue), or its client holds as much as it may."""
        if self._closed:
            return
        if self._waiting and (len(self._waiting) >= MAX_EVENTS or self._bytes + size > self._most):
            self.dropped += 1
            return
        size = min(size, self._most)
        if self._bytes + size - self._counted >= STEP:
            if not self._holding.bears(self._bytes + size - self._counted):
                self.dropped += 1
                return
            self._count(self._bytes + size)
        self.idle = False
        self._waiting.append((item, size))
        self._bytes += size
        self._start()

    def open(self, served: bool) -> None:
        """Begin to hand events on; when not `served`, nobody ever will take them, and they are let go."""
        if not served:
            self.close()
            return
        self._open = True
        self._start()

    def close(self) -> None:
        """Drop what waits and stop the handler that runs."""
        self._closed = True
        self._waiting.clear()
        self._bytes = 0
        self._count(0)
        self.idle = self._worker is None
        if self._worker is not None:
            self._worker.cancel()
        self._report()

    def _start(self) -> None:
        if self._open and self._worker is None and self._waiting:
            self._worker = self._tasks.spawn(self._work())

    async def _work(self) -> None:
        try:
            while self._waiting:
                item, size = self._waiting.popleft()
                await self._handle(item)
                self._bytes -= size
                if self._counted and (self._bytes < STEP or self._counted - self._bytes >= STEP):
                    self._count(self._bytes)
                await asyncio.sleep(0)  # a burst of events that need no waiting must not keep the loop to itself
        finally:
            self._worker = None
            self.idle = not self._waiting
        self._report()

    def _count(self, size: int) -> None:
        size = counted(size)
        self._holding.change(self._kind, size - self._counted)
        self._counted = size

    def _report(self) -> None:
        if self.dropped:
            logger.warning("%d events for %s were dropped: they came faster than handled", self.dropped, self._label)
            self._lost(self.dropped)
            self.dropped = 0
