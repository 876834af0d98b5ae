"""The old inspector's nodes."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsocket_broker.plugin_api import ApplicationError, Invalid
from rsocket_broker.plugins.layout.old_nodes import path_of, raw_node, tagged, tree
from rsocket_broker.plugins.layout.tree import MAX_DEPTH, Bounds, Node, walk
from tests.plugins.layout.shapes import ANDROID_OLD, IOS_OLD, old_node


def made(nodes: dict[str, Any], root: str) -> Node:
    return tree(root, {raw_node(one)[0]: raw_node(one)[1:] for one in nodes.values()})


def test_views_of_android_are_a_tree() -> None:
    root = made(ANDROID_OLD, "1")
    title, _box, button = (one for _, one in walk(root) if one.id != "1")
    assert (title.text, title.resource, title.kind) == ("Your cart", "title", "TextView")
    assert title.attributes["View"]["visibility"] == "VISIBLE"
    assert title.attributes["View"]["alpha"] == 1
    assert title.bounds == Bounds(10, 20, 50, 20)
    assert (button.text, button.label) == ("Pay", "Pay now")
    assert button.bounds == Bounds(5, 105, 20, 10), "its parent's place is added"


def test_views_of_ios_are_a_tree() -> None:
    root = made(IOS_OLD, "a")
    (label,) = root.children
    assert (label.text, label.resource, label.label) == ("Your cart", "title", "The cart")
    assert label.bounds == Bounds(1, 2, 30, 10)
    assert made({"x": old_node("x", "(unknown)", [])}, "x").kind == ""


@pytest.mark.row("M-7")
def test_circles_missing_views_and_great_depth_are_cut_off() -> None:
    circle = {"1": old_node("1", "A", ["2", "9", "2"]), "2": old_node("2", "B", ["1"])}
    assert [one.id for _, one in walk(made(circle, "1"))] == ["1", "2"]
    chain = {str(number): old_node(str(number), "V", [str(number + 1)]) for number in range(5000)}
    assert sum(1 for _ in walk(made(chain, "0"))) == MAX_DEPTH + 1
    with pytest.raises(ApplicationError, match="no root"):
        made(circle, "7")


@pytest.mark.row("M-7")
@pytest.mark.parametrize(
    "node", [None, [], {}, {"id": []}, {"id": "1", "children": "2"}, {"id": "1", "children": [{}]}]
)
def test_what_is_no_node_is_refused(node: object) -> None:
    with pytest.raises(Invalid):
        raw_node(node)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda s: (
        st.lists(s)
        | st.dictionaries(
            st.sampled_from(
                ["View", "bounds", "frame", "left", "top", "right", "__type__", "value", "origin", "size", "text"]
            ),
            s,
        )
    ),
)


@pytest.mark.row("M-7")
@settings(max_examples=12)
@given(JSON, JSON)
def test_no_data_makes_it_fail(data: Any, attributes: Any) -> None:
    node = {"id": "1", "name": data, "data": data, "attributes": attributes if isinstance(attributes, list) else []}
    made({"1": node}, "1")


def test_values_are_tagged_at_every_depth() -> None:
    assert tagged({"a": [1, "x", None, True]}) == {
        "kind": "object",
        "data": {
            "a": {
                "kind": "array",
                "data": [
                    {"kind": "number", "data": 1},
                    {"kind": "string", "data": "x"},
                    {"kind": "null", "data": None},
                    {"kind": "boolean", "data": True},
                ],
            }
        },
    }
    with pytest.raises(Invalid):
        tagged(object())
    assert path_of({"path": ["1", "2"], "tree": {}}) == ["1", "2"]
    with pytest.raises(Invalid):
        path_of({"path": "1"})


@pytest.mark.row("M-7")
@pytest.mark.parametrize("left", [10**400, -(10**400), float("inf"), float("nan"), True, "1"])
def test_a_view_that_no_screen_has_room_for_has_no_place(left: object) -> None:
    for data in (
        {"View": {"bounds": {"left": left, "top": 1, "right": 2, "bottom": 3}}},
        {"View": {"frame": {"x": left, "y": 1, "width": 2, "height": 3}}},
    ):
        assert made({"1": {"id": "1", "name": "V", "children": [], "data": data}}, "1").bounds is None


@pytest.mark.row("M-7")
def test_a_picker_with_endless_brackets_is_text() -> None:
    data = {"View": {"mode": {"__type__": "picker", "value": "[" * 100_000}}}
    root = made({"1": {"id": "1", "name": "V", "children": [], "data": data}}, "1")
    assert root.attributes["View"]["mode"] == "[" * 100_000
