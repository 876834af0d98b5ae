"""What apps ask in Flipper's JSON."""

import asyncio
from typing import Any

import pytest
from rsocket.request_handler import BaseRequestHandler

from rsocket_broker.plugin_api.mount import mount
from tests.routing.line import Line, until
from tests.routing.plugins import ANSWERS, Echo, Mixed, Network


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
