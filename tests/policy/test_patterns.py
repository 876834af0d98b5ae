"""Names with stars: what fits, held to a regular expression that says the same."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rsocket_broker.policy.patterns import MAX_PATTERN, compiled


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        ("wifi.set", ["wifi.set"], ["wifi.setAll", "wifi.get", "Wifi.set", "", "wifi.set.more"]),
        ("wifi.*", ["wifi.set", "wifi.", "wifi.a.b"], ["wifi", "wifix.set"]),
        ("*.get", ["wifi.get", ".get"], ["a.b.get", "get", "wifi.getAll"]),
        ("wifi.get*", ["wifi.get", "wifi.getAll", "wifi.getAll.more"], ["wifi.set"]),
        ("*", ["", "a", "a.b.c"], []),
        ("a*c.d*", ["ac.d", "abc.d", "abc.def.g"], ["a.c.d", "abc.e"]),
        ("a*b*c", ["abc", "aXbYc", "abbc"], ["ac", "acb", "ab.c"]),
        ("ab*ba", ["abba", "abXba"], ["aba"]),
    ],
)
def test_what_fits_a_pattern(pattern: str, fits: list[str], does_not: list[str]) -> None:
    made = compiled(pattern)
    assert [name for name in (*fits, *does_not) if made.matches(name)] == fits
    assert made.exact is ("*" not in pattern)


def as_expression(pattern: str) -> re.Pattern[str]:
    body, rest = (pattern[:-1], ".*") if pattern.endswith("*") else (pattern, "")
    return re.compile("[^.]*".join(map(re.escape, body.split("*"))) + rest, re.DOTALL)


texts = st.text("ab.", max_size=12)


@given(st.text("ab.*", min_size=1, max_size=10), texts)
@example("a*b*", "a.b")
@example("*a*.b", "ca.a.b")
@example("**", "a.b")
def test_a_pattern_fits_what_the_regular_expression_fits(pattern: str, name: str) -> None:
    assert compiled(pattern).matches(name) is (as_expression(pattern).fullmatch(name) is not None)


@pytest.mark.parametrize("text", ["", "a b", "a\nb", "a\tb", "x" * (MAX_PATTERN + 1)])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(ValueError, match=r"not be empty|blanks|at most"):
        compiled(text)


def test_a_pattern_that_is_made_to_cost_time_costs_none() -> None:
    hard = compiled("*".join("a" * 100) + "b")
    assert not hard.matches("a" * 100_000)
