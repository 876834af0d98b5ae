"""The plugins' life in one session: which of them the app has, its side of them, and the seats that they have at it.

A Flipper app is asked which plugins it has. Those that are here too get a seat, and the app is told to start its side
(`init`), unless the plugin is lazy: then that is done when something is asked of it, and undone (`deinit`) after a
while. Clients that speak by routes have a seat at a plugin as soon as they ask it something.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rsocket_broker.errors import ApplicationError, ConnectionClosed, Invalid, Rejected, RequestFailed
from rsocket_broker.plugin_api.app import CALL_TIMEOUT
from rsocket_broker.routing.app_errors import AppErrors
from rsocket_broker.routing.app_side import FlipperSide, Sides
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.resting import Resting
from rsocket_broker.routing.router import Router
from rsocket_broker.routing.seat import Seat
from rsocket_broker.routing.session_app import SessionApp
from rsocket_broker.routing.tasks import in_turns

if TYPE_CHECKING:
    from rsocket_broker.routing.session import Session

logger = logging.getLogger(__name__)


class SessionPlugins:
    """Of one session, which is a `Guest` of its plugins through this."""

    def __init__(self, session: "Session", sides: Sides, router: Router) -> None:
        self._session = session
        self._sides = sides
        self._router = router
        self._seats: dict[str, Seat] = {}
        self._app_errors: AppErrors | None = None
        self._resting: Resting | None = None
        self._refreshing = False
        self._refresh_again = False

    # --- what the app has --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """The session has been let in: learn what the app has, and start what has a handler here."""
        if self._sides.flipper is not None:
            self._session.tasks.spawn(self._start(self._sides.flipper))

    async def _start(self, side: FlipperSide) -> None:
        try:
            await self._fetch(side)
        except (RequestFailed, ConnectionClosed) as error:
            self._sides.now = self._sides.routed
            logger.info("%s is served by routes alone: %s", self._session.id, error.public)
        finally:
            self._sides.settle()

    def refresh(self) -> None:
        """The app's plugins have changed. Asked again while it goes on, it goes on once more, and not ten times."""
        if self._sides.flipper is None:
            return
        self._refresh_again = True
        if not self._refreshing:
            self._refreshing = True
            self._session.tasks.spawn(self._refresh(self._sides.flipper))

    async def _refresh(self, side: FlipperSide) -> None:
        try:
            await self._sides.known()
            while self._refresh_again:
                self._refresh_again = False
                await self._fetch(side)
                self._sides.now = side
        except (RequestFailed, ConnectionClosed) as error:
            words = "%s asked for a refresh that failed: %s"
            self._session.log.write(logging.INFO, "refreshes", words, self._session.id, error.public)
        finally:
            self._refreshing = False

    async def _fetch(self, side: FlipperSide) -> None:
        session = self._session
        announced, background = await side.lists()
        others = announced != session.announced
        session.announced, session.background = announced, background
        if others:
            session.access.facts_changed()
        for plugin in side.started:
            if plugin not in announced:
                self._drop(side, plugin)
        self._start_announced(side)
        logger.debug("%s has the plugins %s", session.id, announced)

    def _start_announced(self, side: FlipperSide) -> None:
        """Start the app's side of the plugins that are here too, as far as the two may talk."""
        for plugin in self._session.announced:
            host = self._router.hosts.get(plugin)
            if host is None or plugin in side.started or not host.plugin.eager or not self._may_talk(plugin):
                continue
            if not host.available:
                host.expect(self)
                continue
            seat = self._take(host)  # first a place for its events, which may come at once; then `init`
            self._init(side, plugin)
            seat.connect()

    def refit(self) -> None:
        """The policy has changed: plugins that the client may not talk to any more let it go, and others take it in.

        Raises Rejected where the client takes no more in.
        """
        if self._session.connection.closing is not None:  # it has no seats, and is to have none
            return
        side = self._sides.spoken
        started = () if side is None else side.started
        for plugin in {*self._seats, *started}:
            if not self._may_talk(plugin):
                self._drop(side, plugin)
        if side is not None and self._sides.are_known:
            self._start_announced(side)

    def _may_talk(self, plugin: str) -> bool:
        host = self._router.hosts.get(plugin)
        methods = [] if host is None else [one.name for one in host.routes.handlers()]
        return self._session.access.may_talk(plugin, methods)

    async def _need_talk(self, plugin: str, method: str) -> None:
        """Once it is known how the app is spoken to. Raises Rejected where the policy keeps the two apart."""
        session = self._session
        if not self._sides.are_known:
            await self._sides.wait_known(plugin, method, CALL_TIMEOUT)
        if not self._may_talk(plugin):
            raise Rejected(f"policy: {plugin} and {session.id} ({session.identity.app_id}) may not talk to each other.")

    # --- the app's side of a plugin ----------------------------------------------------------------------------------

    def _init(self, side: FlipperSide, plugin: str) -> None:
        side.init(plugin)
        self._session.note("out", "init", plugin, "", None)

    def _deinit(self, side: FlipperSide, plugin: str) -> None:
        side.deinit(plugin)
        self._session.note("out", "deinit", plugin, "", None)

    async def wake(self, plugin: str) -> bool:
        """Start the app's side of a lazy plugin, unless it runs; whether that was done now. Raises Rejected."""
        await self._need_talk(plugin, "init")
        side = self._sides.spoken
        if side is None:
            return False
        self.use(self._router.hosts.get(plugin))
        if plugin in side.started:
            return False
        self._init(side, plugin)
        return True

    def use(self, host: PluginHost | None) -> None:
        """Something is asked of a plugin's side in the app: a lazy one is not put to rest for a while."""
        if host is None or host.plugin.eager:
            return
        if self._resting is None:  # most sessions have no such plugin
            self._resting = Resting(self._rest, self._session.to_app.is_asked)
        self._resting.used(host.id)

    def _rest(self, plugin: str) -> None:
        side = self._sides.flipper
        if side is not None and plugin in side.started and self._session.connection.closing is None:
            self._deinit(side, plugin)

    @property
    def app_errors(self) -> AppErrors:
        """Where errors go that the app reports outside any request."""
        if self._app_errors is None:
            session = self._session
            told = self._router.told_errors
            holding = session.connection.holding
            self._app_errors = AppErrors(session.id, told, self.seat, self._may_talk, session.tasks, holding)
        return self._app_errors

    # --- as `Guest` --------------------------------------------------------------------------------------------------

    async def lose(self, host: PluginHost, error: RequestFailed) -> None:
        """The plugin is down. The app's side of it is stopped too: it begins anew with the plugin."""
        seat, connection = self._seats.get(host.id), self._session.connection
        if seat is None or connection.closing is not None:
            return
        async for some in in_turns(tuple(seat.running)[::-1]):  # first those that wait for a place of the others
            connection.end_work(dict.fromkeys(some, error))
        if self._seats.get(host.id) is not seat or connection.closing is not None:
            return
        ended = dict.fromkeys(seat.running, error)
        try:
            self._drop(self._sides.spoken, host.id)
        except (RequestFailed, ConnectionClosed) as problem:
            self._tell_lost("%s was not told of a loss: %s", problem)
        connection.end_work(ended)

    def regain(self, host: PluginHost) -> None:
        """The plugin is up again."""
        if self._session.connection.closing is not None or not self._sides.are_known:
            return
        try:
            side = self._sides.spoken
            if side is not None and host.id in self._session.announced:
                self._start_announced(side)
            elif self._may_talk(host.id) and (side is None or not host.plugin.needs_app):
                self.seat(host)
        except (RequestFailed, ConnectionClosed) as problem:
            self._tell_lost("%s did not get one back: %s", problem)

    def _tell_lost(self, words: str, problem: RequestFailed | ConnectionClosed) -> None:
        self._session.log.write(logging.INFO, "lost plugins", words, self._session.id, problem.public)

    # --- seats -------------------------------------------------------------------------------------------------------

    @property
    def seats(self) -> Mapping[str, Seat]:
        """The seats that the session has now, by plugin."""
        return dict(self._seats)

    def events_waiting(self) -> Iterator[tuple[str, int, int]]:
        """(plugin, events that wait for their turn, their bytes)."""
        for plugin, seat in self._seats.items():
            yield plugin, *seat.events_waiting

    def seat(self, host: PluginHost) -> Seat:
        """The session's seat at a plugin, taken when first wanted. Raises Unavailable while the plugin is down,
        ConnectionClosed when the session has ended: whoever has waited for it may be late."""
        seat = self._take(host)
        seat.connect()
        return seat

    def _take(self, host: PluginHost) -> Seat:
        seat = self._seats.get(host.id)
        if seat is None:
            if not host.available:
                raise host.unavailable()
            session = self._session
            if session.connection.closing is not None:
                raise ConnectionClosed("The session has ended.")
            host.expect(self)
            holding = session.connection.holding
            seat = self._seats[host.id] = Seat(host, SessionApp(session, host.id), session.tasks, holding)
        return seat

    async def seat_of(self, plugin: str) -> Seat:
        """The session's seat at a plugin for others who ask about the session, once the plugin has greeted it.

        Raises Invalid for a plugin that is not here, ApplicationError for one that the app does not have, Rejected
        where the policy does not let the two talk, ConnectionClosed.
        """
        host, session = self._router.hosts.get(plugin), self._session
        if host is None:
            raise Invalid(f'This broker has no plugin "{plugin[:100]}".')
        if not self._sides.are_known:
            await self._sides.wait_known(plugin, "", CALL_TIMEOUT)
        if self._sides.spoken is not None and plugin not in session.announced and host.plugin.needs_app:
            raise ApplicationError(f"{session.id} ({session.identity.app_id}) has no plugin {plugin}.")
        await self._need_talk(plugin, "")
        seat = self.seat(host)
        await seat.greeted()
        return seat

    def _drop(self, side: FlipperSide | None, plugin: str) -> None:
        seat = self._seats.pop(plugin, None)
        if seat is not None:
            seat.close()
            self._session.changed()
        if side is not None and plugin in side.started:
            self._deinit(side, plugin)

    def close(self) -> None:
        """The session has ended: every plugin is told."""
        if self._resting is not None:
            self._resting.close()
        if self._app_errors is not None:
            self._app_errors.close()
        for seat in self._seats.values():
            seat.close()
        self._seats.clear()
