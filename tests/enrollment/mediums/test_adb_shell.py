"""Commands on a device through a real adb server: arguments arrive whole, and nothing waits for ever."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.enrollment.mediums.adb_shell import (
    AdbAbsent,
    AdbLineLost,
    AdbProblem,
    AdbRefused,
    AdbServer,
    AdbTimedOut,
    Attached,
    server_address,
    shell_line,
)
from rsocket_broker.errors import ConfigurationError
from tests import emulated_device
from tests.emulated_device import EmulatedDevice, Fault
from tests.emulated_device.server import free_port

EVIL = [
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "' ; touch pwned ; '",
    '" ; touch pwned ; "',
    "\n touch pwned \n",
    "& touch pwned &",
    "| touch pwned",
    "> pwned",
    "\\'; touch pwned; \\'",
    "a b\tc  ",
    "",
    "-n",
    "*",
    "~",
    "!!",
    "ünïcode…",
]


@pytest.fixture(params=[True, False], ids=["v2", "plain"])
async def device(
    tmp_path: Path, adb_server: emulated_device.AdbServer, request: pytest.FixtureRequest
) -> AsyncIterator[EmulatedDevice]:
    """A device with exit codes and closable input, and one without."""
    async with adb_server.attached(EmulatedDevice(tmp_path / "phone", shell_v2=request.param)) as device:
        yield device


@pytest.fixture
def server(adb_server: emulated_device.AdbServer) -> AdbServer:
    return AdbServer(adb_server.address)


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20), max_size=5))
def test_any_shell_reads_back_the_arguments_that_a_line_was_made_of(arguments: list[str]) -> None:
    line = shell_line(["printf", "%s\\0", *arguments])
    printed = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True).stdout
    assert printed.decode().split("\0")[:-1] == (arguments or [""])


def test_a_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        shell_line(["cat", "a\0b"])


@pytest.mark.row("A-03")
async def test_hostile_arguments_arrive_as_they_are(server: AdbServer, device: EmulatedDevice) -> None:
    output = await server.run(device.serial, ["printf", "%s\\n--\\n", *EVIL])
    assert output.output.decode() == "".join(f"{argument}\n--\n" for argument in EVIL)
    assert not list(device.sandbox.root.rglob("pwned"))


async def test_input_is_closed_behind_its_last_byte_and_is_never_read_by_a_shell(
    server: AdbServer, device: EmulatedDevice
) -> None:
    content = b"'; touch pwned; '\r\n$(touch pwned)\x00\x04\x1a\xff" * 1000
    output = await server.run(device.serial, ["cat"], content)
    assert (output.code, output.output) == (0, content)
    assert (await server.run(device.serial, ["cat"])).output == b"", "no input is an empty one"
    assert not list(device.sandbox.root.rglob("pwned"))


async def test_exit_codes_come_back(server: AdbServer, device: EmulatedDevice) -> None:
    for code in (0, 1, 42, 127):
        assert (await server.run(device.serial, ["sh", "-c", f"echo said; exit {code}"])).code == code
    failed = await server.run(device.serial, ["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert sorted(failed.text.split()) == ["err", "out"]
    assert (failed.errors == b"err\n") is device.shell_v2


async def test_a_device_that_sends_without_end_is_cut_off(server: AdbServer, device: EmulatedDevice) -> None:
    with pytest.raises(AdbRefused, match="more than"):
        await server.run(device.serial, ["cat", "/dev/zero"])
    await asyncio.wait_for(device.sandbox.idle(), 10)


async def test_a_command_that_does_not_end_is_given_up_and_its_thread_ends(
    server: AdbServer, device: EmulatedDevice
) -> None:
    with pytest.raises(AdbTimedOut, match=r"0\.3 seconds"):
        await server.run(device.serial, ["sleep", "60"], limit=0.3)
    device.hung = True
    with pytest.raises(AdbTimedOut):
        await server.run(device.serial, ["true"], limit=0.3)
    device.hung = False
    asked = asyncio.ensure_future(server.run(device.serial, ["sleep", "60"]))
    while not any("sleep 60" in line for line in device.commands[1:]):
        await asyncio.sleep(0.01)
    asked.cancel()
    await asyncio.wait([asked])
    async with asyncio.timeout(5):
        while any(thread.name == "adb" for thread in threading.enumerate()):
            await asyncio.sleep(0.01)
        await device.sandbox.idle()


async def test_a_line_that_drops_in_a_command_is_an_error_of_its_own(server: AdbServer, device: EmulatedDevice) -> None:
    if device.shell_v2:
        device.faults = lambda _index, _line: Fault.VANISH_AFTER
        with pytest.raises(AdbLineLost):
            await server.run(device.serial, ["true"])


async def test_devices_are_listed_in_whatever_state(
    server: AdbServer, device: EmulatedDevice, adb_server: emulated_device.AdbServer, tmp_path: Path
) -> None:
    async with EmulatedDevice(tmp_path / "locked", authorized=False) as locked:
        await adb_server.attach(locked)
        await adb_server.wait_state(locked, "unauthorized")
        known = [Attached(device.serial, "device"), Attached(locked.serial, "unauthorized")]
        assert await server.devices() == sorted(known, key=lambda item: item.serial)
        with pytest.raises(AdbRefused, match="unauthorized"):
            await server.run(locked.serial, ["true"])
        await adb_server.disconnect(locked)
    await server.probe()
    assert await server.version() >= 39
    with pytest.raises(AdbRefused, match="not found"):
        await server.run("no-such-device", ["true"])


async def test_changes_of_the_devices_are_followed(
    server: AdbServer, adb_server: emulated_device.AdbServer, tmp_path: Path
) -> None:
    seen: asyncio.Queue[list[Attached]] = asyncio.Queue()
    following = asyncio.ensure_future(server.track(seen.put_nowait))
    assert await seen.get() == []
    async with adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device:
        while Attached(device.serial, "device") not in await seen.get():
            pass
    while await seen.get():
        pass
    following.cancel()
    await asyncio.wait([following])


@pytest.mark.row("A-55")
async def test_an_absent_server_is_told_with_the_next_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nobody = AdbServer(("127.0.0.1", free_port()))
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "adb").touch(mode=0o755)
    for ask in (
        nobody.probe,
        nobody.devices,
        nobody.version,
        lambda: nobody.run("x", ["true"]),
        lambda: nobody.track(print),
    ):
        with pytest.raises(AdbAbsent, match=r"No adb server answers at 127\.0\.0\.1:\d+: run `adb start-server`"):
            await ask()
    (tmp_path / "adb").unlink()
    with pytest.raises(AdbAbsent, match="adb is not installed: install Android's platform-tools"):
        await nobody.devices()


async def test_what_is_no_adb_server_is_a_problem_and_no_crash() -> None:
    answers = iter([b"HTTP/1.1 400 Bad Request\r\n\r\n", b"OKAYzzzz", b"OKAY00ff", b"FAIL0003noo", b""])
    current = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(current)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as stranger:
        server = AdbServer(stranger.sockets[0].getsockname()[:2])
        for answer in answers:
            current = answer
            if answer == b"OKAY00ff":
                assert await server.devices() == [], "a list that was cut short lists nobody"
                continue
            with pytest.raises(AdbProblem):
                await server.devices()


def test_the_setting_and_the_environment_say_where_the_server_is() -> None:
    assert server_address("off") is None
    assert server_address("auto", {}) == ("127.0.0.1", 5037)
    assert server_address("auto", {"ANDROID_ADB_SERVER_PORT": "5038"}) == ("127.0.0.1", 5038)
    assert server_address("auto", {"ANDROID_ADB_SERVER_ADDRESS": "10.0.0.2"}) == ("10.0.0.2", 5037)
    assert server_address("auto", {"ADB_SERVER_SOCKET": "tcp:5039"}) == ("127.0.0.1", 5039)
    assert server_address("auto", {"ADB_SERVER_SOCKET": "tcp:10.0.0.2:5039"}) == ("10.0.0.2", 5039)
    assert server_address("[::1]:5037") == ("::1", 5037)
    assert server_address("box.example:1") == ("box.example", 1)
    for wrong in ["", "on", "5037", ":5037", "host:", "host:0", "host:65536", "host:x", "host:²"]:
        with pytest.raises(ConfigurationError, match="HOST:PORT"):
            server_address(wrong)
    with pytest.raises(ConfigurationError, match="ADB_SERVER_SOCKET"):
        server_address("auto", {"ADB_SERVER_SOCKET": "local:adb"})


def test_adbutils_is_loaded_only_when_it_is_used() -> None:
    program = "import sys; import rsocket_broker.enrollment.mediums.adb, rsocket_broker.enrollment.forwards"
    check = "assert not any(name.startswith('adbutils') for name in sys.modules)"
    probe = (
        "import asyncio, contextlib; from rsocket_broker.enrollment.mediums.adb_shell import AdbAbsent, AdbServer\n"
        f"with contextlib.suppress(AdbAbsent): asyncio.run(AdbServer(('127.0.0.1', {free_port()})).probe())"
    )
    subprocess.run([sys.executable, "-c", f"{program}\n{probe}\n{check}"], check=True)
