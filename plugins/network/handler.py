"""The plugin `Network`: takes in what apps tell of their HTTP traffic, and answers for it."""

import time
from collections.abc import AsyncIterator
from typing import Any

from rsocket_broker.plugin_api import App, Plugin, event, method
from rsocket_broker.plugins.network import messages
from rsocket_broker.plugins.network.following import Following
from rsocket_broker.plugins.network.traffic import Shelf, Traffic


class Network(Plugin):
    """`app.state` is the app's Traffic."""

    id = "Network"

    def __init__(self) -> None:
        self._shelf = Shelf()

    def on_connect(self, app: App) -> None:
        app.state = Traffic(self._shelf)

    def on_disconnect(self, app: App) -> None:
        self.traffic(app).clear()

    def traffic(self, app: App) -> Traffic:
        """What is known of an app's traffic."""
        found: Traffic = app.state
        return found

    @event("newRequest")
    def new_request(self, app: App, params: dict[str, Any]) -> None:
        self.traffic(app).add_request(messages.request(params), _now())

    @event("newResponse")
    def new_response(self, app: App, params: dict[str, Any]) -> None:
        self.traffic(app).add_response(messages.response(params), _now())

    @event("partialResponse")
    def partial_response(self, app: App, params: dict[str, Any]) -> None:
        self.traffic(app).add_response(messages.response(params), _now())

    @method("list")
    async def exchanges(self, app: App, limit: int = 100, client: str = "") -> dict[str, object]:
        """The newest exchanges, oldest first, and how many had to go to make room."""
        traffic = self.traffic(await app.reach(client, "list"))
        found = list(traffic)
        return {"exchanges": [one.summary() for one in found[-max(1, limit) :]], "dropped": traffic.dropped}

    @method("follow")
    async def follow(self, app: App, known: bool = False, client: str = "") -> AsyncIterator[dict[str, object]]:
        """Each exchange as it comes: `{"event": "request" | "response", "exchange": {...}}`, with `known` those first
        that are here already. `{"dropped": N}` stands for N that the follower was too slow for."""
        traffic = self.traffic(await app.reach(client, "follow"))
        with Following(traffic) as following:
            for exchange in traffic if known else ():
                yield {"event": "known", "exchange": exchange.summary()}
            async for item in following:
                yield item


def _now() -> float:
    """Milliseconds since 1970."""
    return time.time() * 1000
