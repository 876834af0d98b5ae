"""What an inspected plugin is made of: its handlers, and the ways between a payload and Python.

A `Handler` is made of two functions: `start(app, payload)` checks the parameters and calls the author's function,
`finish(result)` turns what came back into a Payload. `inspection.py` puts them together for the case at hand, so that
a handler that takes and gives raw payloads costs no more than its own call.
"""

import abc
import dataclasses
import enum
import types
import typing
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import attrs

from rsocket_broker.errors import Invalid
from rsocket_broker.jsontext import JsonError, dump, parse
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api.app import App
from rsocket_broker.plugin_api.direct import StartData, StartJson, StartSkimmed
from rsocket_broker.plugin_api.plugin import Kind, Plugin

Start = Callable[[App, Payload], Any]
StartChannel = Callable[[App, Payload, AsyncIterator[Payload]], Any]
Finish = Callable[[Any], Payload]


class Model(enum.Enum):
    """The interactions that can reach a handler, under the names of the specification."""

    RESPONSE = "request-response"
    FIRE = "fire-and-forget"
    STREAM = "request-stream"
    CHANNEL = "request-channel"
    PUSH = "metadata-push"


class Shape(enum.Enum):
    """What calling `start` gives: a result, an awaitable of one, an iterator or an async iterator of many."""

    PLAIN = "a plain function"
    COROUTINE = "a coroutine"
    GENERATOR = "a generator"
    ASYNC_GENERATOR = "an async generator"

    @property
    def streams(self) -> bool:
        return self in (Shape.GENERATOR, Shape.ASYNC_GENERATOR)


class Steps(typing.NamedTuple):
    """`start_json` in two steps, for parameters that are so large that the first is done elsewhere.

    `check` makes the arguments from a JSON value and raises Invalid; it is None for a handler that takes the message
    as it is, of type `raw`, under the name `name`. `call` calls the author's function with the arguments.
    """

    check: Callable[[object], dict[str, Any]] | None
    call: Callable[[App, dict[str, Any]], Any]
    raw: type | None = None
    name: str = ""


@attrs.frozen(slots=True, eq=False)
class Handler:
    """One thing that a plugin answers to. `route` is `<plugin id>.<name>`; `where` is its `file:line`.

    `start` serves everything but channels, `start_channel` those; a handler has one of the two, unless it belongs to
    a mounted rsocket-py handler. Both raise Invalid for parameters that do not fit, before the author's code runs.
    """

    name: str
    route: str
    kind: Kind
    shape: Shape
    deadline: float | None
    where: str
    start: Start | None
    start_json: StartJson | None
    start_channel: StartChannel | None
    finish: Finish
    start_data: StartData | None = None
    """As `start`, for a handler that has no use for the metadata."""
    start_skimmed: StartSkimmed | None = None
    """As `start_json`, for parameters that were parsed in a hurry; None where that will not do."""
    steps: Steps | None = None
    """As `start_json`, in two steps."""


class Routes(typing.Protocol):
    """Where the handlers of one plugin are found."""

    def find(self, name: str, model: Model) -> Handler:
        """The handler that serves `name` by `model`. Raises Invalid, in words for the caller, when there is none."""

    def handlers(self) -> Sequence[Handler]:
        """All that can be listed; none for a plugin that takes whatever comes."""


def encode(result: object) -> Payload:
    """What a handler gave, as a payload: raw as it is, everything else as JSON. Raises JsonError."""
    if isinstance(result, Payload):
        return result
    if isinstance(result, bytes | bytearray | memoryview):
        return Payload(bytes(result), None)
    return Payload(encode_json(result), None)


_RAW = (Payload, bytes, bytearray, memoryview)


def encode_data(result: object) -> bytes | Payload:
    """As `encode`, without a payload around what is made JSON here. Raises JsonError."""
    if type(result) is not dict and isinstance(result, _RAW):
        return encode(result)
    try:
        return dump(result)
    except JsonError:
        result = plain(result)
    return dump(result)


def encode_json(result: object) -> bytes:
    """`result` as JSON; attrs objects and enums in it are looked for only when there is something JSON has no name for.

    Raises JsonError.
    """
    try:
        return dump(result)
    except JsonError:
        result = plain(result)
    return dump(result)


def encode_raw(result: object) -> Payload:
    """The same for a handler that takes raw messages, where nothing is an empty payload, not a JSON null."""
    return Payload(b"", None) if result is None else encode(result)


def plain(result: object) -> object:
    """`result` with attrs objects, dataclasses and enums, at any depth, as what JSON has for them."""
    if isinstance(result, dict):
        return {key: plain(value) for key, value in result.items()}
    if isinstance(result, list | tuple):
        return [plain(value) for value in result]
    if isinstance(result, enum.Enum):
        return result.value
    cls: Any = type(result)
    if attrs.has(cls):
        return {field.alias: plain(getattr(result, field.name)) for field in attrs.fields(cls)}
    if dataclasses.is_dataclass(cls) and not isinstance(result, type):
        return {field.name: plain(getattr(result, field.name)) for field in dataclasses.fields(cls)}
    return result


def decode(data: bytes | bytearray | None) -> object:
    """The JSON in `data`; nothing at all stands for `{}`, as it does in Flipper's SDKs. Raises Invalid."""
    if not data:
        return {}
    try:
        return parse(data)
    except JsonError as error:
        raise Invalid(f"The data is {error}.") from error


class DeclaredRoutes:
    """The handlers that a plugin's class declares with @event and @method."""

    def __init__(self, plugin_id: str, table: Mapping[str, Handler]) -> None:
        self._id = plugin_id
        self._table = types.MappingProxyType(table)

    def handlers(self) -> Sequence[Handler]:
        return tuple(self._table.values())

    def find(self, name: str, model: Model) -> Handler:
        handler = self._table.get(name)
        if handler is None:
            raise Invalid(f'The plugin "{self._id}" has no "{name[:100]}".')
        if model not in _serves(handler):
            wanted = " or ".join(one.value for one in _serves(handler))
            raise Invalid(f"{handler.route} is not for a {model.value}: use {wanted}.")
        return handler


def _serves(handler: Handler) -> tuple[Model, ...]:
    if handler.start_channel is not None:
        return (Model.CHANNEL,)
    if handler.shape.streams:
        return (Model.STREAM,)
    return (Model.RESPONSE, Model.FIRE, Model.PUSH) if handler.kind is Kind.EVENT else (Model.RESPONSE, Model.FIRE)


class WholePlugin(Plugin, abc.ABC):
    """A plugin that serves whatever comes under its id, by routes of its own making; see `mount.py`."""

    @abc.abstractmethod
    def routes(self) -> Routes:
        """Asked for once, when the plugin is loaded."""
