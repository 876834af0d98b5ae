"""The app's half of the two layout inspectors, `Inspector` and `ui-debugger`, over one tree of views."""

import base64
import itertools
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from .images import PNG
from .plugin import NO_REPLY, AppPlugin, NoReply, Params, Platform, Receiver, ReceiverError

TEXT, ALPHA, WIDTH, SECTION = 1, 2, 3, 4
"""Ids in ui-debugger's table of attributes."""

SNAPSHOT_LINE = {Platform.ANDROID: 76, Platform.IOS: 64}


class View:
    """One view. `text` is what it shows; `key` is its id in the app's resources."""

    numbers = itertools.count(1)

    def __init__(
        self, name: str, *children: "View", text: str = "", key: str = "", bounds: tuple[int, int, int, int] = (0,) * 4
    ) -> None:
        self.number = next(self.numbers)
        self.name, self.text, self.key, self.bounds = name, text, key, bounds
        self.alpha = 1.0
        self.children = list(children)

    @property
    def id(self) -> str:
        return str(self.number)

    def walk(self) -> "Iterator[View]":
        """This one, and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


class _Layout(AppPlugin):
    """What both inspectors have: a tree."""

    def __init__(self, root: View, platform: Platform = Platform.ANDROID) -> None:
        super().__init__(platform)
        self.root = root

    def find(self, identifier: object) -> View | None:
        return next((view for view in self.root.walk() if view.id == str(identifier)), None)

    def picture(self) -> str:
        text = base64.b64encode(PNG).decode("ascii")
        return "".join(f"{line}\n" for line in textwrap.wrap(text, SNAPSHOT_LINE[self.platform]))


class Inspector(_Layout):
    """The old one. `tap` is what a user does in search mode."""

    id: ClassVar[str] = "Inspector"
    background: ClassVar[bool] = True

    def __init__(self, root: View, platform: Platform = Platform.ANDROID) -> None:
        super().__init__(root, platform)
        self.highlighted: str | None = None
        self.searching = False

    def receivers(self) -> Mapping[str, Receiver]:
        calls: dict[str, Receiver] = {
            "getRoot": lambda params: self._node(self.root),
            "getNodes": self._nodes,
            "setData": self._set,
            "setHighlighted": self._highlight,
            "setSearchActive": self._search_mode,
            "isSearchActive": lambda params: {"isSearchActive": self.searching and self.platform is Platform.ANDROID},
            "getSearchResults": self._search,
            "getSnapshot": self._snapshot,
        }
        if self.platform is Platform.ANDROID:
            calls |= {
                "getAllNodes": self._all,
                "getAXRoot": lambda params: self._node(self.root),
                "getAXNodes": self._nodes,
                "onRequestAXFocus": lambda params: NO_REPLY,
                "setResolvedPath": lambda params: NO_REPLY,
                "shouldShowLithoAccessibilitySettings": lambda params: {"showLithoAccessibilitySettings": False},
            }
        return calls

    def on_disconnect(self) -> None:
        self.searching = False

    def changed(self, view: View) -> None:
        """The app has changed a view."""
        self.emit("invalidate", {"nodes": [{"id": view.id}]})

    def tap(self, view: View) -> None:
        """The user touches a view; without search mode the app gets the touch."""
        if self.searching:
            path = path_to(self.root, view)
            tree: dict[str, Any] = {}
            for name in reversed(path):
                tree = {name: tree}
            self.emit("select", {"path": path, "tree": tree})

    def _node(self, view: View) -> dict[str, object]:
        alpha = {"__type__": "number", "__mutable__": True, "value": view.alpha}
        text = {"__type__": "text", "__mutable__": True, "value": view.text}
        attributes = [{"name": "id", "value": view.key}] if view.key else []
        return {
            "id": view.id,
            "name": view.name,
            "data": {"View": {"alpha": alpha, "text": text, "width": view.bounds[2]}},
            "children": [child.id for child in view.children],
            "attributes": attributes,
            "decoration": "(unknown)" if self.platform is Platform.IOS else "",
            "extraInfo": {},
        }

    def _nodes(self, params: Params) -> object:
        """Android fails for one unknown id, iOS leaves it out."""
        elements = []
        for identifier in params.get("ids") or []:
            view = self.find(identifier)
            if view is not None:
                elements.append(self._node(view))
            elif self.platform is Platform.ANDROID:
                raise ReceiverError({"message": "No node with given id", "id": identifier})
        return {"elements": elements}

    def _all(self, params: Params) -> object:
        elements = {view.id: self._node(view) for view in self.root.walk()}
        root = self.root.id
        return {"allNodes": {"elements": elements, "AXelements": elements, "rootElement": root, "rootAXElement": root}}

    def _set(self, params: Params) -> object:
        """The value may be tagged with its kind. No reply on iOS, nor for a view that there is not."""
        view = self.find(params.get("id"))
        value = params.get("value")
        value = value["data"] if isinstance(value, dict) and "kind" in value else value
        field = (params.get("path") or [""])[-1]
        if view is not None and field in ("alpha", "text"):
            setattr(view, field, value)
            self.changed(view)
        return NO_REPLY if view is None or self.platform is Platform.IOS else {}

    def _highlight(self, params: Params) -> object:
        identifier = params.get("id")
        if self.platform is Platform.IOS and identifier is None:
            raise ReceiverError({"message": "No node with given id"})
        if self.platform is Platform.IOS and self.find(identifier) is None:
            return NO_REPLY
        self.highlighted = None if identifier is None else str(identifier)
        return {}

    def _search_mode(self, params: Params) -> NoReply:
        self.searching = bool(params.get("active"))
        return NO_REPLY

    def _search(self, params: Params) -> object:
        query = str(params.get("query") or "")
        results = self._matches(self.root, query.lower())
        return self.fields(query=query, results=results)

    def _matches(self, view: View, query: str) -> dict[str, object] | None:
        children = [found for child in view.children if (found := self._matches(child, query)) is not None]
        match = any(query in text.lower() for text in (view.name, view.text, view.key))
        if not match and not children:
            return None
        result = {"id": view.id, "isMatch": match, "element": self._node(view)}
        return result | ({"children": children} if children else {})

    def _snapshot(self, params: Params) -> object:
        view = self.find(params.get("id"))
        if view is None:
            raise ReceiverError(self.fields(error="No node with given id", id=params.get("id")))
        return {"id": view.id, "snapshot": self.picture()}


class UiDebugger(_Layout):
    """The new one: the tree is pushed, from `init` to `deinit`. `clock` gives seconds since 1970."""

    id: ClassVar[str] = "ui-debugger"

    def __init__(
        self, root: View, platform: Platform = Platform.ANDROID, *, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(root, platform)
        self._clock = clock

    def receivers(self) -> Mapping[str, Receiver]:
        if self.platform is Platform.IOS:
            return {"editAttribute": self._edit, "onTraversalModeChange": lambda params: NO_REPLY}
        return {
            "editAttribute": self._edit,
            "onCustomAction": lambda params: {"result": bool(params.get("value"))},
            "additionalNodeInspectionChange": lambda params: {},
        }

    def on_connect(self) -> None:
        more: dict[str, object] = (
            {"customActionGroups": []}
            if self.platform is Platform.ANDROID
            else {"supportedTraversalModes": ["view-hierarchy"], "currentTraversalMode": "view-hierarchy"}
        )
        self.emit("init", {"rootId": self._id(self.root), "frameworkEventMetadata": [], **more})
        names = {TEXT: "text", ALPHA: "alpha", WIDTH: "width", SECTION: "View"}
        table = {
            str(number): {"id": number, "type": "attribute", "namespace": "View", "name": name, "mutable": True}
            for number, name in names.items()
        }
        self.emit("metadataUpdate", {"attributeMetadata": table})
        self.frame()

    def frame(self) -> None:
        """The app has drawn: the whole tree goes out."""
        now = self._clock()
        scan = {
            "frameTime": round(now * 1000) if self.platform is Platform.ANDROID else now,
            "nodes": list(self._nodes(self.root, None)),
            "snapshot": {"nodeId": self._id(self.root), "data": self.picture()},
            "frameworkEvents": [],
        }
        self.emit("frameScan", scan)

    def _id(self, view: View) -> object:
        return view.number if self.platform is Platform.ANDROID else view.id

    def _nodes(self, view: View, parent: View | None) -> Iterator[dict[str, object]]:
        x, y, width, height = view.bounds
        values = {
            str(TEXT): {"type": "text", "value": view.text},
            str(ALPHA): {"type": "number", "value": view.alpha},
            str(WIDTH): {"type": "number", "value": width},
        }
        node: dict[str, object] = {
            "id": self._id(view),
            "qualifiedName": f"android.widget.{view.name}" if self.platform is Platform.ANDROID else view.name,
            "name": view.name,
            "attributes": {str(SECTION): {"type": "object", "fields": values}},
            "inlineAttributes": {"id": view.key} if view.key else {},
            "bounds": {"x": x, "y": y, "width": width, "height": height},
            "tags": [str(self.platform.value), "Native"],
            "children": [self._id(child) for child in view.children],
        }
        yield node if parent is None else node | {"parent": self._id(parent)}
        for child in view.children:
            yield from self._nodes(child, view)

    def _edit(self, params: Params) -> object:
        view = self.find(params.get("nodeId"))
        path = params.get("metadataIdPath") or [0]
        field = {TEXT: "text", ALPHA: "alpha"}.get(path[-1])
        if view is None or field is None:
            text = "no such attribute"
            raise ReceiverError({"errorType": "IllegalStateException", "errorMessage": text, "stackTrace": ""})
        setattr(view, field, params.get("value"))
        self.frame()
        return {}


def path_to(root: View, wanted: View) -> list[str]:
    """The ids from the root to a view; [] when it is not below it."""
    if root is wanted:
        return [root.id]
    for child in root.children:
        if below := path_to(child, wanted):
            return [root.id, *below]
    return []
