"""When to send KEEPALIVE and when to give a peer up (RSocket 1.0, "KEEPALIVE Frame"). Times in seconds."""

from typing import Final

QUIET_AT_LEAST: Final = 30.0
"""A phone that changes networks is silent for tens of seconds and comes back; less patience would drop it."""
INTERVALS_MISSED: Final = 3
"""One keepalive lost or late is normal; three in a row are not."""


def patience(keepalive_ms: int, lifetime_ms: int) -> float:
    """Seconds that a server lets a client be silent: min(declared lifetime, max(30 s, 3 x declared interval)).

    Flipper's SDK declares a lifetime of 24 days, so that alone is no use. Any byte ends the silence. The server never
    asks for a sign of life: rsocket-cpp as a client closes the connection when it is asked.
    """
    return min(lifetime_ms / 1000, max(QUIET_AT_LEAST, INTERVALS_MISSED * keepalive_ms / 1000))


class Heartbeat:
    """Client side: a KEEPALIVE at every interval; without an answer to one within the lifetime the server is dead."""

    __slots__ = ("_due", "_interval", "_lifetime", "_unanswered")

    def __init__(self, keepalive_ms: int, lifetime_ms: int, now: float) -> None:
        self._interval = keepalive_ms / 1000
        self._lifetime = lifetime_ms / 1000
        self._due = now + self._interval
        self._unanswered: float | None = None

    def restart(self, now: float) -> None:
        """The line is another one: nothing was asked on it yet."""
        self._due = now + self._interval
        self._unanswered = None

    def sent(self, now: float) -> None:
        self._due = now + self._interval
        if self._unanswered is None:
            self._unanswered = now

    def answered(self) -> None:
        """A KEEPALIVE came from the server; one answer covers all that were sent before it."""
        self._unanswered = None

    def is_dead(self, now: float) -> bool:
        return self._unanswered is not None and now >= self._unanswered + self._lifetime

    def deadline(self) -> float:
        """When to look again."""
        return self._due if self._unanswered is None else min(self._due, self._unanswered + self._lifetime)
