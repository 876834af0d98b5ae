"""The secure endpoint's own certificate: whether the one in the home will do, and until when. Pure."""

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from rsocket_broker.authority.keys import SigningKey


def problem(
    key: SigningKey | None,
    chain: Sequence[x509.Certificate],
    ca: x509.Certificate,
    hosts: Sequence[x509.GeneralName] | None,
    now: datetime,
) -> str | None:
    """Why the endpoint cannot use this key and chain at present; None when it can.

    `hosts` are the names that it must have, in this order; None accepts any.
    """
    if key is None or not chain:
        return "the home held none"
    leaf = chain[0]
    if leaf.public_key() != key.public_key():
        return "the old one belongs to another key"
    if list(chain[1:]) != [ca] or not is_issued_by(leaf, ca):
        return "the old one is not signed by this CA"
    if hosts is not None and _alternative_names(leaf) != list(hosts):
        return "the old one is for other host names"
    if now < leaf.not_valid_before_utc:
        return "the old one is not valid yet"
    return "the old one nears its end" if now >= renewal_date(leaf) else None


def renewal_date(certificate: x509.Certificate) -> datetime:
    """After two thirds of a certificate's life: enough is left for a broker that is started only now and then."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin + (end - begin) * 2 / 3


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether names and signature say that `issuer` signed it; dates and usages are not looked at."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (x509.ExtensionNotFound, ValueError):
        return []
