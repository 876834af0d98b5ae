"""Moments of the calendar: the clock that says which it is, and the one form in which commands tell them as JSON."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The time of day of this machine, aware and in UTC."""
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """An aware moment as RFC 3339 has it: UTC, to the second, such as `2026-11-22T18:04:05+00:00`.

    Seconds are never rounded up: what ends at a moment has ended at its text.
    """
    return moment.astimezone(UTC).isoformat(timespec="seconds")
