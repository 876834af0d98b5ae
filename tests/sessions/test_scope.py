"""Scopes: what is in one, and what two have in common."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.errors import Invalid
from rsocket_broker.sessions.scope import MAX_PATTERN, MAX_PATTERNS, MAX_SCOPE, Scope, allows, parse_scope, within

texts = st.text("ab.", max_size=4)
LARGE = [f"{number}{'x' * (MAX_SCOPE // 10)}" for number in range(10)]
"""Each of them is fine."""
patterns = texts.filter(bool) | texts.map(lambda text: text + "*")
scopes = st.lists(patterns, min_size=1, max_size=5).map(parse_scope)


@pytest.mark.parametrize(
    ("patterns", "method", "wanted"),
    [
        (None, "any.thing", True),
        ((), "any.thing", False),
        (("*",), "any.thing", True),
        (("Network.*",), "Network.har", True),
        (("Network.*",), "Network.a.b", True),
        (("Network.*",), "Networks.har", False),
        (("Network.*",), "Network", False),
        (("echo.request",), "echo.request", True),
        (("echo.request",), "echo.requests", False),
        (("a.b", "c.*"), "c.d", True),
    ],
)
def test_a_star_at_the_end_stands_for_any_text(patterns: Scope | None, method: str, wanted: bool) -> None:
    assert allows(patterns, method) is wanted


@given(scopes, scopes, texts)
def test_what_two_scopes_have_in_common_is_what_both_allow(one: Scope, other: Scope, method: str) -> None:
    common = within(one, other)
    assert allows(common, method) == (allows(one, method) and allows(other, method))
    assert within(other, one) is not None
    assert set(within(other, one) or ()) == set(common or ())


@given(scopes)
def test_no_scope_is_no_limit(scope: Scope) -> None:
    assert within(None, scope) == scope
    assert within(scope, None) == scope
    assert within(None, None) is None


@given(scopes)
def test_no_pattern_lies_within_another(scope: Scope) -> None:
    assert len(set(scope)) == len(scope)
    for each in scope:
        assert within(tuple(other for other in scope if other != each), (each,)) != (each,)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "Network.*",
        [],
        [""],
        ["a*b"],
        ["**"],
        [5],
        ["a\n"],
        ["x" * (MAX_PATTERN + 1)],
        ["a"] * (MAX_PATTERNS + 1),
        LARGE,
    ],
)
def test_what_is_no_scope_is_refused_by_name(value: object) -> None:
    with pytest.raises(Invalid, match="scope"):
        parse_scope(value)
