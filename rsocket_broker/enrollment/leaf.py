"""What a certificate that lies in a container says of itself."""

from datetime import datetime
from typing import TYPE_CHECKING, Self

import attrs
from cryptography import x509

from rsocket_broker.authority.names import read_names

if TYPE_CHECKING:
    from rsocket_broker.authority.issuing import Issued
    from rsocket_broker.enrollment.mediums.base import JournalEntry


@attrs.frozen(slots=True, kw_only=True)
class Leaf:
    """Of a certificate of ours. Dates are aware and in UTC."""

    serial: int
    generation: int
    begins: datetime
    ends: datetime

    @classmethod
    def read(cls, certificate_pem: bytes) -> Self:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        _principal, generation = read_names(certificate)
        return cls(
            serial=certificate.serial_number,
            generation=generation,
            begins=certificate.not_valid_before_utc,
            ends=certificate.not_valid_after_utc,
        )

    @classmethod
    def of(cls, issued: "Issued") -> Self:
        """The same of one that was just signed, without reading it."""
        return cls(serial=issued.serial, generation=issued.generation, begins=issued.not_before, ends=issued.not_after)


def delivered(entry: "JournalEntry") -> Leaf | None:
    """What the certificate says that a deployment brings; None for one of anchors alone."""
    if entry.leaf is not None or not entry.bundle.certificate_pem:
        return entry.leaf
    return Leaf.read(entry.bundle.certificate_pem)
