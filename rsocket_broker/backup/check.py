"""Is this backup whole and sound? The keys in it are looked at in memory, and never written to a disk for that."""

import contextlib
import io
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import attrs
from cryptography import x509

from rsocket_broker import files
from rsocket_broker.authority.home import CERTIFICATE_FILE, KEY_FILE
from rsocket_broker.authority.keys import from_pem, is_encrypted
from rsocket_broker.backup import archive
from rsocket_broker.backup.manifest import Entry, Manifest
from rsocket_broker.errors import AuthorityError, HomeError
from rsocket_broker.state import STATE_FILE

_NAME = "state.check"


@attrs.frozen(slots=True)
class Checked:
    """What a backup holds. `generations`: whether the CA's key is encrypted, by the number of the generation."""

    manifest: Manifest
    generations: dict[int, bool]


def check(path: Path, passphrase: bytes | None, scratch: Path) -> Checked:
    """Read a whole backup; its database is unpacked to `scratch` for the time of the check.

    Raises HomeError for the first thing that is wrong: a sum, a name, the database, a key without its certificate.
    """
    kept: dict[str, bytes] = {}

    def place(entry: Entry) -> AbstractContextManager[BinaryIO]:
        if entry.path == STATE_FILE:
            return (scratch / _NAME).open("wb")
        if _is_of_ca(entry.path) and entry.size <= files.DEFAULT_LIMIT:
            return _remembered(kept, entry.path)
        return _Nowhere()

    database = scratch / _NAME
    try:
        contents = archive.read(path, passphrase, place)
        if database.exists():
            check_database(database)
    finally:
        database.unlink(missing_ok=True)
    return Checked(contents, check_generations(kept))


def check_database(path: Path) -> None:
    """Raises HomeError when SQLite finds a fault in the file."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            found = [str(row[0]) for row in database.execute("PRAGMA integrity_check(1)")]
    except sqlite3.Error as error:
        raise HomeError(f"The database in the backup is damaged: {error}.") from error
    if found != ["ok"]:
        raise HomeError(f"The database in the backup is damaged: {found[0]}.")


def check_generations(contents: dict[str, bytes]) -> dict[int, bool]:
    """By generation, whether its key is encrypted; the contents are those below `ca/`, by path.

    Raises HomeError when a generation lacks its key or certificate, or the two do not fit.
    """
    found: dict[int, bool] = {}
    for number in sorted({int(PurePosixPath(path).parts[1]) for path in contents}):
        key, certificate = (contents.get(f"ca/{number}/{name}") for name in (KEY_FILE, CERTIFICATE_FILE))
        if key is None or certificate is None:
            raise HomeError(f"The backup holds only a part of generation {number} of the CA.")
        found[number] = is_encrypted(key)
        try:
            public = x509.load_pem_x509_certificate(certificate).public_key()
            fits = found[number] or from_pem(key, f"The key of generation {number}").public_key() == public
        except (ValueError, AuthorityError) as error:
            raise HomeError(f"Generation {number} of the CA in the backup is damaged.") from error
        if not fits:
            raise HomeError(f"The key of generation {number} in the backup does not belong to its certificate.")
    return found


def _is_of_ca(path: str) -> bool:
    parts = path.split("/")
    return len(parts) == 3 and parts[0] == "ca" and parts[1].isascii() and parts[1].isdigit()


@contextlib.contextmanager
def _remembered(kept: dict[str, bytes], path: str) -> Iterator[BinaryIO]:
    content = io.BytesIO()
    yield content
    kept[path] = content.getvalue()


class _Nowhere(io.RawIOBase, BinaryIO):
    """Takes what only has to be read."""

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        return memoryview(data).nbytes  # type: ignore[arg-type]  # whatever holds bytes
