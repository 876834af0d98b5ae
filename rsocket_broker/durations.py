"""Durations as people write them: a whole number and a unit, such as 90s, 10m, 1h, 2d."""

import re
from datetime import timedelta

from rsocket_broker.errors import ConfigurationError

SHAPE = "a whole number and a unit: 90s, 10m, 1h or 2d"
LONGEST = timedelta(days=3650)
"""Ten years: beyond any use, and far from where dates have an end."""

_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
"""Largest first, as a duration is shown."""

_TEXT = re.compile(r"([0-9]{1,10})([smhd])")


def parse_duration(text: str) -> timedelta:
    """The duration in `text`, above zero. Raises ConfigurationError that says what one looks like."""
    found = _TEXT.fullmatch(text.strip())
    if found is None:
        raise ConfigurationError(f'"{text[:40]}" is not a duration: write {SHAPE}.')
    seconds = int(found[1]) * _SECONDS[found[2]]
    if not 0 < seconds <= LONGEST.total_seconds():
        raise ConfigurationError(f'"{text[:40]}" is out of range: from 1s to {LONGEST.days}d.')
    return timedelta(seconds=seconds)


def show_duration(duration: timedelta) -> str:
    """A duration with its two largest units, such as `1h 30m`; what is less than a second is `0s`.

    Rounded up to whole seconds, so that what is left of a duration never reads as nothing while there is some.
    """
    left = -(-duration // timedelta(seconds=1))
    parts = []
    for unit, size in _SECONDS.items():
        count, left = divmod(max(0, left), size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"
