"""The ways in which apps are known to fail to connect: each one is brought about, and `doctor` says what it is.

A test's name begins with the numbers of its failures in docs/howto/when-an-app-does-not-connect.md. Those that other
tests bring about are named in ELSEWHERE; those that cannot happen here are said to be so on that page.
"""

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker.broker import Broker
from rsocket_broker.cli.context import Context
from rsocket_broker.cli.diagnosis import Level
from rsocket_broker.cli.doctor import examine
from rsocket_broker.settings import ListenSettings, Settings
from tests.emulated_device import AdbServer, AppSandbox, EmulatedDevice, Trouble
from tests.end_to_end.processes import clean_environment, run_command
from tests.end_to_end.test_android import exchange
from tests.end_to_end.wire import (
    COMPLETE,
    ERROR,
    NEXT,
    PAYLOAD,
    REQUEST_FNF,
    REQUEST_RESPONSE,
    Frame,
    Line,
    frame,
    request,
    setup,
)
from tests.foreign.sdk_folder import EnrollmentFailed, claims, client_context, enrol, make_folder
from tests.until import until

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "howto" / "when-an-app-does-not-connect.md"
LISTEN = ListenSettings(insecure_port=0, secure_port=0)

ELSEWHERE = {
    2: "tests/authority/test_issue.py",
    4: "tests/cli/test_diagnosis.py",
    5: "tests/authority/test_generations.py",
    7: "tests/enrollment/test_exchange.py",
    12: "tests/enrollment/mediums/test_adb.py",
    13: "tests/enrollment/mediums/test_adb.py",
    16: "tests/enrollment/mediums/test_adb.py",
    17: "tests/enrollment/mediums/test_adb.py",
    18: "tests/foreign/test_eras.py",
    19: "tests/enrollment/test_forwards.py",
    21: "tests/listening/test_listeners.py",
    28: "tests/authority/test_requests.py",
    29: "tests/test_claims.py",
    31: "tests/enrollment/mediums/test_physical_ios.py",
    32: "tests/enrollment/mediums/test_physical_ios.py",
    36: "tests/sessions/test_live.py",
}
"""Failures that are brought about, and explained or mended, in other tests."""


@contextlib.asynccontextmanager
async def broker(home: Path, adb: AdbServer | None = None, **changes: Any) -> AsyncIterator[Broker]:
    """A broker, with a home that `doctor` finds the same adb server in."""
    named = "off" if adb is None else f"{adb.address[0]}:{adb.address[1]}"
    running = Broker(Settings(home=home, listen=LISTEN, adb=named, **changes))
    try:
        await running.start()
        (home / "config.toml").write_text(f'[serve]\nadb = "{named}"\n')
        (home / "config.toml").chmod(0o600)
        yield running
    finally:
        await running.stop()


async def doctor(home: Path) -> str:
    """What is not well, a line each, as `rsocket-broker doctor` finds it."""
    found = await asyncio.to_thread(examine, Context(home))
    return "\n".join(f"{each.what}: {each.detail}" for each in found if each.level is not Level.OK)


async def told(home: Path, words: str) -> str:
    """The finding of `doctor` with these words, as soon as there is one."""
    found = ""
    for _ in range(100):
        found = await doctor(home)
        for line in found.splitlines():
            if re.search(words, line):
                return line
        await asyncio.sleep(0.1)
    raise AssertionError(found)


def port(running: Broker) -> int:
    number = running.ports.insecure_port
    assert number
    return number


async def refused(folder: Path, running: Broker, app_id: str, **fields: object) -> None:
    with pytest.raises(EnrollmentFailed):
        await asyncio.to_thread(enrol, folder, app_id, port(running), **fields)


def test_01_no_openssl_is_needed_on_the_path(tmp_path: Path) -> None:
    environment = clean_environment() | {"PATH": str(tmp_path)}
    command = [sys.executable, "-m", "rsocket_broker", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_03_20_a_home_that_others_can_read_and_a_port_that_is_taken(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        assert run_command(home, "ca", "init").returncode == 0
        home.chmod(0o755)
        (home / "config.toml").write_text(f'[serve]\nadb = "off"\ninsecure-port = {number}\nsecure-port = 0\n')
        (home / "config.toml").chmod(0o600)
        found = asyncio.run(doctor(home))
    assert f"chmod 700 {home}" in found
    assert re.search(rf"insecure port: .*{number} .*is taken by process \d+", found)


async def test_06_a_clock_that_is_wrong(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "app", "org.example.app")
    async with broker(tmp_path / "home") as running:
        yesterday = int((time.time() - 86_400) * 1000)
        await refused(folder, running, "org.example.app", timestamp=yesterday)
        detail = await told(tmp_path / "home", "clock of the device says")
    assert "24 hours behind the broker" in detail


RUN_AS = {
    8: (Trouble.NOT_DEBUGGABLE, "not debuggable", "debug build"),
    9: (Trouble.NO_CAPABILITIES, "Could not set capabilities", "Select debug app"),
    10: (Trouble.WRONG_OWNER, "wrong owner", "internal storage"),
    11: (Trouble.UNKNOWN, "unknown package", "for which user"),
    15: (Trouble.CORRUPT, "corrupt or inaccessible", "Install the app again"),
    22: (Trouble.READ_ONLY, "", ""),
}
"""By failure: what goes wrong, what the device says of it, and what doctor advises."""


async def test_08_09_10_11_15_22_what_run_as_refuses(adb_server: AdbServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device, broker(home, adb_server) as running:
        for number, (trouble, _, _) in RUN_AS.items():
            app = AppSandbox(device, f"org.example.app{number}x")
            app.trouble(trouble)
            answer = await asyncio.to_thread(exchange, app, port(running))
            assert answer.kind == ERROR, trouble
        text = await doctor(home)
    for trouble, said, advice in RUN_AS.values():
        assert said in text, (trouble, text)
        assert advice in text, (trouble, text)
    assert "is full, or the device does not let" in text or "write" in text


async def test_14_devices_that_cannot_be_asked(adb_server: AdbServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with (
        EmulatedDevice(tmp_path / "locked", authorized=False) as locked,
        adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device,
        broker(home, adb_server) as running,
    ):
        await adb_server.attach(locked)
        await adb_server.wait_state(locked, "unauthorized")
        app = AppSandbox(device, "org.example.app")
        app.file("app.csr").unlink()
        await asyncio.to_thread(exchange, app, port(running))
        detail = await told(home, "holds no app.csr")
        assert "has not authorised this computer" in detail, "the reason of each device is told"
        assert "Allow USB debugging" in detail
        await adb_server.disconnect(locked)


async def test_23_24_an_app_that_does_not_find_its_files(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with broker(home) as running:
        message = {"method": "signCertificateAck", "isError": False, "hasRequiredFiles": False, "logs": []}
        with await asyncio.to_thread(Line.open, port(running)) as line:
            line.send(setup(claims("org.example.app")), request(REQUEST_FNF, 1, json.dumps(message).encode()))
            detail = await told(home, "does not find its certificates")
    assert "can be read by the app itself" in detail


async def test_25_whoever_has_come_to_the_wrong_port(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with broker(home) as running:
        ports = running.ports
        assert ports.secure_port
        hello = bytes.fromhex("160301020001000000000000")
        for number, data in ((port(running), hello), (ports.secure_port, setup({}))):
            with socket.create_connection(("127.0.0.1", number)) as stranger:
                stranger.sendall(data)
                await asyncio.to_thread(stranger.recv, 100)
        assert str(ports.secure_port) in await told(home, "spoke TLS to the plain port")
        await told(home, "speaks plain RSocket on a port for TLS")


async def test_26_27_30_names_and_paths_that_nobody_may_have(adb_server: AdbServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device, broker(home, adb_server) as running:
        for app in (
            AppSandbox(device, "org.example.one", common_name="org example; rm"),
            AppSandbox(device, "org.example.two", common_name="com.flipper"),
            AppSandbox(device, "org.example.three"),
        ):
            if app.package.endswith("three"):
                app.destination = "/data/user/0/org.example.three/files/it's/sonar/"
            await asyncio.to_thread(exchange, app, port(running))
        text = await doctor(home)
    assert "common name" in text.lower() or "CN" in text, text
    assert "it's" in text or "quote" in text or "org.example.three" in text


async def test_33_an_app_that_asks_again_and_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    folder = make_folder(tmp_path / "app", "org.example.app")
    async with broker(home) as running:
        for _ in range(6):
            await refused(folder, running, "org.example.app", destination=str(tmp_path / "elsewhere"))
        assert "for the same reason each time" in await told(home, "asks again and again")


async def test_34_40_a_device_from_which_nobody_comes(adb_server: AdbServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    device = EmulatedDevice(tmp_path / "phone")
    device.sandbox.facts["properties"]["ro.product.manufacturer"] = "Genymotion"
    async with adb_server.attached(device), broker(home, adb_server):
        assert "INTERNET" in await told(home, "no app has come so far")
        assert "--host 0.0.0.0" in await told(home, "Genymotion")


async def test_42_a_process_that_wants_files_written_elsewhere(tmp_path: Path) -> None:
    home = tmp_path / "home"
    folder = make_folder(tmp_path / "app", "org.example.app")
    victim = tmp_path / "victim"
    victim.mkdir()
    async with broker(home) as running:
        await refused(folder, running, "org.example.app", destination=f"{victim}/")
        detail = await told(home, "refused to enrol")
    assert str(victim) in detail or "app.csr" in detail
    assert list(victim.iterdir()) == []


async def test_35_37_38_39_a_session_that_misbehaves(tmp_path: Path) -> None:
    """An app whose plugin answers nothing, sends nonsense, and sends far too much."""
    home = tmp_path / "home"
    folder = make_folder(tmp_path / "app", "org.example.app")
    async with broker(home) as running:
        await asyncio.to_thread(enrol, folder, "org.example.app", port(running))
        assert running.ports.secure_port
        line = await asyncio.to_thread(connected, folder, running.ports.secure_port)
        with line:
            await until(lambda: [session for session in running.sessions if "Network" in session.announced])
            nonsense = {"method": "execute", "params": {"api": "Network", "method": "newRequest", "params": {"id": []}}}
            huge = {"method": "refreshPlugins", "padding": "x" * 6_000_000}
            line.send(request(REQUEST_FNF, 1, json.dumps(nonsense).encode()))
            await asyncio.to_thread(line.send, request(REQUEST_FNF, 3, json.dumps(huge).encode()))
            assert "id" in await told(home, "was not handled|was dropped")
            assert "org.example.app" in await told(home, "sends messages of 6")
            (session,) = running.sessions
            with pytest.raises(Exception, match="did not answer"):
                await session.to_app.call("Network", "sleep", {}, 0.05)
            assert "stopped in a debugger" in await told(home, "did not answer Network.sleep")


def connected(folder: Path, number: int) -> Line:
    """A session that lists the plugin Network, and answers nothing else."""
    line = Line.open(number, client_context(folder))
    line.send(setup(claims("org.example.app", device_id="x") | {"device_id": ""}))
    for _ in range(2):  # getPlugins and getBackgroundPlugins
        asked: Frame = line.next()
        while asked.kind != REQUEST_RESPONSE:
            asked = line.next()
        line.send(answer(asked.stream, {"success": {"plugins": ["Network"]}}))
    return line


def answer(stream: int, value: object) -> bytes:
    return frame(stream, PAYLOAD, NEXT | COMPLETE, json.dumps(value).encode())


def test_every_failure_on_the_page_is_brought_about() -> None:
    page = PAGE.read_text(encoding="utf-8")
    listed = {int(number) for number in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    impossible = {int(number) for number in re.findall(r"^- \*\*(\d+)\*\*", page, re.MULTILINE)}
    tried = {
        int(number)
        for name in globals()
        if name.startswith("test_")
        for number in re.findall(r"\d\d", name.partition("_a_")[0])
    }
    assert listed | impossible == set(range(1, 43))
    assert not listed & impossible
    assert listed - tried - ELSEWHERE.keys() == set()
    assert all((ROOT / path).exists() for path in ELSEWHERE.values())
