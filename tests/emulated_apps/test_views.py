"""The shapes of both layout inspectors."""

import base64

import pytest

from emulated_apps import NO_REPLY, Inspector, Platform, ReceiverError, UiDebugger, View
from tests.emulated_apps.heard import listen


def tree() -> View:
    title = View("TextView", text="Your cart", key="title", bounds=(0, 0, 100, 20))
    return View("DecorView", View("LinearLayout", title, View("Button", text="Pay", key="pay")))


def test_the_old_inspector_is_walked_from_the_root() -> None:
    inspector = Inspector(tree())
    root = inspector.call("getRoot", {})
    (layout,) = inspector.call("getNodes", {"ids": root["children"]})["elements"]
    title, pay = inspector.call("getNodes", {"ids": layout["children"]})["elements"]
    assert title["attributes"] == [{"name": "id", "value": "title"}]
    assert title["data"]["View"]["text"] == {"__type__": "text", "__mutable__": True, "value": "Your cart"}
    everything = inspector.call("getAllNodes", {})["allNodes"]
    assert everything["rootElement"] == root["id"]
    assert everything["elements"][pay["id"]] == pay
    found = inspector.call("getSearchResults", {"query": "pay"})
    assert found["results"]["isMatch"] is False
    assert found["results"]["children"][0]["children"][0]["element"] == pay
    assert "results" not in inspector.call("getSearchResults", {"query": "nothing"})
    snapshot = inspector.call("getSnapshot", {"id": pay["id"]})["snapshot"]
    assert base64.b64decode(snapshot).startswith(b"\x89PNG")
    with pytest.raises(ReceiverError) as caught:
        inspector.call("getNodes", {"ids": ["nothing"]})
    assert caught.value.error == {"message": "No node with given id", "id": "nothing"}


def test_a_value_is_set_and_a_view_is_tapped() -> None:
    inspector = Inspector(tree())
    events = listen(inspector)
    button = inspector.root.children[0].children[1]
    value = {"kind": "number", "data": 0.5}
    assert inspector.call("setData", {"id": button.id, "path": ["View", "alpha"], "value": value}) == {}
    assert button.alpha == 0.5
    assert inspector.call("setData", {"id": "nothing"}) is NO_REPLY
    inspector.tap(button)
    assert inspector.call("setSearchActive", {"active": True}) is NO_REPLY
    assert inspector.call("isSearchActive", {}) == {"isSearchActive": True}
    inspector.tap(button)
    assert [name for name, _ in events] == ["invalidate", "select"]
    assert events[1][1]["path"] == [inspector.root.id, inspector.root.children[0].id, button.id]
    assert inspector.call("setHighlighted", {"id": None}) == {}


def test_the_old_inspector_on_ios() -> None:
    inspector = Inspector(tree(), Platform.IOS)
    assert inspector.call("getNodes", {"ids": ["nothing"]}) == {"elements": []}
    assert inspector.call("setData", {"id": inspector.root.id, "path": ["View", "text"], "value": "x"}) is NO_REPLY
    assert inspector.call("setHighlighted", {"id": "nothing"}) is NO_REPLY
    with pytest.raises(ReceiverError):
        inspector.call("setHighlighted", {"id": None})
    assert "getAllNodes" not in inspector.receivers()


@pytest.mark.parametrize(("platform", "kind", "moment"), [(Platform.ANDROID, int, 1500), (Platform.IOS, str, 1.5)])
def test_the_new_inspector_pushes(platform: Platform, kind: type, moment: float) -> None:
    debugger = UiDebugger(tree(), platform, clock=lambda: 1.5)
    events = listen(debugger)
    assert [name for name, _ in events] == ["init", "metadataUpdate", "frameScan"]
    table, scan = events[1][1]["attributeMetadata"], events[2][1]
    assert scan["frameTime"] == moment
    root, layout, title, _ = scan["nodes"]
    assert "parent" not in root
    assert isinstance(root["id"], kind)
    assert layout["parent"] == root["id"] == events[0][1]["rootId"]
    (section,) = title["attributes"].values()
    values = {table[number]["name"]: one["value"] for number, one in section["fields"].items()}
    assert values == {"text": "Your cart", "alpha": 1.0, "width": 100}

    path = [int(next(iter(title["attributes"]))), next(int(n) for n, one in table.items() if one["name"] == "text")]
    assert debugger.call("editAttribute", {"nodeId": title["id"], "value": "Empty", "metadataIdPath": path}) == {}
    assert events[-1][0] == "frameScan"
    with pytest.raises(ReceiverError) as caught:
        debugger.call("editAttribute", {"nodeId": 0})
    assert caught.value.error["errorType"] == "IllegalStateException"
