"""The new inspector's frames."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsocket_broker.plugin_api import ApplicationError, Invalid
from rsocket_broker.plugins.layout import new_nodes
from rsocket_broker.plugins.layout.new_nodes import frame, metadata, path_to, tree
from rsocket_broker.plugins.layout.tree import MAX_DEPTH, Bounds, walk
from tests.plugins.layout.shapes import ANDROID_FRAME, IOS_FRAME, METADATA, new_node

TABLE = metadata(METADATA)


def test_a_frame_of_android_is_a_tree() -> None:
    scan = frame(ANDROID_FRAME, 7.0)
    root = tree(scan, TABLE)
    title, hidden = root.children
    assert (scan.time, scan.root, scan.snapshot_of, scan.ids["2"]) == (1718000000000, "1", "1", 2)
    assert (title.text, title.resource, title.kind) == ("Your cart", "title", "android.widget.TextView")
    assert title.attributes["View"] == {
        "alpha": 1,
        "padding": {"top": 1, "left": 2, "right": 3, "bottom": 4},
        "9": ["x"],
    }
    assert title.bounds == Bounds(20, 40, 100, 50)
    assert (root.visible, title.visible, hidden.visible) == (True, True, False)


def test_a_frame_of_ios_is_a_tree() -> None:
    scan = frame(IOS_FRAME, 7.0)
    assert (scan.time, scan.root, scan.snapshot) == (1718000000500.0, "w", "")
    assert tree(scan, {}).children[0].text == "Your cart"
    old = {"txId": 1, "rootId": "w", "nodes": IOS_FRAME["nodes"], "snapshot": "aGk=\n"}
    assert frame(old, 7.0)[0:2] == (7.0, "w")
    assert frame(old, 7.0)[4:] == ("w", "aGk=\n")


def test_the_way_to_an_attribute_by_its_names() -> None:
    scan = frame(ANDROID_FRAME, 7.0)
    assert path_to(scan, TABLE, "2", ["View", "alpha"]) == [1, 2]
    assert path_to(scan, TABLE, "2", ["View", "9"]) == [1, 9]
    with pytest.raises(Invalid, match="no 'beta'; there are 9, alpha, padding"):
        path_to(scan, TABLE, "2", ["View", "beta"])
    with pytest.raises(Invalid, match="there are none"):
        path_to(scan, TABLE, "2", ["View", "alpha", "x"])
    with pytest.raises(Invalid, match="no view '8' now"):
        path_to(scan, TABLE, "8", ["View"])
    with pytest.raises(ApplicationError, match=r"TextView\.text cannot be changed"):
        path_to(scan, TABLE, "2", ["TextView", "text"])


@pytest.mark.row("M-7")
def test_a_frame_is_no_heavier_than_a_screen_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_nodes, "MAX_WEIGHT", 100_000)
    node = new_node(1, None, "A", [])
    assert frame({"nodes": [node]}, 0.0).root == "1"
    for heavy in ([[] for _ in range(2000)], "x" * 100_000, {str(key): {} for key in range(1000)}):
        with pytest.raises(Invalid, match="not kept"):
            frame({"nodes": [{**node, "attributes": {"1": heavy}}]}, 0.0)


@pytest.mark.row("M-7")
def test_circles_missing_nodes_and_great_depth_are_cut_off() -> None:
    circle = {"nodes": [new_node(1, None, "A", [2, 9, 2]), new_node(2, 1, "B", [1])]}
    assert [one.id for _, one in walk(tree(frame(circle, 0.0), {}))] == ["1", "2"]
    chain = {"nodes": [new_node(number, number - 1, "V", [number + 1]) for number in range(3000)]}
    assert sum(1 for _ in walk(tree(frame(chain, 0.0), {}))) == MAX_DEPTH + 1
    rootless = {"nodes": [new_node(1, 2, "A", []), new_node(2, 1, "B", [])]}
    assert frame(rootless, 0.0).root == "1"


@pytest.mark.row("M-7")
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"nodes": []},
        {"nodes": {}},
        {"nodes": [7]},
        {"nodes": [{"id": None}]},
        {"nodes": [{"id": 1}], "frameTime": "soon"},
        {"nodes": [{"id": 1}], "snapshot": {"nodeId": [], "data": "x"}},
    ],
)
def test_what_is_no_frame_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        frame(params, 0.0)


@pytest.mark.row("M-7")
def test_metadata_that_makes_no_sense_is_refused() -> None:
    for params in (
        {"attributeMetadata": []},
        {"attributeMetadata": {"1": 7}},
        {"attributeMetadata": {"1": {"name": []}}},
    ):
        with pytest.raises(Invalid):
            metadata(params)
    assert metadata({}) == {}


NODE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda s: (
        st.lists(s)
        | st.dictionaries(st.sampled_from(["type", "fields", "items", "value", "x", "y", "width", "1", "text"]), s)
    ),
)


@pytest.mark.row("M-7")
@settings(max_examples=12)
@given(
    st.dictionaries(
        st.sampled_from(["attributes", "inlineAttributes", "bounds", "children", "name", "activeChild"]), NODE
    )
)
def test_no_node_makes_it_fail(node: dict[str, Any]) -> None:
    tree(frame({"nodes": [{"id": 1, **node}]}, 0.0), TABLE)


@pytest.mark.row("M-7")
def test_numbers_of_hundreds_of_digits_are_no_place_and_no_way() -> None:
    node = new_node(1, None, "A", [])
    node |= {"bounds": {"x": 10**400, "y": 1, "width": 2, "height": 3}, "attributes": {"9" * 5000: {"value": 1}}}
    scan = frame({"nodes": [node]}, 0.0)
    assert tree(scan, {}).bounds is None
    assert path_to(scan, {}, "1", ["9" * 5000]) == ["9" * 5000]
