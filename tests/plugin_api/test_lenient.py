"""Both platforms' habits are read alike; what makes no sense is refused."""

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsocket_broker.errors import Invalid
from rsocket_broker.plugin_api import lenient


def test_absent_and_null_are_the_same() -> None:
    for given_ in ({}, {"k": None}):
        assert lenient.text(given_, "k", 10) == ""
        assert lenient.number(given_, "k") is None
        assert lenient.flag(given_, "k") is False
    assert lenient.fields(None, "x") == {}
    assert lenient.items(None, "x", 1) == []
    assert lenient.octets(None, "x") == b""


def test_numbers_and_booleans_in_other_clothes() -> None:
    assert lenient.number({"k": "1718000000000.5"}, "k") == 1718000000000.5
    assert lenient.number({"k": "7"}, "k") == 7
    assert lenient.number({"k": 2**80}, "k") == 2**80
    assert lenient.text({"k": 1.5}, "k", 10) == "1.5"
    assert lenient.text({"k": True}, "k", 10) == "true"
    assert lenient.text({"k": "abcdef"}, "k", 3) == "abc"
    assert [lenient.flag({"k": value}, "k") for value in (1, "YES", "true", 0, "NO", False)] == [True] * 3 + [False] * 3
    assert lenient.identifier({"k": -(2**63)}, "k") == "-9223372036854775808"
    assert lenient.octets("aGFs\nbG8=\r\n", "x") == b"hallo"


@pytest.mark.row("M-7")
@pytest.mark.parametrize(
    ("read", "value"),
    [
        (lambda f: lenient.text(f, "k", 9), [1]),
        (lambda f: lenient.number(f, "k"), "x"),
        (lambda f: lenient.number(f, "k"), "nan"),
        (lambda f: lenient.number(f, "k"), "9" * 65),
        (lambda f: lenient.number(f, "k"), True),
        (lambda f: lenient.flag(f, "k"), 2),
        (lambda f: lenient.flag(f, "k"), "perhaps"),
        (lambda f: lenient.identifier(f, "k"), ""),
        (lambda f: lenient.identifier(f, "k"), "x" * 129),
        (lambda f: lenient.identifier(f, "k"), 1.5),
        (lambda f: lenient.identifier(f, "k"), 10**4000),
        (lambda f: lenient.text(f, "k", 9), 10**4000),
        (lambda f: lenient.number(f, "k"), 10**4000),
        (lambda f: lenient.fields(f["k"], "k"), []),
        (lambda f: lenient.items(f["k"], "k", 1), [1, 2]),
        (lambda f: lenient.items(f["k"], "k", 1), {}),
        (lambda f: lenient.octets(f["k"], "k"), "a"),
        (lambda f: lenient.octets(f["k"], "k"), 7),
    ],
)
def test_what_makes_no_sense_is_invalid(read: Callable[[dict[str, Any]], object], value: object) -> None:
    with pytest.raises(Invalid, match="k: "):
        read({"k": value})


@pytest.mark.row("M-7")
@settings(max_examples=30)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda s: st.lists(s)))
def test_nothing_else_is_ever_raised(value: object) -> None:
    for read in (lenient.number, lenient.flag, lenient.identifier, lambda f, k: lenient.text(f, k, 5)):
        with contextlib.suppress(Invalid):
            read({"k": value}, "k")  # type: ignore[operator]


@pytest.mark.row("M-7")
def test_a_value_weighs_what_it_takes_in_memory_and_all_of_a_heavy_one_is_not_looked_at() -> None:
    most = 10**9
    empty: list[object] = [[] for _ in range(1000)]
    assert lenient.weight(empty, most) > 1000 * sys.getsizeof([])
    objects: list[object] = [{"a": number} for number in range(1000)]
    assert lenient.weight(objects, most) > 1000 * (sys.getsizeof({}) + 30)
    assert lenient.weight("\U0001f600" * 1000, most) > 4000
    assert lenient.weight("a" * 1000, most) < 1100
    assert lenient.weight(None, most) == lenient.weight(5, most) < 100
    assert 1000 < lenient.weight([objects] * 10**6, 1000) < 10**8
