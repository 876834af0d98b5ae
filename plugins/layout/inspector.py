"""The plugin `Inspector`: the old layout inspector, asked node by node."""

import asyncio
import logging
from typing import Any

from rsocket_broker.plugin_api import (
    App,
    ApplicationError,
    Canceled,
    ConnectionClosed,
    Invalid,
    RequestFailed,
    event,
    method,
)
from rsocket_broker.plugin_api.history import MAX_WAIT
from rsocket_broker.plugin_api.lenient import fields, items, octets, text, weight
from rsocket_broker.plugins.layout.base import LayoutPlugin, checked_png
from rsocket_broker.plugins.layout.old_nodes import Raw, path_of, raw_node, tagged, tree
from rsocket_broker.plugins.layout.tree import MAX_NODES, MAX_WEIGHT, Node

BATCH = 100
"""Nodes that are asked for at once: their views are read on the app's main thread, in one go."""
GLANCE = 0.5
"""Seconds between two looks whether the session ends: the app must get its touches back before that."""
MUTE = 5.0
"""Seconds for what some apps never answer: `setData` and `setHighlighted` of a view that is gone."""

log = logging.getLogger(__name__)

Nodes = dict[str, tuple[Raw, list[str]]]


class State:
    """What one session's app has told: that something changed, and what was tapped."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.tapped: asyncio.Future[list[str]] | None = None

    def change(self) -> None:
        """Wakes whoever waits for a change."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Inspector(LayoutPlugin):
    """What apps with the older layout inspector show.

    `app.state` is its State.
    """

    id = "Inspector"

    def on_connect(self, app: App) -> None:
        app.state = State()

    @event("invalidate")
    def invalidate(self, app: App, params: dict[str, Any]) -> None:
        _state(app).change()

    @event("invalidateWithData")
    def invalidate_with_data(self, app: App, params: dict[str, Any]) -> None:
        _state(app).change()

    @event("invalidateAX")
    def invalidate_ax(self, app: App, params: dict[str, Any]) -> None:
        """The tree of accessibility, which is not asked for."""

    @event("select")
    def select(self, app: App, params: dict[str, Any]) -> None:
        tapped, path = _state(app).tapped, path_of(params)
        if tapped is not None and not tapped.done():
            tapped.set_result(path)

    @event("selectAX")
    def select_ax(self, app: App, params: dict[str, Any]) -> None:
        """As `invalidateAX`."""

    @event("axFocusEvent")
    def ax_focus(self, app: App, params: dict[str, Any]) -> None:
        """As `invalidateAX`."""

    @event("track")
    def track(self, app: App, params: dict[str, Any]) -> None:
        """For the statistics of the desktop's makers."""

    @event("resolvePath")
    def resolve_path(self, app: App, params: dict[str, Any]) -> None:
        """Asks where a source file is: nobody here knows."""

    @event("openInIDE")
    def open_in_ide(self, app: App, params: dict[str, Any]) -> None:
        """There is no editor here."""

    def changed(self, app: App) -> asyncio.Event:
        return _state(app).changed

    async def root(self, app: App) -> Node:
        await app.wake()
        try:
            root, nodes = await (_all_nodes(app) if await app.supports("getAllNodes") else _walked(app))
        except Invalid as error:
            raise ApplicationError(f"The app's views make no sense: {error.public}") from error
        return await asyncio.to_thread(tree, root, nodes)

    async def picture(self, app: App, node_id: str) -> tuple[str, bytes]:
        await app.wake()
        if not node_id:
            node_id = raw_node(await app.call("getRoot"))[0]
        answer = fields(await app.call("getSnapshot", {"id": node_id}), "answer")
        if answer.get("error"):
            raise ApplicationError(f"The app took no picture: {text(answer, 'error', 300)}")
        return node_id, checked_png(octets(answer.get("snapshot"), "snapshot"))

    async def edit(self, app: App, node_id: str, path: list[str], value: object) -> None:
        await app.wake()
        params = {"id": node_id, "path": path, "value": tagged(value), "ax": False}
        if app.os == "iOS":  # it never answers, and does nothing for what it does not know
            await app.send("setData", params)
            return
        try:
            await app.call("setData", params, timeout=MUTE)
        except Canceled:
            raise ApplicationError(
                f"The app did not answer: it has no view {node_id!r} any more, most likely."
            ) from None

    @method("highlight")
    async def highlight(self, app: App, node_id: str = "", client: str = "") -> dict[str, object]:
        """Mark a view on the screen of the device; with "" none any more (which iOS cannot)."""
        target = await app.reach(client, "highlight")
        await target.wake()
        params = {"id": node_id or None, "isAlignmentMode": False}
        try:
            await target.call("setHighlighted", params, timeout=MUTE)
        except Canceled:
            raise ApplicationError(
                f"The app did not answer: it has no view {node_id!r} any more, most likely."
            ) from None
        return {}

    @method("pick", deadline=None)
    async def pick(self, app: App, timeout: float = 30.0, client: str = "") -> dict[str, object]:
        """The ids from the root to the view that somebody taps on the device within `timeout` seconds.

        Until then the app gets no touches. Raises Canceled when nobody does, ApplicationError when another one waits.
        """
        if not 0 < timeout <= MAX_WAIT:
            raise Invalid(f"timeout: wanted up to {MAX_WAIT:g} seconds.")
        target = await app.reach(client, "pick")
        state = _state(target)
        if state.tapped is not None:
            raise ApplicationError("Somebody waits for a tap in this app already.")
        state.tapped = tapped = asyncio.get_running_loop().create_future()
        try:
            await target.send("setSearchActive", {"active": True})
            async with asyncio.timeout(timeout):
                while not tapped.done():
                    if target.leaving:
                        raise Canceled("The wait for a tap was stopped: the session ends.")
                    await target.wake()  # its side is stopped when nothing was asked for a while
                    await asyncio.wait([tapped], timeout=GLANCE)
            return {"path": tapped.result()}
        except TimeoutError:
            raise Canceled(f"Nobody tapped on a view within {timeout:g} s.") from None
        finally:
            state.tapped = None
            await _search_off(target)


async def _search_off(app: App) -> None:
    """Gives the app its touches back, also when whoever asked has been stopped; the line may be closing meanwhile."""
    try:
        await asyncio.shield(asyncio.ensure_future(app.send("setSearchActive", {"active": False})))
    except (RequestFailed, ConnectionClosed) as error:
        log.info("the search mode of %s was not switched off: %s", app.id, error.public)


async def _all_nodes(app: App) -> tuple[str, Nodes]:
    answer = fields(fields(await app.call("getAllNodes"), "answer").get("allNodes"), "allNodes")
    elements = fields(answer.get("elements"), "elements")
    if len(elements) > MAX_NODES:
        raise Invalid(f"{len(elements)} views are more than {MAX_NODES}.")
    nodes: Nodes = {}
    for element in elements.values():
        node_id, raw, children = raw_node(element)
        nodes[node_id] = raw, children
    return text(answer, "rootElement", 4096), nodes


async def _walked(app: App) -> tuple[str, Nodes]:
    """From the root on: an app knows the ids of views only once it was asked for their parents."""
    root, raw, waiting = raw_node(await app.call("getRoot"))
    nodes: Nodes = {}
    known, room = {root}, MAX_WEIGHT
    found = [(root, raw, waiting)]
    waiting = []
    while True:
        for node_id, raw, children in found:
            nodes[node_id] = raw, children
            new = [one for one in dict.fromkeys(children) if one not in known]
            known.update(new)
            waiting += new
            room -= weight(raw, room)
        if max(len(known), len(nodes)) > MAX_NODES or room < 0:
            raise Invalid(f"there are more than {MAX_NODES} views, or they take more than {MAX_WEIGHT} bytes.")
        if not waiting:
            return root, nodes
        found = [raw_node(element) for element in await _some_nodes(app, waiting[:BATCH])]
        waiting = waiting[BATCH:]


async def _some_nodes(app: App, ids: list[str]) -> list[Any]:
    """Those of these views that are still there. Android fails for all when one is gone; then each is asked for."""
    try:
        return items(fields(await app.call("getNodes", {"ids": ids}), "answer").get("elements"), "elements", MAX_NODES)
    except ApplicationError:
        if len(ids) == 1:
            return []
    middle = len(ids) // 2
    return [*await _some_nodes(app, ids[:middle]), *await _some_nodes(app, ids[middle:])]


def _state(app: App) -> State:
    found: State = app.state
    return found
