"""The class that an author writes, and the two decorators that say what it answers to.

Nothing here is found by the spelling of a name but `on_connect` and `on_disconnect`; everything else carries a mark,
which `handlers.py` reads once, when the plugin is loaded.
"""

import enum
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final, TypeVar

import attrs

from rsocket_broker.plugin_api.app import App

CONCURRENCY = 256
"""Handlers of one plugin that may be under way at once: enough for a busy plugin, and an end to a runaway one."""

DEADLINE = 30.0
"""Seconds that a handler may take before its caller is told that it was stopped."""

MARK: Final = "__rsocket_broker_mark__"


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
