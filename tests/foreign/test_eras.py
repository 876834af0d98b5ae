"""What apps with Flipper's SDKs of both eras come through, on a device behind a real adb server.

The SDKs are emulated (`emulated_apps`), written from a description of the real ones, with no code of the broker's.
"""

import asyncio
import json
import time
from pathlib import Path

import pytest

from emulated_apps.rsocket_sdk import RSocketSdk
from emulated_apps.sdk import FAILURES, Sdk
from emulated_apps.websocket_sdk import WebSocketSdk
from rsocket_broker.broker import Broker
from tests.emulated_device import AdbServer, EmulatedDevice, Trouble
from tests.foreign.phone import PATIENCE, Phone, command, exchange_both_ways, rotate, running
from tests.until import until

PACKAGE = "org.example.phone"
FIRST_START = ["exchanging", "exchanged", "connected"]

ERAS: dict[str, tuple[type[Sdk], tuple[int, int]]] = {
    "rsocket": (RSocketSdk, (8089, 8088)),
    "websocket": (WebSocketSdk, (9089, 9088)),
}


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def phone_on(device: EmulatedDevice, era: str) -> Phone:
    return Phone(device, *ERAS[era], PACKAGE)


def forwarded(phone: Phone, broker: Broker) -> bool:
    """The device's ports lead to this broker."""
    ports = broker.ports
    wanted = {
        8089: ports.insecure_port,
        8088: ports.secure_port,
        9089: ports.ws_insecure_port,
        9088: ports.ws_secure_port,
    }
    remotes = {local: item.remote for local, item in phone.device.reverse.forwards.items()}
    return all(remotes.get(f"tcp:{port}") == f"tcp:{wanted[port]}" for port in phone.ports)


def story(sdk: Sdk) -> list[str]:
    """What happened, without tries that found nobody."""
    return [one.what for one in sdk.happened if one.what != "missed"]


@pytest.mark.row("F-5", "F-13", "F-22", "A-26")
async def test_an_app_is_there_one_step_after_the_broker_and_comes_back_to_the_next(
    adb_server: AdbServer, tmp_path: Path, era: str
) -> None:
    async with adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device:
        phone = phone_on(device, era)
        async with phone.sdk() as sdk:
            await sdk.until(lambda: sdk.count("missed") >= 5)
            async with running(tmp_path / "home", adb_server) as first:
                await until(lambda: forwarded(phone, first))
                missed = sdk.count("missed")
                await sdk.connected()
                assert sdk.count("missed") <= missed + 1
                assert story(sdk) == FIRST_START
                await exchange_both_ways(phone, first, sdk)
            await sdk.until(lambda: sdk.count("lost") == 1)
            assert not phone.recorder.active
            async with running(tmp_path / "home", adb_server) as second:
                await sdk.connected(times=2)
                await exchange_both_ways(phone, second, sdk)
                assert sdk.count("connected") == 2
                assert sdk.count("violation") == 0


@pytest.mark.row("F-13")
async def test_the_adb_server_and_the_device_go_and_come_back(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, era: str
) -> None:
    async with (
        AdbServer(tmp_path / "adb") as adb,
        running(tmp_path / "home", adb) as broker,
        EmulatedDevice(tmp_path / "phone") as device,
    ):
        phone = phone_on(device, era)
        async with phone.sdk() as sdk:
            await adb.connect(device)
            await sdk.connected()
            adb.stop()
            await sdk.until(lambda: sdk.count("lost") == 1)
            await adb.start()
            await adb.connect(device)
            await sdk.connected(times=2)
            await exchange_both_ways(phone, broker, sdk)

            await device.vanish()
            await sdk.until(lambda: sdk.count("lost") == 2)
            await adb.bring_back(device)
            await sdk.connected(times=3)
            await exchange_both_ways(phone, broker, sdk)


@pytest.mark.row("F-6")
async def test_a_server_of_another_authority_is_refused_and_then_asked_anew(
    adb_server: AdbServer, tmp_path: Path, era: str
) -> None:
    """Another broker answers on the device's ports. Nothing is told to it before it has proved itself over adb."""
    async with adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device:
        phone = phone_on(device, era)
        async with phone.sdk() as sdk, running(tmp_path / "home", adb_server):
            await sdk.connected()
        old = phone.folder.request
        async with running(tmp_path / "other", adb_server) as other:
            await until(lambda: forwarded(phone, other))
            async with phone.sdk() as sdk:
                await sdk.connected()
                assert story(sdk) == ["failed", "failed", *FIRST_START]
                assert phone.folder.request != old
                await exchange_both_ways(phone, other, sdk)


@pytest.mark.row("A-14", "A-16")
async def test_nobody_who_is_awake_is_refused_in_a_rotation(adb_server: AdbServer, tmp_path: Path, era: str) -> None:
    """The app stays connected through each step, and is started again after it with what lies in its folder then."""
    home = tmp_path / "home"
    async with (
        adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device,
        running(home, adb_server) as broker,
    ):
        phone = phone_on(device, era)
        told, anchors = [], []
        for step in ("prepare", "switch", "finish", None):
            async with phone.sdk() as sdk:
                await sdk.connected()
                anchors.append(phone.folder.anchor())
                if step is not None:
                    await rotate(home, step)
                await exchange_both_ways(phone, broker, sdk)
                told.append(story(sdk))
        assert told == [FIRST_START, ["connected"], ["connected"], ["connected"]]
        assert anchors[0] != anchors[-1]


WAKING = {"rsocket": ["connected"], "websocket": ["failed", "failed", *FIRST_START]}
"""What happens when an app wakes up after the switch that nobody could reach meanwhile: 8088 still proves itself to
who trusts the old authority alone, 9088 cannot."""


@pytest.mark.row("A-14", "A-16", "A-09")
async def test_who_has_slept_through_the_switch_is_served_all_the_same(
    adb_server: AdbServer, tmp_path: Path, era: str
) -> None:
    home = tmp_path / "home"
    async with (
        adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device,
        running(home, adb_server) as broker,
    ):
        phone = phone_on(device, era)
        async with phone.sdk() as sdk:
            await sdk.connected()
        await device.vanish()
        fell_asleep = int(time.time())
        await rotate(home, "prepare")
        await rotate(home, "switch")
        code, said = await command(home, "ca", "rotate", "finish")
        assert code == 1, said
        assert PACKAGE in said

        await until(lambda: time.time() >= fell_asleep + 1)  # the broker keeps whole seconds of when it saw whom
        phone.sandbox.trouble(Trouble.NOT_PERMITTED)  # it wakes up before anybody can bring it something
        await adb_server.bring_back(device)
        async with phone.sdk() as sdk:
            await sdk.until(lambda: sdk.count("failed") == FAILURES or sdk.count("connected"))
            phone.sandbox.trouble(None)
            await sdk.connected()
            assert story(sdk) == WAKING[era]
            await exchange_both_ways(phone, broker, sdk)
        await device.vanish()
        await adb_server.bring_back(device)  # what could not be brought to it is brought now
        async with phone.sdk() as sdk:
            await sdk.connected()
            await until_everybody_holds_the_new(home)
            await rotate(home, "finish")
            await exchange_both_ways(phone, broker, sdk)
            assert story(sdk) == ["connected"]


@pytest.mark.row("A-19", "A-09")
async def test_who_is_revoked_gets_nothing_until_it_is_let_in_again(
    adb_server: AdbServer, tmp_path: Path, era: str
) -> None:
    home = tmp_path / "home"
    async with (
        adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device,
        running(home, adb_server) as broker,
    ):
        phone = phone_on(device, era)
        async with phone.sdk(retry=0.2) as sdk:
            await sdk.connected()
            await exchange_both_ways(phone, broker, sdk)
            assert (await command(home, "ca", "revoke", "--client", PACKAGE))[0] == 0
            await sdk.until(lambda: sdk.count("unserved") == 2)
            ended = ["refused", "lost"] if era == "rsocket" else ["lost"]  # the one with words, the other with a code
            assert story(sdk) == [*FIRST_START, *ended, "failed", "failed", *2 * ["exchanging", "unserved"]]
            assert not phone.folder.complete()
            assert ("was revoked" if era == "rsocket" else "{}") in sdk.happened[-1].why
            assert (await command(home, "ca", "unblock", "--client", PACKAGE))[0] == 0
            await sdk.connected(times=2)
            await exchange_both_ways(phone, broker, sdk)


async def until_everybody_holds_the_new(home: Path) -> None:
    """The broker brings its pair to who has come back, in its own time."""
    left = None
    try:
        async with asyncio.timeout(PATIENCE):
            while left := json.loads((await command(home, "ca", "rotate", "status", "--json"))[1])["left"]:
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"still without the new: {left}") from None
