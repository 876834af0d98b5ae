"""Opening one connection to a broker, as a client: a TCP or TLS line with the RSocket engine on it."""

import asyncio
import ipaddress
import secrets
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import attrs

from rsocket_broker.connection import Connection, Responder
from rsocket_broker.credentials import Credentials
from rsocket_broker.errors import BrokerError, ConnectionClosed, SetupRefused, TlsRefused
from rsocket_broker.protocol.authentication import bearer_metadata
from rsocket_broker.protocol.codes import SETUP_ERRORS, ErrorCode
from rsocket_broker.protocol.frames import LARGEST_INTERVAL, Setup
from rsocket_broker.protocol.limits import LEASE_PERIOD, LEASE_REQUESTS, PLAIN, RESUME_SECONDS, SECURE, Limits
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.transports.base import Receiver
from rsocket_broker.transports.tcp import connect_tcp
from rsocket_broker.transports.tls import connect_tls
from rsocket_broker.transports.tls_contexts import ALPN_HTTP, client_context

KEEPALIVE_MS = 10_000
"""Interval of our keepalives: short enough for every router on the way to remember the line."""

LIFETIME_MS = 30_000
"""Silence after which the broker is gone: three keepalives without an answer."""

ACCEPT_TIMEOUT = 15.0
"""Seconds from SETUP to the first frame of the broker. It answers at once, unless it must look at a device first."""

TOKEN_SIZE = 32
"""Bytes of chance in a resume token: nobody guesses it."""

PLAIN_MIME = "text/plain"
"""What Flipper's SDKs declare on the plain port, for data and metadata alike."""


NO_RESUMPTION = "resum"
"""What the words of a server have in them that refuses a SETUP because it offers no resumption: the code alone does not
tell that from any other refusal."""

WS_PATH = "/rsocket"
_WEB_PORTS = {"wss": 443, "ws": 80}
"""Where a URL names no port (RFC 6455 3)."""


def _is_port(_: object, field: "attrs.Attribute[int]", value: int) -> None:
    if not 0 < value < 65536:
        raise ValueError(f"{value!r} is no port: use 1 to 65535")


@attrs.frozen(slots=True)
class Address:
    """Where a port of the broker is. `host` is also the name that its certificate must carry.

    Raises ValueError for a port that is none: an address takes only its last 16 bits, and would lead elsewhere.
    """

    host: str
    port: int = attrs.field(validator=_is_port)

    @property
    def secure(self) -> bool:
        """The secure port of a broker is never spoken to but in TLS."""
        return True

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@attrs.frozen(slots=True)
class WebAddress:
    """Where a broker takes sessions over WebSocket; not `secure` ones only on this machine."""

    host: str
    port: int
    path: str = WS_PATH
    secure: bool = True

    @classmethod
    def parse(cls, url: str) -> "WebAddress":
        """From `wss://HOST:PORT/rsocket`, or `ws://` to loopback. Raises ValueError, saying what is wrong with it."""
        parts = urlsplit(url)
        if parts.scheme not in _WEB_PORTS or not parts.hostname:
            raise ValueError(f"{url!r} is not the address of a WebSocket, such as wss://localhost:9088/rsocket")
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError(f"{url!r} has more than a host, a port and a path")
        if parts.scheme == "ws" and not _is_loopback(parts.hostname):
            raise ValueError(f"{url!r} would go over the network without TLS: use wss")
        port = parts.port or _WEB_PORTS[parts.scheme]
        return cls(parts.hostname, port, parts.path or WS_PATH, parts.scheme == "wss")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.secure else 'ws'}://{host}:{self.port}{self.path}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _some(_: object, field: "attrs.Attribute[Any]", value: float) -> None:
    if not 0 < value < LARGEST_INTERVAL / 1000:
        highest = LARGEST_INTERVAL // 1000
        raise ValueError(f"the {field.name} of a lease are more than 0, and less than {highest}, not {value!r}")


@attrs.frozen(slots=True)
class Lease:
    """What we let the broker ask of us: so many requests in so many seconds, again and again."""

    requests: int = attrs.field(default=LEASE_REQUESTS, validator=_some)
    seconds: float = attrs.field(default=LEASE_PERIOD, validator=_some)


@attrs.frozen(slots=True)
class Terms:
    """What a SETUP asks for. `resume`: the session is to outlive its line. `lease`: each side asks only as much as the
    other lets it, and this is what we let the broker ask; None: no leases."""

    resume: bool = False
    lease: Lease | None = None

    def setup(self, claims: bytes) -> Setup:
        token = secrets.token_bytes(TOKEN_SIZE) if self.resume else None
        return Setup(
            keepalive_ms=KEEPALIVE_MS,
            lifetime_ms=LIFETIME_MS,
            data=claims,
            lease=self.lease is not None,
            resume_token=token,
        )

    def limits(self) -> Limits:
        limits = attrs.evolve(SECURE, resume_seconds=RESUME_SECONDS) if self.resume else SECURE
        if self.lease is None:
            return limits
        return attrs.evolve(limits, lease_requests=self.lease.requests, lease_period=self.lease.seconds)


async def open_plain(address: Address, claims: bytes, responder: Responder) -> Connection:
    """A connection to the plain port; whether the broker takes our SETUP shows with the first answer.

    Raises OSError (TimeoutError is one) when nobody is there.
    """
    setup = Setup(
        keepalive_ms=KEEPALIVE_MS,
        lifetime_ms=LIFETIME_MS,
        metadata_mime=PLAIN_MIME,
        data_mime=PLAIN_MIME,
        data=claims,
    )
    connection = _connection(setup, PLAIN, responder)
    await connect_tcp(address.host, address.port, connection)
    return connection


async def open_secure(
    address: Address | WebAddress,
    credentials: Credentials,
    claims: bytes,
    responder: Responder,
    opened: Callable[[Connection], None],
    terms: Terms | None = None,
) -> Connection:
    """A connection to a secure port that the broker has accepted: its first frame has come.

    `opened` is called before anything can arrive. Raises TlsRefused when either side refuses the other's certificate
    (under TLS 1.3 we learn of it only after our own handshake), SetupRefused with the broker's words, AuthorityError
    for credentials that do not fit together, OSError (TimeoutError is one) or ConnectionClosed when the line fails.
    """
    terms = terms or Terms()
    connection = _connection(terms.setup(claims), terms.limits(), responder)
    opened(connection)
    await _dial(address, credentials, connection)
    return await _accepted(connection)


async def open_with_token(
    address: WebAddress, token: str, responder: Responder, opened: Callable[[Connection], None]
) -> Connection:
    """As `open_secure`, with a bearer token in place of a certificate, to a port of this machine without TLS."""
    setup = Setup(keepalive_ms=KEEPALIVE_MS, lifetime_ms=LIFETIME_MS, metadata=bearer_metadata(token))
    connection = _connection(setup, SECURE, responder)
    opened(connection)
    await _dial_web(address, None, connection)
    return await _accepted(connection)


async def _accepted(connection: Connection) -> Connection:
    """Once the broker has taken its SETUP."""
    try:
        async with asyncio.timeout(ACCEPT_TIMEOUT):
            await connection.wait_accepted()
    except ConnectionClosed as error:
        raise reason(connection, error) from error
    except BaseException:
        connection.abort()
        raise
    return connection


async def resume_secure(address: Address | WebAddress, credentials: Credentials, connection: Connection) -> None:
    """Gives a suspended connection a new line, over which the broker goes on with it.

    Raises TlsRefused, AuthorityError and OSError as `open_secure` does, after which the connection is still suspended,
    or its time is over; ConnectionClosed when the broker does not know it any more.
    """
    await _dial(address, credentials, connection)
    try:
        async with asyncio.timeout(ACCEPT_TIMEOUT):
            await connection.wait_resumed()
    except TimeoutError:
        connection.drop_line()
        raise


def refuses_resumption(error: SetupRefused) -> bool:
    """Whether the same SETUP without a resume token may be taken."""
    return error.code == ErrorCode.REJECTED_SETUP and NO_RESUMPTION in error.public.lower()


async def _dial(address: Address | WebAddress, credentials: Credentials, receiver: Receiver) -> None:
    if isinstance(address, Address):
        await connect_tls(address.host, address.port, client_context(credentials), receiver)
        return
    await _dial_web(address, client_context(credentials, [ALPN_HTTP]) if address.secure else None, receiver)


async def _dial_web(address: WebAddress, context: ssl.SSLContext | None, receiver: Receiver) -> None:
    from rsocket_broker.transports.websocket_client import connect_websocket  # the library behind it is loaded slowly

    await connect_websocket(address.host, address.port, receiver, path=address.path, context=context)


def reason(connection: Connection, error: ConnectionClosed) -> BrokerError:
    """Why a connection ended before it was used, as the error that says it best."""
    cause = None if connection.closing is None else connection.closing.__cause__
    if isinstance(cause, TlsRefused):
        return cause
    if error.code is not None and error.code in SETUP_ERRORS:
        return SetupRefused(error.public, error.code)
    return error


def _connection(setup: Setup, limits: Limits, responder: Responder) -> Connection:
    return Connection(Protocol.client(setup, limits, time.monotonic()), responder)
