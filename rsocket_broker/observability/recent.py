"""What a running broker has warned of lately, for `doctor`: the log's own words, each kind of line once.

The log is where everything that goes wrong is said, in words that name the thing, the reason and the next step. Whoever
asks for a diagnosis has often not seen it: the broker runs elsewhere, or a day's lines lie above the one that matters.
"""

import logging
import re
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

import attrs

from rsocket_broker.moments import timestamp, utc_now
from rsocket_broker.observability.logs import visible

MAX_WARNINGS = 100
"""Kinds of warnings that are kept; the one that was seen least lately goes. A diagnosis with more helps nobody."""
MAX_TEXT = 1000
"""Characters of one, which says what it says in two or three sentences."""

_NUMBER = re.compile(r"\d+")


@attrs.frozen(slots=True)
class Warned:
    """Lines of the log that differ in their numbers alone: ports, counts. `text` is the last one; times are aware."""

    text: str
    times: int
    first: datetime
    last: datetime

    def describe(self) -> dict[str, object]:
        return {
            "text": self.text,
            "times": self.times,
            "first": timestamp(self.first),
            "last": timestamp(self.last),
        }


class Recent(logging.Handler):
    """Keeps the warnings of the loggers below `name`, from `start` to `stop`."""

    def __init__(self, name: str = "rsocket_broker", clock: Callable[[], datetime] = utc_now) -> None:
        super().__init__(logging.WARNING)
        self._logger = logging.getLogger(name)
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], Warned] = OrderedDict()

    def start(self) -> None:
        self._logger.addHandler(self)

    def stop(self) -> None:
        self._logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Called with the handler's lock held, on whichever thread has something to say."""
        text, now = visible(record.getMessage())[:MAX_TEXT], self._clock()
        key = record.name, _NUMBER.sub("#", text)
        before = self._kept.pop(key, None)
        times, first = (1, now) if before is None else (before.times + 1, before.first)
        self._kept[key] = Warned(text, times, first, now)
        if len(self._kept) > MAX_WARNINGS:
            self._kept.popitem(last=False)

    def warnings(self) -> list[Warned]:
        """The latest last."""
        self.acquire()
        try:
            return list(self._kept.values())
        finally:
            self.release()
