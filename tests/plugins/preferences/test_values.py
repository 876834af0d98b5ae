"""Preferences from JSON to values, and what may be written over what."""

from typing import Any

import pytest

from rsocket_broker.plugin_api import ApplicationError, Invalid
from rsocket_broker.plugins.preferences.values import (
    MAX_VALUE,
    Change,
    Difference,
    change,
    check_android,
    difference,
    file,
    files,
    kind,
    same,
)


@pytest.mark.parametrize(
    ("params", "found"),
    [
        (
            {"preferences": "F", "name": "k", "deleted": False, "time": 1718000000000, "value": 5},
            Change("F", "k", False, 1718000000000, 5),
        ),
        (
            {"preferences": "S", "name": "k", "time": "1718000000000.123047", "value": [1]},
            Change("S", "k", False, 1718000000000.123, [1]),
        ),
        ({"preferences": "S", "name": "k", "time": "x", "deleted": "YES"}, Change("S", "k", True, 0, None)),
        ({"preferences": "F", "name": "k", "deleted": True, "value": 5}, Change("F", "k", True, 0, None)),
        ({"preferences": "F", "deleted": False, "time": 5}, Change("F", None, True, 5, None)),
        ({"preferences": "F", "name": "k", "time": "inf"}, Change("F", "k", False, 0, None)),
    ],
)
def test_changes_have_two_shapes(params: dict[str, Any], found: Change) -> None:
    got = change(params)
    assert got._replace(time=round(got.time, 3)) == found


@pytest.mark.parametrize(
    "params", [{}, {"preferences": 5}, {"preferences": "F", "name": 5}, {"preferences": "F" * 1001, "name": "k"}]
)
def test_a_change_of_nothing_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="preferences and name"):
        change(params)


@pytest.mark.row("M-7")
def test_a_change_is_as_large_as_its_value_is_in_memory_and_the_largest_are_refused() -> None:
    empty: list[object] = [[] for _ in range(1000)]
    assert change({"preferences": "F", "name": "k", "value": empty}).size > 50_000
    assert change({"preferences": "F", "name": "k", "value": "\U0001f600" * 1000}).size > 4000
    for value in ([[] for _ in range(MAX_VALUE // 50)], "x" * MAX_VALUE):
        with pytest.raises(Invalid, match="not kept"):
            change({"preferences": "F", "name": "k", "value": value})
        assert change({"preferences": "F", "name": "k", "deleted": True, "value": value}).value is None


@pytest.mark.parametrize("answer", [None, [], "x", {"F": 5}, {str(number): {} for number in range(1001)}])
def test_answers_that_make_no_sense_are_errors_of_the_apps(answer: object) -> None:
    with pytest.raises(ApplicationError, match="none that is understood"):
        files(answer)
    assert file({"k": 1}) == {"k": 1}


@pytest.mark.parametrize(
    ("before", "value", "fits"),
    [
        (True, False, True),
        (True, 1, False),
        (5, 6, True),
        (5, 6.5, True),
        (0.5, 1, True),
        (5, "6", False),
        (5, None, False),
        ("a", "b", True),
        ("a", ["b"], False),
        ("a", {}, False),
    ],
)
def test_android_keeps_the_type_that_a_key_has(before: object, value: object, fits: bool) -> None:
    if fits:
        check_android("F", {"k": before}, "k", value)
        return
    with pytest.raises(Invalid, match=f"is a {kind(before)}, and stays one"):
        check_android("F", {"k": before}, "k", value)


def test_android_makes_no_keys() -> None:
    with pytest.raises(Invalid, match="make none"):
        check_android("F", {}, "k", 1)


def test_floats_of_32_bits_are_the_same() -> None:
    assert same(0.1, 0.10000000149011612)
    assert not same(0.1, 0.11)
    assert not same(True, 0)
    assert same({"a": 1}, {"a": 1})


def test_what_has_to_be_done_to_be_as_before() -> None:
    assert difference({"a": 1, "b": 2, "new": 3}, {"a": 1, "b": 5, "gone": 6}) == Difference(
        {"b": 5, "gone": 6}, ("new",)
    )
