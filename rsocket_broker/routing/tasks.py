"""Background work that belongs to somebody: kept from being garbage-collected, and ended with its owner."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, Final, TypeVar

logger = logging.getLogger(__name__)


TURN: Final = 16
"""How many are ended, or told of an end, in one go: each takes up to 0.05 ms, in which nobody else is served."""

One = TypeVar("One")


async def in_turns(all_: Sequence[One]) -> AsyncIterator[Sequence[One]]:
    """TURN of them at a time, with a turn for everybody else in between."""
    for at in range(0, len(all_), TURN):
        if at:
            await asyncio.sleep(0)
        yield all_[at : at + TURN]


class Tasks:
    """The tasks of one owner. A task that fails is logged; the others go on."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._kinds: dict[asyncio.Task[Any], str] = {}

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, work: Coroutine[Any, Any, Any], kind: str = "") -> asyncio.Task[Any]:
        """Start `work` at the next turn of the loop. `kind` is for `settle`."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        if kind:
            self._kinds[task] = kind
        task.add_done_callback(self._done)
        return task

    def cancel(self) -> None:
        """Stop them all; returns at once."""
        for task in self._running:
            task.cancel()

    async def settle(self, timeout: float, kind: str) -> None:
        """Wait until all of this kind are done; after `timeout` seconds stop those that are left."""
        found = [task for task, one in self._kinds.items() if one == kind]
        if found:
            _, left = await asyncio.wait(found, timeout=timeout)
            for task in left:
                task.cancel()

    async def wait(self, timeout: float) -> None:
        """Wait until all are done; after `timeout` seconds stop those that are left, and wait for that."""
        if self._running:
            await asyncio.wait(tuple(self._running), timeout=timeout)
        left = tuple(self._running)
        self.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        self._kinds.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("background work failed", exc_info=error)
