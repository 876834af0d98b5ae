"""The proof by a nonce: for one nonce, one request and one key."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.nonce_proof import FILE_NAME, PURPOSE, is_signed, sign, statement

NONCE, CSR = b"n" * 32, "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n"
KEYS = {
    "p-256": ec.generate_private_key(ec.SECP256R1()),
    "p-384": ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "rsa": rsa.generate_private_key(65537, 2048),
}


def pem(key: object) -> bytes:
    return key.private_bytes(  # type: ignore[attr-defined, no-any-return]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.row("D-6")
@pytest.mark.parametrize("kind", KEYS)
def test_a_proof_holds_for_its_key_nonce_and_request_alone(kind: str) -> None:
    key = KEYS[kind]
    proof = sign(pem(key), NONCE, CSR)
    assert is_signed(key.public_key(), NONCE, CSR, proof)
    assert is_signed(key.public_key(), NONCE, CSR.replace("\n", "\r\n"), proof), "line ends may change on the way"
    assert not is_signed(key.public_key(), b"m" * 32, CSR, proof)
    assert not is_signed(key.public_key(), NONCE, CSR.replace("MIIB", "MIIC"), proof)
    for other in KEYS:
        if other != kind:
            assert not is_signed(KEYS[other].public_key(), NONCE, CSR, proof)


@pytest.mark.row("D-6")
@given(st.text(max_size=200))
def test_nothing_else_is_a_proof_and_nothing_breaks(text: str) -> None:
    assert not is_signed(KEYS["p-256"].public_key(), NONCE, CSR, text)


def test_what_is_signed_names_its_purpose_and_has_one_length() -> None:
    assert statement(NONCE, CSR).startswith(PURPOSE + NONCE)
    assert len(statement(NONCE, "")) == len(statement(NONCE, CSR * 100)) == len(PURPOSE) + 64


def test_a_key_that_signs_no_requests_is_refused() -> None:
    with pytest.raises(ValueError, match="signs no requests"):
        sign(pem(x25519.X25519PrivateKey.generate()), NONCE, CSR)


@pytest.mark.parametrize("name", ["nonce-", "nonce-0123456789abcde", "../nonce-0123456789abcdef", "app.csr", "x\n"])
def test_only_our_own_names_are_names_of_nonces(name: str) -> None:
    assert FILE_NAME.fullmatch("nonce-0123456789abcdef") and not FILE_NAME.fullmatch(name)
