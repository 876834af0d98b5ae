"""Those who look on while an app's traffic grows: one by one, in order, and never more kept for them than a bound."""

import asyncio
from collections import deque
from types import TracebackType
from typing import Any, Self

from rsocket_broker.plugins.network.traffic import Exchange, Traffic

BACKLOG = 1000
"""Items kept for a follower that reads slower than they come: twice what an app sends in its first burst."""


class Following:
    """An async iterator over what happens from now on; a context manager that ends it."""

    def __init__(self, traffic: Traffic, backlog: int = BACKLOG) -> None:
        self._traffic = traffic
        self._waiting: deque[dict[str, Any]] = deque(maxlen=backlog)
        self._news = asyncio.Event()
        self._dropped = 0

    def __enter__(self) -> Self:
        self._traffic.watchers.append(self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._traffic.watchers.remove(self._note)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        if self._dropped:
            count, self._dropped = self._dropped, 0
            return {"dropped": count}
        while not self._waiting:
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()

    def _note(self, what: str, exchange: Exchange) -> None:
        self._dropped += len(self._waiting) == self._waiting.maxlen
        self._waiting.append({"event": what, "exchange": exchange.summary()})
        self._news.set()
