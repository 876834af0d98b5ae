"""What a client holds: its key, its certificate, the CA that it trusts; and how it asks for them.

The folder layout and its file names are those of Flipper's SDKs, so that one folder serves both kinds of client.
"""

import re
from pathlib import Path
from typing import Self

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rsocket_broker.errors import AuthorityError
from rsocket_broker.files import ensure_private_directory, read_owned, read_private, write_private

CSR_FILE = "app.csr"
KEY_FILE = "privateKey.pem"
CA_FILE = "sonarCA.crt"
CERTIFICATE_FILE = "device.crt"
CONFIG_FILE = "connection_config.json"

FALLBACK_COMMON_NAME = "com.flipper"
"""The common name that stands for an app id too long for one; the driver then finds the true id (SDK behaviour)."""
MAX_COMMON_NAME = 63
"""X.509 allows 64 characters, but the SDKs switch to the fallback at 64, and one rule is simpler than two."""
MAX_APP_ID = 255
APP_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}", re.ASCII)
"""Letters, digits, `_`, `.` and `-`, since ids reach file paths and device shells; never a leading `.` or `-`."""

NONCE_ATTRIBUTE = x509.ObjectIdentifier("1.2.840.113549.1.9.2")
"""unstructuredName of PKCS #9: free text in a request, which every parser accepts and passes over."""
WANTS_NONCE = b"rsocket_broker nonce 1"
"""What stands there in a request that is to be signed only for whoever answers a nonce; see `nonce_proof`."""


@attrs.frozen(slots=True)
class SigningRequest:
    """A new private key (PKCS#8 PEM, not encrypted) and the request, signed with it, for a certificate (PEM)."""

    key_pem: bytes = attrs.field(repr=False)
    csr_pem: bytes

    def save(self, directory: Path) -> None:
        """Write key and request into `directory` (made 0700), the request last: where it is, its key is.

        Raises HomeError when the folder is unsafe or cannot be written.
        """
        ensure_private_directory(directory)
        write_private(directory / KEY_FILE, self.key_pem)
        write_private(directory / CSR_FILE, self.csr_pem)


@attrs.frozen(slots=True)
class Credentials:
    """A private key, the chain that proves it (leaf first) and the only CA certificates to trust; all PEM."""

    key_pem: bytes = attrs.field(repr=False)
    chain_pem: bytes
    trust_pem: bytes

    @classmethod
    def load(cls, directory: Path) -> Self:
        """The credentials in a client's folder.

        Raises HomeError when a file is missing or open to others, AuthorityError when a file is not what its name
        says or the key is not the certificate's.
        """
        key_pem = read_private(directory / KEY_FILE)
        chain_pem = read_owned(directory / CERTIFICATE_FILE)
        trust_pem = read_owned(directory / CA_FILE)
        _certificates(directory / CA_FILE, trust_pem)
        leaf = _certificates(directory / CERTIFICATE_FILE, chain_pem)[0]
        if _public_key(directory / KEY_FILE, key_pem) != leaf.public_key():
            raise AuthorityError(
                f"{directory / CERTIFICATE_FILE} was not issued for the key in {KEY_FILE}. Enrol again to get a pair."
            )
        return cls(key_pem, chain_pem, trust_pem)


def make_signing_request(app_id: str, *, wants_nonce: bool = False) -> SigningRequest:
    """A fresh P-256 key and a request for `app_id`; an id too long for a common name asks as `com.flipper`.

    With `wants_nonce` our broker puts it to that proof wherever it can, also when somebody else sends the request.
    Raises ValueError when `app_id` is not an app id (see APP_ID).
    """
    if not APP_ID.fullmatch(app_id):
        raise ValueError(f"{app_id!r} is not an app id: use letters, digits, '_', '.' and '-'")
    common_name = app_id if len(app_id) <= MAX_COMMON_NAME else FALLBACK_COMMON_NAME
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
    if wants_nonce:
        builder = builder.add_attribute(NONCE_ATTRIBUTE, WANTS_NONCE)
    request = builder.sign(key, hashes.SHA256())
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return SigningRequest(key_pem, request.public_bytes(serialization.Encoding.PEM))


def clean(csr: str | bytes) -> str:
    """A request's text as it is compared: no carriage returns, no white space around it. Bytes are read as Latin-1,
    so that what is not ASCII stays different from everything that is."""
    text = csr.decode("latin-1") if isinstance(csr, bytes) else csr
    return text.replace("\r", "").strip()


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise AuthorityError(f"{path} does not hold a PEM certificate. Enrol again to get one.") from error


def _public_key(path: Path, pem: bytes) -> object:
    try:
        return serialization.load_pem_private_key(pem, password=None).public_key()
    except (ValueError, TypeError) as error:
        raise AuthorityError(f"{path} does not hold a PEM private key without a password. Enrol again.") from error
