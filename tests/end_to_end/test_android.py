"""An Android app with a Flipper SDK of the RSocket era, on a device behind a real adb server: the whole way, by hand.

The app dials fixed ports of its device; what it sends and expects is written from the specification of its SDK, with
no code of ours: a version-1 request, text/plain MIME types, an endless lifetime, RSA, TLS 1.2.
"""

import asyncio
import json
import signal
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from tests.emulated_device import AdbServer, AppSandbox, EmulatedDevice, Fault
from tests.end_to_end.conftest import StartBroker
from tests.end_to_end.processes import BrokerProcess
from tests.end_to_end.wire import (
    APPLICATION_ERROR,
    ERROR,
    NEXT,
    PAYLOAD,
    REQUEST_RESPONSE,
    Frame,
    Line,
    frame,
    payload_data,
    request,
    setup,
)
from tests.foreign.sdk_folder import client_context, enrolled_folder

PACKAGE = "org.example.phone"
PATIENCE = 20.0


async def eventually(what: Callable[[], object]) -> None:
    """Until `what()` is true: for states of another process, which cannot be awaited."""
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(what):
            await asyncio.sleep(0.05)


def forwarded(device: EmulatedDevice, plain: int, secure: int) -> bool:
    remotes = {item.local: item.remote for item in device.reverse.forwards.values()}
    return {"tcp:8089": f"tcp:{plain}", "tcp:8088": f"tcp:{secure}"}.items() <= remotes.items()


def claims(app: AppSandbox, **more: object) -> dict[str, object]:
    return {"os": "Android", "device": "Pixel", "app": "Phone", "sdk_version": 4, "medium": 1, **more}


def exchange(app: AppSandbox, port: int) -> Frame:
    """The SDK's first phase: one request on the plain port. Its answer, or the refusal."""
    message = {"method": "signCertificate", "csr": app.csr, "destination": app.destination, "medium": 1}
    with Line.open(port, timeout=PATIENCE) as line:
        line.send(setup(claims(app, device_id="unknown")), request(REQUEST_RESPONSE, 1, json.dumps(message).encode()))
        return line.answer(1)


def enrol(app: AppSandbox, port: int) -> str:
    answer = json.loads(payload_data(exchange(app, port)))
    app.keep_answer(answer)
    return str(answer["deviceId"])


def context(app: AppSandbox) -> ssl.SSLContext:
    made = client_context(app.folder)
    made.set_alpn_protocols(["rs"])
    return made


class Session:
    """The SDK's second phase: answers the broker's first questions, and stays."""

    def __init__(self, app: AppSandbox, port: int, device_id: str) -> None:
        self.line = Line.open(port, context(app), timeout=PATIENCE)
        self.line.send(setup(claims(app, device_id=device_id, csr=app.csr, csr_path=app.destination)))
        self.answer("getPlugins", {"plugins": ["Recorder"]})
        self.answer("getBackgroundPlugins", {"plugins": ["Recorder"]})

    def asked(self) -> tuple[int, dict[str, Any]]:
        one = self.line.next()
        assert one is not None, "the broker closed the session"
        return one.stream, json.loads(one.body)

    def answer(self, method: str, success: object) -> None:
        stream, message = self.asked()
        assert message["method"] == method
        assert stream % 2 == 0
        self.line.send(frame(stream, PAYLOAD, NEXT, json.dumps({"success": success}).encode()))

    def close(self) -> None:
        self.line.socket.close()


def subject_of(certificate: bytes) -> str:
    return str(x509.load_pem_x509_certificate(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def whole_pair(app: AppSandbox) -> bool:
    """The certificate is for the key in the folder, and the anchor beside it signed it."""
    if not {"sonarCA.crt", "device.crt"} <= app.names():
        return False
    leaf = x509.load_pem_x509_certificate(app.file("device.crt").read_bytes())
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(app.file("sonarCA.crt").read_bytes()))
    spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return leaf.public_key().public_bytes(*spki) == app.key.public_key().public_bytes(*spki)


@pytest.fixture
def adb(adb_server: AdbServer) -> tuple[str, str]:
    """The options that make a broker use the test's adb server."""
    host, port = adb_server.address
    return "--adb", f"{host}:{port}"


@pytest.mark.row("F-13", "F-15", "F-22", "A-02", "A-26", "A-34")
async def test_an_app_dials_the_ports_of_its_device_and_is_known_by_adb(
    adb_server: AdbServer, adb: tuple[str, str], start: StartBroker, tmp_path: Path
) -> None:
    broker = await asyncio.to_thread(start, *adb)
    async with adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device:
        await eventually(lambda: forwarded(device, broker.insecure_port, broker.secure_port))
        app = AppSandbox(device, PACKAGE, version_1=True)
        device_id = await asyncio.to_thread(enrol, app, device.reverse.port(8089))
        assert whole_pair(app)
        assert [oct(app.file(name).stat().st_mode)[-3:] for name in ("sonarCA.crt", "device.crt")] == ["644", "644"]
        assert subject_of(app.file("device.crt").read_bytes()) == PACKAGE

        phone = await asyncio.to_thread(Session, app, device.reverse.port(8088), device_id)
        assert isinstance(phone.line.socket, ssl.SSLSocket)
        assert phone.line.socket.version() == "TLSv1.2"
        await eventually(lambda: [one["plugins"] for one in broker.clients()] == [["Recorder"]])

        # A process on this machine makes a folder of its own, and asks in the name of the very same app.
        folder = await asyncio.to_thread(enrolled_folder, tmp_path / "impostor", PACKAGE, broker.insecure_port)
        with await asyncio.to_thread(Line.open, broker.secure_port, client_context(folder)) as impostor:
            impostor.send(setup({"os": "Linux", "device": "pc", "app": "Phone", "app_id": PACKAGE, "sdk_version": 4}))
            await eventually(lambda: len(broker.clients()) == 2)
            proofs = {one["proof"]: one["device_id"] for one in broker.clients()}
            assert proofs.keys() == {"adb", "filesystem"}
            assert proofs["adb"] == device_id != proofs["filesystem"]
        await eventually(lambda: [one["proof"] for one in broker.clients()] == ["adb"])
        phone.close()


async def test_a_device_that_comes_back_is_served_by_a_broker_that_moved(
    adb_server: AdbServer, adb: tuple[str, str], start: StartBroker, tmp_path: Path
) -> None:
    first = await asyncio.to_thread(start, *adb)
    async with adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device:
        await eventually(lambda: forwarded(device, first.insecure_port, first.secure_port))
        app = AppSandbox(device, PACKAGE)
        device_id = await asyncio.to_thread(enrol, app, device.reverse.port(8089))
        await asyncio.to_thread(first.stop)
        await device.vanish()
        second = await asyncio.to_thread(start, *adb)
        await adb_server.bring_back(device)
        await eventually(lambda: forwarded(device, second.insecure_port, second.secure_port))
        phone = await asyncio.to_thread(Session, app, device.reverse.port(8088), device_id)
        await eventually(lambda: [one["device_id"] for one in second.clients()] == [device_id])
        phone.close()


@pytest.mark.row("A-13")
async def test_a_refusal_reaches_the_app_word_for_word(
    adb_server: AdbServer, adb: tuple[str, str], start: StartBroker, tmp_path: Path
) -> None:
    broker = await asyncio.to_thread(start, *adb)
    async with adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device:
        app = AppSandbox(device, PACKAGE)
        app.csr, own = AppSandbox(device, "org.example.other").csr, app.csr
        refused = await asyncio.to_thread(exchange, app, broker.insecure_port)
        assert refused.kind == ERROR
        code, text = refused.error
        assert code == APPLICATION_ERROR
        assert text.startswith(
            f"proof: the destination {app.destination} lies outside the container of org.example.other."
        )
        app.csr = own
        assert (await asyncio.to_thread(exchange, app, broker.insecure_port)).kind == PAYLOAD  # the next is served


async def killed_at(step: int, broker: BrokerProcess, device: EmulatedDevice, ask: Awaitable[object]) -> int:
    """Kills the broker when the device is sent its `step`-th command from now on. How many came before the end."""
    begun = len(device.commands)
    reached = asyncio.Event()

    def fault(_index: int, _line: str) -> Fault | None:
        if len(device.commands) - begun > step:
            reached.set()
            return Fault.VANISH_AFTER if step % 2 else Fault.VANISH_BEFORE
        return None

    device.faults = fault
    asking, waiting = asyncio.ensure_future(ask), asyncio.ensure_future(reached.wait())
    await asyncio.wait([asking, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    await asyncio.to_thread(broker.stop, signal.SIGKILL)
    await asyncio.gather(asking, return_exceptions=True)
    device.faults = lambda _index, _line: None
    return len(device.commands) - begun


@pytest.mark.row("D-7")
@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_broker_killed_at_any_step_leaves_the_old_pair_or_the_new(
    adb_server: AdbServer, adb: tuple[str, str], start: StartBroker, tmp_path: Path, portion: Callable[[int], list[int]]
) -> None:
    """The first step and the last are tried always; a seeded tenth of the others every day."""
    async with adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device:
        app = AppSandbox(device, PACKAGE)
        for step in sorted({0, *portion(20)}):
            broker = await asyncio.to_thread(start, *adb)
            old = {name: app.file(name).read_bytes() for name in app.names() & {"sonarCA.crt", "device.crt"}}
            asked = asyncio.to_thread(exchange, app, broker.insecure_port)
            await killed_at(step, broker, device, asked)
            await device.vanish()
            await adb_server.bring_back(device)
            again = await asyncio.to_thread(start, *adb)
            await eventually(lambda again=again: forwarded(device, again.insecure_port, again.secure_port))
            await eventually(lambda: not any(name.endswith(".tmp") or ".new" in name for name in app.names()))
            now = {name: app.file(name).read_bytes() for name in app.names() & {"sonarCA.crt", "device.crt"}}
            assert now == old or whole_pair(app)
            await asyncio.to_thread(enrol, app, again.insecure_port)
            assert whole_pair(app)
            await asyncio.to_thread(again.stop)
