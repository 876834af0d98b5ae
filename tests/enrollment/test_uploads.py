"""What lies in the home for apps that fetch it: once, for a day, and nothing under any other id."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rsocket_broker.enrollment import uploads
from rsocket_broker.enrollment.uploads import KEPT, Uploads
from rsocket_broker.errors import ApplicationError
from rsocket_broker.state import State

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.row("F-20", "F-19")
def test_it_is_taken_once_and_its_answer_is_remembered(tmp_path: Path) -> None:
    with State.open(tmp_path / "home" / "state.db") as state:
        kept = Uploads(state)
        kept.put("upload-1", "csr\n", b"key", b"bundle", NOW)
        assert kept.lying("upload-1", NOW) == (b"key", b"bundle")
        for guessed in ("upload-2", "UPLOAD-1", "", "upload-1 ", "%"):
            assert kept.lying(guessed, NOW) is None
        assert kept.take("upload-1", b"bundle")
        assert not kept.take("upload-1", b"bundle")
        assert kept.lying("upload-1", NOW) is None
        assert kept.answered("csr", NOW + KEPT / 2) == "upload-1"
        assert kept.answered("another", NOW) is None


def test_it_ends_and_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_ROWS", 1)
    with State.open(tmp_path / "home" / "state.db") as state:
        kept = Uploads(state)
        kept.put("upload-1", "one", b"key", None, NOW)
        assert kept.lying("upload-1", NOW) is None, "it is with somebody else's service"
        with pytest.raises(ApplicationError, match="were left within"):
            kept.put("upload-2", "two", b"key", b"bundle", NOW)
        later = NOW + KEPT + timedelta(seconds=1)
        assert kept.answered("one", later) is None
        kept.put("upload-2", "two", b"key", b"bundle", later)
        assert kept.lying("upload-2", later) == (b"key", b"bundle")


def test_a_key_that_asks_twice_is_given_what_was_made_last(tmp_path: Path) -> None:
    """Only the request that it holds at present opens it."""
    with State.open(tmp_path / "home" / "state.db") as state:
        kept = Uploads(state)
        for number in (3, 1, 2):
            kept.put("upload-1", f"request {number}", b"key", b"bundle %d" % number, NOW)
        kept.put("upload-1", "request 3", b"key", b"bundle 4", NOW)
        assert kept.lying("upload-1", NOW) == (b"key", b"bundle 4")
