"""The emulated shop: what its user does, and what the broker's own plugins make of it over both SDKs."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from emulated_apps import Platform, ReceiverError
from emulated_apps.sdk import Profile
from emulated_apps.shop import APP_ID, DATABASE, PORTS, Remote, Shop, running
from emulated_apps.sonar_folder import SonarFolder
from rsocket_broker.broker import Broker
from tests.emulated_apps.heard import listen
from tests.emulated_device import AdbServer, AppSandbox, EmulatedDevice
from tests.foreign.phone import PATIENCE, RETRY
from tests.foreign.phone import running as broker_running
from tests.until import until


def cart(folder: Path) -> list[Any]:
    database = sqlite3.connect(folder / DATABASE)
    try:
        return list(database.execute("SELECT item, price FROM cart"))
    finally:
        database.close()


def test_what_a_user_does(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    network, navigation = listen(shop.network), listen(shop.navigation)
    shop.start()
    remote = Remote(shop)
    assert remote.call("logIn", {"user": "ada"}) == {"done": True}
    assert remote.call("buy", {"item": "tea"}) == {"done": True}
    assert remote.call("buy", {"item": "moon"}) == {"done": False}
    shop.server.down = True
    assert remote.call("buy", {"item": "tea"}) == {"done": False}
    assert [params["status"] for name, params in network if name == "newResponse"] == [200, 200, 201, 404, 503]
    uris = [params["uri"] for name, params in navigation if name == "nav_event"]
    assert uris == ["shop://welcome", "shop://items", "shop://cart?last=tea"]
    assert cart(tmp_path) == [("tea", 4.5)]
    assert shop.preferences.files[shop.settings]["user"] == "ada"
    assert shop.title.text == "Cart"
    with pytest.raises(ReceiverError, match="item is missing"):
        remote.call("buy", {})


def test_the_shop_tells_of_its_crashes_and_leaks(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    crashes, leaks = listen(shop.crashes), listen(shop.leaks)
    remote = Remote(shop)
    assert remote.call("crash", {"reason": "boom"}) == remote.call("leak", {"activity": "CartActivity"}) == {}
    assert crashes[0][1]["reason"] == "boom"
    assert leaks[-1][1]["leaks"][0]["title"] == "CartActivity"
    assert {plugin.id for plugin in Shop(tmp_path, Platform.IOS).plugins}.isdisjoint({"CrashReporter", "LeakCanary"})


@contextlib.asynccontextmanager
async def place_of(platform: Platform, adb: AdbServer, folder: Path) -> AsyncIterator[dict[str, Any]]:
    """Where the app lives, as options of `running`: on an Android device, or in a simulator on this machine."""
    if platform is Platform.IOS:
        yield {}
        return
    async with adb.attached(EmulatedDevice(folder / "phone")) as device:
        sandbox = AppSandbox(device, APP_ID)
        home = SonarFolder(sandbox.folder, sandbox.destination)
        yield {"folder": home, "profile": Profile(APP_ID, "Shop"), "device": device}


@pytest.mark.row("F-3", "F-12", "F-13")
@pytest.mark.parametrize(
    ("era", "platform"),
    [("rsocket", Platform.ANDROID), ("websocket", Platform.ANDROID), ("websocket", Platform.IOS)],
    ids=["rsocket Android", "websocket Android", "websocket iOS"],
)
async def test_the_bundled_plugins_understand_it(
    adb_server: AdbServer, tmp_path: Path, era: str, platform: Platform
) -> None:
    shop = Shop(tmp_path / "databases", platform)
    adb = adb_server if platform is Platform.ANDROID else None
    async with (
        broker_running(tmp_path / "home", adb) as broker,
        place_of(platform, adb_server, tmp_path) as options,
    ):
        device = options.pop("device", None)
        insecure, secure = (
            (lambda: device.reverse.port(PORTS[era][0]), lambda: device.reverse.port(PORTS[era][1]))
            if device is not None
            else (broker.ports.ws_insecure_port, broker.ports.ws_secure_port)
        )
        options |= {"connect_limit": PATIENCE} if era == "websocket" else {}
        options |= {"insecure_port": insecure, "secure_port": secure, "host": "127.0.0.1", "retry": RETRY}
        async with running(shop, tmp_path, era=era, **options) as sdk:
            await sdk.connected()
            shop.buy("cup")
            await until(lambda: [*broker.sessions])  # an app of the RSocket era is connected once it has said so
            session = broker.sessions.find(APP_ID)
            assert session.claims.os == platform.value
            await the_plugins_agree(shop, broker, session.id)


async def the_plugins_agree(shop: Shop, broker: Broker, client: str) -> None:
    network: Any = broker.plugin("Network")
    app = await broker.app(client, "Network")
    waited = await network.wait(app, method="POST", url="/cart")
    assert waited["response"]["status"] == 201
    if shop.platform is Platform.ANDROID:
        await network.mock(app, "/login", method="POST", status=503)
        assert not shop.log_in("ada")

    databases: Any = broker.plugin("Databases")
    found = await databases.query(await broker.app(client, "Databases"), "SELECT item, price FROM cart")
    assert found["rows"] == [["cup", 12.0]]

    preferences: Any = broker.plugin("Preferences")
    changed = await preferences.set(await broker.app(client, "Preferences"), "currency", "CHF")
    assert changed["before"] == "EUR"
    assert shop.preferences.files[shop.settings]["currency"] == "CHF"
