"""Output of commands on a device, as it comes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from rsocket_broker.enrollment.mediums import adb_stream
from rsocket_broker.enrollment.mediums.adb_shell import AdbAbsent, AdbLineLost, AdbProblem, AdbRefused, AdbTimedOut
from tests.emulated_device import AdbServer, EmulatedDevice
from tests.emulated_device.server import free_port
from tests.enrollment.mediums.test_adb_shell import EVIL


@pytest.fixture
async def device(tmp_path: Path, adb_server: AdbServer) -> AsyncIterator[EmulatedDevice]:
    async with adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device:
        yield device


@pytest.mark.row("A-03")
async def test_hostile_arguments_arrive_as_they_are(adb_server: AdbServer, device: EmulatedDevice) -> None:
    arguments = ["printf", "%s\\n--\\n", *EVIL]
    printed = await adb_stream.whole(adb_server.address, device.serial, arguments, 100_000, 10.0)
    assert printed.decode() == "".join(f"{argument}\n--\n" for argument in EVIL)
    assert not list(device.sandbox.root.rglob("pwned"))


async def test_lines_come_as_they_are_printed_and_a_reader_who_leaves_stops_the_command(
    adb_server: AdbServer, device: EmulatedDevice
) -> None:
    script = "echo one; printf 'two\\r\\n'; head -c 40000 /dev/zero | tr '\\0' x; echo; echo four; sleep 60"
    async with aclosing(adb_stream.lines(adb_server.address, device.serial, ["sh", "-c", script])) as lines:
        found = [await anext(lines) for _ in range(4)]
    assert [found[0], found[1], found[3]] == ["one", "two", "four"]
    assert set(found[2]) == {"x"}
    assert len(found[2]) == adb_stream.MAX_LINE
    await asyncio.wait_for(device.sandbox.idle(), 10)


async def test_a_last_line_needs_no_end(adb_server: AdbServer, device: EmulatedDevice) -> None:
    arguments = ["printf", "a\\nb"]
    assert [line async for line in adb_stream.lines(adb_server.address, device.serial, arguments)] == ["a", "b"]


@pytest.mark.row("M-7")
async def test_too_much_and_too_long_are_given_up(adb_server: AdbServer, device: EmulatedDevice) -> None:
    with pytest.raises(AdbRefused, match="more than 1000 bytes"):
        await adb_stream.whole(adb_server.address, device.serial, ["cat", "/dev/zero"], 1000, 10.0)
    with pytest.raises(AdbTimedOut, match=r"0\.2 seconds"):
        await adb_stream.whole(adb_server.address, device.serial, ["sleep", "60"], 1000, 0.2)
    await asyncio.wait_for(device.sandbox.idle(), 10)


async def test_what_cannot_be_reached_is_told(adb_server: AdbServer) -> None:
    with pytest.raises(AdbAbsent, match="No adb server"):
        await adb_stream.whole(("127.0.0.1", free_port()), "x", ["true"], 10, 5.0)
    with pytest.raises(AdbRefused, match="not found"):
        await adb_stream.whole(adb_server.address, "no-such-device", ["true"], 10, 5.0)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400", b"OK", b"FAIL", b"FAILzz", b"FAIL0003noo"])
async def test_what_is_no_adb_server_is_a_problem_and_no_crash(said: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(said)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as stranger:
        with pytest.raises(AdbProblem) as caught:
            await adb_stream.whole(stranger.sockets[0].getsockname()[:2], "x", ["true"], 10, 5.0)
    assert isinstance(caught.value, AdbLineLost | AdbRefused)
