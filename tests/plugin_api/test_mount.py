"""rsocket-py's handlers and routers as plugins, with rsocket-py's own streams on the other side of the seam."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from reactivestreams.publisher import DefaultPublisher
from reactivestreams.subscriber import DefaultSubscriber
from reactivestreams.subscription import DefaultSubscription
from rsocket.error_codes import ErrorCode as PyErrorCode
from rsocket.exceptions import RSocketApplicationError, RSocketProtocolError
from rsocket.extensions.helpers import authenticate_simple, composite, route
from rsocket.helpers import create_response
from rsocket.payload import Payload
from rsocket.request_handler import BaseRequestHandler
from rsocket.routing.request_router import RequestRouter
from rsocket.streams.empty_stream import EmptyStream
from rsocket.streams.stream_from_async_generator import StreamFromAsyncGenerator
from rsocket.streams.stream_from_generator import StreamFromGenerator

from rsocket_broker.errors import ApplicationError, Invalid, RequestFailed
from rsocket_broker.plugin_api.handlers import Handler, Model
from rsocket_broker.plugin_api.mount import MAX_UNASKED, Mounted, mount, strip_route
from rsocket_broker.plugin_api.testing import Client, running


class Collector(DefaultSubscriber):
    """A subscriber that asks for `batch` payloads at a time and keeps what it is given."""

    def __init__(self, batch: int = 1) -> None:
        super().__init__()
        self.batch = batch
        self.values: list[bytes] = []
        self.ended: object = None

    def on_subscribe(self, subscription: Any) -> None:
        super().on_subscribe(subscription)
        subscription.request(self.batch)

    def on_next(self, value: Any, is_complete: bool = False) -> None:
        self.values.append(value.data)
        assert self.subscription is not None
        self.subscription.request(1)

    def on_complete(self) -> None:
        self.ended = "complete"

    def on_error(self, exception: Exception) -> None:
        self.ended = exception


class Everything(BaseRequestHandler):
    """Written for rsocket-py; knows nothing of us."""

    def __init__(self) -> None:
        self.log: list[object] = []
        self.made = 0
        self.collector = Collector()

    async def on_setup(self, data_encoding: bytes, metadata_encoding: bytes, payload: Payload) -> None:
        self.log.append(("setup", data_encoding, metadata_encoding))

    async def on_close(self, rsocket: Any, exception: Exception | None = None) -> None:
        self.log.append("close")

    async def request_response(self, payload: Payload) -> Awaitable[Payload]:
        if payload.data == b"application":
            raise RSocketApplicationError("in its own words")
        if payload.data == b"protocol":
            raise RSocketProtocolError(PyErrorCode.REJECTED, "not now")
        if payload.data == b"bug":
            raise KeyError("secret")
        return create_response(payload.data, payload.metadata)

    async def request_fire_and_forget(self, payload: Payload) -> None:
        self.log.append(payload.data)

    async def on_metadata_push(self, payload: Payload) -> None:
        self.log.append(("push", payload.metadata))

    async def request_stream(self, payload: Payload) -> Any:
        if payload.data == b"empty":
            return EmptyStream()
        if payload.data == b"plain":
            return StreamFromGenerator(self.numbers)
        return StreamFromAsyncGenerator(self.async_numbers)

    def numbers(self) -> Any:
        for number in range(3):
            yield Payload(str(number).encode()), number == 2

    async def async_numbers(self) -> Any:
        try:
            for number in range(1000):
                self.made = number + 1
                yield Payload(str(number).encode()), False
        finally:
            self.log.append("generator closed")

    async def request_channel(self, payload: Payload) -> Any:
        if payload.data == b"deaf":
            return StreamFromGenerator(self.numbers), None
        if payload.data == b"dumb":
            return None, self.collector
        return StreamFromGenerator(self.numbers), self.collector


def router_of(fired: list[object]) -> RequestRouter:
    routes = RequestRouter()

    @routes.response("add.one")
    async def add_one(payload: Payload) -> Payload:
        return Payload(str(int(payload.data or b"0") + 1).encode())

    @routes.response("metadata")
    async def metadata(payload: Payload, composite_metadata: Any) -> Payload:
        items = composite_metadata.items
        return Payload(items[0].tags[0] + b"|" + str(len(items)).encode())

    @routes.stream("letters")
    async def letters() -> Any:
        return StreamFromGenerator(lambda: iter([(Payload(b"a"), False), (Payload(b"b"), True)]))

    @routes.fire_and_forget("fire")
    async def fire(payload: Payload) -> None:
        fired.append(payload.data)

    return routes


async def collect(values: AsyncIterator[Payload]) -> list[Any]:
    return [value.data async for value in values]


async def mounted(client: Client) -> Everything:
    plugin = client._routes._plugin  # type: ignore[attr-defined]
    assert isinstance(plugin, Mounted)
    handler = plugin._handlers[client.app]
    assert isinstance(handler, Everything)
    return handler


async def test_request_response_passes_through_unchanged() -> None:
    async with running(mount(Everything, "py")) as bench:
        client = await bench.connect()
        assert await client.request_payload("any.name", Payload(b"d", b"m")) == Payload(b"d", b"m")
        assert (await client.request_payload("x", Payload(None, None))).data == b""


async def test_its_life_is_that_of_the_session_and_a_class_makes_one_handler_for_each() -> None:
    async with running(mount(Everything, "py")) as bench:
        one, two = await bench.connect(), await bench.connect()
        first, second = await mounted(one), await mounted(two)
        assert first is not second
        assert first.log == [("setup", b"application/json", b"message/x.rsocket.composite-metadata.v0")]
        await bench.disconnect(one)
        assert first.log[-1] == "close"


async def test_an_instance_serves_everybody() -> None:
    handler = Everything()
    async with running(mount(handler, "py")) as bench:
        for _ in range(2):
            assert await mounted(await bench.connect()) is handler


async def test_its_errors_speak_when_they_are_meant_to() -> None:
    async with running(mount(Everything, "py")) as bench:
        client = await bench.connect()
        with pytest.raises(ApplicationError, match="in its own words"):
            await client.request_payload("x", Payload(b"application", None))
        with pytest.raises(RequestFailed, match="not now") as caught:
            await client.request_payload("x", Payload(b"protocol", None))
        assert caught.value.code == PyErrorCode.REJECTED
        with pytest.raises(KeyError):  # for the host, which keeps it to itself
            await client.request_payload("x", Payload(b"bug", None))


@pytest.mark.row("A-37")
@pytest.mark.parametrize(("which", "expected"), [(b"plain", [b"0", b"1", b"2"]), (b"empty", [])])
async def test_a_publisher_is_a_stream(which: bytes, expected: list[bytes]) -> None:
    async with running(mount(Everything, "py")) as bench:
        client = await bench.connect()
        assert await collect(client.stream_payloads("x", Payload(which, None))) == expected


async def test_a_publisher_makes_no_more_than_was_asked_for_and_is_cancelled() -> None:
    async with running(mount(Everything, "py")) as bench:
        client = await bench.connect()
        handler = await mounted(client)
        values = client.stream_payloads("x", Payload(b"", None))
        for expected in (b"0", b"1"):
            assert (await anext(values)).data == expected
        for _ in range(20):
            await asyncio.sleep(0)
        assert handler.made == 2
        await values.aclose()
        for _ in range(20):
            await asyncio.sleep(0)
        assert handler.log[-1] == "generator closed"


async def test_one_way_messages_and_pushes_arrive() -> None:
    async with running(mount(Everything, "py")) as bench:
        client = await bench.connect()
        await client.fire("x", Payload(b"fired", None))
        push: Handler = client._routes.find("x", Model.PUSH)
        assert push.start is not None
        await push.start(client.app, Payload(b"", b"pushed"))
        assert (await mounted(client)).log[-2:] == [b"fired", ("push", b"pushed")]


async def channel(client: Client, first: bytes, *rest: bytes) -> list[Any]:
    payloads = [Payload(data, None) for data in (first, *rest)]
    return await collect(client.channel_payloads("x", payloads))


@pytest.mark.row("A-37")
async def test_a_channel_has_two_halves() -> None:
    async with running(mount(Everything, "py")) as bench:
        client = await bench.connect()
        handler = await mounted(client)
        assert await channel(client, b"first", b"second", b"third") == [b"0", b"1", b"2"]
        assert handler.collector.values == [b"second", b"third"]
        assert handler.collector.ended == "complete"


async def test_a_channel_may_have_one_half_only() -> None:
    async with running(mount(Everything, "py")) as bench:
        client = await bench.connect()
        assert await channel(client, b"deaf", b"ignored") == [b"0", b"1", b"2"]
        assert await channel(client, b"dumb", b"heard") == []
        assert (await mounted(client)).collector.values == [b"heard"]


async def test_a_subscriber_that_asks_for_nothing_does_not_keep_the_channel_open() -> None:
    async with running(mount(Everything, "py")) as bench:
        client = await bench.connect()
        (await mounted(client)).collector = Collector(batch=0)
        async with asyncio.timeout(5):
            assert await channel(client, b"first", b"never asked for") == [b"0", b"1", b"2"]


class Flood(DefaultPublisher, DefaultSubscription):
    def __init__(self, payloads: int) -> None:
        self.payloads = payloads

    def subscribe(self, subscriber: Any) -> None:
        subscriber.on_subscribe(self)
        for _ in range(self.payloads):
            subscriber.on_next(Payload(b"x"))

    def cancel(self) -> None:
        self.cancelled = True


async def test_a_publisher_that_floods_is_cut() -> None:
    flood = Flood(MAX_UNASKED + 1)

    class Flooding(BaseRequestHandler):
        async def request_stream(self, payload: Payload) -> Any:
            return flood

    async with running(mount(Flooding, "py")) as bench:
        client = await bench.connect()
        with pytest.raises(RuntimeError, match="more payloads than were asked for"):
            await collect(client.stream_payloads("x", Payload(b"", None)))
        assert flood.cancelled


async def test_a_router_sees_its_routes_without_the_plugins_id() -> None:
    fired: list[object] = []
    async with running(mount(router_of(fired), "legacy")) as bench:
        client = await bench.connect()

        def ask(name: str, data: bytes = b"") -> Payload:
            return Payload(data, composite(route(f"legacy.{name}"), authenticate_simple("user", "password")))

        assert (await client.request_payload("add.one", ask("add.one", b"41"))).data == b"42"
        assert (await client.request_payload("metadata", ask("metadata"))).data == b"metadata|2"
        assert await collect(client.stream_payloads("letters", ask("letters"))) == [b"a", b"b"]
        await client.fire("fire", ask("fire", b"shot"))
        assert fired == [b"shot"]
        with pytest.raises(Invalid, match='There is no route "absent"'):
            await client.request_payload("absent", ask("absent"))


@pytest.mark.row("A-46")
def test_stripping_a_route_changes_nothing_else() -> None:
    before = composite(authenticate_simple("u", "p"), route("legacy.a", "tag2"), authenticate_simple("v", "q"))
    after = composite(authenticate_simple("u", "p"), route("a", "tag2"), authenticate_simple("v", "q"))
    assert strip_route(before, b"legacy.") == after
    assert strip_route(before, b"other.") == before
    assert strip_route(b"", b"legacy.") == b""
    spelled_out = b"\x1bmessage/x.rsocket.routing.v0" + b"\x00\x00\x09" + b"\x08legacy.a"
    assert strip_route(spelled_out, b"legacy.") == b"\x1bmessage/x.rsocket.routing.v0\x00\x00\x02\x01a"
