"""TLS contexts from credentials that are in memory: which versions, which trust, and how long a session is remembered.

A client may resume its TLS session (RFC 8446 2.2, RFC 5077), which spares both sides the signatures. OpenSSL verifies
nothing then: it takes the certificate of the first handshake out of what was remembered. So a session must not outlive
what it stands for. What it is resumed with belongs to the context that gave it, and never leaves it: whoever comes with
a session of a context that is gone has a full handshake. Contexts are made anew with the credentials, by
`ServerContexts.renew`, and after CONTEXT_LIFE. The certificate's dates and status are for whoever identifies the peer,
resumed or not.

Who remembers depends on how many come again. A few clients are remembered by the context, and their tickets are mere
names: to resume costs a third of the work then, since no certificate is packed into a ticket and parsed out of it
again. Where more come again than memory is given for, each carries its session itself, encrypted in its ticket.

Certificates that were revoked are refused in the handshake, by a revocation list of each CA in the context. OpenSSL
refuses all clients of a CA whose list is missing or has ended, so there is one of each, and it never ends.
"""

import contextlib
import os
import ssl
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rsocket_broker.credentials import Credentials
from rsocket_broker.errors import AuthorityError
from rsocket_broker.transports.client_hello import ClientHello

ALPN_RSOCKET = "rs"
"""What Flipper's C++ SDK offers. Under TLS 1.3 it never learns that it was refused, so it is held to 1.2."""
ALPN_HTTP = "http/1.1"
"""What WebSocket clients may offer."""
CONTEXT_LIFE = 3600.0
"""Seconds: whoever comes back after longer shows its certificate again. A session of TLS 1.2 that is resumed makes no
new key exchange, so that one who reads our memory could decrypt what was recorded of so long a time."""
MAX_CACHED = 256
"""Sessions that a context holds in memory, up to 17 KiB each for the client's chain. Python has no switch for the size
of OpenSSL's cache, so a context that has so many is replaced."""
MAX_FORGOTTEN = 64
"""Clients of a context that come with a session of the one before, which was full: each has lost one resumption in 256
sessions. Where more have, there are too many clients to be remembered. Under TLS 1.2 strangers count as well: a client
that knows 1.3 sends the id of a session that never was (RFC 8446 D.4)."""
MAX_REMEMBERED = 1024
"""The same of all contexts together, those that were replaced included: OpenSSL keeps a context and all that it
remembers for as long as one line of it lives. Where there are more, the next contexts seal sessions into tickets."""
TICKETS = 1
"""For each TLS 1.3 handshake: a client keeps the last one, and each costs us 0.1 ms, or 0.3 ms with a session in it."""


class Remembered:
    """What the contexts of one broker remember. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contexts: weakref.WeakSet[ssl.SSLContext] = weakref.WeakSet()

    def admit(self, context: ssl.SSLContext) -> bool:
        """Counts what this one remembers from now on; whether there is room for much of it."""
        with self._lock:
            known = sum(each.session_stats()["number"] for each in self._contexts)
            self._contexts.add(context)
            return known < MAX_REMEMBERED


class ServerContexts:
    """The contexts of a server that wants a client certificate. `pick` may be called from any thread."""

    def __init__(
        self,
        credentials: Credentials,
        clock: Callable[[], float] = time.monotonic,
        *,
        web: Credentials | None = None,
        crl_pem: bytes = b"",
        remembered: Remembered | None = None,
    ) -> None:
        """`web` is for WebSocket clients, the same where there is none of its own. `crl_pem` holds a revocation list
        of each CA in `trust_pem`, or nothing: then no certificate is taken for revoked. `remembered` is shared with
        the contexts before these.

        Raises AuthorityError when the credentials do not fit together.
        """
        for_web = web or credentials
        self._clock = clock
        self._lock = threading.Lock()
        all_ = Remembered() if remembered is None else remembered
        self._legacy = _Renewed(lambda: server_context(credentials, ssl.TLSVersion.TLSv1_2, crl_pem=crl_pem), all_)
        self._modern = _Renewed(lambda: server_context(credentials, ssl.TLSVersion.TLSv1_3, crl_pem=crl_pem), all_)
        self._web = _Renewed(lambda: server_context(for_web, ssl.TLSVersion.TLSv1_2, ALPN_HTTP, crl_pem), all_)
        self._modern.current(clock())

    def renew(self) -> None:
        """From now on nobody resumes a session of before: to be called when a certificate is no longer good for what it
        was. Handshakes that are under way go on. May be called from any thread."""
        with self._lock:
            for each in (self._legacy, self._modern, self._web):
                each.forget()

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
    """A context that is made again when it is old, or remembers much."""

    def __init__(self, make: Callable[[], ssl.SSLContext], remembered: Remembered) -> None:
        self._make = make
        self._remembered = remembered
        self._context: ssl.SSLContext | None = None
        self._made = 0.0
        self._crowded = False
        """More clients come again than a context remembers."""

    def current(self, now: float) -> ssl.SSLContext:
        context = self._context
        if context is None:
            return self._renewed(now)
        if now - self._made >= CONTEXT_LIFE:
            self._crowded = False
            return self._renewed(now)
        known = context.session_stats()
        if known["number"] < MAX_CACHED:
            return context
        self._crowded = self._crowded or known["misses"] > MAX_FORGOTTEN
        return self._renewed(now)

    def _renewed(self, now: float) -> ssl.SSLContext:
        context = self._context = self._make()
        if self._remembered.admit(context) and not self._crowded:
            context.options |= ssl.OP_NO_TICKET
        self._made = now
        return context

    def forget(self) -> None:
        self._context = None


def remembers(context: ssl.SSLContext) -> bool:
    """Whether the context keeps the sessions of its clients, so that it has next to nothing to do for one of them."""
    return bool(context.options & ssl.OP_NO_TICKET)


def server_context(
    credentials: Credentials, newest: ssl.TLSVersion, alpn: str = ALPN_RSOCKET, crl_pem: bytes = b""
) -> ssl.SSLContext:
    """TLS 1.2 to `newest`; a client must show a certificate that `credentials.trust_pem` vouches for and that is not
    on the list of its CA in `crl_pem`, where there are lists.

    Raises AuthorityError when the credentials do not fit together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = newest
    context.verify_mode = ssl.CERT_REQUIRED
    # Our CA may be one below an operator's root. That root is no reason for trust: it has signed other CAs too.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.num_tickets = TICKETS
    context.set_alpn_protocols([alpn])
    _load(context, credentials)
    if crl_pem:
        _load_lists(context, crl_pem)
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


def _load_lists(context: ssl.SSLContext, crl_pem: bytes) -> None:
    """Only a client's own certificate is looked up: those of CAs are ours."""
    context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    try:
        with _readable(crl_pem) as path:  # `cadata` takes no lists
            context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise AuthorityError("A list of revoked certificates cannot be read.") from error


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
