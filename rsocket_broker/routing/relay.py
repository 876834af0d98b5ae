"""From an address in a route to the client that it means, for requests that one client sends to another.

    client:c12                        the session with that id
    client:com.example.app            the one session of that app
    client:com.example.app@emulator1  the one session of that app on that device

What a refusal says is no more than its sender needs: nobody learns from it which other clients are connected.
"""

import contextlib
from weakref import WeakValueDictionary, ref

from rsocket_broker.errors import Invalid, Rejected
from rsocket_broker.plugin_api.handlers import Model
from rsocket_broker.policy.rules import Direction
from rsocket_broker.protocol.addresses import ADDRESS
from rsocket_broker.protocol.codes import Interaction
from rsocket_broker.protocol.metadata import CLIENT, COMPOSITE
from rsocket_broker.protocol.relay import Find, Relaying
from rsocket_broker.routing.access import UNDECIDED
from rsocket_broker.routing.session import Session
from rsocket_broker.sessions.live import LiveSessions
from rsocket_broker.sessions.scope import allows

MAX_REMEMBERED = 64
"""Addresses that one session's requests repeat, remembered until a session comes or goes: a client talks to a few."""

_MODELS = {
    Interaction.REQUEST_RESPONSE: Model.RESPONSE,
    Interaction.FIRE_AND_FORGET: Model.FIRE,
    Interaction.REQUEST_STREAM: Model.STREAM,
    Interaction.REQUEST_CHANNEL: Model.CHANNEL,
}
"""How those that follow a session's messages are told of a request."""

LOOKED_AT = 64
"""Clients of one name that are asked about: where more than one may be reached, it is too many anyhow."""

SHOWN = 100
"""Characters of an address that a refusal repeats."""


class Switch:
    """Finds the clients that others address. One per broker that passes requests on."""

    def __init__(self, sessions: LiveSessions[Session]) -> None:
        self._sessions = sessions

    def connect(self, session: Session) -> None:
        """Lets the others reach a session; and it them, if its SETUP says that its metadata is composite. Does nothing
        for one that came while the policy let nobody reach anybody."""
        if session.connection.relaying is None:
            return
        sends_routes = session.connection.metadata_mime == COMPOSITE
        find = _counted_elsewhere if session.buckets else self._finder(session)
        session.connection.relay(session.id, find if sends_routes else None)

    def _finder(self, session: Session) -> Find:
        remembered: WeakValueDictionary[bytes, Session] = WeakValueDictionary()  # nobody is kept here who has left
        version = (-1, -1)
        own = _relaying(session)
        partner = ref(session)  # as above

        def watch(tag: bytes, interaction: Interaction | None, size: int) -> None:
            kind = (Model.PUSH if interaction is None else _MODELS[interaction]).value
            session.note("in", kind, tag.decode(), "", size)
            other = partner()
            if other is not None:
                other.note("out", kind, f"{CLIENT}{session.id}", "", size)

        def find(tag: bytes) -> Relaying:
            nonlocal version, partner
            if session.over:  # its line is open for the answer to its own farewell alone
                raise Rejected(session.over)
            now = self._sessions.version, session.access.version
            if version != now:
                remembered.clear()
                version = now
            other = remembered.get(tag)
            if other is None or other.suspended or other.over:  # then the name may mean another one now
                other = self._look_up(session, tag)
                if len(remembered) >= MAX_REMEMBERED:
                    remembered.clear()
                if session.access.is_fixed(Direction.RELAY, name_of(other), ""):
                    remembered[tag] = other
            partner = ref(other)
            own.watch = watch if session.observed or other.observed else None
            return _relaying(other)

        return find

    def _look_up(self, session: Session, tag: bytes) -> Session:
        """Raises Invalid for an address that leads to nobody else, Rejected for one that leads nowhere now, or to
        somebody whom the client may not reach: the two cannot be told apart."""
        try:
            address = tag[len(ADDRESS) :].decode()
        except UnicodeDecodeError as error:
            raise Invalid("a routing tag is not UTF-8 text") from error
        shown = address[:SHOWN]
        named = self._sessions.named(address, LOOKED_AT)
        found = [other for other in named if not other.over and may_reach(session, other)]
        if not found:
            with contextlib.suppress(Rejected):
                for other in named[:1]:
                    session.access.check(Direction.RELAY, name_of(other), "")  # which is recorded
            raise Rejected(f'No client "{shown}" is connected that this client may reach.')
        if len(found) > 1:
            raise Invalid(
                f'"{shown}" means more than one client: say client:<app id>@<device id>, or name a session by its id.'
            )
        (other,) = found
        if other is session:
            raise Invalid("A client cannot pass requests on to itself.")
        if other.connection.metadata_mime != COMPOSITE or other.connection.relaying is None:
            raise Rejected(f'The client "{shown}" reads no routes, so nothing can be passed on to it.')
        waiting = session.access.check(Direction.RELAY, name_of(other), "")
        if waiting is not None:
            waiting.drop()  # a frame cannot wait here; the answer will be known when it comes again
            raise Rejected(UNDECIDED)
        return other

    def reapply(self, session: Session) -> None:
        """The policy has changed: requests of the client to those whom it may not reach any more end."""
        relaying = session.connection.relaying
        for name in () if relaying is None else relaying.answerers():
            other = self._sessions.get(name)
            if other is not None and relaying is not None and not may_reach(session, other):
                relaying.part_from(name, Rejected(f'policy: this client may not reach "{name}" any more.'))


def _counted_elsewhere(tag: bytes) -> Relaying:
    """For a session with a rate: what is passed on is passed on in runs, and not request by request."""
    raise Rejected("A session with a limited rate passes no requests on to other clients.")


def name_of(session: Session) -> str:
    """The other client of a relay, as rules see it."""
    return session.identity.principal.names[1]


def may_reach(session: Session, other: Session) -> bool:
    """Whether the policy lets the one reach the other, or leaves that to be asked. Itself it may reach, to be told."""
    if other is session:
        return True
    return allows(other.node.scope, "") and session.access.allows(Direction.RELAY, name_of(other), "") is not False


def _relaying(session: Session) -> Relaying:
    """The protocol of a session on a broker that passes requests on."""
    relaying = session.connection.relaying
    assert relaying is not None
    return relaying
