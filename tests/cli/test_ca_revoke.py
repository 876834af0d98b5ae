"""`ca revoke`, `unblock`, `blocks` and `crl`, on a home alone and through a broker."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.cli.main import run
from tests.cli.conftest import Ca, Start


@pytest.fixture(scope="module")
def made_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a certificate for org.example.app on two devices."""
    folder = tmp_path_factory.mktemp("ca")
    home = folder / "home"
    assert run(["--home", str(home), "ca", "init"]) == 0
    for device in ("d1", "d2"):
        options = ["--app-id", "org.example.app", "--device-id", device, "--out", str(folder / device)]
        assert run(["--home", str(home), "ca", "issue", *options]) == 0
    return home


def listed(ca: Ca, *arguments: str) -> list[dict[str, Any]]:
    code, out, err = ca(*arguments, "--json")
    assert code == 0, err
    found: list[dict[str, Any]] = json.loads(out)
    return found


def statuses(ca: Ca) -> dict[str, str]:
    return {row["device_id"]: row["status"] for row in listed(ca, "list", "--app", "org.example.app")}


@pytest.mark.row("D-3")
def test_on_a_home_alone_the_same_is_written_down(ca: Ca, tmp_path: Path) -> None:
    code, out, err = ca("revoke", "--client", "org.example.app@d1", "--reason", "stolen phone", "--json")
    assert (code, err) == (0, "")
    receipt = json.loads(out)
    assert (receipt["certificates"], receipt["sessions"], receipt["blocks"]) == (1, 0, ["client org.example.app@d1"])
    assert receipt["last_frame_ms"] is None
    assert statuses(ca) == {"d1": "revoked", "d2": "active"}
    code, out, _ = ca("blocks")
    assert code == 0
    assert re.search(r"client +org\.example\.app +d1 .*stolen phone", out)
    folder = str(tmp_path / "out")
    code, _, err = ca("issue", "--app-id", "org.example.app", "--device-id", "d1", "--out", folder)
    assert code == 1
    assert "stolen phone" in err and "ca unblock --client org.example.app@d1" in err
    code, _, err = ca("unblock", "--client", "org.example.app@d1")
    assert code == 0
    assert "client org.example.app@d1 may have certificates again" in err
    assert listed(ca, "blocks") == []


def test_a_serial_number_withdraws_one_certificate_and_says_what_else_there_is(ca: Ca, tmp_path: Path) -> None:
    first, _ = listed(ca, "list", "--app", "org.example.app")
    code, out, err = ca("revoke", first["serial"].upper())
    assert (code, err) == (0, "")
    assert re.search(rf"revoked +certificate {first['serial']}\n", out)
    code, _, err = ca("revoke", first["serial"])
    assert (code, err) == (0, "Already revoked before: 1.\n")
    assert listed(ca, "blocks") == []


def test_everything_before_a_day(ca: Ca) -> None:
    code, _, err = ca("revoke", "--all-before", "2020-01-01")
    assert code == 0
    assert "No certificate that is still good is named by it." in err
    assert ca("revoke", "--all-before", "2999-01-01")[0] == 0
    assert set(statuses(ca).values()) == {"revoked"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "Give one of SERIAL, --client, --app, --device or --all-before."),
        (["12", "--app", "a"], 2, "Give only one of"),
        (["zz"], 2, "not a serial number"),
        (["12"], 1, "ever issued"),
        (["--all-before", "yesterday"], 2, "write one such as 2026-03-01"),
        (["--client", "org.example.app"], 1, "2 devices: org.example.app@d1, org.example.app@d2"),
    ],
)
def test_what_cannot_be_revoked_is_said(ca: Ca, arguments: list[str], code: int, words: str) -> None:
    found, _, err = ca("revoke", *arguments)
    assert found == code
    assert words in err


@pytest.mark.row("A-23")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_others_verify_by_the_list(ca: Ca, made_home: Path, tmp_path: Path) -> None:
    ca("revoke", "--client", "org.example.app@d1")
    assert ca("export", "--out", tmp_path / "ca.pem")[0] == 0
    assert ca("crl", "--out", tmp_path / "crl.pem")[0] == 0
    assert ca("crl", "--der", "--out", tmp_path / "crl.der")[0] == 0
    assert len(x509.load_der_x509_crl((tmp_path / "crl.der").read_bytes())) == 1

    def verify(device: str) -> str:
        command = ["openssl", "verify", "-crl_check", "-CAfile", "ca.pem", "-CRLfile", "crl.pem"]
        certificate = str(made_home.parent / device / "device.crt")
        done = subprocess.run([*command, certificate], cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    assert verify("d2").endswith("OK\n")
    assert "certificate revoked" in verify("d1")


def test_no_broker_starts_while_a_home_is_worked_on_and_one_that_runs_is_asked(
    ca: Ca, home: Path, start: Start
) -> None:
    folder = RunFolder(home)
    folder.acquire()
    try:
        code, _, err = ca("revoke", "--app", "org.example.app")
        assert code == 1
        assert "no broker runs" in err, "it holds the lock and answers nobody"
    finally:
        folder.release()
    broker = start()
    receipt = json.loads(ca("revoke", "--app", "org.example.app", "--json")[1])
    assert receipt["certificates"] == 2 and receipt["last_frame_ms"] is not None
    code, out, err = ca("revoke", "--app", "org.example.app")
    assert code == 0
    assert re.search(r"last frame written after +[0-9.]+ ms", out)
    assert json.loads(ca("unblock", "--app", "org.example.app", "--json")[1])["app_id"] == "org.example.app"
    assert len(x509.load_pem_x509_crl(ca("crl")[1].encode())) == 2
    assert broker.stop() == 0


@pytest.mark.parametrize("command", [["revoke", "12"], ["unblock", "--app", "a"], ["blocks"], ["crl"]])
def test_without_a_ca_the_next_step_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert run(["--home", str(tmp_path / "nothing"), "ca", *command]) == 1
    assert "rsocket-broker ca init" in capfd.readouterr().err
    assert not (tmp_path / "nothing").exists()
