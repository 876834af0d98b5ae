"""Certificate revocation lists (RFC 5280, 5): entries in, a signed list out. Pure: time, key and number are handed in.

There are two of each generation. The one for others says when the next is due, so that whoever verifies by it learns
that it is old. The one inside our own TLS contexts is never old: OpenSSL refuses every client of a generation whose
list has ended, or is missing.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from rsocket_broker.authority.issue import Issuer

LIFE = timedelta(days=7)
"""From a list for others to the next: a broker may stand still over a weekend before they refuse everybody."""
KEPT = timedelta(days=7)
"""How long a certificate that has ended stays on the list for others: one list must have shown it after its end, for
verifiers whose clock is late."""
BACKDATE = timedelta(hours=1)
"""Verifiers whose clock is late must not take a list for one of the future."""
NEVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""What RFC 5280 (4.1.2.5) says for "no end"."""

REASONS: dict[str, x509.ReasonFlags] = {
    "key-compromise": x509.ReasonFlags.key_compromise,
    "affiliation-changed": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessation-of-operation": x509.ReasonFlags.cessation_of_operation,
    "privilege-withdrawn": x509.ReasonFlags.privilege_withdrawn,
}
"""Reasons that a list has a code for (RFC 5280, 5.3.1). Any other is between the operator and the app."""


@attrs.frozen(slots=True)
class Entry:
    """One certificate that was withdrawn: its serial number, when (aware, UTC), and why."""

    serial: int
    revoked: datetime
    reason: str | None = None


def issue_crl(issuer: Issuer, entries: Iterable[Entry], now: datetime, number: int) -> x509.CertificateRevocationList:
    """The list for others. `number` must be larger than that of any list before it."""
    return _sign(issuer, entries, now - BACKDATE, now + LIFE, number)


def issue_inner_crl(issuer: Issuer, entries: Iterable[Entry], number: int) -> x509.CertificateRevocationList:
    """The list for our own TLS contexts: good from the first day of its CA certificate, and for ever."""
    return _sign(issuer, entries, issuer.certificate.not_valid_before_utc, NEVER, number)


def to_pem(lists: Sequence[x509.CertificateRevocationList]) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in lists)


def to_der(revoked: x509.CertificateRevocationList) -> bytes:
    return revoked.public_bytes(serialization.Encoding.DER)


def _sign(
    issuer: Issuer, entries: Iterable[Entry], begin: datetime, end: datetime, number: int
) -> x509.CertificateRevocationList:
    # Handed over as one list: `add_revoked_certificate` copies all that came before, each time.
    revoked = [_entry(each) for each in entries]
    builder = x509.CertificateRevocationListBuilder(issuer.certificate.subject, begin, end, [], revoked)
    key_id = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)
    builder = builder.add_extension(authority, critical=False)
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    return builder.sign(issuer.key, hashes.SHA256())


def _entry(entry: Entry) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder(entry.serial, entry.revoked)
    reason = REASONS.get(entry.reason or "")
    if reason is not None:
        builder = builder.add_extension(x509.CRLReason(reason), critical=False)
    return builder.build()
