"""A plugin that fails over and over is stopped and started anew; nobody else notices."""

import asyncio
import logging
from typing import ClassVar

import pytest

from rsocket_broker.errors import Canceled, Rejected, Unavailable
from rsocket_broker.plugin_api import App, ApplicationError, Plugin, Restart, event, method
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.supervision import Phase, told
from rsocket_broker.routing.tasks import TURN
from tests.routing.line import Line, until

QUICK = Restart(failures=6, first=0.01, most=0.05, quiet=60.0)


class Shaky(Plugin):
    """Does what it is told, and remembers its life across instances."""

    id = "shaky"
    restart = QUICK
    life: ClassVar[list[str]] = []
    broken: ClassVar[bool] = False

    def __init__(self) -> None:
        self.number = sum(one == "made" for one in self.life) + 1
        self.life.append("made")

    async def on_start(self) -> None:
        self.life.append("started")
        if self.broken:
            raise OSError("not now")
        self.ticking = self.spawn(self.tick())

    async def on_stop(self) -> None:
        self.life.append("stopped")

    async def tick(self) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            self.life.append("ticked")

    async def on_connect(self, app: App) -> None:
        self.life.append("hello")

    async def on_disconnect(self, app: App) -> None:
        self.life.append("bye")

    @method("which")
    def which(self, app: App) -> int:
        return self.number

    @method("fail")
    def fail(self, app: App) -> None:
        raise KeyError("secret")

    @method("refuse")
    def refuse(self, app: App) -> None:
        raise ApplicationError("on purpose")

    @method("hang", deadline=None)
    async def hang(self, app: App) -> None:
        await asyncio.get_running_loop().create_future()

    @method("break")
    def break_(self, app: App) -> None:
        self.spawn(self.collapse())

    async def collapse(self) -> None:
        raise RuntimeError("the background has failed")

    @event("note")
    def note(self, app: App) -> None:
        self.life.append("note")


class Steady(Plugin):
    id = "steady"

    def __init__(self) -> None:
        self.farewells = 0

    @method("ping")
    def ping(self, app: App) -> str:
        return "pong"

    def on_disconnect(self, app: App) -> None:
        self.farewells += 1


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Shaky.life = []
    Shaky.broken = False


def host(line: Line, plugin: str = "shaky") -> PluginHost:
    return line.endpoint.router.hosts[plugin]


@pytest.mark.row("A-56", "D-13")
async def test_a_plugin_that_fails_over_and_over_is_started_anew_and_no_other_notices() -> None:
    async with Line(Shaky, Steady) as line:
        await line.endpoint.start_plugins()
        one, other = await line.connect(), await line.connect(b"com.demo|dev2|adb|7")
        for client in (one, other):
            assert await client.json("shaky.which") == 1
            assert await client.json("steady.ping") == "pong"
        waiting = asyncio.ensure_future(one.ask("shaky.hang"))
        pinging = asyncio.ensure_future(ping_on(other))
        await until(lambda: one.session.plugins.seats["shaky"].running)
        for n in range(QUICK.failures):
            with pytest.raises(ApplicationError, match=r"^internal error in shaky.fail$"):
                await (one, other)[n % 2].ask("shaky.fail")
        with pytest.raises(Canceled, match=r'^The plugin "shaky" was stopped after failures'):
            await waiting
        await until(lambda: host(line).supervisor.restarts == 1 and host(line).available)
        for client in (one, other):
            assert await client.json("shaky.which") == 2
        pinging.cancel()
        assert Shaky.life.count("bye") == 2
        at = Shaky.life.index("stopped")
        assert Shaky.life[at - 1 : at + 3] == ["ticked", "stopped", "made", "started"]
        assert Shaky.life.count("hello") == 4
        steady = host(line, "steady")
        assert steady.supervisor.restarts == 0
        assert isinstance(steady.plugin, Steady)
        assert steady.plugin.farewells == 0
        assert not steady.calls.failed


async def ping_on(client: object) -> None:
    while True:
        assert await client.json("steady.ping") == "pong"  # type: ignore[attr-defined]


@pytest.mark.row("A-56")
async def test_while_it_is_down_callers_are_told_when_it_is_tried_again() -> None:
    class Slow(Shaky):
        restart = QUICK._replace(first=60.0)

    async with Line(Slow, Steady) as line:
        await line.endpoint.start_plugins()
        client = await line.connect()
        for _ in range(QUICK.failures):
            with pytest.raises(ApplicationError):
                await client.ask("shaky.fail")
        await until(lambda: host(line).supervisor.phase is Phase.DOWN and "stopped" in Slow.life)
        with pytest.raises(
            Rejected, match=r'^The plugin "shaky" is down after failures, and is tried again in \d+\.\d s\.$'
        ):
            await client.ask("shaky.which")
        with pytest.raises(Unavailable) as refused:
            client.session.seat(host(line))
        assert 50 < refused.value.retry_after <= 60
        assert await client.json("steady.ping") == "pong"
        described = host(line).supervisor.describe()
        assert (described["state"], described["restarts"]) == ("down", 0)
        assert str(described["last_error"]).startswith("shaky.fail: KeyError at ")
        assert "secret" not in str(described)


async def test_background_work_that_fails_restarts_its_plugin(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with Line(Shaky) as line:
        await line.endpoint.start_plugins()
        client = await line.connect()
        await client.ask("shaky.break")
        await until(lambda: host(line).supervisor.restarts and host(line).available)
        assert await client.json("shaky.which") == 2
    assert 'the plugin "shaky" is restarted in 0.0 s: its background work failed with RuntimeError' in caplog.text
    assert 'the plugin "shaky" runs again, after 1 restarts in all' in caplog.text


@pytest.mark.row("D-13")
async def test_many_requests_end_with_their_plugin_and_none_that_waited_is_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rsocket_broker.routing.gate.MAX_WAIT", 60.0)

    class Narrow(Shaky):
        concurrency = 4
        restart = QUICK._replace(first=60.0)

        @method("count", deadline=None)
        async def count(self, app: App) -> None:
            self.life.append("begun")
            await asyncio.get_running_loop().create_future()

    async with Line(Narrow) as line:
        await line.endpoint.start_plugins()
        client = await line.connect()
        assert await client.json("shaky.which") == 1
        asked = [asyncio.ensure_future(client.ask("shaky.count", timeout=60.0)) for _ in range(3 * TURN)]
        await until(lambda: host(line).gate.waiting == len(asked) - Narrow.concurrency)
        host(line).supervisor.fall("a test")
        ends = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(end, Canceled) and "was stopped after failures" in str(end) for end in ends)
        assert Narrow.life.count("begun") == Narrow.concurrency
        await until(lambda: "stopped" in Narrow.life)
        assert (host(line).gate.held, host(line).gate.waiting) == (0, 0)


async def test_many_sessions_lose_their_plugin_and_get_it_back() -> None:
    async with Line(Shaky) as line:
        await line.endpoint.start_plugins()
        clients = [await line.connect(f"com.demo|dev{n}|adb|{n}".encode()) for n in range(TURN + 3)]
        for client in clients:
            assert await client.json("shaky.which") == 1
        host(line).supervisor.fall("a test")
        await until(lambda: host(line).supervisor.restarts == 1 and host(line).available)
        await until(lambda: all("shaky" in client.session.plugins.seats for client in clients))
        assert {await client.json("shaky.which") for client in clients} == {2}
        assert Shaky.life.count("bye") == len(clients)


@pytest.mark.row("A-56")
async def test_an_apps_side_begins_anew_with_its_plugin() -> None:
    async with Line(Shaky) as line:
        await line.endpoint.start_plugins()
        app = await line.app(["shaky"])
        host(line).supervisor.fall("a test")
        await until(lambda: host(line).supervisor.restarts and host(line).available)
        await app.settled()
        told_ = [(one["method"], one["params"]) for one in app.side.messages if one["method"] in ("init", "deinit")]
        assert told_ == [(one, {"plugin": "shaky"}) for one in ("init", "deinit", "init")]
        app.event("shaky", "note")
        await until(lambda: Shaky.life[-1] == "note")


async def test_an_app_that_comes_meanwhile_gets_the_plugin_when_it_is_up() -> None:
    Shaky.broken = True
    async with Line(Shaky) as line:
        await line.endpoint.start_plugins()
        assert not host(line).available
        app = await line.app(["shaky"])
        assert "shaky" not in app.session.plugins.seats
        Shaky.broken = False
        await until(lambda: "shaky" in app.session.plugins.seats)
        await app.settled()
        assert {"method": "init", "params": {"plugin": "shaky"}} in app.side.messages
        assert Shaky.life.count("stopped") == 0


@pytest.mark.row("D-13")
async def test_refusals_on_purpose_and_one_hostile_client_restart_nothing() -> None:
    async with Line(Shaky) as line:
        await line.endpoint.start_plugins()
        hostile, other = await line.connect(), await line.connect(b"com.demo|dev2|adb|7")
        assert await other.json("shaky.which") == 1
        for _ in range(5 * QUICK.failures):
            with pytest.raises(ApplicationError):
                await hostile.ask("shaky.fail")
            with pytest.raises(ApplicationError, match="on purpose"):
                await other.ask("shaky.refuse")
        assert await other.json("shaky.which") == 1


async def test_a_plugin_given_as_an_instance_goes_on_as_that_one() -> None:
    async with Line(Shaky()) as line:
        await line.endpoint.start_plugins()
        client = await line.connect()
        await client.ask("shaky.break")
        await until(lambda: host(line).supervisor.restarts and host(line).available)
        assert await client.json("shaky.which") == 1
        assert Shaky.life.count("started") == 2


async def test_at_the_end_of_the_broker_everything_ends_and_on_stop_is_called() -> None:
    async with Line(Shaky) as line:
        await line.endpoint.start_plugins()
        await (await line.connect()).ask("shaky.which")
    assert Shaky.life[-3:] == ["bye", "ticked", "stopped"]


async def test_a_plugin_without_on_start_is_restarted_too() -> None:
    class Plain(Plugin):
        id = "plain"
        restart = QUICK

        @method("fail")
        def fail(self, app: App) -> None:
            raise KeyError

    async with Line(Plain) as line:
        first = host(line, "plain").plugin
        client = await line.connect()
        for _ in range(QUICK.failures):
            with pytest.raises(ApplicationError):
                await client.ask("plain.fail")
        await until(lambda: host(line, "plain").supervisor.restarts and host(line, "plain").available)
        assert host(line, "plain").plugin is not first


async def test_background_tasks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsocket_broker.routing.supervision.MAX_SPAWNED", 2)
    async with Line(Shaky) as line:
        await line.endpoint.start_plugins()
        plugin = host(line).plugin
        plugin.spawn(asyncio.sleep(3600))
        with pytest.raises(RuntimeError, match="has 2 background tasks already"):
            plugin.spawn(asyncio.sleep(3600))
    with pytest.raises(RuntimeError, match="does not run"):
        plugin.spawn(asyncio.sleep(3600))


def test_what_failed_is_told_without_what_it_said() -> None:
    try:
        raise ValueError("a password")
    except ValueError as error:
        text = told("x.y", error)
    assert text.startswith(f"x.y: ValueError at {__file__}:")
    assert "password" not in text
