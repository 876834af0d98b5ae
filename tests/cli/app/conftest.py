"""A broker in a process of its own, and an emulated app of either system that stays connected to it, in ours."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

import emulated_apps
from emulated_apps import Databases, Network, Platform, Preferences, Reply
from rsocket_broker import client
from tests.cli.app.android import Android, android
from tests.cli.beside import connected_app
from tests.cli.conftest import Said, say
from tests.emulated_device import ADB_MISSING, AdbServer, adb_program
from tests.end_to_end.processes import BrokerProcess, start_broker

PREFERENCES = {"settings": {"dark": False, "count": 5, "name": "n"}, "other": {"dark": True, "only": 1}}


def app_side(plugin: emulated_apps.AppPlugin) -> client.AppPlugin:
    """An emulated plugin as one of our SDK."""

    async def on_init(self: client.AppPlugin) -> None:
        plugin.attach(self.emit)

    async def on_deinit(self: client.AppPlugin) -> None:
        plugin.attach(None)

    def receiver(name: str) -> Callable[..., object]:
        @client.method(name)
        def call(self: client.AppPlugin, params: Any) -> object:
            try:
                return plugin.call(name, params)
            except emulated_apps.ReceiverError as error:
                raise client.ApplicationError(str(error)) from error

        return call

    body: dict[str, Any] = {name: receiver(name) for name in plugin.receivers()}
    body |= {"id": plugin.id, "background": plugin.background, "on_init": on_init, "on_deinit": on_deinit}
    made: client.AppPlugin = type(plugin.id, (client.AppPlugin,), body)()
    return made


@attrs.define
class Phone:
    """A connected app. What it does is done on its own loop, by `do`."""

    broker: BrokerProcess
    network: Network
    databases: Databases
    preferences: Preferences
    loop: asyncio.AbstractEventLoop

    def do(self, work: Callable[[], object]) -> None:
        async def here() -> None:
            work()

        asyncio.run_coroutine_threadsafe(here(), self.loop).result(10)

    def say(self, *arguments: str) -> Said:
        """`rsocket-broker app ARGUMENTS`."""
        return say(self.broker, "app", *arguments)

    def exchange(self, method: str, url: str, status: int = 200, answer: bytes = b"{}", **more: Any) -> None:
        """The app asks its server, and the broker has heard of it when this returns."""
        reply = Reply(status, answer, {"Content-Type": "application/json"})
        self.do(lambda: self.network.exchange(method, url, reply, **more))


@pytest.fixture(scope="package")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    running = start_broker(tmp_path_factory.mktemp("app") / "home")
    yield running
    running.stop()


@pytest.fixture(scope="package")
def phone(broker: BrokerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    folder = tmp_path_factory.mktemp("phone")
    network = Network(Platform.ANDROID)
    databases = Databases(folder / "databases")
    with databases.open("app.db") as database:
        database.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, photo BLOB)")
        database.execute("INSERT INTO users (name, photo) VALUES ('Ann\x1b[2J', x'00ff'), (NULL, NULL), ('', NULL)")
    preferences = Preferences(PREFERENCES)
    plugins = [app_side(network), app_side(databases), app_side(preferences)]
    with connected_app(broker, folder / "app", app_id="com.example.shop", app="Shop", device=None, plugins=plugins) as (
        _,
        loop,
    ):
        made = Phone(broker, network, databases, preferences, loop)
        while not (network.active and databases.active and preferences.active):
            time.sleep(0.005)
        yield made


@pytest.fixture(scope="package")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Android]:
    """An Android app on a device that can be reached, and its broker.

    With an adb server of its own: this broker lives to the end of the run, and would take the forwards of every device
    that later tests bring to the server of all.
    """
    if adb_program() is None:
        pytest.skip(ADB_MISSING)
    server = AdbServer(tmp_path_factory.mktemp("adb"))
    asyncio.run(server.start())
    try:
        with android(server, tmp_path_factory.mktemp("shop")) as running:
            yield running
    finally:
        server.stop()
