"""A tree, searched and written."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.plugin_api import Invalid
from rsocket_broker.plugins.layout.tree import Bounds, Node, Query, as_json, as_xml, brief, by_id, find, walk


def node(node_id: str, *children: Node, text: str = "", kind: str = "View", visible: bool = True, **more: str) -> Node:
    bounds = Bounds(0, 1.5, 2, 3) if node_id == "1" else None
    return Node(
        node_id,
        kind,
        text,
        more.get("resource", ""),
        more.get("label", ""),
        bounds,
        visible,
        {"View": {"a": 1}},
        children,
    )


TREE = node(
    "1",
    node("2", text='Pay <now> & "here"', kind="android.widget.Button", resource="org.example:id/pay"),
    node("3", node("4", text="pay later", visible=False), label="Basket"),
)


def test_walk_goes_parents_first() -> None:
    assert [(depth, one.id) for depth, one in walk(TREE)] == [(0, "1"), (1, "2"), (1, "3"), (2, "4")]
    assert by_id(TREE, "4").text == "pay later"
    with pytest.raises(Invalid, match="no view '9' now"):
        by_id(TREE, "9")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(text="PAY"), ["2"]),
        (Query(text="pay", hidden=True), ["2", "4"]),
        (Query(text="pay later", exact=True, hidden=True), ["4"]),
        (Query(text="pay", exact=True, hidden=True), []),
        (Query(text="basket"), ["3"]),
        (Query(resource="pay"), ["2"]),
        (Query(resource="org.example:id/pay"), ["2"]),
        (Query(kind="Button"), ["2"]),
        (Query(kind="android.widget.Button", text="pay"), ["2"]),
        (Query(kind="View", text="pay"), []),
    ],
)
def test_views_are_found_by_what_they_are(query: Query, found: list[str]) -> None:
    assert [one.id for one in find(TREE, query.check())] == found


def test_a_query_for_nothing_is_refused() -> None:
    with pytest.raises(Invalid, match="what to look for"):
        Query().check()
    assert str(Query(text="a", kind="B")) == "text 'a' and kind 'B'"


def test_json_and_xml_hold_the_whole_tree() -> None:
    whole = as_json(TREE)
    assert whole["bounds"] == {"x": 0, "y": 1.5, "width": 2, "height": 3}
    assert whole["attributes"] == {"View": {"a": 1}}
    assert [child["id"] for child in whole["children"]] == ["2", "3"]  # type: ignore[attr-defined]
    assert "attributes" not in as_json(TREE, attributes=False)
    root = ElementTree.fromstring(as_xml(TREE))
    assert [view.get("id") for view in root.iter()] == ["1", "2", "3", "4"]
    button = root.find(".//view[@kind='android.widget.Button']")
    assert button is not None
    assert button.get("text") == 'Pay <now> & "here"'
    assert (root.get("bounds"), root.find(".//view[@visible='false']") is not None) == ("0 1.5 2 3", True)


@pytest.mark.row("M-7")
@given(st.text(max_size=60))
def test_whatever_an_app_writes_is_xml(text: str) -> None:
    assert ElementTree.fromstring(as_xml(node("1", text=text))).get("id") == "1"
    assert brief(node("1", text=text))["text"] == text
