"""The plugin with apps of both systems, and with messages that no app should send."""

import asyncio
import gzip
import random
from contextlib import aclosing
from typing import Any

import pytest

from emulated_apps import Network, Platform, Reply
from emulated_apps.bench import on_bench
from rsocket_broker.plugin_api import ApplicationError, Canceled, Invalid
from rsocket_broker.plugin_api.testing import fake_identity, running
from rsocket_broker.plugins.network import Network as Plugin
from rsocket_broker.plugins.network import handler, mocks, plugin
from tests.plugins.network import har_schema
from tests.plugins.network.shapes import answered, asked
from tests.routing.line import Line, until

BOTH = pytest.mark.parametrize("platform", list(Platform))
CART = "https://api.example.org/v1/cart"


@BOTH
async def test_what_an_app_of_either_system_does_is_seen(platform: Platform) -> None:
    network = Network(platform, draw=random.Random(7))
    async with running(plugin) as bench, on_bench(bench, network) as app:
        body = gzip.compress(b'{"items": []}')
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        network.exchange("POST", CART, Reply(201, body, headers), body=b"\xff\x00", took=0.25)
        network.exchange("GET", "https://api.example.org/gone", None)
        await app.deliver()
        listed = await app.client.request("list")
        assert [(one["method"], one["status"], one["state"]) for one in listed["exchanges"]] == [
            ("POST", 201, "done"),
            ("GET", None, "open"),
        ]
        assert listed["exchanges"][0]["duration"] == pytest.approx(250, abs=1)
        assert (listed["fitting"], listed["dropped"], listed["newest"]) == (2, 0, 2)
        har = await app.client.request("har")
        har_schema.check(har)
        assert har["log"]["entries"][0]["response"]["content"]["text"] == '{"items": []}'
        shown = await app.client.request("show", {"id": listed["exchanges"][0]["id"]})
        assert shown["request"]["url"] == CART
        assert (await app.client.request("curl", {"id": "2"})).startswith("curl ")
        assert (await app.client.request("statistics"))["exchanges"] == 2
        assert await app.client.request("clear") == {"cleared": 2}
        assert (await app.client.request("list", {"after": listed["newest"]}))["exchanges"] == []


async def test_a_body_in_parts_is_put_together() -> None:
    body = bytes(random.Random(1).randbytes(3_000_000))
    network = Network(Platform.ANDROID, body_limit=1 << 30)
    async with running(plugin) as bench, on_bench(bench, network) as app:
        network.exchange("GET", CART, Reply(200, body))
        app.events[1:] = reversed(app.events[1:])
        await app.deliver()
        (shown,) = (await app.client.request("list"))["exchanges"]
        assert (shown["state"], shown["response_bytes"]) == ("done", 3_000_000)


async def test_a_test_waits_for_what_it_wants_to_see() -> None:
    network = Network()
    async with running(Plugin) as bench, on_bench(bench, network) as app:
        network.exchange("GET", CART, Reply(200))
        await app.deliver()
        known = (await app.client.request("list"))["newest"]
        wanted = {"method": "POST", "url": "/login", "status": "2xx", "after": known}
        waiting = asyncio.ensure_future(app.client.request("wait", wanted))
        identifier = network.request("POST", "https://api.example.org/login", body=b"user=u")
        await app.deliver()
        assert not waiting.done()  # it has no response yet
        network.respond(identifier, Reply(204))
        await app.deliver()
        found = await waiting
        assert (found["request"]["postData"]["text"], found["response"]["status"]) == ("user=u", 204)
        assert (await app.client.request("wait", {"status": "2xx"}))["_number"] == 1


async def test_a_wait_in_vain_says_what_came_instead() -> None:
    network = Network()
    async with running(Plugin) as bench:
        async with on_bench(bench, network) as app:
            network.exchange("GET", f"{CART}?token=t", Reply(500))
            await app.deliver()
            with pytest.raises(Canceled, match=r"No POST of /login within 0.01 s. The newest were: GET .*cart \(500\)"):
                await app.client.request("wait", {"method": "POST", "url": "/login", "timeout": 0.01})
            waiting = asyncio.ensure_future(app.client.request("wait", {"url": "/never"}))
            await asyncio.sleep(0)
            network.request("GET", "https://example.org/pending")
            await app.deliver()
            assert (await app.client.request("wait", {"status": "open"}))["_state"] == "open"
        with pytest.raises(ApplicationError, match="has gone"):
            await waiting


async def test_the_traffic_is_followed_as_it_comes() -> None:
    network = Network()
    async with running(Plugin) as bench, on_bench(bench, network) as app:
        network.exchange("GET", f"{CART}?token=t", Reply(200))
        await app.deliver()
        async with aclosing(app.client.stream("follow", {"known": True, "url": "cart"})) as items:
            first = await anext(items)
            assert (first["event"], first["exchange"]["url"]) == ("known", f"{CART}?token=%5Bredacted%5D")
            waiting = asyncio.ensure_future(anext(items))
            await asyncio.sleep(0)
            network.exchange("GET", "https://other.example.org/", Reply(200))
            network.exchange("PUT", CART, Reply(200))
            await app.deliver()
            assert (await waiting)["exchange"]["method"] == "PUT"
            assert (await anext(items))["event"] == "response"


async def test_mock_routes_are_set_listed_taken_out_and_served() -> None:
    network = Network(Platform.ANDROID)
    async with running(Plugin) as bench, on_bench(bench, network) as app:
        await app.client.request("mock", {"url": "/cart", "body": '{"items": []}', "status": 404})
        found = await app.client.request("mock", {"url": "/cart/1", "enabled": False})
        assert [one["url"] for one in found["mocks"]] == ["/cart", "/cart/1"]
        assert [route["url"] for route in network.routes] == ["/cart"]
        assert network.fetch("GET", CART, lambda: Reply(200)).status == 404
        await app.deliver()
        assert (await app.client.request("list"))["exchanges"][0]["mock"] is True
        with pytest.raises(Invalid, match="no such mock"):
            await app.client.request("unmock", {"url": "/other"})
        assert len((await app.client.request("unmock", {"url": "/cart"}))["mocks"]) == 1
        assert await app.client.request("unmock") == {"mocks": [], "overlapping": []}
        assert network.routes == []
        assert await app.client.request("mocks") == {"mocks": [], "overlapping": []}


@pytest.mark.row("A-56")
async def test_mock_routes_are_sent_whole_again_when_the_app_is_back() -> None:
    network = Network(Platform.ANDROID)
    async with running(Plugin) as bench:
        async with on_bench(bench, network) as app:
            await app.client.request("mock", {"url": "/cart"})
        assert network.routes == []
        async with on_bench(bench, network):
            assert [route["url"] for route in network.routes] == ["/cart"]
        async with on_bench(bench, Network(mocking=False)) as app:  # built without: served all the same
            assert (await app.client.request("mocks"))["mocks"]


@pytest.mark.parametrize("network", [Network(Platform.IOS), Network(mocking=False)])
async def test_an_app_that_cannot_mock_says_so_and_nothing_is_kept(network: Network) -> None:
    async with running(Plugin) as bench, on_bench(bench, network) as app:
        with pytest.raises(ApplicationError, match="takes no mock routes"):
            await app.client.request("mock", {"url": "/cart"})
        assert (await app.client.request("mocks"))["mocks"] == []


async def test_clients_with_mock_routes_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mocks, "MAX_CLIENTS", 1)
    async with running(Plugin) as bench:
        one = await bench.connect(answers={"mockResponses": {}})
        other = await bench.connect(answers={"mockResponses": {}}, identity=fake_identity("com.other"))
        await one.request("mock", {"url": "/cart"})
        with pytest.raises(ApplicationError, match="which is the limit"):
            await other.request("mock", {"url": "/cart"})


async def test_a_caller_asks_about_another_client() -> None:
    async with running(Plugin) as bench:
        one, other = await bench.connect(), await bench.connect()
        await one.event("newRequest", asked())
        for method in ("list", "har", "statistics", "clear"):
            assert await other.request(method, {"client": one.app.id}) != await other.request(method)
        assert (await other.request("mocks", {"client": one.app.id}))["mocks"] == []
        assert await other.request("protobuf", {"client": one.app.id}) == {}


async def test_protobuf_definitions_are_kept_while_they_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(Plugin) as bench:
        client = await bench.connect()
        await client.event("addProtobufDefinitions", {"https://a/": [{"path": "/x"}]})
        await client.event("addProtobufDefinitions", {"https://b/": []})
        known = {"https://a/": [{"path": "/x"}], "https://b/": []}
        assert await client.request("protobuf") == known
        with pytest.raises(Invalid, match="not kept"):  # hardly longer than that as text, and thirty times it in memory
            await client.event("addProtobufDefinitions", {"https://c/": [[] for _ in range(80_000)]})
        monkeypatch.setattr(handler, "MAX_DEFINITIONS", 100)
        with pytest.raises(Invalid, match="not kept"):
            await client.event("addProtobufDefinitions", {"https://c/": ["x" * 100]})
        assert await client.request("protobuf") == known


@pytest.mark.parametrize("method", ["show", "curl"])
async def test_what_is_not_there_is_no_internal_error(method: str) -> None:
    async with running(Plugin) as bench:
        client = await bench.connect()
        with pytest.raises(ApplicationError, match="no such exchange"):
            await client.request(method, {"id": "1"})
        await client.event("newResponse", answered("1"))
        if method == "curl":
            with pytest.raises(ApplicationError, match="never told the request"):
                await client.request("curl", {"id": "1"})


MALFORMED: list[Any] = [
    {},
    {"id": None, "url": 5},
    {"id": "x", "data": "***"},
    {"id": "x", "headers": {"A": "b"}},
    [],
    "text",
    5,
    {"id": "x", "totalChunks": 10**9, "index": 5},
]


@pytest.mark.row("M-7")
async def test_malformed_messages_are_logged_and_dropped_and_nothing_else_suffers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    async with Line(Plugin) as line:
        bad = await line.app(["Network"])
        good = await line.app(["Network"], certificate=b"com.good|dev2|adb|7")
        for _ in range(20):
            for params in MALFORMED:
                for name in ("newRequest", "newResponse", "partialResponse", "addProtobufDefinitions"):
                    bad.event("Network", name, params)
        bad.event("Network", "newRequest", asked())
        good.event("Network", "newRequest", asked())

        async def seen(client: Any) -> list[str]:
            app = (await client.session.plugins.seat_of("Network")).app
            return [one["url"] for one in (await broker_plugin.exchanges(app, url="cart"))["exchanges"]]

        broker_plugin = line.endpoint.router.hosts["Network"].plugin
        assert isinstance(broker_plugin, Plugin)
        for client in (bad, good):
            traffic = broker_plugin.traffic((await client.session.plugins.seat_of("Network")).app)
            await until(lambda traffic=traffic: any(one.request for one in traffic))  # type: ignore[misc]
            assert await seen(client) == [CART]
        assert bad.connection.closing is None
    dropped = [record for record in caplog.records if "was not handled" in record.message]
    assert 0 < len(dropped) <= 40
    assert "***" not in caplog.text


async def test_an_app_that_never_takes_its_mocks_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "MOCK_TIMEOUT", 0.01)

    async def never(params: object) -> object:
        return await asyncio.get_running_loop().create_future()

    async with running(Plugin) as bench:
        client = await bench.connect(answers={"mockResponses": {}})
        await client.request("mock", {"url": "/cart"})
        again = await bench.connect(answers={"mockResponses": never})
        await again.event("newRequest", asked())
        assert len((await again.request("list"))["exchanges"]) == 1


@pytest.mark.parametrize("method", ["show", "curl"])
async def test_a_number_is_no_id_where_an_apps_ids_are_digits(method: str) -> None:
    async with running(Plugin) as bench:
        client = await bench.connect()
        for id_, address in (("2", "https://first.example/"), ("1", "https://second.example/")):
            await client.event("newRequest", {"id": int(id_), "method": "GET", "url": address, "timestamp": 1})
        assert "second.example" in str(await client.request(method, {"id": "1"}))
        assert "first.example" in str(await client.request(method, {"id": 1}))
        with pytest.raises(ApplicationError, match="no such exchange"):
            await client.request(method, {"id": 3})


@pytest.mark.parametrize("timeout", [-1, 601])
async def test_nobody_waits_longer_than_anything_takes(timeout: float) -> None:
    async with running(Plugin) as bench:
        client = await bench.connect()
        with pytest.raises(Invalid, match="0 to 600 seconds"):
            await client.request("wait", {"timeout": timeout})
