"""The switches of a broker's ports, by real connections."""

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from rsocket_broker.admin.client import admin_line
from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.errors import ApplicationError, ConfigurationError
from rsocket_broker.listening.listeners import NAMES
from rsocket_broker.settings import ListenSettings
from tests.test_broker import app, running
from tests.two_sides import until

EVERY_PORT = ListenSettings(insecure_port=0, secure_port=0, http_port=0, browser_port=0)


async def refused(port: int | None) -> bool:
    """Whether the kernel refuses whoever connects, at both addresses of localhost."""
    assert port
    outcomes = []
    for host in ("127.0.0.1", "::1"):
        try:
            _, writer = await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            outcomes.append(True)
        else:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            outcomes.append(False)
    assert len(set(outcomes)) == 1
    return outcomes[0]


@pytest.mark.row("M-17")
@pytest.mark.parametrize("name", NAMES)
async def test_each_listener_is_closed_and_opened_on_its_number(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path / "home")
    async with running(tmp_path / "home", listen=EVERY_PORT) as broker:
        listeners, before = broker.listeners, broker.ports
        port = listeners.number(name)
        for _ in range(2):
            assert await listeners.close(name) is True
            assert await listeners.close(name) is False
            assert await refused(port)
            published = folder.ports()
            assert published == broker.ports != before
            assert getattr(published, f"{name}_port") is None
            assert await listeners.open(name) is True
            assert await listeners.open(name) is False
            assert not await refused(port)
            assert folder.ports() == broker.ports == before


@pytest.mark.row("M-17")
async def test_whoever_came_before_stays_and_is_drained_at_the_end(tmp_path: Path) -> None:
    async with running(tmp_path / "home", listen=EVERY_PORT) as broker, app(broker, tmp_path / "app") as session:
        for name in NAMES:
            await broker.listeners.close(name)
        assert await session.request("echo.request", 1) == 1
        slow = asyncio.ensure_future(session.request("echo.slow", 300))
        (live,) = broker.sessions
        await until(lambda: "slow" in live.plugins.seats["echo"].running.values())
        await broker.stop()
        assert await slow is not None


@pytest.mark.row("M-24")
async def test_strangers_of_the_plain_port_go_with_it(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as broker:
        reader, writer = await asyncio.open_connection("localhost", broker.ports.insecure_port)
        assert await broker.listeners.close("insecure")
        assert b"enrolment is closed" in await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await writer.wait_closed()


@pytest.mark.row("M-17")
async def test_a_handshake_under_way_ends_with_its_port(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as broker:
        reader, writer = await asyncio.open_connection("localhost", broker.ports.secure_port)
        writer.write(b"\x16\x03\x01")
        await asyncio.sleep(0.05)
        await broker.listeners.close("secure")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 5)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_a_number_taken_meanwhile_is_told(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as broker:
        await broker.listeners.close("insecure")
        port = broker.listeners.number("insecure") or 0
        with socket.create_server(("127.0.0.1", port)):
            with pytest.raises(ConfigurationError, match=f"Port {port} .*is taken"):
                await broker.listeners.open("insecure")
            assert broker.ports.insecure_port is None
        assert await broker.listeners.open("insecure")


async def test_what_has_no_switch_is_told(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as broker:
        with pytest.raises(ApplicationError, match="admin line cannot be closed"):
            await broker.listeners.close("admin")
        with pytest.raises(ApplicationError, match="secure"):
            await broker.listeners.close("sec")
        with pytest.raises(ApplicationError, match="--http-port"):
            await broker.listeners.open("http")
        async with admin_line(tmp_path / "home") as line:
            assert (await line.call("status"))["ports"]["http_port"] is None


async def test_many_switch_at_once_and_the_last_word_holds(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "home")
    async with running(tmp_path / "home") as broker:
        listeners = broker.listeners
        await asyncio.gather(*(listeners.close("secure") if n % 2 else listeners.open("secure") for n in range(20)))
        assert await refused(listeners.number("secure")) is not listeners.listening("secure")
        assert folder.ports() == broker.ports
        assert await listeners.close("insecure")
        described = {each["name"]: each["open"] for each in listeners.describe()}
        assert set(described) == set(NAMES)
        assert {name for name, is_open in described.items() if is_open} == {"ws_insecure", "ws_secure"}
    assert folder.ports() is None


async def test_nothing_is_published_after_the_end(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as broker:
        listeners = broker.listeners
        listeners.stop()
        await listeners.open("secure")
        assert await refused(listeners.number("secure"))
        assert RunFolder(tmp_path / "home").ports() is None
