"""Takes a backup of a home, also while a broker runs on it: the files and the database of one moment.

What changes the authority's files holds the lock on the home, and so does the copying here; the database is copied by
SQLite itself, which sees each transaction whole or not at all.
"""

import contextlib
import hashlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import attrs

from rsocket_broker import __version__, files
from rsocket_broker.authority.home import CaHome
from rsocket_broker.backup import archive
from rsocket_broker.backup.check import check
from rsocket_broker.backup.manifest import KEPT_MODES, Entry, Manifest
from rsocket_broker.backup.scratch import scratch_folder
from rsocket_broker.errors import HomeError
from rsocket_broker.state import STATE_FILE

SCRATCH = ".backup-"
NOT_KEPT = frozenset({"run", STATE_FILE, f"{STATE_FILE}-wal", f"{STATE_FILE}-shm"})
"""What lives only as long as a broker runs, and the database, which is not copied as a file."""
_UNFINISHED = ".tmp"
_BYTECODE = "__pycache__"


@attrs.frozen(slots=True)
class Taken:
    """A backup that was written and read again: `size` in bytes, `sha256` of the file in hex. `left_out` are the paths
    below the home that are neither files nor folders: links, sockets."""

    path: Path
    manifest: Manifest
    size: int
    sha256: str
    left_out: tuple[str, ...]


def take(home: Path, out: Path, now: datetime, passphrase: bytes | None = None) -> Taken:
    """Write a backup of `home` to `out`, mode 0600, sealed when there is a passphrase.

    Raises HomeError when there is nothing to back up, `out` exists or lies in the home, or what was written does not
    read as it should; then there is no `out`.
    """
    _check_target(home, out)
    with contextlib.ExitStack() as stack:
        with files.locked(home):
            CaHome(home).settle()
            folder = stack.enter_context(scratch_folder(home, SCRATCH))
            entries, left_out = _copy_home(home, folder)
        contents = Manifest(now, __version__, tuple(entries))
        unfinished = out.with_name(f".{out.name}.{os.getpid()}{_UNFINISHED}")
        stack.callback(unfinished.unlink, missing_ok=True)
        try:
            with files.new_file(unfinished) as file:
                archive.write(file, contents, folder, passphrase)
            check(unfinished, passphrase, folder)
            size, digest = unfinished.stat().st_size, _digest(unfinished)
            unfinished.rename(out)
            files.sync_directory(out.parent)
        except OSError as error:
            raise HomeError(f"{out} cannot be written: {error.strerror}.") from error
    return Taken(out, contents, size, digest, tuple(left_out))


def _check_target(home: Path, out: Path) -> None:
    if not (home / STATE_FILE).exists() and not CaHome(home).generations():
        raise HomeError(f"There is nothing to back up in {home}. Name the home with --home.")
    files.check_private_directory(home)
    if not out.parent.is_dir():
        raise HomeError(f"{out.parent} is no folder.")
    if out.resolve().is_relative_to(home.resolve()):
        raise HomeError(f"{out} lies in the home itself. Put the backup elsewhere: what loses the one loses the other.")
    if os.path.lexists(out):
        raise HomeError(f"{out} exists. Choose another name, or move it away.")


def _copy_home(home: Path, folder: Path) -> tuple[list[Entry], list[str]]:
    entries, left_out = [], []
    for path, kind in _walk(home):
        name = path.relative_to(home).as_posix()
        if stat.S_ISREG(kind) and name.isprintable():
            entries.append(_copy(path, folder / name, name))
        else:
            left_out.append(name)
    if (home / STATE_FILE).exists():
        _copy_database(home / STATE_FILE, folder / STATE_FILE)
        entries.append(_entry(folder / STATE_FILE, STATE_FILE, files.PRIVATE_FILE))
    return entries, left_out


def _walk(folder: Path, top: bool = True) -> Iterator[tuple[Path, int]]:
    """(path, mode) of all that is not a folder, in order; without what is unfinished, or made again by itself."""
    for path in sorted(folder.iterdir()):
        kind = path.lstat().st_mode
        if (top and (path.name in NOT_KEPT or path.name.startswith(SCRATCH))) or path.name == _BYTECODE:
            continue
        if stat.S_ISDIR(kind):
            yield from () if _is_unfinished(path) else _walk(path, top=False)
        elif not _is_unfinished(path):
            yield path, kind


def _is_unfinished(path: Path) -> bool:
    """What `files.write_private` and the making of a generation leave when they are killed."""
    return path.name.startswith(".") and (path.name.endswith(_UNFINISHED) or path.parent.name == "ca")


def _copy(source: Path, target: Path, name: str) -> Entry:
    target.parent.mkdir(mode=files.PRIVATE_FOLDER, parents=True, exist_ok=True)
    try:
        # No link is followed, and a FIFO put in the file's place would hold us here for ever.
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as reader, target.open("xb") as writer:
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            shutil.copyfileobj(reader, writer)
    except OSError as error:
        raise HomeError(f"{source} cannot be copied: {error.strerror}.") from error
    return _entry(target, name, mode)


def _copy_database(source: Path, target: Path) -> None:
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as reader,
            contextlib.closing(sqlite3.connect(target)) as writer,
        ):
            reader.backup(writer)
            writer.execute("PRAGMA journal_mode = DELETE")  # one file: what is in it stands without a log beside it
    except sqlite3.Error as error:
        raise HomeError(f"{source} cannot be copied: {error}. Run: rsocket-broker ca verify") from error


def _entry(path: Path, name: str, mode: int) -> Entry:
    return Entry(name, path.stat().st_size, mode & KEPT_MODES, _digest(path))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
