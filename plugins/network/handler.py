"""The plugin `Network`: takes in what apps tell of their HTTP traffic, and answers for it.

Each method is also Python: `await broker.plugin("Network").wait(app, method="POST", url="/login", status="2xx")`.
Those that take `client` answer for another client where the policy lets the caller reach it.

Every broker loads this module at its start: what is not needed for recording is imported where it is used.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from rsocket_broker.plugin_api import (
    App,
    ApplicationError,
    Canceled,
    Invalid,
    Plugin,
    Principal,
    RequestFailed,
    event,
    method,
)
from rsocket_broker.plugin_api.history import MAX_WAIT
from rsocket_broker.plugin_api.lenient import weight
from rsocket_broker.plugins.network import messages
from rsocket_broker.plugins.network.traffic import Exchange, Shelf, Traffic

if TYPE_CHECKING:
    from rsocket_broker.plugins.network.filters import Wanted
    from rsocket_broker.plugins.network.mocks import Mocks

MOCK_TIMEOUT = 5.0
"""Seconds that an app has to take its mock routes when it comes; what it tells meanwhile waits."""
MAX_DEFINITIONS = 256 * 1024
"""Bytes of Protobuf definitions of one app that are kept; a larger set is passed over."""
MAX_DEFINITIONS_KEPT = 8 * MAX_DEFINITIONS
"""Bytes of memory that those of one event take: as JSON with few empty objects in it does."""
CALL = "mockResponses"

_log = logging.getLogger(__name__)


class Network(Plugin):
    """The HTTP traffic of apps.

    `app.state` is the app's Traffic.
    """

    id = "Network"

    def __init__(self) -> None:
        self._shelf = Shelf()
        self._mocks: dict[Principal, Mocks] = {}

    # --- what apps tell ----------------------------------------------------------------------------------------------

    async def on_connect(self, app: App) -> None:
        app.state = Traffic(self._shelf)
        if any(one.enabled for one in self._mocks.get(app.identity.principal, ())):
            try:
                await self._send_mocks(app, MOCK_TIMEOUT)
            except RequestFailed as error:
                _log.warning("%s (%s) did not get its mock routes: %s", app.id, app.identity.principal, error.public)

    def on_disconnect(self, app: App) -> None:
        self.traffic(app).end()

    def traffic(self, app: App) -> Traffic:
        """What is known of an app's traffic."""
        found: Traffic = app.state
        return found

    @event("newRequest")
    def new_request(self, app: App, params: dict[str, Any]) -> None:
        self.traffic(app).add_request(messages.request(params), _now())

    @event("newResponse")
    def new_response(self, app: App, params: dict[str, Any]) -> None:
        self.traffic(app).add_response(messages.response(params), _now())

    @event("partialResponse")
    def partial_response(self, app: App, params: dict[str, Any]) -> None:
        self.traffic(app).add_response(messages.response(params), _now())

    @event("addProtobufDefinitions")
    def protobuf_definitions(self, app: App, params: dict[str, Any]) -> None:
        import json

        traffic = self.traffic(app)
        fits = weight(params, MAX_DEFINITIONS_KEPT) <= MAX_DEFINITIONS_KEPT  # or to write it would take too long
        together = traffic.definitions | params if fits else {}
        if not fits or len(json.dumps(together)) > MAX_DEFINITIONS:
            raise Invalid(f"Protobuf definitions of more than {MAX_DEFINITIONS} bytes are not kept.")
        traffic.definitions = together

    # --- what is known -----------------------------------------------------------------------------------------------

    @method("list")
    async def exchanges(
        self,
        app: App,
        method: str = "",
        url: str = "",
        status: int | str = "",
        after: int = 0,
        limit: int = 100,
        secrets: bool = False,
        client: str = "",
    ) -> dict[str, Any]:
        """The newest exchanges that fit, oldest first; how many fit, how many had to go to make room, and the number
        of the newest of all, for the next `after`."""
        traffic = self.traffic(await app.reach(client, "list"))
        found = _fitting(traffic, _look_for(method, url, status, after))
        shown = [_summary(one, secrets=secrets) for one in found[max(0, len(found) - max(0, limit)) :]]
        return {"exchanges": shown, "fitting": len(found), "dropped": traffic.dropped, "newest": traffic.newest}

    @method("show")
    async def show(
        self,
        app: App,
        id: int | str,  # noqa: A002  as the app calls it
        secrets: bool = False,
        client: str = "",
    ) -> dict[str, Any]:
        """One exchange with headers and bodies, in the shape of a HAR's entry. `id` is its id as text, or its number:
        an integer, or text where no exchange has that id."""
        exchange = self._find(await app.reach(client, "show"), id)
        return await asyncio.to_thread(_entry, exchange.seen(), secrets)

    @method("har")
    async def har(
        self,
        app: App,
        method: str = "",
        url: str = "",
        status: int | str = "",
        after: int = 0,
        secrets: bool = False,
        client: str = "",
    ) -> dict[str, Any]:
        """The exchanges that fit as HAR 1.2; without secrets, unless they are asked for."""
        from rsocket_broker.plugins.network.har import Writer

        traffic = self.traffic(await app.reach(client, "har"))
        found = [one.seen() for one in _fitting(traffic, _look_for(method, url, status, after))]
        write = Writer(secrets=secrets).har
        return await asyncio.to_thread(lambda: write(found, creator=_version(), dropped=traffic.dropped))

    @method("curl")
    async def curl(
        self,
        app: App,
        id: int | str,  # noqa: A002  as the app calls it
        secrets: bool = False,
        client: str = "",
    ) -> str:
        """A command that sends the request again; `id` as for `show`. Raises ApplicationError for a response without
        its request."""
        from rsocket_broker.plugins.network.curl import command

        exchange = self._find(await app.reach(client, "curl"), id)
        if exchange.request is None:
            raise ApplicationError("The app never told the request of this response.")
        return command(exchange.request, secrets=secrets)

    @method("statistics")
    async def statistics(self, app: App, after: int = 0, client: str = "") -> dict[str, Any]:
        """Figures of the traffic, in all and by host."""
        from rsocket_broker.plugins.network.statistics import statistics

        traffic = self.traffic(await app.reach(client, "statistics"))
        found = statistics(_fitting(traffic, _look_for(after=after)))
        return found | {"dropped": traffic.dropped, "kept_bytes": traffic.bytes}

    @method("protobuf")
    async def protobuf(self, app: App, client: str = "") -> dict[str, Any]:
        """The Protobuf definitions that the app has told, by the URL that its services begin with."""
        return self.traffic(await app.reach(client, "protobuf")).definitions

    @method("clear")
    async def clear(self, app: App, client: str = "") -> dict[str, int]:
        """Forgets what was recorded; how many exchanges that was."""
        return {"cleared": self.traffic(await app.reach(client, "clear")).clear()}

    # --- what is to come ---------------------------------------------------------------------------------------------

    @method("wait", deadline=None)
    async def wait(
        self,
        app: App,
        method: str = "",
        url: str = "",
        status: int | str = "",
        after: int = 0,
        timeout: float = 10.0,
        secrets: bool = False,
        client: str = "",
    ) -> dict[str, Any]:
        """The first exchange that fits, be it there or to come, as `show` gives it. It has its response, unless the
        status asked for is `open` or `partial`. Raises Canceled after `timeout` seconds, with what came instead."""
        from rsocket_broker.plugins.network.following import first

        if not 0 <= timeout <= MAX_WAIT:
            raise Invalid(f"timeout: wanted 0 to {MAX_WAIT:g} seconds.")
        traffic = self.traffic(await app.reach(client, "wait"))
        look_for = _look_for(method, url, status, after)
        unfinished = {"open", "partial"} & set(look_for.statuses)

        def fits(exchange: Exchange) -> bool:
            return (exchange.complete or bool(unfinished)) and look_for.fits(exchange)

        try:
            async with asyncio.timeout(timeout):
                found = await first(traffic, fits)
        except TimeoutError:
            raise Canceled(_instead(traffic, look_for, timeout)) from None
        if found is None:
            raise ApplicationError(f"The app has gone, and there was no {look_for.words}.")
        return await asyncio.to_thread(_entry, found.seen(), secrets)

    @method("follow")
    async def follow(
        self,
        app: App,
        method: str = "",
        url: str = "",
        status: int | str = "",
        known: bool = False,
        secrets: bool = False,
        client: str = "",
    ) -> AsyncIterator[dict[str, Any]]:
        """Each exchange as it comes: `{"event": "request" | "response", "exchange": {...}}`, with `known` those first
        that are here already. `{"dropped": N}` stands for N that the follower was too slow for."""
        from rsocket_broker.plugins.network.following import Following

        traffic = self.traffic(await app.reach(client, "follow"))
        look_for = _look_for(method, url, status)
        with Following(traffic, look_for, lambda one: _summary(one, secrets=secrets)) as following:
            for exchange in _fitting(traffic, look_for) if known else ():
                yield {"event": "known", "exchange": _summary(exchange, secrets=secrets)}
            async for item in following:
                yield item

    # --- what the app is to answer itself ----------------------------------------------------------------------------

    @method("mock")
    async def mock(
        self,
        app: App,
        url: str,
        method: str = "GET",
        body: str = "",
        status: int = 200,
        headers: dict[str, str] | None = None,
        enabled: bool = True,
        client: str = "",
    ) -> dict[str, Any]:
        """From now on the app answers requests whose URL contains `url` so, also after it was started again; a route
        for the same address and method is replaced. Raises ApplicationError for an app that cannot."""
        from rsocket_broker.plugins.network import mocks

        app = await app.reach(client, "mock")
        new = mocks.mock(url, method, status, headers or {}, body, enabled=enabled)
        return await self._replace(app, mocks.added(self._of(app), new))

    @method("mocks")
    async def mocked(self, app: App, client: str = "") -> dict[str, Any]:
        """The app's mock routes, and in words which of them get into each other's way."""
        return _shown(self._of(await app.reach(client, "mocks")))

    @method("unmock")
    async def unmock(self, app: App, url: str = "", method: str = "", client: str = "") -> dict[str, Any]:
        """Takes out the routes for an address, and a method where one is given; all routes for no address."""
        from rsocket_broker.plugins.network import mocks

        app = await app.reach(client, "unmock")
        return await self._replace(app, mocks.removed(self._of(app), url, method) if url else ())

    def _of(self, app: App) -> "Mocks":
        return self._mocks.get(app.identity.principal, ())

    async def _replace(self, app: App, found: "Mocks") -> dict[str, Any]:
        from rsocket_broker.plugins.network import mocks

        principal = app.identity.principal
        if principal not in self._mocks and found and len(self._mocks) >= mocks.MAX_CLIENTS:
            raise ApplicationError(f"{mocks.MAX_CLIENTS} clients have mock routes, which is the limit: clear some.")
        before = self._of(app)
        self._mocks[principal] = found
        try:
            await self._send_mocks(app)
        except BaseException:
            self._mocks[principal] = before
            raise
        finally:
            if not self._mocks[principal]:
                del self._mocks[principal]
        return _shown(found)

    async def _send_mocks(self, app: App, timeout: float = 30.0) -> None:
        from rsocket_broker.plugins.network import mocks

        if not await app.supports(CALL):
            raise ApplicationError(
                f"{app.name} takes no mock routes: Android apps do, if their HTTP interceptor was built for it."
            )
        await app.call(CALL, mocks.wire(self._of(app)), timeout=timeout)

    def _find(self, app: App, name: int | str) -> Exchange:
        """Ids of iOS are digits too, so a number given as one is looked for among the numbers alone."""
        traffic = self.traffic(app)
        found = traffic.get(name) if isinstance(name, str) else None
        found = found or next((one for one in traffic if str(one.number) == str(name)), None)
        if found is None:
            raise ApplicationError("There is no such exchange, or no longer: the oldest make room for new ones.")
        return found


def _look_for(method: str = "", url: str = "", status: int | str = "", after: int = 0) -> "Wanted":
    from rsocket_broker.plugins.network.filters import wanted

    return wanted(method, url, status, after)


def _fitting(traffic: Traffic, look_for: "Wanted") -> list[Exchange]:
    return [one for one in traffic if look_for.fits(one)]


def _summary(exchange: Exchange, *, secrets: bool) -> dict[str, Any]:
    found = exchange.summary()
    if found["url"] and not secrets:
        from rsocket_broker.plugins.network.redaction import url

        found["url"] = url(found["url"])
    return found


def _entry(exchange: Any, secrets: bool) -> dict[str, Any]:
    from rsocket_broker.plugins.network.har import Writer

    return Writer(secrets=secrets).shown(exchange)


def _instead(traffic: Traffic, look_for: "Wanted", timeout: float) -> str:
    """Why there was nothing, with the newest of what there was."""
    there = [one.summary() for one in traffic if one.number > look_for.after][-3:]
    seen = ", ".join(f"{one['method'] or '?'} {_short(one)} ({one['status'] or one['state']})" for one in there)
    return f"No {look_for.words} within {timeout:g} s." + (f" The newest were: {seen}." if seen else " Nothing came.")


def _short(summary: dict[str, Any]) -> str:
    url = str(summary["url"] or "?").partition("?")[0]
    return url if len(url) <= 100 else f"{url[:99]}…"


def _shown(found: "Mocks") -> dict[str, Any]:
    from rsocket_broker.plugins.network import mocks

    return {"mocks": [one.shown() for one in found], "overlapping": mocks.overlapping(found)}


def _version() -> str:
    from importlib.metadata import version

    return version("rsocket_broker")


def _now() -> float:
    """Milliseconds since 1970."""
    return time.time() * 1000
