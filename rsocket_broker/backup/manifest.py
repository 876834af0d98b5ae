"""What a backup holds, in its own words: a name, a size, a mode and a SHA-256 for each file. Pure.

Nothing that a manifest says is believed before it was checked: it may come from a file that somebody else made.
"""

import re
from collections.abc import Mapping
from datetime import datetime

import attrs

from rsocket_broker import jsontext
from rsocket_broker.errors import HomeError
from rsocket_broker.moments import timestamp

FORMAT = 1
MANIFEST = "manifest.json"
MAX_BYTES = 16 << 20
"""Of the manifest itself: a hundred thousand files with long names."""
MAX_PATH = 1024
KEPT_MODES = 0o755
"""A restored file is writable by its owner alone, whatever the manifest says."""
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


@attrs.frozen(slots=True)
class Entry:
    """One file: `path` relative to the home with `/` between its parts, `size` in bytes, `sha256` in hex."""

    path: str
    size: int
    mode: int
    sha256: str


@attrs.frozen(slots=True)
class Manifest:
    """`made` is aware and in UTC; `version` is of the broker that made the backup."""

    made: datetime
    version: str
    entries: tuple[Entry, ...]

    def to_json(self) -> bytes:
        files = [{"path": e.path, "size": e.size, "mode": f"{e.mode:o}", "sha256": e.sha256} for e in self.entries]
        return jsontext.dump({"format": FORMAT, "made": timestamp(self.made), "version": self.version, "files": files})


def parse(data: bytes) -> Manifest:
    """Raises HomeError for anything that `to_json` does not write, and for a path that leads out of a home."""
    try:
        value = jsontext.parse_object(data)
        if value["format"] != FORMAT:
            raise HomeError("The backup was made by a later rsocket-broker. Update this one to use it.")
        made, version, listed = datetime.fromisoformat(_text(value["made"])), _text(value["version"]), value["files"]
        if made.tzinfo is None or not isinstance(listed, list):
            raise ValueError("wrong types")
        entries = tuple(map(_entry, listed))
    except (ValueError, KeyError, TypeError) as error:
        raise HomeError("The backup has no sound list of its files.") from error
    _check_paths([entry.path for entry in entries])
    return Manifest(made, version, entries)


def _entry(value: object) -> Entry:
    if not isinstance(value, Mapping) or set(value) != {"path", "size", "mode", "sha256"}:
        raise ValueError("no entry")
    size, digest = value["size"], _text(value["sha256"])
    if isinstance(size, bool) or not isinstance(size, int) or size < 0 or not _DIGEST.fullmatch(digest):
        raise ValueError("no entry")
    return Entry(_text(value["path"]), size, int(_text(value["mode"]), 8) & KEPT_MODES, digest)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _check_paths(paths: list[str]) -> None:
    """Each is a plain path below the home, there once, and no folder of another."""
    seen = set(paths)
    if len(seen) != len(paths):
        raise HomeError("The backup names a file twice.")
    for path in paths:
        parts = path.split("/")
        plain = all(part not in ("", ".", "..") for part in parts) and path.isprintable() and len(path) <= MAX_PATH
        if not plain or "\\" in path:
            raise HomeError(f"The backup names a file {path[:80]!r}, which is no plain path inside a home.")
        if any("/".join(parts[:count]) in seen for count in range(1, len(parts))):
            raise HomeError(f"The backup uses the file {path.rpartition('/')[0][:80]!r} as a folder.")
