"""A plugin as one session uses it: it is greeted, asked, and told, and leaves."""

import asyncio
from collections.abc import Mapping
from typing import Any

from rsocket_broker.plugin_api.app import App
from rsocket_broker.plugin_api.plugin import Kind
from rsocket_broker.quota import Holding
from rsocket_broker.routing.answers import Answers
from rsocket_broker.routing.delivery import Delivery
from rsocket_broker.routing.greeting import Greeting, State
from rsocket_broker.routing.handling import Handling
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.streaming import Streaming
from rsocket_broker.routing.tasks import Tasks


class Seat:
    """One plugin as one session uses it. `tasks` are the session's, `holding` is that of its line."""

    __slots__ = ("_greeting", "answers", "app", "events", "host", "running", "streams")

    def __init__(self, host: PluginHost, app: App, tasks: Tasks, holding: Holding | None = None) -> None:
        self.host = host
        self.app = app
        self._greeting = Greeting(host, app, tasks, lambda served: self.events.open(served))
        handling = Handling(self._greeting)
        self.running: Mapping[asyncio.Task[Any], str] = handling.running
        """Requests that are being served, or wait for that: the task of each, and its handler's name."""
        self.answers = Answers(handling)
        self.streams = Streaming(handling)
        self.events = Delivery(handling, tasks, holding)
        host.seats += 1

    @property
    def state(self) -> State:
        """How far the greeting is."""
        return self._greeting.state

    @property
    def ready(self) -> bool:
        """Whether shortcuts may be kept."""
        return self._greeting.state is State.CONNECTED

    @property
    def events_waiting(self) -> tuple[int, int]:
        """Events, and their bytes."""
        return self.events.waiting

    def is_method(self, name: str) -> bool:
        """Whether `<plugin>.<name>` answers those who ask; False for what apps push."""
        found = (handler for handler in self.host.routes.handlers() if handler.name == name)
        return all(handler.kind is Kind.METHOD for handler in found)

    def connect(self) -> None:
        """Have the plugin greet the session, unless that has begun already. What arrives meanwhile waits for it."""
        self._greeting.begin()

    async def greeted(self) -> None:
        """Wait for that. Raises RequestFailed when the plugin does not serve this session."""
        await self._greeting.over()

    async def told(self, text: str, stack: str) -> None:
        """The app reports an error outside any request. Raises RequestFailed for whatever goes wrong here."""
        await self._greeting.over()
        plugin = self.host.plugin
        await self._greeting.run(lambda app: plugin.on_app_error(app, text, stack), f"{self.host.id}.on_app_error")

    def close(self) -> None:
        """The session has ended, or the app has dropped the plugin, which says goodbye."""
        if self._greeting.state is State.CLOSED:
            return
        self.host.seats -= 1
        self.events.close()
        self._greeting.close()
