"""What answers on the secure port, over memory transports, a real engine on both ends."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from rsocket.request_handler import BaseRequestHandler

from rsocket_broker.errors import (
    ApplicationError,
    Canceled,
    ConnectionClosed,
    Invalid,
    Rejected,
    RequestFailed,
)
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import App, Plugin, event, method
from rsocket_broker.plugin_api.mount import mount
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
from rsocket_broker.routing import flipper
from rsocket_broker.routing.responder import MAX_REMEMBERED, NO_QUESTION
from tests.routing.line import FLIPPER_CLAIMS, Client, Line, until


class Echo(Plugin):
    id = "echo"

    @method("request")
    def request(self, app: App, payload: Payload) -> Payload:
        return payload

    @method("never", deadline=None)
    async def never(self, app: App, payload: Payload) -> Payload:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.append(app.id)
        return payload

    @method("stream")
    async def stream(self, app: App, count: int) -> AsyncIterator[int]:
        try:
            for number in range(count):
                made.append(number)
                yield number
        finally:
            cancelled.append("stream")

    @method("channel")
    async def channel(self, app: App, incoming: AsyncIterator[Payload]) -> AsyncIterator[Payload]:
        async for payload in incoming:
            yield payload


cancelled: list[str] = []
made: list[int] = []


class Network(Plugin):
    """Calls its app, and is called by it."""

    id = "Network"

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.hooks: list[str] = []

    async def on_connect(self, app: App) -> None:
        app.state.all = await app.call("getAll")
        self.hooks.append(f"+{app.identity.app_id}")

    async def on_disconnect(self, app: App) -> None:
        self.hooks.append(f"-{app.identity.app_id}")

    @event("newRequest")
    async def new_request(self, app: App, params: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        self.events.append(params)

    @event("count")
    def count(self, app: App, n: int) -> None:
        self.events.append(n)

    @method("har")
    async def har(self, app: App) -> Any:
        return {"all": app.state.all, "more": await app.call("getMore", {"n": 1})}

    @method("add")
    def add(self, app: App, a: int, b: int) -> dict[str, int]:
        return {"sum": a + b}

    @method("crash")
    def crash(self, app: App) -> None:
        raise ZeroDivisionError("secret")


ANSWERS = {"Network.getAll": {"success": [1]}, "Network.getMore": {"success": None}}


@pytest.fixture(autouse=True)
def forget() -> None:
    cancelled.clear()
    made.clear()


# --- routed ----------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("metadata", "error", "text"),
    [
        (None, Invalid, "has no route"),
        (b"", Invalid, "has no route"),
        (b"\xff\x00", Invalid, "ends inside an entry"),
        (build_composite([Entry(Mime.of(AUTHENTICATION), b"x")]), Invalid, "has no route"),
        (route("nobody.here"), Invalid, 'No plugin serves the route "nobody.here"'),
        (route("echo"), Invalid, 'No plugin serves the route "echo"'),
        (route("echo.absent"), Invalid, 'The plugin "echo" has no "absent"'),
        (route("echo.stream"), Invalid, "use request-stream"),
        (route("client:c1"), Rejected, "passes no requests on"),
    ],
)
async def test_a_request_that_leads_nowhere_says_why(metadata: bytes | None, error: type[Exception], text: str) -> None:
    async with Line(Echo) as line:
        client = await line.connect()
        with pytest.raises(error, match=text):
            await client.connection.request_response(Payload(b"", metadata), 5.0)
        assert await client.ask("echo.request", b"x") == b"x"


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


async def test_what_a_session_remembers_of_its_routes_is_bounded() -> None:
    async with Line(Echo) as line:
        client = await line.connect()
        for number in range(MAX_REMEMBERED * 2 + 5):
            metadata = route("echo.request") + build_composite([Entry(Mime.of(DATA_MIME), str(number).encode())])
            await client.connection.request_response(Payload(b"", metadata), 5.0)
        huge = route("echo.request") + build_composite([Entry(Mime.of(DATA_MIME), bytes(5000))])
        await client.connection.request_response(Payload(b"", huge), 5.0)
        shortcuts = client.served.shortcuts
        assert 0 < len(shortcuts.calls) + len(shortcuts.fires) <= MAX_REMEMBERED
        assert huge not in shortcuts.calls


class Mixed(Plugin):
    """Handlers of every shape, whose answers and errors are known."""

    id = "Mixed"

    def __init__(self) -> None:
        self.seen: list[object] = []

    @method("add")
    def add(self, app: App, a: int, b: int = 0) -> dict[str, int]:
        return {"sum": a + b}

    @method("later")
    async def later(self, app: App, a: int) -> int:
        return a

    @method("whole")
    def whole(self, app: App, params: dict[str, Any]) -> Any:
        return params

    @method("nothing")
    def nothing(self, app: App) -> None: ...

    @method("raw")
    def raw(self, app: App, data: bytes) -> bytes | None:
        return None if data == b"{}" else data

    @method("with-metadata")
    def with_metadata(self, app: App, payload: Payload) -> Payload:
        return Payload(payload.data, b"of mine")

    @method("text")
    def text(self, app: App) -> bytes:
        return b"no JSON at all"

    @method("odd")
    def odd(self, app: App) -> Any:
        return {"a": object()}

    @method("crash")
    def crash(self, app: App, a: int = 0) -> None:
        raise KeyError("secret")

    @method("refuse")
    def refuse(self, app: App) -> None:
        raise ApplicationError("in words meant for you")

    @method("cancel")
    def cancel(self, app: App) -> None:
        raise asyncio.CancelledError

    @event("note")
    def note(self, app: App, n: int) -> None:
        self.seen.append(n)
        if n == 13:
            raise KeyError("secret")

    @event("slow-note")
    async def slow_note(self, app: App, n: int) -> None:
        await asyncio.sleep(0)
        self.seen.append(n)


MIXED = [
    "add", "later", "whole", "nothing", "raw", "with-metadata", "text", "odd", "crash", "refuse", "cancel", "missing",
]  # fmt: skip
PARAMS = [b'{"a":1,"b":2}', b"{}", b"", b"[", b"[1]", b'{"a":"1"}', b"null"]


async def answer_of(client: Client, name: str, data: bytes) -> object:
    try:
        answer = await client.connection.request_response(Payload(data, route(f"Mixed.{name}")), 5.0)
    except RequestFailed as error:
        return type(error), error.code, error.public
    return answer


@pytest.mark.parametrize("data", PARAMS)
@pytest.mark.parametrize("name", MIXED)
async def test_a_request_that_comes_again_is_answered_the_same(name: str, data: bytes) -> None:
    """The first time it is looked up, from then on there is a shortcut; with an observer there is none again."""
    async with Line(Mixed) as line:
        client = await line.connect()
        first = await answer_of(client, name, data)
        assert bool(client.served.shortcuts.calls) == (name != "missing")
        together = await asyncio.gather(*(answer_of(client, name, data) for _ in range(3)))
        assert together == [first] * 3
        stop = client.session.followers.observe(lambda message: None)
        assert not client.served.shortcuts.calls
        assert await answer_of(client, name, data) == first
        assert not client.served.shortcuts.calls
        stop()


@pytest.mark.parametrize("params", [{"a": 1, "b": 2}, {}, None, [1], {"a": "1"}, "left out"])
@pytest.mark.parametrize("name", MIXED)
async def test_an_app_that_asks_again_is_answered_the_same(name: str, params: object) -> None:
    async with Line(Mixed) as line:
        app = await line.app(["Mixed"])
        inner = {"api": "Mixed", "method": name} | ({} if params == "left out" else {"params": params})
        message = {"id": 7, "method": "execute", "params": inner}
        first = await app.ask_json(message)
        assert bool(app.served.shortcuts.calls) == (name not in {"missing", "later"})
        assert [await app.ask_json(message) for _ in range(2)] == [first, first]
        await app.ask_json({"id": 1, "method": "execute", "params": {"api": "Mixed", "method": "add", "params": {}}})
        assert None in app.served.shortcuts.calls
        assert await app.ask_json(message) == first


@pytest.mark.parametrize(
    "message",
    [
        b"[",
        b'"text"',
        b"[1]",
        {"method": "execute"},
        {"method": "execute", "params": []},
        {"method": "execute", "params": {"api": ["Mixed"], "method": "add", "params": {}}},
        {"method": "execute", "params": {"api": "Mixed", "method": {}, "params": {}}},
        {"method": "getPlugins", "params": {"api": "Mixed", "method": "add", "params": {}}},
        {"params": {"api": "Mixed", "method": "add", "params": {}}},
        {"method": "refreshPlugins"},
        {"success": 1},
    ],
)
async def test_messages_of_other_kinds_mean_the_same_beside_shortcuts(message: object) -> None:
    """Among those that have one, as a question and as an event."""
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    known = {"method": "execute", "params": {"api": "Mixed", "method": "add", "params": {"a": 1}}}
    async with Line(Mixed) as line:
        app = await line.app(["Mixed"])
        ask = lambda: app.connection.request_response(Payload(data, None), 5.0)  # noqa: E731
        first = await ask()
        assert not app.served.shortcuts.calls
        await app.ask_json(known)
        app.tell(known)
        assert await ask() == first
        app.tell(data)
        assert await app.ask_json(known) == {"success": {"sum": 1}}


@pytest.mark.row("A-43")
@pytest.mark.parametrize("routed", [False, True])
async def test_events_stay_in_order_when_some_take_a_shortcut_and_some_take_time(routed: bool) -> None:
    plugin = Mixed()
    async with Line(plugin) as line:
        client = await (line.connect() if routed else line.app(["Mixed"]))
        send = (
            (lambda name, n: client.fire(f"Mixed.{name}", b'{"n":%d}' % n))
            if routed
            else (lambda name, n: client.event("Mixed", name, {"n": n}))
        )
        for n in range(3):
            send("note", n)
            await client.settled()
        assert client.served.shortcuts.fires
        for n in range(3, 60):
            send("slow-note" if n % 7 == 0 else "note", n)
            if n % 20 == 0:
                await client.settled()
        await until(lambda: len(plugin.seen) == 60)
        assert plugin.seen == list(range(60))


@pytest.mark.parametrize(
    ("inner", "seen"),
    [
        (b'{"n":5}', [5]),
        (b' {"n" : 5} ', [5]),
        (b'{"n":5,"more":[{}]}', [5]),
        (b'{"n":%d}' % 2**70, [2**70]),
        (b'{"n":"5"}', []),
        (b"null", []),
        (b"[", []),
        (b'{"n":5}},"more":{"x":{}', [5]),
        (b'{"n":5},"method":"other","x":{}', []),
        (b'{"n":5,"t":"%s"}' % (b"x" * 2000), [5]),
        (b'{"n":5,"t":"\\ud83d"}', [5]),
    ],
)
async def test_an_event_that_begins_like_others_means_what_it_would_alone(inner: bytes, seen: list[int]) -> None:
    text = b'{"method":"execute","params":{"api":"Mixed","method":"note","params":'
    for known in (False, True):
        plugin = Mixed()
        async with Line(plugin) as line:
            app = await line.app(["Mixed"])
            for _ in range(3 if known else 0):
                app.tell(text + b'{"n":1}}}')
                await app.settled()
            assert (text in app.responder._envelopes) == known
            app.tell(text + inner + b"}}")
            await app.settled()
            app.tell(text + b'{"n":1}}}')
            await app.settled()
            assert [n for n in plugin.seen if n != 1] == seen


async def test_what_cannot_be_learned_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[bytes] = []
    envelope = flipper.envelope

    def counted(text: bytes) -> tuple[str, str] | None:
        looks.append(text)
        return envelope(text)

    monkeypatch.setattr(flipper, "envelope", counted)
    async with Line(Mixed) as line:
        app = await line.app(["Mixed"])
        for n in range(3 * MAX_REMEMBERED):
            for number in (b'{"id":1,', b"{", b'{"more":%d,' % n):
                message = number + b'"method":"execute","params":{"api":"Mixed","method":"whole","params":{}}}'
                await app.connection.request_response(Payload(message, None), 5.0)
                app.tell(number + b'"method":"execute","params":{"api":"Mixed","method":"note","params":[]}}')
        await app.settled()
        assert len(looks) <= MAX_REMEMBERED


@pytest.mark.parametrize("number", [b"", b'"id":3,'])
async def test_a_question_with_or_without_a_number_is_learned(number: bytes) -> None:
    async with Line(Mixed) as line:
        app = await line.app(["Mixed"])
        text = b"{" + number + b'"method":"execute","params":{"api":"Mixed","method":"add","params":{"a":%d}}}'
        for n in range(5):
            answer = await app.connection.request_response(Payload(text % n, None), 5.0)
            assert answer.data == b'{"success":{"sum":%d}}' % n
        assert app.responder._usual_question is not NO_QUESTION


ASKED = b'{"id":%b,"method":"execute","params":{"api":"Mixed","method":"%b","params":%b}}'


@pytest.mark.parametrize(
    "number", [b"7", b"0", b"07", b"-7", b"1.5", b'"7"', b"1" * 30, b"", b'7,"id":8', b'7,"more":1']
)
@pytest.mark.parametrize(
    ("method", "inner"),
    [
        (b"add", b'{"a":5,"b":2}'),
        (b"add", b' {"b" : 2, "a":5} '),
        (b"add", b'{"a":5}'),
        (b"add", b'{"a":%d}' % 2**70),
        (b"add", b'{"a":"5"}'),
        (b"add", b"{}"),
        (b"add", b"null"),
        (b"add", b""),
        (b"add", b"["),
        (b"add", b'{"a":5}},"more":{"x":{}'),
        (b"add", b'{"a":5},"method":"whole","x":{}'),
        (b"crash", b'{"a":1}'),
        (b"crash", b"null"),
        (b"crash", b'{"a":"1"}'),
    ],
)
async def test_a_question_that_is_written_like_others_is_answered_as_it_would_be_alone(
    number: bytes, method: bytes, inner: bytes
) -> None:
    found = []
    for known in (False, True):
        async with Line(Mixed) as line:
            app = await line.app(["Mixed"])
            for n in range(3 if known else 0):
                asked = Payload(ASKED % (b"%d" % n, method, b'{"a":1}'), None)
                await app.connection.request_response(asked, 5.0)
            assert (app.responder._usual_question is not NO_QUESTION) == known
            for _ in range(2):
                answer = await app.connection.request_response(Payload(ASKED % (number, method, inner), None), 5.0)
                found.append(json.loads(answer.data or b""))
    assert found == [found[0]] * 4


@pytest.mark.parametrize("routed", [False, True])
async def test_an_event_that_fails_again_and_again_is_logged_and_dropped(
    routed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = Mixed()
    with caplog.at_level(logging.INFO):
        async with Line(plugin) as line:
            client = await (line.connect() if routed else line.app(["Mixed"]))
            for n in (1, 13, 13, "x", 2):
                if routed:
                    client.fire("Mixed.note", json.dumps({"n": n}).encode())
                else:
                    client.event("Mixed", "note", {"n": n})
                await client.settled()
    assert plugin.seen == [1, 13, 13, 2]
    assert "wanted int, got str" in caplog.text
    assert caplog.text.count("Mixed.note failed") == 2


async def test_an_event_with_a_number_is_an_answer_beside_a_shortcut_too() -> None:
    plugin = Mixed()
    async with Line(plugin) as line:
        app = await line.app(["Mixed"])
        app.event("Mixed", "note", {"n": 1})
        await app.settled()
        app.tell({"id": 5, "method": "execute", "params": {"api": "Mixed", "method": "note", "params": {"n": 2}}})
        app.event("Mixed", "note", {"n": 3})
        await until(lambda: 3 in plugin.seen)
        assert plugin.seen == [1, 3]


async def test_a_mounted_handler_is_not_asked_in_flippers_way(caplog: pytest.LogCaptureFixture) -> None:
    """Beside shortcuts too, where an exception that nobody foresaw would end the connection."""
    plugin = Mixed()
    asked = {"method": "execute", "params": {"api": "legacy", "method": "x", "params": {}}}
    async with Line(plugin, mount(BaseRequestHandler, "legacy")) as line:
        app = await line.app(["Mixed"])
        for n in (1, 2):
            answer = await app.ask_json(asked)
            assert "use its route" in answer["error"]["message"]
            app.event("legacy", "x", {"n": 1})
            app.event("Mixed", "note", {"n": n})
            await until(lambda n=n: n in plugin.seen)  # type: ignore[misc]
            await app.ask_json({"method": "execute", "params": {"api": "Mixed", "method": "add", "params": {"a": 1}}})
        assert app.served.shortcuts.fires and app.served.shortcuts.calls
    assert "Traceback" not in caplog.text


async def test_a_plugin_that_the_app_has_dropped_takes_no_shortcut() -> None:
    plugin = Mixed()
    async with Line(plugin) as line:
        app = await line.app(["Mixed"])
        app.event("Mixed", "note", {"n": 1})
        await app.settled()
        app.side.answers["getPlugins"] = {"success": {"plugins": []}}
        app.tell({"method": "refreshPlugins"})
        await until(lambda: not app.session.announced)
        assert not app.served.shortcuts.fires


async def test_the_way_past_on_connect_is_not_remembered() -> None:
    async with Line(Network) as line:
        client = await line.connect(claims=FLIPPER_CLAIMS, answers=ANSWERS)
        for remembered in (0, 1, 1):
            assert await client.json("Network.add", {"a": 1, "b": 2}) == {"sum": 3}
            assert len(client.served.shortcuts.calls) == remembered


# --- Flipper's JSON --------------------------------------------------------------------------------------------------


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


async def test_events_reach_their_handler_in_order_and_not_before_on_connect() -> None:
    network = Network()
    let_go = asyncio.Event()

    async def get_all(params: object) -> object:
        await let_go.wait()
        return {"success": []}

    async with Line(network) as line:
        app = await line.app(["Network"], answers={"Network.getAll": get_all})
        for number in range(100):
            app.event("Network", "newRequest" if number % 2 else "count", {"n": number})
        await app.settled()
        assert network.events == []
        let_go.set()
        await until(lambda: len(network.events) == 100)
        assert network.events == [{"n": number} if number % 2 else number for number in range(100)]
        app.event("Network", "count", {"n": 100})
        await app.settled()
        assert network.events[-1] == 100


@pytest.mark.row("F-3")
async def test_the_app_and_the_handler_call_each_other_at_the_same_time() -> None:
    async with Line(Network) as line:
        app = await line.app(["Network"], answers=ANSWERS)
        answers = await asyncio.gather(
            *(app.ask_json({"method": "execute", "params": {"api": "Network", "method": "har"}}) for _ in range(10)),
            *(app.session.to_app.call("Network", "getMore", {"n": n}) for n in range(10)),
        )
        assert answers == [{"success": {"all": [1], "more": None}}] * 10 + [None] * 10


async def test_an_app_may_ask_in_its_own_way_and_is_answered_in_it() -> None:
    async with Line(Network, Echo) as line:
        app = await line.app(["Network"], answers=ANSWERS)

        async def execute(plugin: str, name: str, params: object) -> Any:
            inner = {"api": plugin, "method": name, "params": params}
            return await app.ask_json({"id": 1, "method": "execute", "params": inner})

        assert await execute("Network", "add", {"a": 1, "b": 2}) == {"success": {"sum": 3}}
        assert await execute("Network", "count", {"n": 1}) == {"success": None}
        assert await execute("echo", "request", {"a": 1}) == {"success": {"a": 1}}
        assert (await execute("Network", "add", {}))["error"]["message"] == "Network.add: a: wanted int, got nothing."
        assert (await execute("Network", "crash", {}))["error"]["message"] == "internal error in Network.crash"
        assert (await execute("Absent", "x", {}))["error"]["message"] == 'There is no plugin "Absent" here.'
        assert "error" in await app.ask_json({"method": "unheard of"})
        assert "error" in await app.ask_json([])
        assert await app.ask_json({"method": "refreshPlugins"}) == {"success": {}}


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


async def test_a_bad_message_is_dropped_and_the_session_stays(caplog: pytest.LogCaptureFixture) -> None:
    network = Network()
    async with Line(network) as line:
        app = await line.app(["Network"], answers=ANSWERS)
        await until(lambda: network.hooks)
        with caplog.at_level(logging.INFO):
            app.tell(b"\xff\xfe")
            app.tell({"method": "execute", "params": {"api": "Network", "method": "absent"}})
            app.tell({"method": "execute", "params": {"api": "Network", "method": "count", "params": {"n": "1"}}})
            app.tell({"method": "execute", "params": {"api": "Nobody", "method": "x"}})
            app.tell({"id": 99, "success": True})
            app.tell({"error": {"message": "boom\nforged line", "stacktrace": "..."}})
            for _ in range(100):
                app.tell(b"flood")
            app.event("Network", "count", {"n": 7})
            await until(lambda: network.events == [7])
        assert "reports an error: 'boom\\nforged line'" in caplog.text
        assert len(caplog.messages) < 30
        assert app.connection.closing is None


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


async def test_a_plain_client_is_never_sent_a_flipper_message() -> None:
    async with Line(Network) as line:
        client = await line.connect()
        with pytest.raises(Invalid, match="has no route"):
            await client.ask_json({"method": "execute", "params": {"api": "Network", "method": "add"}})
        assert await client.session.to_app.call("Network", "getAll", {}) == {}
        assert client.side.messages == []


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


# --- looking on ------------------------------------------------------------------------------------------------------


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
