"""How late the event loop is: what everybody waits for when something holds it up."""

import asyncio
from typing import Final

from rsocket_broker.histogram import Histogram

INTERVAL: Final = 0.5
"""Seconds between two looks: often enough to meet a handler that blocks, seldom enough to cost nothing."""


class LoopLag:
    """Asks the loop to be called, and notes by how much it comes too late. `start` once, on the loop."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self.seconds = Histogram()
        self._interval = interval
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._expect(asyncio.get_running_loop())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _expect(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + self._interval
        self._timer = loop.call_at(due, self._look, loop, due)

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self.seconds.observe(max(0.0, loop.time() - due))
        self._expect(loop)
