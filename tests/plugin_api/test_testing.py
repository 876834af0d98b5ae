"""The bench for plugin authors: with no broker, and honest about what a broker would do."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rsocket_broker.plugin_api import App, ApplicationError, Canceled, Plugin, Proof, event, method
from rsocket_broker.plugin_api.testing import fake_identity, running


class Notes(Plugin):
    id = "Notes"

    def __init__(self) -> None:
        self.log: list[str] = []

    async def on_connect(self, app: App) -> None:
        app.state.items = await app.call("getAll")
        self.log.append(f"hello {app.name}")

    def on_disconnect(self, app: App) -> None:
        self.log.append(f"bye {app.id}")

    @event("added")
    async def added(self, app: App, params: dict[str, Any]) -> None:
        app.state.items.append(params)
        await app.send("noted", {"count": len(app.state.items)})

    @method("all")
    def all(self, app: App) -> list[Any]:
        items: list[Any] = app.state.items
        return items

    @method("ask")
    async def ask(self, app: App, what: str) -> Any:
        return await app.call(what, {"a": 1}, timeout=0.01)

    @method("follow")
    async def follow(self, app: App) -> AsyncIterator[Any]:
        async for value in app.stream("values", {"n": 2}):
            yield value

    @method("late", deadline=0.01)
    async def late(self, app: App) -> None:
        await asyncio.sleep(60)

    @method("wrong")
    def wrong(self, app: App) -> None:
        raise ZeroDivisionError


async def test_a_whole_life() -> None:
    async with running(Notes) as bench:
        client = await bench.connect(answers={"getAll": [{"n": 0}]}, name="Demo")
        await client.event("added", {"n": 1})
        assert await client.request("all") == [{"n": 0}, {"n": 1}]
        assert client.received == [("getAll", {}), ("noted", {"count": 2})]
        plugin = bench.plugin
        assert isinstance(plugin, Notes)
        assert plugin.log == ["hello Demo"]
    assert plugin.log == ["hello Demo", "bye test1"]


async def test_the_fake_app_answers_from_its_table() -> None:
    async def double(params: dict[str, int]) -> int:
        return params["a"] * 2

    async def never(params: object) -> None:
        await asyncio.sleep(60)

    answers = {"getAll": [], "double": double, "no": ApplicationError("not today"), "never": never}
    async with running(Notes()) as bench:
        client = await bench.connect(answers=answers)
        assert await client.request("ask", {"what": "double"}) == 2
        with pytest.raises(ApplicationError, match="not today"):
            await client.request("ask", {"what": "no"})
        with pytest.raises(ApplicationError, match="Receiver absent not found"):
            await client.request("ask", {"what": "absent"})
        with pytest.raises(Canceled, match=r"did not answer never within 0.01 s"):
            await client.request("ask", {"what": "never"})


async def test_streams_deadlines_and_errors() -> None:
    async with running(Notes) as bench:
        client = await bench.connect(answers={"getAll": [], "values": [1, 2]})
        assert [value async for value in client.stream("follow")] == [1, 2]
        with pytest.raises(Canceled, match=r"Notes.late was stopped after 0.01 s"):
            await client.request("late")
        with pytest.raises(ZeroDivisionError):
            await client.request("wrong")


async def test_several_clients_with_identities_of_their_own() -> None:
    async with running(Notes) as bench:
        one = await bench.connect(answers={"getAll": []})
        two = await bench.connect(answers={"getAll": []}, identity=fake_identity("other.app", proof=Proof.ADB))
        assert one.app.identity.app_id == "com.example.app"
        assert two.app.identity.proof is Proof.ADB
        assert len({one.app, two.app}) == 2
        await bench.disconnect(one)
        assert isinstance(bench.plugin, Notes)
        assert bench.plugin.log[-1] == "bye test1"
