"""Those whom a broker must refuse, for `demo`: each tries its best, and reports the words with which it was refused.

An empty answer means that it was let in.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Mapping
from pathlib import Path

from rsocket_broker import jsontext
from rsocket_broker.authority import Authority
from rsocket_broker.client.enroll import signing_fields
from rsocket_broker.client.line import Address, open_plain, open_secure
from rsocket_broker.client.profile import AppProfile
from rsocket_broker.client.responder import Refuser
from rsocket_broker.credentials import Credentials, make_signing_request
from rsocket_broker.errors import BrokerError, SetupRefused, TlsRefused
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.metadata import route
from rsocket_broker.settings import LOCALHOST
from rsocket_broker.state import STATE_FILE, State

TIMEOUT_S = 5.0


async def try_without_certificate(port: int, trusted: Credentials) -> str:
    """A TLS client of the standard library that trusts the broker but has nothing to show."""
    context = ssl.create_default_context(cadata=trusted.trust_pem.decode("ascii"))
    return await asyncio.to_thread(_try_tls, port, context)


def _try_tls(port: int, context: ssl.SSLContext) -> str:
    try:
        with (
            socket.create_connection((LOCALHOST, port), TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=LOCALHOST) as line,
        ):
            line.recv(1)  # under TLS 1.3 the server's verdict comes after our own handshake
    except ssl.SSLError as error:
        return (error.reason or str(error)).replace("_", " ").lower()
    return ""


def foreign_credentials(home: Path, app_id: str, trusted: Credentials) -> Credentials:
    """What another authority issued to an app of the same name, with trust in the real broker."""
    made = make_signing_request(app_id)
    with State.open(home / STATE_FILE) as state:
        authority = Authority.open(home, state)
        principal = Principal(app_id, "", Proof.OPERATOR)
        issued = authority.issue(authority.check_request(made.csr_pem), principal)
    return Credentials(made.key_pem, issued.certificate_pem, trusted.trust_pem)


async def try_credentials(port: int, credentials: Credentials) -> str:
    return await _try_secure(port, credentials, {})


async def try_claims(port: int, credentials: Credentials, claims: Mapping[str, str]) -> str:
    return await _try_secure(port, credentials, claims)


async def _try_secure(port: int, credentials: Credentials, claims: Mapping[str, str]) -> str:
    data = jsontext.dump(claims) if claims else b""
    try:
        line = await open_secure(Address(LOCALHOST, port), credentials, data, Refuser(), lambda connection: None)
    except (TlsRefused, SetupRefused) as error:
        return error.public
    await line.close()
    return ""


async def try_plain_call(port: int, name: str) -> str:
    """An app that asks a plugin on the port where nobody is known."""
    claims = AppProfile(app_id="com.example.stranger", app="Stranger").plain_claims()
    line = await open_plain(Address(LOCALHOST, port), claims, Refuser())
    try:
        await line.request_response(Payload(b"{}", route(name)), TIMEOUT_S)
    except BrokerError as error:
        return error.public
    finally:
        await line.close()
    return ""


async def try_folder_of_another(port: int, app_id: str, folder: Path) -> str:
    """A stranger with a request of its own, who asks in an app's name for delivery into that app's folder."""
    return await _try_enrolment(port, app_id, make_signing_request(app_id).csr_pem.decode("ascii"), folder)


async def try_again(port: int, app_id: str, csr: str, folder: Path) -> str:
    """An app that was let in before, with the request of then, and its own folder."""
    return await _try_enrolment(port, app_id, csr, folder)


async def _try_enrolment(port: int, app_id: str, csr: str, folder: Path) -> str:
    line = await open_plain(
        Address(LOCALHOST, port), AppProfile(app_id=app_id, app="Stranger").plain_claims(), Refuser()
    )
    try:
        await line.request_response(Payload(jsontext.dump(signing_fields(csr, f"{folder}/", time.time()))), TIMEOUT_S)
    except BrokerError as error:
        return error.public
    finally:
        await line.close()
    return ""


async def is_closed(port: int) -> bool:
    """Whether nobody accepts connections there."""
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection(LOCALHOST, port)
        writer.close()
        return False
    return True
