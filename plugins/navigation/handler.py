"""The plugin `Navigation`: follows an app's screens, and drives it to others by deep links through its device."""

import time
from collections.abc import AsyncIterator
from typing import Any

from rsocket_broker.plugin_api import App, Canceled, Plugin, event, method
from rsocket_broker.plugin_api.history import History
from rsocket_broker.plugins.navigation.visits import Visit, filled, is_of, visit

KEPT, KEPT_BYTES = 1000, 1024 * 1024
"""Visits of one session that are kept, and their bytes."""
WAIT = 10.0
"""Seconds for an app to show a screen: a cold start takes several."""


class Navigation(Plugin):
    """Which screens apps show, and opening others by deep links.

    `app.state` is the History of the app's visits. Opening a link works without the app's side; nobody then tells
    where it led."""

    id = "Navigation"
    needs_app = False

    def on_connect(self, app: App) -> None:
        app.state = History[Visit](KEPT, KEPT_BYTES)

    def on_disconnect(self, app: App) -> None:
        _visits(app).close()

    @event("nav_event")
    def nav_event(self, app: App, params: dict[str, Any]) -> None:
        seen = visit(params, time.time() * 1000)
        _visits(app).add(seen, seen.size)

    @event("nav_plugin_active")
    def nav_plugin_active(self, app: App, params: dict[str, Any]) -> None:
        """The app's side says that it is there; nothing follows from it."""

    @method("current")
    async def current(self, app: App, client: str = "") -> dict[str, object]:
        """Where the app is: `{"number": 0, "visit": null}` while it has told nothing."""
        visits = _visits(await app.reach(client, "current"))
        last = visits.last()
        return {"number": visits.newest, "visit": None if last is None else last._asdict()}

    @method("history")
    async def history(self, app: App, after: int = 0, client: str = "") -> dict[str, object]:
        """Visits with a number above `after`, oldest first; `newest` is the number to go on from."""
        visits = _visits(await app.reach(client, "history"))
        shown_ = [shown(number, seen) for number, seen in visits.items(after)]
        return {"visits": shown_, "newest": visits.newest, "dropped": visits.dropped}

    @method("follow")
    async def follow(self, app: App, after: int = 0, client: str = "") -> AsyncIterator[dict[str, object]]:
        """Visits with a number above `after`, and each one as it comes."""
        async for number, seen in _visits(await app.reach(client, "follow")).follow(after):
            yield shown(number, seen)

    @method("wait", deadline=None)
    async def wait(
        self, app: App, uri: str = "", after: int = 0, timeout: float = WAIT, client: str = ""
    ) -> dict[str, object]:
        """The first visit with a number above `after` of this URI or screen (of any, for ""). Raises Canceled when
        there is none within `timeout` seconds."""
        visits = _visits(await app.reach(client, "wait"))
        return shown(*await visits.wait(lambda seen: not uri or is_of(seen, uri), after, timeout, f"visit of {uri}"))

    @method("open", deadline=None)
    async def open(
        self,
        app: App,
        uri: str,
        values: dict[str, Any] | None = None,
        expect: str = "",
        timeout: float = WAIT,
        client: str = "",
    ) -> dict[str, object]:
        """Open a link in the app through its device, and wait until the app says that it is there.

        `uri` may be a template, filled with `values`. `expect` is the URI or the screen that the app tells of when
        that is another one; with `timeout` 0 nothing is waited for. Raises ApplicationError when the device does not
        open it, Canceled when the app does not say within `timeout` seconds that it is there.
        """
        link = filled(uri, values or {})
        target = await app.reach(client, "open")
        visits = _visits(target)
        before = visits.newest
        device = await target.device_access()
        await device.open_link(link, target.identity.app_id)
        if timeout == 0:
            return {"opened": link, "visit": None}
        wanted = expect or link
        try:
            number, seen = await visits.wait(lambda one: is_of(one, wanted), before, timeout, f"visit of {wanted}")
        except Canceled as error:
            raise Canceled(f"The link was opened. {error.public} {_instead(visits, before)}") from None
        return {"opened": link, "visit": shown(number, seen)}


def _visits(app: App) -> History[Visit]:
    found: History[Visit] = app.state
    return found


def _instead(visits: History[Visit], after: int) -> str:
    """What the app told in place of what was waited for."""
    told = [seen.uri or seen.screen for _, seen in visits.items(after)][-3:]
    if told:
        return f"It told of {', '.join(told)}: name one of these as what is expected, or check the link."
    return "It told of nothing: does it have the Navigation plugin, and call it for this screen?"


def shown(number: int, seen: Visit) -> dict[str, object]:
    """A visit as JSON."""
    return {"number": number, **seen._asdict()}
