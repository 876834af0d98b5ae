"""Android's log as text, read line by line: `logcat -v threadtime`, the one format that every Android prints.

    06-10 08:00:00.123  1234  1250 E AndroidRuntime: FATAL EXCEPTION: main

It has neither a year nor a time zone; both come from what the device says of its clock once. Nothing here asks a clock.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from rsocket_broker.plugin_api.device import LogLine

_LINE: Final = re.compile(
    r"(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)\.(\d{3,6}) +(?:[A-Za-z0-9_]+ +)?"
    r"(\d{1,9}) +(\d{1,9}) ([A-Z]) (.{0,128}?) {0,32}: (.*)",
    re.ASCII,
)
_LEVELS: Final = {"V": "verbose", "D": "debug", "I": "info", "W": "warn", "E": "error", "F": "fatal", "A": "fatal"}
CLOCK_FORMAT: Final = "+%s %Y-%m-%d %H:%M:%S"
"""What `date` is asked for: the time of the world, and that of the device's zone."""
_LOCAL: Final = "%Y-%m-%d %H:%M:%S"


class DeviceClock(NamedTuple):
    """`now` in seconds since 1970; `ahead` is what the device's zone is ahead of UTC, in seconds."""

    now: float
    ahead: float


def read_clock(text: str) -> DeviceClock | None:
    """From the answer to `date CLOCK_FORMAT`; None for an answer that makes no sense."""
    seconds, _, local = text.strip().partition(" ")
    if not (seconds.isascii() and seconds.isdigit() and len(seconds) <= 10):
        return None
    now = float(seconds)
    try:
        shown = datetime.strptime(local.strip(), _LOCAL).replace(tzinfo=UTC)
    except ValueError:
        return DeviceClock(now, 0.0)
    return DeviceClock(now, shown.timestamp() - now)


def priority(level: str) -> str:
    """The letter that logcat is given so that it leaves out what is less serious."""
    return next((letter for letter, name in _LEVELS.items() if name == level), "V")


def local_text(time: float, clock: DeviceClock) -> str:
    """A time as `logcat -T` takes it."""
    shown = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=time + clock.ahead)
    return f"{shown:%m-%d %H:%M:%S}.{shown.microsecond // 1000:03d}"


def parse(line: str, clock: DeviceClock) -> LogLine | None:
    """One entry; None for anything else, such as `--------- beginning of main`."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    month, day, hour, minute, second, fraction, pid, tid, level, tag, message = found.groups()
    time = _nearest(clock, int(month), int(day), int(hour), int(minute), int(second))
    if time is None:
        return None
    part = int(fraction) / 10 ** len(fraction)
    return LogLine(time + part, int(pid), int(tid), _LEVELS.get(level, "unknown"), tag, message)


def _nearest(clock: DeviceClock, month: int, day: int, hour: int, minute: int, second: int) -> float | None:
    """The one time of this date that is nearest to now: around New Year the line's year is not the clock's."""
    year = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=clock.now + clock.ahead)).year
    times = []
    for candidate in (year - 1, year, year + 1):
        try:
            times.append(datetime(candidate, month, day, hour, minute, second, tzinfo=UTC).timestamp() - clock.ahead)
        except ValueError:  # the 29th of February, or no date at all
            continue
    return min(times, key=lambda time: abs(time - clock.now), default=None)
