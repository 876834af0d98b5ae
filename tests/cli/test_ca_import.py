import asyncio
import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from rsocket_broker.authority.home import certificate_pem
from rsocket_broker.authority.issue import Issuer, issue_leaf
from rsocket_broker.authority.keys import to_pem
from rsocket_broker.authority.names import to_uri
from rsocket_broker.authority.profiles import CLIENT, load_profile
from rsocket_broker.authority.requests import check_request
from rsocket_broker.client import connect
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.identity import Principal, Proof
from tests.authority.operators_ca import OperatorsCa, make_ca
from tests.cli.conftest import Ca, Start

NOW = datetime.now(UTC).replace(microsecond=0)
ROOT = make_ca("Company Root", number=130, now=NOW, age=timedelta(days=400), life=timedelta(days=3650))
OURS = make_ca("Company Issuing CA 1", ROOT, number=131, now=NOW)
NEXT = make_ca("Company Issuing CA 2", ROOT, number=132, now=NOW)
SIBLING = make_ca("Company Mail CA", ROOT, number=133, now=NOW)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def files_of(folder: Path, ours: OperatorsCa, passphrase: bytes | None = None) -> list[str | Path]:
    """The options that name the files of an operator's CA."""
    folder.mkdir(exist_ok=True)
    (folder / "ca.crt").write_bytes(certificate_pem(ours.certificate))
    (folder / "ca.key").write_bytes(to_pem(ours.key, passphrase))
    (folder / "ca.key").chmod(0o600)
    (folder / "root.crt").write_bytes(certificate_pem(ROOT.certificate))
    options = {"--certificate": "ca.crt", "--key": "ca.key", "--chain": "root.crt"}
    return [word for option, name in options.items() for word in (option, folder / name)]


def shown(ca: Ca, *arguments: str | Path) -> Any:
    code, out, err = ca(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_a_new_home_begins_with_the_operators_ca(ca: Ca, home: Path, tmp_path: Path) -> None:
    told = shown(ca, "import", *files_of(tmp_path / "files", OURS))
    assert told["generation"] == 1
    assert told["chain"] == ["CN=Company Issuing CA 1,O=Example", "CN=Company Root,O=Example"]
    assert [each["served"] for each in told["clients"]] == [True] * 4
    assert "exactly two certificates" in told["clients"][0]["detail"]
    assert ca("verify")[0] == 0
    assert ca("export")[1].encode() == certificate_pem(ROOT.certificate)
    assert ca("export", "--what", "ca")[1].encode() == certificate_pem(OURS.certificate)
    chain = ca("export", "--what", "chain")[1].encode()
    assert x509.load_pem_x509_certificates(chain) == [OURS.certificate, ROOT.certificate]
    assert ca("issue", "--app-id", "org.example.app", "--out", tmp_path / "client")[0] == 0
    assert (tmp_path / "client" / "sonarCA.crt").read_bytes() == certificate_pem(ROOT.certificate)
    (tmp_path / "ours").write_bytes(certificate_pem(OURS.certificate))
    command = ["openssl", "verify", "-x509_strict", "-CAfile", "files/root.crt", "-untrusted", "ours"]
    done = subprocess.run([*command, "client/device.crt"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "client/device.crt: OK\n", done.stderr


@pytest.mark.row("A-24")
def test_keys_are_opened_and_kept_with_passphrases(ca: Ca, home: Path, tmp_path: Path) -> None:
    for name in ("theirs", "ours"):
        (tmp_path / name).write_text(f"{name}: open sesame\n")
        (tmp_path / name).chmod(0o600)
    options = files_of(tmp_path / "files", OURS, b"theirs: open sesame")
    code, _, err = ca("import", *options)
    assert code == 1
    assert "--key-passphrase-file" in err
    options += ["--key-passphrase-file", tmp_path / "theirs", "--passphrase-file", tmp_path / "ours"]
    assert ca("import", *options)[0] == 0
    assert b"ENCRYPTED" in (home / "ca" / "1" / "ca.key").read_bytes()
    assert ca("verify", "--passphrase-file", tmp_path / "ours")[0] == 0


def test_in_a_home_with_a_ca_it_becomes_the_next_generation(ca: Ca, home: Path, tmp_path: Path) -> None:
    assert ca("init")[0] == 0
    code, out, err = ca("import", *files_of(tmp_path / "files", OURS))
    assert code == 0
    assert "Generation 2 is CN=Company Issuing CA 1,O=Example" in out
    assert "ca rotate switch" in err
    trusted = x509.load_pem_x509_certificates(ca("export")[1].encode())
    assert trusted[0] == ROOT.certificate
    assert len(trusted) == 2
    assert ca("export", "--what", "cross")[0] == 1
    code, _, err = ca("import", *files_of(tmp_path / "files", NEXT))
    assert code == 1
    assert "prepared already" in err


def test_what_cannot_be_ours_leaves_no_home(ca: Ca, home: Path, tmp_path: Path) -> None:
    options = files_of(tmp_path / "files", make_ca("No CA", ROOT, number=134, now=NOW, ca=False))
    code, _, err = ca("import", *options)
    assert code == 1
    assert "is no CA" in err
    assert not home.exists()


def test_a_ca_that_was_lost_is_not_replaced_in_silence(ca: Ca, home: Path, tmp_path: Path) -> None:
    assert ca("init")[0] == 0
    shutil.rmtree(home / "ca")
    code, _, err = ca("import", *files_of(tmp_path / "files", OURS))
    assert code == 1
    assert "is missing" in err
    assert not (home / "ca" / "1").exists()


def test_the_crl_is_pointed_to(ca: Ca, start: Start, home: Path) -> None:
    broker = start("--http-port", "0", home=home)
    assert ca("export", "--what", "crl")[1] == f"http://localhost:{broker.ports['http_port']}/crl\n"
    broker.stop()
    assert ca("export", "--what", "crl")[1].startswith("rsocket-broker ca crl")


async def test_a_broker_serves_those_who_trust_the_root_and_no_other_ca_below_it(
    ca: Ca, start: Start, home: Path, tmp_path: Path
) -> None:
    assert ca("import", *files_of(tmp_path / "files", OURS))[0] == 0
    broker = start(home=home)
    folder, ports = tmp_path / "app", {"insecure_port": broker.insecure_port, "secure_port": broker.secure_port}
    web = f"wss://localhost:{broker.ports['ws_secure_port']}/rsocket"
    for way in (None, web):
        async with connect(
            app_id="org.example.app", app="Example", directory=folder, websocket=way, timeout=20, **ports
        ) as session:
            assert await session.request("echo.request", "hello") == "hello"
    assert (folder / "sonarCA.crt").read_bytes() == certificate_pem(ROOT.certificate)
    assert shake_hands(tmp_path, broker.secure_port, folder) == (0, 2)
    assert shake_hands(tmp_path, broker.ports["ws_secure_port"], folder) == (0, 2)
    assert shake_hands(tmp_path, broker.secure_port, stranger(tmp_path / "stranger"))[0] != 0
    broker.stop()


def stranger(folder: Path) -> Path:
    """A client of another CA below the same root, with our names in its certificate."""
    folder.mkdir()
    made = make_signing_request("org.example.app")
    request = check_request(made.csr_pem)
    names = [x509.UniformResourceIdentifier(to_uri(Principal("org.example.app", "", Proof.FILESYSTEM), 1))]
    issuer = Issuer(1, SIBLING.certificate, SIBLING.key)
    leaf = issue_leaf(load_profile(CLIENT), request.public_key, names, issuer, 99, NOW, common_name="org.example.app")
    (folder / "privateKey.pem").write_bytes(made.key_pem)
    (folder / "device.crt").write_bytes(certificate_pem(leaf) + certificate_pem(SIBLING.certificate))
    return folder


def shake_hands(folder: Path, port: int, client: Path) -> tuple[int, int]:
    """The exit code of a handshake that openssl makes with the root alone as its anchor, and the certificates sent."""
    command = ["openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{port}", "-CAfile", "files/root.crt"]
    command += ["-cert", str(client / "device.crt"), "-key", str(client / "privateKey.pem"), "-cert_chain"]
    command += [str(client / "device.crt"), "-verify_return_error", "-showcerts"]
    done = subprocess.run(command, cwd=folder, input="", capture_output=True, text=True, timeout=20)
    return done.returncode, done.stdout.count("BEGIN CERTIFICATE")


@pytest.mark.row("A-14")
async def test_a_broker_that_runs_moves_to_the_operators_ca_and_on_below_the_same_root(
    start: Start, home: Path, tmp_path: Path
) -> None:
    """The session stays, and what the client holds is good with every anchor on the way."""
    broker = start(home=home)
    folder, ports = tmp_path / "app", {"insecure_port": broker.insecure_port, "secure_port": broker.secure_port}
    async with connect(app_id="org.example.app", app="Example", directory=folder, timeout=20, **ports) as session:
        for generation, ours in ((2, OURS), (3, NEXT)):
            options = [str(word) for word in files_of(tmp_path / f"files{generation}", ours)]
            told = await asyncio.to_thread(broker.command, "ca", "import", *options, "--json")
            assert told.returncode == 0, told.stderr
            assert json.loads(told.stdout)["generation"] == generation
            for step in ("switch", "finish"):
                done = await asyncio.to_thread(broker.command, "ca", "rotate", step, timeout=60)
                assert done.returncode == 0, done.stderr
            assert await session.request("echo.request", generation) == generation
            assert session.connections == 1
            held = x509.load_pem_x509_certificates((folder / "device.crt").read_bytes())
            assert held[1:] == [ours.certificate]
            held[0].verify_directly_issued_by(ours.certificate)
            assert (folder / "sonarCA.crt").read_bytes() == certificate_pem(ROOT.certificate)
    async with connect(app_id="org.example.app", app="Example", directory=folder, timeout=20, **ports) as session:
        assert await session.request("echo.request", "again") == "again"
    broker.stop()


@pytest.mark.row("A-14")
def test_away_from_the_operators_ca_those_who_trust_its_root_alone_still_verify(
    ca: Ca, start: Start, home: Path, tmp_path: Path
) -> None:
    assert ca("import", *files_of(tmp_path / "files", OURS))[0] == 0
    assert ca("issue", "--app-id", "org.example.app", "--out", tmp_path / "client")[0] == 0
    for step in ("prepare", "switch"):
        assert ca("rotate", step)[0] == 0
    assert ca("export", "--what", "cross")[0] == 0
    broker = start(home=home)
    code, sent = shake_hands(tmp_path, broker.secure_port, tmp_path / "client")
    assert (code, sent) == (0, 3), "leaf, the new root by the old CA, and that CA below the old root"
    assert ca("export", "--what", "ca", "--out", tmp_path / "files" / "root.crt")[0] == 0
    assert shake_hands(tmp_path, broker.secure_port, tmp_path / "client")[0] == 0, "and those who trust the new one"
    broker.stop()
