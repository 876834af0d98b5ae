"""The plugin `ui-debugger`: the new layout inspector, which pushes the whole screen with every change."""

import asyncio
import time
from typing import Any

from rsocket_broker.plugin_api import App, ApplicationError, Invalid, event, method
from rsocket_broker.plugin_api.lenient import items, octets, text
from rsocket_broker.plugins.layout.base import LayoutPlugin, checked_png
from rsocket_broker.plugins.layout.new_nodes import MAX_METADATA, Frame, Metadata, frame, metadata, path_to, tree
from rsocket_broker.plugins.layout.tree import Node

FIRST_FRAME = 15.0
"""Seconds for the first scan after the app's side was started: a slow phone takes some to walk a heavy screen."""
HINTS = ("TOP", "LEFT", "RIGHT", "BOTTOM", "WIDTH", "HEIGHT", "X", "Y", "Z", "COLOR")
"""What may be the last part of a path: one side of a value that is made of several."""
MAX_MODES = 20


class State:
    """The newest frame of one session, and nothing older: each is the whole screen."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.reset()

    def reset(self) -> None:
        """The app's side has been started anew: numbers mean something else now."""
        self.table: dict[str, Metadata] = {}
        self.frame: Frame | None = None
        self.problem = ""
        self.modes: list[str] = []
        self.frames = 0

    def take(self, one: Frame) -> None:
        """A new frame; the one before is forgotten."""
        self.frame = one
        self.problem = ""
        self.frames += 1
        self.change()

    def change(self) -> None:
        """Wakes whoever waits for a change."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class UiDebugger(LayoutPlugin):
    """What apps with the newer layout inspector show.

    `app.state` is its State.
    """

    id = "ui-debugger"

    def on_connect(self, app: App) -> None:
        app.state = State()

    @event("init")
    def init(self, app: App, params: dict[str, Any]) -> None:
        state = _state(app)
        state.reset()
        state.modes = [str(one)[:100] for one in items(params.get("supportedTraversalModes"), "modes", MAX_MODES)]

    @event("metadataUpdate")
    def metadata_update(self, app: App, params: dict[str, Any]) -> None:
        table, new = _state(app).table, metadata(params)
        if len(table.keys() | new.keys()) > MAX_METADATA:
            raise Invalid(f"more than {MAX_METADATA} attributes.")
        table.update(new)

    @event("frameScan")
    def frame_scan(self, app: App, params: dict[str, Any]) -> None:
        _state(app).take(frame(params, time.time() * 1000))

    @event("subtreeUpdate")
    def subtree_update(self, app: App, params: dict[str, Any]) -> None:
        _state(app).take(frame(params, time.time() * 1000))

    @event("traversalError")
    def traversal_error(self, app: App, params: dict[str, Any]) -> None:
        state = _state(app)
        state.problem = text(params, "errorMessage", 300) or text(params, "errorType", 300) or "it does not say why"
        state.change()

    @event("performanceStats")
    def performance_stats(self, app: App, params: dict[str, Any]) -> None:
        """What a scan cost the app; of no use to a test."""

    @event("setTraversalMode")
    def set_traversal_mode(self, app: App, params: dict[str, Any]) -> None:
        """Known to the desktop, sent by nobody."""

    def changed(self, app: App) -> asyncio.Event:
        return _state(app).changed

    async def root(self, app: App) -> Node:
        newest = await self.newest(app)
        return await asyncio.to_thread(tree, newest, dict(_state(app).table))

    async def newest(self, app: App) -> Frame:
        """The newest frame; the first one after a start is waited for. Raises ApplicationError when none comes."""
        state = _state(app)
        if await app.wake():
            state.reset()
        try:
            async with asyncio.timeout(FIRST_FRAME):
                while state.frame is None:
                    await state.changed.wait()
        except TimeoutError:
            why = f" It failed to look at its views: {state.problem}." if state.problem else ""
            raise ApplicationError(
                f"The app showed nothing within {FIRST_FRAME:g} s.{why} Is it in the foreground?"
            ) from None
        return state.frame

    async def picture(self, app: App, node_id: str) -> tuple[str, bytes]:
        newest = await self.newest(app)
        if not newest.snapshot:
            raise ApplicationError("The app's newest frame has no picture.")
        if node_id and node_id != newest.snapshot_of:
            raise Invalid(f"This app gives a picture of view {newest.snapshot_of} alone; leave node_id out.")
        return newest.snapshot_of, checked_png(octets(newest.snapshot, "snapshot"))

    async def edit(self, app: App, node_id: str, path: list[str], value: object) -> None:
        newest = await self.newest(app)
        hint = path[-1] if len(path) > 1 and path[-1] in HINTS else ""
        numbers = path_to(newest, _state(app).table, node_id, path[:-1] if hint else path)
        params = {"nodeId": newest.ids[node_id], "value": value, "metadataIdPath": numbers}
        await app.call("editAttribute", {**params, "compoundTypeHint": hint} if hint else params)

    @method("mode")
    async def mode(self, app: App, mode: str, client: str = "") -> dict[str, object]:
        """Let an iOS app look at its views in another way, such as `accessibility-hierarchy`. It never answers."""
        target = await app.reach(client, "mode")
        await self.newest(target)
        modes = _state(target).modes
        if mode not in modes:
            raise Invalid(f"mode: this app has {', '.join(modes) or 'only one'}.")
        await target.send("onTraversalModeChange", {"mode": mode})
        return {}


def _state(app: App) -> State:
    found: State = app.state
    return found
