"""Durations counted by size: what a live broker can afford to keep about each call that it serves."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds: from the quickest call over TLS to the longest handshake. Three to each power of ten is as
fine as a quantile made from them needs to be, and sixteen numbers are all that one histogram keeps."""


class Histogram:
    """Counts of observed values, by the first of `bounds` (rising) that is not below the value."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        """Raises ValueError unless `bounds` rise."""
        if not bounds or any(low >= high for low, high in pairwise(bounds)):
            raise ValueError("the bounds of a histogram rise, and there is one at least")
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Values up to each bound and above the one before it; at last those above all bounds."""
        self.total = 0.0
        """The sum of all values."""

    def observe(self, value: float, n: int = 1) -> None:
        """Takes in `value`, which was seen `n` times."""
        self.counts[bisect_left(self.bounds, value)] += n
        self.total += value * n

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """(bound, values up to it) for each bound, and at last (infinity, all)."""
        so_far = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            so_far += count
            yield bound, so_far
