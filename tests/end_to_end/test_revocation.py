"""Revocation as those concerned see it: the app, the thief with its certificate, and everybody else at work."""

import asyncio
import json
import shutil
import ssl
from pathlib import Path

import pytest

from rsocket_broker import client
from rsocket_broker.admin.client import admin_line
from rsocket_broker.client.progress import Progress, Stage
from rsocket_broker.errors import BrokerError
from tests.end_to_end import wire
from tests.end_to_end.conftest import QUICK, StartBroker
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.processes import BrokerProcess
from tests.end_to_end.wire import Line
from tests.foreign.sdk_folder import client_context, enrolled_folder

APP = "org.example.stolen"
REJECTED = 0x202
PROMISED_MS = 1000.0
"""Within which a handshake must be refused; the target of 100 ms is measured where a machine has nothing else to do."""


def revoke(broker: BrokerProcess, *arguments: str) -> dict[str, object]:
    done = broker.command("ca", "revoke", *arguments, "--json", timeout=60)
    assert done.returncode == 0, done.stderr
    receipt: dict[str, object] = json.loads(done.stdout)
    return receipt


@pytest.mark.row("A-20", "A-21", "D-3", "A-19")
async def test_an_app_of_our_sdk_is_ended_and_told_why_it_gets_no_certificate(
    start: StartBroker, tmp_path: Path
) -> None:
    broker = start()
    ports = {"insecure_port": broker.insecure_port, "secure_port": broker.secure_port}
    told, said = asyncio.Event(), []

    def note(progress: Progress) -> None:
        if progress.stage is Stage.FAILED and "block list" in progress.detail:
            said.append(progress.detail)
            told.set()

    folder = tmp_path / "app"
    async with client.connect(
        app_id=APP, app="Demo", directory=folder, backoff=QUICK, observer=note, **ports
    ) as session:
        assert await session.request("echo.request", 1) == 1
        waiting = asyncio.ensure_future(session.request("echo.never", 1))
        receipt = await asyncio.to_thread(revoke, broker, "--app", APP, "--reason", "sold")
        assert (receipt["certificates"], receipt["sessions"]) == (1, 1)
        with pytest.raises(BrokerError, match=r"its certificate was revoked \(sold\)"):
            await waiting
        async with asyncio.timeout(30):
            await told.wait()
        assert f"app {APP} was revoked" in said[0] and "(sold). Ask whoever runs this broker" in said[0]
    assert broker.command("ca", "unblock", "--app", APP).returncode == 0
    async with client.connect(app_id=APP, app="Demo", directory=tmp_path / "app", backoff=QUICK, **ports) as session:
        assert await session.request("echo.request", 3) == 3


class Thief:
    """Whoever has copied an app's folder."""

    def __init__(self, folder: Path, port: int) -> None:
        self._port = port
        self._context = client_context(folder)

    def come(self) -> Line:
        """Raises what a refusal becomes."""
        line = Line.open(self._port, self._context, timeout=30)
        try:
            line.send(wire.setup(mime=wire.COMPOSITE))
            assert wire.payload_data(self.ask(line, "echo.request")) == b"?"
        except BaseException:
            line.socket.close()
            raise
        return line

    def ask(self, line: Line, route: str, stream: int = 1) -> wire.Frame:
        line.send(wire.request(wire.REQUEST_RESPONSE, stream, b"?", wire.routed(route)))
        return line.answer(stream)


@pytest.mark.row("M-26", "M-12")
async def test_a_stolen_certificate_does_what_its_app_may_and_one_revoke_ends_it(
    start: StartBroker, tmp_path: Path
) -> None:
    broker = start()
    mine = enrolled_folder(tmp_path / "mine", APP, broker.insecure_port)
    other = enrolled_folder(tmp_path / "other", "org.example.other", broker.insecure_port)
    stolen = shutil.copytree(mine, tmp_path / "stolen")
    owner, thief, bystander = (Thief(folder, broker.secure_port) for folder in (mine, stolen, other))
    lines = await asyncio.gather(*(asyncio.to_thread(each.come) for each in (owner, thief, bystander)))
    _, line, kept = lines
    verbs = ("ca.revoke", "clients.list", "sessions.revoke", "status", "client:org.example.other", "plugins.list")
    for number, route in enumerate(verbs):
        answer = await asyncio.to_thread(thief.ask, line, route, 3 + 2 * number)
        assert answer.kind == wire.ERROR, f"{route} is for nobody who comes from outside"
    device = next(one["device_id"] for one in broker.clients() if one["app_id"] == APP)
    receipt = await asyncio.to_thread(revoke, broker, "--client", f"{APP}@{device}", "--reason", "key-compromise")
    assert (receipt["certificates"], receipt["sessions"]) == (1, 2)
    for each in (owner, thief):
        with pytest.raises((ssl.SSLError, AssertionError, ConnectionError)):
            await asyncio.to_thread(each.come)
    assert wire.payload_data(await asyncio.to_thread(bystander.ask, kept, "echo.request", 3)) == b"?"
    for one in lines:
        one.socket.close()


@pytest.mark.row("A-21", "A-52", "D-3")
@pytest.mark.timeout(180)
async def test_others_at_work_notice_nothing(start: StartBroker, tmp_path: Path) -> None:
    broker = start("--max-sessions-per-identity", "100", "--enrollments-per-minute", "6000")
    victims = [f"victim{number}" for number in range(6)]
    folders = [enrolled_folder(tmp_path / name, f"org.example.{name}", broker.insecure_port) for name in victims]
    async with Fleet(broker, tmp_path / "fleet") as fleet, admin_line(broker.home) as admin:
        await fleet.call_all_the_time(*(f"caller{number}" for number in range(8)))
        await fleet.visit_all_the_time("visitor0", "visitor1")
        for name, folder in zip(victims, folders, strict=True):
            thief = Thief(folder, broker.secure_port)
            line = await asyncio.to_thread(thief.come)
            receipt = await admin.call("ca.revoke", {"by": "app", "value": f"org.example.{name}"}, 30)
            assert receipt["sessions"] == 1 and receipt["last_frame_ms"] < PROMISED_MS, receipt
            rest = await asyncio.to_thread(line.rest)
            assert rest[-1].stream == 0 and "revoked" in rest[-1].error[1]
            line.socket.close()
            with pytest.raises((ssl.SSLError, AssertionError, ConnectionError)):
                await asyncio.to_thread(thief.come)
            await fleet.more(calls=20, visits=1)
        assert fleet.trouble == []
