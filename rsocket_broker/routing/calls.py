"""What became of calls, counted where they end: for the metrics, and cheap enough for every call."""

from collections import Counter

from rsocket_broker.histogram import Histogram
from rsocket_broker.tracing import kind_of


class Calls:
    """Calls of one plugin, in one direction.

    A call is counted when it has ended: in `at_once` when that took no waiting, in `seconds` when it did, in `failed`
    by the kind of its error.
    """

    __slots__ = ("at_once", "failed", "seconds")

    def __init__(self) -> None:
        self.at_once = 0
        self.seconds = Histogram()
        self.failed: Counter[str] = Counter()

    def fail(self, error: BaseException) -> None:
        """One that ended with `error`."""
        self.failed[kind_of(error).lower()] += 1

    def results(self) -> dict[str, int]:
        """How many ended in which way: `ok`, or the kind of an error."""
        return {"ok": self.at_once + self.seconds.count, **self.failed}
