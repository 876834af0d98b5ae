"""An app with Flipper's SDK of the WebSocket era, on a device behind a real adb server, and in an iOS simulator.

The SDK is `emulated_apps.websocket_sdk`, written from a description of the real one, with no code of the broker's.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from emulated_apps import LeakCanary, Platform
from emulated_apps.core import FlipperCore
from emulated_apps.shop import Shop, here, place
from emulated_apps.sonar_folder import PASSWORD, SonarFolder
from emulated_apps.websocket_sdk import WebSocketSdk
from rsocket_broker.broker import Broker
from rsocket_broker.errors import ApplicationError, Canceled
from rsocket_broker.identity import Proof
from tests.emulated_device import AdbServer, EmulatedDevice, Trouble
from tests.foreign.phone import PATIENCE, RETRY, Phone, Recorder, exchange_both_ways, running
from tests.foreign.programs import Lines

PORTS = (9089, 9088)
PACKAGE = "org.example.new"
FIRST_START = ["exchanging", "exchanged", "connected"]


def phone_on(device: EmulatedDevice) -> Phone:
    return Phone(device, WebSocketSdk, PORTS, PACKAGE)


def story(sdk: object) -> list[str]:
    assert isinstance(sdk, WebSocketSdk)
    return [one.what for one in sdk.happened if one.what != "missed"]


@pytest.mark.row("F-3", "F-13", "F-22")
async def test_it_enrols_and_both_sides_call(adb_server: AdbServer, tmp_path: Path, java: Lines) -> None:
    async with (
        running(tmp_path / "home", adb_server) as broker,
        adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device,
    ):
        phone = phone_on(device)
        leaks = LeakCanary()
        async with phone.sdk(ping=0.02, linger=0.2) as sdk:
            sdk.core.plugins[leaks.id] = leaks
            await sdk.connected()
            assert story(sdk) == FIRST_START
            await exchange_both_ways(phone, broker, sdk)
            session = phone.session(broker)
            principal = session.identity.principal
            assert principal.proof is Proof.ADB
            assert phone.folder.config() == {"deviceId": principal.device_id, "medium": 1}
            with pytest.raises(ApplicationError, match="Receiver explode not found"):
                await session.to_app.call("Recorder", "explode", {}, PATIENCE)
            with pytest.raises(Canceled):  # that receiver never answers, and nothing else suffers
                await session.to_app.call("LeakCanary", "clear", {}, 0.05)
            await exchange_both_ways(phone, broker, sdk)

            # The same folder in the hands of a Java program, whose trust manager asks for what Android's asks for.
            assert isinstance(sdk, WebSocketSdk)
            words = [broker.ports.ws_secure_port, phone.folder / "sonarCA.crt", phone.folder / "device.p12"]
            query = sdk.query(principal.device_id)
        told = await asyncio.to_thread(java.ask, "first", *words, PASSWORD.decode(), query)
        assert told == "accepted HTTP/1.1 101 Switching Protocols"


@pytest.mark.row("F-5")
async def test_a_failed_exchange_is_told_by_missing_files_and_tried_again(
    adb_server: AdbServer, tmp_path: Path
) -> None:
    """This exchange has no words for a refusal: one empty answer, after which the app looks and finds nothing."""
    async with (
        running(tmp_path / "home", adb_server),
        adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device,
    ):
        phone = phone_on(device)
        phone.sandbox.trouble(Trouble.NOT_DEBUGGABLE)
        async with phone.sdk(linger=0.1) as sdk:
            await sdk.until(lambda: sdk.count("unserved") >= 2)
            assert [one.why for one in sdk.happened if one.what == "unserved"][:2] == ["{}", "{}"]
            phone.sandbox.trouble(None)
            await sdk.connected()
            assert story(sdk)[-3:] == FIRST_START


@pytest.mark.row("F-3")
async def test_who_is_refused_a_session_goes_on_asking(adb_server: AdbServer, tmp_path: Path) -> None:
    """A refusal in other words than 401 would silence an Android app until it is started again."""
    async with (
        running(tmp_path / "home", adb_server),
        adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device,
    ):
        phone = phone_on(device)
        async with phone.sdk() as sdk:
            await sdk.connected()
        phone.profile = phone.profile._replace(os="")
        async with phone.sdk() as sdk:
            await sdk.until(lambda: sdk.count("missed") >= 3)
            assert {one.why for one in sdk.happened} == {"HTTP 401"}


def simulator(folder: Path, broker: Callable[[], Broker]) -> WebSocketSdk:
    """An app in an iOS simulator, whose files are on this machine."""
    shop = Shop(folder / "databases", Platform.IOS)
    ports = {
        "insecure_port": lambda: broker().ports.ws_insecure_port or 0,
        "secure_port": lambda: broker().ports.ws_secure_port or 0,
    }
    return WebSocketSdk(
        here(Platform.IOS),
        SonarFolder(place(Platform.IOS, folder)),
        FlipperCore([*shop.plugins, Recorder()]),
        host="127.0.0.1",
        retry=RETRY,
        connect_limit=PATIENCE,
        **ports,
    )


@pytest.mark.row("F-3", "F-5", "F-12")
async def test_an_app_in_a_simulator_knocks_first_and_is_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody remarks on the connections that say nothing."""
    async with running(tmp_path / "home") as first, simulator(tmp_path / "ios", lambda: first) as sdk:
        await sdk.connected()
        assert story(sdk) == FIRST_START
        session = first.sessions.find(sdk.profile.app_id)
        assert session.identity.principal.device_id in sdk.folder.destination
        assert await session.to_app.call("Shop", "buy", {"item": "tea"}, PATIENCE) == {"done": True}
    assert [one.message for one in caplog.records if one.levelname not in ("DEBUG", "INFO")] == []


@pytest.mark.row("F-6")
async def test_an_app_that_trusts_every_server_exchanges_once_it_is_broken_off(tmp_path: Path) -> None:
    """On iOS the client's certificate is what is refused, and only a handshake that is cut short counts."""
    async with running(tmp_path / "home") as first, simulator(tmp_path / "ios", lambda: first) as sdk:
        await sdk.connected()
    async with running(tmp_path / "other") as other, simulator(tmp_path / "ios", lambda: other) as sdk:
        await sdk.connected()
        assert story(sdk) == ["failed", "failed", *FIRST_START]
