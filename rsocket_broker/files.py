"""Files that only the broker's user may read: written whole or not at all, refused when anyone else could touch them.

A home holds private keys, so every check happens on the open file and not on its name, and no link is followed.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import shlex
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rsocket_broker.errors import HomeError

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
DEFAULT_LIMIT = 1 << 20
"""No key, certificate or settings file comes near 1 MiB; a larger one is a mistake, and is not read into memory."""
LOCK_PATIENCE_S = 30.0
"""What is done under a lock takes well under a second, so a holder that lasts this long hangs."""
_LOCK_POLL_S = 0.02
_TEMPORARY_SUFFIX = ".tmp"

_OTHERS_ANY = 0o077
_OTHERS_WRITE = 0o022


def ensure_private_directory(path: Path) -> None:
    """Make `path` (and missing parents) a folder of mode 0700, or check that it is one.

    Raises HomeError when it is a link, no folder, of a looser mode, or belongs to another user.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=PRIVATE_FOLDER)
            sync_directory(path.parent)
    except OSError as error:
        raise HomeError(f"{path} cannot be made: {_reason(error)}.") from error
    check_private_directory(path)


def check_private_directory(path: Path) -> None:
    """Raises HomeError unless `path` is a folder of ours that nobody else may enter."""
    status = _status(path)
    if stat.S_ISLNK(status.st_mode):
        raise HomeError(f"{path} is a symbolic link, which is never followed here. Name the folder itself.")
    if not stat.S_ISDIR(status.st_mode):
        raise HomeError(f"{path} is not a folder. Move it away, or name another folder.")
    _check_owner_and_mode(path, status, _OTHERS_ANY, PRIVATE_FOLDER)


def check_private_file(path: Path) -> None:
    """Raises HomeError unless `path` is a regular file of ours that nobody else may read; it is not opened."""
    _check_file(path, _status(path), _OTHERS_ANY)


def check_owned(path: Path) -> None:
    """Raises HomeError unless `path` is a file or folder of ours that nobody else may change; others may read it."""
    status = _status(path)
    if stat.S_ISDIR(status.st_mode):
        _check_owner_and_mode(path, status, _OTHERS_WRITE, 0o755)
    elif stat.S_ISLNK(status.st_mode):
        raise HomeError(f"{path} is a symbolic link, which is never followed here. Put what it names there.")
    else:
        _check_file(path, status, _OTHERS_WRITE)


def write_private(path: Path, data: bytes, mode: int = PRIVATE_FILE) -> None:
    """Put `data` at `path` so that a reader, or a start after a crash, finds the old content or the new, never a part.

    Raises HomeError when the folder cannot be written or the disk is full; `path` is then as it was.
    """
    if not path.name:
        raise HomeError(f"{path} cannot be written: it is a folder. Name a file.")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}")
    try:
        try:
            with new_file(temporary, mode) as file:
                file.write(data)
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise HomeError(f"{path} cannot be written: {_reason(error)}.") from error


def read_private(path: Path, limit: int = DEFAULT_LIMIT) -> bytes:
    """The content of a file that only its owner, who must be the broker's user, may read.

    Raises HomeError naming the path, what is wrong (missing, a link, mode, owner, size) and the command that mends it.
    """
    return _read(path, limit, _OTHERS_ANY)


def read_owned(path: Path, limit: int = DEFAULT_LIMIT) -> bytes:
    """Like `read_private`, for public content: others may read the file, but only the broker's user may change it."""
    return _read(path, limit, _OTHERS_WRITE)


def read_given(path: Path, limit: int = DEFAULT_LIMIT) -> bytes:
    """Like `read_owned`, for what somebody else may have put there for us: it belongs to the broker's user or to root,
    and no other user may change it. A link is followed: whoever may set it may choose the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_uid == 0:
            if status.st_mode & _OTHERS_WRITE:
                raise HomeError(
                    f"{path} may be changed by other users than root. Run: chmod 644 {shlex.quote(str(path))}"
                )
        else:
            _check_file(path, status, _OTHERS_WRITE)
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(descriptor)
    return _whole(path, data, limit)


@contextlib.contextmanager
def new_file(path: Path, mode: int = PRIVATE_FILE) -> Iterator[BinaryIO]:
    """A file that did not exist, on the disk with its mode when the block has ended. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fchmod(descriptor, mode)  # only now: the umask must not narrow it, nor a reader see half a file
        os.fsync(descriptor)


def sync_directory(path: Path) -> None:
    """Make the names in a folder (a rename, a new file) survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(directory: Path) -> None:
    """Remove what `write_private` left beside its targets when it was killed; call it under a lock on the folder."""
    for path in directory.glob(f".*{_TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(directory: Path, patience: float = LOCK_PATIENCE_S) -> Iterator[None]:
    """Hold `directory` against every other process and thread that locks it; the lock ends with the process.

    The lock sits on the folder itself, so there is no lock file to be left behind. Waits `patience` seconds.
    Raises HomeError when another process keeps it longer.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _wait_for_lock(descriptor, directory, patience)
        yield
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, directory: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise HomeError(
                    f"{directory} has been locked by another process for {patience:.0f} seconds. "
                    "Find the other rsocket-broker on this home and stop it."
                ) from None
            time.sleep(_LOCK_POLL_S)
        else:
            return


def _read(path: Path, limit: int, forbidden: int) -> bytes:
    try:
        # Without O_NONBLOCK a FIFO put in the file's place would hold us here for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        _check_file(path, os.fstat(descriptor), forbidden)
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(descriptor)
    return _whole(path, data, limit)


def _whole(path: Path, data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise HomeError(f"{path} is larger than {limit} bytes, so it is not what it should be. Restore it.")
    return data


def _status(path: Path) -> os.stat_result:
    try:
        return path.lstat()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> HomeError:
    if error.errno in (errno.ELOOP, errno.EMLINK):
        return HomeError(f"{path} is a symbolic link, which is never followed here. Put the file itself there.")
    if error.errno == errno.ENOENT:
        return HomeError(f"{path} is missing.")
    return HomeError(f"{path} cannot be read: {_reason(error)}.")


def _check_file(path: Path, status: os.stat_result, forbidden: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise HomeError(f"{path} is not a regular file. Move it away.")
    _check_owner_and_mode(path, status, forbidden, 0o644 if forbidden == _OTHERS_WRITE else PRIVATE_FILE)


def _check_owner_and_mode(path: Path, status: os.stat_result, forbidden: int, wanted: int) -> None:
    user, mode, name = os.geteuid(), stat.S_IMODE(status.st_mode), shlex.quote(str(path))
    if status.st_uid != user:
        raise HomeError(
            f"{path} (mode {mode:04o}) belongs to user {status.st_uid}, not to user {user} who runs this. "
            f"If it is yours, run: chown {user} {name} && chmod {wanted:o} {name}"
        )
    if mode & forbidden:
        may = "change" if mode & _OTHERS_WRITE else "read"
        raise HomeError(f"{path} has mode {mode:04o}: other users may {may} it. Run: chmod {wanted:o} {name}")


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else "unknown reason"
