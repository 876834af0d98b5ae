"""The new inspector's frames, from JSON to a tree, with the names that its table of metadata gives.

    metadataUpdate   {"attributeMetadata": {"17": {"id": 17, "type", "namespace", "name": "alpha", "mutable": true}}}
    frameScan        {"frameTime", "nodes": [{"id", "parent", "name", "bounds", "attributes": {"17": {…}},
                      "inlineAttributes", "children": […], "activeChild"}], "snapshot": {"nodeId", "data": base64}}

Ids are integers on Android and text on iOS; times are milliseconds on Android and seconds on iOS.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from rsocket_broker.plugin_api import ApplicationError, Invalid
from rsocket_broker.plugin_api.lenient import fields, flag, identifier, items, number, text, weight
from rsocket_broker.plugins.layout.tree import MAX_DEPTH, MAX_NODES, MAX_WEIGHT, Bounds, Node, length

MAX_METADATA = 20_000
"""Attributes that an app can name: it names those of its views' classes, once each."""
MAX_TEXT = 4096
MAX_SNAPSHOT = 32 * 1024 * 1024
"""Characters of a picture in base64: that of a tablet, uncompressed, in 16 bits a pixel."""
SECONDS_BELOW: Final = 1e11
"""A time below this is in seconds: in milliseconds it would be in 1973."""

_TEXTS: Final = ("text", "Text", "title")
_LABELS: Final = ("contentDescription", "content-description", "accessibilityLabel", "Content Description", "label")
_RESOURCES: Final = ("id", "resourceId", "Id", "accessibilityIdentifier", "testTag", "view-id")


class Metadata(NamedTuple):
    """What an attribute's number means."""

    name: str
    namespace: str
    kind: str
    mutable: bool


class Frame(NamedTuple):
    """One scan of the screen. `time` in ms since 1970. `nodes` are as they came, by their ids as text; `ids` are the
    ids as the app has them. `snapshot` is base64, "" where there is none."""

    time: float
    root: str
    nodes: Mapping[str, Mapping[str, Any]]
    ids: Mapping[str, object]
    snapshot_of: str
    snapshot: str


def metadata(params: Mapping[str, Any]) -> dict[str, Metadata]:
    """The attributes that a `metadataUpdate` names, by their numbers as text. Raises Invalid."""
    found: dict[str, Metadata] = {}
    for key, value in fields(params.get("attributeMetadata"), "attributeMetadata").items():
        about = fields(value, "attributeMetadata")
        found[key[:64]] = Metadata(
            text(about, "name", 200), text(about, "namespace", 200), text(about, "type", 100), flag(about, "mutable")
        )
    return found


def frame(params: Mapping[str, Any], now: float) -> Frame:
    """A `frameScan`, or the older `subtreeUpdate`; `now` in ms since 1970. Raises Invalid."""
    nodes: dict[str, Mapping[str, Any]] = {}
    ids: dict[str, object] = {}
    for one in items(params.get("nodes"), "nodes", MAX_NODES):
        node = fields(one, "nodes")
        node_id = identifier(node, "id", MAX_TEXT)
        nodes[node_id], ids[node_id] = node, node["id"]
    if not nodes:
        raise Invalid("nodes: wanted at least one.")
    if weight(params["nodes"], MAX_WEIGHT) > MAX_WEIGHT:
        raise Invalid(f"nodes: more than {MAX_WEIGHT} bytes are not kept.")
    of, picture = _snapshot(params)
    return Frame(_time(params, now), _root(params, nodes), nodes, ids, of, picture)


def _snapshot(params: Mapping[str, Any]) -> tuple[str, str]:
    snapshot = params.get("snapshot")
    if isinstance(snapshot, dict):
        of = identifier(snapshot, "nodeId", MAX_TEXT) if snapshot.get("nodeId") is not None else ""
        return of, text(snapshot, "data", MAX_SNAPSHOT)
    picture = text({"snapshot": snapshot}, "snapshot", MAX_SNAPSHOT)
    return (identifier(params, "rootId", MAX_TEXT) if picture and params.get("rootId") is not None else ""), picture


def _time(params: Mapping[str, Any], now: float) -> float:
    time = number(params, "frameTime")
    if time is None:
        return now
    return time * 1000 if time < SECONDS_BELOW else time


def _root(params: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]]) -> str:
    """The one node that has no parent here."""
    named = params.get("rootId")
    if named is not None and str(named) in nodes:
        return str(named)
    return next((key for key, node in nodes.items() if str(node.get("parent")) not in nodes), next(iter(nodes)))


def tree(scan: Frame, table: Mapping[str, Metadata]) -> Node:
    """The tree of a frame. A child that is not there, or was met before, is left out."""
    seen: set[str] = set()

    def made(node_id: str, x: float, y: float, visible: bool, depth: int) -> Node:
        seen.add(node_id)
        raw = scan.nodes[node_id]
        bounds = _bounds(raw.get("bounds"), x, y)
        at_x, at_y = (bounds.x, bounds.y) if bounds is not None else (x, y)
        children, active = _children(raw)
        below = tuple(
            made(child, at_x, at_y, visible and active in (None, child), depth + 1)
            for child in children
            if child in scan.nodes and child not in seen and depth < MAX_DEPTH
        )
        return _node(node_id, raw, table, bounds, visible, below)

    return made(scan.root, 0.0, 0.0, True, 0)


def _children(raw: Mapping[str, Any]) -> tuple[list[str], str | None]:
    listed = raw.get("children")
    active = raw.get("activeChild")
    children = [str(one) for one in listed if isinstance(one, int | str)] if isinstance(listed, list) else []
    return children, None if active is None or str(active) not in children else str(active)


def _node(
    node_id: str,
    raw: Mapping[str, Any],
    table: Mapping[str, Metadata],
    bounds: Bounds | None,
    visible: bool,
    children: tuple[Node, ...],
) -> Node:
    attributes = named(raw.get("attributes"), table)
    inline = raw.get("inlineAttributes")
    inlined = inline if isinstance(inline, dict) else {}
    kind = raw.get("qualifiedName") or raw.get("name") or ""
    return Node(
        node_id,
        str(kind)[:MAX_TEXT],
        _first(attributes, inlined, _TEXTS),
        _first(attributes, inlined, _RESOURCES),
        _first(attributes, inlined, _LABELS),
        bounds,
        visible,
        {**attributes, **({"inline": inlined} if inlined else {})},
        children,
    )


def named(attributes: object, table: Mapping[str, Metadata], depth: int = 0) -> dict[str, Any]:
    """Attributes by their names; a number that the table does not know stays one."""
    found: dict[str, Any] = {}
    for key, value in attributes.items() if isinstance(attributes, dict) else ():
        about = table.get(key)
        found[about.name if about is not None and about.name else key] = _value(value, table, depth)
    return found


def _value(value: object, table: Mapping[str, Metadata], depth: int) -> Any:
    if not isinstance(value, dict) or depth > 20:
        return value if depth <= 20 else None
    kind = value.get("type")
    if kind == "object":
        return named(value.get("fields"), table, depth + 1)
    if kind == "array":
        listed = value.get("items")
        return [_value(one, table, depth + 1) for one in listed] if isinstance(listed, list) else []
    return value.get("value")


def _first(attributes: Mapping[str, Any], inlined: Mapping[str, Any], names: Sequence[str]) -> str:
    places = [inlined, attributes, *(one for one in attributes.values() if isinstance(one, dict))]
    for name in names:
        for place in places:
            value = place.get(name)
            if isinstance(value, str) and value:
                return value[:MAX_TEXT]
    return ""


def _bounds(value: object, x: float, y: float) -> Bounds | None:
    """Inside what holds the node at `x`, `y`."""
    if not isinstance(value, dict):
        return None
    left, top, width, height = (length(value.get(side)) for side in ("x", "y", "width", "height"))
    if left is None or top is None or width is None or height is None:
        return None
    return Bounds(x + left, y + top, width, height)


def path_to(scan: Frame, table: Mapping[str, Metadata], node_id: str, names: Sequence[str]) -> list[object]:
    """The numbers of an attribute that is named from its section on. Raises Invalid."""
    raw = scan.nodes.get(node_id)
    if raw is None:
        raise Invalid(f"There is no view {node_id[:100]!r} now. Ask for the tree again: ids die with their views.")
    place: object = raw.get("attributes")
    path: list[object] = []
    for name in names:
        found = place if isinstance(place, dict) else {}
        key = next((key for key in found if key == name or (key in table and table[key].name == name)), None)
        if key is None:
            listed = ", ".join(sorted(table[one].name if one in table else one for one in found)[:30]) or "none"
            raise Invalid(f"path: there is no {name[:100]!r}; there are {listed}.")
        path.append(int(key) if key.isdecimal() and len(key) < 20 else key)
        inner = found[key]
        place = inner.get("fields") if isinstance(inner, dict) else None
    last = table.get(str(path[-1]))
    if last is not None and not last.mutable:
        raise ApplicationError(f"{'.'.join(names)} cannot be changed: the app says so.")
    return path
