"""A folder for work that may be killed: private, and cleared away by whoever does the same work next."""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from rsocket_broker import files
from rsocket_broker.errors import HomeError


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder of mode 0700 in `parent`, removed at the end with all that is in it.

    Folders of the same prefix that a killed process has left are removed first; one in use is held by a lock.
    Enter it under `files.locked(parent)`, which then may end. Raises HomeError when it cannot be made.
    """
    try:
        _clear(parent, prefix)
        path = parent / f"{prefix}{secrets.token_hex(8)}"
        path.mkdir(mode=files.PRIVATE_FOLDER)
    except OSError as error:
        raise HomeError(f"{parent} cannot be written: {error.strerror}.") from error
    with files.locked(path):
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _clear(parent: Path, prefix: str) -> None:
    for path in parent.iterdir():
        if path.name.startswith(prefix) and path.is_dir() and not path.is_symlink() and _abandoned(path):
            shutil.rmtree(path, ignore_errors=True)


def _abandoned(path: Path) -> bool:
    """Whether nobody holds the lock on a folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
