"""A CA as an operator brings it: a root that stays offline, and what it has signed."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from rsocket_broker.authority.keys import SigningKey
from tests.authority.conftest import START, some_key

SIGNING = ("key_cert_sign", "crl_sign")
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@attrs.frozen
class OperatorsCa:
    certificate: x509.Certificate
    key: SigningKey


def name(text: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"), x509.NameAttribute(NameOID.COMMON_NAME, text)]
    )


def make_ca(
    title: str,
    above: OperatorsCa | None = None,
    *,
    key: SigningKey | None = None,
    number: int = 100,
    now: datetime = START,
    age: timedelta = timedelta(days=1),
    life: timedelta = timedelta(days=365),
    ca: bool = True,
    path_length: int | None = None,
    usage: Sequence[str] | None = SIGNING,
    key_id: bool = True,
    signer_id: bool = True,
    algorithm: hashes.HashAlgorithm | None = None,
) -> OperatorsCa:
    """A CA certificate with its key: signed by `above`, or by itself."""
    key = key or some_key("rsa-2048", number)
    public: CertificatePublicKeyTypes = key.public_key()
    builder = (
        x509.CertificateBuilder(
            above.certificate.subject if above else name(title), name(title), public, x509.random_serial_number()
        )
        .not_valid_before(now - age)
        .not_valid_after(now - age + life)
        .add_extension(x509.BasicConstraints(ca, path_length), critical=True)
    )
    if usage is not None:
        builder = builder.add_extension(x509.KeyUsage(**{each: each in usage for each in _USAGES}), critical=True)
    if above is not None and signer_id:
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(above.key.public_key())
        builder = builder.add_extension(signer, critical=False)
    if key_id:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    return OperatorsCa(builder.sign((above.key if above else key), algorithm or hashes.SHA256()), key)
