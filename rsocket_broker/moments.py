"""Moments of the calendar: the clock that says which it is, how people write one, and how commands tell it as JSON."""

from datetime import UTC, datetime

from rsocket_broker.errors import ConfigurationError

SHAPE = "2026-03-01, or 2026-03-01T12:00+01:00"


def utc_now() -> datetime:
    """The time of day of this machine, aware and in UTC."""
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """An aware moment as RFC 3339 has it: UTC, to the second, such as `2026-11-22T18:04:05+00:00`.

    Seconds are never rounded up: what ends at a moment has ended at its text.
    """
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def parse_moment(text: str) -> datetime:
    """The moment in `text`, ISO 8601, in UTC where that names no zone; aware and in UTC.

    Raises ConfigurationError that says what one looks like.
    """
    try:
        moment = datetime.fromisoformat(text)
        return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigurationError(f'"{text[:40]}" is not a date: write one such as {SHAPE}.') from None
