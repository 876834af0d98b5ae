"""The short cut past the check of parameters comes to what the check comes to, whatever the value."""

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.jsontext import MAX_DEPTH, SHORT, JsonError, dump, parse_bytes, skim
from rsocket_broker.plugin_api.app import App
from rsocket_broker.plugin_api.direct import StartJson as Start
from rsocket_broker.plugin_api.direct import direct, direct_data, direct_skimmed
from rsocket_broker.plugin_api.parameters import Mismatch, fields_checker

APP = cast("App", object())
ANNOTATIONS = [int, float, str, bool, list, dict, None, type(None), Any, list[int], int | None, Literal["a", 1], object]

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["a", "b", ""])
)
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


def from_text(wanted: dict[str, object], optional: set[str]) -> tuple[Any, Any, Any]:
    """From text that is skimmed, from what `skim` made of it, and the thorough way."""
    _, checked, _ = both_ways(wanted, optional)

    def thorough(app: App, data: bytes) -> object:
        return checked(app, parse_bytes(data))

    def function(app: App, *given: object) -> object:
        return {**dict.fromkeys(wanted, "default"), **dict(zip(wanted, given, strict=True))}

    start = direct_skimmed(function, wanted, thorough)
    return (None, None, thorough) if start is None else (direct_data(start, thorough), start, thorough)


def outcome_of_text(start: Any, *given: object) -> object:
    try:
        return repr(start(APP, *given))
    except (Mismatch, JsonError) as error:
        return str(error)


large = st.integers(-(2**70), 2**70) | st.sampled_from([2**63, 2**64, -(2**63) - 1])
texts = st.one_of(
    (json_values | fitting | st.fixed_dictionaries({}, optional=dict.fromkeys("abcd", scalars | large))).map(dump),
    st.sampled_from(
        [b"", b"{", b"NaN", b'{"a":"\\ud83d"}', b'{"a":1e999}', b'{"a":1,"z":' + b"[" * 600 + b"]" * 600 + b"}"]
    ),
    st.builds(lambda n: b'{"a":1' + b" " * n + b"}", st.integers(SHORT - 9, SHORT + 3)),
)


@given(annotations, st.sets(st.sampled_from("abcd")), texts)
def test_text_that_is_skimmed_comes_to_the_same(wanted: dict[str, object], optional: set[str], text: bytes) -> None:
    from_data, from_value, thorough = from_text(wanted, optional)
    if from_data is None:
        return
    assert outcome_of_text(from_data, text) == outcome_of_text(thorough, text)
    try:
        value = skim(text) if len(text) <= SHORT else None
    except ValueError:
        value = None
    if value is not None:
        assert outcome_of_text(from_value, value, text) == outcome_of_text(thorough, text)


def test_short_text_cannot_be_nested_too_deeply() -> None:
    assert len(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) == SHORT


@pytest.mark.parametrize("annotation", [float, list, dict, Any, int | None])
def test_a_type_that_may_hide_a_large_number_is_not_skimmed(annotation: object) -> None:
    assert from_text({"a": annotation}, set())[0] is None
