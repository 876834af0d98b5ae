import contextlib
import hashlib
import io
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pytest

from rsocket_broker.backup import archive
from rsocket_broker.backup.manifest import Entry, Manifest
from rsocket_broker.errors import HomeError
from tests.backup.conftest import PASSPHRASE

MADE = datetime(2026, 3, 1, 12, tzinfo=UTC)
FILES = {"config.toml": b"[serve]\n", "plugins/mine.py": b"# mine\n" * 100, "empty": b""}


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    for name, content in FILES.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(content)
    entries = [Entry(name, len(data), 0o600, hashlib.sha256(data).hexdigest()) for name, data in FILES.items()]
    return Manifest(MADE, "1", tuple(entries))


def written(path: Path, manifest: Manifest, passphrase: bytes | None = None) -> Path:
    with path.open("wb") as file:
        archive.write(file, manifest, path.parent / "source", passphrase)
    return path


def read(path: Path, passphrase: bytes | None = None) -> dict[str, bytes]:
    found: dict[str, bytes] = {}

    @contextlib.contextmanager
    def place(entry: Entry) -> Iterator[BinaryIO]:
        content = io.BytesIO()
        yield content
        found[entry.path] = content.getvalue()

    archive.read(path, passphrase, place)
    return found


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_what_is_written_is_read(tmp_path: Path, manifest: Manifest, passphrase: bytes | None) -> None:
    path = written(tmp_path / "a", manifest, passphrase)
    assert read(path, passphrase) == FILES
    assert archive.needs_passphrase(path) is (passphrase is not None)
    assert tarfile.is_tarfile(path) is (passphrase is None), "any tar unpacks one that is not sealed"


def test_a_sealed_one_asks_for_its_passphrase(tmp_path: Path, manifest: Manifest) -> None:
    path = written(tmp_path / "a", manifest, PASSPHRASE)
    with pytest.raises(HomeError, match=r"a: It is encrypted.*--decrypt-with"):
        read(path)
    with pytest.raises(HomeError, match="the passphrase is another"):
        read(path, b"other")
    assert read(written(tmp_path / "b", manifest), PASSPHRASE) == FILES, "one that is not needed does no harm"


def rebuilt(path: Path, change: "tarfile.TarInfo | None" = None, **members: bytes) -> Path:
    """The archive with other contents, or with a member that should not be there."""
    with tarfile.open(path) as source:
        kept = [(member, source.extractfile(member).read()) for member in source]  # type: ignore[union-attr]
    with tarfile.open(path, "w") as target:
        for member, content in kept:
            data = members.get(member.name.replace(".", "_").replace("/", "_"), content)
            member.size = len(data)
            target.addfile(member, io.BytesIO(data))
        if change is not None:
            target.addfile(change)
    return path


def test_a_changed_byte_is_noticed(tmp_path: Path, manifest: Manifest) -> None:
    path = rebuilt(written(tmp_path / "a", manifest), config_toml=b"[serve]x")
    with pytest.raises(HomeError, match=r"a: config\.toml is damaged: its SHA-256"):
        read(path)
    path = rebuilt(written(tmp_path / "a", manifest), config_toml=b"[serve] longer")
    with pytest.raises(HomeError, match=r"config\.toml is not where"):
        read(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.REGTYPE])
def test_what_the_manifest_does_not_list_is_not_taken(tmp_path: Path, manifest: Manifest, kind: bytes) -> None:
    more = tarfile.TarInfo("../../escape")
    more.type, more.linkname = kind, "/etc"
    path = rebuilt(written(tmp_path / "a", manifest), more)
    with pytest.raises(HomeError, match="more than the list"):
        read(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.GNUTYPE_SPARSE, tarfile.DIRTYPE])
def test_what_is_no_plain_file_is_not_taken_in_the_place_of_one(
    tmp_path: Path, manifest: Manifest, kind: bytes
) -> None:
    path = written(tmp_path / "a", manifest)
    with tarfile.open(path) as source:
        listed = source.extractfile("manifest.json")
        assert listed is not None
        listing = listed.read()
    with tarfile.open(path, "w") as target:
        first = tarfile.TarInfo("manifest.json")
        first.size = len(listing)
        target.addfile(first, io.BytesIO(listing))
        link = tarfile.TarInfo("config.toml")
        link.type, link.linkname, link.size = kind, "/etc/passwd", len(FILES["config.toml"])
        target.addfile(link, io.BytesIO(FILES["config.toml"]))
    with pytest.raises(HomeError, match=r"config\.toml is not where|damaged, or no backup"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(20_000)])
def test_what_is_no_backup_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(HomeError, match="no backup"):
        read(tmp_path / "a")


def test_one_that_was_cut_off_is_noticed_at_any_length(tmp_path: Path, manifest: Manifest) -> None:
    whole = written(tmp_path / "a", manifest).read_bytes()
    for length in range(0, len(whole) - 10240, 300):
        (tmp_path / "b").write_bytes(whole[:length])
        with pytest.raises(HomeError):
            read(tmp_path / "b")
