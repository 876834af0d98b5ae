"""js-flipper 0.273.0 from npm, unchanged, in Node and in pages of a real browser, against the browser port."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker.broker import Broker
from rsocket_broker.errors import ApplicationError
from rsocket_broker.listening.listeners import NAMES
from rsocket_broker.plugin_api import App, Plugin, event
from rsocket_broker.routing.session import Session
from rsocket_broker.settings import ListenSettings, Settings
from tests.foreign.chromium import Site, browsing, serving
from tests.interop.libraries import node_modules
from tests.until import until

HERE = Path(__file__).parent / "js_flipper"
VALUES = (None, False, 0, "", [], {"deep": [1, None, {"€": "😀"}]}, 1.5, "x" * 100_000)
GUESTS = ("evil.test", "localhost.evil.test", "null", "listed.test")
LISTED = GUESTS[-1]


class Recorder(Plugin):
    """Remembers what apps push."""

    id = "Recorder"
    noted: list[dict[str, Any]]

    @event("noted")
    def note(self, app: App, params: dict[str, Any]) -> None:
        self.noted.append({"client": app.id, "proof": app.identity.proof.value, "params": params})


@pytest.fixture(scope="module")
def packages() -> Path:
    return node_modules(HERE)


class Brokers:
    """A broker that is started again on the same home and browser port."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._port = 0
        self.broker: Broker
        self.noted: list[dict[str, Any]] = []

    async def start(self) -> int:
        plugin = self._home.parent / "recorder.py"
        plugin.write_text(f"from {__name__} import Recorder as plugin\n")
        listen = ListenSettings(
            insecure_port=0, secure_port=0, http_port=0, browser_port=self._port, browser_origins=(LISTED,)
        )
        self.broker = Broker(Settings(home=self._home, listen=listen, adb="off", plugins=(str(plugin),)))
        Recorder.noted = self.noted = []
        await self.broker.start()
        self._port = self.broker.ports.browser_port or 0
        return self._port

    async def session(self, app: str) -> Session:
        """The live session of an app, once its plugin is there and has pushed its event."""

        def ready() -> Session | None:
            found = [one for one in self.broker.sessions if one.claims.app == app]
            return next((one for one in found if any(each["client"] == one.id for each in self.noted)), None)

        await until(ready)
        found = ready()
        assert found is not None
        return found


@pytest.fixture
async def brokers(tmp_path: Path) -> AsyncIterator[Brokers]:
    made = Brokers(tmp_path / "home")
    await made.start()
    yield made
    await made.broker.stop()


async def both_ways(brokers: Brokers, app: str, os_name: str, connections: int) -> Session:
    """All that an app and its plugin can say to each other."""
    session = await brokers.session(app)
    shown = session.describe()
    assert (shown["proof"], shown["session"], shown["os"], shown["sdk_version"], shown["medium"]) == (
        "unverified",
        "unverified",
        os_name,
        4,
        3,
    )
    assert session.background == ["Recorder"]
    noted = next(each for each in brokers.noted if each["client"] == session.id)
    assert noted["params"] == {"connections": connections, "value": None}
    for value in VALUES:
        assert await session.to_app.call("Recorder", "give", {"value": value}) == value
    assert await session.to_app.call("Recorder", "giveLater", {"value": False}) is False
    assert await session.to_app.call("Recorder", "giveNothing") is None
    for method, words in (("fail", "no such thing"), ("unknown", "Receiver unknown not found")):
        with pytest.raises(ApplicationError, match=words):
            await session.to_app.call("Recorder", method)
    assert await session.to_app.supports("Recorder", "give")
    assert not await session.to_app.supports("Recorder", "unknown")
    return session


async def grows(session: Session) -> None:
    """The app has another plugin from now on."""
    await session.to_app.call("Recorder", "addPlugin", {"id": "Later"})
    await until(lambda: session.announced == ["Recorder", "Later"])


@contextlib.asynccontextmanager
async def node(packages: Path, port: int, origin: str = "localhost:") -> AsyncIterator[list[dict[str, Any]]]:
    """node_app.js at work; what it tells."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(HERE / "node_app.js"),
        str(port),
        origin,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "NODE_PATH": str(packages)},
    )
    told: list[dict[str, Any]] = []

    async def read() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            told.append(json.loads(line))

    reader = asyncio.create_task(read())
    try:
        yield told
    finally:
        process.kill()
        await process.wait()
        await reader


@pytest.mark.row("F-25", "F-3", "F-5")
async def test_in_node_it_talks_both_ways_and_comes_back_after_a_restart(brokers: Brokers, packages: Path) -> None:
    port = brokers.broker.ports.browser_port or 0
    async with node(packages, port) as told:
        session = await both_ways(brokers, "Node probe", "Linux", 1)
        await grows(session)
        before = session.identity
        await brokers.broker.stop()
        assert await brokers.start() == port
        again = await both_ways(brokers, "Node probe", "Linux", 2)
        assert again.identity == before, "the same client, by its own account"
        assert [each["connections"] for each in told if each["happened"] == "init"] == [1, 2]


@pytest.mark.row("M-9")
async def test_in_node_without_an_origin_that_is_let_in_nothing_runs(brokers: Brokers, packages: Path) -> None:
    port = brokers.broker.ports.browser_port or 0
    async with node(packages, port, "http://localhost.evil.test:80") as foreign, node(packages, port, "") as none:
        for told in (foreign, none):
            await until(lambda told=told: len(told) >= 2)  # it tries again every second
            assert {each["text"] for each in told} == {"Unexpected server response: 401"}
    assert not len(brokers.broker.sessions)
    assert brokers.noted == []


@pytest.fixture
def site(packages: Path) -> Iterator[Site]:
    files = {f"/{path.name}": path for path in (*HERE.glob("*.html"), HERE / "loader.js", HERE / "probe.js")}
    library = packages / "js-flipper" / "lib"
    files |= {f"/js-flipper/{path.name}": path for path in library.glob("*.js")}
    with serving(files) as made:
        yield made


@pytest.mark.timeout(180)  # a browser with a dozen pages, on a machine that may be busy
@pytest.mark.row("M-9", "F-25", "F-3", "F-5")
async def test_in_a_browser_its_own_pages_talk_and_foreign_ones_get_nothing(
    brokers: Brokers, site: Site, tmp_path: Path
) -> None:
    port = brokers.broker.ports.browser_port or 0
    ports = [number for name in NAMES if (number := brokers.broker.listeners.number(name))]
    address = f"http://localhost:{site.port}/page.html?port={port}&guests={','.join(GUESTS)}"
    address += f"&ports={','.join(map(str, ports))}"
    async with browsing(tmp_path / "profile", address):
        session = await both_ways(brokers, "Page probe", "Browser", 1)
        assert "Chrome/" in session.claims.device
        await grows(session)
        for host in GUESTS:
            origin = "null" if host == "null" else f"http://{host}:{site.port}"
            for number in ports:
                at = {"origin": origin, "port": number}
                await site.heard(**at, happened="posted")
                await site.heard(**at, happened="unread")
                await site.heard(**at, happened="closed", scheme="wss", code=1006)
                if (host, number) == (LISTED, port):
                    await site.heard(**at, happened="opened")
                else:
                    await site.heard(**at, happened="closed", scheme="ws", code=1006)
                    assert not site.found(**at, happened="opened")
        assert {one.claims.app for one in brokers.broker.sessions} == {"Page probe", "Guest"}
        assert len(brokers.broker.sessions) == 2
        assert {each["client"] for each in brokers.noted} == {session.id}, "the listed guest has no such plugin"
        assert {each.principal for each in brokers.broker.certificates()} == {None}, "nobody has enrolled"

        await brokers.broker.stop()
        assert await brokers.start() == port
        again = await both_ways(brokers, "Page probe", "Browser", 2)
        assert again.identity == session.identity
