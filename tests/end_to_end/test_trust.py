"""Whom the SDK believes, and what it does when the one on the secure port is another, or is not there."""

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rsocket_broker import client
from rsocket_broker.client import Stage
from tests.end_to_end import wire
from tests.end_to_end.conftest import QUICK, Connect, StartBroker
from tests.end_to_end.meddlers import Impostor, RecordingProxy, ThrowawayAuthority
from tests.end_to_end.processes import BrokerProcess


class Diary:
    """An observer that can be waited for."""

    def __init__(self) -> None:
        self.entries: list[client.Progress] = []
        self._changed = asyncio.Event()

    def __call__(self, progress: client.Progress) -> None:
        self.entries.append(progress)
        self._changed.set()

    def count(self, stage: Stage) -> int:
        return sum(entry.stage is stage for entry in self.entries)

    async def reaches(self, stage: Stage, times: int = 1) -> None:
        async with asyncio.timeout(20):
            while self.count(stage) < times:
                self._changed.clear()
                await self._changed.wait()


@contextlib.asynccontextmanager
async def impostor(tmp_path: Path, port: int = 0) -> AsyncIterator[Impostor]:
    pretender = Impostor(ThrowawayAuthority(tmp_path / "impostor"))
    await pretender.listen(port)
    yield pretender
    await pretender.close()


@contextlib.asynccontextmanager
async def waiting(app: Connect, **changes: object) -> AsyncIterator[None]:
    """An app that keeps trying while the block runs."""

    async def run() -> None:
        async with app(timeout=None, **changes):
            pass

    task = asyncio.create_task(run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.row("F-1", "A-09")
async def test_an_impostor_gets_no_word_and_two_refusals_lead_to_a_new_certificate(
    app: Connect, tmp_path: Path
) -> None:
    diary = Diary()
    async with impostor(tmp_path) as pretender, waiting(app, secure_port=pretender.port, observer=diary):
        await diary.reaches(Stage.ENROLLED)
        first = (tmp_path / "app" / "privateKey.pem").read_bytes()
        await diary.reaches(Stage.ENROLLED, 2)
        assert (tmp_path / "app" / "privateKey.pem").read_bytes() != first
    assert pretender.connections >= 2
    assert pretender.application_bytes == b""
    assert diary.count(Stage.CONNECTED) == 0
    between = [entry.stage for entry in diary.entries]
    start = between.index(Stage.ENROLLED)
    assert between[start : between.index(Stage.ENROLLED, start + 1)].count(Stage.CONNECTING) == 2


@pytest.mark.row("F-6", "A-09")
async def test_a_broker_with_another_authority_is_left_and_enrolled_with_anew(
    app: Connect, start: StartBroker, tmp_path: Path
) -> None:
    """The home is lost; the new broker on the same ports has a new CA. The app finds its way back by itself."""
    old = start()
    ports = {"insecure_port": old.insecure_port, "secure_port": old.secure_port}
    diary = Diary()
    async with app(**ports, observer=diary) as session:
        before = (tmp_path / "app" / "sonarCA.crt").read_bytes()
        old.stop()
        shutil.rmtree(old.home)
        start(home="another", **ports)
        await diary.reaches(Stage.CONNECTED, 2)
        assert await session.request("echo.request", 1) == 1
        assert (tmp_path / "app" / "sonarCA.crt").read_bytes() != before
        assert session.connections == 2
    assert diary.count(Stage.ENROLLED) == 2


@pytest.mark.row("F-5")
async def test_a_client_that_was_started_first_is_connected_within_one_step(app: Connect, start: StartBroker) -> None:
    gone = start()
    ports = {"insecure_port": gone.insecure_port, "secure_port": gone.secure_port}
    gone.stop()
    diary = Diary()

    async def run() -> float:
        async with app(**ports, observer=diary, timeout=None):
            return time.monotonic()

    client_side = asyncio.create_task(run())
    await diary.reaches(Stage.FAILED, 5)
    assert diary.count(Stage.CONNECTING) == 0
    await asyncio.to_thread(start, **ports)
    ready = time.monotonic()
    connected = await asyncio.wait_for(client_side, 10)
    assert connected - ready < QUICK.longest + 2  # one wait, an exchange and a handshake on a busy machine


@pytest.mark.row("F-5")
async def test_a_session_survives_a_restart_of_the_broker_without_a_new_certificate(
    app: Connect, start: StartBroker, tmp_path: Path
) -> None:
    first = start()
    ports = {"insecure_port": first.insecure_port, "secure_port": first.secure_port}
    diary = Diary()
    async with app(**ports, observer=diary) as session:
        before = (tmp_path / "app" / "device.crt").read_bytes()
        await asyncio.to_thread(first.stop)
        await diary.reaches(Stage.LOST)
        asked = asyncio.create_task(session.request("echo.request", "asked while the broker was away", timeout=20))
        await asyncio.to_thread(start, **ports)
        assert await asked == "asked while the broker was away"
        assert (tmp_path / "app" / "device.crt").read_bytes() == before
    assert diary.count(Stage.ENROLLED) == 1


@pytest.mark.row("F-23")
async def test_certificates_on_the_wire_or_elsewhere_are_ignored(
    app: Connect, broker: BrokerProcess, tmp_path: Path
) -> None:
    """A plain port that answers without deploying anything, and hands its own CA over in the answer."""
    authority = ThrowawayAuthority(tmp_path / "evil")
    pem = authority.ca_file.read_text()
    elsewhere = tmp_path / "shared"
    elsewhere.mkdir()
    (elsewhere / "sonarCA.crt").write_text(pem)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                content = await reader.readexactly(int.from_bytes(await reader.readexactly(3), "big"))
                if content[4] >> 2 == wire.REQUEST_RESPONSE:
                    (tmp_path / "app" / "sonarCA.crt").symlink_to(elsewhere / "sonarCA.crt")
                    reply = answer_with_certificates(pem)
                    writer.write(wire.frame(1, wire.PAYLOAD, wire.NEXT | wire.COMPLETE, reply))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, impostor(tmp_path) as pretender:
        with pytest.raises(client.EnrollmentRefused, match="deployment"):
            async with app(host="127.0.0.1", insecure_port=port, secure_port=pretender.port):
                pass
        assert pretender.connections == 0
    assert not (tmp_path / "app" / "connection_config.json").exists()


def answer_with_certificates(pem: str) -> bytes:
    return json.dumps({"deviceId": "d", "certificates": pem, "sonarCA.crt": pem, "device.crt": pem}).encode()


@pytest.mark.row("A-09")
async def test_network_errors_never_cost_the_certificate(app: Connect, broker: BrokerProcess, tmp_path: Path) -> None:
    async with app():
        before = (tmp_path / "app" / "device.crt").read_bytes()
    diary = Diary()
    async with waiting(app, secure_port=9, observer=diary):
        await diary.reaches(Stage.FAILED, 6)
    assert diary.count(Stage.ENROLLING) == 0
    assert (tmp_path / "app" / "device.crt").read_bytes() == before


@pytest.mark.row("F-1")
async def test_connected_is_said_only_after_the_broker_has_accepted(
    app: Connect, start: StartBroker, tmp_path: Path
) -> None:
    """A certificate that the broker does not know: under TLS 1.3 it is refused after the client's own handshake."""
    mine, other = start(), start(home="other")
    async with app(insecure_port=mine.insecure_port, secure_port=mine.secure_port):
        pass
    folder = tmp_path / "app"
    trusted = (folder / "sonarCA.crt").read_bytes()
    async with app(directory=tmp_path / "foreign", insecure_port=other.insecure_port, secure_port=other.secure_port):
        pass
    for name in ("device.crt", "privateKey.pem", "app.csr"):
        shutil.copy(tmp_path / "foreign" / name, folder / name)
    (folder / "sonarCA.crt").write_bytes((tmp_path / "foreign" / "sonarCA.crt").read_bytes() + trusted)
    diary = Diary()
    async with waiting(app, insecure_port=9, secure_port=mine.secure_port, observer=diary):
        await diary.reaches(Stage.FAILED, 2)
    assert diary.count(Stage.CONNECTED) == 0


@pytest.mark.row("F-5")
@pytest.mark.parametrize(("resume", "stage", "first"), [(True, Stage.RESUMED, 1), (False, Stage.CONNECTED, 2)])
async def test_a_line_that_dies_without_a_word_is_made_again(
    app: Connect, broker: BrokerProcess, resume: bool, stage: Stage, first: int
) -> None:
    journal: list[tuple[str, str]] = []
    diary = Diary()
    async with (
        RecordingProxy("first", broker.secure_port, journal) as proxy,
        app(secure_port=proxy.port, observer=diary, resume=resume) as session,
    ):
        for number in range(3):
            await proxy.cut()
            await diary.reaches(stage, number + first)
            assert await session.request("echo.request", number) == number
