import os
import shutil
import stat
import tarfile
import threading
from pathlib import Path

import pytest

from rsocket_broker.authority import Authority
from rsocket_broker.authority.requests import check_request
from rsocket_broker.backup.check import check
from rsocket_broker.backup.restore import restore
from rsocket_broker.backup.take import take
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.errors import HomeError
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.state import State
from tests.authority.conftest import START, Clock
from tests.authority.crash import run_and_kill
from tests.backup.conftest import PASSPHRASE, contents, serials


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_a_backup_holds_the_home_and_is_private(home: Path, tmp_path: Path, passphrase: bytes | None) -> None:
    taken = take(home, tmp_path / "backup", START, passphrase)
    assert stat.S_IMODE(taken.path.stat().st_mode) == 0o600
    assert {entry.path for entry in taken.manifest.entries} == {*contents(home), "state.db"}
    assert taken.left_out == ()
    assert [path.name for path in home.iterdir() if path.name.startswith(".")] == []
    assert check(taken.path, passphrase, tmp_path).generations == {1: False}
    if passphrase:
        assert b"PRIVATE KEY" not in taken.path.read_bytes()


def test_what_a_run_leaves_and_what_is_no_file_stays_out(home: Path, tmp_path: Path) -> None:
    for name in ("run", "ca/.new", "plugins/__pycache__"):
        (home / name).mkdir(mode=0o700)
        (home / name / "content").write_text("not kept")
    (home / "ca" / "1" / ".ca.key.0.tmp").write_text("half")
    (home / "plugins" / "link.py").symlink_to("/etc/passwd")
    os.mkfifo(home / "plugins" / "pipe")
    taken = take(home, tmp_path / "backup", START)
    assert sorted(taken.left_out) == ["plugins/link.py", "plugins/pipe"]
    with tarfile.open(taken.path) as archive:
        assert not [name for name in archive.getnames() if "content" in name or ".tmp" in name]


def test_a_backup_taken_while_certificates_are_issued_is_of_one_moment(home: Path, tmp_path: Path) -> None:
    """Every certificate that was handed out before the backup began is in it, and what is in it is sound."""
    request = check_request(make_signing_request("org.example.busy").csr_pem)
    handed_out: list[int] = []
    over = threading.Event()
    with State.open(home / "state.db") as state:
        authority = Authority.open(home, state, clock=Clock())

        def issue() -> None:
            while not over.is_set():
                handed_out.append(authority.issue(request, Principal("org.example.busy", "", Proof.ADB)).serial)

        workers = [threading.Thread(target=issue) for _ in range(2)]
        for worker in workers:
            worker.start()
        while len(handed_out) < 10:
            over.wait(0.01)
        before = set(handed_out)
        taken = take(home, tmp_path / "backup", START)
        over.set()
        for worker in workers:
            worker.join()
    restore(taken.path, tmp_path / "again")
    assert before <= serials(tmp_path / "again")
    assert [each for each in Authority.verify_home(tmp_path / "again", clock=Clock()) if each.problem] == []


@pytest.mark.parametrize("where", ["home/backup", "missing/backup", "taken"])
def test_a_place_that_will_not_do_is_refused(home: Path, tmp_path: Path, where: str) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(HomeError, match=r"lies in the home|is no folder|exists\. Choose another"):
        take(home, tmp_path / where, START)
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_home_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir(mode=0o700)
    for name in ("empty", "missing"):
        with pytest.raises(HomeError, match="nothing to back up"):
            take(tmp_path / name, tmp_path / "backup", START)


def test_a_damaged_database_makes_no_backup(home: Path, tmp_path: Path) -> None:
    for path in home.glob("state.db-*"):
        path.unlink()
    whole = (home / "state.db").read_bytes()
    (home / "state.db").write_bytes(whole[:5000] + b"\xff" * 20000 + whole[25000:])
    with pytest.raises(HomeError, match=r"database in the backup is damaged|cannot be copied"):
        take(home, tmp_path / "backup", START)
    assert not (tmp_path / "backup").exists()


@pytest.mark.row("D-15")
def test_a_kill_at_any_step_leaves_the_home_as_it_was_and_a_whole_backup_or_none(home: Path, tmp_path: Path) -> None:
    shutil.rmtree(home / "plugins")
    before, known = contents(home), serials(home)
    step = 1
    while True:
        folder = tmp_path / f"out{step}"
        folder.mkdir()

        def work(out: Path = folder / "backup") -> bytes:
            take(home, out, START)
            return b"done"

        killed, _ = run_and_kill(work, tmp_path, step)
        if (folder / "backup").exists():
            check(folder / "backup", None, tmp_path)
        if not killed:
            break
        step += 3  # every third one: a start of this work costs some milliseconds
    assert step > 10
    assert contents(home) == before
    assert serials(home) == known
