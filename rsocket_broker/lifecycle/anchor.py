"""Renews what the ports present before it grows old, while nobody connects: the endpoint's certificate and the CA's.

Whoever connects has it renewed as well; this is for the client that comes first after a quiet week, and must not wait.
What only the operator can renew is told in the log, in time and once a day.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from rsocket_broker.authority import Authority
from rsocket_broker.errors import BrokerError
from rsocket_broker.lifecycle.contexts import CurrentContexts

LONGEST: Final = 3600.0
"""Seconds between two looks at the calendar, whatever it says: the machine may have slept, or its clock been set."""
SHORTEST: Final = 60.0
"""The same after a renewal that failed."""

REMINDER: Final = timedelta(days=1)

_log = logging.getLogger(__name__)


class AnchorKeeper:
    """One per broker. `run` until it is cancelled."""

    def __init__(
        self,
        authority: Authority,
        contexts: CurrentContexts,
        *,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._authority = authority
        self._contexts = contexts
        self._now = now
        self._sleep = sleep
        self._told: datetime | None = None

    async def run(self) -> None:
        while True:
            self._tell()
            left = (self._authority.due - self._now()).total_seconds()
            await self._sleep(min(max(left, SHORTEST), LONGEST))
            if self._now() >= self._authority.due:
                await self._renew()

    def _tell(self) -> None:
        now = self._now()
        if self._told is not None and abs(now - self._told) < REMINDER:
            return
        self._told = now
        for each in self._authority.foreseen():
            _log.log(logging.WARNING if each.urgent else logging.INFO, "%s", each.text)

    async def _renew(self) -> None:
        try:
            await asyncio.to_thread(self._contexts.prepare)
        except BrokerError as error:
            _log.error("what the ports present could not be renewed: %s", error.public)
