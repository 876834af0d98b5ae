"""The plugin `Fresco`: an Android app's image caches. The app says nothing at all before its Fresco is ready."""

import base64
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

from rsocket_broker.plugin_api import App, ApplicationError, Canceled, Invalid, Plugin, event, method
from rsocket_broker.plugin_api.history import History
from rsocket_broker.plugin_api.lenient import flag, items
from rsocket_broker.plugins.images.pictures import Leaked, Load, Picture, leaked, levels, load, picture

KEPT, KEPT_BYTES = 1000, 1024 * 1024
"""Image loads of one session that are kept, and their bytes; the app keeps 500 until we come."""
LEAKS, LEAKS_BYTES = 200, 2 * 1024 * 1024
"""Leaked references of one session that are kept, and their bytes."""
PATIENCE = 8.0
"""Seconds for an answer: a picture of a few megabytes takes one. An app whose Fresco is not ready never answers."""
NOT_READY = (
    "The app did not answer. Before it has shown its first image by Fresco it never does: open a screen with one."
)


class Told:
    """What one session's app has told by itself."""

    def __init__(self) -> None:
        self.loads = History[Load](KEPT, KEPT_BYTES)
        self.leaks = History[Leaked](LEAKS, LEAKS_BYTES)
        self.overlay = False
        """Whether the app draws Fresco's debug overlay, by its own word."""


class Images(Plugin):
    """The images that Android apps hold in Fresco's caches.

    `app.state` is what the app has Told.
    """

    id = "Fresco"

    def on_connect(self, app: App) -> None:
        app.state = Told()

    def on_disconnect(self, app: App) -> None:
        _told(app).loads.close()
        _told(app).leaks.close()

    @event("events")
    def events_told(self, app: App, params: dict[str, Any]) -> None:
        one = load(params)
        _told(app).loads.add(one, one.size)

    @event("closeable_reference_leak_event")
    def leak_told(self, app: App, params: dict[str, Any]) -> None:
        one = leaked(params, time.time() * 1000)
        _told(app).leaks.add(one, one.size)

    @event("debug_overlay_event")
    def overlay_told(self, app: App, params: dict[str, Any]) -> None:
        _told(app).overlay = flag(params, "enabled")

    @method("levels")
    async def levels(self, app: App, disk: bool = False, client: str = "") -> dict[str, object]:
        """The app's caches and the ids of the images in them; with `disk` those on its disk too."""
        answer = await _ask(await app.reach(client, "levels"), "listImages", {"showDiskImages": disk})
        return {"levels": [level._asdict() for level in levels(answer)]}

    @method("image")
    async def image(self, app: App, image_id: str, client: str = "") -> dict[str, object]:
        """One image; `data` is base64 of its bytes. Android scales what it holds as bitmaps down to thumbnails."""
        found = await self.picture(await app.reach(client, "image"), image_id)
        return {**found._asdict(), "data": base64.b64encode(found.data).decode("ascii")}

    async def picture(self, app: App, image_id: str) -> Picture:
        """The same with its bytes, for Python. Raises ApplicationError, also for one that is not cached any more."""
        return picture(await _ask(app, "getImage", {"imageId": image_id}))

    @method("loads")
    async def loads(self, app: App, after: int = 0, fetch: bool = True, client: str = "") -> dict[str, object]:
        """Image loads with a number above `after`, oldest first. With `fetch` the app is asked for what it has kept
        back first, and keeps it no longer then."""
        target = await app.reach(client, "loads")
        told = _told(target)
        if fetch:
            answer = await _ask(target, "getAllImageEventsInfo", {})
            kept = answer.get("events") if isinstance(answer, dict) else None
            try:
                found = [load(one) for one in items(kept, "events", KEPT) if isinstance(one, dict)]
            except Invalid as error:
                raise ApplicationError(f"The app's list of image loads makes no sense: {error.public}") from error
            for one in found:
                told.loads.add(one, one.size)
        return _listed("loads", told.loads, after)

    @method("follow")
    async def follow(self, app: App, after: int = 0, client: str = "") -> AsyncIterator[dict[str, object]]:
        """Image loads with a number above `after`, and each one as it comes."""
        async for number, one in _told(await app.reach(client, "follow")).loads.follow(after):
            yield {"number": number, **one._asdict()}

    @method("leaks")
    async def leaks(self, app: App, after: int = 0, client: str = "") -> dict[str, object]:
        """Images that the app has not closed, with a number above `after`, oldest first."""
        return _listed("leaks", _told(await app.reach(client, "leaks")).leaks, after)

    @method("clear")
    async def clear(self, app: App, kind: Literal["memory", "disk"] = "memory", client: str = "") -> dict[str, object]:
        """Empty a cache. The app does not say when it has."""
        await (await app.reach(client, "clear")).send("clear", {"type": kind})
        return {}

    @method("trim")
    async def trim(self, app: App, client: str = "") -> dict[str, object]:
        """Let the app give back what memory it can. It does not say when it has."""
        await (await app.reach(client, "trim")).send("trimMemory")
        return {}

    @method("overlay")
    async def overlay(self, app: App, enabled: bool, client: str = "") -> dict[str, object]:
        """Draw, or no longer draw, Fresco's debug overlay over each image."""
        await (await app.reach(client, "overlay")).send("enableDebugOverlay", {"enabled": enabled})
        return {}


async def _ask(app: App, name: str, params: object) -> Any:
    try:
        return await app.call(name, params, timeout=PATIENCE)
    except Canceled:
        raise ApplicationError(NOT_READY) from None


def _told(app: App) -> Told:
    found: Told = app.state
    return found


def _listed(name: str, history: History[Any], after: int) -> dict[str, object]:
    found = [{"number": number, **one._asdict()} for number, one in history.items(after)]
    return {name: found, "newest": history.newest, "dropped": history.dropped}
