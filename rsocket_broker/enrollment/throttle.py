"""How much enrolment is done for whom: rates, turns and quiet logs, all with time passed in or none at all.

The plain port is open to every process that can reach it, and each request costs a signature and a device's time.
"""

import asyncio
import contextlib
import enum
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Hashable
from typing import Self

import attrs

from rsocket_broker.enrollment.exchange import Step
from rsocket_broker.errors import EnrollmentRefused

MAX_KEYS = 4096
"""Peers or apps remembered at once; the one that was quiet longest is forgotten first."""
LOOP_EXCHANGES, LOOP_S = 4, 20.0
"""So many exchanges of one app in so many seconds are a loop: a healthy first start takes one."""


@attrs.frozen(slots=True)
class Rate:
    """`burst` at once, and `per_second` in the long run."""

    burst: float
    per_second: float


PER_MINUTE = 1200
"""Exchanges a minute in all: each costs some milliseconds of a processor, so that most of one is left to sessions."""


@attrs.frozen(slots=True, kw_only=True)
class EnrollmentLimits:
    """How much enrolment is allowed. A peer is an address; an app is what one peer says that it is."""

    per_app: Rate = Rate(10, 0.5)
    """Shipped SDKs try again every 2 seconds, for ever: that pace is let through."""
    per_peer: Rate = Rate(60, 5)
    """All devices behind adb share the address of this machine, so that a lab of phones is one peer."""
    overall: Rate = Rate(120, 20)
    running: int = 16
    """Exchanges at work at once: each may hold a thread and ask every device."""
    waiting: int = 64
    """Exchanges that wait for one of those, or for another one of their app."""
    wait_s: float = 30.0
    """Longest wait for a turn. After it, the app is told to come again."""
    prove_s: float = 60.0
    """For finding the container. Drivers limit each device; this is for a driver that does not."""
    deploy_s: float = 60.0
    """For putting two small files in place."""

    @classmethod
    def of(cls, per_minute: int) -> Self:
        """The limits for so many exchanges a minute: a tenth of them may come at once, a quarter from one peer."""
        burst = max(10.0, per_minute / 10)
        return cls(overall=Rate(burst, per_minute / 60), per_peer=Rate(burst / 2, per_minute / 240))


class RateLimiter:
    """A token bucket for each key."""

    def __init__(self, rate: Rate, max_keys: int = MAX_KEYS) -> None:
        self._rate = rate
        self._max_keys = max_keys
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, key: Hashable, now: float) -> float:
        """Take one token at `now` (seconds). 0 when there was one, else the seconds until there will be."""
        tokens = self._tokens(key, now)
        self._buckets.pop(key, None)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self._rate.per_second

    def wait(self, key: Hashable, now: float) -> float:
        """What `take` would answer, taking nothing."""
        return max(0.0, (1 - self._tokens(key, now)) / self._rate.per_second)

    def _tokens(self, key: Hashable, now: float) -> float:
        tokens, since = self._buckets.get(key, (self._rate.burst, now))
        return min(self._rate.burst, tokens + (now - since) * self._rate.per_second)


class Turns:
    """One at a time for each key, so many at a time in all, and no endless queue in front."""

    def __init__(self, limits: EnrollmentLimits) -> None:
        self._limits = limits
        self._running = asyncio.Semaphore(limits.running)
        self._admitted = 0
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    @contextlib.asynccontextmanager
    async def admitted(self, key: Hashable) -> AsyncIterator[None]:
        """A turn for `key`. Raises EnrollmentRefused (step "limits") when too many wait, or the wait is too long."""
        if self._admitted >= self._limits.running + self._limits.waiting:
            raise _busy("too many enrolments are waiting.")
        self._admitted += 1
        try:
            await self._take(key)
            try:
                if self._running.locked():
                    await self._wait(self._running.acquire(), "too many enrolments are at work.")
                else:
                    await self._running.acquire()  # at once
                try:
                    yield
                finally:
                    self._running.release()
            finally:
                self._give_back(key)
        finally:
            self._admitted -= 1

    @contextlib.asynccontextmanager
    async def alone(self, key: Hashable) -> AsyncIterator[None]:
        """No other holder of `key` meanwhile. Raises EnrollmentRefused (step "limits") when the wait is too long."""
        await self._take(key)
        try:
            yield
        finally:
            self._give_back(key)

    async def _take(self, key: Hashable) -> None:
        lock, users = self._locks.get(key) or (asyncio.Lock(), 0)
        self._locks[key] = (lock, users + 1)
        try:
            if users:
                await self._wait(lock.acquire(), "another enrolment of the same app is still at work.")
            else:
                await lock.acquire()  # at once
        except BaseException:
            self._leave(key)
            raise

    def _give_back(self, key: Hashable) -> None:
        self._locks[key][0].release()
        self._leave(key)

    def _leave(self, key: Hashable) -> None:
        lock, users = self._locks.pop(key)
        if users > 1:
            self._locks[key] = (lock, users - 1)

    async def _wait(self, turn: Awaitable[object], reason: str) -> None:
        try:
            async with asyncio.timeout(self._limits.wait_s):
                await turn
        except TimeoutError:
            raise _busy(reason) from None


class Note(enum.Enum):
    """What to write to the log about an exchange."""

    LINE = "a line of its own"
    LOOPING = "that it goes round in circles"
    NOTHING = "nothing: it was said already"


class Repeats:
    """Tells news from the same old story, so that an app that tries every 2 seconds does not fill the log."""

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._apps: OrderedDict[Hashable, tuple[str | None, deque[float], bool]] = OrderedDict()

    def note(self, key: Hashable, outcome: str, now: float) -> Note:
        """What to log about `outcome` of the app `key` at `now` (seconds).

        A new outcome is news. The same one again is not, while it comes within LOOP_S of the one before; only when it
        has come LOOP_EXCHANGES times in LOOP_S is that said, once.
        """
        known, times, looping = self._apps.pop(key, (None, deque[float](), False))
        is_news = outcome != known or now - times[-1] > LOOP_S
        if is_news:
            times, looping = deque([now], maxlen=LOOP_EXCHANGES), False
        else:
            times.append(now)
        in_circles = len(times) == LOOP_EXCHANGES and now - times[0] <= LOOP_S
        self._apps[key] = (outcome, times, looping or in_circles)
        if len(self._apps) > self._max_keys:
            self._apps.popitem(last=False)
        if is_news:
            return Note.LINE
        return Note.LOOPING if in_circles and not looping else Note.NOTHING


def too_often(whose: str, wait_s: float) -> EnrollmentRefused:
    """The refusal of one more request than a rate allows."""
    return EnrollmentRefused(Step.LIMITS, f"{whose} asked too often.", f"Try again in {max(1, round(wait_s))} s.")


def _busy(reason: str) -> EnrollmentRefused:
    return EnrollmentRefused(Step.LIMITS, reason, "Try again in some seconds.")
