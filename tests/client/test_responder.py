"""What the broker gets when it asks an app: by Flipper's messages, and by routes."""

import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rsocket_broker import client
from rsocket_broker.connection import Connection
from rsocket_broker.errors import ApplicationError, Invalid, RequestFailed
from rsocket_broker.jsontext import dump
from rsocket_broker.payload import Payload
from rsocket_broker.protocol import metadata
from tests.client.conftest import Connect
from tests.client.stub_broker import StubBroker


class Store(client.AppPlugin):
    id = "org.example.Store"

    @client.method("add")
    def add(self, params: dict[str, int]) -> dict[str, int]:
        return {"sum": params["a"] + params["b"]}

    @client.method("nothing")
    async def nothing(self) -> None: ...

    @client.method("count")
    async def count(self, params: int) -> AsyncIterator[int]:
        for number in range(params):
            yield number

    @client.method("squares")
    def squares(self, params: int) -> Iterator[int]:
        for number in range(params):
            yield number * number

    @client.method("sums")
    async def sums(self, params: int, incoming: AsyncIterator[int]) -> AsyncIterator[int]:
        total = params
        yield total
        async for number in incoming:
            total += number
            yield total

    @client.method("refuse")
    async def refuse(self) -> None:
        raise ApplicationError("the store is shut")

    @client.method("break")
    def break_(self) -> None:
        raise RuntimeError("password is hunter2")

    @client.method("odd")
    def odd(self) -> object:
        return {1, 2}

    @client.method("signal")
    async def signal(self) -> None:
        self.signals += 1

    signals = 0


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def line(stub: StubBroker, store: Store, tmp_path: Path) -> AsyncIterator[Connection]:
    """The broker's end of an app's session."""
    async with client.connect(
        app_id="org.example.demo",
        app="Demo",
        directory=tmp_path / "app",
        host="127.0.0.1",
        insecure_port=stub.insecure_port,
        secure_port=stub.secure_port,
        plugins=[store],
        timeout=10,
    ):
        yield stub.live[0]


def routed(method: str, value: object = None, plugin: str = "org.example.Store") -> Payload:
    return Payload(b"" if value is None else json.dumps(value).encode(), metadata.route(f"{plugin}.{method}"))


async def ask(line: Connection, payload: Payload) -> object:
    return json.loads((await line.request_response(payload, timeout=5)).data or b"")


@pytest.mark.row("A-37")
async def test_a_routed_request(line: Connection) -> None:
    assert await ask(line, routed("add", {"a": 1, "b": 2})) == {"sum": 3}
    assert await ask(line, routed("nothing")) is None


@pytest.mark.row("A-37")
@pytest.mark.parametrize(("method", "values"), [("count", [0, 1, 2]), ("squares", [0, 1, 4]), ("nothing", [None])])
async def test_a_routed_stream(line: Connection, method: str, values: list[object]) -> None:
    answers = line.request_stream(routed(method, 3))
    assert [json.loads(one.data or b"") async for one in answers] == values


@pytest.mark.row("A-37")
async def test_a_routed_channel(line: Connection) -> None:
    async def more() -> AsyncIterator[Payload]:
        for number in (1, 2, 3):
            yield Payload(b"%d" % number)

    answers = line.request_channel(routed("sums", 10), more())
    assert [json.loads(one.data or b"") async for one in answers] == [10, 11, 13, 16]


async def test_a_request_of_another_client_has_its_route_behind_the_address(line: Connection) -> None:
    address = "client:org.example.demo"
    add = Payload(b'{"a": 1, "b": 2}', metadata.route(address, "org.example.Store.add"))
    assert await ask(line, add) == {"sum": 3}
    with pytest.raises(RequestFailed, match="no method"):
        await ask(line, Payload(b"", metadata.route(address)))


async def test_flippers_messages_need_no_route(line: Connection) -> None:
    assert await ask(line, Payload(b'{"method": "getPlugins"}')) == {"success": {"plugins": ["org.example.Store"]}}


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (routed("ghost"), "no method org.example.Store.ghost"),
        (routed("add", plugin="Ghost"), "no method Ghost.add"),
        (routed("refuse"), "the store is shut"),
        (routed("count", 3), "stream"),
        (Payload(b"{", metadata.route("org.example.Store.add")), "not JSON"),
        (Payload(b"[]"), "must be a JSON object"),
    ],
)
async def test_what_cannot_be_served_is_refused_in_words(line: Connection, payload: Payload, text: str) -> None:
    with pytest.raises(RequestFailed, match=text):
        await line.request_response(payload, timeout=5)


async def test_a_stream_needs_a_route(line: Connection) -> None:
    with pytest.raises(Invalid, match="route"):
        async for _ in line.request_stream(Payload(b"{}")):
            pass


@pytest.mark.parametrize("method", ["break", "odd"])
async def test_a_crash_keeps_its_words_at_home(line: Connection, method: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(RequestFailed, match="internal error"):
        await line.request_response(routed(method), timeout=5)
    assert caplog.records
    assert await ask(line, routed("add", {"a": 1, "b": 1})) == {"sum": 2}


async def test_a_one_way_message_with_an_id_is_answered_by_another(line: Connection, stub: StubBroker) -> None:
    line.fire_and_forget(Payload(b'{"id": 7, "method": "getPlugins"}'))
    line.fire_and_forget(Payload(b'{"method": "init", "params": {"plugin": "Ghost"}}'))
    line.fire_and_forget(Payload(b'{"method": "init", "params": {"plugin": "org.example.Store"}}'))
    line.fire_and_forget(routed("add", {"a": 1, "b": 1}))
    line.fire_and_forget(routed("count", 1))
    await ask(line, Payload(b'{"method": "getPlugins"}'))
    await line.request_response(routed("nothing"), timeout=5)
    assert stub.told == [
        {"id": 7, "success": {"plugins": ["org.example.Store"]}},
        {"error": {"name": "PluginNotFound", "message": "Plugin Ghost not found for method init"}},
    ]


@pytest.mark.row("A-37")
async def test_a_metadata_push_calls_a_method_without_parameters(line: Connection, store: Store) -> None:
    for name in ("signal", "refuse", "absent", "count", "signal"):
        line.metadata_push(metadata.route(f"org.example.Store.{name}"))
    line.metadata_push(b"no route at all")
    await ask(line, Payload(b'{"method": "getPlugins"}'))
    await line.request_response(routed("nothing"), timeout=5)
    assert store.signals == 2


@pytest.mark.row("A-14", "A-26")
async def test_what_the_sdk_does_for_the_broker_it_does_for_no_other_client(app: Connect, stub: StubBroker) -> None:
    """A request that another client has sent carries our own address in front; only the broker leaves that out."""
    trust = {"trust": stub.authority.pem.decode()}
    async with app():
        (line,) = stub.live
        direct = Payload(dump(trust), metadata.route("identity.trust"))
        assert (await line.request_response(direct)).data == b"{}"
        relayed = Payload(dump(trust), metadata.route("client:org.example.demo", "identity.trust"))
        with pytest.raises(ApplicationError, match=r"no method identity\.trust"):
            await line.request_response(relayed)
