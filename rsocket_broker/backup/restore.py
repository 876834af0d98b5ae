"""Puts a backup in place as a home: whole by one rename, after everything in it was checked, or not at all."""

import errno
import os
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from rsocket_broker import files
from rsocket_broker.audit import Audit, Event
from rsocket_broker.backup import archive
from rsocket_broker.backup.check import Checked, check_database, check_generations
from rsocket_broker.backup.manifest import Entry
from rsocket_broker.backup.scratch import scratch_folder
from rsocket_broker.errors import HomeError
from rsocket_broker.state import STATE_FILE, State


def restore(backup: Path, home: Path, passphrase: bytes | None = None) -> Checked:
    """Make `home`, which is missing or an empty folder, what it was when `backup` was taken.

    Raises HomeError when the place is taken or anything in the backup is wrong; `home` is then as it was.
    """
    check_place(home)
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HomeError(f"{home.parent} cannot be made: {error.strerror}.") from error
    if not os.access(home.parent, os.W_OK | os.X_OK):
        raise HomeError(
            f"This user may not write in {home.parent}, where the home appears by one rename. Restore into a folder "
            "elsewhere and have that moved here, or name it with --home."
        )
    with files.locked(home.parent), scratch_folder(home.parent, f".{home.name}.restore-") as scratch:
        staged = scratch / "home"
        staged.mkdir(mode=files.PRIVATE_FOLDER)
        checked = _unpack(backup, staged, passphrase)
        _record(staged, checked)
        _sync_folders(staged)
        check_place(home)
        try:
            staged.rename(home)
        except OSError as error:
            raise HomeError(_why_not(home, error)) from error
        files.sync_directory(home.parent)
    return checked


def check_place(home: Path) -> None:
    """Raises HomeError unless nothing is at `home`, or an empty folder."""
    if home.is_symlink():
        raise HomeError(f"{home} is a symbolic link, which is never followed here. Name the folder itself.")
    if os.path.lexists(home) and not home.is_dir():
        raise HomeError(f"{home} is not a folder. Move it away, or name another folder.")
    if home.is_dir() and any(home.iterdir()):
        raise HomeError(f"{home} is not empty, and nothing is restored over a home. Move it away, or name another.")


def _unpack(backup: Path, staged: Path, passphrase: bytes | None) -> Checked:
    try:
        contents = archive.read(backup, passphrase, partial(_new_file, staged))
    except OSError as error:
        raise HomeError(f"The backup cannot be unpacked: {error.strerror}.") from error
    if (staged / STATE_FILE).exists():
        check_database(staged / STATE_FILE)
    of_ca = {path.relative_to(staged).as_posix(): path.read_bytes() for path in staged.glob("ca/[0-9]*/*")}
    return Checked(contents, check_generations(of_ca))


def _record(staged: Path, checked: Checked) -> None:
    """The home tells from then on that it is one that was restored."""
    if (staged / STATE_FILE).exists():
        with State.open(staged / STATE_FILE) as state:
            audit = Audit(state)
            with state.transaction() as database:
                audit.write(database, Event.RESTORED, made=checked.manifest.made)


def _new_file(staged: Path, entry: Entry) -> AbstractContextManager[BinaryIO]:
    path = staged / entry.path
    for folder in reversed(path.relative_to(staged).parents[:-1]):
        (staged / folder).mkdir(mode=files.PRIVATE_FOLDER, exist_ok=True)
    return files.new_file(path, files.PRIVATE_FILE if _is_private(entry.path) else entry.mode)


def _is_private(path: str) -> bool:
    """Whether a file holds what nobody else may read, whatever mode the backup names: keys, and the database."""
    return path == STATE_FILE or path.startswith(("ca/", "server/"))


def _sync_folders(top: Path) -> None:
    for folder, _, _ in os.walk(top):
        files.sync_directory(Path(folder))


def _why_not(home: Path, error: OSError) -> str:
    if error.errno in (errno.EBUSY, errno.EXDEV):
        return f"{home} is where a file system is mounted. Restore into a folder inside it, and name that as the home."
    return f"{home} cannot be made: {error.strerror}."
