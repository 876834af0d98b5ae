import json
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from rsocket_broker.authority import Authority
from rsocket_broker.cli.main import run
from rsocket_broker.state import State
from tests.cli.conftest import Start
from tests.end_to_end.processes import run_command

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(home: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs `rsocket-broker …` on the test's home: exit code, stdout, stderr."""
    capfd.readouterr()

    def call(*arguments: str | Path, home: Path = home) -> tuple[int, str, str]:
        code = run(["--home", str(home), *map(str, arguments)])
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text("open sesame\n")
    path.chmod(0o600)
    return path


def test_a_backup_is_written_verified_and_put_in_place(command: Command, home: Path, tmp_path: Path) -> None:
    code, out, err = command("home", "backup", "--out", tmp_path / "b")
    assert code == 0
    assert f"Wrote {tmp_path}/b: 5 files" in out
    assert "private key of the CA in the clear" in err
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600
    code, out, _ = command("home", "verify", tmp_path / "b")
    assert (code, out.splitlines()[-1]) == (0, "The backup is whole and sound.")
    code, out, err = command("home", "restore", tmp_path / "b", home=tmp_path / "again")
    assert code == 0
    assert "Restored" in out
    assert "audit" in out
    assert "their holders are refused, and enrol again" in err
    assert "Do it again" in err
    assert (tmp_path / "again" / "ca" / "1" / "ca.key").read_bytes() == (home / "ca" / "1" / "ca.key").read_bytes()
    events = [json.loads(line)["event"] for line in command("audit", "export")[1].splitlines() if "event" in line]
    assert events[-1] == "backup"
    assert '"event":"restore"' in command("audit", "export", home=tmp_path / "again")[1]


def test_a_backup_can_be_encrypted(command: Command, tmp_path: Path, passphrase: Path) -> None:
    code, out, err = command("home", "backup", "--out", tmp_path / "b", "--encrypt-with", passphrase, "--json")
    assert code == 0
    told = json.loads(out)
    assert (told["encrypted"], told["files"], told["file"]) == (True, 5, str(tmp_path / "b"))
    assert "Keep its passphrase apart" in err
    assert command("home", "verify", tmp_path / "b")[0] == 1
    assert "--decrypt-with" in command("home", "restore", tmp_path / "b", home=tmp_path / "again")[2]
    code, out, _ = command("home", "verify", tmp_path / "b", "--decrypt-with", passphrase, "--json")
    assert json.loads(out)["ca_keys_encrypted"] is False
    assert command("home", "restore", tmp_path / "b", "--decrypt-with", passphrase, home=tmp_path / "again")[0] == 0
    code, _, err = command("home", "backup", "--out", tmp_path / "c")
    code, _, err = command("home", "verify", tmp_path / "c", "--decrypt-with", passphrase)
    assert code == 1
    assert "is not encrypted" in err


@pytest.mark.row("A-24")
def test_it_says_that_the_cas_key_is_encrypted(command: Command, tmp_path: Path, passphrase: Path) -> None:
    assert command("ca", "init", "--passphrase-file", passphrase)[0] == 0
    code, _, err = command("home", "backup", "--out", tmp_path / "b")
    assert code == 0
    assert "encrypted with its passphrase, which is not in the backup" in err
    assert json.loads(command("home", "verify", tmp_path / "b", "--json")[1])["ca_keys_encrypted"] is True


def test_a_busy_broker_is_backed_up_and_its_home_never_overwritten(start: Start, tmp_path: Path) -> None:
    broker = start()
    assert broker.command("home", "backup", "--out", str(tmp_path / "b")).returncode == 0
    refused = broker.command("home", "restore", str(tmp_path / "b"))
    assert refused.returncode == 1
    assert f"A broker (pid {broker.process.pid}) runs on {broker.home}" in refused.stderr
    broker.stop(signal.SIGKILL)
    refused = broker.command("home", "restore", str(tmp_path / "b"))
    assert refused.returncode == 1
    assert "nothing is restored over a home" in refused.stderr
    again = tmp_path / "again"
    assert run_command(again, "home", "restore", str(tmp_path / "b")).returncode == 0
    assert start(home=again).stop() == 0


@pytest.mark.row("D-15")
def test_a_restored_authority_never_repeats_a_serial(command: Command, home: Path, tmp_path: Path) -> None:
    """Two homes of one backup go on issuing: what they hand out differs."""
    assert command("home", "backup", "--out", tmp_path / "b")[0] == 0
    seen: list[int] = []
    for name in ("one", "two"):
        assert command("home", "restore", tmp_path / "b", home=tmp_path / name)[0] == 0
        for number in range(5):
            issue = ("ca", "issue", "--app-id", "a", "--out", tmp_path / f"{name}{number}")
            assert command(*issue, home=tmp_path / name)[0] == 0
        with State.open(tmp_path / name / "state.db") as state:
            seen += [each.serial for each in Authority.open(tmp_path / name, state, create=False).certificates("a")]
    assert len(seen) == len(set(seen)) == 10
    assert all(serial.bit_length() > 120 for serial in seen)


def test_a_damaged_backup_is_named(command: Command, tmp_path: Path) -> None:
    assert command("home", "backup", "--out", tmp_path / "b")[0] == 0
    content = bytearray((tmp_path / "b").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "b").write_bytes(content)
    for what in (("home", "verify", tmp_path / "b"), ("home", "restore", tmp_path / "b")):
        code, out, err = command(*what, home=tmp_path / "again")
        assert (code, out) == (1, "")
        assert err.startswith(f"Error: {tmp_path}/b")
    assert not (tmp_path / "again").exists()
    assert command("home", "verify", tmp_path / "missing")[0] == 2
