"""Those who look on while an app's traffic grows: one by one, in order, and never more kept for them than a bound."""

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rsocket_broker.plugins.network.filters import Wanted
from rsocket_broker.plugins.network.traffic import Exchange, Traffic

BACKLOG = 1000
"""Items kept for a follower that reads slower than they come: twice what an app sends in its first burst."""

Show = Callable[[Exchange], dict[str, Any]]


class Following:
    """An async iterator over what happens from now on until the app goes; a context manager that ends it."""

    def __init__(self, traffic: Traffic, wanted: Wanted, show: Show, backlog: int = BACKLOG) -> None:
        self._traffic = traffic
        self._wanted = wanted
        self._show = show
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
            if self._traffic.ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()

    def _note(self, what: str, exchange: Exchange | None) -> None:
        if exchange is not None and self._wanted.fits(exchange):
            self._dropped += len(self._waiting) == self._waiting.maxlen
            self._waiting.append({"event": what, "exchange": self._show(exchange)})
        self._news.set()


async def first(traffic: Traffic, fits: Callable[[Exchange], bool]) -> Exchange | None:
    """The first exchange that fits, be it there or to come; None when the app goes before."""
    found: asyncio.Future[Exchange | None] = asyncio.get_running_loop().create_future()

    def look(what: str, exchange: Exchange | None) -> None:
        if not found.done() and (exchange is None or fits(exchange)):
            found.set_result(exchange)

    for exchange in traffic:
        look("known", exchange)
    if traffic.ended:
        look("end", None)
    traffic.watchers.append(look)
    try:
        return await found
    finally:
        traffic.watchers.remove(look)
