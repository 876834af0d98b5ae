"""What an app can do with its line, whole and broken."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from rsocket_broker import client
from rsocket_broker.client.session import _routed
from rsocket_broker.errors import ApplicationError, ConfigurationError, ConnectionClosed
from rsocket_broker.jsontext import JsonError
from rsocket_broker.payload import Payload
from rsocket_broker.protocol import metadata
from tests.client.conftest import Connect
from tests.client.stub_broker import StubBroker


class Screen(client.AppPlugin):
    id = "Screen"


async def test_a_request_carries_its_route_and_value(app: Connect) -> None:
    async with app() as session:
        assert await session.request("a.b", {"c": [1, None, "é"]}) == ["a.b", {"c": [1, None, "é"]}]
        assert await session.request("a.b") == ["a.b", None]
        assert await session.request("stub.nothing") is None


async def test_bytes_travel_as_they_are_and_metadata_follows_the_route(app: Connect) -> None:
    more = metadata.build_composite([metadata.Entry(metadata.Mime.of("text/plain"), b"extra")])
    async with app() as session:
        answer = await session.request_payload("stub.bytes", Payload(b"\xff", more))
    assert answer.data == b"\x00\xff"
    assert answer.metadata == metadata.route("stub.bytes") + more


@pytest.mark.parametrize(
    ("route", "tags"),
    [
        ("a.b", ["a.b"]),
        ("a/b.c", ["a/b.c"]),
        ("client:com.x@dev-1/a.b", ["client:com.x@dev-1", "a.b"]),
        ("client:com.x", ["client:com.x"]),
    ],
)
def test_a_route_to_another_client_is_two_tags(route: str, tags: list[str]) -> None:
    assert _routed(route, Payload(b"", None)).metadata == metadata.route(*tags)


async def test_an_answer_that_is_not_json_says_what_to_use(app: Connect) -> None:
    async with app() as session:
        with pytest.raises(JsonError, match="_payload"):
            await session.request("stub.bytes")


async def test_a_value_that_is_not_json_is_the_callers_error(app: Connect) -> None:
    async with app() as session:
        with pytest.raises(JsonError):
            await session.request("a.b", object())
        assert session.connected


async def test_a_refusal_is_an_application_error(app: Connect) -> None:
    async with app() as session:
        with pytest.raises(ApplicationError, match="the stub says no"):
            await session.request("stub.error")


async def test_one_way_values(app: Connect, stub: StubBroker) -> None:
    async with app() as session:
        await session.send("a.b", 1)
        await session.send_payload("a.c", Payload(b"2"))
        await session.push("a.d")
        await session.request("a.b")  # behind them on the same line
    assert stub.told == [{"route": "a.b", "value": 1}, {"route": "a.c", "value": 2}, {"route": "a.d"}]


async def test_a_stream_and_its_early_end(app: Connect) -> None:
    async with app() as session:
        assert [number async for number in session.stream("a.b", 5)] == [0, 1, 2, 3, 4]
        async with contextlib.aclosing(session.stream("a.b", 1_000_000, credit=2)) as numbers:
            assert [await anext(numbers), await anext(numbers)] == [0, 1]
        assert await session.request("a.b") == ["a.b", None]


async def test_a_channel(app: Connect) -> None:
    async def values() -> AsyncIterator[object]:
        for value in ("one", {"two": 2}, None, 3):
            yield value

    async def none() -> AsyncIterator[object]:
        return
        yield

    async with app() as session:
        assert [answer async for answer in session.channel("a.b", values())] == ["one", {"two": 2}, None, 3]
        assert [answer async for answer in session.channel("a.b", none())] == []


async def test_a_request_has_a_time_limit_and_is_cancelled_at_the_broker(app: Connect, stub: StubBroker) -> None:
    async with app() as session:
        with pytest.raises(TimeoutError, match=r"^stub\.never was not answered within 0\.05 s$"):
            await session.request("stub.never", timeout=0.05)
        async with asyncio.timeout(5):
            while stub.under_way.is_set():
                await asyncio.sleep(0)


async def test_what_was_under_way_when_the_line_broke_fails(app: Connect, stub: StubBroker) -> None:
    async with app() as session:
        call = asyncio.create_task(session.request("stub.never"))
        await stub.under_way.wait()
        await stub.cut()
        with pytest.raises(ConnectionClosed):
            await call


@pytest.mark.row("F-5")
async def test_what_is_asked_while_the_broker_is_away_waits_for_it(app: Connect, stub: StubBroker) -> None:
    async with app() as session:
        ports = stub.insecure_port, stub.secure_port
        await stub.stop()
        async with asyncio.timeout(10):
            while session.connected:
                await asyncio.sleep(0)
        call = asyncio.create_task(session.request("a.b", "patience"))
        with pytest.raises(TimeoutError):
            await session.request("a.b", timeout=0.05)
        with pytest.raises(TimeoutError, match=r"^a\.b could not be sent within 0 s$"):
            await session.push("a.b", timeout=0)
        with pytest.raises(TimeoutError, match=r"^not connected within 0 s$"):
            await session.wait_connected(timeout=0)
        await stub.start(*ports)
        assert await call == ["a.b", "patience"]
        assert session.connections == 2


async def test_after_the_block_nothing_works_and_says_so(app: Connect) -> None:
    async with app(plugins=[Screen()]) as session:
        pass
    assert not session.connected
    with pytest.raises(ConnectionClosed, match="closed by the app"):
        await session.request("a.b")
    assert not session.send_event("Screen", "late")


async def test_events_need_a_plugin_that_exists_and_is_in_use(app: Connect, stub: StubBroker) -> None:
    async with app(plugins=[Screen()]) as session:
        with pytest.raises(ConfigurationError, match="has no plugin 'Ghost'; it has: Screen"):
            session.send_event("Ghost", "boo")
        assert not session.send_event("Screen", "early")
        await stub.live[0].request_response(Payload(b'{"method": "init", "params": {"plugin": "Screen"}}'), 5)
        assert session.send_event("Screen", "now", {"n": 1})
        await session.request("a.b")
    assert stub.told == [
        {"method": "execute", "params": {"api": "Screen", "method": "now", "params": {"n": 1}}},
    ]
