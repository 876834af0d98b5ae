"""The old inspector's nodes, from JSON to a tree, and values on their way back.

    {"id": "1234", "name": "TextView", "data": {"View": {"alpha": {"__type__": "number", "value": 1}}},
     "children": ["5"], "attributes": [{"name": "id", "value": "title"}], "decoration": "", "extraInfo": {}}

A value may be bare or tagged with its type; a picker's is a string that holds JSON.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rsocket_broker.plugin_api import ApplicationError, Invalid
from rsocket_broker.plugin_api.lenient import fields, identifier, items, text
from rsocket_broker.plugins.layout.tree import MAX_DEPTH, Bounds, Node, length

UNKNOWN: Final = "(unknown)"
"""What iOS writes where there is no id, name or decoration."""
MAX_CHILDREN = 5000
MAX_TEXT = 4096
"""Characters of a view's text, name or id that are kept."""

_TEXTS: Final = ("text", "attributedText", "title", "currentTitle", "placeholder")
_LABELS: Final = ("contentDescription", "content-description", "accessibilityLabel", "talkback-output")
_RESOURCES: Final = ("id", "accessibilityIdentifier", "testID")

Raw = Mapping[str, Any]


def raw_node(value: object) -> tuple[str, Raw, list[str]]:
    """A node's id, itself, and the ids of its children. Raises Invalid."""
    node = fields(value, "node")
    children = [
        identifier({"children": one}, "children", MAX_TEXT)
        for one in items(node.get("children"), "children", MAX_CHILDREN)
    ]
    return identifier(node, "id", MAX_TEXT), node, children


def tree(root: str, nodes: Mapping[str, tuple[Raw, list[str]]]) -> Node:
    """The tree below `root`. A node that is not there, or was met before, is left out.

    Raises ApplicationError when the root is missing.
    """
    if root not in nodes:
        raise ApplicationError("The app's views have no root.")
    seen: set[str] = set()

    def made(node_id: str, x: float, y: float, depth: int) -> Node:
        seen.add(node_id)
        raw, children = nodes[node_id]
        bounds = _bounds(raw.get("data"), x, y)
        at_x, at_y = (bounds.x, bounds.y) if bounds is not None else (x, y)
        below = [
            made(child, at_x, at_y, depth + 1)
            for child in children
            if child in nodes and child not in seen and depth < MAX_DEPTH
        ]
        return _node(node_id, raw, bounds, tuple(below))

    return made(root, 0.0, 0.0, 0)


def _node(node_id: str, raw: Raw, bounds: Bounds | None, children: tuple[Node, ...]) -> Node:
    sections = raw.get("data") if isinstance(raw.get("data"), dict) else {}
    attributes = {name: _plain(section, 0) for name, section in (sections or {}).items()}
    listed = raw.get("attributes")
    named = {
        str(one.get("name")): str(one.get("value"))[:MAX_TEXT]
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict)
    }
    kind = raw.get("name")
    return Node(
        node_id,
        kind[:MAX_TEXT] if isinstance(kind, str) and kind != UNKNOWN else "",
        _first(attributes, _TEXTS),
        next((named[key] for key in _RESOURCES if key in named), "") or _first(attributes, _RESOURCES[1:]),
        _first(attributes, _LABELS),
        bounds,
        True,
        attributes,
        children,
    )


def _plain(value: object, depth: int) -> Any:
    """A value without the tags that say of what type it is."""
    if depth > 20:
        return None
    if isinstance(value, dict):
        if "__type__" in value:
            inner = value.get("value")
            return _picked(inner) if value["__type__"] == "picker" else inner
        return {key: _plain(one, depth + 1) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one, depth + 1) for one in value]
    return value


def _picked(value: object) -> object:
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value
    return found.get("selected", value) if isinstance(found, dict) else value


def _first(attributes: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The first of some values that any section has."""
    for name in names:
        for section in attributes.values():
            value = section.get(name) if isinstance(section, dict) else None
            if isinstance(value, str) and value:
                return value[:MAX_TEXT]
    return ""


def _bounds(data: object, x: float, y: float) -> Bounds | None:
    """Where the node is: `bounds` with four sides (Android) or a `frame` (iOS), inside what holds it at `x`, `y`."""
    for plain in _sections(data):
        frame = plain.get("frame")
        if isinstance(frame, dict):
            origin, size = frame.get("origin"), frame.get("size")
            if isinstance(origin, dict) and isinstance(size, dict):
                return _rectangle(x, y, origin.get("x"), origin.get("y"), size.get("width"), size.get("height"))
            return _rectangle(x, y, frame.get("x"), frame.get("y"), frame.get("width"), frame.get("height"))
        sides = plain.get("bounds")
        if isinstance(sides, dict) and "left" in sides:
            left, top = length(sides.get("left")), length(sides.get("top"))
            width, height = length(sides.get("right")), length(sides.get("bottom"))
            if None not in (left, top, width, height):
                assert left is not None and top is not None and width is not None and height is not None
                return Bounds(x + left, y + top, width - left, height - top)
    return None


def _sections(data: object) -> Iterator[dict[str, Any]]:
    for section in data.values() if isinstance(data, dict) else ():
        plain = _plain(section, 0)
        if isinstance(plain, dict):
            yield plain


def _rectangle(x: float, y: float, *sides: object) -> Bounds | None:
    left, top, width, height = map(length, sides)
    if left is None or top is None or width is None or height is None:
        return None
    return Bounds(x + left, y + top, width, height)


def tagged(value: object) -> dict[str, object]:
    """A value as `setData` takes it: with the kind of each part."""
    if value is None:
        return {"kind": "null", "data": None}
    if isinstance(value, bool):
        return {"kind": "boolean", "data": value}
    if isinstance(value, int | float):
        return {"kind": "number", "data": value}
    if isinstance(value, str):
        return {"kind": "string", "data": value}
    if isinstance(value, list):
        return {"kind": "array", "data": [tagged(one) for one in value]}
    if isinstance(value, dict):
        return {"kind": "object", "data": {key: tagged(one) for key, one in value.items()}}
    raise Invalid("value: wanted JSON.")


def path_of(params: Raw) -> list[str]:
    """The ids from the root to what was tapped, in a `select`. Raises Invalid."""
    return [text({"path": one}, "path", MAX_TEXT) for one in items(params.get("path"), "path", MAX_DEPTH)]
