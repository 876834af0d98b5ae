"""The plain endpoint for SDKs of the WebSocket era: one request for a certificate, and exactly one answer to it.

    waiting    --signCertificate-->  asked      it is served as on any line
    asked      --the answer is sent, {} where it was refused-->  answered
    any        --the first signCertificateAck-->  as it was    logged; it has no answer
    any        --anything else-->  as it was                   dropped

Whatever an app receives first it takes for the answer, and a second message may be its end: so nothing else is sent.
There is no form for an error, and the reason is in our log and audit alone.
"""

import enum
import logging
from collections.abc import Awaitable

from rsocket_broker.claims import Claims
from rsocket_broker.enrollment.enroller import Enroller
from rsocket_broker.enrollment.exchange import ACKNOWLEDGE
from rsocket_broker.enrollment.nonce import Line
from rsocket_broker.errors import ConnectionClosed, EnrollmentRefused, SetupRefused
from rsocket_broker.jsontext import JsonError, dump, parse_object
from rsocket_broker.messages import MessageLine
from rsocket_broker.payload import Payload

FAILED = b"{}"
"""What an app is told whose request was refused: it finds its files missing then, and tries again in 3 s."""

log = logging.getLogger(__name__)


class Turn(enum.Enum):
    """What may come next."""

    WAITING = "a request"
    ASKED = "our answer"
    ANSWERED = "nothing, or an acknowledgement"


class WebEnrolment:
    """Serves one WebSocket of the plain port (a `MessageResponder`). Reaches no plugin."""

    def __init__(self, enroller: Enroller) -> None:
        self._enroller = enroller
        self._claims = Claims()
        self._peer = ""
        self._line = Line(web=True)  # one answer is all there is: nothing can be asked back
        self._turn = Turn.WAITING
        self._acknowledged = False
        self._connection: MessageLine

    @property
    def turn(self) -> Turn:
        return self._turn

    def setup(self, connection: MessageLine, setup: Claims) -> None:
        """Nothing is judged here: see `claims_of`."""
        self._connection = connection
        self._peer = host_of(connection.peer.address)
        self._claims = setup

    def fire_and_forget(self, payload: Payload) -> Awaitable[None] | None:
        """One message. A refusal is only logged, by the enroller, and answered as a failure."""
        message = bytes(payload.data or b"")
        if _is_acknowledgement(message):
            if not self._acknowledged:
                self._acknowledged = True
                self._enroller.delivery.keep(self._serve(message))  # an app closes as soon as it has said that
            return None
        if self._turn is not Turn.WAITING:
            log.debug("%s has asked once more on one WebSocket, and is not heard", self._peer)
            return None
        self._turn = Turn.ASKED
        return self._answer(message)

    async def _answer(self, message: bytes) -> None:
        answer = FAILED
        try:
            answer = await self._serve(message)
        finally:  # whatever has happened, an app waits for it without any limit
            self._turn = Turn.ANSWERED
            if self._connection.closing is None:
                self._connection.fire_and_forget(Payload(answer, None))

    def closed(self, error: ConnectionClosed) -> None:
        self._line.close()
        log.debug("the plain WebSocket of %s has ended: %s", self._peer, error.public)

    async def _serve(self, message: bytes) -> bytes:
        try:
            return dump(await self._enroller.serve(message, self._claims, self._peer, self._line))
        except EnrollmentRefused:
            return FAILED


def claims_of(query: str, address: str, enroller: Enroller) -> Claims:
    """What a client says of itself. Raises SetupRefused that names the field at fault, and reports it."""
    try:
        return Claims.from_query(query, known_os=enroller.known_os)
    except SetupRefused as refusal:
        enroller.outcomes.report(Claims(), host_of(address), refusal.public)
        raise


def host_of(address: str) -> str:
    """The address of a peer without its port: what rates are counted for."""
    return address.rpartition(":")[0] or address


def _is_acknowledgement(message: bytes) -> bool:
    try:
        return parse_object(message).get("method") == ACKNOWLEDGE
    except JsonError:
        return False
