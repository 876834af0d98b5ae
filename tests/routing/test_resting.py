"""A plugin that is not eager: its app side runs while it is asked, and no longer."""

import asyncio
from typing import Any

import pytest

from rsocket_broker.errors import Rejected
from rsocket_broker.plugin_api import App, Plugin, event, method
from rsocket_broker.routing import resting
from rsocket_broker.routing.resting import Resting
from tests.routing.line import Line, until


class Lazy(Plugin):
    id = "Lazy"
    eager = False

    def __init__(self) -> None:
        self.frames = 0

    @method("wake")
    async def wake(self, app: App) -> bool:
        return await app.wake()

    @method("ask")
    async def ask(self, app: App) -> Any:
        return await app.call("m")

    @event("frame")
    def frame(self, app: App) -> None:
        self.frames += 1


def life(messages: list[Any]) -> list[str]:
    return [message["method"] for message in messages if message["method"] in ("init", "deinit")]


async def test_it_is_started_at_the_first_call_and_stopped_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = Lazy()
    async with Line(lazy) as line:
        app = await line.app(["Lazy"], ["Lazy"], answers={"Lazy.m": {"success": 1}})
        assert life(app.side.messages) == []
        session = app.session
        session.plugins._resting = Resting(session.plugins._rest, session.to_app.is_asked, 0.05)
        assert await session.to_app.call("Lazy", "m") == 1
        app.event("Lazy", "frame")
        await until(lambda: lazy.frames == 1)
        await until(lambda: life(app.side.messages) == ["init", "deinit"])
        assert await session.plugins.wake("Lazy")
        assert not await session.plugins.wake("Lazy")
        await session.to_app.send("Lazy", "m")
        await until(lambda: life(app.side.messages) == ["init", "deinit", "init", "deinit"])


async def test_whoever_is_being_asked_is_not_put_to_sleep() -> None:
    rested: list[str] = []
    busy = True
    keeper = Resting(rested.append, lambda plugin: busy, 0.01)
    keeper.used("P")
    keeper.used("P")
    await asyncio.sleep(0.03)
    assert rested == []
    busy = False
    await until(lambda: rested == ["P"])
    keeper.used("P")
    keeper.close()
    await asyncio.sleep(0.02)
    assert rested == ["P"]


async def test_a_client_of_routes_has_nothing_to_be_woken() -> None:
    async with Line(Lazy) as line:
        client = await line.connect()
        assert await client.json("Lazy.wake") is False


async def test_what_the_policy_forbids_is_not_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Line(Lazy) as line:
        app = await line.app(["Lazy"])
        monkeypatch.setattr(app.session.plugins, "_may_talk", lambda plugin: False)
        with pytest.raises(Rejected, match="may not talk"):
            await app.session.plugins.wake("Lazy")


def test_idle_is_longer_than_a_handler_may_take() -> None:
    from rsocket_broker.plugin_api.plugin import DEADLINE

    assert resting.IDLE > DEADLINE
