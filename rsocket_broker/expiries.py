"""Time limits for many waits at once, with one timer: a timer for each would cost more than the wait that it ends."""

import asyncio
import math
from typing import Any, Final

RESOLUTION: Final = 0.001
"""Seconds by which a timer may ring too early: uvloop counts in milliseconds."""


def no_answer(timeout: float | None) -> TimeoutError:
    return TimeoutError(f"no answer within {timeout:g} s")


class Expiries:
    """Futures by number, each with the time by which it must be done. Nearly all are done and dropped long before.

    The timer stands at the earliest end there was when it was set; what has been dropped meanwhile only lets it ring
    once in vain.
    """

    __slots__ = ("_loop", "_timer", "rings", "waits")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self.rings = math.inf
        """When the timer rings, by the loop's clock."""
        self.waits: dict[int, tuple[asyncio.Future[Any], float, float | None, object]] = {}
        """By number: the future, when it fails with a TimeoutError (by the loop's clock; infinity for never), the
        seconds of which its text speaks, and what it is about. The owner takes out what is over, and may put in what a
        look at `rings` has shown to be in time: both are done for every call."""

    def add(
        self, number: int, wait: "asyncio.Future[Any]", ends: float, timeout: float | None, about: object = None
    ) -> None:
        """Puts a future into `waits`, and sets the timer where it must ring earlier."""
        self.waits[number] = (wait, ends, timeout, about)
        if ends < self.rings:
            self._set(ends)

    def clear(self) -> None:
        """All waits are over."""
        self.waits.clear()
        self._set(math.inf)

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.rings = when
        self._timer = None if when == math.inf else self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        now = self._loop.time() + RESOLUTION
        for wait, ends, timeout, _ in self.waits.values():
            if ends <= now and not wait.done():
                wait.set_exception(no_answer(timeout))
        self._set(min((ends for wait, ends, *_ in self.waits.values() if not wait.done()), default=math.inf))
