"""The plugin `identity`: a client that has a session gets a new certificate over it, for the request that it sends.

    identity.renew   {"csr": PEM} -> {"certificate": PEM, "trust": PEM}
    identity.stored  {"serial": hex} -> {}: the client holds it now, and the session goes on as that certificate's

Who asks is the session's own certificate, so what is signed names the same client with the same proof. A session that
was opened with a token has no certificate, and renews none.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import ClassVar, Protocol

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from rsocket_broker.audit import Event
from rsocket_broker.authority import Authority
from rsocket_broker.authority.inventory import principal_facts
from rsocket_broker.authority.issuing import Issued
from rsocket_broker.enrollment.containers import Containers
from rsocket_broker.enrollment.throttle import Rate, RateLimiter
from rsocket_broker.errors import ApplicationError, BrokerError, Rejected
from rsocket_broker.identity import Identity, Principal
from rsocket_broker.plugin_api.app import App
from rsocket_broker.plugin_api.plugin import Plugin, method
from rsocket_broker.routing.session import Session

RATE = Rate(6, 1 / 600)
"""Renewals of one client by itself: a handful after mishaps, and one in ten minutes in the long run. Each costs a
signature and a row that is kept. Those that we ask for are not counted."""

MAX_WAITING = 4
"""Certificates of one session that were handed out and not yet said to be stored; older ones are forgotten."""

log = logging.getLogger(__name__)


class Endpoint(Protocol):
    """What this needs of the secure endpoint."""

    def renewed(self, session: Session, identity: Identity) -> None: ...


@attrs.frozen(slots=True)
class _HandedOut:
    issued: Issued
    trust_pem: bytes


@attrs.define(slots=True)
class _Renewals:
    """What is known of the renewals of one session."""

    asked_for: bool = False
    waiting: dict[int, _HandedOut] = attrs.field(factory=dict)


class IdentityPlugin(Plugin):
    """One per broker. `find` gives a live session by its id."""

    id: ClassVar[str] = "identity"

    def __init__(
        self,
        authority: Authority,
        containers: Containers,
        find: Callable[[str], Session],
        endpoint: Callable[[], Endpoint],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authority = authority
        self._containers = containers
        self._find = find
        self._endpoint = endpoint
        self._clock = clock
        self._rates = RateLimiter(RATE)
        self._expected: set[Principal] = set()
        self.results: Counter[str] = Counter()
        """How many tries to renew were `done` and `failed`."""

    @contextlib.contextmanager
    def expecting(self, principal: Principal) -> Iterator[None]:
        """Within the block, we have asked this client to renew: its next request is not counted."""
        self._expected.add(principal)
        try:
            yield
        finally:
            self._expected.discard(principal)

    def on_connect(self, app: App) -> None:
        app.state = _Renewals()

    @method("renew")
    async def renew(self, app: App, csr: str) -> dict[str, str]:
        session = self._session(app)
        identity = session.identity
        self._count(identity.principal)
        try:
            issued = await asyncio.to_thread(self._sign, identity, csr)
        except BrokerError as error:
            self.results["failed"] += 1
            log.warning("%s (%s) did not get a new certificate: %s", session.id, identity.principal, error.public)
            facts = principal_facts(identity.principal)
            self._authority.audit.note(Event.ENROLMENT_REFUSED, step="renewal", reason=error.public, **facts)
            raise ApplicationError(error.public) from error
        trust_pem = self._authority.trust_pem
        waiting: dict[int, _HandedOut] = app.state.waiting
        waiting[issued.serial] = _HandedOut(issued, trust_pem)
        while len(waiting) > MAX_WAITING:
            del waiting[next(iter(waiting))]
        return {"certificate": issued.certificate_pem.decode(), "trust": trust_pem.decode()}

    @method("stored")
    async def stored(self, app: App, serial: str) -> dict[str, str]:
        session = self._session(app)
        handed_out = app.state.waiting.pop(_number(serial), None)
        if handed_out is None:
            raise ApplicationError(f"{serial[:40]} is no certificate that was handed out to this session.")
        old = session.identity
        try:
            new = await asyncio.to_thread(self._take, old, handed_out)
            self._authority.identify(_der(handed_out))  # again, now that nothing comes in between: it may be revoked
        except BrokerError as error:
            self.results["failed"] += 1
            raise ApplicationError(error.public) from error
        self._session(app)
        self._endpoint().renewed(session, new)
        self.results["done"] += 1
        log.info("%s (%s) has renewed its certificate, serial %x", session.id, new.principal, new.serial)
        return {}

    def _session(self, app: App) -> Session:
        session = self._find(app.id)
        if session.is_child:
            raise Rejected("A session that was opened with a token has no certificate to renew.")
        if not session.identity.principal.certified:
            raise Rejected("A session that has proved nothing has no certificate to renew.")
        return session

    def _count(self, principal: Principal) -> None:
        if principal in self._expected:
            self._expected.discard(principal)
        elif wait := self._rates.take(principal, self._clock()):
            self.results["failed"] += 1
            raise Rejected(f"{principal} has renewed its certificate several times. Ask again in {wait:.0f} seconds.")

    def _sign(self, identity: Identity, csr: str) -> Issued:
        return self._authority.renew(identity, self._authority.check_request(csr))

    def _take(self, old: Identity, handed_out: _HandedOut) -> Identity:
        """The identity of the new certificate, as a handshake with it would find it; it may have been revoked since."""
        new = self._authority.identify(_der(handed_out))
        self._authority.arrived(new.serial)
        self._containers.renewed(old.serial, handed_out.issued.certificate_pem, handed_out.trust_pem)
        return new


def _der(handed_out: _HandedOut) -> bytes:
    return x509.load_pem_x509_certificate(handed_out.issued.certificate_pem).public_bytes(Encoding.DER)


def _number(serial: str) -> int:
    """Hexadecimal digits as a number; 0, which is nobody's serial number, for everything else."""
    try:
        return int(serial, 16) if len(serial) <= 40 else 0
    except ValueError:
        return 0
