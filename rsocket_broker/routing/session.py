"""One client's session: who it is, which plugins it has a seat at, and what may be asked of it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing
from datetime import datetime
from time import monotonic
from typing import Any, Final
from weakref import WeakKeyDictionary

from rsocket_broker.claims import Claims
from rsocket_broker.errors import ApplicationError, BrokerError, ConnectionClosed, Invalid, Rejected, RequestFailed
from rsocket_broker.flow import RequestedStream
from rsocket_broker.identity import Identity
from rsocket_broker.line import Line
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api.app import CALL_TIMEOUT, App
from rsocket_broker.plugin_api.device import Device
from rsocket_broker.plugin_api.handlers import Model
from rsocket_broker.quiet_log import QuietLog
from rsocket_broker.routing.apart import answer_apart
from rsocket_broker.routing.app_errors import AppErrors
from rsocket_broker.routing.app_side import AppSide, FlipperSide, RoutedSide, too_late
from rsocket_broker.routing.aside import LARGE
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.resting import Resting
from rsocket_broker.routing.router import Router
from rsocket_broker.routing.seat import Seat
from rsocket_broker.routing.tasks import Tasks
from rsocket_broker.sessions.live import Kind
from rsocket_broker.sessions.rate import Bucket
from rsocket_broker.sessions.tree import Node, NodeKind
from rsocket_broker.tracing import Tracing, carrier, tracer

logger = logging.getLogger(__name__)

_FLIPPER: Final = Kind.FLIPPER
NO_DEVICE: Final = "The app has proved nothing, so no device is known to be its own."
NOTHING_ASKED: Final = -1
"""The id of no request: Flipper's own numbers begin with 0."""

LATE: Final = "%s (%s): %s It may be stopped in a debugger or put to sleep; some methods of shipped SDKs never answer."

Observer = Callable[[dict[str, object]], None]
"""Is given one JSON object for each message: `direction` ("in" from the client, "out" to it), `kind`, `plugin`,
`method`, `bytes` (None where it is not known). Never what the message says: apps send passwords."""

Recorder = Callable[[dict[str, object], object], None]
"""As an Observer, and is given what the message says as well: parameters as JSON, bytes of a request with a route,
`{"params": ..., "success": ...}` of an answer, `{"params": ..., "error": TEXT}` of a refusal; None for nothing."""


class SessionApp(App):
    """The session, as the plugin `plugin_id` sees it."""

    def __init__(self, session: "Session", plugin_id: str) -> None:
        super().__init__()
        self._session = session
        self._plugin = plugin_id

    @property
    def id(self) -> str:
        return self._session.id

    @property
    def identity(self) -> Identity:
        return self._session.identity

    @property
    def name(self) -> str:
        return self._session.claims.app or self.identity.app_id

    @property
    def os(self) -> str:
        return self._session.claims.os

    @property
    def device(self) -> str:
        return self._session.claims.device

    @property
    def kind(self) -> str:
        return self._session.node.kind.value

    @property
    def user(self) -> str:
        return self._session.node.user

    @property
    def data_mime(self) -> str:
        return self._session.connection.data_mime

    def call(
        self, method: str, params: object = None, *, timeout: float | None = CALL_TIMEOUT
    ) -> Coroutine[Any, Any, Any]:
        tracing = self._session.tracing
        if tracing is None:
            return self._session.call(self._plugin, method, params, timeout)
        return self._traced_call(tracing, method, params, timeout)

    async def _traced_call(self, tracing: Tracing, method: str, params: object, timeout: float | None) -> Any:
        with tracing.calling(self._plugin, method, Model.RESPONSE.value):
            return await self._session.call(self._plugin, method, params, timeout)

    async def send(self, method: str, params: object = None) -> None:
        tracing = self._session.tracing
        if tracing is None:
            await self._session.send(self._plugin, method, params)
            return
        with tracing.calling(self._plugin, method, Model.FIRE.value):
            await self._session.send(self._plugin, method, params)

    async def push(self, method: str) -> None:
        await self._session.push(self._plugin, method)

    def stream(self, method: str, params: object = None) -> AsyncGenerator[Any, None]:
        return self._traced(method, Model.STREAM, self._session.stream(self._plugin, method, params))

    def channel(self, method: str, values: AsyncIterable[object]) -> AsyncGenerator[Any, None]:
        return self._traced(method, Model.CHANNEL, self._session.channel(self._plugin, method, values))

    def _traced(self, method: str, model: Model, values: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
        tracing = self._session.tracing
        return values if tracing is None else tracing.streamed(self._plugin, method, model.value, values)

    async def supports(self, method: str) -> bool:
        return await self._session.supports(self._plugin, method)

    async def reach(self, client: str, method: str) -> App:
        return await self._session.reach(self._plugin, client, method) if client else self

    @property
    def leaving(self) -> bool:
        return self._session.leaving

    async def wake(self) -> bool:
        return await self._session.wake(self._plugin)

    async def device_access(self) -> Device:
        return await self._session.device_access()

    def __repr__(self) -> str:
        return f"<App {self.id} {self.identity.principal} of {self._plugin}>"


class Session:
    """A client that has been let in. `since` is an aware datetime in UTC."""

    def __init__(
        self,
        session_id: str,
        identity: Identity,
        claims: Claims,
        connection: Line,
        router: Router,
        since: datetime,
        lineage: tuple[Node, ...] = (),
        parent: "Session | None" = None,
    ) -> None:
        """`lineage` is the session's place in the tree: its own node, and those above it up to the root. `parent` is
        the session above it; where that has no line, the nearest one above that has."""
        self.id = session_id
        self._identity = identity
        self.lineage = lineage or (_root(session_id, identity, connection, since),)
        self.parent = parent
        self.over = ""
        """Why nothing is served any more, as soon as the session was revoked: its line may still carry farewells."""
        self.buckets: tuple[Bucket, ...] = ()
        """What its requests are counted in, where it or one of those above has a rate."""
        self.claims = claims
        self.connection = connection
        self.since = since
        self.announced: list[str] = []
        """The plugins that the app has, by its own account."""
        self.background: list[str] = []
        """Those of them that it wants to be started."""
        self.changed: Callable[[], object] = lambda: None
        """Called when what was found out about the session's seats is no longer true, or somebody begins to look on."""
        self.tasks = Tasks()
        self.log = QuietLog(logger)
        self._router = router
        self._app_errors: AppErrors | None = None
        self._resting: Resting | None = None
        self.access = router.access.of(self)
        """What it may do, and what may be asked of it."""
        self.calls: dict[asyncio.Future[Payload | bytes], tuple[str, str]] = {}
        """Calls to the client that are under way: plugin and method of each."""
        self._flows: WeakKeyDictionary[RequestedStream, tuple[str, str]] | None = None
        self.tracing = _tracing(session_id, identity)
        """None unless this program had set up OpenTelemetry by the time at which the session began."""
        self._routed = RoutedSide(connection, None if self.tracing is None else carrier)
        self._flipper = FlipperSide(connection, claims.sdk_version) if claims.is_flipper else None
        self._kind = Kind.FLIPPER if claims.is_flipper else Kind.ROUTED
        self._seats: dict[str, Seat] = {}
        self._observers: list[Recorder] = []
        self._known = asyncio.Event()
        self._refreshing = False
        self._refresh_again = False

    @property
    def identity(self) -> Identity:
        """Who the client is. A child is who its root is, also after that has renewed its certificate."""
        return self._identity if self.parent is None else self.parent.identity

    @identity.setter
    def identity(self, identity: Identity) -> None:
        self._identity = identity

    @property
    def node(self) -> Node:
        """The session's own place in the tree."""
        return self.lineage[0]

    @property
    def is_child(self) -> bool:
        """It was opened with a token, below another session."""
        return self.parent is not None

    @property
    def kind(self) -> Kind:
        """How the session talks. An app that claims Flipper's JSON and does not speak it becomes a routed one."""
        return self._kind

    @property
    def suspended(self) -> bool:
        """The line is lost, and the client may come back to it."""
        return self.connection.suspended

    @property
    def speaks_json(self) -> bool:
        """Whether requests without metadata are Flipper's JSON."""
        return self._flipper is not None

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """The session has been let in: learn what the app has, and start what has a handler here."""
        if self._flipper is None:
            self._known.set()
        else:
            self.tasks.spawn(self._start(self._flipper))

    async def _start(self, side: FlipperSide) -> None:
        try:
            await self._fetch(side)
        except (RequestFailed, ConnectionClosed) as error:
            self._kind = Kind.ROUTED
            logger.info("%s is served by routes alone: %s", self.id, error.public)
        finally:
            self._known.set()

    def refresh(self) -> None:
        """The app's plugins have changed. Asked again while it goes on, it goes on once more, and not ten times."""
        if self._flipper is None:
            return
        self._refresh_again = True
        if not self._refreshing:
            self._refreshing = True
            self.tasks.spawn(self._refresh(self._flipper))

    async def _refresh(self, side: FlipperSide) -> None:
        try:
            await self._known.wait()
            while self._refresh_again:
                self._refresh_again = False
                await self._fetch(side)
                self._kind = Kind.FLIPPER
        except (RequestFailed, ConnectionClosed) as error:
            self.log.write(logging.INFO, "refreshes", "%s asked for a refresh that failed: %s", self.id, error.public)
        finally:
            self._refreshing = False

    async def _fetch(self, side: FlipperSide) -> None:
        announced, background = await side.lists()
        others = announced != self.announced
        self.announced, self.background = announced, background
        if others:
            self.access.facts_changed()
        for plugin in side.started:
            if plugin not in announced:
                self._drop(side, plugin)
        self._start_announced(side)
        logger.debug("%s has the plugins %s", self.id, announced)

    def _start_announced(self, side: FlipperSide) -> None:
        """Start the app's side of the plugins that are here too, as far as the two may talk."""
        for plugin in self.announced:
            host = self._router.hosts.get(plugin)
            if host is None or plugin in side.started or not host.plugin.eager or not self._may_talk(plugin):
                continue
            if not host.available:
                host.expect(self)
                continue
            seat = self._seat(host)  # first a place for its events, which may come at once; then `init`
            side.init(plugin)
            self.note("out", "init", plugin, "", None)
            seat.connect()

    def _may_talk(self, plugin: str) -> bool:
        host = self._router.hosts.get(plugin)
        return self.access.may_talk(plugin, [] if host is None else [one.name for one in host.routes.handlers()])

    def refit(self) -> None:
        """The policy has changed: plugins that the client may not talk to any more let it go, and others take it in.

        Raises Rejected where the client takes no more in.
        """
        if self.connection.closing is not None:  # it has no seats, and is to have none
            return
        side = self._flipper if self._kind is _FLIPPER else None
        started = () if side is None else side.started
        for plugin in {*self._seats, *started}:
            if not self._may_talk(plugin):
                self._drop(side, plugin)
        if side is not None and self._known.is_set():
            self._start_announced(side)

    async def wake(self, plugin: str) -> bool:
        """Start the app's side of a lazy plugin, unless it runs; whether that was done now. Raises Rejected."""
        if not self._known.is_set():
            await self._wait_known(plugin, "init", CALL_TIMEOUT)
        if not self._may_talk(plugin):
            raise Rejected(f"policy: {plugin} and {self.id} ({self.identity.app_id}) may not talk to each other.")
        side = self._flipper if self._kind is _FLIPPER else None
        if side is None:
            return False
        self._use(self._router.hosts.get(plugin))
        if plugin in side.started:
            return False
        side.init(plugin)
        self.note("out", "init", plugin, "", None)
        return True

    @property
    def leaving(self) -> bool:
        """The session is about to end."""
        return self._router.ending or self.connection.closing is not None or bool(self.over)

    def _use(self, host: PluginHost | None) -> None:
        """Something is asked of a plugin's side in the app: a lazy one is not put to rest for a while."""
        if host is None or host.plugin.eager:
            return
        if self._resting is None:  # most sessions have no such plugin
            self._resting = Resting(self._rest, self._is_asked)
        self._resting.used(host.id)

    def _rest(self, plugin: str) -> None:
        side = self._flipper
        if side is not None and plugin in side.started and self.connection.closing is None:
            side.deinit(plugin)
            self.note("out", "deinit", plugin, "", None)

    def _is_asked(self, plugin: str) -> bool:
        return any(asked == plugin for asked, _ in self.calls.values())

    @property
    def app_errors(self) -> AppErrors:
        """Where errors go that the app reports outside any request."""
        if self._app_errors is None:
            self._app_errors = AppErrors(self.id, self._router.told_errors, self.seat, self._may_talk, self.tasks)
        return self._app_errors

    def device_access(self) -> Awaitable[Device]:
        """The device that the app runs on. Raises ApplicationError."""
        if not self.identity.principal.certified:
            raise ApplicationError(NO_DEVICE)
        return self._router.devices(self.identity)

    def lose(self, host: PluginHost, error: RequestFailed) -> None:
        """As `Guest`: the plugin is down. The app's side of it is stopped too: it begins anew with the plugin."""
        seat = self._seats.get(host.id)
        if seat is None or self.connection.closing is not None:
            return
        ended = dict.fromkeys(seat.running, error)
        try:
            self._drop(self._flipper if self._kind is _FLIPPER else None, host.id)
        except (RequestFailed, ConnectionClosed) as problem:
            self.log.write(logging.INFO, "lost plugins", "%s was not told of a loss: %s", self.id, problem.public)
        self.connection.end_work(ended)

    def regain(self, host: PluginHost) -> None:
        """As `Guest`."""
        if self.connection.closing is not None or not self._known.is_set():
            return
        try:
            side = self._flipper if self._kind is _FLIPPER else None
            if side is not None and host.id in self.announced:
                self._start_announced(side)
            elif self._may_talk(host.id) and self._is_guest(host):
                self.seat(host)
        except (RequestFailed, ConnectionClosed) as problem:
            self.log.write(logging.INFO, "lost plugins", "%s did not get one back: %s", self.id, problem.public)

    def _is_guest(self, host: PluginHost) -> bool:
        """Clients of plugins that need no side in the app, and those that speak by routes, have a seat by asking."""
        return self._kind is not _FLIPPER or not host.plugin.needs_app

    def _drop(self, side: FlipperSide | None, plugin: str) -> None:
        seat = self._seats.pop(plugin, None)
        if seat is not None:
            seat.close()
            self.changed()
        if side is not None and plugin in side.started:
            side.deinit(plugin)
            self.note("out", "deinit", plugin, "", None)

    def close(self) -> None:
        """The connection has gone: every plugin is told, and nothing of this session goes on."""
        self._known.set()
        if self._resting is not None:
            self._resting.close()
        if self._app_errors is not None:
            self._app_errors.close()
        for seat in self._seats.values():
            seat.close()
        self._seats.clear()
        self.tasks.cancel()
        self._observers.clear()

    # --- plugins -----------------------------------------------------------------------------------------------------

    def seat(self, host: PluginHost) -> Seat:
        """The session's seat at a plugin, taken when first wanted. Raises Unavailable while the plugin is down."""
        seat = self._seat(host)
        seat.connect()
        return seat

    def _seat(self, host: PluginHost) -> Seat:
        seat = self._seats.get(host.id)
        if seat is None:
            if not host.available:
                raise host.unavailable()
            host.expect(self)
            seat = self._seats[host.id] = Seat(host, SessionApp(self, host.id), self.tasks)
        return seat

    async def seat_of(self, plugin: str) -> Seat:
        """The session's seat at a plugin for others who ask about the session, once the plugin has greeted it.

        Raises Invalid for a plugin that is not here, ApplicationError for one that the app does not have, Rejected
        where the policy does not let the two talk.
        """
        host = self._router.hosts.get(plugin)
        if host is None:
            raise Invalid(f'This broker has no plugin "{plugin[:100]}".')
        if not self._known.is_set():
            await self._wait_known(plugin, "", CALL_TIMEOUT)
        if self._kind is _FLIPPER and plugin not in self.announced and host.plugin.needs_app:
            raise ApplicationError(f"{self.id} ({self.identity.app_id}) has no plugin {plugin}.")
        if not self._may_talk(plugin):
            raise Rejected(f"policy: {plugin} and {self.id} ({self.identity.app_id}) may not talk to each other.")
        seat = self.seat(host)
        await seat.greeted()
        return seat

    async def reach(self, plugin: str, client: str, method: str) -> App:
        """Another client, as a plugin sees it, for this one. Raises RequestFailed, see `App.reach`."""
        return await self._router.reach(self, plugin, client, method)

    @property
    def flows(self) -> Mapping[RequestedStream, tuple[str, str]]:
        """Streams of the client that plugins read: plugin and method of each."""
        return self._flows or {}

    def _flowing(self, stream: RequestedStream, plugin: str, method: str) -> None:
        if self._flows is None:  # most sessions never have one
            self._flows = WeakKeyDictionary()
        self._flows[stream] = plugin, method

    @property
    def seats(self) -> Mapping[str, Seat]:
        """The seats that the session has now, by plugin."""
        return dict(self._seats)

    def events_waiting(self) -> Iterator[tuple[str, int, int]]:
        """(plugin, events that wait for their turn, their bytes)."""
        for plugin, seat in self._seats.items():
            yield plugin, *seat.events_waiting

    # --- calls to the app --------------------------------------------------------------------------------------------

    async def call(self, plugin: str, method: str, params: object = None, timeout: float | None = CALL_TIMEOUT) -> Any:
        """Call a method of the app's side of a plugin, which is started first if need be; the answer as JSON.

        Raises ApplicationError with the app's own text, Canceled after `timeout` seconds (which begin once the app
        has started up; for that it may take as long again), ConnectionClosed.
        """
        if not self._known.is_set():
            await self._wait_known(plugin, method, timeout)
        access = self.access
        if (plugin, method) not in access.out:
            await access.check_out(plugin, method)
        side: AppSide = self._routed if self._flipper is None or self._kind is not _FLIPPER else self._flipper
        if self._observers:
            self.note("out", "call", plugin, method, None, params)
        host, began, connection, stream_id = self._router.hosts.get(plugin), monotonic(), self.connection, NOTHING_ASKED
        self._use(host)
        try:
            data, metadata = side.question(plugin, method, params)
            ends = None
            if not connection.may_ask:
                version = access.version
                ends = await connection.wait_to_ask(timeout)
                if access.version != version:
                    await access.check_out(plugin, method)
            stream_id, waiting = connection.ask(data, metadata, timeout, ends)
            self.calls[waiting] = plugin, method
            try:
                found = await waiting
            finally:
                del self.calls[waiting]
            text = found if isinstance(found, bytes) else found.data or b""
            answer = side.value(text) if len(text) <= LARGE else await answer_apart(self._router.aside, side, text)
        except TimeoutError:
            late = too_late(plugin, method, timeout)
            self._call_failed(late, host, (plugin, method, params), stream_id)
            self.log.write(logging.WARNING, "late answers", LATE, self.id, self.identity.app_id, late.public)
            raise late from None
        except BaseException as error:
            self._call_failed(error, host, (plugin, method, params), stream_id)
            raise
        if host is not None:
            host.app_calls.seconds.observe(monotonic() - began)
        if self._observers:
            self.note("in", "answer", plugin, method, len(text), {"params": params, "success": answer})
        return answer

    def _call_failed(
        self, error: BaseException, host: PluginHost | None, asked: tuple[str, str, object], stream_id: int
    ) -> None:
        self.connection.unask(stream_id)
        if host is not None:
            host.app_calls.fail(error)
        if isinstance(error, BrokerError):
            plugin, method, params = asked
            self.note("in", "error", plugin, method, None, {"params": params, "error": error.public})

    async def send(self, plugin: str, method: str, params: object = None) -> None:
        """Call a method one way."""
        side = await self._side(plugin, method, CALL_TIMEOUT)
        self.note("out", "send", plugin, method, None, params)
        self._use(self._router.hosts.get(plugin))
        side.send(plugin, method, params)
        await self.connection.drain()

    async def push(self, plugin: str, method: str) -> None:
        """Send the bare route one way; raises ApplicationError for an app that reads none."""
        routed = await self._routed_side(plugin, method)
        self.note("out", "push", plugin, method, None)
        routed.push(plugin, method)
        await self.connection.drain()

    async def supports(self, plugin: str, method: str) -> bool:
        """False only when the app says that its side of `plugin` has no `method`."""
        return await (await self._side(plugin, method, CALL_TIMEOUT)).supports(plugin, method)

    async def stream(self, plugin: str, method: str, params: object = None) -> AsyncGenerator[Any, None]:
        """The JSON values that the app streams; raises ApplicationError for one that cannot."""
        routed = await self._routed_side(plugin, method)
        self.note("out", "stream", plugin, method, None)
        flow = routed.stream(plugin, method, params, lambda stream: self._flowing(stream, plugin, method))
        async with aclosing(flow) as values:
            async for value in values:
                yield value

    async def channel(self, plugin: str, method: str, values: AsyncIterable[object]) -> AsyncGenerator[Any, None]:
        """The JSON values that come back while `values` go to the app."""
        routed = await self._routed_side(plugin, method)
        self.note("out", "channel", plugin, method, None)
        values = self._still_allowed(plugin, method, values)
        flow = routed.channel(plugin, method, values, lambda stream: self._flowing(stream, plugin, method))
        async with aclosing(flow) as answers:
            async for value in answers:
                yield value

    async def _still_allowed(
        self, plugin: str, method: str, values: AsyncIterable[object]
    ) -> AsyncGenerator[object, None]:
        """The values of a channel, which begins with the first of them: the policy may have changed until it is there.

        Raises Rejected where it has, and nothing was sent yet.
        """
        version: int | None = self.access.version
        async for value in values:
            if version not in (None, self.access.version):
                await self.access.check_out(plugin, method)
            version = None
            yield value

    async def _side(self, plugin: str, method: str, timeout: float | None) -> AppSide:
        """How to talk to the app, once that is known."""
        if not self._known.is_set():
            await self._wait_known(plugin, method, timeout)
        await self.access.check_out(plugin, method)
        return self._flipper if self._flipper is not None and self._kind is _FLIPPER else self._routed

    async def _wait_known(self, plugin: str, method: str, timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._known.wait()
        except TimeoutError:
            raise too_late(plugin, method, timeout) from None

    async def _routed_side(self, plugin: str, method: str) -> RoutedSide:
        await self.access.check_out(plugin, method)
        if not self._routed.possible:
            raise ApplicationError(
                f"{plugin}.{method} can only be called or sent: Flipper's JSON, which the app speaks, has nothing else."
                if self.speaks_json
                else f"This client cannot be sent {plugin}.{method}: it reads no routes."
            )
        return self._routed

    # --- looking on --------------------------------------------------------------------------------------------------

    @property
    def observed(self) -> bool:
        """Whether somebody follows the messages."""
        return bool(self._observers)

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Call `observer` for each message from now on. Gives a function that ends it; the session's end does too."""
        return self.record(lambda message, content: observer(message))

    def record(self, recorder: Recorder) -> Callable[[], None]:
        """As `observe`, for who writes down what is said."""
        self._observers.append(recorder)
        self.changed()

        def stop() -> None:
            if recorder in self._observers:
                self._observers.remove(recorder)

        return stop

    def note(
        self, direction: str, kind: str, plugin: str, method: str, size: int | None, content: object = None
    ) -> None:
        """Tell the observers of a message."""
        if not self._observers:
            return
        message: dict[str, object] = {"client": self.id, "direction": direction, "kind": kind}
        message |= {"plugin": plugin, "method": method, "bytes": size}
        for observer in tuple(self._observers):
            try:
                observer(message, content)
            except Exception:
                logger.exception("whoever follows %s failed, and follows it no more", self.id)
                self._observers.remove(observer)

    def describe(self) -> dict[str, object]:
        """What `clients list --json` shows."""
        return {
            "id": self.id,
            "app": self.claims.app,
            "app_id": self.identity.app_id,
            "device": self.claims.device,
            "device_id": self.identity.device_id,
            "os": self.claims.os,
            "sdk_version": self.claims.sdk_version,
            "medium": self.claims.medium,
            "proof": self.identity.proof.value,
            "transport": self.connection.peer.channel.value,
            "plugins": list(self.announced),
            "since": self.since.isoformat(timespec="seconds"),
            "state": "suspended" if self.suspended else "connected",
            "serial": format(self.identity.serial, "x"),
            "session": self.node.kind.value,
            "node": self.node.id,
            "parent": self.node.parent,
        }

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.identity.principal} {self._kind.value}>"


def _root(session_id: str, identity: Identity, connection: Line, since: datetime) -> Node:
    return Node(
        id=session_id,
        kind=NodeKind.DEVICE if identity.principal.certified else NodeKind.UNVERIFIED,
        channel=connection.peer.channel,
        since=since,
        expires=identity.not_after,
    )


def _tracing(session_id: str, identity: Identity) -> Tracing | None:
    found = tracer()
    if found is None:
        return None
    return Tracing(found, {"rsocket_broker.session": session_id, "rsocket_broker.app_id": identity.app_id})
