"""A log that strangers cannot fill: what a peer or a plugin can cause is written a few times a minute at most."""

import logging
import time
from collections.abc import Callable
from types import TracebackType

BURST = 10
"""Lines of one kind in a window: enough to see what goes wrong, with whom, and that it goes on."""
WINDOW = 60.0
"""Seconds."""
MAX_KINDS = 256
"""Kinds that are kept apart: a peer may have a say in their names. Beyond that they share one burst."""

Cause = BaseException | tuple[type[BaseException], BaseException, TracebackType | None]


class QuietLog:
    """Counts lines by kind; those beyond the burst are counted, and the count is told when the next window opens."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic, burst: int = BURST) -> None:
        self._logger = logger
        self._clock = clock
        self._burst = burst
        self._windows: dict[str, tuple[float, int]] = {}

    def write(self, level: int, kind: str, message: str, *arguments: object, error: Cause | None = None) -> None:
        """`message % arguments`, unless too many lines of this `kind` came just before.

        The traceback of `error` goes with it.
        """
        if kind not in self._windows and len(self._windows) >= MAX_KINDS:
            kind = "other things"
        now = self._clock()
        started, count = self._windows.get(kind, (now, 0))
        if now - started >= WINDOW:
            if count > self._burst:
                self._logger.log(level, "%d more lines like the last about %s were left out", count - self._burst, kind)
            started, count = now, 0
        self._windows[kind] = started, count + 1
        if count < self._burst:
            self._logger.log(level, message, *arguments, exc_info=error)
