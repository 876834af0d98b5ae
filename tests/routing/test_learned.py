"""What comes again is answered, and taken, as the first time."""

import asyncio
import json

import pytest

from rsocket_broker.errors import RequestFailed
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import App, event
from rsocket_broker.protocol.metadata import DATA_MIME, Entry, Mime, build_composite, route
from rsocket_broker.routing import flipper
from rsocket_broker.routing.learned import MAX_REMEMBERED, NO_QUESTION
from tests.routing.line import FLIPPER_CLAIMS, Client, Line, until
from tests.routing.plugins import ANSWERS, Echo, Mixed, Network


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
            assert (text in app.responder.learned._envelopes) == known
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
        assert app.responder.learned._usual_question is not NO_QUESTION


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
            assert (app.responder.learned._usual_question is not NO_QUESTION) == known
            for _ in range(2):
                answer = await app.connection.request_response(Payload(ASKED % (number, method, inner), None), 5.0)
                found.append(json.loads(answer.data or b""))
    assert found == [found[0]] * 4


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


def told(name: bytes, n: int) -> bytes:
    return b'{"method":"execute","params":{"api":"Mixed","method":"%b","params":{"n":%d}}}' % (name, n)


async def test_events_that_begin_by_turns_in_several_ways_are_all_taken_in_order() -> None:
    plugin = Mixed()
    async with Line(plugin) as line:
        app = await line.app(["Mixed"])
        spaced = told(b"note", 1).replace(b'":"', b'": "')
        n = 0
        for turns in ("aaaa", "abab", "bbbb", "aabb", "abba", "aaac", "cacb", "aaaa"):
            for turn in turns:
                n += 1
                text = spaced if turn == "b" else told(b"slow-note" if turn == "c" else b"note", 1)
                app.tell(text.replace(b'"n":1', b'"n":%d' % (n + 100)))
            if n % 8:
                await app.settled()
        await until(lambda: len(plugin.seen) == n)
        assert plugin.seen == list(range(101, 101 + n))


async def test_what_takes_events_gives_way_as_soon_as_somebody_looks_on() -> None:
    """In the middle of a read too."""
    seen: list[int] = []
    noted: list[object] = []

    class Watched(Mixed):
        @event("note")
        def note(self, app: App, n: int) -> None:
            seen.append(n)
            if n == 20:
                watch()

    async with Line(Watched()) as line:
        app = await line.app(["Mixed"])
        for n in range(5):
            app.tell(told(b"note", n))
            await app.settled()

        def watch() -> None:
            app.session.followers.observe(lambda message: noted.append(message["kind"]))

        for n in range(17, 25):
            app.tell(told(b"note", n))
        await until(lambda: seen[-1:] == [24])
        assert noted == ["event"] * 4
