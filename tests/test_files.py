import multiprocessing
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rsocket_broker import files
from rsocket_broker.errors import HomeError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.row("A-24", "F-11")
def test_what_is_written_is_private_and_reads_back(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    files.ensure_private_directory(folder)
    files.ensure_private_directory(folder)
    files.write_private(folder / "key", b"secret")
    assert mode(folder) == 0o700
    assert mode(folder / "key") == 0o600
    assert files.read_private(folder / "key") == b"secret"
    files.write_private(folder / "key", b"other")
    assert files.read_private(folder / "key") == b"other"
    assert [path.name for path in folder.iterdir()] == ["key"]


@pytest.mark.parametrize("path", [".", "/", ".."])
def test_a_folder_in_the_place_of_a_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HomeError, match=r"cannot be written"):
        files.write_private(Path(path), b"secret")
    assert not list(tmp_path.iterdir())


def test_the_umask_does_not_narrow_or_widen_a_mode(tmp_path: Path) -> None:
    for umask in (0o000, 0o277):
        old = os.umask(umask)
        try:
            files.write_private(tmp_path / "public", b"x", 0o644)
        finally:
            os.umask(old)
        assert mode(tmp_path / "public") == 0o644


@pytest.mark.row("A-24")
@pytest.mark.parametrize("loose", [0o640, 0o604, 0o620, 0o602, 0o660, 0o644, 0o666, 0o601])
def test_a_looser_file_is_refused_with_its_mode_and_the_remedy(tmp_path: Path, loose: int) -> None:
    path = tmp_path / "it's a key"
    files.write_private(path, b"secret")
    path.chmod(loose)
    with pytest.raises(HomeError) as caught:
        files.read_private(path)
    assert str(path) in caught.value.public
    assert f"{loose:04o}" in caught.value.public
    command = caught.value.public.split("Run: ")[1]
    subprocess.run(command, shell=True, check=True)
    assert files.read_private(path) == b"secret"


@pytest.mark.row("A-24")
@pytest.mark.parametrize("loose", [0o750, 0o705, 0o777, 0o720])
def test_a_looser_folder_is_refused(tmp_path: Path, loose: int) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    folder.chmod(loose)
    with pytest.raises(HomeError, match=f"{loose:04o}.*chmod 700"):
        files.ensure_private_directory(folder)


@pytest.mark.row("A-24")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    files.write_private(path, b"secret")
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        path = Path("/etc/passwd")
    with pytest.raises(HomeError, match=r"belongs to user .* chown"):
        files.read_owned(path)


def test_public_content_may_be_read_by_others_but_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "ca.crt"
    files.write_private(path, b"public", 0o644)
    assert files.read_owned(path) == b"public"
    path.chmod(0o664)
    with pytest.raises(HomeError, match=r"may change it.*chmod 644"):
        files.read_owned(path)


def test_links_fifos_folders_large_and_missing_files_are_refused(tmp_path: Path) -> None:
    files.write_private(tmp_path / "real", b"x" * 100)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "folder").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name, why in {
        "link": "symbolic link",
        "folder": "not a regular file",
        "fifo": "not a regular file",
        "nothing": "is missing",
    }.items():
        with pytest.raises(HomeError, match=why):
            files.read_private(tmp_path / name)
    with pytest.raises(HomeError, match="larger than 99 bytes"):
        files.read_private(tmp_path / "real", 99)
    with pytest.raises(HomeError, match="not a folder"):
        files.ensure_private_directory(tmp_path / "real")
    (tmp_path / "to folder").symlink_to(tmp_path / "folder")
    with pytest.raises(HomeError, match="symbolic link"):
        files.ensure_private_directory(tmp_path / "to folder")
    with pytest.raises(HomeError, match="cannot be made"):
        files.ensure_private_directory(tmp_path / "real" / "below a file")


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "in the way").touch()
    with pytest.raises(HomeError, match="cannot be written"):
        files.write_private(target, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    with pytest.raises(HomeError, match="No such file"):
        files.write_private(tmp_path / "no folder" / "file", b"")


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from rsocket_broker import files\n"
        "sys.addaudithook(lambda name, _: os.kill(os.getpid(), 9) if name == 'os.rename' else None)\n"
        "files.write_private(Path(sys.argv[1]), b'new')"
    )
    target = tmp_path / "file"
    files.write_private(target, b"old")
    assert subprocess.run([sys.executable, "-c", code, str(target)]).returncode == -9
    assert files.read_private(target) == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    files.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [target]


def _add_slowly(folder: Path, times: int) -> None:
    for _ in range(times):
        with files.locked(folder):
            value = int((folder / "count").read_text())
            time.sleep(0.001)
            (folder / "count").write_text(str(value + 1))


@pytest.mark.row("A-25")
def test_a_lock_excludes_processes_and_threads(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_add_slowly, args=(tmp_path, 5)) for _ in range(2)]
    threads = [threading.Thread(target=_add_slowly, args=(tmp_path, 5)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for thread in threads:
        thread.start()
    for each in (*workers, *threads):
        each.join()
    assert (tmp_path / "count").read_text() == "20"


def test_a_lock_that_is_kept_is_reported(tmp_path: Path) -> None:
    with files.locked(tmp_path), pytest.raises(HomeError, match="locked by another process"), files.locked(tmp_path, 0):
        pass
    with files.locked(tmp_path, 0):
        pass
