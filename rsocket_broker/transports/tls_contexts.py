"""TLS contexts from credentials that are in memory: which versions, which trust, and nothing remembered for long.

OpenSSL keeps the sessions of TLS 1.2 in the context that made them, and a session that is resumed is not verified
again: neither the dates of the certificate nor a revocation. Python cannot turn that off, so a context here lives
for a minute or some hundreds of handshakes and is then replaced; its sessions die with it. TLS 1.3 gets no tickets.
"""

import contextlib
import os
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rsocket_broker.credentials import Credentials
from rsocket_broker.errors import AuthorityError
from rsocket_broker.transports.client_hello import ClientHello

ALPN_RSOCKET = "rs"
"""What Flipper's C++ SDK offers. Under TLS 1.3 it never learns that it was refused, so it is held to 1.2."""
ALPN_HTTP = "http/1.1"
"""What WebSocket clients may offer."""
CONTEXT_LIFE = 60.0
"""Seconds: for so long after it expires a certificate may still come in by a resumed TLS 1.2 session."""
CONTEXT_USES = 256
"""Handshakes: a context costs 2 ms to make, and each TLS 1.2 session that it remembers some kilobytes."""


class ServerContexts:
    """The contexts of a server that wants a client certificate. `pick` may be called from any thread."""

    def __init__(self, credentials: Credentials, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises AuthorityError when the credentials do not fit together."""
        self._credentials = credentials
        self._clock = clock
        self._lock = threading.Lock()
        self._legacy = _Renewed(lambda: server_context(credentials, ssl.TLSVersion.TLSv1_2))
        self._modern = _Renewed(lambda: server_context(credentials, ssl.TLSVersion.TLSv1_3))
        self._web = _Renewed(lambda: server_context(credentials, ssl.TLSVersion.TLSv1_2, ALPN_HTTP))
        self._modern.current(clock())

    def pick(self, hello: ClientHello) -> ssl.SSLContext:
        """The context for one handshake, by what the client offers."""
        chosen = self._legacy if ALPN_RSOCKET in hello.alpn else self._modern
        with self._lock:
            return chosen.current(self._clock())

    def pick_web(self, hello: ClientHello) -> ssl.SSLContext:
        """The context for one handshake of a WebSocket client: SDKs that use it never learn of a late refusal."""
        with self._lock:
            return self._web.current(self._clock())


class _Renewed:
    """A context that is made again when it has served long enough."""

    def __init__(self, make: Callable[[], ssl.SSLContext]) -> None:
        self._make = make
        self._context: ssl.SSLContext | None = None
        self._made = 0.0
        self._uses = 0

    def current(self, now: float) -> ssl.SSLContext:
        if self._context is None or self._uses >= CONTEXT_USES or now - self._made >= CONTEXT_LIFE:
            self._context, self._made, self._uses = self._make(), now, 0
        self._uses += 1
        return self._context


def server_context(credentials: Credentials, newest: ssl.TLSVersion, alpn: str = ALPN_RSOCKET) -> ssl.SSLContext:
    """TLS 1.2 to `newest`; a client must show a certificate that `credentials.trust_pem` vouches for.

    Raises AuthorityError when the credentials do not fit together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = newest
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    context.set_alpn_protocols([alpn])
    _load(context, credentials)
    return context


def client_context(credentials: Credentials, alpn: Sequence[str] = ()) -> ssl.SSLContext:
    """TLS 1.2 or 1.3 to a server that `credentials.trust_pem`, and no other CA, vouches for, by name or IP address.

    Raises AuthorityError when the credentials do not fit together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    context.options |= ssl.OP_NO_RENEGOTIATION
    if alpn:
        context.set_alpn_protocols(list(alpn))
    _load(context, credentials)
    return context


def _load(context: ssl.SSLContext, credentials: Credentials) -> None:
    try:
        context.load_verify_locations(cadata=credentials.trust_pem.decode("ascii"))
        with _readable(credentials.chain_pem + b"\n" + credentials.key_pem) as path:
            context.load_cert_chain(path)
    except (ssl.SSLError, ValueError) as error:
        raise AuthorityError("A TLS certificate, its key and its CA do not fit together, or are not PEM.") from error


@contextlib.contextmanager
def _readable(content: bytes) -> Iterator[str]:
    """A path to read `content` from, since `ssl` takes keys from files only: a file without a name where there are
    such, else one that is open to this user alone and soon gone."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("credentials", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{descriptor}"
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "credentials.pem")
        path.touch(mode=0o600)
        path.write_bytes(content)
        yield str(path)
