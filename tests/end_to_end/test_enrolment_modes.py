"""The modes of enrolment with clients that are not ours: the library of Flipper's server, and frames by hand."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.processes import BrokerProcess, run_here, start_broker
from tests.foreign.conftest import run_js_app
from tests.foreign.sdk_folder import EnrollmentFailed, enrol, make_folder

APP_ID = "org.example.foreign"


def refused(port: int) -> bool:
    """Whether the kernel refuses a connection, at both addresses of localhost; nothing else counts."""
    outcomes = set()
    for host in ("127.0.0.1", "::1"):
        try:
            socket.create_connection((host, port), 5).close()
        except ConnectionRefusedError:
            outcomes.add(True)
        else:
            outcomes.add(False)
    (outcome,) = outcomes
    return outcome


def told(broker: BrokerProcess, *arguments: str) -> str:
    code, said = run_here(broker.home, *arguments)
    assert code == 0, said
    return said


def granted(broker: BrokerProcess, *options: str) -> str:
    """The token of a new grant."""
    return told(broker, "enrollment", "grant", *options).split()[0]


def shown(token: str, folder: Path) -> str:
    """The grant for the request in that folder, by the words of docs/reference/wire.md and no code of ours."""
    number, secret = token.split(".")
    request = hashlib.sha256((folder / "app.csr").read_bytes().replace(b"\r", b"").strip()).digest()
    key = hashlib.sha256(secret.encode()).digest()
    proof = hmac.new(key, b"rsocket_broker grant 1\0" + request, hashlib.sha256).digest()
    return f"{number}.{base64.urlsafe_b64encode(proof).decode().rstrip('=')}"


def opened(broker: BrokerProcess, *options: str) -> int:
    """The port, once a window is open; `broker.ports` are those of that moment."""
    found = json.loads(told(broker, "enrollment", "open", "--json", *options))
    broker.ports = json.loads((broker.home / "run" / "ports.json").read_text())
    assert broker.insecure_port == found["insecure_port"]
    return broker.insecure_port


@pytest.fixture
def by_window(tmp_path: Path) -> Iterator[BrokerProcess]:
    running = start_broker(tmp_path / "home", "--enrollment", "window")
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.mark.row("A-11", "M-24")
async def test_a_flipper_app_comes_through_the_window_and_stays_when_it_closes(
    by_window: BrokerProcess, node_path: Path, tmp_path: Path
) -> None:
    """It also does what only it does: acknowledge on a port that has closed behind it, and use its session."""
    broker = by_window
    port = await asyncio.to_thread(opened, broker, "--for", "1h", "--uses", "1")
    folder = make_folder(tmp_path / "sonar", APP_ID)
    async with run_js_app(broker, node_path, folder, APP_ID, plugins=["Screen"], backgroundPlugins=[]) as app:
        await app.heard("enrolled")
        await app.heard("asked", method="getPlugins")
        assert await asyncio.to_thread(refused, port)
        status = json.loads(await asyncio.to_thread(told, broker, "enrollment", "status", "--json"))
        assert status == {"mode": "window", "window": None, "insecure_port": None, "ws_insecure_port": None}
        params = json.dumps({"text": "abc"})
        call = ("clients", "call", APP_ID, "Screen", "reverse", params)
        assert json.loads(await asyncio.to_thread(told, broker, *call)) == {"text": "cba"}


@pytest.mark.row("A-11")
def test_the_window_of_a_killed_broker_is_closed_when_it_is_back(by_window: BrokerProcess, tmp_path: Path) -> None:
    port = opened(by_window, "--for", "1h")
    assert not refused(port)
    by_window.stop(signal.SIGKILL)
    again = start_broker(by_window.home, "--enrollment", "window", insecure_port=port)
    try:
        assert again.ports["insecure_port"] is None and refused(port)
        assert json.loads(told(again, "enrollment", "status", "--json"))["window"] is None
    finally:
        assert again.stop() == 0
        by_window.process = again.process


@pytest.mark.row("A-07", "A-10", "A-13", "M-14")
def test_by_token_each_foreign_client_is_told_its_reason(tmp_path: Path) -> None:
    broker = start_broker(tmp_path / "home", "--enrollment", "token")
    try:
        folder = make_folder(tmp_path / "sonar", APP_ID)
        token = granted(broker, "--app", APP_ID)
        elsewhere = granted(broker, "--app", APP_ID, "--device", "emulator-5554")
        foreign = granted(broker, "--app", "org.example.other")
        for fields, words in (
            ({}, r"^token: .*the request has none.*--enrollment window"),
            ({"token": token}, r'^message: the field token is not taken.*"grant": "ID.PROOF"'),
            ({"grant": 5}, "^message: the field grant must be text"),
            ({"grant": "x" * 300}, "^message: the field grant is longer"),
            ({"grant": token}, "^token: the token is none of this broker's"),
            ({"grant": shown(token[:-2] + "__", folder)}, "^token: the token is none of this broker's"),
            ({"grant": shown(foreign, folder)}, "^token: the token is for another app"),
            ({"grant": shown(elsewhere, folder)}, "^token: the token is for another device"),
        ):
            with pytest.raises(EnrollmentFailed, match=words):
                enrol(folder, APP_ID, broker.insecure_port, **fields)
        assert enrol(folder, APP_ID, broker.insecure_port, grant=shown(token, folder))["deviceId"]
        with pytest.raises(EnrollmentFailed, match=r"^token: the token was used already"):
            enrol(folder, APP_ID, broker.insecure_port, grant=shown(token, folder))

        broker.stop(signal.SIGKILL)
        broker = start_broker(tmp_path / "home", "--enrollment", "token")
        with pytest.raises(EnrollmentFailed, match=r"^token: the token was used already"):
            enrol(folder, APP_ID, broker.insecure_port, grant=shown(token, folder))
        answers = []
        while not answers or answers[-1].startswith("token: "):
            with pytest.raises(EnrollmentFailed) as caught:
                enrol(folder, APP_ID, broker.insecure_port, grant="guess")
            answers.append(str(caught.value))
        assert re.search(r"^limits: .* Try again in \d+ s", answers[-1])
        assert len(answers) < 50
    finally:
        broker.stop()
