"""Deployments that have reached their place, until they are on the disk for sure; then their journal entries can go.

To wait for the disk file by file costs more than all the rest of an exchange, and one wait serves many as well as one.
The journal holds what was deployed, on the disk; until an entry goes, a loss of power is made good at the next start.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from rsocket_broker.enrollment.mediums.base import JournalEntry, Medium

PAUSE = 0.5
"""Seconds from the first of a batch: those that come meanwhile are secured with it."""
MAX_BATCH = 256
"""Deployments that are secured without a pause, so that the journal stays short."""

log = logging.getLogger(__name__)


class Securing:
    """Brings deployments onto the disk, many at a time, behind the back of the apps. Lives on the event loop."""

    def __init__(
        self, end: Callable[..., Awaitable[None]], keep: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        """`end` is awaited with the journal entries that are secured; `keep` runs the work as a task that a stop of the
        broker waits for."""
        self._end = end
        self._keep = keep
        self._waiting: list[tuple[Medium, JournalEntry]] = []
        self._runs = False
        self._stopping = False
        self._hurry = asyncio.Event()

    def add(self, driver: Medium, entry: JournalEntry) -> None:
        """`driver.deploy` has returned for `entry`."""
        self._waiting.append((driver, entry))
        if len(self._waiting) >= MAX_BATCH:
            self._hurry.set()
        if not self._runs:
            self._runs = True
            self._keep(self._run())

    @property
    def numbers(self) -> set[int]:
        """Of the journal entries whose deployments have reached their place and wait."""
        return {entry.number for _, entry in self._waiting}

    def hurry(self) -> None:
        """What waits is secured now, and whatever comes later at once: the broker stops."""
        self._stopping = True
        self._hurry.set()

    async def _run(self) -> None:
        try:
            while self._waiting:
                try:
                    async with asyncio.timeout(PAUSE):
                        await self._hurry.wait()
                except TimeoutError:
                    pass
                if not self._stopping:
                    self._hurry.clear()
                batch, self._waiting = self._waiting, []
                await self._secure(batch)
        finally:
            self._runs = False

    async def _secure(self, batch: list[tuple[Medium, JournalEntry]]) -> None:
        for driver, group in itertools.groupby(sorted(batch, key=lambda each: each[0].name), lambda each: each[0]):
            entries = [entry for _, entry in group]
            try:
                await driver.secure([entry.container for entry in entries])
                await self._end(*entries)
            except Exception:
                log.exception("the driver %s failed to secure %d deployments", driver.name, len(entries))
