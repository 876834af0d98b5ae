"""How a checked request becomes a certificate that may be handed out: signed, recorded, and only then given away."""

import functools
from collections.abc import Callable
from datetime import datetime
from sqlite3 import Connection

import attrs
from cryptography import x509

from rsocket_broker import credentials
from rsocket_broker.authority.arrivals import Arrivals
from rsocket_broker.authority.generations import Generations
from rsocket_broker.authority.home import certificate_pem
from rsocket_broker.authority.inventory import Guard, Inventory, Status, make_record
from rsocket_broker.authority.issue import issue_leaf
from rsocket_broker.authority.names import to_uri
from rsocket_broker.authority.profiles import CLIENT_PROFILES, load_profile
from rsocket_broker.authority.requests import CheckedRequest
from rsocket_broker.authority.revocation import Revocations
from rsocket_broker.errors import AuthorityError
from rsocket_broker.identity import Principal


@attrs.frozen(slots=True)
class Issued:
    """A certificate that may be handed out: its row is on the disk. Dates are aware and in UTC.

    `certificate_pem` has it first, then what stands between it and the root where our CA is below an operator's root:
    the holder can then tell by the root alone that it is a good one. `generation` is the CA's that signed it.
    """

    serial: int
    certificate_pem: bytes
    not_after: datetime
    not_before: datetime
    generation: int


Alongside = Callable[[Issued, Connection], object]
"""Writes what is to be on the disk with a certificate's row, in its transaction."""


@attrs.frozen(slots=True)
class Issuing:
    """The certificates of clients of one home. May be called from any thread; holds no lock while it signs."""

    inventory: Inventory
    generations: Generations
    revocations: Revocations
    arrivals: Arrivals
    clock: Callable[[], datetime]

    def issue(
        self,
        request: CheckedRequest,
        principal: Principal,
        profile: str,
        *,
        renews: int | None,
        alongside: Alongside | None,
        condition: Guard | None,
    ) -> Issued:
        """See `Authority.issue`."""
        if profile not in CLIENT_PROFILES:
            raise AuthorityError(f"Profile {profile!r} is not for clients. Choose one of {', '.join(CLIENT_PROFILES)}.")
        if request.common_name not in (principal.app_id, credentials.FALLBACK_COMMON_NAME):
            raise AuthorityError(f"The request is for {request.common_name}, not for {principal.app_id}.")
        now, issuer = self.clock(), self.generations.signer()
        uri = to_uri(principal, issuer.generation)  # which checks the principal
        if (block := self.revocations.blocked(principal)) is not None:
            raise block.refusal()
        if renews is not None:
            self._check_renewal(renews, principal)
        certificate = issue_leaf(
            load_profile(profile),
            request.public_key,
            [x509.UniformResourceIdentifier(uri)],
            issuer,
            x509.random_serial_number(),
            now,
            common_name=request.common_name,
        )
        record = make_record(certificate, profile, issuer.generation, now, principal, renews)
        issued = Issued(
            serial=record.serial,
            certificate_pem=b"".join(map(certificate_pem, (certificate, *issuer.between))),
            not_after=record.not_after,
            not_before=record.not_before,
            generation=record.generation,
        )
        self.inventory.add(
            record,
            None if alongside is None else functools.partial(alongside, issued),
            self.revocations.guard(principal, renews, self.generations.guard(issuer.generation, condition)),
        )
        self.arrivals.forget_recent()
        return issued

    def _check_renewal(self, serial: int, principal: Principal) -> None:
        record = self.inventory.by_serial(serial)
        if record is None or record.principal != principal or record.status is not Status.ACTIVE:
            raise AuthorityError(f"{serial:x} is not an active certificate of {principal}, so it cannot be renewed.")
