"""A simulator as plugins see it, against a stand-in for Xcode's tool that notes what it was asked."""

import json
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from rsocket_broker.enrollment import simulator_device
from rsocket_broker.enrollment.simulator_device import SimulatorDevice, parse, processes
from rsocket_broker.errors import ApplicationError, Invalid

UDID = "0F5A0C6E-1111-2222-3333-444455556666"
ENTRY = {
    "timestamp": "2024-06-10 08:00:00.250000+0200",
    "messageType": "Error",
    "processID": 77,
    "threadID": 5,
    "subsystem": "com.example.shop",
    "processImagePath": "/x/Shop.app/Shop",
    "eventMessage": "it failed",
}
STAND_IN = """#!{python} -IS
import json, sys, time
arguments = sys.argv[1:]
with open({notes!r}, "a") as file:
    file.write(json.dumps(arguments) + "\\n")
what = arguments[1]
if "hang" in {mode!r} and what == "openurl":
    time.sleep(60)
if "refuse" in {mode!r}:
    sys.stderr.write("Invalid device: nobody")
    sys.exit(165)
if what == "io":
    sys.stdout.buffer.write(b"PNG" * 100)
if "launchctl" in arguments:
    print("PID\\tStatus\\tLabel\\n77\\t0\\tUIKitApplication:com.example.shop[1a2b][rb-legacy]\\n-\\t0\\tcom.apple.x")
if "log" in arguments:
    entry = json.loads({entry!r})
    print("Filtering the log data using nothing")
    entry["eventMessage"] = "x" * 300000
    print(json.dumps(entry))
    entry["eventMessage"] = "shown" if "show" in arguments else "streamed"
    print(json.dumps(entry), flush=True)
    time.sleep(60 if "stream" in arguments else 0)
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str = "") -> Path:
    """Puts the stand-in first on PATH; where it notes what it was asked."""
    notes = folder / "asked"
    program = folder / "xcrun"
    program.write_text(STAND_IN.format(python=sys.executable, notes=str(notes), entry=json.dumps(ENTRY), mode=mode))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return notes


def asked(notes: Path) -> list[list[str]]:
    return [json.loads(line) for line in notes.read_text().splitlines()]


async def test_what_it_is_told_arrives_as_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = install(tmp_path, monkeypatch)
    device = SimulatorDevice(UDID)
    assert device.serial == UDID
    await device.open_link("shop://a?b='c'&d=$(id)", "com.example.shop")
    assert await device.pids("com.example.shop") == {77}
    assert await device.screenshot() == b"PNG" * 100
    assert asked(notes) == [
        ["simctl", "openurl", UDID, "shop://a?b='c'&d=$(id)"],
        ["simctl", "spawn", UDID, "launchctl", "list"],
        ["simctl", "io", UDID, "screenshot", "--type=png", "-"],
    ]
    with pytest.raises(Invalid):
        await device.open_link("--help", "com.example.shop")
    with pytest.raises(Invalid, match="iOS app"):
        await device.pids("a b")


async def test_the_log_is_what_it_remembers_and_what_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    async with aclosing(SimulatorDevice(UDID).log(0)) as lines:
        found = [await anext(lines) for _ in range(2)]
    assert [line.message for line in found] == ["shown", "streamed"]
    assert found[0][1:5] == (77, 5, "error", "com.example.shop")


async def test_errors_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "refuse")
    device = SimulatorDevice(UDID)
    with pytest.raises(ApplicationError, match="did not do it: xcrun simctl openurl failed: Invalid device: nobody"):
        await device.open_link("a:b", "x")
    with pytest.raises(ApplicationError, match="cannot be read: Invalid device"):
        await anext(device.log())
    install(tmp_path, monkeypatch, "hang")
    monkeypatch.setattr(simulator_device, "TIMEOUT_S", 0.3)
    with pytest.raises(ApplicationError, match=r"not done within 0\.3 s"):
        await device.open_link("a:b", "x")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(ApplicationError, match="install Xcode"):
        await device.screenshot()


@pytest.mark.row("M-7")
@pytest.mark.parametrize(
    "line", [b"", b"x", b"[]", b"{}", b"null", b'{"timestamp": 7, "processID": 1}', b"[" * 100_000]
)
def test_what_is_no_entry_is_passed_over(line: bytes) -> None:
    assert parse(line) is None


def test_an_entry_without_a_subsystem_has_its_program_as_tag() -> None:
    line = json.dumps({**ENTRY, "subsystem": None, "messageType": "Fault"}).encode()
    found = parse(line)
    assert found is not None
    assert (found.tag, found.level) == ("Shop", "fatal")
    assert processes("77\t0\tcom.example.shop", "com.example.shop") == frozenset()
