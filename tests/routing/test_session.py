"""What a session is to plugins, to the admin line and to itself."""

import asyncio
from typing import Any

import pytest

from rsocket_broker.errors import Canceled, ConnectionClosed, Invalid
from rsocket_broker.identity import Identity
from rsocket_broker.plugin_api import App, ApplicationError, Device, Plugin, method
from rsocket_broker.plugin_api.testing import fake_identity
from rsocket_broker.sessions.live import Kind
from tests.plugins.devices import PaperDevice
from tests.routing.line import FLIPPER_CLAIMS, Line, until


class Keeper(Plugin):
    """Keeps the apps that it has seen."""

    id = "Keeper"

    def __init__(self) -> None:
        self.apps: list[App] = []

    def on_connect(self, app: App) -> None:
        self.apps.append(app)
        app.state.count = 0

    @method("count")
    def count(self, app: App) -> int:
        app.state.count += 1
        count: int = app.state.count
        return count


async def test_an_app_is_one_object_for_a_session_with_a_state_of_its_own() -> None:
    keeper = Keeper()
    async with Line(keeper) as line:
        one, two = await line.connect(), await line.connect()
        assert [await one.json("Keeper.count") for _ in range(3)] == [1, 2, 3]
        assert await two.json("Keeper.count") == 1
        assert len(set(keeper.apps)) == 2


async def test_what_a_handler_is_told_of_its_app() -> None:
    keeper = Keeper()
    async with Line(keeper) as line:
        await line.app(["Keeper"])
        await (await line.connect(certificate=b"com.bare||filesystem|1")).json("Keeper.count")
        named, bare = keeper.apps
        assert (named.name, named.os, named.device, named.data_mime) == ("Demo", "Android", "Pixel", "application/json")
        assert (bare.name, bare.os, bare.device) == ("com.bare", "", "")
        assert bare.identity.principal == fake_identity("com.bare", "").principal
        assert named.id != bare.id


async def test_a_call_waits_until_the_app_has_started_up_but_not_for_ever() -> None:
    let_go = asyncio.Event()

    async def get_plugins(params: object) -> Any:
        await let_go.wait()
        return {"success": {"plugins": ["P"]}}

    answers = {"getPlugins": get_plugins, "getBackgroundPlugins": {"success": {"plugins": []}}}
    async with Line(Keeper) as line:
        app = await line.connect(claims=FLIPPER_CLAIMS, answers={**answers, "P.m": {"success": 7}})
        with pytest.raises(Canceled, match=r"did not answer P\.m within 0\.01 s"):
            await app.session.call("P", "m", timeout=0.01)
        call = asyncio.ensure_future(app.session.call("P", "m"))
        await app.settled()
        assert not call.done()
        let_go.set()
        assert await call == 7


async def test_time_limits_go_by_the_clock_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under uvloop it has left `time.monotonic` behind after each sleep of a Mac, and every call was out of time."""

    async def slow(params: object) -> Any:
        await asyncio.sleep(0.02)
        return {"success": "done"}

    loop = asyncio.get_running_loop()
    time = loop.time
    async with Line(Keeper()) as line:
        app = await line.app(["P"], answers={"P.slow": slow})
        monkeypatch.setattr(loop, "time", lambda: time() + 3600)
        assert await app.session.call("P", "slow", timeout=30.0) == "done"
        monkeypatch.undo()


async def test_the_end_of_a_session_ends_its_calls() -> None:
    async def never(params: object) -> Any:
        await asyncio.sleep(60)

    async with Line(Keeper) as line:
        app = await line.app(["P"], answers={"P.never": never})
        session = app.session
        call = asyncio.ensure_future(session.call("P", "never", timeout=None))
        await until(lambda: app.side.messages[-1]["method"] == "execute")
        app.served.abort()
        with pytest.raises(ConnectionClosed):
            await call
        with pytest.raises(ConnectionClosed):
            await session.call("P", "never")
        assert len(line.sessions) == 0


async def test_an_app_that_learns_to_speak_json_is_spoken_to_in_it() -> None:
    lists: Any = {"error": {"message": "not yet"}}

    async def get_plugins(params: object) -> Any:
        return lists

    answers = {"getPlugins": get_plugins, "getBackgroundPlugins": {"error": "none"}, "P.m": {"success": 7}}
    async with Line(Keeper) as line:
        app = await line.connect(claims=FLIPPER_CLAIMS, answers=answers)
        await until(lambda: app.session.kind is Kind.ROUTED)
        lists = {"success": {"plugins": ["P"]}}
        app.tell({"method": "refreshPlugins"})
        await until(lambda: app.session.kind is Kind.FLIPPER)
        assert await app.session.call("P", "m") == 7


async def test_parameters_that_are_no_json_never_leave() -> None:
    async with Line(Keeper) as line:
        app = await line.app(["P"])
        with pytest.raises(Invalid, match="The parameters cannot be written as JSON"):
            await app.session.call("P", "m", {"x": object()})


class Driver(Plugin):
    """Asks for the device behind a session, and whether it is about to end."""

    id = "Driver"
    needs_app = False

    @method("serial")
    async def serial(self, app: App) -> str:
        return (await app.device_access()).serial

    @method("leaving")
    def leaving(self, app: App) -> bool:
        return app.leaving


async def test_the_device_behind_a_session_is_asked_for_by_its_identity() -> None:
    asked: list[Identity] = []

    async def devices(identity: Identity) -> Device:
        asked.append(identity)
        return PaperDevice()

    async with Line(Driver) as line:
        client = await line.connect(certificate=b"com.demo|dev1|adb|1")
        with pytest.raises(ApplicationError, match="reaches no devices"):
            await client.json("Driver.serial")
        line.endpoint.router.devices = devices
        assert await client.json("Driver.serial") == "paper"
        assert asked == [client.session.identity]
        assert await client.json("Driver.leaving") is False
        line.endpoint.router.ending = True
        assert await client.json("Driver.leaving") is True


async def test_a_plugin_that_needs_no_app_can_be_asked_about_one_without_it() -> None:
    async with Line(Driver, Keeper) as line:
        app = await line.app([])
        assert (await app.session.seat_of("Driver")).app.id == app.session.id
        with pytest.raises(ApplicationError, match="has no plugin Keeper"):
            await app.session.seat_of("Keeper")
