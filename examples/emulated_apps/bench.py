"""An app's half of a plugin on the bench of `rsocket_broker.plugin_api.testing`: no broker, no socket.

async with running(NetworkPlugin) as bench:
    network = Network(Platform.IOS)
    async with on_bench(bench, network) as app:
        network.exchange("GET", "https://example.org/", Reply(200, b"hello"))
        await app.deliver()
        har = await app.client.request("har")
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable

from rsocket_broker.plugin_api import ApplicationError
from rsocket_broker.plugin_api.testing import Bench, Client

from .plugin import NO_REPLY, AppPlugin, Params, ReceiverError


class BenchApp:
    """`client` is the bench's. `events` are those that the plugin has sent and that `deliver` has not handed over."""

    def __init__(self, client: Client, events: list[tuple[str, object]]) -> None:
        self.client = client
        self.events = events

    async def deliver(self) -> None:
        """Hands all waiting events to the broker's plugin, in order; returns when it has handled them."""
        while self.events:
            name, params = self.events.pop(0)
            await self.client.event(name, params)


@contextlib.asynccontextmanager
async def on_bench(bench: Bench, plugin: AppPlugin, name: str = "") -> AsyncIterator[BenchApp]:
    """`plugin` as the app's side of a client of `bench`, in use for as long as the block lasts.

    The broker's plugin may call it from its `on_connect` on. Events that it sends by itself when it is taken into use
    have been delivered when the block begins.
    """
    events: list[tuple[str, object]] = []
    plugin.attach(lambda event, params: events.append((event, json.loads(json.dumps(params)))))
    app = BenchApp(await bench.connect(answers=answers(plugin), os=plugin.platform.value, name=name), events)
    await app.deliver()
    try:
        yield app
    finally:
        plugin.attach(None)
        await bench.disconnect(app.client)


def answers(plugin: AppPlugin) -> dict[str, Callable[[Params], object]]:
    """The receivers as the bench's `answers` takes them: an error is what a broker makes of it."""
    return {name: answer(plugin, name) for name in plugin.receivers()}


def answer(plugin: AppPlugin, method: str) -> Callable[[Params], object]:
    def call(params: Params) -> object:
        try:
            value = plugin.call(method, params)
        except ReceiverError as error:
            return ApplicationError(str(error))
        return never() if value is NO_REPLY else value

    return call


async def never() -> None:
    """For a receiver that forgets to answer."""
    await asyncio.get_running_loop().create_future()
