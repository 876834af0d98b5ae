import io
import os
import shutil
import stat
import tarfile
from pathlib import Path

import pytest

from rsocket_broker.authority import Authority
from rsocket_broker.backup.restore import restore
from rsocket_broker.backup.take import take
from rsocket_broker.errors import HomeError
from tests.authority.conftest import START, Clock
from tests.authority.crash import run_and_kill
from tests.backup.conftest import PASSPHRASE, contents, serials

CRASH_POINTS = 400
"""More than the work has; the loop ends when the work does."""


@pytest.fixture
def backup(home: Path, tmp_path: Path) -> Path:
    return take(home, tmp_path / "backup", START).path


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_the_home_comes_back_as_it_was(home: Path, tmp_path: Path, passphrase: bytes | None) -> None:
    known = serials(home)
    taken = take(home, tmp_path / "backup", START, passphrase)
    for again in (tmp_path / "new" / "again", tmp_path / "empty"):
        if again.name == "empty":
            again.mkdir()
        checked = restore(taken.path, again, passphrase)
        assert checked.generations == {1: False}
        assert contents(again) == contents(home)
        assert serials(again) == known
        for path in (again, *again.rglob("*")):
            wanted = 0o700 if path.is_dir() else stat.S_IMODE((home / path.relative_to(again)).stat().st_mode)
            assert stat.S_IMODE(path.stat().st_mode) == wanted & 0o755, path
        assert [each for each in Authority.verify_home(again, clock=Clock()) if each.problem] == []
    assert not [path for path in (*tmp_path.iterdir(), *(tmp_path / "new").iterdir()) if path.name.startswith(".")]


def test_nothing_is_restored_over_anything(home: Path, backup: Path, tmp_path: Path) -> None:
    before = contents(home)
    with pytest.raises(HomeError, match="not empty, and nothing is restored over a home"):
        restore(backup, home)
    assert contents(home) == before
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HomeError, match="symbolic link"):
        restore(backup, tmp_path / "link")
    with pytest.raises(HomeError, match="not a folder"):
        restore(backup, backup)


def test_a_parent_that_may_not_be_written_is_named(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, who runs tests in some places, may write anywhere
    with pytest.raises(HomeError, match=f"may not write in {tmp_path}, where the home appears"):
        restore(backup, tmp_path / "again")


def test_a_backup_that_is_damaged_anywhere_leaves_no_home(backup: Path, tmp_path: Path) -> None:
    whole = backup.read_bytes()
    for position in range(700, len(whole) - 10240, len(whole) // 25):
        damaged = bytearray(whole)
        damaged[position : position + 600] = b"\xff" * 600
        backup.write_bytes(damaged)
        with pytest.raises(HomeError):
            restore(backup, tmp_path / "again")
        assert not (tmp_path / "again").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_no_private_file_comes_back_readable_to_others(backup: Path, tmp_path: Path) -> None:
    with tarfile.open(backup) as source:
        members = [(member, source.extractfile(member).read()) for member in source]  # type: ignore[union-attr]
    with tarfile.open(backup, "w") as target:
        for member, content in members:
            loose = content.replace(b'"mode":"600"', b'"mode":"644"') if member.name == "manifest.json" else content
            target.addfile(member, io.BytesIO(loose))
    restore(backup, tmp_path / "again")
    for name in ("ca/1/ca.key", "server/server.key", "state.db"):
        assert stat.S_IMODE((tmp_path / "again" / name).stat().st_mode) == 0o600


@pytest.mark.row("D-15")
def test_a_kill_at_any_step_leaves_no_half_home(home: Path, tmp_path: Path) -> None:
    shutil.rmtree(home / "plugins")
    backup = take(home, tmp_path / "backup", START).path
    parent = tmp_path / "parent"
    parent.mkdir()
    again = parent / "again"

    def work() -> bytes:
        restore(backup, again)
        return b"done"

    outcomes = set()
    for step in range(1, CRASH_POINTS):
        killed, _ = run_and_kill(work, parent, step)
        outcomes.add(again.exists())
        if again.exists():
            assert contents(again) == contents(home)
            shutil.rmtree(again)
        if not killed:
            break
    assert outcomes == {False, True}
    assert 20 < step < CRASH_POINTS - 1
    assert list(parent.iterdir()) == [], "what was left is cleared by the next restore"
