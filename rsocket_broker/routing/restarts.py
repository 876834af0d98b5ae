"""When a plugin is to be started anew, and for how long it is down before that: pure, time comes in."""

from collections import Counter
from collections.abc import Hashable

from rsocket_broker.plugin_api.plugin import Restart

GREETING = 5
"""Failures that an on_connect counts for: it is called once for a client, and what it raises costs that client all."""


class FailureRun:
    """Failures of one plugin without a success in between."""

    def __init__(self, policy: Restart | None) -> None:
        self._policy = policy
        self._counts: Counter[Hashable] = Counter()
        self._successes = 0

    def fail(self, owner: Hashable, successes: int, served: int, weight: int = 1) -> bool:
        """One more: whether that is enough. `owner` is the client that it was for, `successes` how many calls have
        succeeded so far in all, `served` how many sessions the plugin has.

        While there are others too, one client counts for half of what is needed at most.
        """
        if self._policy is None:
            return False
        if successes != self._successes:
            self.clear()
            self._successes = successes
        self._counts[owner] += weight
        most = self._policy.failures if served <= 1 else (self._policy.failures + 1) // 2
        return sum(min(count, most) for count in self._counts.values()) >= self._policy.failures

    def clear(self) -> None:
        """It has been restarted, or has succeeded."""
        self._counts.clear()


class Backoff:
    """How long a plugin that has failed stays down, time after time."""

    def __init__(self, policy: Restart) -> None:
        self._policy = policy
        self._delay = policy.first

    def next(self, up_for: float) -> float:
        """Seconds until the next try of a plugin that ran for `up_for` seconds, 0 where it did not come up."""
        if up_for >= self._policy.quiet:
            self._delay = self._policy.first
        delay = self._delay
        self._delay = min(self._policy.most, 2 * delay)
        return delay
