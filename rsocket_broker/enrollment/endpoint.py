"""The plain endpoint: what a connection on the insecure port may do, which is to ask for a certificate.

Current SDKs ask by request-response. Old ones ask by fire-and-forget and hear nothing; the log then tells the outcome.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Iterator

from rsocket_broker.claims import Claims
from rsocket_broker.connection import Connection
from rsocket_broker.enrollment.enroller import Enroller
from rsocket_broker.enrollment.exchange import only_signs
from rsocket_broker.enrollment.nonce import Line
from rsocket_broker.errors import ConnectionClosed, EnrollmentRefused, SetupRefused
from rsocket_broker.jsontext import dump
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.events import SetupReceived

log = logging.getLogger(__name__)


class PlainEndpoint:
    """Serves one plain connection (a `Responder`). Reaches no plugin: there is none to be had from here."""

    def __init__(self, enroller: Enroller) -> None:
        self._enroller = enroller
        self._claims = Claims()
        self._peer = ""
        self._line = Line(enroller.nonces)

    def setup(self, connection: Connection, setup: SetupReceived) -> None:
        """Reads the claims. Raises SetupRefused that names the field at fault."""
        address = connection.peer.address
        self._peer = address.rpartition(":")[0] or address
        try:
            self._claims = Claims.parse(setup.data, required=True, known_os=self._enroller.known_os)
        except SetupRefused as refusal:
            self._enroller.outcomes.report(self._claims, self._peer, refusal.public)
            raise

    async def request_response(self, payload: Payload) -> Payload:
        """`signCertificate`, answered with `{"deviceId": …}`, or with `{"nonce": NAME}`, which the next one answers.

        Raises EnrollmentRefused, which names step and remedy.
        """
        message = bytes(payload.data or b"")
        return Payload(dump(await self._enroller.serve(message, self._claims, self._peer, self._line)))

    async def fire_and_forget(self, payload: Payload) -> None:
        """`signCertificate` of an old SDK, or `signCertificateAck`. A refusal is only logged, by the enroller.

        The sender waits for nothing and may be gone already, so that the work does not end with the connection.
        """
        with contextlib.suppress(EnrollmentRefused):
            await self._enroller.serve_to_end(bytes(payload.data or b""), self._claims, self._peer)

    def request_stream(self, payload: Payload) -> Iterator[Payload]:
        raise self._not_served("a stream")

    def request_channel(self, payload: Payload, incoming: AsyncIterator[Payload]) -> AsyncIterator[Payload]:
        raise self._not_served("a channel")

    def metadata_push(self, metadata: bytes) -> None:
        """Means nothing here, and the specification has no answer to it."""

    def closed(self, error: ConnectionClosed) -> None:
        self._line.close()
        log.debug("the plain connection of %s has ended: %s", self._peer, error.public)

    def _not_served(self, what: str) -> EnrollmentRefused:
        refusal = only_signs(f"{what} is not served here")
        self._enroller.outcomes.report(self._claims, self._peer, refusal.public)
        return refusal
