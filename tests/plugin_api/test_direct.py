"""The short cut past the check of parameters comes to what the check comes to, whatever the value."""

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.plugin_api.app import App
from rsocket_broker.plugin_api.direct import Start, direct
from rsocket_broker.plugin_api.parameters import Mismatch, fields_checker

APP = cast("App", object())
ANNOTATIONS = [int, float, str, bool, list, dict, None, type(None), Any, list[int], int | None, Literal["a", 1], object]

scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.sampled_from(["a", "b", ""])
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner),
    max_leaves=6,
)
annotations = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(ANNOTATIONS))
fitting = st.fixed_dictionaries({}, optional=dict.fromkeys("abcd", scalars))


def both_ways(wanted: Mapping[str, object], optional: set[str]) -> tuple[Start, Start, list[str]]:
    """The short way, the thorough one, and which of the two was taken in the end."""
    taken: list[str] = []
    check = fields_checker({name: (annotation, name not in optional) for name, annotation in wanted.items()})
    defaults = dict.fromkeys(wanted, "default")

    def function(app: App, *given: object, **named: object) -> object:
        assert app is APP
        return {**defaults, **dict(zip(wanted, given, strict=False)), **named}

    def thorough(app: App, value: object) -> object:
        taken.append("thorough")
        return function(app, **check(value))

    return direct(function, wanted, thorough), thorough, taken


def outcome(start: Start, value: object) -> object:
    try:
        return repr(start(APP, value))
    except Mismatch as mismatch:
        return str(mismatch)


@given(annotations, st.sets(st.sampled_from("abcd")), json_values | fitting)
def test_any_value_comes_to_the_same_on_both_ways(wanted: dict[str, object], optional: set[str], value: object) -> None:
    short, thorough, _ = both_ways(wanted, optional)
    assert outcome(short, value) == outcome(thorough, value)


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        ({"a": int}, {"a": 1}),
        ({"a": int, "b": str}, {"b": "x", "a": 1, "more": None}),
        ({"a": float, "b": None}, {"a": 0.5, "b": None}),
        ({"a": dict, "b": list, "c": bool}, {"a": {}, "b": [], "c": True}),
    ],
)
def test_what_is_as_it_should_be_is_not_checked_again(wanted: dict[str, object], value: dict[str, object]) -> None:
    short, _, taken = both_ways(wanted, set())
    assert short(APP, value) == {name: value[name] for name in wanted}
    assert not taken


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        ({"a": float}, {"a": 1}),
        ({"a": float, "b": int}, {"a": 1, "b": 1}),
        ({"a": Any}, {"a": math.pi}),
        ({"a": list[int]}, {"a": [1]}),
    ],
)
def test_what_needs_a_look_gets_it(wanted: dict[str, object], value: dict[str, object]) -> None:
    short, _, taken = both_ways(wanted, set())
    short(APP, value)
    assert taken == ["thorough"]
