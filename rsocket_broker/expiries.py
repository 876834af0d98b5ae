"""Time limits for many waits at once, with one timer: a timer for each would cost more than the wait that it ends."""

import asyncio
from typing import Any, Final

RESOLUTION: Final = 0.001
"""Seconds by which a timer may ring too early: uvloop counts in milliseconds."""


def no_answer(timeout: float | None) -> TimeoutError:
    return TimeoutError(f"no answer within {timeout:g} s")


class Expiries:
    """Futures by number, each with the time by which it must be done. Nearly all are dropped long before.

    The timer stands at the earliest end there was when it was set; what has been dropped meanwhile only lets it ring
    once in vain.
    """

    __slots__ = ("_loop", "_timer", "_waits")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._waits: dict[int, tuple[float, float | None, asyncio.Future[Any]]] = {}

    def __len__(self) -> int:
        return len(self._waits)

    def add(self, number: int, ends: float, timeout: float | None, wait: "asyncio.Future[Any]") -> None:
        """Fails `wait` with TimeoutError at the loop's time `ends`; `timeout` is for its text."""
        self._waits[number] = (ends, timeout, wait)
        if self._timer is None or ends < self._timer.when():
            self._set(ends)

    def drop(self, number: int) -> None:
        """The wait is over."""
        self._waits.pop(number, None)

    def clear(self) -> None:
        """All waits are over."""
        self._waits.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._loop.time() + RESOLUTION
        for number, (ends, timeout, wait) in tuple(self._waits.items()):
            if ends <= now:
                del self._waits[number]
                if not wait.done():
                    wait.set_exception(no_answer(timeout))
        if self._waits:
            self._set(min(ends for ends, _, _ in self._waits.values()))
