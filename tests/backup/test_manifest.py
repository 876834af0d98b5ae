import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.backup.manifest import Entry, Manifest, parse
from rsocket_broker.errors import HomeError

SUM = "0" * 64
MADE = datetime(2026, 3, 1, 12, tzinfo=UTC)


def listing(*paths: str, **changes: object) -> bytes:
    files = [{"path": path, "size": 1, "mode": "600", "sha256": SUM} | changes for path in paths]
    return json.dumps({"format": 1, "made": MADE.isoformat(), "version": "1", "files": files}).encode()


def test_what_is_written_is_read() -> None:
    entries = (Entry("ca/1/ca.key", 3, 0o600, SUM), Entry("plugins/mine.py", 0, 0o644, "f" * 64))
    made = Manifest(MADE, "0.4", entries)
    assert parse(made.to_json()) == made


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/", "a/./b", "a\x00b", "a\nb", "a\\..\\b", "x" * 1025],
)
def test_no_path_leads_out_of_a_home(path: str) -> None:
    with pytest.raises(HomeError, match="no plain path inside a home"):
        parse(listing("config.toml", path))


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_a_path_that_is_taken_stays_inside(path: str) -> None:
    try:
        (entry,) = parse(listing(path)).entries
    except HomeError:
        return
    parts = entry.path.split("/")
    assert not entry.path.startswith("/")
    assert not {"", ".", ".."} & set(parts)


def test_a_file_is_there_once_and_is_no_folder() -> None:
    with pytest.raises(HomeError, match="twice"):
        parse(listing("a", "a"))
    with pytest.raises(HomeError, match="as a folder"):
        parse(listing("a", "a/b/c"))


def test_a_restored_file_is_writable_by_its_owner_alone() -> None:
    (entry,) = parse(listing("a", mode="7777")).entries
    assert entry.mode == 0o755


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        listing("a", size=-1),
        listing("a", size=True),
        listing("a", sha256="F" * 64),
        listing("a", sha256="0" * 63),
        listing("a", mode="abc"),
        listing("a", more=1),
        listing("a").replace(b"+00:00", b""),
    ],
)
def test_what_is_malformed_is_refused(data: bytes) -> None:
    with pytest.raises(HomeError, match="no sound list"):
        parse(data)


def test_a_later_format_is_said_to_be_one() -> None:
    with pytest.raises(HomeError, match="later rsocket-broker"):
        parse(listing("a").replace(b'"format": 1', b'"format": 2'))
