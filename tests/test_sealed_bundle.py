"""Bundles: whoever has the key and the request opens one, and nobody else, nor a changed one."""

import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from rsocket_broker.errors import AuthorityError, EnrollmentRefused
from rsocket_broker.sealed_bundle import MAX_BUNDLE, Unsealed, check_key, seal, unseal

CONTENT = Unsealed("upload-1", b"the certificate", b"the anchors")
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
KEYS: dict[str, Key] = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "p-256": ec.generate_private_key(ec.SECP256R1()),
    "p-384": ec.generate_private_key(ec.SECP384R1()),
}


def pem(key: Key | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def request(key: Key) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "demo")])
    made = x509.CertificateSigningRequestBuilder(name).sign(key, hashes.SHA256())
    return made.public_bytes(Encoding.PEM).decode()


@pytest.mark.row("F-20")
@pytest.mark.parametrize("kind", KEYS)
def test_the_holder_of_the_key_and_the_request_opens_it(kind: str) -> None:
    key, csr = KEYS[kind], request(KEYS[kind])
    bundle = seal(key.public_key(), csr, CONTENT)
    assert b"certificate" not in bundle.replace(b'"certificate', b"")
    assert unseal(pem(key), csr.replace("\n", "\r\n"), "upload-1", bundle) == CONTENT
    assert bundle != seal(key.public_key(), csr, CONTENT), "each has a key of its own"


@pytest.mark.row("F-20")
@pytest.mark.parametrize("kind", KEYS)
def test_nobody_else_opens_it_nor_a_changed_one(kind: str) -> None:
    key, csr = KEYS[kind], request(KEYS[kind])
    bundle = seal(key.public_key(), csr, CONTENT)
    fields = json.loads(bundle)
    changed = [json.dumps({**fields, name: fields[name][:-8] + "AAAAAAA="}).encode() for name in ("key", "data")]
    changed += [b"", b"{}", b"[]", b"\xff", bundle + b" " * MAX_BUNDLE, bundle.replace(b"SHA256", b"SHA1")]
    changed += [json.dumps({**fields, "version": 2}).encode(), json.dumps({**fields, "nonce": "AAAA"}).encode()]
    for damaged in changed:
        with pytest.raises(AuthorityError, match="no bundle"):
            unseal(pem(key), csr, "upload-1", damaged)
    for other_key, other_csr, device in (
        (KEYS["rsa" if kind != "rsa" else "p-256"], csr, "upload-1"),
        (key, csr + "x", "upload-1"),
        (key, csr, "upload-2"),
    ):
        with pytest.raises(AuthorityError):
            unseal(pem(other_key), other_csr, device, bundle)
    with pytest.raises(AuthorityError):
        unseal(pem(ed25519.Ed25519PrivateKey.generate()), csr, "upload-1", bundle)


def test_for_an_ed25519_key_nothing_can_be_sealed() -> None:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    with pytest.raises(EnrollmentRefused, match=r"Ed25519.*RSA, P-256 or P-384"):
        check_key(key)
    with pytest.raises(EnrollmentRefused):
        seal(key, "csr", CONTENT)
