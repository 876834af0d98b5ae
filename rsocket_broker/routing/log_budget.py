"""Keeps what a peer or a plugin can cause from filling the log."""

import logging
import time
from collections.abc import Callable
from typing import Any

LINES = 10
WINDOW = 60.0
"""Lines of one sort that are written within so many seconds: enough to see what is wrong, and that it goes on."""
MAX_SORTS = 256
"""Sorts that are kept apart; beyond that they share one budget."""


class LogBudget:
    """Writes log lines, a few of each sort; counts the others, and says how many there were with the next."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._sorts: dict[str, tuple[float, int]] = {}

    def log(self, sort: str, level: int, text: str, *values: object, exc_info: Any = None) -> None:
        """Log `text % values` unless too many lines of this sort were written lately."""
        if sort not in self._sorts and len(self._sorts) >= MAX_SORTS:
            sort = ""
        now = self._clock()
        began, count = self._sorts.get(sort, (now, 0))
        if now - began >= WINDOW:
            if count > LINES:
                text, values = f"{text} (and %d more like this before)", (*values, count - LINES)
            began, count = now, 0
        self._sorts[sort] = (began, count + 1)
        if count < LINES:
            self._logger.log(level, text, *values, exc_info=exc_info)
