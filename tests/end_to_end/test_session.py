"""An app and the broker on one line: enrolled by itself, calls both ways, nothing trusted but what was deployed."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from rsocket_broker import client
from tests.end_to_end.conftest import Connect
from tests.end_to_end.meddlers import RecordingProxy
from tests.end_to_end.processes import BrokerProcess

PEM = serialization.Encoding.PEM


class Recorder(client.AppPlugin):
    """The app's side of the recorder plugin."""

    id = "Recorder"
    background = True

    def __init__(self) -> None:
        self.started = asyncio.Event()

    async def on_init(self) -> None:
        self.started.set()

    @client.method("reverse")
    async def reverse(self, params: dict[str, str]) -> dict[str, str]:
        return {"text": params["text"][::-1]}


async def noted(session: client.Session, app_id: str) -> list[int]:
    """The numbers that the recorder plugin has been told by one app."""
    return [one["params"]["n"] for one in await session.request("Recorder.events") if one["app_id"] == app_id]


@pytest.mark.row("F-36")
async def test_one_call_gives_a_session(app: Connect) -> None:
    async with app() as session:
        assert session.connected
        assert await session.request("echo.request", {"hello": ["world", 1, None]}) == {"hello": ["world", 1, None]}


@pytest.mark.row("F-9", "F-16", "F-17", "F-27", "F-30")
async def test_what_is_deployed(app: Connect, broker: BrokerProcess, tmp_path: Path) -> None:
    async with app():
        pass
    folder = tmp_path / "app"
    leaf = x509.load_pem_x509_certificate((folder / "device.crt").read_bytes())
    anchor = x509.load_pem_x509_certificate((folder / "sonarCA.crt").read_bytes())
    request = x509.load_pem_x509_csr((folder / "app.csr").read_bytes())
    key = serialization.load_pem_private_key((folder / "privateKey.pem").read_bytes(), None)
    assert leaf.public_key() == request.public_key() == key.public_key()
    leaf.verify_directly_issued_by(anchor)
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert ExtendedKeyUsageOID.CLIENT_AUTH in usage
    deployed = [path.read_bytes() for path in (broker.home / "ca").glob("*/ca.crt")]
    assert x509.load_pem_x509_certificate(deployed[-1]) == anchor
    assert oct((folder / "privateKey.pem").stat().st_mode)[-3:] == "600"
    assert oct(folder.stat().st_mode)[-3:] == "700"


@pytest.mark.row("F-7", "F-22", "M-3", "M-8", "M-25")
async def test_the_exchange_comes_first_and_neither_port_tells_a_secret(
    app: Connect, broker: BrokerProcess, tmp_path: Path
) -> None:
    journal: list[tuple[str, str]] = []
    secret = "a sentence that nobody else may read"
    async with (
        RecordingProxy("plain", broker.insecure_port, journal) as plain,
        RecordingProxy("secure", broker.secure_port, journal) as secure,
    ):
        started = time.monotonic()
        async with app(insecure_port=plain.port, secure_port=secure.port) as session:
            assert time.monotonic() - started < 5
            assert await session.request("echo.request", secret) == secret
    assert [event for event in journal if event[1] != "close"][:6] == [
        ("plain", "connect"), ("plain", "up"), ("plain", "down"),
        ("secure", "connect"), ("secure", "up"), ("secure", "down"),
    ]  # fmt: skip
    key = (tmp_path / "app" / "privateKey.pem").read_bytes()
    everything = bytes(plain.up + plain.down + secure.up + secure.down)
    assert secret.encode() not in everything
    assert b"PRIVATE KEY" not in everything
    assert key.splitlines()[1] not in everything
    assert b"BEGIN CERTIFICATE-----" not in plain.down  # certificates travel by the folder, never by the wire
    assert b"signCertificate" in plain.up


@pytest.mark.row("F-3", "A-37")
async def test_both_sides_call_at_the_same_time(app: Connect, app_id: str, broker: BrokerProcess) -> None:
    plugin = Recorder()
    async with app(plugins=[plugin]) as session:
        await asyncio.wait_for(plugin.started.wait(), 10)
        slow = asyncio.create_task(session.request_payload("echo.slow", client.Payload(b"400")))
        done = await asyncio.to_thread(
            broker.command, "clients", "call", app_id, "Recorder", "reverse", '{"text": "abc"}'
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"text": "cba"}
        await slow


async def test_events_reach_the_plugin_in_order(app: Connect, app_id: str) -> None:
    plugin = Recorder()
    async with app(plugins=[plugin]) as session:
        await asyncio.wait_for(plugin.started.wait(), 10)
        for number in range(100):
            assert session.send_event("Recorder", "noted", {"n": number})
        async with asyncio.timeout(10):
            while len(events := await noted(session, app_id)) < 100:
                await asyncio.sleep(0.01)
        assert events == list(range(100))


@pytest.mark.row("A-37")
async def test_all_interactions(app: Connect) -> None:
    async def numbers() -> AsyncIterator[object]:
        for number in range(5):
            yield number

    async with app() as session:
        answers = [one.data async for one in session.stream_payloads("echo.stream", client.Payload(b"300:10"))]
        assert [len(answer or b"") for answer in answers] == [10] * 300
        assert [one async for one in session.channel("echo.channel", numbers())] == list(range(5))
        await session.send("echo.fire", {"n": 1})
        assert await session.request("echo.request", 0) == 0


async def test_errors_come_with_the_brokers_words(app: Connect) -> None:
    async with app() as session:
        with pytest.raises(client.ApplicationError):
            await session.request("echo.error")
        with pytest.raises(client.RequestFailed, match="nonsense"):
            await session.request("echo.nonsense")
        with pytest.raises(client.RequestFailed, match="ghost"):
            await session.request("ghost.method")
        with pytest.raises(TimeoutError):
            await session.request("echo.never", timeout=0.1)


@pytest.mark.row("M-12")
async def test_every_enrolment_has_its_own_key_and_serial(app: Connect, tmp_path: Path) -> None:
    leaves = []
    for name in ("one", "other"):
        async with app(directory=tmp_path / name):
            leaves.append(x509.load_pem_x509_certificate((tmp_path / name / "device.crt").read_bytes()))
    assert leaves[0].serial_number != leaves[1].serial_number
    assert leaves[0].public_key() != leaves[1].public_key()


@pytest.mark.row("M-13")
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_names_and_addresses_are_checked_and_right(app: Connect, host: str) -> None:
    async with app(host=host) as session:
        assert session.connected


async def test_the_second_run_needs_no_enrolment(app: Connect, tmp_path: Path) -> None:
    async with app():
        before = (tmp_path / "app" / "device.crt").read_bytes()
    stages: list[client.Stage] = []
    async with app(observer=lambda progress: stages.append(progress.stage), insecure_port=9):
        assert (tmp_path / "app" / "device.crt").read_bytes() == before
    assert stages[:2] == [client.Stage.CONNECTING, client.Stage.CONNECTED]


async def test_a_refused_enrolment_is_told_in_the_brokers_words(app: Connect, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "app")
    with pytest.raises((client.EnrollmentRefused, client.BrokerError)) as caught:
        async with app(directory=link):
            pass
    assert str(link) in str(caught.value)
