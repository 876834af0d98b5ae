import stat
from pathlib import Path

import pytest

from rsocket_broker.backup.scratch import scratch_folder
from rsocket_broker.errors import HomeError


def test_it_is_private_and_goes_with_all_in_it(tmp_path: Path) -> None:
    with scratch_folder(tmp_path, ".work-") as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("secret")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    (tmp_path / ".work-1").mkdir()
    (tmp_path / ".work-1" / "key").write_text("secret")
    (tmp_path / ".other-1").mkdir()
    with scratch_folder(tmp_path, ".work-") as first:
        (first / "key").write_text("in use")
        with scratch_folder(tmp_path, ".work-") as second:
            assert (first / "key").exists()
            assert {path.name for path in tmp_path.iterdir()} == {first.name, second.name, ".other-1"}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="missing cannot be written"), scratch_folder(tmp_path / "missing", "x"):
        pass
