import asyncio
import io
import json
import socket
import time
from pathlib import Path

import pytest

from rsocket_broker.admin.run_folder import Ports, RunFolder
from rsocket_broker.cli.enroll import read_token, running_port
from rsocket_broker.client.enroll import signing_fields
from rsocket_broker.client.folder import AppFolder
from rsocket_broker.client.line import Address, open_plain
from rsocket_broker.client.profile import AppProfile
from rsocket_broker.client.responder import Refuser
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.errors import BrokerError, ConfigurationError, HomeError, RequestFailed
from rsocket_broker.jsontext import dump
from rsocket_broker.payload import Payload
from tests.cli.conftest import Start
from tests.end_to_end.processes import run_command


@pytest.mark.row("F-9", "F-36")
def test_a_certificate_for_this_machine(start: Start, tmp_path: Path) -> None:
    """The port is that of the broker that runs on the home: nobody has to know it."""
    broker = start()
    into = tmp_path / "app"
    done = broker.command("enroll", "com.example.app", "--into", str(into), "--json")
    assert done.returncode == 0, done.stderr
    enrolled = AppFolder(into).load()
    assert json.loads(done.stdout) == {
        "app_id": "com.example.app",
        "device_id": enrolled.device_id,
        "directory": str(into),
    }
    assert "PRIVATE KEY" not in done.stdout
    again = broker.command("enroll", "com.example.app", "--into", str(into))
    assert again.returncode == 0
    assert AppFolder(into).load().device_id == enrolled.device_id
    assert AppFolder(into).load().credentials != enrolled.credentials


def test_nobody_there_is_said_with_the_next_step(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        done = run_command(tmp_path, "enroll", "com.a", "--into", str(tmp_path / "a"), "--insecure-port", str(port))
    assert done.returncode == 1
    assert f"no broker answers at localhost port {port}" in done.stderr
    assert "rsocket-broker serve" in done.stderr
    assert not (tmp_path / "a").exists()


def test_a_refusal_is_the_brokers_words(start: Start, tmp_path: Path) -> None:
    broker = start()
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    done = broker.command("enroll", "com.example.app", "--into", str(folder))
    assert done.returncode == 1
    assert "chmod 700" in done.stderr


@pytest.mark.parametrize("app_id", ["a b", "-x", "../x", ""])
def test_an_id_that_no_certificate_can_carry_is_refused(tmp_path: Path, app_id: str) -> None:
    done = run_command(tmp_path, "enroll", "--into", str(tmp_path / "a"), "--", app_id)
    assert done.returncode == 1
    assert "is not an app id" in done.stderr


def test_another_hosts_broker_is_not_asked_on_our_port(tmp_path: Path) -> None:
    assert running_port(tmp_path, "broker.example") == 8089
    assert running_port(tmp_path / "none", "localhost") == 8089


def test_a_token_comes_from_a_private_file_or_from_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_token(None) is None
    file = tmp_path / "token"
    file.write_text("0123456789ab.secret\n")
    file.chmod(0o600)
    assert read_token(file) == "0123456789ab.secret"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"  from.stdin \n")))
    assert read_token(Path("-")) == "from.stdin"
    file.chmod(0o644)
    with pytest.raises(HomeError, match="chmod"):
        read_token(file)
    file.chmod(0o600)
    for content in (b"", b"\n", b"x" * 257, b"a\x1b[2Jb"):
        file.write_bytes(content)
        with pytest.raises((ConfigurationError, HomeError)):
            read_token(file)


def test_a_closed_port_is_told_and_no_other_broker_asked(tmp_path: Path) -> None:
    home = tmp_path / "home"
    folder = RunFolder(home)
    folder.acquire()
    try:
        folder.publish(Ports(pid=1, started=0.0, host="localhost", admin="/nowhere", secure_port=1))
        with pytest.raises(BrokerError, match=r"closed its port for enrolment.*\n.*enrollment open --for 10m"):
            running_port(home, "localhost")
    finally:
        folder.release()


@pytest.mark.row("D-6", "A-13")
async def test_with_nonces_required_our_sdk_enrols_and_flippers_is_told_why_not(start: Start, tmp_path: Path) -> None:
    broker = start("--require-nonce")
    into = tmp_path / "app"
    done = await asyncio.to_thread(broker.command, "enroll", "com.example.app", "--into", str(into))
    assert done.returncode == 0, done.stderr
    names = {"app.csr", "privateKey.pem", "sonarCA.crt", "device.crt", "connection_config.json"}
    while {path.name for path in into.iterdir()} != names:  # the nonce goes once it was answered
        await asyncio.sleep(0.01)
    old = tmp_path / "old"
    made = make_signing_request("com.example.old")
    made.save(old)
    fields = signing_fields(made.csr_pem.decode(), f"{old}/", time.time())
    del fields["nonce"]
    claims = AppProfile(app_id="com.example.old", app="Old").plain_claims()
    line = await open_plain(Address("localhost", broker.insecure_port), claims, Refuser())
    try:
        with pytest.raises(RequestFailed, match="proof: the request must be proven by a nonce"):
            await line.request_response(Payload(dump(fields)), timeout=20)
    finally:
        await line.close()
    assert sorted(path.name for path in old.iterdir()) == ["app.csr", "privateKey.pem"]
