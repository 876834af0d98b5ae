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
    if hosts is not None and alternative_names(leaf) != list(hosts):
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


def secure_chain(
    leaf: x509.Certificate,
    own: x509.Certificate,
    above: Sequence[x509.Certificate] = (),
    cross: x509.Certificate | None = None,
    above_cross: Sequence[x509.Certificate] = (),
) -> list[x509.Certificate]:
    """What the RSocket port presents, the leaf first.

    `own` is the certificate of the CA that signed the leaf, `above` what is above it, root last. With `cross`, the
    certificate by the CA of before for the root of this one, those verify it too who trust the former root alone;
    `above_cross` is then the chain of the CA of before, if that is no root itself. A root goes out only where it is the
    leaf's own issuer and there is no cross-certificate: whoever trusts it has it, and WebSocket clients count on two.
    """
    below_root = [own, *above[:-1]] if above else []
    if cross is None:
        return [leaf, *(below_root or [own])]
    return [leaf, *below_root, cross, *above_cross[:-1]]


def alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    """Its alternative names; empty for a certificate that has none, or none that can be read."""
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (x509.ExtensionNotFound, ValueError):
        return []
