"""The proof that an asker can read its app's container and has the key of its request: what both sides compute.

The broker writes a nonce into the container, under a name that it tells the asker. The asker reads it there and signs
it, together with its request, with the request's own key. docs/reference/wire.md has the recipe for other clients.
"""

import base64
import binascii
import hashlib
import re
from typing import TYPE_CHECKING

from rsocket_broker.credentials import clean

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

LEVEL = 1
"""What an asker that can do this says in its request as `nonce`."""
NONCE_BYTES = 32
FILE_NAME = re.compile(r"nonce-[0-9a-f]{16}", re.ASCII)
"""What the files are called: an asker must not be led to read, and a driver not to touch, any other file."""
MAX_SIGNATURE = 2048
"""Characters of a signature in base64 that are looked at; RSA of 8192 bits needs 1366."""
PURPOSE = b"rsocket_broker nonce 1\0"
"""What is signed begins with it, so that nothing that the key signs for another purpose is a proof."""
PICKUP_PURPOSE = b"rsocket_broker pickup 1\0"
"""The same for fetching a bundle of certificates: what stands in the place of the request is the device id then."""


def statement(nonce: bytes, csr: str, purpose: bytes = PURPOSE) -> bytes:
    """What is signed: for this nonce and this request (PEM, whatever its line ends) alone."""
    request = hashlib.sha256(clean(csr).encode("utf-8", "surrogatepass")).digest()
    return purpose + nonce + request


def sign(key_pem: bytes, nonce: bytes, csr: str, purpose: bytes = PURPOSE) -> str:
    """The proof in base64, by a private key (PEM, not encrypted). Raises ValueError for what is no such key."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key, text = load_pem_private_key(key_pem, None), statement(nonce, csr, purpose)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        signature = key.sign(text)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        signature = key.sign(text, ec.ECDSA(hashes.SHA256()))
    elif isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(text, padding.PKCS1v15(), hashes.SHA256())
    else:
        raise ValueError("a key of this kind signs no requests")
    return base64.b64encode(signature).decode()


def is_signed(key: "PublicKey", nonce: bytes, csr: str, proof: str, purpose: bytes = PURPOSE) -> bool:
    """Whether `proof` is what the holder of the request's key makes of the nonce."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding

    text = statement(nonce, csr, purpose)
    try:
        signature = base64.b64decode(proof, validate=True)
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, text)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(signature, text, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True
