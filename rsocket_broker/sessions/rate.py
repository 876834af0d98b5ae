"""How often a session may ask. Time is passed in, in seconds."""

from collections.abc import Iterable

BURST_S = 1.0
"""Seconds of its rate that a session may use up at once: a page that loads asks for several things together."""


class Bucket:
    """So many requests a second, and what was not used for `BURST_S` seconds; one at least."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._most = max(1.0, rate * BURST_S)
        self._left = self._most
        self._filled = now

    def has_one(self, now: float) -> bool:
        self._left = min(self._most, self._left + max(0.0, now - self._filled) * self._rate)
        self._filled = now
        return self._left >= 1.0

    def take(self) -> None:
        self._left -= 1.0


def take_from_all(buckets: Iterable[Bucket], now: float) -> bool:
    """Take one from each, or from none where one is empty: what a child asks, its parent has asked too."""
    all_ = tuple(buckets)
    if not all(bucket.has_one(now) for bucket in all_):
        return False
    for bucket in all_:
        bucket.take()
    return True
