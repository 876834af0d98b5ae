import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from rsocket_broker.credentials import Credentials, make_signing_request
from tests.cli.conftest import Ca


def as_json(ca: Ca, *arguments: str | Path) -> Any:
    code, out, err = ca(*arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


@pytest.mark.row("F-11")
def test_init_makes_one_ca_and_says_when_there_is_one(ca: Ca, tmp_path: Path) -> None:
    new = tmp_path / "new"
    code, out, _ = ca("init", home=new)
    assert code == 0
    assert f"{new} now has a certificate authority" in out
    code, again, _ = ca("init", home=new)
    assert code == 0
    assert again == out.replace("now has", "already has")


@pytest.mark.parametrize(
    "command", [["show"], ["list"], ["export"], ["verify"], ["issue", "--app-id", "a", "--out", "x"]]
)
def test_without_a_ca_the_next_step_is_named(ca: Ca, tmp_path: Path, command: list[str]) -> None:
    code, out, err = ca(*command, home=tmp_path / "empty")
    assert (code, out) == (1, "")
    assert err == f"Error: There is no certificate authority in {tmp_path}/empty. Make one: rsocket-broker ca init\n"
    assert not (tmp_path / "empty").exists()


def test_show_describes_the_ca(ca: Ca, home: Path) -> None:
    shown = as_json(ca, "show")
    assert shown["home"] == str(home)
    assert shown["generation"] == 1
    assert shown["key"] == "RSA 2048"
    assert shown["key_encrypted"] is False
    assert shown["issued_to_clients"] == 0
    _, out, _ = ca("show")
    assert f"fingerprint        {shown['fingerprint']}" in out


@pytest.mark.row("F-17", "M-12")
def test_issue_fills_a_folder_that_a_client_loads(ca: Ca, tmp_path: Path) -> None:
    folder = tmp_path / "client"
    code, out, _ = ca("issue", "--app-id", "org.example.app", "--device-id", "bench-3", "--out", folder)
    assert code == 0
    assert "org.example.app@bench-3 (operator)" in out
    assert {path.name for path in folder.iterdir()} == {
        "app.csr",
        "privateKey.pem",
        "sonarCA.crt",
        "device.crt",
        "connection_config.json",
    }
    assert json.loads((folder / "connection_config.json").read_text()) == {"deviceId": "bench-3", "medium": 1}
    Credentials.load(folder)
    listed = as_json(ca, "list", "--app", "org.example.app")
    assert [(row["device_id"], row["proof"], row["profile"], row["status"]) for row in listed] == [
        ("bench-3", "operator", "client", "active")
    ]
    serial = x509.load_pem_x509_certificate((folder / "device.crt").read_bytes()).serial_number
    assert listed[0]["serial"] == f"{serial:x}"
    code, _, err = ca("issue", "--app-id", "org.example.app", "--out", folder)
    assert code == 1
    assert "holds a privateKey.pem already" in err
    assert len(as_json(ca, "list")) == 3


@pytest.mark.row("F-9", "F-10")
def test_issue_for_a_request_verifies_with_openssl(ca: Ca, tmp_path: Path) -> None:
    made = make_signing_request("org.example.app")
    (tmp_path / "app.csr").write_bytes(made.csr_pem)
    code, out, err = ca("issue", tmp_path / "app.csr")
    assert code == 0
    assert "Issued" in err
    certificate = x509.load_pem_x509_certificate(out.encode())
    assert certificate.public_key() == x509.load_pem_x509_csr(made.csr_pem).public_key()
    code, _, _ = ca("issue", tmp_path / "app.csr", "--profile", "operator", "--out", tmp_path / "device.crt")
    assert code == 0
    assert ca("export", "--out", tmp_path / "ca.crt")[0] == 0
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca.crt", "device.crt"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout == "device.crt: OK\n"


def test_a_request_for_a_longer_id_needs_it_named(ca: Ca, tmp_path: Path) -> None:
    app_id = "org.example." + "long" * 20
    (tmp_path / "app.csr").write_bytes(make_signing_request(app_id).csr_pem)
    code, _, err = ca("issue", tmp_path / "app.csr")
    assert code == 2
    assert "give --app-id" in err
    assert ca("issue", tmp_path / "app.csr", "--app-id", app_id)[0] == 0
    assert as_json(ca, "list", "--app", app_id)[0]["subject"] == "CN=com.flipper"


@pytest.mark.row("A-06", "F-28")
def test_issue_refuses_what_enrolment_refuses(ca: Ca, tmp_path: Path) -> None:
    (tmp_path / "app.csr").write_text("hello")
    code, out, err = ca("issue", tmp_path / "app.csr")
    assert (code, out) == (1, "")
    assert err.startswith("Error: signing request: it is not a PEM certificate request.")
    assert len(as_json(ca, "list")) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["issue"],
        ["issue", "--app-id", "a"],
        ["issue", "--out", "x"],
        ["issue", "--app-id", "a", "--out", "-"],
        ["issue", "--app-id", "../a", "--out", "x"],
        ["issue", "--app-id", "a", "--out", "x", "--profile", "root"],
        ["export", "--serial", "xyz"],
        ["rotate"],
    ],
)
def test_wrong_usage_is_said_with_exit_code_2(ca: Ca, arguments: list[str]) -> None:
    code, out, err = ca(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert not Path("x").exists()


@pytest.mark.row("A-24")
def test_verify_passes_a_sound_home_and_names_each_fault(ca: Ca, home: Path) -> None:
    code, out, _ = ca("verify")
    assert code == 0
    assert out.count(" ok\n") == 10
    (home / "ca" / "1" / "ca.key").chmod(0o640)
    code, out, err = ca("verify")
    assert code == 1
    assert f"chmod 600 {home}/ca/1/ca.key" in out
    assert err == "Error: 1 of 10 checks failed; each says what to do.\n"
    code, out, _ = ca("verify", "--json")
    assert code == 1
    assert [each["what"] for each in json.loads(out) if each["problem"]] == ["CA key, generation 1"]


def test_verify_judges_a_certificate(ca: Ca, tmp_path: Path) -> None:
    assert ca("issue", "--app-id", "org.example.app", "--out", tmp_path / "client")[0] == 0
    code, out, _ = ca("verify", tmp_path / "client" / "device.crt")
    assert code == 0
    assert "signature  ok" in out
    assert ca("init", home=tmp_path / "other")[0] == 0
    code, out, err = ca("verify", tmp_path / "client" / "device.crt", home=tmp_path / "other")
    assert code == 1
    assert "No CA of this home signed it." in out
    assert "2 of 3 checks failed" in err
    code, _, err = ca("verify", tmp_path / "client" / "app.csr")
    assert code == 1
    assert "does not hold a PEM certificate" in err
    code, _, err = ca("verify", tmp_path / "nothing")
    assert code == 1
    assert "No such file" in err


@pytest.mark.row("F-16")
def test_export_writes_public_parts_only(ca: Ca, tmp_path: Path, home: Path) -> None:
    code, out, _ = ca("export")
    assert code == 0
    assert out == (home / "ca" / "1" / "ca.crt").read_text()
    assert "PRIVATE" not in out
    assert ca("export", "--out", tmp_path / "ca.crt")[0] == 0
    assert (tmp_path / "ca.crt").read_text() == out
    serial = as_json(ca, "list")[1]["serial"]
    code, out, _ = ca("export", "--serial", serial)
    assert f"{x509.load_pem_x509_certificate(out.encode()).serial_number:x}" == serial
    code, _, err = ca("export", "--serial", "abc")
    assert code == 1
    assert "rsocket-broker ca list" in err


@pytest.mark.row("A-24")
def test_a_passphrase_file_keeps_the_key_encrypted(ca: Ca, tmp_path: Path) -> None:
    home, passphrase = tmp_path / "locked", tmp_path / "passphrase"
    passphrase.write_text("open sesame\n")
    passphrase.chmod(0o644)
    code, _, err = ca("init", "--passphrase-file", passphrase, home=home)
    assert code == 1
    assert "chmod 600" in err
    passphrase.chmod(0o600)
    assert ca("init", "--passphrase-file", passphrase, home=home)[0] == 0
    assert b"ENCRYPTED" in (home / "ca" / "1" / "ca.key").read_bytes()
    assert json.loads(ca("show", "--json", home=home)[1])["key_encrypted"] is True
    issue = ["issue", "--app-id", "a", "--out", tmp_path / "client"]
    code, _, err = ca(*issue, home=home)
    assert code == 1
    assert "--passphrase-file" in err
    assert ca(*issue, "--passphrase-file", passphrase, home=home)[0] == 0
    passphrase.write_text("\n")
    assert "holds no passphrase" in ca("verify", "--passphrase-file", passphrase, home=home)[2]


def test_a_list_of_nothing_says_so(ca: Ca) -> None:
    code, out, err = ca("list", "--app", "org.example.nobody")
    assert (code, out) == (0, "")
    assert "No certificate was issued to that app." in err


def test_each_public_part_has_a_name(ca: Ca, home: Path) -> None:
    own = (home / "ca" / "1" / "ca.crt").read_text()
    for what in ("trust", "ca", "chain"):
        assert ca("export", "--what", what)[:2] == (0, own)
    code, _, err = ca("export", "--what", "cross")
    assert code == 1
    assert "ca rotate switch" in err
    assert ca("export", "--what", "key")[0] == 2
