"""Android's log, read from text."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.enrollment.logcat import DeviceClock, local_text, parse, priority, read_clock
from rsocket_broker.plugin_api import LogLine

NOON = datetime(2024, 6, 10, 12, 0, 0, tzinfo=UTC).timestamp()
CLOCK = DeviceClock(NOON, 7200.0)


def test_an_entry_of_a_phone() -> None:
    line = "06-10 08:00:00.123  1234  1250 E AndroidRuntime: FATAL EXCEPTION: main"
    time = datetime(2024, 6, 10, 6, 0, 0, 123000, tzinfo=UTC).timestamp()
    assert parse(line, CLOCK) == LogLine(time, 1234, 1250, "error", "AndroidRuntime", "FATAL EXCEPTION: main")


@pytest.mark.parametrize(
    ("line", "level", "tag", "message"),
    [
        ("06-10 08:00:00.123456  1  2 F libc    : Fatal signal 11", "fatal", "libc", "Fatal signal 11"),
        ("06-10 08:00:00.123  u0_a12  1  2 D a b  : c: d", "debug", "a b", "c: d"),
        ("06-10 08:00:00.123  1  2 A x: ", "fatal", "x", ""),
        ("06-10 08:00:00.123  1  2 S x: y", "unknown", "x", "y"),
        ("06-10 08:00:00.123  1  2 I : no tag", "info", "", "no tag"),
        ("06-10 08:00:00.123  1  2 V t: über\t…", "verbose", "t", "über\t…"),
    ],
)
def test_other_shapes(line: str, level: str, tag: str, message: str) -> None:
    found = parse(line, CLOCK)
    assert found is not None
    assert (found.level, found.tag, found.message) == (level, tag, message)


@pytest.mark.row("M-7")
@pytest.mark.parametrize(
    "line",
    ["", "--------- beginning of crash", "logcat: unexpected EOF!", "13-40 08:00:00.123  1  2 I t: m", "06-10 08:00"],
)
def test_anything_else_is_no_entry(line: str) -> None:
    assert parse(line, CLOCK) is None


def test_the_year_is_the_nearest_one() -> None:
    new_year = DeviceClock(datetime(2025, 1, 1, 0, 0, 5, tzinfo=UTC).timestamp(), 0.0)
    old = parse("12-31 23:59:59.000  1  2 I t: m", new_year)
    assert old is not None
    assert datetime.fromtimestamp(old.time, UTC).year == 2024
    eve = DeviceClock(datetime(2024, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp(), 0.0)
    new = parse("01-01 00:00:01.000  1  2 I t: m", eve)
    assert new is not None
    assert datetime.fromtimestamp(new.time, UTC).year == 2025
    leap = parse("02-29 00:00:01.000  1  2 I t: m", DeviceClock(NOON, 0.0))
    assert leap is not None


def test_the_clock_of_a_device() -> None:
    assert read_clock("1718020800 2024-06-10 14:00:00\n") == DeviceClock(1718020800.0, 7200.0)
    assert read_clock("1718020800") == DeviceClock(1718020800.0, 0.0)
    assert read_clock("date: bad format") is None
    assert read_clock("99999999999 x") is None
    assert [priority(level) for level in ("unknown", "verbose", "error", "fatal")] == ["V", "V", "E", "F"]
    assert local_text(NOON + 0.25, CLOCK) == "06-10 14:00:00.250"


@pytest.mark.row("M-7")
@given(st.text(max_size=200))
def test_no_text_makes_it_fail(line: str) -> None:
    parse(line, CLOCK)
    read_clock(line)


@given(st.floats(min_value=NOON - 10_000_000, max_value=NOON + 10_000_000))
def test_what_is_written_is_read_back(time: float) -> None:
    found = parse(f"{local_text(time, CLOCK)}  1  2 I t: m", CLOCK)
    assert found is not None
    assert abs(found.time - time) < 0.0015


@pytest.mark.row("M-7")
@pytest.mark.parametrize("piece", [" ", ":", "I ", "x", " :"])
def test_a_line_made_to_take_long_does_not(piece: str) -> None:
    parse(f"06-10 08:00:00.123  1  2 I {piece * 16_000}", CLOCK)
    parse(piece * 16_000, CLOCK)
