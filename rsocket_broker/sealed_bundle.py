"""Certificates on their way over somebody else's service: sealed for the key of the request that they answer.

    {"version": 1, "algorithm": NAME, "key": BASE64, "nonce": BASE64, "data": BASE64}

RSA: `key` is a random AES key under OAEP (SHA-256). P-256 and P-384: `key` is a fresh public point (X9.62), and the AES
key is HKDF-SHA256 of the shared secret, salted with both points. `data` is AES-256-GCM of
`{"deviceId": …, "device.crt": PEM, "sonarCA.crt": PEM}`, bound to the device id and the request.
docs/reference/wire.md has the recipe for other clients.
"""

import base64
import hashlib
import secrets
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from rsocket_broker.credentials import CA_FILE, CERTIFICATE_FILE, clean
from rsocket_broker.errors import AuthorityError, EnrollmentRefused
from rsocket_broker.jsontext import JsonError, dump, parse_object

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

VERSION = 1
RSA_OAEP, ECDH = "RSA-OAEP-SHA256+A256GCM", "ECDH-HKDF-SHA256+A256GCM"
MAX_BUNDLE = 256 * 1024
"""Bytes of a sealed bundle that are looked at: a certificate and eight anchors take some 30 KiB."""
KEY_BYTES, NONCE_BYTES = 32, 12
_PURPOSE: Final = b"rsocket_broker bundle 1\0"


class Unsealed(NamedTuple):
    """What was in a bundle. Both files are PEM."""

    device_id: str
    certificate_pem: bytes
    trust_pem: bytes


def check_key(key: PublicKey) -> None:
    """Raises EnrollmentRefused for a key that nothing can be sealed for."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        raise EnrollmentRefused(
            "signing request",
            "its Ed25519 key can sign, but nothing can be encrypted to it, which this medium needs.",
            "Make the request with an RSA, P-256 or P-384 key.",
        )


def seal(key: PublicKey, csr: str, content: Unsealed) -> bytes:
    """The bundle for the holder of `key`, whose request (PEM) was `csr`. Raises as `check_key`."""
    check_key(key)
    if isinstance(key, rsa.RSAPublicKey):
        algorithm, (wrapped, secret) = RSA_OAEP, _wrap_rsa(key)
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        algorithm, (wrapped, secret) = ECDH, _wrap_curve(key)
    nonce = secrets.token_bytes(NONCE_BYTES)
    plain = dump(
        {
            "deviceId": content.device_id,
            CERTIFICATE_FILE: content.certificate_pem.decode(),
            CA_FILE: content.trust_pem.decode(),
        }
    )
    data = AESGCM(secret).encrypt(nonce, plain, _bound(content.device_id, csr))
    fields = {"key": wrapped, "nonce": nonce, "data": data}
    text = {name: base64.b64encode(value).decode() for name, value in fields.items()}
    return dump({"version": VERSION, "algorithm": algorithm, **text})


def unseal(key_pem: bytes, csr: str, device_id: str, bundle: bytes) -> Unsealed:
    """What was sealed for the request `csr` (PEM) with that private key (PEM), and that device id.

    Raises AuthorityError for anything else, and for a bundle that was tampered with; it does not say which.
    """

    try:
        if len(bundle) > MAX_BUNDLE:
            raise ValueError("too long")
        fields = parse_object(bundle)
        wrapped, nonce, data = (base64.b64decode(_text(fields, name), validate=True) for name in _PARTS)
        if fields.get("version") != VERSION or len(nonce) != NONCE_BYTES:
            raise ValueError("another kind of bundle")
        key = load_pem_private_key(key_pem, None)
        secret = _unwrap(key, _text(fields, "algorithm"), wrapped)
        plain = parse_object(AESGCM(secret).decrypt(nonce, data, _bound(device_id, csr)))
        found = _text(plain, "deviceId"), _text(plain, CERTIFICATE_FILE).encode(), _text(plain, CA_FILE).encode()
    except (ValueError, TypeError, JsonError, InvalidTag) as error:
        raise AuthorityError("What was fetched is no bundle of certificates for this app's request.") from error
    return Unsealed(*found)


_PARTS: Final = ("key", "nonce", "data")


def _text(fields: dict[str, object], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is not text")
    return value


def _bound(device_id: str, csr: str) -> bytes:
    digest = hashlib.sha256(clean(csr).encode("utf-8", "surrogatepass")).digest()
    return _PURPOSE + digest + device_id.encode("utf-8", "surrogatepass")


def _wrap_rsa(key: rsa.RSAPublicKey) -> tuple[bytes, bytes]:
    secret = secrets.token_bytes(KEY_BYTES)
    return key.encrypt(secret, _oaep()), secret


def _wrap_curve(key: ec.EllipticCurvePublicKey) -> tuple[bytes, bytes]:
    fresh = ec.generate_private_key(key.curve)
    point = _point(fresh.public_key())
    return point, _derive(fresh.exchange(ec.ECDH(), key), point + _point(key))


def _unwrap(key: object, algorithm: str, wrapped: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey) and algorithm == RSA_OAEP:
        return key.decrypt(wrapped, _oaep())
    if isinstance(key, ec.EllipticCurvePrivateKey) and algorithm == ECDH:
        theirs = ec.EllipticCurvePublicKey.from_encoded_point(key.curve, wrapped)
        return _derive(key.exchange(ec.ECDH(), theirs), wrapped + _point(key.public_key()))
    raise ValueError("it was made for another kind of key")


def _oaep() -> padding.OAEP:
    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _derive(shared: bytes, points: bytes) -> bytes:
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=points, info=_PURPOSE).derive(shared)
