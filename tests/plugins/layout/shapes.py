"""Screens as the two inspectors tell of them, on both platforms."""

import base64
from typing import Any

from rsocket_broker.plugin_api import ApplicationError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def old_node(node_id: str, name: str, children: list[str], **more: Any) -> dict[str, Any]:
    node = {"id": node_id, "name": name, "data": {}, "children": children, "attributes": [], "decoration": ""}
    return {**node, "extraInfo": {}, **more}


def sides(left: float, top: float, right: float, bottom: float) -> dict[str, Any]:
    return {"bounds": {"left": left, "top": top, "right": right, "bottom": bottom}}


ANDROID_OLD = {
    "1": old_node("1", "DecorView", ["2", "3"], data={"View": sides(0, 0, 100, 200)}),
    "2": old_node(
        "2",
        "TextView",
        [],
        attributes=[{"name": "id", "value": "title"}],
        data={
            "View": {
                **sides(10, 20, 60, 40),
                "alpha": {"__type__": "number", "__mutable__": True, "value": 1},
                "visibility": {
                    "__type__": "picker",
                    "__mutable__": True,
                    "value": '{"values":["GONE"],"selected":"VISIBLE"}',
                },
            },
            "TextView": {"text": {"__type__": "text", "__mutable__": True, "value": "Your cart"}},
        },
    ),
    "3": old_node("3", "LinearLayout", ["4"], data={"View": sides(0, 100, 100, 200)}),
    "4": old_node(
        "4",
        "Button",
        [],
        data={"View": {**sides(5, 5, 25, 15), "contentDescription": "Pay now"}, "TextView": {"text": "Pay"}},
    ),
}
IOS_OLD = {
    "a": old_node("a", "UIWindow", ["b"], attributes=[{"name": "(unknown)", "value": "x"}]),
    "b": old_node(
        "b",
        "UILabel",
        [],
        decoration="(unknown)",
        data={
            "UIView": {
                "frame": {"origin": {"x": 1, "y": 2}, "size": {"width": 30, "height": 10}},
                "accessibilityIdentifier": "title",
                "accessibilityLabel": "The cart",
            },
            "UILabel": {"text": {"__type__": "text", "value": "Your cart"}},
        },
    ),
}


def old_answers(nodes: dict[str, Any], root: str, *, all_at_once: bool) -> dict[str, Any]:
    """An app with these views: asked node by node, or all at once as newer Android SDKs can be."""

    def get_nodes(params: Any) -> Any:
        missing = [one for one in params["ids"] if one not in nodes]
        if missing:
            raise ApplicationError("No node with given id")
        return {"elements": [nodes[one] for one in params["ids"]]}

    answers: dict[str, Any] = {
        "getRoot": nodes[root],
        "getNodes": get_nodes,
        "getSnapshot": lambda params: {"id": params["id"], "snapshot": base64.encodebytes(PNG).decode()},
        "setData": {},
        "setHighlighted": {},
    }
    if all_at_once:
        answers["getAllNodes"] = {"allNodes": {"elements": nodes, "AXelements": {}, "rootElement": root}}
    return answers


METADATA = {
    "attributeMetadata": {
        "1": {"id": 1, "type": "identity", "namespace": "View", "name": "View"},
        "2": {"id": 2, "type": "attribute", "namespace": "View", "name": "alpha", "mutable": True, "minValue": None},
        "3": {"id": 3, "type": "identity", "namespace": "TextView", "name": "TextView"},
        "4": {"id": 4, "type": "attribute", "namespace": "TextView", "name": "text", "mutable": False},
        "5": {"id": 5, "type": "attribute", "namespace": "View", "name": "padding", "mutable": True},
    }
}


def new_node(node_id: Any, parent: Any, name: str, children: list[Any], **more: Any) -> dict[str, Any]:
    bounds = {"x": 10, "y": 20, "width": 100, "height": 50}
    node = {
        "id": node_id,
        "name": name,
        "qualifiedName": f"android.widget.{name}",
        "bounds": bounds,
        "tags": ["Android"],
    }
    if parent is not None:
        node["parent"] = parent
    return {**node, "attributes": {}, "inlineAttributes": {}, "hiddenAttributes": {}, "children": children, **more}


ANDROID_FRAME = {
    "frameTime": 1718000000000,
    "nodes": [
        new_node(1, None, "FrameLayout", [2, 3], activeChild=2),
        new_node(
            2,
            1,
            "TextView",
            [],
            inlineAttributes={"id": "title"},
            attributes={
                "1": {
                    "type": "object",
                    "fields": {
                        "2": {"type": "number", "value": 1},
                        "5": {"type": "space", "value": {"top": 1, "left": 2, "right": 3, "bottom": 4}},
                        "9": {"type": "array", "items": [{"type": "text", "value": "x"}]},
                    },
                },
                "3": {"type": "object", "fields": {"4": {"type": "text", "value": "Your cart"}}},
            },
        ),
        new_node(3, 1, "Button", [], inlineAttributes={"text": "Hidden page"}),
    ],
    "snapshot": {"nodeId": 1, "data": base64.encodebytes(PNG).decode()},
    "frameworkEvents": [],
}
IOS_FRAME = {
    "frameTime": 1718000000.5,
    "nodes": [
        new_node("w", None, "UIWindow", ["l"], qualifiedName="UIWindow"),
        new_node("l", "w", "UILabel", [], qualifiedName="UILabel", inlineAttributes={"text": "Your cart"}),
    ],
    "snapshot": {"nodeId": "w", "data": ""},
}
