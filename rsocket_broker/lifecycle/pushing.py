"""Brings live sessions of our SDK new anchors and new certificates, over their own lines."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from weakref import WeakKeyDictionary

from rsocket_broker.authority import Authority
from rsocket_broker.enrollment.containers import Containers
from rsocket_broker.errors import ConnectionClosed, RequestFailed
from rsocket_broker.identity import Principal
from rsocket_broker.jsontext import dump
from rsocket_broker.lifecycle.spreader import Outcome, Spread
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.metadata import COMPOSITE, route
from rsocket_broker.routing.session import Session

PUSH_S = 30.0
"""Seconds for a client to store what it was sent: two small files on its disk, and for a renewal our signature."""

AWAY = "its line is lost; it gets it when it comes back"


class Pusher:
    """Asks clients to store anchors (`identity.trust`), and to renew (`identity.renew`).

    `expecting` is entered for each client that is asked to renew: what it then asks for is our wish.
    """

    def __init__(
        self,
        authority: Authority,
        containers: Containers,
        expecting: Callable[[Principal], AbstractContextManager[None]],
    ) -> None:
        self._authority = authority
        self._containers = containers
        self._expecting = expecting
        self._turns: WeakKeyDictionary[Session, asyncio.Lock] = WeakKeyDictionary()

    @staticmethod
    def can(session: Session) -> bool:
        """Whether a session is one of a client that serves this."""
        return session.claims.identity and not session.is_child and session.connection.metadata_mime == COMPOSITE

    async def trust(self, session: Session) -> Spread:
        """The anchors of the moment."""
        async with self._turn(session):
            trust_pem = self._authority.trust_pem
            found = await self._ask(session, "trust", {"trust": trust_pem.decode()})
            if found.outcome is Outcome.DONE:
                await asyncio.to_thread(self._containers.trusts, session.identity.serial, trust_pem)
            return found

    async def certificate(self, session: Session) -> Spread | None:
        """A certificate of the generation that signs now, and the anchors with it; None when it has one by now."""
        async with self._turn(session):
            if session.identity.generation == self._authority.generation:
                return None
            before = session.identity.serial
            with self._expecting(session.identity.principal):
                found = await self._ask(session, "renew", {})
            if found.outcome is Outcome.DONE and session.identity.serial == before:
                return Spread(
                    found.client, Outcome.FAILED, "the client says that it has renewed, and has stored nothing"
                )
            return found

    def _turn(self, session: Session) -> asyncio.Lock:
        """One thing at a time for each session: a rotation goes round while the session has just come."""
        return self._turns.setdefault(session, asyncio.Lock())

    async def _ask(self, session: Session, method: str, params: object) -> Spread:
        client = str(session.identity.principal)
        if session.suspended:
            return Spread(client, Outcome.LATER, AWAY)
        payload = Payload(dump(params), route(f"identity.{method}"))
        try:
            await session.connection.request_response(payload, timeout=PUSH_S)
        except (ConnectionClosed, TimeoutError) as error:
            return Spread(client, Outcome.LATER, AWAY if isinstance(error, ConnectionClosed) else "it does not answer")
        except RequestFailed as error:
            return Spread(client, Outcome.FAILED, error.public)
        return Spread(client, Outcome.DONE)
