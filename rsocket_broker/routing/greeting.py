"""What a plugin says to a session when it comes and when it goes: nothing else of it is served before, or after.

    NEW -> CONNECTING -> CONNECTED -> CLOSED
                      -> FAILED    -> CLOSED          on_connect raised: the plugin does not serve this session

A plugin without an `on_connect`, or with a plain one that goes well, goes from NEW to CONNECTED at once.
"""

import asyncio
import enum
import inspect
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from rsocket_broker.errors import Canceled, RequestFailed, request_error
from rsocket_broker.plugin_api.app import App
from rsocket_broker.plugin_api.plugin import Plugin
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.restarts import GREETING
from rsocket_broker.routing.tasks import Tasks

logger = logging.getLogger(__name__)

HOOK_DEADLINE: Final = 30.0
"""Seconds for on_connect and on_disconnect: they may call the app, which has as long to answer."""

ENDED: Final = "The session has ended."

Hook = Callable[[App], Awaitable[None] | None]
"""on_connect or on_disconnect of a plugin."""


class State(enum.Enum):
    """Where a plugin and a session are with each other."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    FAILED = "failed"
    CLOSED = "closed"


class Greeting:
    """Of one plugin to one session. `tasks` are the session's, and end with it; the farewell outlives them."""

    __slots__ = ("_decided", "_refusal", "_settled", "_tasks", "app", "host", "state")

    def __init__(self, host: PluginHost, app: App, tasks: Tasks, decided: Callable[[bool], None]) -> None:
        """`decided` is told whether the plugin serves the session, once that is known, and maybe False again after."""
        self.host = host
        self.app = app
        self.state = State.NEW
        self._tasks = tasks
        self._decided = decided
        self._refusal: RequestFailed | None = None
        self._settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        """Run on_connect, unless that has begun already. What arrives meanwhile waits for it."""
        if self.state is not State.NEW:
            return
        if not self.host.greets():
            self._connected(None)
            return
        self.state = State.CONNECTING
        hook = self.host.plugin.on_connect
        if inspect.iscoroutinefunction(hook):
            self._tasks.spawn(self._greet(hook))
        else:
            self._greet_at_once(hook)

    def _greet_at_once(self, hook: Hook) -> None:
        """By a plain function, which most are: no task, and the first request need not wait for one."""
        try:
            rest = hook(self.app)
        except (Exception, SystemExit, asyncio.CancelledError) as error:  # noqa: BLE001  judged where all are
            self._tasks.spawn(self._greet(partial(_fail, error)))
            return
        if rest is None:
            self.host.greeted()
            self._connected(None)
        else:
            self._tasks.spawn(self._greet(lambda app: rest))

    async def _greet(self, hook: Hook) -> None:
        what = f"{self.host.id}.on_connect"
        try:
            await self.run(hook, what, GREETING)
        except RequestFailed as refusal:
            self._connected(refusal)
        except asyncio.CancelledError:
            self._connected(Canceled(f"{what} was stopped: the session has ended."))
            raise
        else:
            self.host.greeted()
            self._connected(None)

    def _connected(self, refusal: RequestFailed | None) -> None:
        if self.state is not State.CLOSED:
            self.state = State.CONNECTED if refusal is None else State.FAILED
        self._refusal = refusal
        if not self._settled.done():
            self._settled.set_result(None)
        self._decided(refusal is None)

    async def over(self) -> None:
        """Wait for on_connect. Raises RequestFailed when the plugin does not serve this session."""
        await asyncio.shield(self._settled)
        if self._refusal is not None:  # a fresh one for each: an exception raised twice grows a tangled traceback
            raise request_error(self._refusal.code, self._refusal.public)

    def close(self) -> None:
        """The session has ended, or the app has dropped the plugin: say goodbye, if the greeting went well."""
        was, self.state = self.state, State.CLOSED
        if not self._settled.done():
            self._refusal = self._refusal or Canceled(ENDED)
            self._settled.set_result(None)
        plugin = self.host.plugin
        if was is State.CONNECTED and type(plugin).on_disconnect is not Plugin.on_disconnect:
            self.host.tasks.spawn(self._farewell(plugin), self.host.id)

    async def _farewell(self, plugin: Plugin) -> None:
        try:
            await self.run(plugin.on_disconnect, f"{self.host.id}.on_disconnect")
        except RequestFailed as error:
            logger.debug("%s.on_disconnect ended early: %s", self.host.id, error.public)

    async def run(self, hook: Hook, what: str, weight: int = 1) -> None:
        """Run a hook for the app; a failure counts for `weight`. Raises RequestFailed for whatever goes wrong."""
        try:
            async with asyncio.timeout(HOOK_DEADLINE):
                result = hook(self.app)
                if inspect.isawaitable(result):
                    await result
        except (Exception, SystemExit) as error:
            raise self.host.failed(what, error, self.app.identity, weight) from error


def _fail(error: BaseException, app: App) -> None:
    """Raises what a hook has raised."""
    raise error
