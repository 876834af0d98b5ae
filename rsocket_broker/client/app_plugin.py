"""The app's side of a plugin: what the author of an app writes, and how the SDK finds the parts of it."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

import attrs

from rsocket_broker.errors import ConfigurationError

Function = TypeVar("Function", bound=Callable[..., Any])
_MARK = "__rsocket_broker_app_method__"


class Line(Protocol):
    """What a plugin may do while the broker uses it."""

    def emit(self, plugin: str, method: str, params: object) -> bool:
        """Sends one event of a plugin, fire and forget; False when there is no line to send it on."""


def method(name: str) -> Callable[[Function], Function]:
    """Marks a method of an `AppPlugin` as one that the broker may call, under this name.

    It may take nothing, the parameters (whatever JSON value came, {} for none), or the parameters and `incoming`,
    an async iterator of the values that follow them on a channel. It returns (or awaits) one JSON value, or yields
    several: such a method answers streams and channels, the others single requests.
    """

    def mark(function: Function) -> Function:
        setattr(function, _MARK, name)
        return function

    return mark


@attrs.frozen(slots=True)
class AppMethod:
    """One method that the broker may call."""

    name: str
    attribute: str
    takes: int
    """How many arguments it wants after `self`: 0, 1 (parameters) or 2 (parameters and the values that follow)."""
    streams: bool
    """True when it yields its answers."""

    def call(self, plugin: "AppPlugin", params: object, incoming: object = None) -> Any:
        """Whatever the method gives: a value, an awaitable, a generator."""
        return getattr(plugin, self.attribute)(*(params, incoming)[: self.takes])


class AppPlugin:
    """Subclass this in an app; give an instance to `connect(plugins=[...])`.

        class Counter(AppPlugin):
            id = "Counter"

            @method("add")
            async def add(self, params: dict) -> dict:
                return {"sum": params["a"] + params["b"]}

    `id` is the name that the broker's plugin of the same id looks for. A `background` plugin is started by the
    broker as soon as the app connects; others when somebody wants them.
    """

    id: ClassVar[str] = ""
    background: ClassVar[bool] = False
    methods: ClassVar[Mapping[str, AppMethod]] = {}
    _line: Line | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.methods = _methods_of(cls)

    async def on_init(self) -> None:
        """The broker has begun to use this plugin. From here on `emit` sends."""

    async def on_deinit(self) -> None:
        """The broker has stopped using it, or the session is lost. Followed by `on_init` if it comes back."""

    @property
    def active(self) -> bool:
        """True between `on_init` and `on_deinit`."""
        return self._line is not None

    def emit(self, event: str, params: object = None) -> bool:
        """Sends an event to the broker's plugin of the same id. Returns False, and sends nothing, while not active.

        `params` is any JSON value; None is sent as {}. Raises JsonError when it cannot be written as JSON, and
        Rejected when the broker reads so slowly that too much is waiting already.
        """
        return self._line is not None and self._line.emit(self.id, event, {} if params is None else params)

    def attach(self, line: Line | None) -> None:
        """For the SDK: opens (or, with None, shuts) the way for `emit`."""
        self._line = line


def _methods_of(cls: type[AppPlugin]) -> dict[str, AppMethod]:
    found: dict[str, AppMethod] = {}
    for attribute in dir(cls):
        name = getattr(getattr(cls, attribute, None), _MARK, None)
        if name is None:
            continue
        if name in found:
            raise ConfigurationError(
                f"{cls.__name__}: {found[name].attribute} and {attribute} are both the method {name!r}"
            )
        found[name] = _describe(cls, attribute, name)
    return found


def _describe(cls: type[AppPlugin], attribute: str, name: str) -> AppMethod:
    function = getattr(cls, attribute)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(inspect.signature(function).parameters.values())[1:]  # the first is self
    if len(parameters) > 2 or any(parameter.kind not in positional for parameter in parameters):
        raise ConfigurationError(
            f"{cls.__name__}.{attribute} must take (self), (self, params) or (self, params, incoming)"
        )
    streams = inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)
    return AppMethod(name, attribute, len(parameters), streams)


def by_id(plugins: "list[AppPlugin] | tuple[AppPlugin, ...]") -> dict[str, AppPlugin]:
    """The plugins by their ids. Raises ConfigurationError for one without an id, or two with the same."""
    table: dict[str, AppPlugin] = {}
    for plugin in plugins:
        if not plugin.id:
            raise ConfigurationError(f"the app plugin {type(plugin).__name__} has no id")
        if plugin.id in table:
            raise ConfigurationError(f"two app plugins have the id {plugin.id!r}")
        table[plugin.id] = plugin
    return table
