"""Large messages: read beside the loop, they mean what small ones mean, in the order in which they came."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from rsocket_broker.errors import Invalid
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.metadata import route
from rsocket_broker.routing.flipper import parted
from tests.routing.big import LONG, MANY, Big, jobs, plugin_of
from tests.routing.line import Line, Peerside, until


async def test_a_large_request_by_route_is_read_beside_the_loop_the_first_time_and_every_other() -> None:
    async with Line(Big) as line:
        client = await line.connect()
        for n in range(1, 4):
            assert await client.json("big.count", {"rows": MANY}) == {"rows": 8000, "sum": 31996000}
            assert jobs(line) >= n
            assert await client.json("big.count", {"rows": [{"n": 1}]}) == {"rows": 1, "sum": 1}
        assert await client.json("big.whole", {"rows": MANY}) == {"rows": MANY}
        assert await client.json("big.whole", {"rows": MANY}) == {"rows": MANY}


@pytest.mark.row("M-7")
async def test_what_is_wrong_with_a_large_message_is_told_as_with_a_small_one() -> None:
    async with Line(Big) as line:
        client = await line.connect()
        for small, large in ((["x"], [*MANY, "x"]),):
            with pytest.raises(Invalid, match=r"rows\[0\]: wanted Row, got str"):
                await client.json("big.count", {"rows": small})
            with pytest.raises(Invalid, match=r"rows\[8000\]: wanted Row, got str"):
                await client.json("big.count", {"rows": large})
        with pytest.raises(Invalid, match=r"^The data is not JSON: Expecting value at character \d+"):
            await client.ask("big.count", json.dumps({"rows": MANY}).encode()[:-2] + b",]}")


async def test_messages_with_routes_keep_their_order_too() -> None:
    async with Line(Big) as line:
        client = await line.connect()
        for n in range(20):
            client.fire("big.note", json.dumps({"n": n, "text": LONG if n in (3, 9) else ""}).encode())
        client.fire("big.raw", LONG.encode())
        await until(lambda: len(plugin_of(line).seen) == 21)
        assert plugin_of(line).seen[-1] == ("raw", len(LONG))
        assert [n for n, _ in plugin_of(line).seen[:-1]] == list(range(20))  # type: ignore[misc]


async def test_a_stream_begins_with_large_parameters() -> None:
    async with Line(Big) as line:
        client = await line.connect()
        payload = Payload(json.dumps({"rows": MANY}).encode(), route("big.each"))
        async with client.connection.request_stream(payload) as answers:
            assert [one.data async for one in answers] == [b"0", b"1", b"2"]


async def test_an_apps_large_answer_is_read_beside_the_loop() -> None:
    async with Line(Big) as line:
        app = await line.app(["big"], answers={"big.rows": {"success": MANY}})
        assert await app.ask_json(
            {"id": 1, "method": "execute", "params": {"api": "big", "method": "fetch", "params": {}}}
        ) == {"success": 8000}
        assert jobs(line) >= 1


async def test_an_apps_large_item_is_read_beside_the_loop() -> None:
    items = [json.dumps(MANY).encode(), b"2"]

    class App(Peerside):
        def request_stream(self, payload: Payload) -> Iterator[Payload]:
            return (Payload(item, None) for item in items)

    async with Line(Big) as line:
        client = await line.connect()
        client.side.request_stream = App().request_stream  # type: ignore[method-assign]
        assert [item async for item in client.session.to_app.stream("big", "rows")] == [MANY, 2]
        assert jobs(line) >= 1
        assert client.served.holding.size == 0


async def test_a_large_answer_is_written_down_beside_the_loop_before_anybody_can_change_it() -> None:
    async with Line(Big) as line:
        app = await line.app(["big"], answers={"big.rows": {"success": MANY}})
        written: list[Any] = []
        stop = app.session.followers.record(lambda message, content: written.append(content))
        answer = await app.session.to_app.call("big", "rows", {})
        answer.clear()
        stop()
        content = written[-1]
        assert json.loads(content["success"].text) == MANY
        assert not app.session.followers.writing


def test_ends_that_look_like_an_envelope_are_taken_for_one_only_if_they_are() -> None:
    def found(text: str) -> Any:
        return parted(text.encode())

    usual = found('{"method":"execute","params":{"api":"a","method":"m","params":{"x":1}}}')
    assert usual == ("a", "m", b'{"x":1}', False)
    turned = found('{"id":5,"params":{"params":[1,{"method":"no"}],"method":"m","api":"a"},"method":"execute"}')
    assert turned == ("a", "m", b'[1,{"method":"no"}]', True)
    assert found('{"method":"init","params":{"api":"a","method":"m","params":{"x":1}}}') is None
    assert found('{"params":1}') is None
    assert found("[" * 5000) is None
    tricky = found('{"method":"execute","params":{"api":"a","method":"m","params":1,"params":{"x":2}}}')
    assert tricky is None or tricky.params == b'1,"params":{"x":2}'
