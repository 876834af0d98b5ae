"""What became of calls, counted where they end: for the metrics, and cheap enough for every call."""

from collections import Counter

from rsocket_broker.histogram import Histogram
from rsocket_broker.tracing import kind_of


class Calls:
    """Calls of one plugin, in one direction.

    A call is counted when it has ended: in `failed` by the kind of its error, else in `seconds`, or in `untimed` where
    its duration says nothing: a handler that never waits, a stream.
    """

    __slots__ = ("failed", "seconds", "untimed")

    def __init__(self) -> None:
        self.untimed = 0
        self.seconds = Histogram()
        self.failed: Counter[str] = Counter()

    def fail(self, error: BaseException) -> None:
        """One that ended with `error`."""
        self.failed[kind_of(error).lower()] += 1

    def results(self) -> dict[str, int]:
        """How many ended in which way: `ok`, or the kind of an error."""
        return {"ok": self.untimed + self.seconds.count, **self.failed}
