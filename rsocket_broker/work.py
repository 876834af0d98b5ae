"""The tasks that serve one peer: bounded in number, found by the stream they work for, cleaned up when stopped."""

import asyncio
import sys
from collections.abc import Container, Coroutine
from typing import Any, Final

from rsocket_broker.quota import Holding, Kind, counted

_EAGER: Final[dict[str, Any]] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
"""Where Python can, the first step of a task runs at once: work that never waits is done when it has started."""

WEIGHT: Final = 8 * 1024
"""Bytes that a running task counts for: the task, its coroutines and futures, and a light request."""
GRAIN: Final = 64
"""Tasks by which their number must change to be counted anew."""


class Work:
    """Running tasks by stream id.

    Each coroutine given to `start` calls `done` with its stream id as the last thing it does, which is cheaper than
    a callback for each task.
    """

    __slots__ = ("_bottom", "_holding", "_loop", "_over", "_running", "_top", "limit")

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int, holding: Holding | None = None) -> None:
        """`holding` is that of the line."""
        self._loop = loop
        self._holding = Holding() if holding is None else holding
        self._bottom, self._top = -GRAIN, GRAIN
        """The numbers of tasks down to which, and from which on, they are counted anew."""
        self.limit = limit
        """How many may run at once."""
        self._over = False
        self._running: dict[int, tuple[asyncio.Task[None], object]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def start(self, stream_id: int, source: object, work: Coroutine[Any, Any, None]) -> bool:
        """Runs `work`, which awaits or iterates `source`, as a task.

        False, and both are closed, when too much runs already: a peer may ask and cancel over and over, and a
        cancelled handler may still be cleaning up under a stream id that its peer uses again. False too once all is
        stopped: a handler may end the connection before it says what is to be done.
        """
        if not self._may_start(stream_id):
            work.close()
            abandon(source)
            return False
        task = asyncio.Task(work, loop=self._loop, **_EAGER)
        if not task.done():
            self._running[stream_id] = (task, source)
            if self._over:  # its own first step was the end of it all
                self.stop(stream_id)
        return True

    def _may_start(self, stream_id: int) -> bool:
        number = len(self._running)
        if self._over or stream_id in self._running or number >= self.limit:
            return False
        return number < self._top or self._count(number + GRAIN)

    def _count(self, top: int) -> bool:
        """Counts as many tasks as there may be up to `top`, GRAIN of them for nothing. False when that is too much."""
        if not self._holding.reserve(Kind.WORK, counted((top - GRAIN) * WEIGHT)):
            return False
        self._bottom, self._top = top - 2 * GRAIN, top
        return True

    def streams_of(self, tasks: Container[asyncio.Task[Any]]) -> list[tuple[int, asyncio.Task[None]]]:
        """The streams that one of these tasks works for."""
        return [(stream_id, task) for stream_id, (task, _) in self._running.items() if task in tasks]

    def done(self, stream_id: int) -> None:
        self._running.pop(stream_id, None)
        if len(self._running) <= self._bottom:
            self._count(len(self._running) + GRAIN)

    def stop(self, stream_id: int) -> None:
        """Cancels the work on a stream, if there is any."""
        if stream_id in self._running:
            task, source = self._running[stream_id]
            task.cancel()

            def clean(_: object) -> None:
                """A task that was cancelled before its first step has run none of its own clean-up."""
                if self._running.get(stream_id) == (task, source):  # and not what has begun under this id since
                    self.done(stream_id)
                abandon(source)

            task.add_done_callback(clean)

    def stop_later(self, stream_id: int, delay: float) -> None:
        """Cancels the work on a stream if it has not ended by itself in `delay` seconds."""
        running = self._running.get(stream_id)

        def stop() -> None:
            if running is not None and self._running.get(stream_id) is running:
                self.stop(stream_id)

        if running is not None:
            self._loop.call_later(delay, stop)

    def stop_all(self) -> None:
        """The end: nothing can be started any more."""
        self._over = True
        for stream_id in tuple(self._running):
            self.stop(stream_id)

    async def wait(self, timeout: float) -> None:
        """Until nothing runs, at most `timeout` seconds."""
        deadline = self._loop.time() + timeout
        while self._running and (left := deadline - self._loop.time()) > 0:
            await asyncio.wait([task for task, _ in self._running.values()], timeout=left)


def abandon(source: object) -> None:
    """Closes a coroutine that nobody will await; what is not a coroutine needs nothing."""
    if isinstance(source, Coroutine):
        source.close()
