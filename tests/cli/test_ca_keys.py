import json
import shutil
from pathlib import Path

import pytest
from keyring.backends.fail import Keyring as NoKeyring
from keyrings.alt.file import PlaintextKeyring

from rsocket_broker.authority import Authority
from rsocket_broker.state import State
from tests.cli.conftest import Ca, Start
from tests.end_to_end.processes import run_command


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a real key ring, for this process and for those that the test starts."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyrings.alt.file.PlaintextKeyring")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr("keyring.core._keyring_backend", PlaintextKeyring())
    return tmp_path / "data" / "python_keyring" / "keyring_pass.cfg"


def secret(path: Path, text: str) -> Path:
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return path


@pytest.mark.row("A-24")
def test_a_home_that_began_with_the_key_ring_needs_no_option(ca: Ca, ring: Path, start: Start, tmp_path: Path) -> None:
    home = tmp_path / "new"
    code, _, err = ca("init", "--keyring", home=home)
    assert (code, err) == (0, "")
    assert ring.exists()
    assert b"ENCRYPTED" in (home / "ca" / "1" / "ca.key").read_bytes()
    assert start(home=home).stop() == 0
    assert ca("issue", "--app-id", "a", "--out", tmp_path / "client", home=home)[0] == 0
    status = json.loads(ca("passphrase", "status", "--json", home=home)[1])
    assert status["generations"] == [{"generation": 1, "encrypted": True}]
    assert status["key_ring"]["account"].startswith("new-")
    assert ca("init", "--keyring", home=home)[2].endswith("ca passphrase set --keyring\n")
    shutil.rmtree(ring.parent)
    code, _, err = ca("issue", "--app-id", "a", "--out", tmp_path / "client2", home=home)
    assert code == 1
    assert f"no entry {status['key_ring']['account']}" in err
    assert "--passphrase-file" in err


@pytest.mark.row("A-24")
def test_the_passphrase_is_set_changed_saved_and_removed(ca: Ca, home: Path, ring: Path, tmp_path: Path) -> None:
    one, two = secret(tmp_path / "one", "the first passphrase"), secret(tmp_path / "two", "the second passphrase")
    assert "in the clear" in ca("passphrase", "status")[1]
    assert ca("passphrase", "set", "--passphrase-file", one)[0] == 0
    assert "set already" in ca("passphrase", "set", "--keyring")[2]
    assert "does not open" in ca("passphrase", "change", "--passphrase-file", two, "--keyring")[2]
    assert ca("passphrase", "change", "--passphrase-file", one, "--new-passphrase-file", two)[0] == 0
    assert "no passphrase in the key ring" in ca("passphrase", "save", tmp_path / "saved")[2]
    code, out, _ = ca("passphrase", "change", "--passphrase-file", two, "--keyring")
    assert code == 0
    assert "in this user's key ring" in out
    assert ca("verify")[0] == 0
    assert ca("passphrase", "save", tmp_path / "saved")[0] == 0
    assert (tmp_path / "saved").stat().st_mode & 0o777 == 0o600
    assert "exists" in ca("passphrase", "save", tmp_path / "saved")[2]
    assert ca("verify", "--passphrase-file", tmp_path / "saved")[0] == 0
    shutil.rmtree(ring.parent)
    assert ca("passphrase", "remove")[0] == 1
    assert ca("passphrase", "remove", "--passphrase-file", tmp_path / "saved")[0] == 0
    assert not (home / "ca" / "passphrase.json").exists()
    assert "No passphrase is set" in ca("passphrase", "change", "--keyring")[2]
    said = run_command(home, "audit", "export").stdout
    assert [word in said for word in ("passphrase set", "passphrase change", "passphrase remove")] == [True] * 3
    assert "the first" not in said
    assert ca("verify")[0] == 0


def test_where_there_is_no_key_ring_it_says_what_to_do(ca: Ca, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr("keyring.core._keyring_backend", NoKeyring())
    before = (home / "ca" / "1" / "ca.key").read_bytes()
    code, _, err = ca("passphrase", "set", "--keyring")
    assert code == 1
    assert "--passphrase-file" in err
    assert (home / "ca" / "1" / "ca.key").read_bytes() == before


def test_nothing_is_changed_under_a_broker_that_runs(start: Start, tmp_path: Path) -> None:
    broker = start()
    done = broker.command("ca", "passphrase", "set", "--passphrase-file", str(secret(tmp_path / "p", "a passphrase")))
    assert done.returncode == 1
    assert f"A broker (pid {broker.process.pid}) runs" in done.stderr
    broker.stop()


@pytest.mark.parametrize("command", [["set"], ["change"]])
def test_a_passphrase_must_come_from_somewhere(ca: Ca, command: list[str]) -> None:
    code, _, err = ca("passphrase", *command)
    assert code == 2
    assert "--keyring, or both" in err


@pytest.mark.row("A-24", "D-15")
def test_a_generation_that_a_kill_left_beside_its_place_gets_the_passphrase_too(
    ca: Ca, home: Path, tmp_path: Path
) -> None:
    with State.open(home / "state.db") as state:
        Authority.open(home, state).prepare()
    (home / "ca" / "2").rename(home / "ca" / ".new")
    one = secret(tmp_path / "one", "the first passphrase")
    code, out, err = ca("passphrase", "set", "--passphrase-file", one)
    assert code == 0, err
    assert out.count("encrypted") == 2
    assert ca("verify", "--passphrase-file", one)[0] == 0
    (home / "ca" / "2").rename(home / "ca" / ".new")
    assert run_command(home, "home", "backup", "--out", str(tmp_path / "b")).returncode == 0
    told = run_command(home, "home", "verify", str(tmp_path / "b"), "--json")
    assert json.loads(told.stdout)["generations"] == [1, 2]


@pytest.mark.row("A-24", "A-14")
def test_the_next_generation_is_kept_as_the_current_one_is(ca: Ca, ring: Path, tmp_path: Path) -> None:
    home = tmp_path / "new"
    assert ca("init", "--keyring", home=home)[0] == 0
    for step in ("prepare", "switch"):
        assert ca("rotate", step, home=home)[0] == 0
    status = json.loads(ca("passphrase", "status", "--json", home=home)[1])
    assert [each["encrypted"] for each in status["generations"]] == [True, True]
    assert ca("passphrase", "change", "--keyring", home=home)[0] == 0
    assert ca("rotate", "finish", home=home)[0] == 0
    assert ca("issue", "--app-id", "a", "--out", tmp_path / "client", home=home)[0] == 0
    assert ring.read_text().count("new") == 1, "of the entries before nothing is left"
