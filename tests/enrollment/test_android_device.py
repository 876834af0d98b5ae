"""An Android device behind a real adb server, as plugins see it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from rsocket_broker.enrollment.android_device import AndroidDevice, processes
from rsocket_broker.enrollment.mediums.adb_shell import AdbServer
from rsocket_broker.errors import ApplicationError, Invalid
from tests import emulated_device
from tests.emulated_device import EmulatedDevice

PACKAGE = "org.example.shop"


@pytest.fixture(params=[True, False], ids=["new", "old"])
async def phone(
    tmp_path: Path, adb_server: emulated_device.AdbServer, request: pytest.FixtureRequest
) -> AsyncIterator[EmulatedDevice]:
    """One of today, and one from before Android 7."""
    phone = EmulatedDevice(tmp_path / "phone", shell_v2=request.param)
    phone.sandbox.facts["old_ps"] = not request.param
    phone.sandbox.facts["am_fails"] = int(request.param)
    async with adb_server.attached(phone):
        phone.sandbox.install(PACKAGE, 0, 10123)
        yield phone


@pytest.fixture
def device(phone: EmulatedDevice, adb_server: emulated_device.AdbServer) -> AndroidDevice:
    return AndroidDevice(AdbServer(adb_server.address), phone.serial)


@pytest.mark.row("A-03")
async def test_a_link_arrives_whole_whatever_stands_in_it(device: AndroidDevice, phone: EmulatedDevice) -> None:
    links = [
        "shop://cart?id=3&x='%20\"#top",
        "shop://$(touch${IFS}pwned)/`touch${IFS}pwned`;touch${IFS}pwned",
        "shop://*?[a]~!!\\",
        "shop://ünï…",
    ]
    for link in links:
        await device.open_link(link, PACKAGE)
    assert phone.opened == [(PACKAGE, link) for link in links]
    assert not list(phone.sandbox.root.rglob("pwned"))


async def test_an_app_that_is_not_there_is_told_of(device: AndroidDevice, phone: EmulatedDevice) -> None:
    with pytest.raises(ApplicationError, match="did not open the link: Error: Activity not started"):
        await device.open_link("shop://cart", "org.example.absent")
    for app_id in ("-n", "a b", "com.x/.Y", "$(id)"):
        with pytest.raises(Invalid, match="not a name"):
            await device.open_link("shop://cart", app_id)
    with pytest.raises(Invalid, match="scheme"):
        await device.open_link("--user 10", PACKAGE)
    assert phone.opened == []


async def test_the_log_is_followed_from_now_on_or_from_a_time(device: AndroidDevice, phone: EmulatedDevice) -> None:
    now = int(time.time())
    phone.write_log("Old", "long ago", at=now - 100)
    phone.write_log("Old", "a while ago", at=now - 50)
    async with aclosing(device.log(now - 60)) as lines:
        first = await anext(lines)
        assert (first.tag, first.message, first.time) == ("Old", "a while ago", now - 50)
    async with aclosing(device.log(0)) as lines:
        assert (await anext(lines)).message == "long ago"
    async with aclosing(device.log()) as lines:
        following = asyncio.ensure_future(anext(lines))
        while sum("logcat" in line for line in phone.commands) < 3:
            await asyncio.sleep(0.01)
        phone.write_log("New", "now", level="E", pid=7, tid=8, at=now + 10)
        entry = await asyncio.wait_for(following, 10)
        assert entry == (now + 10.0, 7, 8, "error", "New", "now")
    await asyncio.wait_for(phone.sandbox.idle(), 10)


async def test_the_processes_of_an_app(device: AndroidDevice, phone: EmulatedDevice) -> None:
    for pid, name in {11: PACKAGE, 12: f"{PACKAGE}:sync", 13: "org.example.shopping", 14: "zygote"}.items():
        phone.run_process(name, pid)
    assert await device.pids(PACKAGE) == {11, 12}
    assert await device.pids("org.example.absent") == frozenset()


async def test_the_screen_is_a_picture_or_an_error(device: AndroidDevice, phone: EmulatedDevice) -> None:
    picture = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 10
    phone.sandbox.facts["picture"] = picture
    phone.sandbox.save()
    assert await device.screenshot() == picture
    phone.sandbox.facts["picture"] = b"Error: no display"
    phone.sandbox.save()
    with pytest.raises(ApplicationError, match="gave no picture: Error: no display"):
        await device.screenshot()


async def test_a_device_that_left_is_told_of(device: AndroidDevice, phone: EmulatedDevice) -> None:
    gone = AndroidDevice(device._server, "gone:1")
    for asking in (gone.open_link("a:b", PACKAGE), gone.pids(PACKAGE), gone.screenshot(), anext(gone.log())):
        with pytest.raises(ApplicationError, match=r"gone:1: .*Check that it is attached"):
            await asking
    assert gone.serial == "gone:1"


@pytest.mark.row("M-7")
@pytest.mark.parametrize("table", ["", "NAME\nx", "PID NAME\nx y\n7\n", "bad pid '-A'"])
def test_a_table_that_makes_no_sense_has_no_processes(table: str) -> None:
    assert processes(table, "x") == frozenset()
