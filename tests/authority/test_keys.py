import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from rsocket_broker.authority import keys
from rsocket_broker.errors import AuthorityError
from tests.authority.conftest import some_key


@pytest.mark.row("A-06")
@pytest.mark.parametrize(
    "key",
    [
        some_key().public_key(),
        some_key("p-256").public_key(),
        some_key("p-384").public_key(),
        ed25519.Ed25519PrivateKey.generate().public_key(),
        rsa.RSAPublicNumbers(65537, (1 << 8191) + 1).public_key(),
    ],
    ids=keys.key_kind,
)
def test_good_keys_are_accepted(key: PublicKeyTypes) -> None:
    assert keys.accept(key) is key


@pytest.mark.row("A-06")
@pytest.mark.parametrize(
    ("key", "why"),
    [
        (rsa.RSAPublicNumbers(65537, (1 << 2046) + 1).public_key(), "2047 bits"),
        (rsa.RSAPublicNumbers(65537, (1 << 8192) + 1).public_key(), "8193 bits"),
        (rsa.RSAPublicNumbers(3, (1 << 2047) + 1).public_key(), "exponent"),
        (rsa.RSAPublicNumbers((1 << 32) + 1, (1 << 2047) + 1).public_key(), "exponent"),
        (ec.generate_private_key(ec.SECP256K1()).public_key(), "secp256k1"),
        (ec.generate_private_key(ec.SECP521R1()).public_key(), "secp521r1"),
    ],
)
def test_weak_and_costly_keys_are_refused(key: PublicKeyTypes, why: str) -> None:
    with pytest.raises(keys.WeakKey, match=why):
        keys.accept(key)


@pytest.mark.row("A-24")
@pytest.mark.parametrize("kind", ["rsa-2048", "p-256", "p-384"])
def test_a_key_survives_pem_with_and_without_a_passphrase(kind: str) -> None:
    key = some_key(kind)
    plain = keys.to_pem(key)
    locked = keys.to_pem(key, b"open sesame")
    assert not keys.is_encrypted(plain)
    assert keys.is_encrypted(locked)
    for pem, passphrase in ((plain, None), (plain, b"unused"), (locked, b"open sesame")):
        assert keys.from_pem(pem, "it", passphrase).private_numbers() == key.private_numbers()
    with pytest.raises(AuthorityError, match="it is encrypted"):
        keys.from_pem(locked, "it")
    with pytest.raises(AuthorityError, match="it does not open with this passphrase"):
        keys.from_pem(locked, "it", b"wrong")


def test_what_is_no_key_is_named() -> None:
    with pytest.raises(AuthorityError, match="/a/file does not hold a private key"):
        keys.from_pem(b"hello", "/a/file")
    with pytest.raises(AuthorityError, match="Ed25519 key, which cannot sign"):
        keys.from_pem(keys.to_pem(ed25519.Ed25519PrivateKey.generate()), "it")


def test_a_key_whose_halves_do_not_fit_is_refused() -> None:
    key = some_key()
    assert isinstance(key, rsa.RSAPrivateKey)
    good = key.private_numbers()
    bad = rsa.RSAPrivateNumbers(
        good.p, good.q, good.d ^ 2, good.dmp1 ^ 2, good.dmq1 ^ 2, good.iqmp, good.public_numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)
    with pytest.raises(AuthorityError, match="it is damaged"):
        keys.from_pem(keys.to_pem(bad), "it")


def test_fingerprints_tell_keys_apart() -> None:
    first, second = some_key("p-256"), some_key("p-256", 1)
    assert keys.key_fingerprint(first.public_key()) == keys.key_fingerprint(first.public_key())
    assert keys.key_fingerprint(first.public_key()) != keys.key_fingerprint(second.public_key())
    assert len(keys.key_fingerprint(first.public_key())) == 64
    assert serialization.load_pem_private_key(keys.to_pem(first), None)
