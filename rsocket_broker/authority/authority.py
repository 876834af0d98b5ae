"""The certificate authority of one home: makes itself, signs what was checked, remembers it, and says who a peer is.

It may be called from any thread. Signing holds no lock; only the commit of a row is shared, and that in batches.
"""

import functools
import hashlib
import hmac
import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from sqlite3 import Connection
from typing import Self

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from rsocket_broker import credentials, files
from rsocket_broker.audit import Audit
from rsocket_broker.authority import keys, requests, server, verify
from rsocket_broker.authority.arrivals import Arrivals
from rsocket_broker.authority.holders import Holder, find_holders
from rsocket_broker.authority.home import CaHome, certificate_pem
from rsocket_broker.authority.inventory import Guard, Inventory, Record, Status, make_record
from rsocket_broker.authority.issue import Issuer, host_names, issue_leaf, issue_root
from rsocket_broker.authority.lists import Lists
from rsocket_broker.authority.names import check_principal, read_names, to_uri
from rsocket_broker.authority.profiles import BROKER, CLIENT, CLIENT_PROFILES, ROOT, load_profile
from rsocket_broker.authority.requests import CheckedRequest
from rsocket_broker.authority.revocation import Revocations
from rsocket_broker.authority.rotation import Phase, Rotation
from rsocket_broker.authority.serving import Serving
from rsocket_broker.authority.verify import Finding
from rsocket_broker.credentials import Credentials
from rsocket_broker.errors import AuthorityError
from rsocket_broker.identity import Identity, Principal
from rsocket_broker.state import State

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
"""What clients on this machine, and on devices behind a reverse forward, call the broker."""
FIRST_GENERATION = 1
MAX_RENEWALS = 32
"""Renewals between the certificate that opened a session and the one that resumes it. A session counts by the newest
that it was resumed with, so even one is rare."""

MAX_KNOWN = 4096
"""Certificates that are remembered once they were read, half a kilobyte each. Whether one is good is always asked."""
NOT_ISSUED_HERE = "This broker did not issue the certificate. Enrol again to get one."
WITHDRAWN = (
    "The certificate was revoked by whoever runs this broker. Enrol again to get a new one, and ask them if that is "
    "refused too."
)

Clock = Callable[[], datetime]

_log = logging.getLogger(__name__)


@attrs.frozen(slots=True)
class Issued:
    """A certificate that may be handed out: its row is on the disk. `not_after` is aware and in UTC."""

    serial: int
    certificate_pem: bytes
    not_after: datetime


def utc_now() -> datetime:
    return datetime.now(UTC)


class Authority:
    """The CA of a home. Made by `Authority.open`; the only name of this package that others use."""

    def __init__(
        self,
        home: CaHome,
        inventory: Inventory,
        generation: int,
        *,
        clock: Clock,
        hosts: Sequence[str] = (),
        passphrase: bytes | None = None,
        issuer: Issuer | None = None,
    ) -> None:
        """Use `Authority.open`. Without `issuer` the key is read at the first signature."""
        self.generation = generation
        self._home = home
        self._inventory = inventory
        self._clock = clock
        self._hosts = host_names([*LOOPBACK_HOSTS, *hosts])
        self._passphrase = passphrase
        self._issuer = issuer
        self._certificate = issuer.certificate if issuer else home.load_ca_certificate(generation)
        self._lock = threading.RLock()
        self._arrivals = Arrivals(inventory.state, clock)
        self.revocations = Revocations(inventory.state, inventory.audit, clock)
        """What is withdrawn, and who gets no new certificate. After a change of it call `changed`."""
        self._lists = Lists(self.revocations, clock)
        self._serving: Serving | None = None
        self._server: tuple[Credentials, datetime] | None = None
        self._known: dict[bytes, tuple[Identity, datetime]] = {}
        """What certificates say, by fingerprint: see `_recognise`."""

    @classmethod
    def open(
        cls,
        home: Path,
        state: State,
        *,
        clock: Clock = utc_now,
        hosts: Sequence[str] = (),
        passphrase: bytes | None = None,
        create: bool = True,
        audit: Audit | None = None,
    ) -> Self:
        """The authority of `home`: made on the first start, and the endpoint's certificate made again when it is due.

        `hosts` are further names under which clients reach the broker. With a passphrase the CA's key is kept
        encrypted; one that was not is written again. However many processes start at once, one CA is made.
        Without `create` nothing is made or mended, and the CA's key is read only to sign. What it does is recorded in
        `audit`, or in one of its own.
        Raises HomeError for an unsafe or missing file; AuthorityError when the CA cannot be used.
        """
        files.ensure_private_directory(home)
        ca_home = CaHome(home)
        with files.locked(home):
            inventory = Inventory(state, audit or Audit(state, clock))
            if not create:
                ca_home.settle()
                return cls(ca_home, inventory, _existing(ca_home, inventory), clock=clock, passphrase=passphrase)
            ca_home.prepare()
            issuer = _load_or_make(ca_home, inventory, clock(), passphrase)
            authority = cls(ca_home, inventory, issuer.generation, clock=clock, hosts=hosts, issuer=issuer)
            authority._load_or_renew_server()
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
    def certificate(self) -> x509.Certificate:
        """The CA certificate that signs at present."""
        return self._certificate

    @property
    def key_is_encrypted(self) -> bool:
        return keys.is_encrypted(files.read_private(self._home.ca_key(self.generation)))

    @property
    def trust_pem(self) -> bytes:
        """What clients are to trust: the CA certificate as PEM."""
        return certificate_pem(self._certificate)

    @property
    def rotation(self) -> Rotation:
        """Where the home stands between one generation and the next."""
        return Rotation(Phase.STEADY, self.generation, self._certificate.not_valid_before_utc)

    @property
    def phase(self) -> Phase:
        return self.rotation.phase

    def trusted(self) -> list[x509.Certificate]:
        """The CA certificates whose clients are let in, the newest first."""
        return [self._certificate]

    @property
    def web_trust_pem(self) -> bytes:
        """The same for clients that read no more than the first certificate: the CA that the WebSocket port presents
        now comes first."""
        return self.trust_pem

    def verify_certificate(self, certificate: x509.Certificate) -> list[Finding]:
        """What is right and wrong with a certificate that claims to be of this CA."""
        ca = {number: self._home.load_ca_certificate(number) for number in self._home.generations()}
        record = self._inventory.by_fingerprint(certificate.fingerprint(hashes.SHA256()))
        return verify.verify_certificate(certificate, ca, record, self._clock())

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
        alongside: Callable[[Issued, Connection], object] | None = None,
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
        if profile not in CLIENT_PROFILES:
            raise AuthorityError(f"Profile {profile!r} is not for clients. Choose one of {', '.join(CLIENT_PROFILES)}.")
        check_principal(principal)
        if request.common_name not in (principal.app_id, credentials.FALLBACK_COMMON_NAME):
            raise AuthorityError(f"The request is for {request.common_name}, not for {principal.app_id}.")
        if (block := self.revocations.blocked(principal)) is not None:
            raise block.refusal()
        if renews is not None:
            self._check_renewal(renews, principal)
        now = self._clock()
        certificate = issue_leaf(
            load_profile(profile),
            request.public_key,
            [x509.UniformResourceIdentifier(to_uri(principal, self.generation))],
            self._signer(),
            x509.random_serial_number(),
            now,
            common_name=request.common_name,
        )
        issued = Issued(certificate.serial_number, certificate_pem(certificate), certificate.not_valid_after_utc)
        self._inventory.add(
            make_record(certificate, profile, self.generation, now, principal, renews),
            None if alongside is None else functools.partial(alongside, issued),
            self.revocations.guard(principal, renews, condition),
        )
        return issued

    def _check_renewal(self, serial: int, principal: Principal) -> None:
        record = self._inventory.by_serial(serial)
        if record is None or record.principal != principal or record.status is not Status.ACTIVE:
            raise AuthorityError(f"{serial:x} is not an active certificate of {principal}, so it cannot be renewed.")

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

    def server_credentials(self) -> Credentials:
        """The endpoint's key and chain (leaf, CA). The same object until the certificate is due, then a new one.

        Raises HomeError and AuthorityError as `open` does.
        """
        with self._lock:
            if self._server is None or self._clock() >= self._server[1]:
                with files.locked(self._home.root):
                    self._load_or_renew_server()
            assert self._server is not None
            return self._server[0]

    def serving(self) -> Serving:
        """What the ports present and accept now. The same object until anything of it changes, then a new one.

        Raises HomeError and AuthorityError as `open` does.
        """
        with self._lock:
            server = self.server_credentials()
            if self._serving is None or self._serving.web is not server:
                self._serving = Serving(server, server, self._lists.inner(self._issuers()))
            return self._serving

    def changed(self) -> None:
        """Something that `serving` is made of is different now: the next call makes it anew."""
        self._lists.changed()
        with self._lock:
            self._serving = None

    def revocation_lists(self) -> list[x509.CertificateRevocationList]:
        """The CRLs for other verifiers, one of each trusted generation, the newest first. Needs the CAs' keys."""
        return self._lists.outer(self._issuers())

    def _issuers(self) -> list[Issuer]:
        """Those whose clients are let in, the newest first."""
        return [self._signer()]

    def arrived(self, serial: int) -> None:
        """The certificate is known to be in the hands of its holder. Cheap, and never waits for the disk."""
        self._arrivals.note(serial)

    def holders(self, generation: int) -> list[Holder]:
        """The clients that would be shut out if this generation were dropped: they have a certificate of it that is
        good and in use, and none of another trusted generation is known to have reached them."""
        others = set(self.rotation.trusted) - {generation}
        return find_holders(self._inventory.records(), self._arrivals.all(), generation, others, self._clock())

    def renew(self, identity: Identity, request: CheckedRequest) -> Issued:
        """A new certificate for a client that is known by the one it holds, for the same key or another.

        Raises AuthorityError when that one may not be renewed (it was revoked, or its holder is blocked), or the
        request names another app; HomeError as `issue` does.
        """
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
        now = self._clock()
        if now < not_before:
            raise AuthorityError("The certificate is not valid yet. Check the clock of the broker's machine.")
        if now > identity.not_after:
            raise AuthorityError(
                f"The certificate ended on {identity.not_after:%Y-%m-%d}. Enrol again to get a new one."
            )
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

    def _signer(self) -> Issuer:
        """The key that signs, with its certificate."""
        if self._issuer is None:
            with self._lock:
                self._issuer = self._issuer or self._home.load_generation(self.generation, self._passphrase)
        return self._issuer

    def _load_or_renew_server(self) -> None:
        """Set `_server` from the home, after making a new certificate if the one there will not do. Needs the lock."""
        key, chain = self._home.load_server_key(), self._home.load_server_chain()
        reason = server.problem(key, chain, self._certificate, self._hosts, self._clock())
        if reason is not None:
            key, chain = self._renew_server(key)
            _log.info("made a new certificate for the endpoint: %s", reason)
        assert key is not None
        chain_pem = b"".join(map(certificate_pem, chain))
        self._server = Credentials(keys.to_pem(key), chain_pem, self.trust_pem), server.renewal_date(chain[0])

    def _renew_server(self, key: keys.SigningKey | None) -> tuple[keys.SigningKey, list[x509.Certificate]]:
        """A new certificate, for the key there is if there is one. The key is written first: a crash in between leaves
        a pair that does not fit, which the next start makes again."""
        profile, now = load_profile(BROKER), self._clock()
        if key is None:
            assert profile.key is not None
            key = keys.make_key(profile.key)
            self._home.save_server_key(key)
        serial = x509.random_serial_number()
        leaf = issue_leaf(profile, key.public_key(), self._hosts, self._signer(), serial, now)
        self._inventory.add_server(make_record(leaf, BROKER, self.generation, now))
        chain = [leaf, self._certificate]
        self._home.save_server_chain(chain)
        return key, chain


def _existing(home: CaHome, inventory: Inventory) -> int:
    """The newest generation of the home. Raises AuthorityError when there is none, or one that was is missing."""
    present, known = home.generations(), inventory.roots()
    for generation in sorted(known.keys() - present):
        raise AuthorityError(
            f"{home.ca_key(generation)} is missing, though the inventory knows generation {generation}. Restore the "
            f"folder {home.ca / str(generation)} from a backup, or move all of {home.root} away to begin anew."
        )
    if not present:
        raise AuthorityError(f"There is no certificate authority in {home.root}. Make one: rsocket-broker ca init")
    return present[-1]


def _load_or_make(home: CaHome, inventory: Inventory, now: datetime, passphrase: bytes | None) -> Issuer:
    """The newest generation of the home, made if there never was one."""
    known = inventory.roots()
    if not known and not home.generations():
        issuer = _make_generation(now)
        home.add_generation(issuer, passphrase)
    else:
        issuer = home.load_generation(_existing(home, inventory), passphrase)
        if passphrase:
            home.encrypt_keys(passphrase)
    _check_generation(home, inventory, issuer, known.get(issuer.generation), now)
    return issuer


def _make_generation(now: datetime) -> Issuer:
    profile = load_profile(ROOT)
    assert profile.key is not None
    key = keys.make_key(profile.key)
    certificate = issue_root(profile, key, FIRST_GENERATION, x509.random_serial_number(), now)
    return Issuer(FIRST_GENERATION, certificate, key)


def _check_generation(home: CaHome, inventory: Inventory, issuer: Issuer, known: Record | None, now: datetime) -> None:
    """The files must be those that the inventory knows. A broker killed between the files and the row left no row."""
    if known is None:
        inventory.add(make_record(issuer.certificate, ROOT, issuer.generation, now))
    elif known.serial != issuer.certificate.serial_number:
        raise AuthorityError(
            f"{home.ca_certificate(issuer.generation)} is not the certificate that the inventory knows. "
            "Restore the whole home from one backup."
        )
    if issuer.certificate.not_valid_after_utc <= now:
        raise AuthorityError(
            f"The CA certificate in {home.ca / str(issuer.generation)} ended on "
            f"{issuer.certificate.not_valid_after_utc:%Y-%m-%d}. Check this machine's clock; if it is right, move the "
            "home away and enrol every app anew."
        )
