"""The exchange over WebSocket: one answer, whatever happens. The line's transport is a recorder; all else is real."""

import asyncio
import json
import logging
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rsocket_broker.claims import Claims
from rsocket_broker.credentials import CA_FILE, CERTIFICATE_FILE
from rsocket_broker.enrollment.modes import Mode
from rsocket_broker.enrollment.throttle import EnrollmentLimits, Rate
from rsocket_broker.enrollment.web_endpoint import FAILED, Turn, WebEnrolment, claims_of, host_of
from rsocket_broker.errors import SetupRefused
from rsocket_broker.messages import MessageLine
from rsocket_broker.protocol.limits import PLAIN
from rsocket_broker.transports.base import Channel, Peer
from tests.enrollment.workshop import DesktopApp, Workshop, open_workshop
from tests.test_messages import Letters
from tests.two_sides import until

PEER = Peer("[::1]:40112", Channel.WS)
QUERY = "os=Linux&device=bench&device_id=unknown&app=Demo&sdk_version=4&medium=1"


def dial(workshop: Workshop) -> tuple[MessageLine, Letters, WebEnrolment]:
    responder, letters = WebEnrolment(workshop.enroller), Letters()
    made = MessageLine(responder, PLAIN)
    letters.receiver = made
    made.open(PEER, claims_of(QUERY, PEER.address, workshop.enroller))
    made.transport_ready(letters)
    return made, letters, responder


async def tell(line: MessageLine, message: bytes | dict[str, object]) -> None:
    line.message_received(message if isinstance(message, bytes) else json.dumps(message).encode())
    await line._work.wait(30)


@pytest.mark.row("F-7", "F-25")
async def test_a_request_has_one_answer_and_its_files_are_there_before(workshop: Workshop, tmp_path: Path) -> None:
    app = DesktopApp(tmp_path / "sonar")
    line, letters, responder = dial(workshop)
    assert responder.turn is Turn.WAITING
    await tell(line, app.message())
    (answer,) = map(json.loads, letters.sent)
    assert set(answer) == {"deviceId"}
    assert (app.folder / CERTIFICATE_FILE).exists()
    assert responder.turn is Turn.ANSWERED
    await tell(line, app.message())
    await tell(line, b"{}")
    await tell(line, {"method": "signCertificateAck", "isError": False, "hasRequiredFiles": True})
    assert len(letters.sent) == 1
    assert workshop.issued(app.app_id) == 1
    await line.close()


@pytest.mark.row("A-13")
async def test_a_failure_is_an_empty_object_and_the_reason_stands_in_the_log(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    for message in (b"", b"no json", b"[]", b'{"method":"getPlugins"}', b'{"method":"signCertificate"}'):
        line, letters, _ = dial(workshop)
        await tell(line, message)
        assert letters.sent == [FAILED]
        assert line.closing is None, "the app closes"
        await line.close()
    assert "refused to enrol Demo on bench ([::1]): message: getPlugins is not served here." in caplog.text
    assert workshop.enroller.outcomes.results["none", "message"] == 5


async def test_our_own_failure_is_answered_too(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*arguments: object) -> dict[str, object]:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(workshop.enroller, "serve", fail)
    line, letters, _ = dial(workshop)
    await tell(line, DesktopApp(tmp_path / "sonar").message())
    assert letters.sent == [b"{}"]
    assert "a bug" in caplog.text
    await line.close()


async def test_whoever_leaves_is_sent_nothing(workshop: Workshop, tmp_path: Path) -> None:
    line, letters, responder = dial(workshop)
    line.message_received(DesktopApp(tmp_path / "sonar").message())
    await asyncio.sleep(0)
    line.eof_received()
    await line._work.wait(30)
    assert letters.sent == []
    assert responder.turn is not Turn.WAITING


@pytest.mark.row("F-25")
async def test_an_app_that_does_not_find_its_files_is_told_of(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    line, letters, _ = dial(workshop)
    acknowledgement = {"method": "signCertificateAck", "isError": False, "hasRequiredFiles": False, "config": {}}
    for _ in range(3):
        line.message_received(json.dumps(acknowledgement).encode())
    line.eof_received()  # apps leave as soon as they have said so
    await until(lambda: "does not find its certificates" in caplog.text)
    assert letters.sent == []
    assert caplog.text.count("does not find") == 1


@pytest.mark.row("F-25")
@pytest.mark.parametrize(("query", "field"), [("os=BeOS&device=D&app=A", "os"), ("os=Linux&app=A", "device")])
def test_wrong_claims_are_named_and_reported(
    workshop: Workshop, caplog: pytest.LogCaptureFixture, query: str, field: str
) -> None:
    with pytest.raises(SetupRefused, match=f"field {field} "):
        claims_of(query, PEER.address, workshop.enroller)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert re.search(rf"refused to enrol .*\(\[::1\]\).*field {field} ", record.getMessage())


def test_rates_are_counted_by_host() -> None:
    assert [host_of(each) for each in ("127.0.0.1:1", "[::1]:1", "memory")] == ["127.0.0.1", "[::1]", "memory"]


def certificates(folder: Path) -> list[str]:
    return re.findall(r"-----BEGIN CERTIFICATE-----[^-]+", (folder / CA_FILE).read_text())


@pytest.mark.row("A-14")
@pytest.mark.parametrize("phase", ["stable", "prepared", "switched"])
async def test_a_new_app_gets_the_anchor_of_what_the_websocket_port_presents_first(
    workshop: Workshop, tmp_path: Path, phase: str
) -> None:
    """Android's SDK reads the first certificate of its file of anchors, and accepts nothing that this did not sign."""
    authority = workshop.authority
    if phase != "stable":
        authority.prepare()
    if phase == "switched":
        authority.switch()
    line, letters, _ = dial(workshop)
    app = DesktopApp(tmp_path / "sonar")
    await tell(line, app.message())
    assert "deviceId" in json.loads(letters.sent[0])
    presented = re.findall(r"-----BEGIN CERTIFICATE-----[^-]+", authority.serving().web.chain_pem.decode())
    assert len(presented) == 2
    assert certificates(app.folder)[0] == presented[1]
    await until(workshop.containers.all)
    (kept,) = workshop.containers.all()
    assert kept.knows_one_anchor, "before its first session: a rotation may reach it first"
    assert Claims.from_query(QUERY).os == "Linux"
    await line.close()


@pytest.mark.row("A-11")
async def test_the_modes_hold_here_too(tmp_path: Path) -> None:
    with open_workshop(tmp_path / "home", mode=Mode.TOKEN) as workshop:
        app = DesktopApp(tmp_path / "sonar")
        token = workshop.grants.make(app.app_id, now=datetime.now(UTC), life=timedelta(hours=1))[1]
        for message, succeeds in ((app.message(), False), (app.message(grant=app.grant(token)), True)):
            line, letters, _ = dial(workshop)
            await tell(line, message)
            assert ("deviceId" in json.loads(letters.sent[0])) is succeeds
            await line.close()
    with open_workshop(tmp_path / "other", mode=Mode.WINDOW) as workshop:
        workshop.gate.open_window(timedelta(hours=1), None)
        workshop.gate.barred.add("ws_insecure")
        app = DesktopApp(tmp_path / "second")
        line, letters, _ = dial(workshop)
        await tell(line, app.message())
        assert letters.sent == [FAILED], "the operator has closed this port"
        workshop.gate.barred.clear()
        again, more, _ = dial(workshop)
        await tell(again, app.message())
        assert "deviceId" in json.loads(more.sent[0])
        await line.close()
        await again.close()


@pytest.mark.row("A-13")
async def test_whoever_asks_too_often_is_slowed_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_workshop(tmp_path / "home", limits=EnrollmentLimits(per_peer=Rate(2, 0.001))) as workshop:
        app = DesktopApp(tmp_path / "sonar")
        answers = []
        for _ in range(4):
            line, letters, _ = dial(workshop)
            await tell(line, app.message())
            answers += letters.sent
            await line.close()
        assert [answer == FAILED for answer in answers] == [False, False, True, True]
        assert "asked too often" in caplog.text
