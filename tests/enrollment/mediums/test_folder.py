"""An app's folder: what is accepted as its own, and that no crash leaves it with half a pair."""

import os
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from rsocket_broker.credentials import CA_FILE, CERTIFICATE_FILE, CSR_FILE
from rsocket_broker.enrollment.mediums import folder as folder_module
from rsocket_broker.enrollment.mediums.base import FILES, TEMPORARY_SUFFIX, Bundle, Outcome
from rsocket_broker.enrollment.mediums.folder import AppFolder, FolderGone, FolderProblem

CSR = "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----"
OTHER_USER = 65534
OLD = (b"old anchor", b"old certificate")
NEW = (b"new anchor" * 100, b"new certificate" * 100)
BUNDLE = Bundle(csr=CSR, trust_pem=NEW[0], certificate_pem=NEW[1])

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files to another user")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder as an SDK makes it, with an old pair."""
    path = tmp_path / "sonar"
    path.mkdir(mode=0o700)
    (path / CSR_FILE).write_text(f"{CSR}\r\n")
    for name, content in zip(FILES, OLD, strict=True):
        (path / name).write_bytes(content)
    return path


def pair(path: Path) -> tuple[bytes, bytes]:
    return (path / CA_FILE).read_bytes(), (path / CERTIFICATE_FILE).read_bytes()


def temporary_files(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir() if file.name.endswith(TEMPORARY_SUFFIX))


def problem(path: Path | str) -> str:
    """Why the folder is not accepted as the place of the request."""
    with pytest.raises(FolderProblem) as caught, AppFolder.open(str(path)) as folder:
        folder.check_request(CSR)
    return str(caught.value)


@pytest.mark.row("A-02")
def test_the_folder_of_the_app_itself_is_accepted(own: Path) -> None:
    with AppFolder.open(str(own)) as folder:
        folder.check_request(CSR)
        assert folder.path == str(own.resolve())


@pytest.mark.row("A-03")
def test_parents_may_be_links_but_not_the_folder(own: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(own)
    (tmp_path / "parent").symlink_to(tmp_path)
    assert problem(tmp_path / "link") == f"{tmp_path / 'link'} is not a folder"
    with AppFolder.open(str(tmp_path / "parent" / "sonar")) as folder:
        assert folder.path == str(own.resolve())


@pytest.mark.row("A-03")
def test_a_link_in_place_of_the_request_is_not_followed(own: Path, tmp_path: Path) -> None:
    (own / CSR_FILE).rename(tmp_path / "elsewhere")
    (own / CSR_FILE).symlink_to(tmp_path / "elsewhere")
    assert problem(own) == f"{CSR_FILE} in {own} is a link"


def test_what_is_no_folder_is_refused(own: Path, tmp_path: Path) -> None:
    assert "does not exist" in problem(tmp_path / "nothing")
    assert "does not exist" in problem(tmp_path / "nothing" / "below")
    assert "is not a folder" in problem(own / CSR_FILE)
    assert "is not a folder" in problem(own / CSR_FILE / "below")
    assert "is not a folder" in problem(f"{own}\0/x")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    assert "is a link" in problem(tmp_path / "round" / "sonar")


@pytest.mark.row("A-02", "F-14")
@pytest.mark.parametrize("content", ["", "\r\n", CSR + "x", CSR[:-1], "x" * 100_000])
def test_another_request_is_no_proof(own: Path, content: str) -> None:
    (own / CSR_FILE).write_text(content)
    assert "is not the request" in problem(own) or "is longer than" in problem(own)
    (own / CSR_FILE).unlink()
    assert problem(own) == f"{own} holds no {CSR_FILE}"


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused(own: Path, mode: int) -> None:
    own.chmod(mode)
    assert "others may write to it" in problem(own)


def test_a_request_that_others_may_change_counts_only_in_a_closed_folder(own: Path) -> None:
    (own / CSR_FILE).chmod(0o664)
    with AppFolder.open(str(own)) as folder:
        folder.check_request(CSR)
    own.chmod(0o755)
    assert "others may change it" in problem(own)


@as_root
def test_a_folder_or_a_request_of_another_user_is_refused(own: Path) -> None:
    os.chown(own / CSR_FILE, OTHER_USER, OTHER_USER)
    assert f"{CSR_FILE} in {own} belongs to user {OTHER_USER}" in problem(own)
    os.chown(own, OTHER_USER, OTHER_USER)
    assert f"{own} belongs to user {OTHER_USER}" in problem(own)


def test_a_pipe_or_a_socket_in_place_of_the_request_holds_nobody_up(own: Path) -> None:
    (own / CSR_FILE).unlink()
    os.mkfifo(own / CSR_FILE)
    assert "is not a plain file" in problem(own)
    (own / CSR_FILE).unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(own / CSR_FILE))
        assert "cannot be read" in problem(own)


@pytest.mark.row("F-16", "F-17", "F-30")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_both_files_are_placed_readable_for_the_app(own: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with AppFolder.open(str(own)) as folder:
            folder.place(BUNDLE)
    finally:
        os.umask(before)
    assert pair(own) == NEW
    assert [stat.S_IMODE((own / name).stat().st_mode) for name in FILES] == [0o644, 0o644]
    assert not temporary_files(own)


@pytest.mark.row("A-03", "F-30")
def test_links_in_place_of_the_files_are_replaced_and_their_targets_untouched(own: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    for name in (*FILES, *(name + TEMPORARY_SUFFIX for name in FILES)):
        (own / name).unlink(missing_ok=True)
        (own / name).symlink_to(victim)
    with AppFolder.open(str(own)) as folder:
        folder.place(BUNDLE)
    assert pair(own) == NEW
    assert not any((own / name).is_symlink() for name in FILES)
    assert victim.read_bytes() == b"precious"


@pytest.mark.row("D-7")
def test_a_new_request_of_the_app_stops_the_delivery(own: Path) -> None:
    with AppFolder.open(str(own)) as folder:
        (own / CSR_FILE).write_text("another")
        with pytest.raises(FolderProblem, match="is not the request"):
            folder.place(BUNDLE)
        assert folder.settle(BUNDLE) is Outcome.UNDONE
    assert pair(own) == OLD
    assert not temporary_files(own)


class InterruptedFolder(AppFolder):
    """While the files are being written, the app makes another request."""

    def _write_beside(self, name: str, content: bytes) -> None:
        super()._write_beside(name, content)
        (Path(self.path) / CSR_FILE).write_text("another")


@pytest.mark.row("D-7")
def test_a_new_request_while_the_files_are_written_stops_the_renaming(own: Path) -> None:
    with InterruptedFolder.open(str(own)) as folder:
        with pytest.raises(FolderProblem, match="is not the request"):
            folder.place(BUNDLE)
        assert pair(own) == OLD
        assert folder.settle(BUNDLE) is Outcome.UNDONE
    assert not temporary_files(own)


@pytest.mark.row("D-7")
@pytest.mark.parametrize("name", [*FILES, *(name + TEMPORARY_SUFFIX for name in FILES)])
def test_a_folder_in_place_of_a_file_is_found_before_anything_is_renamed(own: Path, name: str) -> None:
    (own / name).unlink(missing_ok=True)
    (own / name).mkdir()
    before = {path.name: path.read_bytes() for path in own.iterdir() if path.is_file()}
    with AppFolder.open(str(own)) as folder, pytest.raises(FolderProblem):
        folder.place(BUNDLE)
    assert {path: content for path, content in before.items() if (own / path).read_bytes() != content} == {}


@pytest.mark.row("D-7")
def test_a_disk_that_is_full_leaves_the_old_pair(own: Path) -> None:
    """The limit on file size stands in for the full disk: writing fails half-way."""

    def place_in_child() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (len(NEW[0]) // 2, len(NEW[0]) // 2))
        with AppFolder.open(str(own)) as folder:
            with pytest.raises(FolderProblem, match="File too large"):
                folder.place(BUNDLE)
            assert folder.settle(BUNDLE) is Outcome.UNDONE

    assert in_child(place_in_child) == 0
    assert pair(own) == OLD
    assert not temporary_files(own)


@pytest.mark.row("A-03")
def test_another_folder_in_the_same_place_is_not_the_one_that_was_proven(own: Path) -> None:
    with AppFolder.open(str(own)) as folder:
        location = folder.location()
    own.rename(own.with_name("moved"))
    with pytest.raises(FolderGone), AppFolder.reopen(location):
        pass
    own.mkdir(mode=0o700)
    with pytest.raises(FolderGone, match="another folder"), AppFolder.reopen(location):
        pass


@pytest.mark.row("A-03")
def test_a_folder_swapped_for_a_link_after_it_was_opened_changes_nothing(own: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    with AppFolder.open(str(own)) as folder:
        own.rename(tmp_path / "moved")
        own.symlink_to(target)
        folder.place(BUNDLE)
    assert pair(tmp_path / "moved") == NEW
    assert not list(target.iterdir())


def in_child(work: Callable[[], None]) -> int:
    """The exit code of a forked process that does `work`: 0, the negative number of the signal that killed it, or 1."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # whatever it is, it must not reach the tests of the parent
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at_line(number: int, work: Callable[[], None]) -> Callable[[], None]:
    """`work`, killed (SIGKILL) before the line of folder.py that is executed as number so-and-so."""

    def traced() -> None:
        count = 0

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal count
            if frame.f_code.co_filename != folder_module.__file__:
                return None
            if event == "line":
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        try:
            work()
        finally:
            sys.settrace(None)

    return traced


@pytest.mark.row("D-7")
def test_killed_at_any_line_the_folder_settles_to_the_old_pair_or_the_new(own: Path) -> None:
    def place() -> None:
        with AppFolder.open(str(own)) as folder:
            folder.place(BUNDLE)

    def put_back() -> None:
        for path in own.iterdir():
            if path.name.endswith(TEMPORARY_SUFFIX):
                path.unlink()
        for name, content in zip(FILES, OLD, strict=True):
            (own / name).write_bytes(content)

    seen = set()
    for line in range(1, 2000):
        put_back()
        code = in_child(killed_at_line(line, place))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        at_crash = pair(own)
        assert set(at_crash) <= {*OLD, *NEW}, "a half-written file is never in place"
        assert at_crash != (OLD[0], NEW[1]), "the certificate comes last"
        with AppFolder.open(str(own)) as folder:
            outcome = folder.settle(BUNDLE)
        assert pair(own) == (NEW if outcome is Outcome.FINISHED else OLD)
        assert not temporary_files(own)
        seen.add((at_crash, outcome))
    else:
        pytest.fail("the delivery never ended")
    assert line > 50, "the trace must have seen every line"
    assert seen == {
        (OLD, Outcome.FINISHED),
        ((NEW[0], OLD[1]), Outcome.FINISHED),
        (NEW, Outcome.FINISHED),
    }


@pytest.mark.row("D-7")
@pytest.mark.parametrize("anchor", [OLD[0], NEW[0], NEW[0][:5], b"", None])
@pytest.mark.parametrize("certificate", [OLD[1], NEW[1], NEW[1][:5], b"", None])
@pytest.mark.parametrize("left", [(), FILES, FILES[1:]])
def test_whatever_a_loss_of_power_has_left_is_mended(
    own: Path, anchor: bytes | None, certificate: bytes | None, left: tuple[str, ...]
) -> None:
    """Names, sizes and contents may come onto the disk in any order before `secure` has waited for them."""
    for name, content in zip(FILES, (anchor, certificate), strict=True):
        (own / name).unlink()
        if content is not None:
            (own / name).write_bytes(content)
    for name in left:
        (own / (name + TEMPORARY_SUFFIX)).write_bytes(b"")
    with AppFolder.open(str(own)) as folder:
        assert folder.settle(BUNDLE) is Outcome.FINISHED
    assert pair(own) == NEW
    assert not temporary_files(own)


def test_securing_waits_for_both_files_and_the_folder(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    with AppFolder.open(str(own)) as folder:
        folder.place(BUNDLE)
        assert synced == [], "the app does not wait for the disk"
        folder.secure()
    assert synced == [path.stat().st_ino for path in (own / CA_FILE, own / CERTIFICATE_FILE, own)]


def test_securing_passes_over_what_the_app_has_changed_since(own: Path, tmp_path: Path) -> None:
    (own / CA_FILE).unlink()
    (own / CA_FILE).symlink_to(tmp_path / "nowhere")
    (own / CERTIFICATE_FILE).unlink()
    with AppFolder.open(str(own)) as folder:
        folder.secure()
        os.mkfifo(own / CERTIFICATE_FILE)
        folder.secure()


@pytest.mark.row("D-7")
def test_killed_at_any_line_of_settling_it_settles_the_next_time(own: Path) -> None:
    """Twice cut off: once after the first rename, and again anywhere in the settling."""

    def crash_after_first_rename() -> None:
        for name, content in zip(FILES, OLD, strict=True):
            (own / name).write_bytes(content)
        (own / CA_FILE).write_bytes(NEW[0])
        (own / CA_FILE).chmod(0o644)
        (own / (CERTIFICATE_FILE + TEMPORARY_SUFFIX)).write_bytes(NEW[1][:10])

    def settle() -> None:
        with AppFolder.open(str(own)) as folder:
            folder.settle(BUNDLE)

    for line in range(1, 2000):
        (own / (CA_FILE + TEMPORARY_SUFFIX)).unlink(missing_ok=True)
        crash_after_first_rename()
        if in_child(killed_at_line(line, settle)) == 0:
            break
        settle()
        assert pair(own) == NEW
        assert not temporary_files(own)
    assert line > 50
    assert pair(own) == NEW
