"""A tree of what an app shows, the same for both generations of inspectors, and what can be asked of it."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from rsocket_broker.plugin_api import Invalid

MAX_NODES = 20_000
"""Nodes of one tree: heavy screens have two thousand."""
MAX_DEPTH = 300
"""Levels of one tree: nested layouts have fifty."""
MAX_WEIGHT = 128 * 1024 * 1024
"""Bytes of memory that the nodes of one screen take, as the app tells them: ten times those of a heavy screen."""
_UNSAFE: Final = r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
"""What XML 1.0 has no place for, not even escaped. Compiled when it is used, which costs milliseconds."""


MAX_LENGTH = 2**53
"""No side of a view is as long, and a whole number of hundreds of digits cannot be reckoned with."""


def length(value: object) -> float | None:
    """One number of a rectangle; None for what is none, or beyond all screens."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < MAX_LENGTH:
        return None
    return value


class Bounds(NamedTuple):
    """A rectangle on the screen, in the unit of the app's side: pixels on Android, points on iOS."""

    x: float
    y: float
    width: float
    height: float


class Node(NamedTuple):
    """One view. `resource` is the id that the developer gave it, `label` what screen readers say. `visible` is False
    in what lies behind a pager's or a tab's current page. `attributes`: section -> name -> value."""

    id: str
    kind: str
    text: str
    resource: str
    label: str
    bounds: Bounds | None
    visible: bool
    attributes: Mapping[str, Any]
    children: "tuple[Node, ...]"


def walk(root: Node) -> Iterator[tuple[int, Node]]:
    """All nodes with their depths, parents before children."""
    waiting = [(0, root)]
    while waiting:
        depth, node = waiting.pop()
        yield depth, node
        waiting.extend((depth + 1, child) for child in reversed(node.children))


def by_id(root: Node, node_id: str) -> Node:
    """The node with this id. Raises Invalid: ids live as long as their view."""
    for _, node in walk(root):
        if node.id == node_id:
            return node
    raise Invalid(f"There is no view {node_id[:100]!r} now. Ask for the tree again: ids die with their views.")


class Query(NamedTuple):
    """What a view must have: `text` in its text or label, that `resource`, that `kind` (with its package or without).
    What is "" is not asked for."""

    text: str = ""
    resource: str = ""
    kind: str = ""
    exact: bool = False
    hidden: bool = False

    def check(self) -> "Query":
        """Itself. Raises Invalid when it asks for nothing."""
        if not (self.text or self.resource or self.kind):
            raise Invalid("Say what to look for: text, resource or kind.")
        return self

    def matches(self, node: Node) -> bool:
        """Whether a view has all of it."""
        if not node.visible and not self.hidden:
            return False
        if self.resource and self.resource != node.resource.rpartition("/")[2] and self.resource != node.resource:
            return False
        if self.kind and self.kind != node.kind and self.kind != node.kind.rpartition(".")[2]:
            return False
        if self.exact and self.text:
            return self.text in (node.text, node.label)
        wanted = self.text.casefold()
        return not wanted or wanted in node.text.casefold() or wanted in node.label.casefold()

    def __str__(self) -> str:
        asked = {"text": self.text, "resource": self.resource, "kind": self.kind}
        return " and ".join(f"{name} {value!r}" for name, value in asked.items() if value)


def find(root: Node, query: Query) -> list[Node]:
    """The views that match, in the order of the tree."""
    return [node for _, node in walk(root) if query.matches(node)]


def brief(node: Node) -> dict[str, object]:
    """A view as JSON, without its children and attributes."""
    return {
        "id": node.id,
        "kind": node.kind,
        "text": node.text,
        "resource": node.resource,
        "label": node.label,
        "bounds": None if node.bounds is None else node.bounds._asdict(),
        "visible": node.visible,
    }


def as_json(root: Node, *, attributes: bool = True) -> dict[str, object]:
    """The tree as JSON: as `brief`, with `children`, and with `attributes` where they are wanted."""
    top: list[dict[str, object]] = []
    waiting = [(root, top)]
    while waiting:
        node, siblings = waiting.pop()
        children: list[dict[str, object]] = []
        more = {"attributes": dict(node.attributes)} if attributes else {}
        siblings.append({**brief(node), **more, "children": children})
        waiting.extend((child, children) for child in reversed(node.children))
    return top[0]


def as_json_text(root: Node) -> str:
    """The tree as indented JSON, with all attributes."""
    import json  # as in `as_xml`

    return json.dumps(as_json(root), indent=2, ensure_ascii=False)


def as_xml(root: Node) -> str:
    """The tree as XML, one `<view>` a node, for tools that search by XPath."""
    from xml.sax.saxutils import quoteattr  # rarely wanted, and not free

    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    opened: list[tuple[int, str]] = []

    def close(depth: int) -> None:
        while opened and opened[-1][0] >= depth:
            at, tag = opened.pop()
            lines.append(f"{'  ' * at}</{tag}>")

    for depth, node in walk(root):
        close(depth)
        about = {key: value for key, value in brief(node).items() if key != "bounds" and value not in ("", True)}
        if node.bounds is not None:
            about["bounds"] = " ".join(f"{side:g}" for side in node.bounds)
        written = "".join(f" {key}={quoteattr(re.sub(_UNSAFE, '�', _text(value)))}" for key, value in about.items())
        lines.append(f"{'  ' * depth}<view{written}{'>' if node.children else '/>'}")
        if node.children:
            opened.append((depth, "view"))
    close(0)
    return "\n".join(lines) + "\n"


def _text(value: object) -> str:
    return "false" if value is False else str(value)
