"""The secure endpoint: lets a certified client in, and again when its line was lost; and whom such a client has sent.

Who the client is comes from its certificate. What its SETUP says besides is for display, and must not contradict it.
Whoever brings a token is a child of the session that has asked for the token (see `children`).
"""

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial

from rsocket_broker.browser.labels import identity_of
from rsocket_broker.claims import Claims, contradiction
from rsocket_broker.connection import Connection
from rsocket_broker.errors import BrokerError, ConnectionClosed, Invalid, RequestFailed, SetupRefused
from rsocket_broker.histogram import Histogram
from rsocket_broker.identity import Identity
from rsocket_broker.line import Line
from rsocket_broker.protocol.authentication import bearer_token
from rsocket_broker.protocol.codes import ErrorCode
from rsocket_broker.protocol.events import ResumeReceived, SetupReceived
from rsocket_broker.protocol.limits import SECURE, Limits
from rsocket_broker.quota import House
from rsocket_broker.routing.access import Access
from rsocket_broker.routing.children import Children
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.reach import Reach
from rsocket_broker.routing.reapply import reapply
from rsocket_broker.routing.registry import LoadedPlugin
from rsocket_broker.routing.relay import Switch
from rsocket_broker.routing.responder import SecureResponder
from rsocket_broker.routing.router import Router
from rsocket_broker.routing.session import Session
from rsocket_broker.routing.tasks import Tasks
from rsocket_broker.sessions.live import LiveSessions
from rsocket_broker.sessions.resumption import Resumptions, SameHolder, same_key
from rsocket_broker.transports.base import Channel

logger = logging.getLogger(__name__)

NO_CERTIFICATE = "A client certificate is needed here."
UNPROVEN = "A token is needed here, as bearer authentication in the metadata of SETUP: ask for one with sessions.login."
REPLACED = "a newer session of the same identity has taken the place of this one"
TURN = 64
"""Sessions that are gone through at once when the policy has changed, before everybody else has a turn."""
FAREWELL = 5.0
"""Seconds that plugins have to say goodbye to the last sessions when the broker stops."""

CERTIFIED = frozenset({Channel.TLS, Channel.WSS})
"""Where a token is good beside a certificate only: that of the root of its tree."""

Identify = Callable[[bytes], Identity]
"""From a client's certificate (DER) to its identity. Raises BrokerError for one that is not ours, or no longer."""


class SecureEndpoint:
    """Everything that the connections of the secure port share."""

    def __init__(
        self,
        identify: Identify,
        plugins: Iterable[LoadedPlugin],
        sessions: LiveSessions[Session] | None = None,
        *,
        access: Access,
        same_holder: SameHolder = same_key,
        children: Children | None = None,
        known_limits: Limits = SECURE,
        house: House | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`access` says who may call what. Where it lets clients send requests to each other, they can on connections
        whose protocol is a `Relaying`.

        `same_holder` says which other certificate may resume a session than the one that opened it. `known_limits` hold
        for a connection with a token from then on that the token was judged. In `house` is counted what clients make us
        hold.
        """
        self._tasks = Tasks()
        self._identify = identify
        self._clock = clock
        self._numbers = itertools.count(1)
        self.router = Router((PluginHost(plugin, self._tasks) for plugin in plugins), access)
        self.access = access
        self.sessions = LiveSessions[Session]() if sessions is None else sessions
        self.resumptions = Resumptions[Session](same_holder)
        self.children = Children() if children is None else children
        self._known_limits = known_limits
        self.house = House() if house is None else house
        self._switch = Switch(self.sessions)
        self.router.reach = Reach(self.sessions)
        self.setups: Counter[str] = Counter()
        """Connections by what became of their SETUP: `accepted`, the code that it was refused with, or `gone` when the
        peer left before that; `resumed` counts those that brought a RESUME in its place, and went to its session."""
        self.watchers: list[Callable[[Session], object]] = []
        """Called with each session that was let in, goes on over another line, or has another certificate now. At once,
        on the event loop; must not raise."""
        self.setup_seconds = Histogram()
        """From the opening of a connection to the SETUP that was accepted, the time that the peer took included."""

    def responder(self) -> SecureResponder:
        """What serves one new connection."""
        return SecureResponder(self)

    def admit(self, connection: Line, setup: SetupReceived | Claims) -> Session:
        """The session of a new client. Raises SetupRefused, in words for the client."""
        return self._enter(connection, self._session(connection, setup))

    def admit_unverified(self, connection: Line, claims: Claims) -> Session:
        """The session of a client that has nothing but claims. Raises SetupRefused."""
        session_id, since = f"c{next(self._numbers)}", datetime.now(UTC)
        session = Session(session_id, identity_of(claims), claims, connection, self.router, since)
        self._take_in(session)
        return self._enter(connection, session)

    def _enter(self, connection: Line, session: Session) -> Session:
        principal = session.identity.principal
        connection.holding.belong_to(self.house.of(principal) if principal.certified else self.house.unproven)
        self.children.enter(session)
        self._switch.connect(session)
        self.setups["accepted"] += 1
        self.setup_seconds.observe(max(0.0, self._clock() - connection.opened))
        logger.info(
            "%s is %s, %s, from %s",
            session.id,
            session.identity.principal,
            session.node.id if session.is_child else session.kind.value,
            connection.peer.address,
        )
        self._tell(session)
        return session

    def _session(self, connection: Line, setup: SetupReceived | Claims) -> Session:
        if isinstance(setup, Claims):
            return self._root(connection, setup)
        token = self._token(connection, setup)
        if token is not None:
            return self._child(connection, setup, token)
        return self._root(connection, Claims.parse(setup.data, required=False), setup.resume_token)

    @staticmethod
    def _token(connection: Line, setup: SetupReceived) -> bytes | None:
        """What was shown beside, or in place of, a certificate."""
        try:
            return bearer_token(setup.metadata_mime, setup.metadata)
        except Invalid as error:
            if connection.peer.channel in CERTIFIED:
                return None  # the certificate says who it is, and what else SETUP tells is for others to read
            raise SetupRefused(f"The metadata of SETUP: {error.public}.") from error

    def _root(self, connection: Line, claims: Claims, resume_token: bytes | None = None) -> Session:
        """Of a client with a certificate."""
        identity = self._identity(connection)
        problem = contradiction(claims, identity)
        if problem is not None:
            raise SetupRefused(problem)
        if resume_token is not None:
            self.resumptions.check(resume_token, identity)
        session_id = f"c{next(self._numbers)}"
        session = Session(session_id, identity, claims, connection, self.router, datetime.now(UTC))
        self._take_in(session)
        if resume_token is not None:
            self.resumptions.add(resume_token, identity, session)
            connection.on_suspended = partial(_tell_of_loss, session)
        return session

    def _child(self, connection: Line, setup: SetupReceived, token: bytes) -> Session:
        """Of a client with a token: what it is, the session above it has said, and nothing in its SETUP."""
        identity = self._identity(connection) if connection.peer.channel in CERTIFIED else None
        lineage = self.children.open(token, connection.peer.channel, identity)
        if setup.resume_token is not None:
            raise SetupRefused("A session with a token is not resumed: open it again with the token.")
        node, parent = lineage[0], self.children.above(lineage)
        claims = Claims(os=node.platform, device=node.name, device_id=node.device_id)
        session_id, since = f"c{next(self._numbers)}", datetime.now(UTC)
        session = Session(session_id, parent.identity, claims, connection, self.router, since, lineage, parent)
        session.buckets = self.children.buckets(lineage)
        self._take_in(session, self.children.line(node.id))
        connection.widen(self._known_limits)
        return session

    def _take_in(self, session: Session, instead: Session | None = None) -> None:
        for older in self.sessions.admit(session, self._clock(), instead):
            logger.info("%s (%s) is replaced by %s", older.id, older.identity.principal, session.id)
            self._tasks.spawn(older.connection.close(REPLACED, ErrorCode.CONNECTION_ERROR))

    def resume(self, door: Connection, resume: ResumeReceived) -> None:
        """A client is back: its session goes on over the line of `door`. Raises BrokerError, in words for the client.

        Who it is comes from the certificate of the new line, which is judged as on a SETUP.
        """
        identity = self._identity(door)
        session = self.resumptions.find(resume.token, identity)
        address = door.peer.address
        assert isinstance(session.connection, Connection)  # no other line brings a token to be resumed with
        session.connection.resume(door, resume)
        self._identified(session, identity)
        self.setups["resumed"] += 1
        words = "%s (%s) goes on from %s"  # which a client can bring about as often as it has lines to throw away
        session.log.write(logging.INFO, "resumptions", words, session.id, identity.principal, address)
        self._tell(session)

    def renewed(self, session: Session, identity: Identity) -> None:
        """The client has a new certificate, by its own word on its own line: the session goes on as that one's."""
        self._identified(session, identity)
        self._tell(session)

    def _identified(self, session: Session, identity: Identity) -> None:
        """The client has this certificate from now on. Of what rules ask about, its profile may be another one."""
        others = identity.profile != session.identity.profile
        session.identity = identity
        self.resumptions.renew(session, identity)
        if others:
            session.access.facts_changed()
            for one in (session, *self.descendants(session)):
                self._reapply(one)

    def _tell(self, session: Session) -> None:
        for watcher in self.watchers:
            watcher(session)

    def forget(self, predicate: Callable[[Identity], bool]) -> int:
        """Nobody may resume the sessions of certificates that fit `predicate` any more; those that are suspended end.

        Returns how many sessions there were.
        """
        found = self.resumptions.forget(predicate)
        for session in found:
            session.connection.forget_resumption()
        return len(found)

    def leave(self, session: Session, error: ConnectionClosed) -> None:
        """The connection of `session` has gone."""
        self.resumptions.remove(session)
        self.sessions.remove(session)
        self.children.leave(session)
        session.connection.on_suspended = None
        session.close()
        logger.info("%s (%s) has left: %s", session.id, session.identity.principal, error.public)

    async def reapply(self) -> None:
        """The policy has changed: what it does not allow any more ends, session by session."""
        for number, session in enumerate(self.sessions, 1):
            self._reapply(session)
            if not number % TURN:
                await asyncio.sleep(0)

    def _reapply(self, session: Session) -> None:
        """Whoever takes nothing in any more, or makes us fail otherwise, does so at no cost to those behind it."""
        try:
            self._switch.reapply(session)
            reapply(session)
        except (RequestFailed, ConnectionClosed) as error:
            words = "%s (%s) could not be told of another policy: %s"
            session.log.write(
                logging.INFO, "another policy", words, session.id, session.identity.principal, error.public
            )
        except Exception:
            logger.exception("another policy was not applied to all that %s has open", session.id)

    def descendants(self, session: Session) -> list[Session]:
        """The sessions below this one that are connected, children before their parents."""
        return self.children.descendants(session)

    def plugin_state(self, plugin: str) -> dict[str, object]:
        """How a plugin does, as JSON."""
        return self.router.hosts[plugin].describe()

    def troubled_plugins(self) -> list[dict[str, object]]:
        """Those that are down, were restarted, or have held up the loop."""
        return [{"id": host.id, **host.describe()} for host in self.router.hosts.values() if host.troubled]

    async def start_plugins(self) -> None:
        """Before anybody is let in. A plugin that does not come up is down, and tried again."""
        starts = [host.supervisor.start() for host in self.router.hosts.values() if host.needs_start]
        if starts:
            await asyncio.gather(*starts)

    async def stop(self, timeout: float = FAREWELL) -> None:
        """The connections are closed: wait until plugins have said goodbye, or stop them."""
        await asyncio.gather(self._tasks.wait(timeout), self.children.stop(timeout))
        self.router.aside.stop()
        stops = [host.supervisor.stop() for host in self.router.hosts.values() if host.supervisor.started]
        if stops:
            await asyncio.wait([asyncio.ensure_future(stop) for stop in stops], timeout=timeout)

    def _identity(self, connection: Line) -> Identity:
        certificate = connection.peer.certificate
        if certificate is None:
            raise SetupRefused(NO_CERTIFICATE if connection.peer.channel in CERTIFIED else UNPROVEN)
        try:
            return self._identify(certificate)
        except SetupRefused:
            raise
        except BrokerError as error:
            raise SetupRefused(error.public) from error


def _tell_of_loss(session: Session) -> None:
    words = "%s (%s) has lost its line, and may come back"
    session.log.write(logging.INFO, "lost lines", words, session.id, session.identity.principal)
