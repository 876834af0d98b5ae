"""Which moment it is, and how one is told."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from rsocket_broker.errors import ConfigurationError
from rsocket_broker.moments import parse_moment, timestamp, utc_now


def test_now_is_aware_and_in_utc() -> None:
    before = datetime.now(UTC)
    now = utc_now()
    assert before <= now <= datetime.now(UTC)
    assert now.utcoffset() == timedelta()


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
        (datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
        (datetime(2026, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T01:04:00+00:00"),
    ],
)
def test_a_timestamp_is_in_utc_and_of_whole_seconds(moment: datetime, text: str) -> None:
    assert timestamp(moment) == text
    assert len(text) == 25


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T12:00", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00+01:00", datetime(2026, 3, 1, 11, tzinfo=UTC)),
        ("2026-03-01T12:00:30Z", datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_is_read_as_utc_where_it_names_no_zone(text: str, moment: datetime) -> None:
    assert parse_moment(text) == moment
    assert parse_moment(text).utcoffset() == timedelta()


@pytest.mark.parametrize("text", ["", "yesterday", "01.03.2026", "0001-01-01T00:00+23:00", "x" * 5000])
def test_what_is_no_moment_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is not a date: write one such as 2026-03-01, or ") as caught:
        parse_moment(text)
    assert len(caught.value.public) < 150
