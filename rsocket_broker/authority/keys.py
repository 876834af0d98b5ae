"""Key pairs: which kinds are good enough, how they are made, kept as PEM and told apart."""

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

from rsocket_broker.errors import AuthorityError

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
SigningKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
"""Verifying grows with the square of the size; a stranger must not choose how long we work."""
RSA_EXPONENT = 65537
MAX_RSA_EXPONENT = (1 << 32) - 1
"""Odd exponents from 65537 on are sound; a huge one is only a way to make verifying slow."""
CURVES: tuple[type[ec.EllipticCurve], ...] = (ec.SECP256R1, ec.SECP384R1)
MADE_HERE = ("rsa-2048", "rsa-3072", "rsa-4096", "p-256", "p-384")
"""The kinds of key that a profile may ask for."""


class WeakKey(ValueError):
    """A public key that no certificate is issued for; the text says why."""


def make_key(kind: str) -> SigningKey:
    """A new key of one of the kinds MADE_HERE."""
    family, _, size = kind.partition("-")
    if family == "rsa":
        return rsa.generate_private_key(RSA_EXPONENT, int(size))
    return ec.generate_private_key(ec.SECP256R1() if size == "256" else ec.SECP384R1())


def accept(key: PublicKeyTypes) -> PublicKey:
    """`key`, if a certificate may be issued for it: RSA of 2048 to 8192 bits, P-256, P-384 or Ed25519.

    Raises WeakKey otherwise.
    """
    match key:
        case rsa.RSAPublicKey():
            _check_rsa(key)
            return key
        case ec.EllipticCurvePublicKey():
            if not isinstance(key.curve, CURVES):
                raise WeakKey(f"its key is on the curve {key.curve.name}")
            return key
        case ed25519.Ed25519PublicKey():
            return key
        case _:
            raise WeakKey(f"its key is of the kind {type(key).__name__.removesuffix('PublicKey')}")


def _check_rsa(key: rsa.RSAPublicKey) -> None:
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise WeakKey(f"its RSA key has {key.key_size} bits")
    exponent = key.public_numbers().e
    if not RSA_EXPONENT <= exponent <= MAX_RSA_EXPONENT or exponent % 2 == 0:
        raise WeakKey("its RSA key has an unsound exponent")


def key_kind(key: PublicKeyTypes) -> str:
    """How people call this kind of key: `RSA 2048`, `P-256`, `Ed25519`."""
    match key:
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size}"
        case ec.EllipticCurvePublicKey():
            return f"P-{key.curve.key_size}"
        case _:
            return type(key).__name__.removesuffix("PublicKey")


def key_fingerprint(key: PublicKeyTypes) -> str:
    """SHA-256 of the SubjectPublicKeyInfo, in hex: the same for every certificate of one key."""
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def to_pem(key: PrivateKeyTypes, passphrase: bytes | None = None) -> bytes:
    """`key` as PKCS#8 PEM, encrypted (PBES2, AES-256-CBC) when there is a passphrase."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def is_encrypted(pem: bytes) -> bool:
    """Whether a private key in PEM needs a passphrase (PKCS#8, or the older PKCS#1 header)."""
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in pem or b"Proc-Type: 4,ENCRYPTED" in pem


def from_pem(pem: bytes, where: str, passphrase: bytes | None = None) -> SigningKey:
    """The signing key in `pem`; the passphrase is used only when the PEM is encrypted.

    Raises AuthorityError naming `where` when the passphrase is missing or wrong, or it is no RSA or P-curve key.
    """
    encrypted = is_encrypted(pem)
    if encrypted and not passphrase:
        raise AuthorityError(f"{where} is encrypted. Name the file that holds its passphrase (--passphrase-file).")
    try:
        # OpenSSL's own check tests the primes of an RSA key: 50 ms at every start. A signature tells us the same.
        key = serialization.load_pem_private_key(
            pem, passphrase if encrypted else None, unsafe_skip_rsa_key_validation=True
        )
    except (ValueError, TypeError) as error:
        if encrypted:
            raise AuthorityError(f"{where} does not open with this passphrase.") from error
        raise AuthorityError(f"{where} does not hold a private key in PEM. Restore it from a backup.") from error
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise AuthorityError(f"{where} holds a {key_kind(key.public_key())} key, which cannot sign certificates here.")
    if not _signs(key):
        raise AuthorityError(f"{where} is damaged: it makes signatures that do not verify. Restore it from a backup.")
    return key


def _signs(key: SigningKey) -> bool:
    """Whether a signature by this key verifies with the public key that it claims."""
    message = b"a key that was read from a file"
    try:
        if isinstance(key, rsa.RSAPrivateKey):
            signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
            key.public_key().verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        else:
            signature = key.sign(message, ec.ECDSA(hashes.SHA256()))
            key.public_key().verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True
