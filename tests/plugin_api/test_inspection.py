"""What a plugin's class says, read once; and what makes no sense, refused with file and line."""

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import attrs
import pytest

from rsocket_broker.errors import ConfigurationError, Invalid
from rsocket_broker.plugin_api import App, Payload, Plugin, event, method
from rsocket_broker.plugin_api.handlers import Model, Shape
from rsocket_broker.plugin_api.inspection import read_plugin
from rsocket_broker.plugin_api.testing import running


@attrs.frozen
class User:
    name: str
    age: int = 0


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return wrapper


class Everything(Plugin):
    """One handler for each way of taking and giving that the API has."""

    id = "every.thing"

    def __init__(self) -> None:
        self.seen: list[object] = []

    @method("nothing")
    def nothing(self, app: App) -> None:
        return None

    @method("whole")
    def whole(self, app: App, params: dict[str, Any]) -> dict[str, Any]:
        return params

    @method("number")
    def number(self, app: App, params: int) -> int:
        return params + 1

    @method("user")
    def user(self, app: App, user: User) -> User:
        return user

    @method("named")
    async def named(self, app: App, first: int, *, second: str = "x") -> list[object]:
        return [first, second]

    @method("lone")
    def lone(self, app: App, user_name: str) -> str:
        return user_name

    @method("raw")
    def raw(self, app: App, data: bytes) -> bytes | None:
        return data[::-1] or None

    @method("payload")
    def payload(self, app: App, payload: Payload) -> Payload:
        return payload

    @method("generated")
    def generated(self, app: App, count: int) -> Iterator[int]:
        yield from range(count)

    @method("returned")
    def returned(self, app: App, count: int) -> Iterator[int]:
        return iter(range(count))

    @method("async-generated")
    async def async_generated(self, app: App, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    @method("sum")
    async def sum(self, app: App, incoming: AsyncIterator[int]) -> int:
        return sum([number async for number in incoming])

    @method("times")
    async def times(self, app: App, factor: int, incoming: AsyncIterator[int]) -> AsyncIterator[int]:
        async for number in incoming:
            yield number * factor

    @method("wrapped")
    @traced
    async def wrapped(self, app: App, number: int) -> int:
        return number

    @event("seen")
    async def on_seen(self, app: App, params: dict[str, Any]) -> None:
        self.seen.append(params)


SHAPES = {
    "nothing": Shape.PLAIN,
    "named": Shape.COROUTINE,
    "wrapped": Shape.COROUTINE,
    "generated": Shape.GENERATOR,
    "returned": Shape.GENERATOR,
    "async-generated": Shape.ASYNC_GENERATOR,
    "times": Shape.ASYNC_GENERATOR,
    "sum": Shape.COROUTINE,
}


def test_the_shape_of_each_handler_is_known_at_load() -> None:
    handlers = {handler.name: handler for handler in read_plugin(Everything()).handlers()}
    assert {name: handlers[name].shape for name in SHAPES} == SHAPES
    assert handlers["named"].route == "every.thing.named"
    assert handlers["named"].where.startswith(__file__)
    assert (handlers["named"].deadline, handlers["generated"].deadline, handlers["sum"].deadline) == (30.0, None, None)


ANSWERS: list[tuple[str, object, object]] = [
    ("nothing", {"ignored": 1}, None),
    ("whole", {"a": 1}, {"a": 1}),
    ("number", 41, 42),
    ("user", {"name": "n"}, {"name": "n", "age": 0}),
    ("named", {"first": 1}, [1, "x"]),
    ("named", {"first": 1, "second": "y", "third": None}, [1, "y"]),
    ("lone", {"user_name": "u"}, "u"),
    ("wrapped", {"number": 3}, 3),
]


@pytest.mark.parametrize(("name", "params", "expected"), ANSWERS)
async def test_parameters_and_answers(name: str, params: object, expected: object) -> None:
    async with running(Everything) as bench:
        client = await bench.connect()
        assert await client.request(name, params) == expected


async def test_raw_messages_go_in_and_out_as_they_are() -> None:
    async with running(Everything) as bench:
        client = await bench.connect()
        assert await client.request_payload("raw", Payload(b"abc", None)) == Payload(b"cba", None)
        assert await client.request_payload("raw", Payload(b"", None)) == Payload(b"", None)
        both = Payload(b"\xff", b"\x00")
        assert await client.request_payload("payload", both) is both


@pytest.mark.parametrize("name", ["generated", "returned", "async-generated"])
async def test_what_is_yielded_is_a_stream(name: str) -> None:
    async with running(Everything) as bench:
        client = await bench.connect()
        assert [value async for value in client.stream(name, {"count": 3})] == [0, 1, 2]


async def test_a_channel_takes_its_first_payload_as_parameters_if_it_has_any_else_as_an_item() -> None:
    async with running(Everything) as bench:
        client = await bench.connect()
        assert [value async for value in client.channel("sum", [1, 2, 3])] == [6]
        assert [value async for value in client.channel("times", [{"factor": 2}, 5, 6])] == [10, 12]
        with pytest.raises(Invalid, match=r"every.thing.sum: the parameters: wanted int, got str"):
            [value async for value in client.channel("sum", [1, "2"])]


@pytest.mark.row("M-7")
@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("named", b'{"first": "1"}', "every.thing.named: first: wanted int, got str."),
        ("named", b"", "every.thing.named: first: wanted int, got nothing."),
        ("named", b"[1]", "every.thing.named: the parameters: wanted dict, got list."),
        ("user", b'{"name": 1}', "every.thing.user: name: wanted str, got int."),
        ("seen", b"7", "every.thing.seen: the parameters: wanted dict[str, Any], got int."),
        ("whole", b"{", "The data is not JSON"),
        ("whole", b"\xff", "The data is not UTF-8 text."),
    ],
)
async def test_a_bad_message_never_reaches_the_handler(name: str, data: bytes, text: str) -> None:
    async with running(Everything) as bench:
        client = await bench.connect()
        with pytest.raises(Invalid) as caught:
            await client.fire(name, Payload(data, None))
        assert caught.value.public.startswith(text)
        assert isinstance(bench.plugin, Everything)
        assert bench.plugin.seen == []


def test_a_handler_is_found_by_the_interactions_that_suit_it() -> None:
    routes = read_plugin(Everything())
    assert routes.find("named", Model.FIRE) is routes.find("named", Model.RESPONSE)
    assert routes.find("seen", Model.PUSH) is routes.find("seen", Model.FIRE)
    for name, model, text in [
        ("generated", Model.RESPONSE, "every.thing.generated is not for a request-response: use request-stream."),
        ("sum", Model.STREAM, "every.thing.sum is not for a request-stream: use request-channel."),
        ("named", Model.CHANNEL, "is not for a request-channel: use request-response or fire-and-forget."),
        ("named", Model.PUSH, "is not for a metadata-push"),
        ("absent", Model.RESPONSE, 'The plugin "every.thing" has no "absent".'),
    ]:
        with pytest.raises(Invalid) as caught:
            routes.find(name, model)
        assert text in caught.value.public


def misspelt_hook() -> type[Plugin]:
    class Wrong(Plugin):
        id = "wrong"

        def on_conect(self, app: App) -> None: ...

    return Wrong


def unknown_hook() -> type[Plugin]:
    class Wrong(Plugin):
        id = "wrong"

        def on_message(self, app: App) -> None: ...

    return Wrong


def misspelt_setting() -> type[Plugin]:
    class Wrong(Plugin):
        id = "wrong"
        concurrenc = 3

    return Wrong


def duplicate_name() -> type[Plugin]:
    class Wrong(Plugin):
        id = "wrong"

        @method("same")
        def one(self, app: App) -> None: ...

        @event("same")
        def two(self, app: App) -> None: ...

    return Wrong


def no_app() -> type[Plugin]:
    class Wrong(Plugin):
        id = "wrong"

        @method("x")
        def x(self, params: dict[str, Any]) -> None: ...

    return Wrong


def streaming_event() -> type[Plugin]:
    class Wrong(Plugin):
        id = "wrong"

        @event("x")
        def x(self, app: App) -> Iterator[int]:
            yield 1

    return Wrong


def unknown_annotation() -> type[Plugin]:
    class Wrong(Plugin):
        id = "wrong"

        @method("x")
        def x(self, app: App, when: complex) -> None: ...

    return Wrong


def unresolvable_annotation() -> type[Plugin]:
    class Wrong(Plugin):
        id = "wrong"

        @method("x")
        def x(self, app: App, when: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    return Wrong


def star_arguments() -> type[Plugin]:
    class Wrong(Plugin):
        id = "wrong"

        @method("x")
        def x(self, app: App, **rest: int) -> None: ...

    return Wrong


def coroutine_of_an_iterator() -> type[Plugin]:
    class Wrong(Plugin):
        id = "wrong"

        @method("x")
        async def x(self, app: App) -> Iterator[int]:
            return iter(())

    return Wrong


def plain_channel() -> type[Plugin]:
    class Wrong(Plugin):
        id = "wrong"

        @method("x")
        def x(self, app: App, incoming: AsyncIterator[int]) -> None: ...

    return Wrong


def lost_mark() -> type[Plugin]:
    class Wrong(Everything):
        def nothing(self, app: App) -> None: ...

    return Wrong


def bad_deadline() -> type[Plugin]:
    class Wrong(Plugin):
        id = "wrong"

        @method("x", deadline=0)
        def x(self, app: App) -> None: ...

    return Wrong


def long_name() -> type[Plugin]:
    class Wrong(Plugin):
        id = "wrong"

        @method("x" * 255)
        def x(self, app: App) -> None: ...

    return Wrong


def hook_of_another_shape() -> type[Plugin]:
    class Wrong(Plugin):
        id = "wrong"

        def on_connect(self) -> None: ...  # type: ignore[override]

    return Wrong


def no_id() -> type[Plugin]:
    class Wrong(Plugin):
        pass

    return Wrong


def address_as_id() -> type[Plugin]:
    class Wrong(Plugin):
        id = "client:x"

    return Wrong


def no_places() -> type[Plugin]:
    class Wrong(Plugin):
        id = "wrong"
        concurrency = 0

    return Wrong


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (misspelt_hook, "Wrong.on_conect is never called or read; is it on_connect?"),
        (unknown_hook, "Wrong.on_message is never called or read; only on_start, on_stop, on_connect, "),
        (misspelt_setting, "Wrong.concurrenc is never called or read; is it concurrency?"),
        (duplicate_name, '"same" is taken by the handler at'),
        (no_app, "its first parameter must be app"),
        (streaming_event, "an @event answers nobody, so it cannot stream; use @method"),
        (unknown_annotation, "complex stands for no JSON type"),
        (unresolvable_annotation, "an annotation is unknown: name 'Nowhere' is not defined"),
        (star_arguments, "parameter rest must be an ordinary one"),
        (coroutine_of_an_iterator, "must yield, or lose its async"),
        (plain_channel, "a handler that reads an async iterator must be async"),
        (lost_mark, 'replaces a handler of a base class but has no @method("nothing") of its own'),
        (bad_deadline, "deadline must be a number of seconds above 0, or None"),
        (long_name, "at most 255 bytes"),
        (hook_of_another_shape, "Wrong.on_connect must take (self, app)"),
        (no_id, "Wrong.id must be the plugin's name"),
        (address_as_id, "not 'client:x'"),
        (no_places, "Wrong.concurrency must be a whole number above 0"),
    ],
)
def test_what_makes_no_sense_is_refused_at_load_with_its_place(make: Callable[[], type[Plugin]], text: str) -> None:
    plugin = make()()
    with pytest.raises(ConfigurationError) as caught:
        read_plugin(plugin)
    assert text in caught.value.public
    file, line, _ = caught.value.public.split(":", 2)
    assert file == __file__
    assert int(line) >= 1
