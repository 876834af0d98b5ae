"""Stops the app's side of plugins that are not eager, when nothing was asked of them for a while.

What such a plugin pushes keeps nobody awake: a layout inspector pushes a picture of the screen with every change, and
that is the work which it is to be spared.
"""

import asyncio
from collections.abc import Callable

IDLE = 60.0
"""Seconds without a question. Longer than a handler may take (30 s), so that none finds its plugin asleep midway."""


class Resting:
    """The lazy plugins of one session. `busy` says whether a question is under way, `rest` stops the app's side."""

    def __init__(self, rest: Callable[[str], object], busy: Callable[[str], bool], idle: float = IDLE) -> None:
        self._rest = rest
        self._busy = busy
        self._idle = idle
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._used: dict[str, float] = {}

    def used(self, plugin: str) -> None:
        """Something was asked of `plugin` just now."""
        loop = asyncio.get_running_loop()
        self._used[plugin] = loop.time()
        if plugin not in self._timers:
            self._timers[plugin] = loop.call_later(self._idle, self._due, plugin)

    def _due(self, plugin: str) -> None:
        loop = asyncio.get_running_loop()
        if self._busy(plugin):
            self._used[plugin] = loop.time()
        left = self._used[plugin] + self._idle - loop.time()
        if left > 0:
            self._timers[plugin] = loop.call_later(left, self._due, plugin)
            return
        del self._timers[plugin], self._used[plugin]
        self._rest(plugin)

    def close(self) -> None:
        """The session has ended: nothing is stopped any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
