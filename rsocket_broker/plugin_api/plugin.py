"""The class that an author writes, and the two decorators that say what it answers to.

Nothing here is found by the spelling of a name but `on_connect` and `on_disconnect`; everything else carries a mark,
which `handlers.py` reads once, when the plugin is loaded.
"""

import asyncio
import enum
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar, Final, NamedTuple, TypeVar

import attrs

from rsocket_broker.plugin_api.app import App

CONCURRENCY = 256
"""Handlers of one plugin that may be under way at once: enough for a busy plugin, and an end to a runaway one."""

DEADLINE = 30.0
"""Seconds that a handler may take before its caller is told that it was stopped."""

MAX_SPAWNED: Final = 1024
"""Background tasks of one plugin: more than any has a use for, and an end to one that forgets its own."""

MARK: Final = "__rsocket_broker_mark__"


class Restart(NamedTuple):
    """When a plugin is stopped and started anew, and how long it stays down. Times in seconds.

    It is, once `failures` handlers in a row have raised what they did not mean to, none in between having succeeded
    (an `on_connect` counts for five); and at once when what it has spawned raises. Failures for one client alone never
    do it while the plugin serves others too: no client could take it from them.

    Down for `first` the first time, for twice as long each time after that, up to `most`; after `quiet` seconds
    without a failure it begins with `first` again.
    """

    failures: int = 15
    first: float = 1.0
    most: float = 300.0
    quiet: float = 600.0


class Kind(enum.Enum):
    """What a handler is for: EVENT is delivered in order and answers nobody; METHOD answers."""

    EVENT = "event"
    METHOD = "method"


class Unset(enum.Enum):
    """For a deadline that the author left open: streams and channels have none then, everything else `DEADLINE`."""

    UNSET = "unset"


@attrs.frozen(slots=True)
class Mark:
    """What a decorator notes on a function."""

    kind: Kind
    name: str
    deadline: float | Unset | None


Handler_ = TypeVar("Handler_", bound=Callable[..., Any])


def _mark(mark: Mark) -> Callable[[Handler_], Handler_]:
    if not isinstance(mark.name, str):
        raise TypeError(f'@{mark.kind.value} takes the name it answers to: @{mark.kind.value}("name")')

    def note(function: Handler_) -> Handler_:
        setattr(function, MARK, mark)
        return function

    return note


def event(name: str, *, deadline: float | Unset | None = Unset.UNSET) -> Callable[[Handler_], Handler_]:
    """Mark the handler of what an app pushes under `name`. Events of one app reach a plugin one by one, in order.

    `deadline` is in seconds (30 unless given): a handler that takes longer is stopped, and the next event is served.
    """
    return _mark(Mark(Kind.EVENT, name, deadline))


def method(name: str, *, deadline: float | Unset | None = Unset.UNSET) -> Callable[[Handler_], Handler_]:
    """Mark the handler of the route `<plugin id>.<name>`. What it returns is the answer; what it yields, a stream.

    `deadline` is in seconds: 30 unless given, and none for a stream or a channel; None is never.
    """
    return _mark(Mark(Kind.METHOD, name, deadline))


class Plugin:
    """Base of all plugins. One instance serves every app.

    `id` is the plugin's name on the wire, the same as the app side's. A subclass that declares `settings: Class`, with
    an attrs class, finds there what the config holds under `[plugins.ID]`, validated, before anything is called.
    """

    id: ClassVar[str]
    concurrency: ClassVar[int] = CONCURRENCY
    eager: ClassVar[bool] = True
    """False for a plugin whose app side costs the app something: it is started at the first call (or `App.wake`), and
    stopped when nothing was asked of it for a while. What it pushes is no reason to let it run."""
    needs_app: ClassVar[bool] = True
    """False for a plugin that serves clients whose app has no side of it: by what the device gives, for one."""
    restart: ClassVar[Restart | None] = Restart()
    """None for a plugin that is never stopped, whatever it does; what fails then is told and logged, as always."""
    _spawn: Callable[[Coroutine[Any, Any, object]], "asyncio.Task[Any]"] | None = None

    def on_start(self) -> Awaitable[None] | None:
        """Before anything else is called: at the broker's start, and on a new instance when the plugin is restarted.

        May be a coroutine. If it raises, the plugin is down, and is tried again later; the broker starts all the same.
        """

    def on_stop(self) -> Awaitable[None] | None:
        """The last call: what was spawned has been cancelled, and all clients have had their `on_disconnect`.

        May be a coroutine. Not called if `on_start` failed.
        """

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run `work` in the background, from `on_start` on. It ends with the plugin; if it raises, the plugin is
        restarted. Raises RuntimeError before `on_start`, after the end, and where MAX_SPAWNED run already.
        """
        if self._spawn is None:
            work.close()
            raise RuntimeError(f"{type(self).__name__} does not run: spawn from on_start on")
        return self._spawn(work)

    def on_connect(self, app: App) -> Awaitable[None] | None:
        """`app` can be called from now on. May be a coroutine; nothing from `app` is handled until it is done.

        If it raises, this plugin does not serve `app`; other plugins do.
        """

    def on_disconnect(self, app: App) -> Awaitable[None] | None:
        """`app` is gone, for this plugin at least. May be a coroutine. Not called if `on_connect` failed."""

    def on_app_error(self, app: App, text: str, stack: str) -> Awaitable[None] | None:
        """`app` has reported an error of its SDK that belongs to no request. May be a coroutine. `stack` may be "".

        Called for every app, one report after the other, whether the app has a side of this plugin or not.
        """


def supervise(plugin: Plugin, spawn: Callable[[Coroutine[Any, Any, object]], "asyncio.Task[Any]"] | None) -> None:
    """For whoever runs a plugin: what its `spawn` does from now on; None: it is over."""
    plugin._spawn = spawn
