"""One client's session: who it is, where it stands in its tree, and the parts that it is made of.

sides       how its app is spoken to                   routing/app_side.py
to_app      what plugins ask of the app                routing/app_calls.py
plugins     the seats that it has at plugins           routing/session_plugins.py
access      what it may do                             routing/access.py
followers   who follows its messages                   routing/followers.py
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from rsocket_broker.claims import Claims
from rsocket_broker.errors import ApplicationError
from rsocket_broker.identity import Identity
from rsocket_broker.line import Line
from rsocket_broker.moments import timestamp
from rsocket_broker.plugin_api.app import App
from rsocket_broker.plugin_api.device import Device
from rsocket_broker.quiet_log import QuietLog
from rsocket_broker.routing.app_calls import AppCalls
from rsocket_broker.routing.app_side import Sides
from rsocket_broker.routing.followers import Followers
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.router import Router
from rsocket_broker.routing.seat import Seat
from rsocket_broker.routing.session_plugins import SessionPlugins
from rsocket_broker.routing.tasks import Tasks
from rsocket_broker.sessions.live import Kind
from rsocket_broker.sessions.rate import Bucket
from rsocket_broker.sessions.tree import Node, NodeKind
from rsocket_broker.tracing import Tracing, carrier, tracer

logger = logging.getLogger(__name__)

NO_DEVICE: Final = "The app has proved nothing, so no device is known to be its own."


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
        self.tracing = _tracing(session_id, identity)
        """None unless this program had set up OpenTelemetry by the time at which the session began."""
        self.access = router.access.of(self)
        self.followers = Followers(session_id, lambda: self.changed())
        level = claims.sdk_version if claims.is_flipper else None
        self._sides = Sides(connection, level, None if self.tracing is None else carrier)
        self.to_app = AppCalls(self, self._sides, router)
        self.plugins = SessionPlugins(self, self._sides, router)

    # --- who it is ---------------------------------------------------------------------------------------------------

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
        return Kind.ROUTED if self._sides.spoken is None else Kind.FLIPPER

    @property
    def speaks_json(self) -> bool:
        """Whether requests without metadata are Flipper's JSON."""
        return self._sides.flipper is not None

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
            "since": timestamp(self.since),
            "state": "suspended" if self.suspended else "connected",
            "serial": format(self.identity.serial, "x"),
            "session": self.node.kind.value,
            "node": self.node.id,
            "parent": self.node.parent,
        }

    # --- its life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """It has been let in."""
        self.plugins.start()

    @property
    def started(self) -> bool:
        """Whether it is known how its app is spoken to, and which plugins that has."""
        return self._sides.are_known

    @property
    def suspended(self) -> bool:
        """The line is lost, and the client may come back to it."""
        return self.connection.suspended

    @property
    def leaving(self) -> bool:
        """The session is about to end."""
        return self._router.ending or self.connection.closing is not None or bool(self.over)

    def close(self) -> None:
        """The connection has gone: every plugin is told, and nothing of this session goes on."""
        self._sides.settle()
        self.plugins.close()
        self.tasks.cancel()
        self.followers.close()

    # --- for those who have a request of its client, or of a plugin on its behalf -----------------------------------

    def seat(self, host: PluginHost) -> Seat:
        """Its seat at a plugin, taken when first wanted. Raises Unavailable while the plugin is down."""
        return self.plugins.seat(host)

    async def reach(self, plugin: str, client: str, method: str) -> App:
        """Another client, as a plugin sees it, for this one. Raises RequestFailed, see `App.reach`."""
        return await self._router.reach(self, plugin, client, method)

    def device_access(self) -> Awaitable[Device]:
        """The device that the app runs on. Raises ApplicationError."""
        if not self.identity.principal.certified:
            raise ApplicationError(NO_DEVICE)
        return self._router.devices(self.identity)

    @property
    def observed(self) -> bool:
        """Whether somebody follows the messages."""
        return bool(self.followers.all)

    def note(
        self, direction: str, kind: str, plugin: str, method: str, size: int | None, content: object = None
    ) -> None:
        """A message, for those who follow them."""
        if self.followers.all:
            self.followers.tell(direction, kind, plugin, method, size, content)

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.identity.principal} {self.kind.value}>"


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
