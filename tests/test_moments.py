"""Which moment it is, and how one is told."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from rsocket_broker.moments import timestamp, utc_now


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
