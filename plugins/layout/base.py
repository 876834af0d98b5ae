"""What both generations of layout inspectors answer, the same for both.

A heavy screen takes a tenth of a second to be made a tree or a text: that is done on a thread, beside the event loop.
"""

import abc
import asyncio
import base64
import time
from typing import Any, Literal

from rsocket_broker.plugin_api import App, ApplicationError, Canceled, Invalid, Plugin, method
from rsocket_broker.plugin_api.history import MAX_WAIT
from rsocket_broker.plugins.layout.tree import Node, Query, as_json, as_json_text, as_xml, brief, find, walk

LOOK_AGAIN = 0.5
"""Seconds after which `wait` looks again when the app has not said that anything changed."""
PNG = b"\x89PNG\r\n\x1a\n"


class LayoutPlugin(Plugin, abc.ABC):
    """Base of the two plugins. Their app sides are started when something is asked, for they cost the app a lot."""

    eager = False

    @abc.abstractmethod
    async def root(self, app: App) -> Node:
        """What the app shows now. Raises ApplicationError when it does not say."""

    @abc.abstractmethod
    async def picture(self, app: App, node_id: str) -> tuple[str, bytes]:
        """A picture of one view, of the whole for "": its id and PNG bytes. Raises ApplicationError."""

    @abc.abstractmethod
    async def edit(self, app: App, node_id: str, path: list[str], value: object) -> None:
        """Set an attribute of a view. Raises Invalid and ApplicationError."""

    @abc.abstractmethod
    def changed(self, app: App) -> asyncio.Event:
        """Set at the next change that the app tells of."""

    @method("tree")
    async def tree(self, app: App, attributes: bool = False, client: str = "") -> dict[str, object]:
        """What the app shows, as a tree: `{"root": {...}, "nodes": N}`."""
        root = await self.root(await app.reach(client, "tree"))
        shown = await asyncio.to_thread(as_json, root, attributes=attributes)
        return {"root": shown, "nodes": sum(1 for _ in walk(root))}

    @method("dump")
    async def dump(self, app: App, form: Literal["json", "xml"] = "xml", client: str = "") -> dict[str, object]:
        """The tree as one text, `{"text": ...}`: XML, or JSON with all attributes."""
        root = await self.root(await app.reach(client, "dump"))
        return {"text": await asyncio.to_thread(as_xml if form == "xml" else as_json_text, root)}

    @method("find")
    async def find(
        self,
        app: App,
        text: str = "",
        resource: str = "",
        kind: str = "",
        exact: bool = False,
        hidden: bool = False,
        client: str = "",
    ) -> dict[str, object]:
        """The views that have `text` in their text or label, the developer's id `resource`, the class `kind`."""
        query = Query(text, resource, kind, exact, hidden).check()
        root = await self.root(await app.reach(client, "find"))
        return {"views": [brief(node) for node in await asyncio.to_thread(find, root, query)]}

    @method("wait", deadline=None)
    async def wait(
        self,
        app: App,
        text: str = "",
        resource: str = "",
        kind: str = "",
        exact: bool = False,
        gone: bool = False,
        timeout: float = 10.0,
        client: str = "",
    ) -> dict[str, object]:
        """The first view that is as `find` would have it, once there is one; with `gone`, `{}` once there is none.
        Raises Canceled when it does not come to that within `timeout` seconds."""
        query = Query(text, resource, kind, exact).check()
        if not 0 <= timeout <= MAX_WAIT:
            raise Invalid(f"timeout: wanted 0 to {MAX_WAIT:g} seconds.")
        target = await app.reach(client, "wait")
        ends = time.monotonic() + timeout
        while True:
            changed = self.changed(target)
            found = await asyncio.to_thread(find, await self.root(target), query)
            if bool(found) is not gone:
                return brief(found[0]) if found else {}
            left = ends - time.monotonic()
            if left <= 0:
                state = "still a" if gone else "no"
                raise Canceled(f"There was {state} view with {query} within {timeout:g} s.")
            try:
                async with asyncio.timeout(min(left, LOOK_AGAIN)):
                    await changed.wait()
            except TimeoutError:
                continue

    @method("snapshot")
    async def snapshot(self, app: App, node_id: str = "", client: str = "") -> dict[str, object]:
        """A picture of a view, of the whole screen of the app for "": `{"id": ..., "png": base64}`."""
        found, picture = await self.picture(await app.reach(client, "snapshot"), node_id)
        return {"id": found, "png": base64.b64encode(picture).decode("ascii")}

    @method("set")
    async def set(self, app: App, node_id: str, path: list[str], value: Any, client: str = "") -> dict[str, object]:
        """Set an attribute: `path` leads to it by section and name, as in the tree."""
        if not path:
            raise Invalid("path: wanted the section and the name of an attribute.")
        await self.edit(await app.reach(client, "set"), node_id, path, value)
        return {}


def checked_png(data: bytes) -> bytes:
    """`data` itself. Raises ApplicationError for what is no PNG."""
    if not data.startswith(PNG):
        raise ApplicationError("The app's picture is no PNG.")
    return data
