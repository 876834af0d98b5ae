"""A whole broker in this process, and real clients of its ports."""

import asyncio
import json
import os
import socket
import ssl
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker import client
from rsocket_broker.admin.client import admin_line
from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.broker import STOP_S, Broker, load_mediums
from rsocket_broker.client.folder import AppFolder
from rsocket_broker.enrollment.devices import DeviceRegistry
from rsocket_broker.enrollment.journal import Journal
from rsocket_broker.enrollment.mediums.base import Bundle, Container
from rsocket_broker.errors import BrokerError, ConfigurationError, HomeError
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.settings import ListenSettings, Settings
from rsocket_broker.state import STATE_FILE, State
from tests.emulated_device import AdbServer, EmulatedDevice
from tests.until import until

ANY_PORTS = ListenSettings(insecure_port=0, secure_port=0)

SLOW_PLUGIN = """
import asyncio
from rsocket_broker.plugin_api import App, Plugin, method

def mark(name):
    open(f"{__file__}.{name}", "w").close()

class Slow(Plugin):
    id = "Slow"

    @method("work")
    async def work(self, app: App, seconds: float) -> dict:
        mark("begun")
        await asyncio.sleep(seconds)
        return {"done": True}

    async def on_disconnect(self, app: App) -> None:
        mark("farewell")
"""


@asynccontextmanager
async def running(home: Path, **changes: Any) -> AsyncIterator[Broker]:
    broker = Broker(Settings(home=home, **({"listen": ANY_PORTS, "adb": "off"} | changes)))
    try:
        await broker.start()
        yield broker
    finally:
        await broker.stop()


def app(broker: Broker, folder: Path, app_id: str = "com.example.app") -> Any:
    return client.connect(
        app_id=app_id,
        app="Example",
        directory=folder,
        insecure_port=broker.ports.insecure_port or 0,
        secure_port=broker.ports.secure_port or 0,
        timeout=10,
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# --- start -----------------------------------------------------------------------------------------------------------


async def test_a_broker_serves_an_app_from_enrolment_to_call(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as broker, app(broker, tmp_path / "app") as session:
        assert await session.request("echo.request", [1, 2]) == [1, 2]
        (live,) = broker.sessions
        assert live.identity.app_id == "com.example.app"


@pytest.mark.row("F-4")
async def test_the_secure_port_takes_enrolled_clients_and_no_others(tmp_path: Path) -> None:
    def handshake(port: int, context: ssl.SSLContext) -> bytes:
        with (
            socket.create_connection(("localhost", port), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as line,
        ):
            line.settimeout(0.3)
            return line.recv(1)

    async with running(tmp_path / "home") as broker:
        port = broker.ports.secure_port or 0
        async with app(broker, tmp_path / "app"):
            pass
        folder = tmp_path / "app"
        context = ssl.create_default_context(cafile=str(folder / "sonarCA.crt"))
        with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"):
            await asyncio.to_thread(handshake, port, context)
        context.load_cert_chain(folder / "device.crt", folder / "privateKey.pem")
        with pytest.raises(TimeoutError):  # let in: the server waits for SETUP
            await asyncio.to_thread(handshake, port, context)


@pytest.mark.row("F-8")
async def test_the_plain_port_takes_rsocket_and_refuses_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def tls(port: int) -> None:
        context = ssl._create_unverified_context()
        with socket.create_connection(("localhost", port), 5) as plain, context.wrap_socket(plain):
            pass

    async with running(tmp_path / "home") as broker:
        port = broker.ports.insecure_port or 0
        with pytest.raises((ssl.SSLError, OSError)):
            await asyncio.to_thread(tls, port)
        assert f"TLS is spoken on port {broker.ports.secure_port}" in caplog.text
        enrolled = await client.enroll(
            app_id="com.example.app", app="Example", directory=tmp_path / "app", insecure_port=port
        )
        assert enrolled.device_id


@pytest.mark.row("M-1", "M-9")
@pytest.mark.parametrize("port", ["insecure_port", "secure_port"])
async def test_http_gets_nothing_anywhere(tmp_path: Path, port: str) -> None:
    async with running(tmp_path / "home") as broker:
        reader, writer = await asyncio.open_connection("localhost", getattr(broker.ports, port))
        writer.write(b"POST /echo.request HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        assert b"HTTP" not in answer
        assert len(broker.sessions) == 0


@pytest.mark.row("A-12")
async def test_all_listeners_stay_on_loopback(tmp_path: Path) -> None:
    """No listening socket of this process, as the kernel lists them, has an address that others can reach."""
    async with running(tmp_path / "home") as broker:
        ours = {broker.ports.insecure_port, broker.ports.secure_port}
        seen = set()
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
                columns = line.split()
                address, _, port = columns[1].partition(":")
                if columns[3] == "0A" and int(port, 16) in ours:
                    seen.add(int(port, 16))
                    assert address in ("0100007F", "00000000000000000000000001000000")
        assert seen == ours


async def test_from_the_network_only_sessions_are_served_unless_said_otherwise(tmp_path: Path) -> None:
    assert ListenSettings(host="192.0.2.1").plain_host == "localhost"
    assert ListenSettings(host="192.0.2.1", insecure_host="192.0.2.1").plain_host == "192.0.2.1"
    assert ListenSettings(host="127.0.0.1").plain_host == "127.0.0.1"
    listen = ListenSettings(host="0.0.0.0", insecure_port=0, secure_port=0, names=("broker.example",))
    async with running(tmp_path / "home", listen=listen) as broker:
        addresses = {listener.hosts[0] for listener in broker.listeners._by_name.values()}
        assert addresses == {"0.0.0.0", "127.0.0.1"}


@pytest.mark.row("F-11")
async def test_two_starts_give_one_key(tmp_path: Path) -> None:
    home = tmp_path / "home"
    keys = []
    for _ in range(2):
        async with running(home):
            keys.append(((home / "ca/1/ca.key").read_bytes(), (home / "server/server.key").read_bytes()))
    assert keys[0] == keys[1]
    assert mode(home / "ca/1/ca.key") == mode(home / "server/server.key") == 0o600
    assert mode(home) == mode(home / "ca") == mode(home / "ca/1") == 0o700


async def test_a_certificate_of_the_first_start_is_good_after_the_second(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as broker, app(broker, tmp_path / "app"):
        pass
    before = (tmp_path / "app/device.crt").read_bytes()
    async with running(tmp_path / "home") as broker, app(broker, tmp_path / "app") as session:
        assert await session.request("echo.request", 1) == 1
    assert (tmp_path / "app/device.crt").read_bytes() == before


async def test_ports_are_published_when_everything_accepts(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "home")
    async with running(tmp_path / "home") as broker:
        assert folder.ports() == broker.ports
        assert mode(folder.ports_path) == 0o600
        assert broker.ports.pid == os.getpid()
        assert time.time() - broker.ports.started < 30
        assert Path(broker.ports.admin) == folder.path / "admin.sock"
        published = json.loads(folder.ports_path.read_text())
        assert [name for name, value in published.items() if value is None] == ["http_port", "browser_port"]
    assert folder.ports() is None
    assert list(folder.path.iterdir()) == []


async def test_a_taken_port_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for field in ("insecure_port", "secure_port", "ws_secure_port", "http_port"):
            flag = f"--{field.replace('_', '-')}"
            ports: dict[str, int] = {"insecure_port": 0, "secure_port": 0, field: port}
            listen = ListenSettings(**ports)  # type: ignore[arg-type]
            broker = Broker(Settings(home=tmp_path / "home", listen=listen, adb="off"))
            with pytest.raises(ConfigurationError, match=rf"Port {port} .*process {os.getpid()} .*{flag}"):
                await broker.start()
            await broker.stop()
    async with running(tmp_path / "home"):
        pass


async def test_a_second_broker_on_the_home_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as broker:
        second = Broker(Settings(home=tmp_path / "home", listen=ANY_PORTS, adb="off"))
        with pytest.raises(HomeError, match=f"pid {os.getpid()}"):
            await second.start()
        await second.stop()
        assert RunFolder(tmp_path / "home").ports() == broker.ports


async def test_a_plugin_that_cannot_be_loaded_stops_the_start_before_a_port_opens(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("import nothing_of_this_name\n")
    broker = Broker(Settings(home=tmp_path / "home", listen=ANY_PORTS, adb="off", plugins=(str(bad),)))
    with pytest.raises(ConfigurationError, match=r"bad\.py, line 1"):
        await broker.start()
    assert not hasattr(broker, "listeners")
    await broker.stop()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adb": "sometimes"}, "must be auto, off or HOST:PORT"),
        ({"medium_tables": {"adb": {"server": "auto"}}}, "--adb"),
        ({"medium_tables": {"filesytem": {}}}, 'Did you mean "filesystem"'),
        ({"plugin_tables": {"nobody": {}}}, "no such plugin"),
        ({"medium_tables": {"adb": {"timeout": 1}}}, "has no settings"),
        ({"medium_tables": {"filesystem": {"root": "/"}}}, "mediums.filesystem. has no settings"),
    ],
)
async def test_settings_that_make_no_sense_are_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        async with running(tmp_path / "home", **changes):
            pass


def test_the_adb_driver_is_told_where_the_server_is(tmp_path: Path) -> None:
    with State.open(tmp_path / "home" / STATE_FILE) as state:
        mediums = load_mediums(Settings(home=tmp_path / "home", adb="off"), DeviceRegistry(state))
    assert {"adb", "filesystem", "simulator"} <= set(mediums.offered)


@pytest.mark.row("F-13")
async def test_a_device_finds_the_broker_at_its_own_fixed_ports(tmp_path: Path, adb_server: AdbServer) -> None:
    """Whatever ports the broker has; and what a crash left half-done on the device is settled when it appears."""
    host, port = adb_server.address
    home = tmp_path / "home"
    with State.open(home / STATE_FILE) as state:
        begin_deployment(state, DeviceRegistry(state).device_id("android", "EMULATED0001\nf00d0000cafe0001"))
    ports = {"insecure_port": 18089, "secure_port": 18088}
    async with (
        running(home, adb=f"{host}:{port}", device_ports=tuple(ports.values())) as broker,
        adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device,
    ):

        def in_order() -> bool:
            adb: Any = broker.status()["adb"]
            return any(each["serial"] == device.serial and not each["problem"] for each in adb["devices"])

        await until(in_order)
        await until(lambda: Journal(broker._state).pending() == [])  # type: ignore[arg-type]
        reader, writer = await asyncio.open_connection("127.0.0.1", device.reverse.port(18089))
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 5) == b""  # carried to the plain port, which closes
        writer.close()
        context = ssl._create_unverified_context()
        await asyncio.to_thread(ssl_hello, device.reverse.port(18088), context)
        assert broker.status()["adb"]["problem"] is None  # type: ignore[index]


def begin_deployment(state: State, device_id: str) -> None:
    """As a broker leaves it that was killed in the middle of one."""
    location = {"device": device_id, "package": "com.example.app", "user": "0", "inner": "files/sonar"}
    principal = Principal("com.example.app", device_id, Proof.ADB)
    container = Container(medium="adb", principal=principal, location=location)
    bundle = Bundle(csr="a request", trust_pem=b"an anchor", certificate_pem=b"a certificate")
    Journal(state).begin(container, bundle, datetime.now(UTC))


def ssl_hello(port: int, context: ssl.SSLContext) -> None:
    """Succeeds when the other end speaks TLS: under 1.3 the verdict on us comes later."""
    with socket.create_connection(("127.0.0.1", port), 5) as plain, context.wrap_socket(plain):
        pass


# --- the admin line --------------------------------------------------------------------------------------------------


async def test_the_admin_line_answers(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as broker, admin_line(tmp_path / "home") as line:
        status = await line.call("status")
        assert status["ports"]["secure_port"] == broker.ports.secure_port
        assert status["sessions"] == 0
        assert {"echo", "identity", "sessions"} <= {plugin["id"] for plugin in await line.call("plugins.list")}


@pytest.mark.row("A-58")
async def test_a_long_home_has_its_admin_line_on_loopback_behind_a_token(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 25) / "home"
    home.parent.mkdir()
    async with running(home) as broker:
        assert broker.ports.admin.startswith("127.0.0.1:")
        token = home / "run" / "admin.token"
        assert mode(token) == 0o600
        async with admin_line(home) as line:
            assert (await line.call("status"))["sessions"] == 0
        token.write_text("x" * 43)
        with pytest.raises(BrokerError, match="token"):
            async with admin_line(home) as line:
                await line.call("status")
    assert not token.exists()


@pytest.mark.row("A-58")
async def test_the_admin_socket_is_for_its_user_alone(tmp_path: Path) -> None:
    async with running(tmp_path / "home"):
        assert mode(tmp_path / "home/run/admin.sock") == 0o600
        assert mode(tmp_path / "home/run") == 0o700


@pytest.mark.row("A-57")
async def test_the_log_of_a_whole_story_holds_no_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = tmp_path / ("long" * 25) / "home"
    home.parent.mkdir()
    caplog.set_level("DEBUG")
    async with running(home) as broker:
        async with app(broker, tmp_path / "app") as session:
            await session.request("echo.request", {"password": "hunter2-of-the-app"})
        async with admin_line(home) as line:
            await line.call("clients.list")
        token = (home / "run/admin.token").read_text()
    text = caplog.text
    assert "com.example.app" in text
    keys = [home / "ca/1/ca.key", home / "server/server.key", tmp_path / "app/privateKey.pem"]
    secrets = [line for key in keys for line in key.read_text().splitlines() if not line.startswith("-")]
    for secret in [*secrets, token, "hunter2-of-the-app", "PRIVATE KEY"]:
        assert secret not in text


# --- stop ------------------------------------------------------------------------------------------------------------


def slow_plugin(tmp_path: Path) -> str:
    path = tmp_path / "slow.py"
    path.write_text(SLOW_PLUGIN)
    return str(path)


@pytest.mark.row("A-51")
async def test_what_is_under_way_ends_before_the_broker_does(tmp_path: Path) -> None:
    plugin = slow_plugin(tmp_path)
    async with (
        running(tmp_path / "home", plugins=(plugin,)) as broker,
        app(broker, tmp_path / "app") as session,
    ):
        work = asyncio.ensure_future(session.request("Slow.work", {"seconds": 0.5}))
        await until(Path(plugin + ".begun").exists)
        stop = asyncio.ensure_future(broker.stop())
        await asyncio.sleep(0)
        with pytest.raises(OSError):
            await asyncio.open_connection("localhost", broker.ports.secure_port)
        with pytest.raises(BrokerError):
            await session.request("echo.request", 1, timeout=0.3)  # refused: nothing new begins
        assert await work == {"done": True}
        await stop
    assert Path(plugin + ".farewell").exists()


@pytest.mark.row("A-51")
async def test_what_never_ends_is_cut_off_in_time(tmp_path: Path) -> None:
    plugin = slow_plugin(tmp_path)
    async with (
        running(tmp_path / "home", plugins=(plugin,)) as broker,
        app(broker, tmp_path / "app") as session,
    ):
        work = asyncio.ensure_future(session.request("Slow.work", {"seconds": 25.0}))
        await until(Path(plugin + ".begun").exists)
        began = time.monotonic()
        await broker.stop()
        assert time.monotonic() - began < STOP_S + 0.5
        with pytest.raises(BrokerError):
            await work


async def test_a_silent_connection_does_not_delay_the_end(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as broker:
        lines = [await asyncio.open_connection("localhost", broker.ports.insecure_port) for _ in range(3)]
        lines += [await asyncio.open_connection("localhost", broker.ports.secure_port) for _ in range(3)]
        began = time.monotonic()
        await broker.stop()
        assert time.monotonic() - began < STOP_S
        for reader, writer in lines:
            await asyncio.wait_for(reader.read(), 3)
            writer.close()


async def test_a_stop_may_come_before_the_start_and_twice(tmp_path: Path) -> None:
    broker = Broker(Settings(home=tmp_path / "home", listen=ANY_PORTS, adb="off"))
    await broker.stop()
    await broker.start()
    await broker.stop()
    await broker.stop()


@pytest.mark.parametrize("turns", range(12))
async def test_a_start_that_is_cancelled_anywhere_leaves_a_home_that_starts(tmp_path: Path, turns: int) -> None:
    broker = Broker(Settings(home=tmp_path / "home", listen=ANY_PORTS, adb="off"))
    start = asyncio.ensure_future(broker.start())
    for _ in range(turns):
        await asyncio.sleep(0)
    start.cancel()
    await asyncio.wait([start])
    await broker.stop()
    async with running(tmp_path / "home"):
        pass


# --- certificates ----------------------------------------------------------------------------------------------------


async def test_the_name_of_the_broker_is_in_its_certificate(tmp_path: Path) -> None:
    listen = ListenSettings(insecure_port=0, secure_port=0, names=("broker.example",))
    async with running(tmp_path / "home", listen=listen) as broker, app(broker, tmp_path / "app"):
        loaded = await asyncio.to_thread(AppFolder(tmp_path / "app").load)
        context = ssl.create_default_context(cadata=loaded.credentials.trust_pem.decode())
        context.load_cert_chain(tmp_path / "app/device.crt", tmp_path / "app/privateKey.pem")
        _, writer = await asyncio.open_connection(
            "localhost", broker.ports.secure_port, ssl=context, server_hostname="broker.example"
        )
        writer.close()


@pytest.mark.row("A-13", "A-55")
async def test_what_was_warned_of_can_be_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as broker, admin_line(tmp_path / "home") as line:
        assert (await line.call("status"))["warnings"] == []
        assert broker.ports.insecure_port
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.ports.insecure_port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await reader.read() == b""
        writer.close()
        (found,) = (await line.call("status"))["warnings"]
        assert "spoke HTTP to the plain port" in found["text"]
