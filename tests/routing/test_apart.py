"""Large messages: read beside the loop, they mean what small ones mean, in the order in which they came."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest

from rsocket_broker.errors import Invalid
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import App, Plugin, event, method
from rsocket_broker.protocol.metadata import route
from rsocket_broker.routing.aside import LARGE
from rsocket_broker.routing.flipper import parted
from tests.routing.line import Line, until

LONG = "x" * (LARGE + 10)
MANY = [{"n": n, "text": "é" * 20} for n in range(8000)]


@attrs.frozen
class Row:
    n: int
    text: str = ""


class Big(Plugin):
    id = "big"

    def __init__(self) -> None:
        self.seen: list[object] = []

    @event("note")
    def note(self, app: App, n: int, text: str = "") -> None:
        self.seen.append((n, len(text)))

    @event("raw")
    def raw(self, app: App, data: bytes) -> None:
        self.seen.append(("raw", len(data)))

    @method("count")
    def count(self, app: App, rows: list[Row]) -> dict[str, int]:
        return {"rows": len(rows), "sum": sum(row.n for row in rows)}

    @method("whole")
    async def whole(self, app: App, params: dict[str, Any]) -> dict[str, Any]:
        return params

    @method("echo")
    def echo(self, app: App, payload: Payload) -> Payload:
        return payload

    @method("each")
    async def each(self, app: App, rows: list[Row]) -> AsyncIterator[int]:
        for row in rows[:3]:
            yield row.n

    @method("fetch")
    async def fetch(self, app: App) -> int:
        return len(await app.call("rows"))


def plugin_of(line: Line) -> Big:
    plugin = line.endpoint.router.hosts["big"].plugin
    assert isinstance(plugin, Big)
    return plugin


def jobs(line: Line) -> int:
    return line.endpoint.router.aside.done


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


async def test_a_large_question_in_flippers_words_has_its_answer_whatever_the_order_of_its_keys() -> None:
    async with Line(Big) as line:
        app = await line.app(["big"])
        inner = {"api": "big", "method": "count", "params": {"rows": MANY}}
        for message in (
            {"id": 1, "method": "execute", "params": inner},
            {"params": dict(reversed(inner.items())), "method": "execute", "id": 3},
            {"id": 2, "params": {"params": inner["params"], "api": "big", "method": "count"}, "method": "execute"},
            {"extra": [{"params": 1}], "method": "execute", "params": inner},
        ):
            assert await app.ask_json(message) == {"success": {"rows": 8000, "sum": 31996000}}
        wrong = {**inner, "params": {"rows": [*MANY, 1]}}
        answer = await app.ask_json({"id": 1, "method": "execute", "params": wrong})
        assert answer["error"]["name"] == "Invalid"
        answer = await app.ask_json({"id": 1, "method": "execute", "params": {**inner, "method": "whole"}})
        assert answer == {"success": {"rows": MANY}}


@pytest.mark.row("A-39")
async def test_events_keep_their_order_around_a_large_one() -> None:
    async with Line(Big) as line:
        app, other = await line.app(["big"]), await line.connect(b"com.demo|dev2|adb|7")
        for n in range(200):
            app.event("big", "note", {"n": n, "text": LONG if n % 50 == 7 else ""})
            assert n % 20 or await other.json("big.count", {"rows": []}) == {"rows": 0, "sum": 0}
        await until(lambda: len(plugin_of(line).seen) == 200)
        assert plugin_of(line).seen == [(n, len(LONG) if n % 50 == 7 else 0) for n in range(200)]


async def test_messages_with_routes_keep_their_order_too() -> None:
    async with Line(Big) as line:
        client = await line.connect()
        for n in range(20):
            client.fire("big.note", json.dumps({"n": n, "text": LONG if n in (3, 9) else ""}).encode())
        client.fire("big.raw", LONG.encode())
        await until(lambda: len(plugin_of(line).seen) == 21)
        assert plugin_of(line).seen[-1] == ("raw", len(LONG))
        assert [n for n, _ in plugin_of(line).seen[:-1]] == list(range(20))  # type: ignore[misc]


async def test_a_handler_of_raw_messages_gets_the_text_and_only_json() -> None:
    async with Line(Big) as line:
        app = await line.app(["big"])
        app.event("big", "raw", {"text": LONG})
        text = json.dumps({"method": "execute", "params": {"api": "big", "method": "raw", "params": {"t": LONG}}})
        app.tell(text.replace("xx", "x\n", 1).encode())
        app.event("big", "note", {"n": 1})
        await until(lambda: (1, 0) in plugin_of(line).seen)
        assert plugin_of(line).seen == [("raw", len(json.dumps({"text": LONG}))), (1, 0)]


async def test_nothing_is_parsed_for_a_plugin_that_is_not_here_or_not_allowed() -> None:
    async with Line(Big) as line:
        app = await line.app(["big"])
        app.event("missing", "note", {"text": LONG})
        answer = await app.ask_json(
            {"id": 1, "method": "execute", "params": {"api": "no", "method": "m", "params": LONG}}
        )
        assert answer["error"]["message"] == 'There is no plugin "no" here.'
        assert jobs(line) == 0


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


async def test_a_session_that_ends_meanwhile_leaves_nothing_behind() -> None:
    async with Line(Big) as line:
        app = await line.app(["big"])
        app.event("big", "note", {"n": 1, "text": LONG})
        await app.connection.close()
        await asyncio.wait([asyncio.ensure_future(app.served.wait_closed())])
        other = await line.connect(b"com.demo|dev2|adb|7")
        assert await other.json("big.count", {"rows": MANY}) == {"rows": 8000, "sum": 31996000}


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
