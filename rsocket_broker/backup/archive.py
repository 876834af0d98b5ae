"""The file of a backup: a tar archive, sealed or not, whose first member is the manifest and whose others are in the
order of the manifest. Any `tar` unpacks one that is not sealed.

Nothing is ever unpacked by the archive's own words: names, sizes and modes come from the manifest, which was checked.
"""

import contextlib
import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, cast

from rsocket_broker.backup import manifest, sealing
from rsocket_broker.backup.manifest import Entry, Manifest
from rsocket_broker.errors import HomeError

_COPY = 1 << 20
Place = Callable[[Entry], AbstractContextManager[BinaryIO]]
"""Where the content of an entry goes."""


def write(target: BinaryIO, contents: Manifest, folder: Path, passphrase: bytes | None) -> None:
    """Write the files of `contents`, which lie below `folder`, as one archive. Raises HomeError, OSError."""
    with contextlib.ExitStack() as closing:
        if passphrase is not None:
            target = cast("BinaryIO", closing.enter_context(contextlib.closing(sealing.Sealer(target, passphrase))))
        archive = closing.enter_context(tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT))
        listed = contents.to_json()
        archive.addfile(_member(manifest.MANIFEST, len(listed), 0o600, contents), io.BytesIO(listed))
        for entry in contents.entries:
            with (folder / entry.path).open("rb") as source:
                archive.addfile(_member(entry.path, entry.size, entry.mode, contents), source)


def read(path: Path, passphrase: bytes | None, place: Place) -> Manifest:
    """Read a whole archive, hand each file to `place`, and compare it with its sum.

    Raises HomeError when anything in it is not as its manifest says; what was placed till then is then worth nothing.
    """
    try:
        with path.open("rb") as file, _opened(file, passphrase) as source:
            with tarfile.open(fileobj=source, mode="r|", bufsize=_COPY) as archive:
                contents = _read_members(archive, place)
            while source.read(_COPY):  # to the end: a sealed file proves with its last piece that nothing was cut off
                pass
    except (tarfile.TarError, EOFError) as error:
        raise HomeError(f"{path} is damaged, or no backup: {error}.") from error
    except HomeError as error:
        raise HomeError(f"{path}: {error.public}") from error
    return contents


def needs_passphrase(path: Path) -> bool:
    """Whether the file is sealed."""
    with path.open("rb") as file:
        return sealing.is_sealed(file.read(len(sealing.MAGIC)))


@contextlib.contextmanager
def _opened(file: BinaryIO, passphrase: bytes | None) -> Iterator[BinaryIO]:
    if not sealing.is_sealed(file.read(len(sealing.MAGIC))):
        file.seek(0)
        yield file
        return
    if passphrase is None:
        raise HomeError("It is encrypted. Name the file that holds its passphrase (--decrypt-with).")
    with io.BufferedReader(sealing.Opener(file, passphrase), sealing.PIECE) as opener:
        yield cast("BinaryIO", opener)


def _read_members(archive: tarfile.TarFile, place: Place) -> Manifest:
    members = iter(archive)
    first = next(members, None)
    if first is None or first.name != manifest.MANIFEST or not _is_plain(first) or first.size > manifest.MAX_BYTES:
        raise HomeError("It does not begin with a list of its files, so it is no backup of a home.")
    contents = manifest.parse(_content(archive, first).read())
    for entry in contents.entries:
        member = next(members, None)
        if member is None or (member.name, member.size) != (entry.path, entry.size) or not _is_plain(member):
            raise HomeError(f"{entry.path} is not where the list of its files says.")
        _copy(_content(archive, member), entry, place)
    if next(members, None) is not None:
        raise HomeError("It holds more than the list of its files says.")
    return contents


def _is_plain(member: tarfile.TarInfo) -> bool:
    """Whether a member is a file with all its bytes: one with holes could be made larger than any disk."""
    return member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()


def _copy(source: BinaryIO, entry: Entry, place: Place) -> None:
    digest = hashlib.sha256()
    with place(entry) as target:
        while chunk := source.read(_COPY):
            digest.update(chunk)
            target.write(chunk)
    if digest.hexdigest() != entry.sha256:
        raise HomeError(f"{entry.path} is damaged: its SHA-256 is another.")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> BinaryIO:
    content = archive.extractfile(member)
    assert content is not None, "a regular file"
    return cast("BinaryIO", content)


def _member(name: str, size: int, mode: int, contents: Manifest) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, mode, int(contents.made.timestamp())
    return member
