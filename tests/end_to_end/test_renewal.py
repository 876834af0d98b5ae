"""Certificates that change under the sessions of a real broker, and in the containers of a device, by `ca rotate`."""

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from websockets.asyncio.client import connect

from rsocket_broker import client
from tests.conftest import SEED
from tests.emulated_device import AdbServer, AppSandbox, EmulatedDevice
from tests.end_to_end import fleet, wire
from tests.end_to_end.conftest import QUICK, StartBroker
from tests.end_to_end.processes import BrokerProcess
from tests.end_to_end.test_android import PACKAGE, Session, enrol, eventually, forwarded
from tests.foreign.sdk_folder import enrolled_folder

A_STEP = 60.0


async def run(broker: BrokerProcess, *arguments: str) -> str:
    done = await asyncio.to_thread(broker.command, *arguments, timeout=A_STEP)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


@contextlib.asynccontextmanager
async def phone(start: StartBroker, tmp_path: Path, adb: AdbServer) -> AsyncIterator[tuple[BrokerProcess, AppSandbox]]:
    """A broker, a device that is forwarded to it, and an app there."""
    async with adb.attached(EmulatedDevice(tmp_path / "phone")) as device:
        broker = start("--adb", f"{adb.address[0]}:{adb.address[1]}")
        await eventually(lambda: forwarded(device, broker.insecure_port, broker.secure_port))
        yield broker, AppSandbox(device, PACKAGE)


def serial_in(app: AppSandbox) -> str:
    return f"{x509.load_pem_x509_certificate(app.file('device.crt').read_bytes()).serial_number:x}"


def anchors_in(app: AppSandbox) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(app.file("sonarCA.crt").read_bytes())


@pytest.mark.row("D-2", "A-18")
async def test_twice_round_with_the_plain_port_closed_and_the_device_detached(
    start: StartBroker, tmp_path: Path, adb_server: AdbServer
) -> None:
    """An app of our SDK that was enrolled by adb: its session never drops, and its serial number changes twice."""
    async with phone(start, tmp_path, adb_server) as (broker, app):
        await asyncio.to_thread(enrol, app, broker.insecure_port)
        for name in ("privateKey.pem", "connection_config.json"):
            app.file(name).chmod(0o600)
        failed: list[Exception] = []
        stages: list[client.Progress] = []
        async with client.connect(
            app_id=PACKAGE,
            app="Phone",
            directory=app.folder,
            insecure_port=broker.insecure_port,
            secure_port=broker.secure_port,
            backoff=QUICK,
            timeout=15,
            observer=stages.append,
        ) as session:
            await adb_server.disconnect(app.device)
            await run(broker, "listeners", "close", "insecure")

            async def call() -> None:
                while True:
                    try:
                        assert await session.request("echo.request", "on") == "on"
                    except Exception as error:
                        failed.append(error)
                    await asyncio.sleep(0.002)

            calling = asyncio.create_task(call())
            (before,) = await asyncio.to_thread(broker.clients)
            serials = [before["serial"]]
            for _ in range(2):
                said = await run(broker, "ca", "rotate", "--auto")
                assert "steady" in said or "done" in said.lower(), said
                (now,) = await asyncio.to_thread(broker.clients)
                assert (now["id"], now["proof"]) == (before["id"], "adb")
                serials.append(now["serial"])
                assert serial_in(app) == now["serial"]
            calling.cancel()
            assert len(set(serials)) == 3
            assert failed == []
            assert session.connections == 1
        told = {progress.stage for progress in stages}
        assert not told & {client.Stage.INTERRUPTED, client.Stage.FAILED}
        assert client.Stage.RENEWED in told
    assert "Traceback" not in broker.log.read_text()


@pytest.mark.row("A-14", "D-1")
async def test_an_app_of_the_rsocket_era_is_brought_along_by_its_driver(
    start: StartBroker, tmp_path: Path, adb_server: AdbServer
) -> None:
    async with phone(start, tmp_path, adb_server) as (broker, app):
        device_id = await asyncio.to_thread(enrol, app, broker.insecure_port)
        old, first = anchors_in(app), serial_in(app)
        session = await asyncio.to_thread(Session, app, broker.secure_port, device_id)
        try:
            await run(broker, "ca", "rotate", "prepare")
            assert serial_in(app) == first
            assert anchors_in(app)[1:] == old
            await run(broker, "ca", "rotate", "switch")
            second = serial_in(app)
            assert second != first
            assert app.names() == {"app.csr", "privateKey.pem", "connection_config.json", "sonarCA.crt", "device.crt"}
            (there,) = await asyncio.to_thread(broker.clients)
            assert there["serial"] == first, "the session goes on as it began"
            await run(broker, "ca", "rotate", "finish")
            assert len(anchors_in(app)) == 1
            assert anchors_in(app) != old
        finally:
            session.close()
        again = await asyncio.to_thread(Session, app, broker.secure_port, device_id)
        try:
            await eventually(lambda: [one["serial"] for one in broker.clients()] == [second])
        finally:
            again.close()
        clean = await run(broker, "ca", "list", "--json")
        assert second in clean


@pytest.mark.row("A-14", "A-16", "D-1")
async def test_a_device_that_was_away_is_named_and_brought_along_when_it_is_back(
    start: StartBroker, tmp_path: Path, adb_server: AdbServer
) -> None:
    async with phone(start, tmp_path, adb_server) as (broker, app):
        device_id = await asyncio.to_thread(enrol, app, broker.insecure_port)
        old, first = anchors_in(app), serial_in(app)
        await adb_server.disconnect(app.device)
        await run(broker, "ca", "rotate", "prepare")
        await run(broker, "ca", "rotate", "switch")
        refused = await asyncio.to_thread(broker.command, "ca", "rotate", "finish")
        assert refused.returncode == 1
        assert PACKAGE in refused.stderr
        assert (anchors_in(app), serial_in(app)) == (old, first)
        assert "not attached" in await run(broker, "ca", "list", "--app", PACKAGE)
        await adb_server.connect(app.device)
        await eventually(lambda: serial_in(app) != first and len(anchors_in(app)) == 2)
        await run(broker, "ca", "rotate", "finish")
        await eventually(lambda: forwarded(app.device, broker.insecure_port, broker.secure_port))
        session = await asyncio.to_thread(Session, app, broker.secure_port, device_id)
        session.close()


def one_anchor(folder: Path) -> ssl.SSLContext:
    """As the SDK of the WebSocket era: of its file of anchors it takes the first certificate and no other."""
    anchors = x509.load_pem_x509_certificates((folder / "sonarCA.crt").read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=anchors[0].public_bytes(serialization.Encoding.DER))
    context.load_cert_chain(folder / "device.crt", folder / "privateKey.pem")
    return context


async def visit(broker: BrokerProcess, folder: Path) -> None:
    """Connects with the files of the moment, calls once, and goes."""
    url = f"wss://localhost:{broker.ports['ws_secure_port']}/rsocket"
    async with connect(url, ssl=one_anchor(folder)) as line:
        await line.send(wire.setup(mime=wire.COMPOSITE)[3:])
        await line.send(wire.request(wire.REQUEST_RESPONSE, 1, b"[1]", wire.routed("echo.request"))[3:])
        async with asyncio.timeout(10):
            answer = await line.recv()
        assert bytes(answer).endswith(b"[1]")  # type: ignore[arg-type]


@pytest.mark.row("A-14", "D-1", "F-1")
async def test_an_app_that_knows_one_anchor_is_served_in_every_phase(start: StartBroker, tmp_path: Path) -> None:
    broker = start()
    folder = await asyncio.to_thread(enrolled_folder, tmp_path / "sonar", "org.example.web", broker.insecure_port)
    await visit(broker, folder)
    serials = [(folder / "device.crt").read_bytes()]
    for _ in range(2):
        for step in ("prepare", "switch", "finish"):
            await run(broker, "ca", "rotate", step)
            await visit(broker, folder)
        serials.append((folder / "device.crt").read_bytes())
    await run(broker, "ca", "rotate", "prepare")
    await run(broker, "ca", "rotate", "switch")
    for _ in range(2):
        await run(broker, "ca", "rotate", "rollback")
        await visit(broker, folder)
    assert len(set(serials)) == 3


@pytest.mark.timeout(240)
@pytest.mark.row("D-7", "D-15")
async def test_killed_while_it_brings_certificates_every_folder_holds_a_pair_and_gets_the_new_one(
    start: StartBroker, tmp_path: Path
) -> None:
    chance, names = random.Random(SEED), [f"org.example.app{number}" for number in range(6)]
    broker = start()
    folders = [await asyncio.to_thread(enrolled_folder, tmp_path / name, name, broker.insecure_port) for name in names]
    before = [(folder / "device.crt").read_bytes() for folder in folders]
    await run(broker, "ca", "rotate", "prepare")
    for _ in range(3):
        switching = asyncio.create_task(asyncio.to_thread(broker.command, "ca", "rotate", "switch", timeout=A_STEP))
        await asyncio.sleep(chance.uniform(0.2, 1.5))
        broker.process.kill()
        await asyncio.to_thread(broker.stop)
        await switching
        assert all(fits(folder) for folder in folders)
        broker = start()
    # It goes on from wherever it stands, and waits for everybody.
    await run(broker, "ca", "rotate", "--auto", "--patience", "40")
    for folder, old in zip(folders, before, strict=True):
        assert fits(folder)
        assert (folder / "device.crt").read_bytes() != old
        assert {path.name for path in folder.iterdir()} == {"app.csr", "privateKey.pem", "sonarCA.crt", "device.crt"}
        await asyncio.to_thread(fleet.visit, folder, broker.secure_port)
    await run(broker, "ca", "verify")


def fits(folder: Path) -> bool:
    """The certificate is for the key beside it, and was issued by one of the anchors there."""
    key = serialization.load_pem_private_key((folder / "privateKey.pem").read_bytes(), None)
    leaf = x509.load_pem_x509_certificate((folder / "device.crt").read_bytes())
    anchors = x509.load_pem_x509_certificates((folder / "sonarCA.crt").read_bytes())
    return leaf.public_key() == key.public_key() and leaf.issuer in [anchor.subject for anchor in anchors]
