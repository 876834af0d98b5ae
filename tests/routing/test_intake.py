"""What clients tell: in order, and a bad message costs no more than itself."""

import asyncio
import json
import logging

import pytest

from tests.routing.line import Line, until
from tests.routing.plugins import ANSWERS, Mixed, Network


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
