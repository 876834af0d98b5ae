from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.durations import LONGEST, parse_duration, show_duration
from rsocket_broker.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h", 3600), ("2d", 172800), (" 5m ", 300), ("3650d", 315360000)]
)
def test_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "10", "m", "1.5h", "-1h", "1 h", "1h30m", "1w", "١m", "1" * 5000 + "s"])
def test_anything_else_is_told_what_one_looks_like(text: str) -> None:
    with pytest.raises(ConfigurationError, match="90s, 10m, 1h or 2d") as caught:
        parse_duration(text)
    assert len(caught.value.public) < 200


@pytest.mark.parametrize("text", ["0s", "3651d", "9999999999d"])
def test_nothing_and_for_ever_are_no_durations(text: str) -> None:
    with pytest.raises(ConfigurationError, match="from 1s to 3650d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.2, "1s"), (59.9, "1m"), (61, "1m 1s"), (5400, "1h 30m"), (90061, "1d 1h"), (-3, "0s")],
)
def test_shown_with_its_two_largest_units(seconds: float, text: str) -> None:
    assert show_duration(timedelta(seconds=seconds)) == text


@given(st.integers(1, LONGEST.days * 86400), st.sampled_from("smhd"))
def test_what_is_read_is_what_was_written(number: int, unit: str) -> None:
    text = f"{number}{unit}"
    try:
        duration = parse_duration(text)
    except ConfigurationError:
        assert number * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit] > LONGEST.total_seconds()
    else:
        assert timedelta(0) < duration <= LONGEST
        first = show_duration(duration).split()[0]
        assert parse_duration(first) <= duration
