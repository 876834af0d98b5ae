"""What answers on the secure port, over memory transports, a real engine on both ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rsocket_broker.errors import ApplicationError, Canceled, ConnectionClosed, Invalid, Rejected
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import App, Plugin, event, method
from rsocket_broker.protocol.metadata import (
    AUTHENTICATION,
    DATA_MIME,
    ROUTING,
    Entry,
    Mime,
    build_composite,
    build_tags,
    route,
)
from tests.routing.line import FLIPPER_CLAIMS, Line, until
from tests.routing.plugins import ANSWERS, Echo, Network, cancelled, made


@pytest.fixture(autouse=True)
def forget() -> None:
    cancelled.clear()
    made.clear()


@pytest.mark.row("A-46")
async def test_data_and_metadata_come_back_byte_for_byte() -> None:
    metadata = build_composite(
        [
            Entry(Mime.of(AUTHENTICATION), b"\x80token"),
            Entry(Mime.of(ROUTING), build_tags(["echo.request", "second tag"])),
            Entry(Mime.of(DATA_MIME), b"\x85"),
            Entry(Mime("application/x-own", None), b"\x00\xff"),
            Entry(Mime("", 0x55), b"an id that nobody has named yet"),
        ]
    )
    async with Line(Echo) as line:
        client = await line.connect()
        for _ in range(3):  # looked up, then remembered
            answer = await client.connection.request_response(Payload(b"\x00data", metadata), 5.0)
            assert answer == Payload(b"\x00data", metadata)
        assert (await client.connection.request_response(Payload(b"", route("echo.request")), 5.0)).data == b""


@pytest.mark.row("M-7", "F-3")
async def test_json_parameters_and_their_refusal() -> None:
    async with Line(Network) as line:
        app = await line.connect(claims=FLIPPER_CLAIMS, answers=ANSWERS)
        assert await app.json("Network.add", {"a": 1, "b": 2}) == {"sum": 3}
        with pytest.raises(Invalid, match=r"Network.add: b: wanted int, got str\."):
            await app.json("Network.add", {"a": 1, "b": "2"})
        with pytest.raises(Invalid, match=r"The data is not JSON"):
            await app.ask("Network.add", b"{")


@pytest.mark.row("A-37")
async def test_streams_and_channels_both_ways() -> None:
    async with Line(Echo) as line:
        client = await line.connect()
        async with client.connection.request_stream(Payload(b'{"count": 3}', route("echo.stream"))) as stream:
            assert [one.data async for one in stream] == [b"0", b"1", b"2"]

        async def more() -> AsyncIterator[Payload]:
            for number in range(3):
                yield Payload(str(number).encode(), None)

        first = Payload(b"first", route("echo.channel"))
        async with client.connection.request_channel(first, more()) as stream:
            assert [one.data async for one in stream] == [b"first", b"0", b"1", b"2"]

        session = client.session
        assert await session.to_app.call("any", "thing", {"a": 1}) == {"a": 1}
        assert [value async for value in session.to_app.stream("any", "stream")] == [1, 2]

        async def values() -> AsyncIterator[object]:
            for number in range(3):
                yield {"n": number}

        assert [value async for value in session.to_app.channel("any", "channel", values())] == [
            {"n": n} for n in range(3)
        ]
        await session.to_app.send("any", "way", [1])
        await client.settled()
        assert client.side.routed[-1] == Payload(b"[1]", route("any.way"))
        await session.to_app.push("any", "signal")
        await client.settled()
        assert client.side.routed[-1] == Payload(b"", route("any.signal"))
        with pytest.raises(ApplicationError, match="the client says no"):
            await session.to_app.call("any", "thing", "fail")


@pytest.mark.row("A-45")
async def test_cancel_reaches_the_handler_and_so_does_the_end_of_the_connection() -> None:
    async with Line(Echo) as line:
        client, other = await line.connect(), await line.connect()
        one, two = (asyncio.create_task(each.ask("echo.never", timeout=60)) for each in (client, other))
        host = line.endpoint.router.hosts["echo"]
        await until(lambda: host.gate.held == 2)
        one.cancel()
        await until(lambda: cancelled == [client.session.id])
        gone = other.session.id
        other.served.abort()
        await until(lambda: cancelled[1:] == [gone])
        with pytest.raises(ConnectionClosed):
            await two
        assert host.gate.held == 0


@pytest.mark.row("A-45")
async def test_a_stream_makes_what_was_asked_for_and_ends_with_its_reader() -> None:
    async with Line(Echo) as line:
        client = await line.connect()
        stream = client.connection.request_stream(Payload(b'{"count": 1000}', route("echo.stream")), initial_n=2)
        assert (await anext(stream)).data == b"0"
        await client.settled()
        assert len(made) <= 5
        await stream.aclose()
        await until(lambda: cancelled == ["stream"])
        assert line.endpoint.router.hosts["echo"].gate.held == 0


@pytest.mark.row("A-39")
async def test_a_slow_handler_delays_no_other() -> None:
    async with Line(Echo) as line:
        client = await line.connect()
        waiting = [asyncio.create_task(client.ask("echo.never", timeout=60)) for _ in range(50)]
        await until(lambda: line.endpoint.router.hosts["echo"].gate.held == 50)
        for number in range(10):
            assert await client.ask("echo.request", str(number).encode()) == str(number).encode()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.row("A-56", "F-3")
async def test_the_start_of_an_app() -> None:
    network = Network()
    async with Line(network, Echo) as line:
        app = await line.app(["Network", "Other", "echo"], ["Network"], answers=ANSWERS)
        await until(lambda: network.hooks == ["+com.demo"])
        starting = [(m["method"], m.get("params", {}).get("plugin")) for m in app.side.messages]
        assert starting[:4] == [
            ("getPlugins", None),
            ("getBackgroundPlugins", None),
            ("init", "Network"),
            ("init", "echo"),
        ]
        assert app.session.announced == ["Network", "Other", "echo"]
        assert app.session.background == ["Network"]
        await app.connection.close()
        await until(lambda: network.hooks == ["+com.demo", "-com.demo"])


@pytest.mark.row("A-56")
async def test_below_level_four_background_plugins_are_not_asked_for() -> None:
    async with Line(Echo) as line:
        app = await line.app(["echo"], claims={"sdk_version": 3})
        assert [m["method"] for m in app.side.messages] == ["getPlugins", "init"]
        assert app.session.background == []


@pytest.mark.row("A-56")
async def test_refresh_starts_what_is_new_and_stops_what_has_gone() -> None:
    network = Network()
    lists: dict[str, Any] = {"plugins": ["Network"]}

    async def get_plugins(params: object) -> object:
        return {"success": lists}

    async with Line(network, Echo) as line:
        app = await line.app(answers={**ANSWERS, "getPlugins": get_plugins})
        await until(lambda: network.hooks == ["+com.demo"])
        lists["plugins"] = ["echo"]
        for _ in range(10):
            app.tell({"method": "refreshPlugins"})
        await until(lambda: app.session.announced == ["echo"])
        await until(lambda: network.hooks == ["+com.demo", "-com.demo"])
        await app.settled()
        sent = [(m["method"], m["params"]["plugin"]) for m in app.side.messages if m["method"] in ("init", "deinit")]
        assert sent == [("init", "Network"), ("deinit", "Network"), ("init", "echo")]
        assert sum(m["method"] == "getPlugins" for m in app.side.messages) <= 3
        lists["plugins"] = ["echo", "Network"]
        app.tell({"method": "refreshPlugins"})
        await until(lambda: network.hooks == ["+com.demo", "-com.demo", "+com.demo"])


@pytest.mark.row("A-56")
async def test_a_crashing_handler_hurts_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    async with Line(Network, Echo) as line:
        client = await line.connect(claims=FLIPPER_CLAIMS, answers=ANSWERS)
        with pytest.raises(ApplicationError) as caught:
            await client.ask("Network.crash")
        assert caught.value.public == "internal error in Network.crash"
        assert "ZeroDivisionError: secret" in caplog.text
        assert "plugin_host.py" not in caplog.text  # only the plugin's own frames
        assert await client.json("Network.add", {"a": 1, "b": 1}) == {"sum": 2}
        assert await client.ask("echo.request", b"x") == b"x"


@pytest.mark.parametrize(
    "answers",
    [
        {"getPlugins": {"error": {"message": "unknown method"}}},
        {"getPlugins": {"success": "nonsense"}},
        {},
    ],
)
async def test_who_does_not_speak_json_after_all_is_served_by_routes(answers: dict[str, Any]) -> None:
    async with Line(Echo) as line:
        client = await line.connect(claims=FLIPPER_CLAIMS, answers=answers)
        assert await client.session.to_app.call("any", "thing", {"routed": 1}) == {"routed": 1}
        assert client.session.kind.value == "routed"


async def test_what_an_app_cannot_do_is_said() -> None:
    async with Line(Echo) as line:
        app = await line.app(["P"], answers={"P.slow": asyncio.Event().wait, "isMethodSupported": _supported})
        session = app.session
        with pytest.raises(ApplicationError, match=r"Receiver P\.absent not found\."):
            await session.to_app.call("P", "absent")
        with pytest.raises(ApplicationError, match="can only be called or sent"):
            await anext(session.to_app.stream("P", "x"))
        with pytest.raises(ApplicationError, match="can only be called or sent"):
            await session.to_app.push("P", "x")
        assert await session.to_app.supports("P", "yes") is True
        assert await session.to_app.supports("P", "no") is False
        inits = [m for m in app.side.messages if m["method"] == "init"]
        assert inits == [{"method": "init", "params": {"plugin": "P"}}]  # once, before the first call


async def _supported(params: Any) -> object:
    return {"success": {"isSupported": params["method"] == "yes"}}


async def test_a_call_that_is_not_answered_ends_in_time_and_the_session_stays() -> None:
    async def never(params: object) -> object:
        return await asyncio.get_running_loop().create_future()

    async with Line(Echo) as line:
        app = await line.app(["P"], answers={"P.never": never, "P.now": {"success": 1}})
        with pytest.raises(Canceled, match=r"The app did not answer P\.never within 0\.02 s\."):
            await app.session.to_app.call("P", "never", timeout=0.02)
        assert await app.session.to_app.call("P", "now") == 1


async def test_a_session_describes_itself_as_clients_list_shows_it() -> None:
    async with Line(Echo) as line:
        app = await line.app(["echo", "Other"])
        description = app.session.describe()
        assert json.loads(json.dumps(description)) == description
        assert description | {"since": "-", "id": "-", "node": "-"} == {
            "id": "-",
            "app": "Demo",
            "app_id": "com.demo",
            "device": "Pixel",
            "device_id": "dev1",
            "os": "Android",
            "sdk_version": 4,
            "medium": 1,
            "proof": "adb",
            "transport": "tls",
            "plugins": ["echo", "Other"],
            "since": "-",
            "state": "connected",
            "serial": "ff",
            "session": "device",
            "node": "-",
            "parent": None,
        }
        assert description["node"] == description["id"]
        assert line.sessions.find("com.demo@dev1") is app.session


async def test_messages_can_be_followed_both_ways_and_their_contents_cannot() -> None:
    async with Line(Echo) as line:
        app = await line.app(["P"], answers={"P.m": {"success": "hunter2"}})
        await app.connection.close()
        client = await line.connect(claims=FLIPPER_CLAIMS, answers={"getPlugins": {"error": 1}})
        await client.ask("echo.request", b"hunter2")  # remembered from here on
        seen: list[dict[str, object]] = []
        stop = client.session.followers.observe(seen.append)
        await client.ask("echo.request", b"hunter2")
        client.fire("echo.request", b"hunter2")
        await client.session.to_app.call("P", "m", "hunter2")
        await client.settled()
        stop()
        await client.ask("echo.request", b"hunter2")
        assert [(one["direction"], one["kind"], one["plugin"], one["method"], one["bytes"]) for one in seen] == [
            ("in", "request-response", "echo", "request", 7),
            ("out", "call", "P", "m", None),
            ("in", "fire-and-forget", "echo", "request", 7),
            ("in", "answer", "P", "m", 9),
        ]
        assert "hunter2" not in str(seen)


async def test_an_observer_that_fails_is_let_go() -> None:
    async with Line(Echo) as line:
        client = await line.connect()

        def broken(message: object) -> None:
            raise ZeroDivisionError

        client.session.followers.observe(broken)
        assert await client.ask("echo.request", b"x") == b"x"
        assert not client.session.observed


class Exit(Plugin):
    """Ends the session that asks for it, as `sessions.logout` does."""

    id = "exit"

    def __init__(self) -> None:
        self.line: Line
        self.seen: list[int] = []

    @method("go")
    def go(self, app: App, really: bool) -> bool:
        session = self.line.sessions.get(app.id)
        assert session is not None
        if really:
            self.line.endpoint.children.end(session.node.id, "it was logged out", answering=session)
        return really

    @method("do")
    def do(self, app: App, n: int) -> int:
        self.seen.append(n)
        return n

    @event("tell")
    def tell(self, app: App, n: int) -> None:
        self.seen.append(n)


@pytest.mark.row("W-8", "A-60")
async def test_nothing_that_came_in_one_piece_with_its_farewell_is_served_behind_it() -> None:
    def question(name: str, params: object) -> dict[str, object]:
        return {"id": 1, "method": "execute", "params": {"api": "exit", "method": name, "params": params}}

    plugin = Exit()
    async with Line(plugin) as line:
        plugin.line = line
        app = await line.app(["exit"])
        for _ in range(3):
            assert await app.ask_json(question("do", {"n": 1})) == {"success": 1}
            assert await app.ask_json(question("go", {"really": False})) == {"success": False}
            app.event("exit", "tell", {"n": 1})
            await app.settled()
        plugin.seen.clear()
        wishes = [question("go", {"really": True}), question("do", {"n": 2})]
        works = [asyncio.ensure_future(app.ask_json(wish)) for wish in wishes]
        await asyncio.sleep(0)
        app.event("exit", "tell", {"n": 3})
        assert await works[0] == {"success": True}
        with pytest.raises(Rejected, match="it was logged out"):
            await works[1]
        await until(lambda: app.side.ended)
        assert plugin.seen == []
