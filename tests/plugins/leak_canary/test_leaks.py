"""Both versions' reports, read."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.plugin_api import Invalid
from rsocket_broker.plugins.leak_canary.leaks import MAX_DETAILS, MAX_PATH, Element, fresh, new_reports, old_reports

OLD = """In org.example.shop:1.0:1.
* org.example.shop.CartActivity has leaked:
* GC ROOT static org.example.shop.Cache.listeners
* references java.util.ArrayList.elementData
* leaks org.example.shop.CartActivity instance

* Retaining: 1.2 MB.
* Reference Key: 1234
"""


def element(name: str, child: str = "", leaking: str = "N") -> dict[str, Any]:
    attributes = [{"name": "leaking", "value": leaking}, {"name": "retaining", "value": "120 bytes (3 objects)"}]
    return {"id": name, "name": name, "children": [child] if child else [], "attributes": attributes, "data": {}}


def new(title: str = "Cart leaked", ids: str = "ab") -> dict[str, Any]:
    first, second = ids
    return {
        "title": title,
        "root": first,
        "elements": {
            first: {**element("Cache", second), "id": first},
            second: {**element("Cart", "", "Y"), "id": second},
        },
        "retainedSize": "120 bytes",
        "details": "the whole trace",
    }


def test_version_1_tells_in_text() -> None:
    (leak,) = old_reports({"leaks": [OLD]})
    assert (leak.version, leak.title, leak.retained) == (1, "org.example.shop.CartActivity has leaked", "1.2 MB")
    assert [one.name.split()[0] for one in leak.path] == ["GC", "references", "leaks"]
    assert leak.details == OLD
    assert old_reports({"leaks": ["\nsomething else"]})[0].title == "something else"
    assert old_reports({}) == []


def test_version_2_tells_a_path() -> None:
    (leak,) = new_reports({"leaks": [new()]})
    assert (leak.version, leak.title, leak.retained, leak.details) == (2, "Cart leaked", "120 bytes", "the whole trace")
    assert leak.path == (
        Element("Cache", "N", "120 bytes (3 objects)"),
        Element("Cart", "Y", "120 bytes (3 objects)"),
    )
    assert new_reports({"leaks": [new(ids="xy")]}) == [leak], "ids are random and mean nothing"
    bare = new_reports({"leaks": [{"title": "t"}]})[0]
    assert (bare.path, bare.retained) == ((), "")


def test_what_is_new_in_a_full_list() -> None:
    first, second, third = new_reports({"leaks": [new("a"), new("b"), new("c")]})
    hashes = [hash(first), hash(second)]
    assert fresh([], [first]) == [first]
    assert fresh(hashes, [first, second]) == []
    assert fresh(hashes, [first, second, third]) == [third]
    assert fresh(hashes, [first, second, second]) == [second], "once more the same is one more"
    assert fresh(hashes, []) == []
    assert fresh(hashes, [second, third]) == [third]


@pytest.mark.row("M-7")
def test_a_leak_is_as_large_as_all_that_is_said_of_its_path() -> None:
    path = {str(number): element(str(number), str(number + 1), "x" * 10_000) for number in range(MAX_PATH)}
    (leak,) = new_reports({"leaks": [{"title": "t", "root": "0", "elements": path}]})
    words = sum(len(one.name) + len(one.leaking) + len(one.retaining) for one in leak.path)
    assert words < MAX_PATH * 300
    assert leak.size > words + MAX_PATH * 200


@pytest.mark.row("M-7")
def test_circles_and_long_paths_have_an_end() -> None:
    circle = {"title": "t", "root": "a", "elements": {"a": element("a", "b"), "b": element("b", "a")}}
    assert len(new_reports({"leaks": [circle]})[0].path) == 2
    chain = {str(number): element("x", str(number + 1)) for number in range(1000)}
    assert len(new_reports({"leaks": [{"title": "t", "root": "0", "elements": chain}]})[0].path) == MAX_PATH


@pytest.mark.row("M-7")
@pytest.mark.parametrize(
    "params",
    [
        {"leaks": "x"},
        {"leaks": [None]},
        {"leaks": [{}]},
        {"leaks": [{"title": "t", "elements": []}]},
        {"leaks": [{"title": "t", "root": "a", "elements": {"a": 7}}]},
        {"leaks": ["x"] * 501},
    ],
)
def test_what_makes_no_sense_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        new_reports(params)
    if params["leaks"] != ["x"] * 501:
        with pytest.raises(Invalid):
            old_reports(params)


@pytest.mark.row("M-7")
@given(st.text(max_size=500))
def test_no_text_makes_version_1_fail(report: str) -> None:
    old_reports({"leaks": [report]})


@pytest.mark.row("M-7")
@pytest.mark.parametrize("piece", ["\n", " ", "* ", "has leaked ", "* Retaining: x ", "* leaks ", "* Retaining: \n"])
def test_a_text_made_to_take_long_does_not(piece: str) -> None:
    assert old_reports({"leaks": [(piece * MAX_DETAILS)[:MAX_DETAILS] + "x"]})
