"""Where the requests of one session go: whether it is served at all, which plugin a request is for, what waits for a
decision, and what becomes of a message that leads nowhere."""

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from rsocket_broker.errors import Invalid, Rejected, RequestFailed
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.metadata import COMPOSITE, first_tag
from rsocket_broker.routing.access import Waiting
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.router import Router
from rsocket_broker.routing.session import Session
from rsocket_broker.sessions.rate import take_from_all

NO_SESSION: Final = "There is no session."
TOO_OFTEN: Final = "This session, or one above it, has asked more often than it may. Try again in a second."
NO_ROUTE: Final = f"The request has no route: SETUP must declare {COMPOSITE} as its metadata type."


class Reception:
    """Of one connection. Whatever sends a request elsewhere raises RequestFailed, in words for its sender."""

    __slots__ = ("router", "session")

    def __init__(self, router: Router) -> None:
        self.router = router
        self.session: Session | None = None
        """Once the client was let in, until it has gone."""

    def live(self) -> Session:
        """The session, for a request that has come. Raises Invalid, Rejected."""
        session = self.session
        if session is None:
            raise Invalid(NO_SESSION)
        if session.over:
            raise Rejected(session.over)
        if session.buckets and not take_from_all(session.buckets, monotonic()):
            raise Rejected(TOO_OFTEN)
        return session

    def place(self, session: Session, metadata: Any) -> tuple[PluginHost, str]:
        """The plugin, and what is asked of it. Raises Invalid, Rejected when the metadata leads nowhere."""
        if session.connection.metadata_mime != COMPOSITE:
            raise Invalid(NO_ROUTE)
        return self.router.resolve(first_tag(metadata) if metadata else None)

    def host(self, plugin: str) -> PluginHost:
        """The plugin of that id. Raises Invalid."""
        host = self.router.hosts.get(plugin)
        if host is None:
            raise Invalid(f'There is no plugin "{plugin[:100]}" here.')
        return host

    def later(self, session: Session, waiting: Waiting, deliver: Callable[[], None]) -> None:
        """Delivers a message that nobody answers once it is allowed; those that wait keep their order."""

        def decided(refusal: Rejected | None) -> None:
            if self.session is not session:
                return
            try:
                if refusal is not None:
                    raise refusal
                deliver()
            except RequestFailed as error:
                drop(session, error)

        waiting.then(decided)


def is_flippers(session: Session, payload: Payload) -> bool:
    """Whether a message is Flipper's. Flipper's SDKs declare `text/plain` metadata and send none; some of their kin
    send an empty one."""
    return session.speaks_json and (not payload.metadata or session.connection.metadata_mime != COMPOSITE)


def drop(session: Session, error: RequestFailed) -> None:
    """A bad message costs its sender that message, and us a line in the log."""
    session.log.write(logging.WARNING, "bad messages", "a message of %s was dropped: %s", session.id, error.public)
