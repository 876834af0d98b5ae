"""An operator's own CA: whether it can be ours, and what it means for the clients. Pure but for `read_issuer`.

The root stays offline: what is imported is a CA below it (or a root of the operator's own) with its private key.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from rsocket_broker import files
from rsocket_broker.authority import keys
from rsocket_broker.authority.issue import Issuer
from rsocket_broker.authority.keys import SigningKey, key_kind
from rsocket_broker.authority.server import is_issued_by
from rsocket_broker.errors import AuthorityError

MIN_LEFT = timedelta(days=30)
"""A CA that ends sooner is no beginning: the certificates of clients live as long, and end with it."""
YOUNG = timedelta(days=30)
"""How old a certificate may be for Flipper's WebSocket SDK on Android, by its first day."""
MAX_CHAIN = 5
"""Certificates of a chain; every client is sent all but the root in each handshake."""
GOOD_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
"""OpenSSL refuses a CA that was signed with less."""

Kind = TypeVar("Kind", bound=x509.ExtensionType)

_UNDERSTOOD = (
    x509.BasicConstraints,
    x509.KeyUsage,
    x509.ExtendedKeyUsage,
    x509.CertificatePolicies,
    x509.SubjectKeyIdentifier,
    x509.AuthorityKeyIdentifier,
)
"""Extensions that may be critical. Any other critical one may make a client refuse the chain, or limit it."""


@attrs.frozen(slots=True)
class Reach:
    """What an imported CA means for one kind of client: `served` now, and why not, or until when."""

    client: str
    served: bool
    detail: str


def read_issuer(
    certificate: Path, key: Path, chain: Path | None, passphrase: bytes | None, now: datetime, generation: int = 1
) -> Issuer:
    """The operator's CA from its files, checked. `passphrase` opens the key file, if that is encrypted.

    Raises AuthorityError naming the file and what is wrong with it; HomeError for a key that others may read.
    """
    first, *rest = _certificates(certificate)
    rest += [] if chain is None else _certificates(chain)
    pem = files.read_private(key)
    if keys.is_encrypted(pem) and not passphrase:
        raise AuthorityError(f"{key} is encrypted. Name the file that holds its passphrase (--key-passphrase-file).")
    return make_issuer(first, keys.from_pem(pem, str(key), passphrase), rest, now, generation)


def make_issuer(
    certificate: x509.Certificate,
    key: SigningKey,
    others: Sequence[x509.Certificate],
    now: datetime,
    generation: int = 1,
) -> Issuer:
    """The CA, if it can be ours. `others` are certificates of the chain above it in any order.

    Raises AuthorityError for the first thing that would make clients refuse it, or keep us from signing.
    """
    if certificate.public_key() != key.public_key():
        raise AuthorityError(f"The key does not belong to the certificate of {_name(certificate)}.")
    above = _chain(certificate, others)
    for below, each in enumerate((certificate, *above)):
        _check_ca(each, below)
        _check_dates(each, now)
    for each in above:
        if each.not_valid_after_utc < certificate.not_valid_after_utc:
            raise AuthorityError(f"{_name(each)} ends before {_name(certificate)}, which it has signed.")
    return Issuer(generation, certificate, key, above, imported=True)


def reaches(issuer: Issuer, now: datetime) -> list[Reach]:
    """Which kinds of clients such a CA serves; those first that it does not."""
    found = [_android(issuer, now)]
    kind = key_kind(issuer.certificate.public_key())
    if kind.startswith("RSA"):
        found.append(Reach("Flipper's RSocket SDKs", True, "they take a chain of any length"))
    else:
        detail = f"a {kind} key: only RSA is known to be verified by every one of them"
        found.append(Reach("Flipper's RSocket SDKs", False, detail))
    found.append(Reach("Flipper's WebSocket SDKs on iOS and macOS", True, "they do not verify the server"))
    found.append(Reach("RSocket SDKs with a TLS library", True, "they take a chain of any length"))
    return sorted(found, key=lambda reach: reach.served)


def cautions(issuer: Issuer) -> list[str]:
    """What the operator should know, and nothing here can change."""
    again = "import one with a new key below the same root (rsocket-broker ca import): clients keep their anchor"
    if not issuer.above:
        again = "rotate to another (rsocket-broker ca import, or ca rotate prepare)"
    found = [f"It is never renewed here, since it is yours. Before it ends, or clients find it too old, {again}."]
    chain = (issuer.certificate, *issuer.above)
    faults = [fault for each in chain for fault in _strict_faults(each, root=each == issuer.anchor)]
    if faults:
        found.append(f"Strict clients, as those on Python 3.13 and later, refuse it: {'; '.join(faults)}.")
    lengths = [_constraints(each).path_length for each in chain]
    if any(length is not None and length < below + 1 for below, length in enumerate(lengths)):
        found.append(
            "Its path length does not let it certify another CA: it can be replaced by one below the same root only."
        )
    return found


def _strict_faults(certificate: x509.Certificate, *, root: bool) -> list[str]:
    """What RFC 5280 asks of a CA certificate, and only some clients insist on (OpenSSL's X509_V_FLAG_X509_STRICT)."""
    faults = []
    if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).critical:
        faults.append("basic constraints that are not critical")
    if _extension(certificate, x509.KeyUsage) is None:
        faults.append("no key usage")
    if _extension(certificate, x509.SubjectKeyIdentifier) is None:
        faults.append("no subject key identifier")
    if not root and _extension(certificate, x509.AuthorityKeyIdentifier) is None:
        faults.append("no authority key identifier")
    return [f"{_name(certificate)} has {fault}" for fault in faults]


def young_until(issuer: Issuer) -> datetime:
    """Until when Flipper's WebSocket SDK on Android finds it young enough."""
    return issuer.certificate.not_valid_before_utc + YOUNG


def _android(issuer: Issuer, now: datetime) -> Reach:
    client = "Flipper's WebSocket SDK on Android"
    if len(issuer.above) > 1:
        detail = f"it takes exactly two certificates, and this chain has {len(issuer.above) + 1} without the root"
        return Reach(client, False, detail)
    rule = "it takes exactly two certificates, neither with a first day more than 30 days ago"
    until = young_until(issuer)
    if now > until:
        return Reach(client, False, f"{rule}: this one is too old since {until:%Y-%m-%d}")
    return Reach(client, True, f"{rule}: this one will do until {until:%Y-%m-%d}")


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_public(path))
    except ValueError as error:
        raise AuthorityError(f"{path} does not hold certificates in PEM.") from error


def _public(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(files.DEFAULT_LIMIT + 1)
    except OSError as error:
        raise AuthorityError(f"{path} cannot be read: {error.strerror}.") from error
    if len(content) > files.DEFAULT_LIMIT:
        raise AuthorityError(f"{path} is larger than {files.DEFAULT_LIMIT} bytes, so it holds no certificates.")
    return content


def _chain(certificate: x509.Certificate, others: Iterable[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """Those above `certificate`, nearest first, the root last; empty for a root. None of `others` may be left over."""
    left = [each for each in dict.fromkeys(others) if each != certificate]
    above: list[x509.Certificate] = []
    last = certificate
    while not is_issued_by(last, last):
        signer = next((each for each in left if is_issued_by(last, each)), None)
        if signer is None:
            raise AuthorityError(
                f"Nothing among the certificates has signed {_name(last)}. Give the whole chain, the root included "
                "(--chain)."
            )
        left.remove(signer)
        above.append(signer)
        last = signer
    if left:
        raise AuthorityError(f"{_name(left[0])} is not above {_name(certificate)}. Take it out of the chain.")
    if len(above) >= MAX_CHAIN:
        raise AuthorityError(f"The chain has {len(above) + 1} certificates; {MAX_CHAIN} are the most.")
    return tuple(above)


def _check_ca(certificate: x509.Certificate, below: int) -> None:
    """Raises AuthorityError unless it may sign certificates, and lists of revoked ones, with `below` CAs under it."""
    name, constraints = _name(certificate), _constraints(certificate)
    if not constraints.ca:
        raise AuthorityError(f"{name} is no CA: its basic constraints say CA:FALSE, or nothing.")
    if constraints.path_length is not None and constraints.path_length < below:
        raise AuthorityError(f"{name} has the path length {constraints.path_length}, and {below} CAs are below it.")
    if not certificate.subject.rdns:
        raise AuthorityError("One of the certificates has no subject. Clients find a signer by its name.")
    usage = _extension(certificate, x509.KeyUsage)
    if usage is not None and not (usage.key_cert_sign and (usage.crl_sign or below)):
        raise AuthorityError(f"{name} may not sign certificates and CRLs: its key usage must allow both.")
    if _extension(certificate, x509.NameConstraints) is not None:
        raise AuthorityError(f"{name} has name constraints, which app ids and addresses do not fit. Have it without.")
    _check_purposes(certificate)
    if below == 0 and _extension(certificate, x509.SubjectKeyIdentifier) is None:
        raise AuthorityError(f"{name} has no subject key identifier. Have it issued with one.")
    for extension in certificate.extensions:
        if extension.critical and not isinstance(extension.value, _UNDERSTOOD):
            raise AuthorityError(
                f"{name} has the critical extension {extension.oid.dotted_string}, which limits what it may sign, or "
                "makes clients refuse it. Have it issued without."
            )
    _check_strength(certificate)


def _check_purposes(certificate: x509.Certificate) -> None:
    """An extended key usage in a CA limits what is below it."""
    usage = _extension(certificate, x509.ExtendedKeyUsage)
    if usage is None or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage:
        return
    if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= set(usage):
        raise AuthorityError(f"{_name(certificate)} must allow TLS servers and TLS clients in its extended key usage.")


def _check_strength(certificate: x509.Certificate) -> None:
    name = _name(certificate)
    try:
        keys.accept(certificate.public_key())
    except keys.WeakKey as error:
        raise AuthorityError(f"{name} is too weak: {error}.") from error
    if not isinstance(certificate.signature_hash_algorithm, GOOD_HASHES):
        made_with = getattr(certificate.signature_hash_algorithm, "name", "no hash that is known here")
        raise AuthorityError(f"{name} was signed with {made_with}. Have it issued with SHA-256.")


def _check_dates(certificate: x509.Certificate, now: datetime) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        raise AuthorityError(f"{_name(certificate)} is valid from {begin:%Y-%m-%d %H:%M} UTC on. Is the clock right?")
    if end - now < MIN_LEFT:
        raise AuthorityError(f"{_name(certificate)} ends on {end:%Y-%m-%d}, which is too soon to begin with it.")


def _constraints(certificate: x509.Certificate) -> x509.BasicConstraints:
    return _extension(certificate, x509.BasicConstraints) or x509.BasicConstraints(ca=False, path_length=None)


def _extension(certificate: x509.Certificate, kind: type[Kind]) -> Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except ValueError as error:
        raise AuthorityError(f"{_name(certificate)} has extensions that cannot be read.") from error


def _name(certificate: x509.Certificate) -> str:
    return f'"{certificate.subject.rfc4514_string()}"'
