"""Lets clients in that prove nothing, as what they are: beside the certified ones, and never in their places."""

from rsocket_broker.claims import Claims
from rsocket_broker.connection import Connection
from rsocket_broker.errors import ConnectionClosed, SetupRefused
from rsocket_broker.line import Line
from rsocket_broker.protocol.events import ResumeReceived, SetupReceived
from rsocket_broker.routing.endpoint import SecureEndpoint
from rsocket_broker.routing.responder import SecureResponder
from rsocket_broker.routing.session import Session

MESSAGES_ONLY = "Clients without a certificate speak Flipper's JSON, and nothing else."


class UnverifiedEndpoint:
    """The Admission for whoever comes without a certificate. Everything else is the secure endpoint's."""

    def __init__(self, endpoint: SecureEndpoint) -> None:
        self._endpoint = endpoint
        self.router = endpoint.router
        self.setups = endpoint.setups

    def responder(self) -> SecureResponder:
        """What serves one new connection."""
        return SecureResponder(self)

    def admit(self, connection: Line, setup: SetupReceived | Claims) -> Session:
        """Raises SetupRefused, in words for the client."""
        if not isinstance(setup, Claims):
            raise SetupRefused(MESSAGES_ONLY)
        return self._endpoint.admit_unverified(connection, setup)

    def resume(self, door: Connection, resume: ResumeReceived) -> None:
        """Raises SetupRefused: nobody could tell whose the session was."""
        raise SetupRefused(MESSAGES_ONLY)

    def leave(self, session: Session, error: ConnectionClosed) -> None:
        self._endpoint.leave(session, error)
