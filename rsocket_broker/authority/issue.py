"""Profile and request in, certificate out. Pure: the time, the serial number and the keys are handed in.

Certificates are X.509 version 3 (RFC 5280), signed with SHA-256. An issuer is named by its subject and key identifier
only, never by its serial number, so that a CA certificate can be renewed under the same key.
"""

import functools
import ipaddress
import re
from collections.abc import Iterable, Sequence
from datetime import datetime

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rsocket_broker.authority import profiles
from rsocket_broker.authority.keys import SigningKey
from rsocket_broker.authority.profiles import Names, Profile
from rsocket_broker.errors import AuthorityError, ConfigurationError

_EXTENDED = {"server_auth": ExtendedKeyUsageOID.SERVER_AUTH, "client_auth": ExtendedKeyUsageOID.CLIENT_AUTH}
_NOT_OFFERED = {"encipher_only": False, "decipher_only": False}
_KEY_ID_DIGITS = 12
_HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*", re.ASCII)


@attrs.frozen(slots=True)
class Issuer:
    """A generation of the authority that can sign: its number, its certificate and the certificate's private key.

    `imported`: the certificate is an operator's own, which cannot be renewed here. `above` are then the certificates
    above it, nearest first and the root last; empty where it is a root itself.
    """

    generation: int
    certificate: x509.Certificate
    key: SigningKey = attrs.field(repr=False)
    above: tuple[x509.Certificate, ...] = ()
    imported: bool = False

    @property
    def anchor(self) -> x509.Certificate:
        """The root that clients are to trust."""
        return self.above[-1] if self.above else self.certificate

    @property
    def between(self) -> tuple[x509.Certificate, ...]:
        """What stands between a certificate that it signs and the root, nearest first; empty where it is the root."""
        return (self.certificate, *self.above[:-1]) if self.above else ()


def issue_root(profile: Profile, key: SigningKey, generation: int, serial: int, now: datetime) -> x509.Certificate:
    """The self-signed certificate of a new generation. Its name holds the number and a part of the key's identifier,
    so that no two generations, of this home or of any other, have the same subject."""
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = _name(profile.subject.format(generation=generation, key_id=key_id.digest.hex()[:_KEY_ID_DIGITS]))
    builder = _start(profile, name, name, key.public_key(), serial, now, now + profile.validity)
    builder = builder.add_extension(_authority_id(key_id), critical=False)
    return builder.sign(key, hashes.SHA256())


def renew_root(profile: Profile, issuer: Issuer, serial: int, now: datetime) -> x509.Certificate:
    """The certificate of a generation that was made here, with new dates: same key, same name. Whoever trusts one of
    the two verifies what is signed by the other."""
    old = issuer.certificate
    builder = _start(profile, old.subject, old.subject, issuer.key.public_key(), serial, now, now + profile.validity)
    builder = builder.add_extension(_authority_id(_key_id(old)), critical=False)
    return builder.sign(issuer.key, hashes.SHA256())


def issue_cross(
    profile: Profile, anchor: x509.Certificate, issuer: Issuer, serial: int, now: datetime, *, below: int = 0
) -> x509.Certificate:
    """A certificate by `issuer` for the name and key of another CA: whoever trusts the issuer alone then verifies what
    that CA signs. `below` is how many CAs there are between that one and what is to be verified.

    Raises AuthorityError when `issuer` may not certify a CA (the path length of an operator's own may forbid it).
    """
    for above, certificate in enumerate((issuer.certificate, *issuer.above)):
        length = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        if length is not None and length < above + 1 + below:
            raise AuthorityError(
                f"{certificate.subject.rfc4514_string()} may not certify another CA: its path length is {length}. "
                "Import a CA below the same root instead (rsocket-broker ca import); then nothing has to be certified."
            )
    end = min(anchor.not_valid_after_utc, issuer.certificate.not_valid_after_utc)
    key = anchor.public_key()
    builder = (
        x509.CertificateBuilder(issuer.certificate.subject, anchor.subject, key, serial)
        .not_valid_before(now - profile.backdate)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(profile), critical=True)
        .add_extension(_key_id(anchor), critical=False)
        .add_extension(_authority_id(_key_id(issuer.certificate)), critical=False)
    )
    return builder.sign(issuer.key, hashes.SHA256())


def issue_leaf(
    profile: Profile,
    public_key: CertificatePublicKeyTypes,
    names: Sequence[x509.GeneralName],
    issuer: Issuer,
    serial: int,
    now: datetime,
    *,
    common_name: str = "",
) -> x509.Certificate:
    """A certificate for `public_key` under `issuer`. It never outlives its issuer.

    Raises AuthorityError when the issuer has ended or the profile is not one for leaves.
    """
    if profile.ca or profile.names is Names.NONE:
        raise AuthorityError(f"Profile {profile.name} is not one for the certificate of a client or a server.")
    issued_by = _issued_by(issuer.certificate)
    end = min(now + profile.validity, issued_by.end)
    if end <= now:
        raise AuthorityError(f"The CA certificate ended on {issued_by.end:%Y-%m-%d}.")
    constraints, key_usage, *extended = _of_profile(profile)
    extensions = [
        constraints,
        key_usage,
        _extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False),
        *extended,
        issued_by.key_id,
        _extension(x509.SubjectAlternativeName(names), critical=False),
    ]
    subject, begin = _name(profile.subject.format(common_name=common_name)), now - profile.backdate
    builder = x509.CertificateBuilder(issued_by.name, subject, public_key, serial, begin, end, extensions)
    return builder.sign(issuer.key, hashes.SHA256())


@attrs.frozen(slots=True)
class _IssuedBy:
    """What every certificate under one issuer says of it, and its end."""

    name: x509.Name
    key_id: x509.Extension[x509.ExtensionType]
    end: datetime


@functools.lru_cache(maxsize=8)
def _issued_by(certificate: x509.Certificate) -> _IssuedBy:
    key_id = _extension(_authority_id(_key_id(certificate)), critical=False)
    return _IssuedBy(certificate.subject, _encoded(key_id), certificate.not_valid_after_utc)


@functools.lru_cache(maxsize=8)
def _of_profile(profile: Profile) -> tuple[x509.Extension[x509.ExtensionType], ...]:
    """What every leaf of a profile has: basic constraints, key usage, and extended key usage if it has one."""
    found = [
        _extension(x509.BasicConstraints(ca=profile.ca, path_length=None), critical=True),
        _extension(_key_usage(profile), critical=True),
    ]
    if profile.extended_key_usage:
        found.append(_extension(_extended_usage(profile), critical=False))
    return tuple(map(_encoded, found))


def _extension(value: x509.ExtensionType, *, critical: bool) -> x509.Extension[x509.ExtensionType]:
    return x509.Extension(value.oid, critical, value)


def _encoded(extension: x509.Extension[x509.ExtensionType]) -> x509.Extension[x509.ExtensionType]:
    """The same extension, which the library need not take apart and encode again for every certificate."""
    value = x509.UnrecognizedExtension(extension.oid, extension.value.public_bytes())
    return x509.Extension(extension.oid, extension.critical, value)


def host_names(hosts: Iterable[str]) -> list[x509.GeneralName]:
    """Hosts as alternative names: addresses as addresses, the rest as DNS names, each once and in the order given.

    Raises ConfigurationError for a text that is neither.
    """
    return [_host_name(host) for host in dict.fromkeys(host.strip().rstrip(".").lower() for host in hosts)]


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not _HOST_NAME.fullmatch(host):
            raise ConfigurationError(f"{host!r} is neither a host name nor an address.") from None
        return x509.DNSName(host)


def _start(
    profile: Profile,
    issuer: x509.Name,
    subject: x509.Name,
    public_key: CertificatePublicKeyTypes,
    serial: int,
    now: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    """What all certificates have in common: names, dates, key, basic constraints, usages, subject key identifier."""
    builder = (
        x509.CertificateBuilder(issuer, subject, public_key, serial)
        .not_valid_before(now - profile.backdate)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=profile.ca, path_length=None), critical=True)
        .add_extension(_key_usage(profile), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )
    if profile.extended_key_usage:
        builder = builder.add_extension(_extended_usage(profile), critical=False)
    return builder


def _extended_usage(profile: Profile) -> x509.ExtendedKeyUsage:
    return x509.ExtendedKeyUsage([_EXTENDED[name] for name in profile.extended_key_usage])


def _key_usage(profile: Profile) -> x509.KeyUsage:
    usages = {name: name in profile.key_usage for name in profiles.KEY_USAGES}
    return x509.KeyUsage(**usages, **_NOT_OFFERED)


def _key_id(certificate: x509.Certificate) -> x509.SubjectKeyIdentifier:
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value


def _authority_id(key_id: x509.SubjectKeyIdentifier) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
