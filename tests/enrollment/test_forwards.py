"""Reverse forwards through a real adb server: set on each device, set again, and really carrying bytes."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from rsocket_broker.enrollment.forwards import AdbMonitor, DeviceStatus
from rsocket_broker.enrollment.mediums import adb_shell
from rsocket_broker.enrollment.mediums.adb_shell import AdbServer as Adb
from tests.emulated_device import AdbServer, EmulatedDevice
from tests.emulated_device.server import free_port

INSECURE, SECURE = 8089, 8088
NOBODY = DeviceStatus(serial="", state="")


@contextlib.asynccontextmanager
async def broker() -> AsyncIterator[dict[int, int]]:
    """Two listeners that answer with their name and what they were sent; device port → their port."""

    def answering(name: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(64 * 1024):
                writer.write(name + data)
                await writer.drain()
            writer.close()

        return answer

    async with (
        await asyncio.start_server(answering(b"insecure "), "127.0.0.1", 0) as insecure,
        await asyncio.start_server(answering(b"secure "), "127.0.0.1", 0) as secure,
    ):
        yield {INSECURE: insecure.sockets[0].getsockname()[1], SECURE: secure.sockets[0].getsockname()[1]}


@contextlib.asynccontextmanager
async def running(monitor: AdbMonitor) -> AsyncIterator[AdbMonitor]:
    task = asyncio.ensure_future(monitor.run())
    try:
        yield monitor
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def until(monitor: AdbMonitor, holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await monitor.changed()


def status_of(monitor: AdbMonitor, device: EmulatedDevice) -> DeviceStatus | None:
    return next((status for status in monitor.status() if status.serial == device.serial), None)


def in_order(monitor: AdbMonitor, device: EmulatedDevice, ports: dict[int, int]) -> Callable[[], bool]:
    def check() -> bool:
        status = status_of(monitor, device)
        return status is not None and status.forwards == ports

    return check


async def say_from_device(device: EmulatedDevice, port: int, data: bytes, size: int) -> bytes:
    """What an app on the device gets back when it dials a port of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", device.reverse.port(port))
    writer.write(data)
    async with asyncio.timeout(10):
        answer = await reader.readexactly(size)
    writer.close()
    return answer


@pytest.mark.row("F-13")
async def test_the_devices_fixed_ports_lead_to_the_brokers_actual_ones(tmp_path: Path, adb_server: AdbServer) -> None:
    async with broker() as ports, running(AdbMonitor(adb_server.address, ports)) as monitor:
        async with adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device:
            await until(monitor, in_order(monitor, device, ports))
            assert await say_from_device(device, INSECURE, b"hello", 14) == b"insecure hello"
            assert await say_from_device(device, SECURE, b"hello", 12) == b"secure hello"
            assert monitor.problem == ""
            assert monitor.status()[0].problem == ""
        await until(monitor, lambda: monitor.status() == [])


async def test_every_device_has_them_and_again_when_it_returns(tmp_path: Path, adb_server: AdbServer) -> None:
    arrived: list[str] = []

    async def on_device(serial: str) -> None:
        arrived.append(serial)
        raise ValueError("a hook that fails ends no watch")

    async with (
        broker() as ports,
        running(AdbMonitor(adb_server.address, ports, on_device, look_again=0.05)) as monitor,
        adb_server.attached(EmulatedDevice(tmp_path / "one")) as one,
        adb_server.attached(EmulatedDevice(tmp_path / "two", shell_v2=False)) as two,
    ):
        first = one.serial
        for device in (one, two):
            await until(monitor, in_order(monitor, device, ports))
        await one.vanish()
        await until(monitor, lambda: not in_order(monitor, one, ports)())
        assert status_of(monitor, two) is not None
        await adb_server.bring_back(one)
        await until(monitor, in_order(monitor, one, ports))
        assert await say_from_device(one, SECURE, b"again", 12) == b"secure again"
        async with asyncio.timeout(10):
            while sorted(arrived) != sorted([first, two.serial, one.serial]):
                await asyncio.sleep(0.01)


async def test_a_restarted_adb_server_is_found_again_and_the_forwards_set_again(
    tmp_path: Path, adb_server: AdbServer, caplog: pytest.LogCaptureFixture
) -> None:
    """With a server of its own: the shared one, asked for above, serves other tests (and shows that adb is there)."""
    caplog.set_level(logging.INFO, "rsocket_broker.enrollment.forwards")
    async with AdbServer(tmp_path / "adb") as server, EmulatedDevice(tmp_path / "phone") as device:
        await server.connect(device)
        monitor = AdbMonitor(server.address, {INSECURE: 1, SECURE: 2}, first_retry=0.02)
        async with running(monitor):
            await until(monitor, in_order(monitor, device, {INSECURE: 1, SECURE: 2}))
            server.stop()
            await until(monitor, lambda: "No adb server answers" in monitor.problem)
            assert monitor.status() == []
            device.reverse.clear()
            await server.start()
            await server.connect(device)
            await until(monitor, in_order(monitor, device, {INSECURE: 1, SECURE: 2}))
            assert monitor.problem == ""
    told = [record.message for record in caplog.records if "No adb server answers" in record.message]
    assert len(told) == 1, "an absence is told once, not at each try"


@pytest.mark.row("A-55")
async def test_without_a_server_it_waits_quietly_and_says_what_is_missing() -> None:
    monitor = AdbMonitor(("127.0.0.1", free_port()), {INSECURE: 1}, first_retry=0.01)
    async with running(monitor):
        await until(monitor, lambda: "adb start-server" in monitor.problem)
        assert monitor.status() == []


async def test_a_server_that_accepts_and_says_nothing_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_shell, "LIST_LIMIT", 0.1)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with (
        await asyncio.start_server(silent, "127.0.0.1", 0) as hung,
        running(AdbMonitor(hung.sockets[0].getsockname()[:2], {INSECURE: 1})) as monitor,
    ):
        await until(monitor, lambda: "cannot be followed: no answer within 0.1 seconds" in monitor.problem)


async def test_a_forward_that_somebody_removed_is_set_again(tmp_path: Path, adb_server: AdbServer) -> None:
    ports = {INSECURE: 1, SECURE: 2}
    async with (
        running(AdbMonitor(adb_server.address, ports, look_again=0.05)) as monitor,
        adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device,
    ):
        await until(monitor, in_order(monitor, device, ports))
        device.reverse.clear()
        async with asyncio.timeout(10):
            while len(device.reverse.forwards) < 2:
                await asyncio.sleep(0.01)


async def test_a_port_that_another_program_took_is_left_to_it_and_told(
    tmp_path: Path, adb_server: AdbServer, caplog: pytest.LogCaptureFixture
) -> None:
    ports = {INSECURE: 1, SECURE: 2}
    async with (
        running(AdbMonitor(adb_server.address, ports, look_again=0.05, try_again=0.05)) as monitor,
        adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device,
    ):
        await until(monitor, in_order(monitor, device, ports))
        await Adb(adb_server.address).reverse(device.serial, SECURE, 9)
        await until(monitor, in_order(monitor, device, {INSECURE: 1}))
        status = status_of(monitor, device)
        assert status is not None
        assert "its port 8088 leads to tcp:9: another program has taken it" in status.problem
        for _ in range(3):
            await monitor.changed()
        assert device.reverse.forwards["tcp:8088"].remote == "tcp:9", "they would fight for it for ever"
        assert sum("another program" in record.message for record in caplog.records) == 1


async def test_a_device_that_refuses_is_told_of_once_and_tried_again(
    tmp_path: Path, adb_server: AdbServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(AdbMonitor(adb_server.address, {INSECURE: 1, SECURE: 2}, try_again=0.05)) as monitor:
        phone = EmulatedDevice(tmp_path / "phone")
        phone.reverse.refused["tcp:8088"] = "cannot bind listener: Address already in use"
        async with adb_server.attached(phone) as device:
            await until(monitor, lambda: "cannot bind" in (status_of(monitor, device) or NOBODY).problem)
            status = status_of(monitor, device)
            assert status is not None
            assert "cannot bind listener: Address already in use" in status.problem
            assert "needs Android 5.0" in status.problem
            for _ in range(3):
                await monitor.changed()
            assert sum("cannot bind listener" in record.message for record in caplog.records) == 1
            phone.reverse.refused.clear()
            await until(monitor, in_order(monitor, device, {INSECURE: 1, SECURE: 2}))


@pytest.mark.row("A-55")
async def test_a_device_that_cannot_be_used_is_listed_with_what_to_do(tmp_path: Path, adb_server: AdbServer) -> None:
    async with (
        running(AdbMonitor(adb_server.address, {INSECURE: 1}, try_again=0.05)) as monitor,
        EmulatedDevice(tmp_path / "locked", authorized=False) as locked,
    ):
        await adb_server.attach(locked)
        await until(
            monitor,
            lambda: (status_of(monitor, locked) or NOBODY).state == "unauthorized",
        )
        status = status_of(monitor, locked)
        assert status is not None
        assert "allow USB debugging" in status.problem
        await adb_server.disconnect(locked)


async def test_a_hung_device_holds_up_no_other(tmp_path: Path, adb_server: AdbServer) -> None:
    async with running(AdbMonitor(adb_server.address, {INSECURE: 1})) as monitor:
        hung = EmulatedDevice(tmp_path / "hung")
        hung.hung = True
        async with adb_server.attached(hung), adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device:
            async with asyncio.timeout(5):
                await until(monitor, in_order(monitor, device, {INSECURE: 1}))
