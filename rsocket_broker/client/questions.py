"""An enrolment's questions over the plain line, whatever the medium, and the broker's refusals as what they are."""

import contextlib
from collections.abc import AsyncGenerator, Mapping

from rsocket_broker.client.line import Address, open_plain, reason
from rsocket_broker.client.responder import Refuser
from rsocket_broker.connection import Connection
from rsocket_broker.errors import ConnectionClosed, EnrollmentRefused, RequestFailed, SetupRefused
from rsocket_broker.jsontext import JsonError, dump, parse_object
from rsocket_broker.payload import Payload

MAX_DEVICE_ID = 256
"""Characters. Device ids are serial numbers and UUIDs."""


@contextlib.asynccontextmanager
async def asking(address: Address, claims: bytes, step: str = "enrolment") -> AsyncGenerator[Connection, None]:
    """A connection to the plain port that is closed at the end of the block.

    What the broker refuses in the block is EnrollmentRefused, of the `step` that it names, or of this one. Raises
    OSError (TimeoutError is one) when nobody is there, ConnectionClosed when the line fails.
    """
    connection = await open_plain(address, claims, Refuser())
    try:
        yield connection
    except RequestFailed as error:
        raise refusal(error.public, step) from error
    except ConnectionClosed as error:
        why = reason(connection, error)
        raise (refusal(why.public, step) if isinstance(why, SetupRefused) else why) from error
    finally:
        await connection.close()


async def ask(connection: Connection, question: Mapping[str, object], timeout: float) -> dict[str, object]:
    """The answer, a JSON object. Raises EnrollmentRefused for any other; else as `Connection.request_response`."""
    answer = await connection.request_response(Payload(dump(question)), timeout=timeout)
    try:
        return parse_object(bytes(answer.data or b""))
    except JsonError as error:
        raise not_understood(f"the broker's answer is {error}.") from error


def device_id_in(answer: Mapping[str, object]) -> str:
    """The only thing in an answer to a signing request that counts; certificates in it, say, do not.

    Raises EnrollmentRefused for none.
    """
    device_id = answer.get("deviceId")
    if not isinstance(device_id, str) or len(device_id) > MAX_DEVICE_ID:
        raise not_understood("the broker's answer names no device.")
    return device_id


def not_understood(text: str) -> EnrollmentRefused:
    """For an answer that no broker gives."""
    return EnrollmentRefused("answer", text, "Is that port a broker's?")


def refusal(text: str, step: str = "enrolment") -> EnrollmentRefused:
    """The broker's text (`step: reason and remedy`) as the error that it was there; of `step` where it names none."""
    named, colon, rest = text.partition(": ")
    return EnrollmentRefused(named, rest, "") if colon else EnrollmentRefused(step, text, "")
