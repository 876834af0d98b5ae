"""The certificate authority of one home: makes itself, signs what was checked, remembers it, and says who a peer is.

It may be called from any thread. Signing holds no lock; only the commit of a row is shared, and that in batches.
"""

import functools
import hashlib
import hmac
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from sqlite3 import Connection
from typing import Self

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from rsocket_broker import files
from rsocket_broker.audit import Audit
from rsocket_broker.authority import keys, requests, server, verify
from rsocket_broker.authority.arrivals import Arrivals
from rsocket_broker.authority.endpoint import ServerPair
from rsocket_broker.authority.ends import Foreseen, foreseen
from rsocket_broker.authority.generations import Generations
from rsocket_broker.authority.holders import Holder
from rsocket_broker.authority.home import CaHome, certificate_pem
from rsocket_broker.authority.inventory import Guard, Inventory, Record, Status
from rsocket_broker.authority.issue import Issuer, host_names
from rsocket_broker.authority.issuing import Alongside, Issued, Issuing
from rsocket_broker.authority.lists import Lists
from rsocket_broker.authority.names import read_names
from rsocket_broker.authority.profiles import CLIENT, CLIENT_PROFILES
from rsocket_broker.authority.requests import CheckedRequest
from rsocket_broker.authority.revocation import Revocations
from rsocket_broker.authority.rotation import Phase, Rotation, Step
from rsocket_broker.authority.serving import Serving
from rsocket_broker.authority.verify import Finding
from rsocket_broker.credentials import Credentials
from rsocket_broker.errors import AuthorityError, BrokerError
from rsocket_broker.identity import Identity, Principal
from rsocket_broker.moments import utc_now
from rsocket_broker.state import State

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
"""What clients on this machine, and on devices behind a reverse forward, call the broker."""
BRIEFLY_S = 0.2
"""How long a handshake waits for the lock on the home where there is something to go on with."""
FOREVER = datetime.max.replace(tzinfo=UTC)
RETRY = timedelta(minutes=1)
"""From a renewal of what is presented that failed to the next: days are left for it."""
MAX_RENEWALS = 32
"""Renewals between the certificate that opened a session and the one that resumes it. A session counts by the newest
that it was resumed with, so even one is rare."""

MAX_KNOWN = 4096
"""Certificates that are remembered once they were read, half a kilobyte each. Whether one is good is always asked."""
REPLACED = "The CA that signed the certificate was replaced by a new one. Enrol again to get a new certificate."
ENDED = "The certificate ended on {:%Y-%m-%d}. Enrol again to get a new one."
NOT_ISSUED_HERE = "This broker did not issue the certificate. Enrol again to get one."
WITHDRAWN = (
    "The certificate was revoked by whoever runs this broker. Enrol again to get a new one, and ask them if that is "
    "refused too."
)

Clock = Callable[[], datetime]

_log = logging.getLogger(__name__)


class Authority:
    """The CA of a home. Made by `Authority.open`; the only name of this package that others use."""

    def __init__(
        self,
        home: CaHome,
        inventory: Inventory,
        generations: Generations,
        *,
        clock: Clock,
        hosts: Sequence[str] | None = (),
    ) -> None:
        """Use `Authority.open`."""
        self._home = home
        self._inventory = inventory
        self._generations = generations
        self._clock = clock
        self._hosts = None if hosts is None else host_names([*LOOPBACK_HOSTS, *hosts])
        self._lock = threading.RLock()
        self._arrivals = Arrivals(inventory.state, clock)
        self.revocations = Revocations(inventory.state, inventory.audit, clock)
        """What is withdrawn, and who gets no new certificate. After a change of it call `changed`."""
        self._issuing = Issuing(inventory, generations, self.revocations, self._arrivals, clock)
        self._lists = Lists(self.revocations, clock)
        self._serving: Serving | None = None
        self._served: tuple[int, Rotation] | None = None
        """After how many changes, and in which state of a rotation, `_serving` was made."""
        self._changes = 0
        self._count = threading.Lock()
        """For `_changes`. Never held while anything is waited for: whoever revokes must not wait for a list."""
        self._due = FOREVER
        self._known: dict[bytes, tuple[Identity, datetime]] = {}
        """What certificates say, by fingerprint: see `_recognise`."""

    @classmethod
    def open(
        cls,
        home: Path,
        state: State,
        *,
        clock: Clock = utc_now,
        hosts: Sequence[str] | None = (),
        passphrase: bytes | None = None,
        create: bool = True,
        audit: Audit | None = None,
    ) -> Self:
        """The authority of `home`: made on the first start, and the endpoint's certificate made again when it is due.

        `hosts` are further names under which clients reach the broker; None keeps those of the certificate there is.
        With a passphrase the CA's key is kept encrypted; one that was not is written again. However many processes
        start at once, one CA is made. Without `create` nothing is made or mended, and the CA's key is read only to
        sign. What it does is recorded in `audit`, or in one of its own.
        Raises HomeError for an unsafe or missing file; AuthorityError when the CA cannot be used.
        """
        files.ensure_private_directory(home)
        ca_home = CaHome(home)
        with files.locked(home):
            inventory = Inventory(state, audit or Audit(state, clock))
            generations = Generations.open(ca_home, inventory, clock, passphrase, create=create)
            authority = cls(ca_home, inventory, generations, clock=clock, hosts=hosts)
            if create:
                authority._make_serving()
        return authority

    @staticmethod
    def verify_home(home: Path, *, clock: Clock = utc_now, passphrase: bytes | None = None) -> list[Finding]:
        """What is right and wrong in a home, one that does not open included; changes nothing there."""
        return verify.verify_home(home, clock(), passphrase)

    @property
    def audit(self) -> Audit:
        """Where it records what it does."""
        return self._inventory.audit

    @property
    def generation(self) -> int:
        """The number of the generation that signs at present."""
        return self._generations.rotation.current

    @property
    def certificate(self) -> x509.Certificate:
        """The CA certificate that signs at present."""
        return self._generations.certificate(self.generation)

    @property
    def key_is_encrypted(self) -> bool:
        return keys.is_encrypted(files.read_private(self._home.ca_key(self.generation)))

    @property
    def trust_pem(self) -> bytes:
        """What clients are to trust: the root of each trusted generation as PEM, the newest first."""
        return _pem(map(self._generations.anchor, self.rotation.trusted))

    @property
    def web_trust_pem(self) -> bytes:
        """The same for clients that read no more than the first certificate: the root of what the WebSocket port
        presents now comes first."""
        return _pem(map(self._generations.anchor, filter(None, (self.generation, self.rotation.other))))

    @property
    def chain(self) -> list[x509.Certificate]:
        """The certificate that signs at present, and those above it; the root is the last."""
        return [self.certificate, *self._generations.above(self.generation)]

    @property
    def is_imported(self) -> bool:
        """Whether the CA that signs at present is an operator's own, which cannot be renewed here."""
        return self._home.load_above(self.generation) is not None

    def foreseen(self) -> list[Foreseen]:
        """What the operator must do soon, since it cannot be done here."""
        return foreseen(self.chain, self.is_imported, self._clock())

    def cross_certificate(self) -> x509.Certificate | None:
        """In `switched`: the certificate by the former CA for the root of the present one; None where there is none."""
        return self._generations.cross()

    # --- rotation ----------------------------------------------------------------------------------------------------

    @property
    def rotation(self) -> Rotation:
        """Where the home stands between one generation and the next."""
        return self._generations.rotation

    @property
    def phase(self) -> Phase:
        return self.rotation.phase

    def trusted(self) -> list[x509.Certificate]:
        """The CA certificates whose clients are let in, the newest first."""
        return [self._generations.certificate(number) for number in self.rotation.trusted]

    def prepare(self, issuer: Issuer | None = None) -> Rotation:
        """Make the next generation, or take an operator's own CA for it, and trust it beside the current one.

        This and the other steps raise AuthorityError when the phase has no such step, which then names the right one,
        and HomeError when the disk fails; nothing is changed then. A process that is killed leaves the old phase or
        the new one.
        """
        try:
            self._generations.prepare(issuer)
        finally:
            self.changed()  # it counts even when its files could not be put in their places
        return self._moved()

    def switch(self) -> Rotation:
        """Sign with the next generation, and present it; what the current one signed stays good."""
        self._generations.switch()
        return self._moved()

    def finish(self, without: Collection[Principal] = ()) -> Rotation:
        """Drop the previous generation and destroy its key. Raises AuthorityError naming those who hold only
        certificates of it, unless they are all among `without`."""
        return self._drop(Step.FINISH, without)

    def rollback(self, without: Collection[Principal] = ()) -> Rotation:
        """One step back: from `switched` to `prepared`, which shuts nobody out; from `prepared` to `steady`, which
        drops the next generation as `finish` drops the previous one."""
        return self._drop(Step.ROLLBACK, without)

    def _drop(self, step: Step, without: Collection[Principal]) -> Rotation:
        try:
            self._generations.drop(step, self._arrivals, without)
        finally:
            self.changed()  # it is dropped even when its key, or the disk, could not be dealt with
        return self._moved()

    def _moved(self) -> Rotation:
        self.changed()
        self.serving()
        return self.rotation

    def arrived(self, serial: int, ago: float = 0.0) -> None:
        """The certificate is known to be in the hands of its holder, or was `ago` seconds before now. Cheap, and never
        waits for the disk."""
        self._arrivals.note(serial, ago)

    def close(self) -> None:
        """Write what was noted and is not on the disk yet. Call it before the home is closed."""
        self._arrivals.close()

    def arrived_with(self, database: Connection, serial: int) -> None:
        """As `arrived`, on the disk with the caller's transaction."""
        self._arrivals.write(database, serial)

    def holders(self, generation: int) -> list[Holder]:
        """The clients that would be shut out if this generation were dropped: they have a certificate of it that is
        good and in use, and none of another trusted generation is known to have reached them."""
        return self._generations.holders(generation, self._arrivals)

    # --- certificates ------------------------------------------------------------------------------------------------

    def verify_certificate(self, certificate: x509.Certificate) -> list[Finding]:
        """What is right and wrong with a certificate that claims to be of this CA."""
        ca = {
            number: x509.load_der_x509_certificate(each.certificate) for number, each in self._inventory.roots().items()
        }
        record = self._inventory.by_fingerprint(certificate.fingerprint(hashes.SHA256()))
        return verify.verify_certificate(certificate, ca, self.rotation.trusted, record, self._clock())

    def check_request(self, csr_pem: str | bytes) -> CheckedRequest:
        """The request, if it may be signed. Raises EnrollmentRefused with step, reason and remedy."""
        return requests.check_request(csr_pem)

    def issue(
        self,
        request: CheckedRequest,
        principal: Principal,
        profile: str = CLIENT,
        *,
        renews: int | None = None,
        alongside: Alongside | None = None,
        condition: Guard | None = None,
    ) -> Issued:
        """Sign a checked request for a principal that has been proven. Blocks for the signature and the disk.

        `renews` is the serial number of the certificate whose holder asks for this one: the two count as one holder.
        `alongside` writes what is to be on the disk with the certificate's row and not without it, in one transaction.
        `condition` is asked last of all in that transaction, and may write when it does not raise.

        Raises AuthorityError when the profile is not one for clients, an id is malformed, the request names another
        app, or the certificate to renew is not an active one of this principal; EnrollmentRefused when the principal is
        blocked; what `condition` raises; HomeError when the inventory cannot be written. Then nothing was issued.
        """
        return self._issuing.issue(request, principal, profile, renews=renews, alongside=alongside, condition=condition)

    def same_holder(self, old: Identity, new: Identity) -> bool:
        """Whether `new` is a certificate of the same key as `old`, or a recorded renewal of it (of one of these, ...).

        Both were identified before. Two certificates that were each issued on a proof are of two holders, even where
        both name the same client.
        """
        if old.principal != new.principal:
            return False
        if hmac.compare_digest(old.key_fingerprint, new.key_fingerprint):
            return True
        record = self._inventory.by_serial(new.serial)
        for _ in range(MAX_RENEWALS):
            if record is None or record.renews is None:
                return False
            record = self._inventory.by_serial(record.renews)
            if record is not None and (record.serial == old.serial or record.key_fingerprint == old.key_fingerprint):
                return True
        return False

    def serving(self) -> Serving:
        """What the ports present and accept now. The same object until anything of it changes, then a new one; what has
        come to its time is renewed here.

        Raises HomeError and AuthorityError as `open` does.
        """
        with self._lock:
            if self._served is None or self._served[0] != self._changes or self._clock() >= self._due:
                self._renew_serving()
            assert self._serving is not None
            return self._serving

    @property
    def due(self) -> datetime:
        """When `serving` is to be asked again at the latest, so that nothing it presents grows old. Aware, in UTC."""
        return self._due

    def changed(self) -> None:
        """Something that `serving` is made of is different now: the next call makes it anew. Waits for nothing."""
        self._lists.changed()
        with self._count:
            self._changes += 1

    def revocation_lists(self) -> list[x509.CertificateRevocationList]:
        """The CRLs for other verifiers, one of each trusted generation, the newest first. Needs the CAs' keys."""
        return self._lists.outer(self._issuers())

    def _issuers(self) -> list[Issuer]:
        """Those whose clients are let in, the newest first."""
        return [self._generations.issuer(number) for number in self.rotation.trusted]

    def renew(self, identity: Identity, request: CheckedRequest) -> Issued:
        """A new certificate for a client that is known by the one it holds, for the same key or another.

        Raises AuthorityError when that one may not be renewed (it was revoked, has ended, its CA was dropped, or its
        holder is blocked), or the request names another app; HomeError as `issue` does.
        """
        if not self.rotation.accepts(identity.generation):
            raise AuthorityError(REPLACED)
        if self._clock() > identity.not_after:
            raise AuthorityError(ENDED.format(identity.not_after))
        return self.issue(request, identity.principal, identity.profile, renews=identity.serial)

    def identify(self, certificate_der: bytes) -> Identity:
        """Who holds this certificate, whose chain and key the TLS handshake has verified.

        Raises AuthorityError unless it was issued here, to a client, is active, and now is between its dates.
        """
        fingerprint = hashlib.sha256(certificate_der).digest()
        known = self._known.get(fingerprint)
        if known is None:
            known = self._recognise(fingerprint, certificate_der)
        identity, not_before = known
        status = self._inventory.status(fingerprint)
        if status is None:
            raise AuthorityError(NOT_ISSUED_HERE)
        if status is Status.REVOKED:
            raise AuthorityError(WITHDRAWN)
        if status is not Status.ACTIVE:
            raise AuthorityError(f"The certificate is {status.value}. Enrol again to get a new one.")
        if not self.rotation.accepts(identity.generation):
            raise AuthorityError(REPLACED)
        now = self._clock()
        if now < not_before:
            raise AuthorityError("The certificate is not valid yet. Check the clock of the broker's machine.")
        if now > identity.not_after:
            raise AuthorityError(ENDED.format(identity.not_after))
        self._arrivals.note(identity.serial)
        return identity

    def _recognise(self, fingerprint: bytes, certificate_der: bytes) -> tuple[Identity, datetime]:
        """What a certificate of ours says, and since when it is valid. That never changes, so it is remembered."""
        record = self._inventory.by_fingerprint(fingerprint)
        if record is None:
            raise AuthorityError(NOT_ISSUED_HERE)
        if record.profile not in CLIENT_PROFILES:
            raise AuthorityError("The certificate is not one for clients.")
        principal, generation = read_names(x509.load_der_x509_certificate(certificate_der))
        if (principal, generation) != (record.principal, record.generation):
            raise AuthorityError(
                "The certificate and the inventory name different clients. Run: rsocket-broker ca verify"
            )
        identity = Identity(
            principal, record.profile, record.serial, record.key_fingerprint, generation, record.not_after
        )
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        known = self._known[fingerprint] = identity, record.not_before
        return known

    def certificates(self, app_id: str | None = None) -> list[Record]:
        """The inventory, or one app's part of it, in the order of issue."""
        return self._inventory.records(app_id)

    def counts(self, soon: timedelta) -> list[tuple[str, str, int, int, int]]:
        """The inventory in numbers: profile, status, how many, how many of them are valid now, and how many of these
        end within `soon`."""
        now = self._clock()
        return self._inventory.counts(now, now + soon)

    def record(self, serial: int) -> Record | None:
        """The certificate with this serial number; None when there never was one."""
        return self._inventory.by_serial(serial)

    def _renew_serving(self) -> None:
        """Make `_serving` anew. What is good for some days yet goes on when that fails: the disk may be full."""
        changes, served = self._changes, self._served
        is_due = self._clock() >= self._due
        try:
            if served is not None and served[1] == self.rotation and not is_due:
                self._renew_lists()
            else:
                is_good = served is not None and served[0] == changes
                with files.locked(self._home.root, BRIEFLY_S if is_good else files.LOCK_PATIENCE_S):
                    self._make_serving()
        except BrokerError as error:
            if served is None or served[0] != changes:
                raise
            self._due = self._clock() + RETRY
            _log.error("what is due could not be renewed, and is tried again in a minute: %s", error.public)

    def _renew_lists(self) -> None:
        """After a revocation. Without the lock on the home, which a backup may hold for long: nothing is written."""
        assert self._serving is not None
        changes, rotation = self._changes, self.rotation
        self._serving = attrs.evolve(self._serving, crl_pem=self._lists.inner(self._issuers()))
        self._served = changes, rotation

    def _make_serving(self) -> None:
        """Needs the lock on the home."""
        changes, generations = self._changes, self._generations
        generations.renew_anchor()
        rotation, certificate = self.rotation, self.certificate
        pair = ServerPair.load(self._home, self._inventory, certificate, generations.signer, self._hosts, self._clock())
        above_cross: tuple[x509.Certificate, ...] = ()
        if rotation.previous is not None:
            above_cross = generations.certificate(rotation.previous), *generations.above(rotation.previous)
        chain = server.secure_chain(
            pair.leaf, certificate, generations.above(rotation.current), generations.cross(), above_cross
        )
        key, trust = keys.to_pem(pair.key), _pem(self.trusted())
        self._serving = Serving(
            secure=Credentials(key, _pem(chain), trust),
            web=Credentials(key, _pem((pair.leaf, certificate, *generations.above(rotation.current)[:-1])), trust),
            crl_pem=self._lists.inner(self._issuers()),
        )
        self._served = changes, rotation
        self._due = min(pair.due, generations.due())


def _pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """Certificates one after the other, each once."""
    return b"".join(dict.fromkeys(map(_pem_of, certificates)))


_pem_of = functools.lru_cache(maxsize=16)(certificate_pem)
"""What clients are to trust is asked for with every one of them, and rarely changes."""
