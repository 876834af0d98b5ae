"""One plugin in this broker: its routes, its places, its log, and what becomes of its errors."""

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol
from weakref import WeakSet

from rsocket_broker.errors import ApplicationError, Canceled, ConnectionClosed, Invalid, RequestFailed, Unavailable
from rsocket_broker.identity import Identity
from rsocket_broker.plugin_api.handlers import Handler, Model
from rsocket_broker.plugin_api.inspection import read_plugin
from rsocket_broker.plugin_api.plugin import Plugin
from rsocket_broker.quiet_log import WINDOW, QuietLog
from rsocket_broker.routing.aside import Aside
from rsocket_broker.routing.calls import Calls
from rsocket_broker.routing.gate import Gate
from rsocket_broker.routing.registry import LoadedPlugin
from rsocket_broker.routing.supervision import Supervisor, told
from rsocket_broker.routing.tasks import Tasks, in_turns

logger = logging.getLogger(__name__)

LEFT = "A client that had to be asked for this has left."
"""What whoever asks is told, who may be another one: why it has left is between that client and us."""

_OURS = tuple(f"rsocket_broker/{package}/" for package in ("routing", "plugin_api"))


class Guest(Protocol):
    """A session that has the plugin, or is to have it."""

    async def lose(self, host: "PluginHost", error: RequestFailed) -> None:
        """The plugin is down: requests that it serves for the session end with `error`."""

    def regain(self, host: "PluginHost") -> None:
        """The plugin is up again. Does nothing for a session that has ended, or may not have it."""


class PluginHost:
    """One plugin in this broker. `tasks` runs what outlives a session: the farewells."""

    def __init__(self, loaded: LoadedPlugin, tasks: Tasks, clock: Callable[[], float] = time.monotonic) -> None:
        self.id = loaded.id
        self.origin = loaded.origin
        self.plugin: Plugin = loaded.plugin
        self.routes = loaded.routes
        self.gate = Gate(loaded.id, loaded.plugin.concurrency)
        self.tasks = tasks
        self.log = QuietLog(logger)
        self.calls = Calls()
        """What clients ask of the plugin."""
        self.app_calls = Calls()
        """What is asked of its side in the apps."""
        self.events_dropped = 0
        self.seats = 0
        """How many sessions have a seat."""
        self.blocked = 0
        """How often one of its handlers has held up the event loop."""
        self.aside = Aside()
        """Where its large messages are read; its router gives it that of the broker."""
        self.supervisor = Supervisor(self, loaded.plugin.restart)
        self._make = loaded.make
        self._guests: WeakSet[Guest] = WeakSet()
        self._greeted = 0
        self._clock = clock
        self._shown = "", 0.0
        """The last failure that was logged with its traceback, and when."""

    @property
    def available(self) -> bool:
        """Whether a session may take a seat now."""
        return self.supervisor.available

    @property
    def troubled(self) -> bool:
        """Whether there is anything that an operator should know."""
        return not self.available or bool(self.supervisor.restarts or self.blocked)

    def describe(self) -> dict[str, object]:
        """How it does, as JSON."""
        return {**self.supervisor.describe(), "blocked": self.blocked}

    @property
    def needs_start(self) -> bool:
        """Whether there is more to its start than that it is there."""
        return type(self.plugin).on_start is not Plugin.on_start

    def unavailable(self) -> Unavailable:
        """What to tell who asks meanwhile."""
        return self.supervisor.refusal()

    def json_handler(self, name: str, model: Model) -> Handler:
        """What serves `<plugin>.<name>` for those who speak Flipper's JSON. Raises Invalid."""
        handler = self.routes.find(name, model)
        if handler.start_json is None:
            raise Invalid(f"{handler.route[:100]} takes messages as they are, not Flipper's JSON: use its route.")
        return handler

    def expect(self, guest: Guest) -> None:
        """The session has the plugin, or is to have it as soon as it is up."""
        self._guests.add(guest)

    def greeted(self) -> None:
        """An on_connect has succeeded."""
        self._greeted += 1

    # As `Supervised`.

    def renew(self) -> None:
        """Another instance, made as the first one was. A plugin that came as an instance goes on as that one."""
        if self._make is not None:
            plugin = self._make()
            self.plugin, self.routes = plugin, read_plugin(plugin)

    async def vacate(self, error: RequestFailed) -> None:
        """Every session loses its seat."""
        async for some in in_turns(tuple(self._guests)):
            for guest in some:
                await guest.lose(self, error)

    async def gone(self, timeout: float) -> None:
        """Until the farewells are over, at most `timeout` seconds."""
        await self.tasks.settle(timeout, self.id)

    async def reoccupy(self) -> None:
        """Every session that has lost its seat, or has come since, gets one, as long as the plugin is up."""
        async for some in in_turns(tuple(self._guests)):
            for guest in some if self.available else ():
                guest.regain(self)

    def lost(self, events: int) -> None:
        """So many found their queue full."""
        self.events_dropped += events

    def greets(self) -> bool:
        """Whether the author wrote an on_connect."""
        return type(self.plugin).on_connect is not Plugin.on_connect

    def failed(self, what: str, error: BaseException, of: Identity | None = None, weight: int = 1) -> RequestFailed:
        """The error that the peer gets. Words meant for it go out; anything else is logged here, and only here.

        `of` is who asked, `weight` what this counts for where failures are counted.
        """
        if isinstance(error, RequestFailed):
            return error
        if isinstance(error, ConnectionClosed):  # of a client that the handler asks: nobody's failure
            self.log.write(logging.INFO, f"{what} left", "%s ended early: %s", what, error.public)
            return Canceled(LEFT)
        if of is not None:
            successes = self.calls.untimed + self.calls.seconds.count + self._greeted
            self.supervisor.failed(what, error, of.principal, successes, self.seats, weight)
        self._write(what, error)
        return ApplicationError(f"internal error in {what}")

    def _write(self, what: str, error: BaseException) -> None:
        """The traceback goes with it where it is not that of the last failure: to write one takes a millisecond."""
        place, now = told(what, error), self._clock()
        again = place == self._shown[0] and now - self._shown[1] < WINDOW
        if again:
            self.log.write(logging.ERROR, what, "%s failed once more, as before: %s", what, type(error).__name__)
            return
        self._shown = place, now
        shown = (type(error), error, own_frames(error.__traceback__))
        self.log.write(logging.ERROR, what, "%s failed", what, error=shown)


def own_frames(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is not the broker's; the whole when there is no such frame."""
    at = traceback
    while at is not None:
        if not any(ours in at.tb_frame.f_code.co_filename for ours in _OURS):
            return at
        at = at.tb_next
    return traceback
