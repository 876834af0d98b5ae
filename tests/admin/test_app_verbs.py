"""The operator asks a plugin of the broker about one client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from rsocket_broker import client
from rsocket_broker.admin.client import admin_line
from rsocket_broker.broker import Broker
from rsocket_broker.errors import ApplicationError, ConfigurationError, Invalid
from rsocket_broker.plugins.network import Network

ABOUT = {"client": "com.example.app", "plugin": "Network"}
REQUEST = {"id": "1", "timestamp": 1, "method": "GET", "url": "https://example.org/", "headers": []}


class NetworkSide(client.AppPlugin):
    """The app's side of `Network`: tells of one request as soon as it may."""

    id = "Network"
    background = True

    async def on_init(self) -> None:
        self.emit("newRequest", REQUEST)


@pytest.fixture
async def session(broker: Broker, tmp_path: Path) -> AsyncIterator[client.Session]:
    async with client.connect(
        app_id="com.example.app",
        app="Example",
        directory=tmp_path / "app",
        insecure_port=broker.ports.insecure_port or 0,
        secure_port=broker.ports.secure_port or 0,
        plugins=[NetworkSide()],
        timeout=10,
    ) as made:
        yield made


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


async def test_a_method_of_a_plugin_is_called_with_the_clients_app(
    broker: Broker, session: client.Session, home: Path
) -> None:
    async with admin_line(home) as line, asyncio.timeout(10):
        found: list[dict[str, object]] = []
        while not found:
            found = (await line.call("app.call", {**ABOUT, "method": "list"}))["exchanges"]
        assert found[0]["url"] == "https://example.org/"


@pytest.mark.parametrize(
    ("about", "error", "text"),
    [
        ({"plugin": "Missing"}, Invalid, 'no plugin "Missing"'),
        ({"plugin": "echo"}, ApplicationError, "has no plugin echo"),
        ({"method": "nothing"}, Invalid, 'has no "nothing"'),
        ({"method": "newRequest"}, Invalid, "no method"),
        ({"client": "com.nobody"}, ApplicationError, 'No client "com.nobody"'),
        ({"params": {"limit": "many"}}, Invalid, "limit: wanted int"),
    ],
)
async def test_what_cannot_be_asked_is_named(
    broker: Broker, session: client.Session, home: Path, about: dict[str, object], error: type[Exception], text: str
) -> None:
    async with admin_line(home) as line:
        with pytest.raises(error, match=text):
            await line.call("app.call", {**ABOUT, "method": "list", **about})


async def test_a_stream_is_followed_until_whoever_follows_has_enough(
    broker: Broker, session: client.Session, home: Path
) -> None:
    async with admin_line(home) as line, asyncio.timeout(10):
        about = {**ABOUT, "method": "follow", "params": {"known": True}}
        async with aclosing(line.stream("app.follow", about)) as items:
            assert (await anext(items))["exchange"]["url"] == "https://example.org/"
        with pytest.raises(Invalid, match="use request-response"):
            async with aclosing(line.stream("app.follow", {**ABOUT, "method": "list"})) as items:
                await anext(items)


async def test_python_gets_plugins_and_apps_from_the_broker(broker: Broker, session: client.Session) -> None:
    network = broker.plugin("Network")
    app = await broker.app("com.example.app", "Network")
    assert app.identity.app_id == "com.example.app"
    assert isinstance(network, Network)
    assert (await network.exchanges(app))["dropped"] == 0
    with pytest.raises(ConfigurationError, match="Did you mean"):
        broker.plugin("Netwrok")
