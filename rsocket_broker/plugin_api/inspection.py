"""Reading a plugin's class once, when it is loaded, so that a message finds everything ready.

Whatever makes no sense is a ConfigurationError here, with file and line, and never a surprise at the first message.
"""

import collections.abc
import difflib
import inspect
import re
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, Final

import attrs

from rsocket_broker.errors import ConfigurationError, Invalid
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api.app import App
from rsocket_broker.plugin_api.direct import StartData, StartJson, StartSkimmed, direct, direct_data, direct_skimmed
from rsocket_broker.plugin_api.handlers import (
    DeclaredRoutes,
    Handler,
    Routes,
    Shape,
    Start,
    StartChannel,
    Steps,
    WholePlugin,
    decode,
    encode,
    encode_json,
    encode_raw,
)
from rsocket_broker.plugin_api.parameters import Check, Mismatch, UnknownAnnotation, checker, fields_checker
from rsocket_broker.plugin_api.plugin import DEADLINE, MARK, Kind, Mark, Plugin, Unset

MAX_ROUTE = 255
"""Bytes of a route: its length travels in one byte (Extensions/Routing.md)."""

ID_PATTERN: Final = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9_.@/-]{0,127}")
"""Plugin ids as apps have them. No colon: `client:...` in a route is an address, not a plugin."""

HOOKS: Final = {
    "on_start": "",
    "on_stop": "",
    "on_connect": "app",
    "on_disconnect": "app",
    "on_app_error": "app, text, stack",
}
"""What the broker looks for by its name, and what it gives it."""
_KNOWN_ATTRIBUTES: Final = (*HOOKS, "id", "concurrency", "settings", "eager", "needs_app", "restart", "spawn")

Function = Callable[..., Any]


@attrs.frozen(slots=True)
class _Signature:
    """What a handler takes besides `app`: `incoming` is its async iterator, if any, `named` all the rest.

    `raw` is Payload or bytes, for a handler that takes the message as it came, and `whole` the annotation of the one
    parameter that takes the JSON value whole.
    """

    named: Mapping[str, inspect.Parameter]
    hints: Mapping[str, object]
    incoming: str | None
    raw: type | None
    whole: object | None

    @classmethod
    def of(
        cls, named: Mapping[str, inspect.Parameter], hints: Mapping[str, object], incoming: str | None
    ) -> "_Signature":
        name = next(iter(named)) if len(named) == 1 else ""
        hint = hints.get(name, Any) if name else None
        raw = hint if isinstance(hint, type) and hint in (Payload, bytes) else None
        takes_all = hint is dict or typing.get_origin(hint) is dict or (isinstance(hint, type) and attrs.has(hint))
        whole = hint if name and raw is None and (name == "params" or takes_all) else None
        return cls(named, hints, incoming, raw, whole)

    @property
    def annotations(self) -> dict[str, object]:
        """What is asked of each of `named`."""
        return {name: self.hints.get(name, Any) for name in self.named}

    @property
    def in_order(self) -> bool:
        """Whether `named` can be given by position."""
        return all(parameter.kind is not parameter.KEYWORD_ONLY for parameter in self.named.values())


class _Compiler:
    """Makes the Handler of one marked function."""

    def __init__(self, plugin: Plugin, attribute: str, mark: Mark) -> None:
        self._plugin = plugin
        self._function: Function = getattr(plugin, attribute)
        self._mark = mark
        self._code = inspect.unwrap(getattr(type(plugin), attribute))
        self._where = location(self._code)
        self._label = f"{type(plugin).__name__}.{attribute}"

    def compile(self) -> Handler:
        mark, plugin_id = self._mark, self._plugin.id
        route = f"{plugin_id}.{mark.name}"
        if not mark.name or not mark.name.isprintable() or len(route.encode()) > MAX_ROUTE:
            self._refuse(f"{mark.name!r} is no name: it must be printable, and the route at most {MAX_ROUTE} bytes")
        signature = self._signature()
        shape = self._shape(signature)
        self._check_kind(signature, shape)
        check = self._check(signature)
        start_json = None if signature.incoming else self._start_json(signature, check)
        return Handler(
            name=mark.name,
            route=route,
            kind=mark.kind,
            shape=shape,
            deadline=self._deadline(signature, shape),
            where=self._where,
            start=None if signature.incoming else self._start(signature, start_json),
            start_json=start_json,
            start_channel=self._start_channel(signature, check) if signature.incoming else None,
            finish=encode_raw if self._is_raw(signature) else encode,
            start_data=None if start_json is None else self._start_data(signature, start_json),
            start_skimmed=None if start_json is None else self._start_skimmed(signature, start_json),
            steps=None if start_json is None else self._steps(signature, check),
        )

    def outline(self) -> "Outline":
        signature = self._signature()
        shape = self._shape(signature)
        gives = signature.hints.get("return", NOTHING)
        if shape.streams and typing.get_args(gives):
            gives = typing.get_args(gives)[0]
        return Outline(
            self._mark.name,
            self._mark.kind,
            shape,
            inspect.getdoc(self._code) or "",
            {name: (signature.hints.get(name, Any), one.default) for name, one in signature.named.items()},
            NOTHING if signature.whole is None else signature.whole,
            signature.raw,
            _item_type(signature) if signature.incoming else NOTHING,
            gives,
        )

    def _refuse(self, text: str) -> typing.NoReturn:
        raise ConfigurationError(f"{self._where}: {self._label}: {text}.")

    def _signature(self) -> _Signature:
        parameters = list(inspect.signature(self._function).parameters.values())
        if not parameters or parameters[0].name != "app":
            self._refuse("its first parameter must be app")
        try:
            hints = typing.get_type_hints(self._code)
        except (NameError, AttributeError, TypeError, SyntaxError) as error:
            raise ConfigurationError(f"{self._where}: {self._label}: an annotation is unknown: {error}.") from error
        named = {}
        incoming = None
        for parameter in parameters[1:]:
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                self._refuse(f"parameter {parameter.name} must be an ordinary one: no *, ** or /")
            if typing.get_origin(hints.get(parameter.name)) in _ASYNC_ITERATORS:
                incoming = parameter.name
            else:
                named[parameter.name] = parameter
        return _Signature.of(named, hints, incoming)

    def _shape(self, signature: _Signature) -> Shape:
        code = self._code
        if inspect.isasyncgenfunction(code):
            return Shape.ASYNC_GENERATOR
        if inspect.isgeneratorfunction(code):
            return Shape.GENERATOR
        gives = typing.get_origin(signature.hints.get("return"))
        if inspect.iscoroutinefunction(code):
            if gives in _ASYNC_ITERATORS or gives in _ITERATORS:
                self._refuse("an async def that returns an iterator must yield, or lose its async")
            return Shape.COROUTINE
        if gives in _ASYNC_ITERATORS:
            return Shape.ASYNC_GENERATOR
        return Shape.GENERATOR if gives in _ITERATORS else Shape.PLAIN

    def _check_kind(self, signature: _Signature, shape: Shape) -> None:
        if self._mark.kind is Kind.EVENT and (shape.streams or signature.incoming):
            self._refuse("an @event answers nobody, so it cannot stream; use @method")
        if signature.incoming and shape not in (Shape.COROUTINE, Shape.ASYNC_GENERATOR):
            self._refuse("a handler that reads an async iterator must be async")

    def _deadline(self, signature: _Signature, shape: Shape) -> float | None:
        chosen = self._mark.deadline
        if isinstance(chosen, Unset):
            return None if shape.streams or signature.incoming else DEADLINE
        if chosen is not None and not (type(chosen) in (int, float) and chosen > 0):
            self._refuse("deadline must be a number of seconds above 0, or None")
        return chosen

    def _is_raw(self, signature: _Signature) -> bool:
        if signature.incoming:
            return _item_type(signature) in (Payload, bytes)
        return signature.raw is not None

    # Three ways to take parameters, and each must be ready for a payload and for JSON that has been parsed already.

    def _check(self, signature: _Signature) -> Check | None:
        """The check for JSON parameters. None when the handler takes none, or takes them as they came."""
        if signature.raw is not None or not signature.named:
            return None
        try:
            if signature.whole is not None:
                return self._checked(checker(signature.whole))
            return self._checked(
                fields_checker(
                    {
                        name: (signature.hints.get(name, Any), parameter.default is parameter.empty)
                        for name, parameter in signature.named.items()
                    }
                )
            )
        except (UnknownAnnotation, NameError) as error:
            raise ConfigurationError(f"{self._where}: {self._label}: {error}.") from error

    def _checked(self, check: Check) -> Check:
        route = f"{self._plugin.id}.{self._mark.name}"

        def checked(value: object) -> Any:
            try:
                return check(value)
            except Mismatch as mismatch:
                raise Invalid(f"{route}: {mismatch}.") from mismatch

        return checked

    def _start_json(self, signature: _Signature, check: Check | None) -> StartJson:
        function, raw = self._function, signature.raw
        if raw is Payload:
            return lambda app, value: function(app, Payload(encode_json(value), None))
        if raw is bytes:
            return lambda app, value: function(app, encode_json(value))
        if check is None:
            return lambda app, value: function(app)
        if signature.whole is not None:
            return lambda app, value: function(app, check(value))
        thorough: StartJson = lambda app, value: function(app, **check(value))  # noqa: E731
        return direct(function, signature.annotations, thorough) if signature.in_order else thorough

    def _steps(self, signature: _Signature, check: Check | None) -> Steps:
        function = self._function

        def call(app: App, arguments: dict[str, Any]) -> Any:
            return function(app, **arguments)

        name = next(iter(signature.named), "")
        if signature.raw is not None:
            return Steps(None, call, signature.raw, name)
        if check is None:
            return Steps(lambda value: {}, call)
        return Steps(check if signature.whole is None else lambda value: {name: check(value)}, call)

    def _start(self, signature: _Signature, start_json: StartJson | None) -> Start:
        function = self._function
        if signature.raw is Payload:
            return function
        if signature.raw is bytes:
            return lambda app, payload: function(app, payload.data or b"")
        if not signature.named:
            return lambda app, payload: function(app)
        assert start_json is not None
        return lambda app, payload: start_json(app, decode(payload.data))

    def _start_data(self, signature: _Signature, start_json: StartJson) -> StartData | None:
        """The same without a payload, where the author asks for none."""
        function = self._function
        if signature.raw is Payload:
            return None
        if signature.raw is bytes:
            return lambda app, data: function(app, data)
        if not signature.named:
            return lambda app, data: function(app)

        def thorough(app: App, data: bytes) -> Any:
            return start_json(app, decode(data))

        skimmed = self._start_skimmed(signature, start_json)
        return thorough if skimmed is None else direct_data(skimmed, thorough)

    def _start_skimmed(self, signature: _Signature, start_json: StartJson) -> StartSkimmed | None:
        """For parameters that have been parsed, but not with all care."""
        if not signature.in_order or signature.raw or signature.whole is not None:
            return None
        return direct_skimmed(self._function, signature.annotations, lambda app, data: start_json(app, decode(data)))

    def _start_channel(self, signature: _Signature, check: Check | None) -> StartChannel:
        """A channel's first payload carries the parameters, if the handler has any; else it is the first item."""
        function, keyword = self._function, signature.incoming
        item = self._item(signature)
        assert keyword is not None
        if not signature.named:
            return lambda app, payload, incoming: function(app, **{keyword: _items(item, incoming, payload)})
        arguments = self._channel_arguments(signature, check)
        return lambda app, payload, incoming: function(app, **arguments(payload), **{keyword: _items(item, incoming)})

    def _channel_arguments(self, signature: _Signature, check: Check | None) -> Callable[[Payload], dict[str, Any]]:
        name = next(iter(signature.named))
        if check is None:
            return (lambda payload: {name: payload}) if signature.raw is Payload else lambda p: {name: p.data or b""}
        if signature.whole is not None:
            return lambda payload: {name: check(decode(payload.data))}
        return lambda payload: check(decode(payload.data))

    def _item(self, signature: _Signature) -> Callable[[Payload], Any]:
        kind = _item_type(signature)
        if kind is Payload:
            return lambda payload: payload
        if kind is bytes:
            return lambda payload: payload.data or b""
        try:
            checked = self._checked(checker(kind))
        except UnknownAnnotation as error:
            raise ConfigurationError(f"{self._where}: {self._label}: {error}.") from error
        return lambda payload: checked(decode(payload.data))


_ASYNC_ITERATORS = (collections.abc.AsyncIterator, collections.abc.AsyncIterable, collections.abc.AsyncGenerator)
_ITERATORS = (collections.abc.Iterator, collections.abc.Generator)


def _item_type(signature: _Signature) -> object:
    assert signature.incoming is not None
    return typing.get_args(signature.hints[signature.incoming])[0]


async def _items(
    item: Callable[[Payload], Any], incoming: AsyncIterator[Payload], first: Payload | None = None
) -> AsyncGenerator[Any, None]:
    if first is not None:
        yield item(first)
    async for payload in incoming:
        yield item(payload)


def read_plugin(plugin: Plugin) -> Routes:
    """Everything that `plugin` answers to. Raises ConfigurationError, naming file and line, for what makes no sense."""
    cls = type(plugin)
    _check_declaration(plugin)
    if isinstance(plugin, WholePlugin):
        return plugin.routes()
    _check_names(cls)
    for hook in HOOKS:
        _check_hook(cls, hook)
    table: dict[str, Handler] = {}
    for attribute, mark in _marks(cls).items():
        handler = _Compiler(plugin, attribute, mark).compile()
        if handler.name in table:
            raise ConfigurationError(
                f'{handler.where}: {cls.__name__}: "{handler.name}" is taken by the handler at '
                f"{table[handler.name].where}."
            )
        table[handler.name] = handler
    return DeclaredRoutes(plugin.id, table)


class Outline(typing.NamedTuple):
    """What a handler takes and gives, by the annotations of its author.

    `named`: annotation and default of each parameter. `whole` is the annotation of the one that takes the JSON value
    whole, `raw` Payload or bytes for one that takes the message, `incoming` the item type of a channel.
    """

    name: str
    kind: Kind
    shape: Shape
    doc: str
    named: Mapping[str, tuple[object, object]]
    whole: object
    raw: type | None
    incoming: object
    gives: object


NOTHING: Final = inspect.Parameter.empty
"""Stands where there is no default, no annotation, no such thing."""


def outlines(plugin: Plugin) -> list[Outline]:
    """Of all that `plugin` answers to, in the order in which it was written; none for one that takes what comes."""
    if isinstance(plugin, WholePlugin):
        return []
    return [_Compiler(plugin, attribute, mark).outline() for attribute, mark in _marks(type(plugin)).items()]


def _check_declaration(plugin: Plugin) -> None:
    cls = type(plugin)
    name = getattr(plugin, "id", None)
    if not isinstance(name, str) or not ID_PATTERN.fullmatch(name):
        raise ConfigurationError(
            f"{location(None, cls)}: {cls.__name__}.id must be the plugin's name: letters, digits and _ . - / @, "
            f"not {name!r}."
        )
    if type(plugin.concurrency) is not int or plugin.concurrency < 1:
        raise ConfigurationError(f"{location(None, cls)}: {cls.__name__}.concurrency must be a whole number above 0.")
    for flag in ("eager", "needs_app"):
        if type(getattr(plugin, flag)) is not bool:
            raise ConfigurationError(f"{location(None, cls)}: {cls.__name__}.{flag} must be True or False.")


def _marks(cls: type[Plugin]) -> dict[str, Mark]:
    """Marked attributes in the order in which they were written, base classes first."""
    marks: dict[str, Mark] = {}
    for owner in reversed(cls.__mro__):
        for attribute, value in vars(owner).items():
            mark = getattr(value, MARK, None)
            if mark is not None:
                marks[attribute] = mark
            elif attribute in marks:
                raise ConfigurationError(
                    f"{location(value)}: {cls.__name__}.{attribute} replaces a handler of a base class "
                    f'but has no @{marks[attribute].kind.value}("{marks[attribute].name}") of its own.'
                )
    return marks


def _check_names(cls: type[Plugin]) -> None:
    """Refuse what is almost the name of something that the broker looks for: it would never be called."""
    for owner in cls.__mro__[: cls.__mro__.index(Plugin)]:
        for attribute, value in (*vars(owner).items(), *vars(owner).get("__annotations__", {}).items()):
            if attribute in _KNOWN_ATTRIBUTES or attribute.startswith("_") or hasattr(value, MARK):
                continue
            near = difflib.get_close_matches(attribute, _KNOWN_ATTRIBUTES, n=1, cutoff=0.84)
            if near or (attribute.startswith("on_") and callable(value)):
                hint = f"is it {near[0]}?" if near else f"only {', '.join(HOOKS)} are, or a marked handler."
                raise ConfigurationError(
                    f"{location(value, owner)}: {cls.__name__}.{attribute} is never called or read; {hint}"
                )


def _check_hook(cls: type[Plugin], hook: str) -> None:
    function = getattr(cls, hook)
    if function is getattr(Plugin, hook):  # as most are, and looking at each takes its time at the start
        return
    try:
        inspect.signature(function).bind(None, *filter(None, HOOKS[hook].split(", ")))
    except TypeError:
        takes = ", ".join(filter(None, ("self", HOOKS[hook])))
        raise ConfigurationError(f"{location(function)}: {cls.__name__}.{hook} must take ({takes}).") from None


def location(value: object, owner: type | None = None) -> str:
    """`file:line` of a function, or of the class that holds a value without a place of its own."""
    code = getattr(inspect.unwrap(value) if callable(value) else value, "__code__", None)
    if code is not None:
        return f"{code.co_filename}:{code.co_firstlineno}"
    if owner is None:
        return "?"
    try:
        return f"{inspect.getsourcefile(owner)}:{inspect.getsourcelines(owner)[1]}"
    except (OSError, TypeError):
        return owner.__module__
