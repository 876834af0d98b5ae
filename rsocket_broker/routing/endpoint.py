"""The secure endpoint: lets a certified client in, and again when its line was lost.

Who the client is comes from its certificate. What its SETUP says besides is for display, and must not contradict it.
"""

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial

from rsocket_broker.claims import Claims, contradiction
from rsocket_broker.connection import Connection
from rsocket_broker.errors import BrokerError, ConnectionClosed, SetupRefused
from rsocket_broker.histogram import Histogram
from rsocket_broker.identity import Identity
from rsocket_broker.protocol.codes import ErrorCode
from rsocket_broker.protocol.events import ResumeReceived, SetupReceived
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.registry import LoadedPlugin
from rsocket_broker.routing.relay import Switch
from rsocket_broker.routing.responder import SecureResponder
from rsocket_broker.routing.router import Router
from rsocket_broker.routing.session import Session
from rsocket_broker.routing.tasks import Tasks
from rsocket_broker.sessions.live import LiveSessions
from rsocket_broker.sessions.resumption import Resumptions, SameHolder, same_key

logger = logging.getLogger(__name__)

REPLACED = "a newer session of the same identity has taken the place of this one"
FAREWELL = 5.0
"""Seconds that plugins have to say goodbye to the last sessions when the broker stops."""

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
        relay: bool = False,
        same_holder: SameHolder = same_key,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`relay` lets clients send requests to each other, on connections whose protocol is a `Relaying`.

        `same_holder` says which other certificate may resume a session than the one that opened it.
        """
        self._tasks = Tasks()
        self._identify = identify
        self._clock = clock
        self._numbers = itertools.count(1)
        self.router = Router(PluginHost(plugin, self._tasks) for plugin in plugins)
        self.router.relays = relay
        self.sessions = LiveSessions[Session]() if sessions is None else sessions
        self.resumptions = Resumptions[Session](same_holder)
        self._switch = Switch(self.sessions) if relay else None
        self.setups: Counter[str] = Counter()
        """Connections by what became of their SETUP: `accepted`, the code that it was refused with, or `gone` when the
        peer left before that; `resumed` counts those that brought a RESUME in its place, and went to its session."""
        self.setup_seconds = Histogram()
        """From the opening of a connection to the SETUP that was accepted, the time that the peer took included."""

    def responder(self) -> SecureResponder:
        """What serves one new connection."""
        return SecureResponder(self)

    def admit(self, connection: Connection, setup: SetupReceived) -> Session:
        """The session of a new client. Raises SetupRefused, in words for the client."""
        identity = self._identity(connection)
        claims = Claims.parse(setup.data, required=False)
        problem = contradiction(claims, identity)
        if problem is not None:
            raise SetupRefused(problem)
        if setup.resume_token is not None:
            self.resumptions.check(setup.resume_token, identity)
        session_id = f"c{next(self._numbers)}"
        session = Session(session_id, identity, claims, connection, self.router, datetime.now(UTC))
        for older in self.sessions.admit(session, self._clock()):
            logger.info("%s (%s) is replaced by %s", older.id, identity.principal, session.id)
            self._tasks.spawn(older.connection.close(REPLACED, ErrorCode.CONNECTION_ERROR))
        if setup.resume_token is not None:
            self.resumptions.add(setup.resume_token, identity, session)
            connection.on_suspended = partial(_tell_of_loss, session)
        if self._switch is not None:
            self._switch.connect(session)
        self.setups["accepted"] += 1
        self.setup_seconds.observe(max(0.0, self._clock() - connection.opened))
        logger.info(
            "%s is %s, %s, from %s", session.id, identity.principal, session.kind.value, connection.peer.address
        )
        return session

    def resume(self, door: Connection, resume: ResumeReceived) -> None:
        """A client is back: its session goes on over the line of `door`. Raises BrokerError, in words for the client.

        Who it is comes from the certificate of the new line, which is judged as on a SETUP.
        """
        identity = self._identity(door)
        session = self.resumptions.find(resume.token, identity)
        address = door.peer.address
        session.connection.resume(door, resume)
        self.resumptions.renew(session, identity)
        session.identity = identity
        self.setups["resumed"] += 1
        words = "%s (%s) goes on from %s"  # which a client can bring about as often as it has lines to throw away
        session.log.write(logging.INFO, "resumptions", words, session.id, identity.principal, address)

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
        session.connection.on_suspended = None
        session.close()
        logger.info("%s (%s) has left: %s", session.id, session.identity.principal, error.public)

    async def stop(self, timeout: float = FAREWELL) -> None:
        """The connections are closed: wait until plugins have said goodbye, or stop them."""
        await self._tasks.wait(timeout)

    def _identity(self, connection: Connection) -> Identity:
        certificate = connection.peer.certificate
        if certificate is None:
            raise SetupRefused("A client certificate is needed here.")
        try:
            return self._identify(certificate)
        except SetupRefused:
            raise
        except BrokerError as error:
            raise SetupRefused(error.public) from error


def _tell_of_loss(session: Session) -> None:
    words = "%s (%s) has lost its line, and may come back"
    session.log.write(logging.INFO, "lost lines", words, session.id, session.identity.principal)
