"""From an address in a route to the client that it means, for requests that one client sends to another.

    client:c12                        the session with that id
    client:com.example.app            the one session of that app
    client:com.example.app@emulator1  the one session of that app on that device

What a refusal says is no more than its sender needs: nobody learns from it which other clients are connected.
"""

from weakref import WeakValueDictionary

from rsocket_broker.errors import Invalid, Rejected
from rsocket_broker.plugin_api.handlers import Model
from rsocket_broker.protocol.addresses import ADDRESS
from rsocket_broker.protocol.codes import Interaction
from rsocket_broker.protocol.metadata import CLIENT, COMPOSITE
from rsocket_broker.protocol.relay import Find, Relaying
from rsocket_broker.routing.session import Session
from rsocket_broker.sessions.live import LiveSessions

MAX_REMEMBERED = 64
"""Addresses that one session's requests repeat, remembered until a session comes or goes: a client talks to a few."""

_MODELS = {
    Interaction.REQUEST_RESPONSE: Model.RESPONSE,
    Interaction.FIRE_AND_FORGET: Model.FIRE,
    Interaction.REQUEST_STREAM: Model.STREAM,
    Interaction.REQUEST_CHANNEL: Model.CHANNEL,
}
"""How those that follow a session's messages are told of a request."""

SHOWN = 100
"""Characters of an address that a refusal repeats."""


class Switch:
    """Finds the clients that others address. One per broker that passes requests on."""

    def __init__(self, sessions: LiveSessions[Session]) -> None:
        self._sessions = sessions

    def connect(self, session: Session) -> None:
        """Lets the others reach a session; and it them, if its SETUP says that its metadata is composite."""
        sends_routes = session.connection.metadata_mime == COMPOSITE and not session.buckets  # here nobody counts them
        session.connection.relay(session.id, self._finder(session) if sends_routes else None)

    def _finder(self, session: Session) -> Find:
        remembered: WeakValueDictionary[bytes, Session] = WeakValueDictionary()  # nobody is kept here who has left
        version = -1
        own = _relaying(session)

        def watch(tag: bytes, interaction: Interaction | None, size: int) -> None:
            kind = (Model.PUSH if interaction is None else _MODELS[interaction]).value
            session.note("in", kind, tag.decode(), "", size)
            remembered[tag].note("out", kind, f"{CLIENT}{session.id}", "", size)

        def find(tag: bytes) -> Relaying:
            nonlocal version
            if version != self._sessions.version:
                remembered.clear()
                version = self._sessions.version
            other = remembered.get(tag)
            if other is None or other.suspended:  # then the name may mean another one now
                other = self._look_up(session, tag)
                if len(remembered) >= MAX_REMEMBERED:
                    remembered.clear()
                remembered[tag] = other
            own.watch = watch if session.observed or other.observed else None
            return _relaying(other)

        return find

    def _look_up(self, session: Session, tag: bytes) -> Session:
        """Raises Invalid for an address that leads to nobody else, Rejected for one that leads nowhere now."""
        try:
            address = tag[len(ADDRESS) :].decode()
        except UnicodeDecodeError as error:
            raise Invalid("a routing tag is not UTF-8 text") from error
        found = self._sessions.named(address, 2)
        shown = address[:SHOWN]
        if not found:
            raise Rejected(f'No client "{shown}" is connected.')
        if len(found) > 1:
            raise Invalid(
                f'"{shown}" means more than one client: say client:<app id>@<device id>, or name a session by its id.'
            )
        (other,) = found
        if other is session:
            raise Invalid("A client cannot pass requests on to itself.")
        if other.connection.metadata_mime != COMPOSITE:
            raise Rejected(f'The client "{shown}" reads no routes, so nothing can be passed on to it.')
        return other


def _relaying(session: Session) -> Relaying:
    """The protocol of a session on a broker that passes requests on."""
    relaying = session.connection.relaying
    assert relaying is not None
    return relaying
