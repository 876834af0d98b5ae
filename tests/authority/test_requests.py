import base64
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.authority.requests import (
    MAX_REQUEST,
    CheckedRequest,
    DerError,
    check_request,
    same_request,
    signed_part,
)
from rsocket_broker.credentials import clean
from rsocket_broker.errors import EnrollmentRefused
from tests.authority.conftest import some_key

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
APP = "org.example.app"


def subject(*common_names: str) -> x509.Name:
    """The subject as Flipper's SDKs write it."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Flipper"),
            *(x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names),
        ]
    )


def request(
    key: Key | None = None, name: x509.Name | None = None, extensions: Sequence[x509.ExtensionType] = ()
) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder(subject(APP) if name is None else name)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    key = key or some_key("p-256")
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def der(csr: x509.CertificateSigningRequest) -> bytes:
    return csr.public_bytes(serialization.Encoding.DER)


def pem(csr: x509.CertificateSigningRequest | bytes) -> str:
    content = csr if isinstance(csr, bytes) else der(csr)
    text = base64.encodebytes(content).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"


def element(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 0x80 else b"\x82" + size.to_bytes(2)
    return bytes([tag]) + length + content


def flipper_request(version: int = 1, common_name: str = APP) -> bytes:
    """A request as the SDKs make it: RSA 2048, SHA-256, and a version number that does not exist, signed as it is."""
    key = some_key()
    assert isinstance(key, rsa.RSAPrivateKey)
    good = request(key, subject(common_name))
    info = good.tbs_certrequest_bytes
    at = info.index(b"\x02\x01\x00")
    info = info[: at + 2] + bytes([version]) + info[at + 3 :]
    signature = key.sign(info, padding.PKCS1v15(), hashes.SHA256())
    after = der(good)[signed_part(der(good))[1] :]
    algorithm = after[: 2 + after[1]]
    return element(0x30, info + algorithm + element(0x03, b"\x00" + signature))


def refusal(csr: str | bytes) -> EnrollmentRefused:
    with pytest.raises(EnrollmentRefused) as caught:
        check_request(csr)
    assert caught.value.step == "signing request"
    assert caught.value.reason.endswith(".")
    assert caught.value.remedy.endswith(".")
    return caught.value


@pytest.mark.row("F-9", "A-06")
@pytest.mark.parametrize(
    "key",
    [some_key(), some_key("rsa-3072"), some_key("p-256"), some_key("p-384"), ed25519.Ed25519PrivateKey.generate()],
    ids=lambda key: type(key).__name__,
)
def test_each_good_kind_of_key_is_accepted(key: Key) -> None:
    checked = check_request(pem(request(key)))
    assert checked.common_name == APP
    assert checked.public_key == key.public_key()


@pytest.mark.row("F-9")
def test_the_request_of_the_sdks_with_version_1_is_accepted(tmp_path: Path) -> None:
    made = flipper_request()
    with pytest.raises(x509.InvalidVersion):
        x509.load_der_x509_csr(made)
    checked = check_request(pem(made))
    assert checked.common_name == APP
    assert checked.public_key == some_key().public_key()
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    (tmp_path / "app.csr").write_text(pem(made))
    shown = subprocess.run(
        ["openssl", "req", "-in", "app.csr", "-verify", "-noout", "-text"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "Version: Unknown (1)" in shown.stdout
    assert "verify OK" in shown.stderr + shown.stdout


@pytest.mark.row("A-06")
def test_version_1_is_signed_as_version_1() -> None:
    """A request that was signed as version 0 and then changed to 1, or the other way, is not signed by its key."""
    for made in (flipper_request(), flipper_request(0)):
        start, _ = signed_part(made)
        at = made.index(b"\x02\x01", start) + 2
        other = made[:at] + bytes([1 - made[at]]) + made[at + 1 :]
        assert "not signed by the key" in refusal(pem(other)).reason
    assert "not a well-formed" in refusal(pem(flipper_request(2))).reason


@pytest.mark.row("A-06")
def test_no_byte_of_a_request_can_be_changed() -> None:
    dice = random.Random(20)
    for made in (flipper_request(), der(request(ed25519.Ed25519PrivateKey.generate()))):
        check_request(pem(made))
        for position in range(len(made)):
            changed = bytearray(made)
            changed[position] ^= dice.randrange(1, 256)
            refusal(pem(bytes(changed)))


@pytest.mark.row("A-06")
def test_the_text_around_a_request_is_cleaned_and_compared() -> None:
    text = pem(request())
    checked = check_request("\r\n  " + text.replace("\n", "\r\n") + "\n\n")
    assert checked.csr_pem == text.strip()
    assert same_request(text.encode(), checked.csr_pem)
    assert same_request(text.replace("\n", "\r\n"), checked.csr_pem)
    assert not same_request(pem(request(some_key("p-256", 1))), checked.csr_pem)
    assert not same_request(b"\xff", checked.csr_pem)
    assert clean(b"\r\n a\r\nb \n") == "a\nb"
    assert check_request(text.replace("BEGIN C", "BEGIN NEW C").replace("END C", "END NEW C")).common_name == APP


def test_two_texts_are_one_request_when_only_line_ends_and_margins_differ() -> None:
    assert same_request("a\r\nb\r\n", "\n a\nb")
    assert not same_request("a\nb", "a\nc")
    assert not same_request("", "\r\n")


@pytest.mark.row("A-06")
@pytest.mark.parametrize(
    ("csr", "why"),
    [
        ("", "empty"),
        (" \r\n", "empty"),
        ("hello", "not a PEM"),
        (b"\x00\xff", "not a PEM"),
        ("é" * 10, "not a PEM"),
        ("x" * (MAX_REQUEST + 1), "larger than"),
        (pem(b"").replace("REQUEST", "").replace("  ", " "), "not a PEM"),
        (pem(request()) * 2, "not a PEM"),
        (pem(request()) + "trailing", "not a PEM"),
        ("leading " + pem(request()), "not a PEM"),
        (pem(b"abc").replace("YWJj", "YWJ"), "base64"),
        (pem(request()).replace("END C", "END NEW C"), "not a PEM"),
        (pem(b"\x30\x00"), "not a well-formed"),
        (pem(b"hello"), "not a well-formed"),
        (pem(der(request()) + b"\x00"), "not a well-formed"),
        (pem(der(request())[:-1]), "not a well-formed"),
    ],
)
def test_what_is_no_request_is_refused(csr: str | bytes, why: str) -> None:
    assert why in refusal(csr).reason


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(content: bytes) -> None:
    refusal(content)
    refusal(pem(content))


@given(st.binary(max_size=60), st.integers(0, 300), st.integers(0, 60))
def test_a_damaged_request_is_refused_and_nothing_else(noise: bytes, at: int, removed: int) -> None:
    good = der(request())
    damaged = good[:at] + noise + good[at + removed :]
    if damaged != good:
        refusal(pem(damaged))


@given(st.binary(max_size=40))
def test_the_signed_part_lies_inside_or_is_refused(content: bytes) -> None:
    try:
        start, end = signed_part(content)
    except DerError:
        return
    assert 0 < start <= end <= len(content)


@given(st.integers(0, 70_000))
def test_the_length_of_the_signed_part_is_read_as_it_is_written(size: int) -> None:
    def encoded(length: int) -> bytes:
        if length < 0x80:
            return bytes([length])
        octets = length.to_bytes((length.bit_length() + 7) // 8)
        return bytes([0x80 | len(octets)]) + octets

    info = b"\x30" + encoded(size) + bytes(size)
    rest = b"\x30\x00\x03\x00"
    whole = b"\x30" + encoded(len(info + rest)) + info + rest
    start, end = signed_part(whole)
    assert whole[start:end] == info


@pytest.mark.parametrize(
    "content",
    [
        b"\x30\x80\x30\x00\x00\x00",  # indefinite length
        b"\x30\x81\x02\x30\x00",  # longer than need be
        b"\x30\x82\x00\x02\x30\x00",
        b"\x30\x85\x00\x00\x00\x00\x02\x30\x00",
        b"\x30\x84\xff\xff\xff\xff\x30\x00",
        b"\x30\x02\x30\x01",  # the inner one ends after the outer one
        b"\x30\x02\x31\x00",
        b"\x30",
        b"\x30\x82",
    ],
)
def test_lengths_that_are_not_der_are_refused(content: bytes) -> None:
    with pytest.raises(DerError):
        signed_part(content)


@pytest.mark.row("A-06")
@pytest.mark.parametrize(
    ("key", "why"),
    [
        (rsa.generate_private_key(65537, 1024), "1024 bits"),
        (ec.generate_private_key(ec.SECP521R1()), "curve secp521r1"),
        (ec.generate_private_key(ec.SECP256K1()), "curve secp256k1"),
    ],
)
def test_a_weak_key_is_refused_with_what_to_use(key: Key, why: str) -> None:
    error = refusal(pem(request(key)))
    assert why in error.reason
    assert "P-256" in error.remedy


@pytest.mark.row("A-06")
def test_a_weak_digest_is_refused() -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    made = subprocess.run(
        ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null", "-sha1", "-subj", "/CN=a"],
        capture_output=True,
        check=True,
    ).stdout
    assert "sha1, which is too weak" in refusal(made).reason


@pytest.mark.row("F-9")
def test_a_request_signed_with_pss_is_accepted() -> None:
    key = some_key()
    assert isinstance(key, rsa.RSAPrivateKey)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    made = x509.CertificateSigningRequestBuilder(subject(APP)).sign(key, hashes.SHA256(), rsa_padding=pss)
    assert check_request(pem(made)).public_key == key.public_key()


@pytest.mark.row("F-28")
def test_a_request_needs_one_common_name() -> None:
    assert "no common name (CN)" in refusal(pem(request(name=subject()))).reason
    assert "more than one common name" in refusal(pem(request(name=subject("a", "b")))).reason
    assert "package or bundle id" in refusal(pem(request(name=x509.Name([])))).remedy


@pytest.mark.row("A-06")
@pytest.mark.parametrize(
    "name", ["a b", "a/b", "../x", ".x", "-x", "a;reboot", "$(id)", "a'b", "é", "a\nb", "a\x00b", "٣"]
)
def test_a_common_name_must_be_an_app_id(name: str) -> None:
    assert "is not an app id" in refusal(pem(request(name=subject(name)))).reason


@pytest.mark.row("A-06")
@pytest.mark.parametrize("name", ["a", "_a", "com.example.my-app_2", "9", "A.b-C", "a" * 64])
def test_ordinary_app_ids_are_accepted(name: str) -> None:
    assert check_request(pem(request(name=subject(name)))).common_name == name


def usage(**wanted: bool) -> x509.KeyUsage:
    flags = dict.fromkeys(
        [
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ],
        False,
    )
    return x509.KeyUsage(**flags | wanted)


@pytest.mark.row("A-06")
@pytest.mark.parametrize("extension", [x509.BasicConstraints(True, None), usage(key_cert_sign=True)])
def test_who_asks_to_be_a_ca_is_refused(extension: x509.ExtensionType) -> None:
    assert "asks to be a certificate authority" in refusal(pem(request(extensions=[extension]))).reason


@pytest.mark.row("A-06")
def test_other_extensions_are_let_by_since_none_is_used() -> None:
    asked = [
        x509.BasicConstraints(False, None),
        usage(digital_signature=True),
        x509.SubjectAlternativeName([x509.DNSName("bank.example")]),
    ]
    checked = check_request(pem(request(extensions=asked)))
    assert isinstance(checked, CheckedRequest)
    assert checked.common_name == APP


@pytest.mark.row("A-06")
def test_extensions_that_cannot_be_read_are_refused() -> None:
    broken = x509.UnrecognizedExtension(x509.BasicConstraints.oid, b"\x30\x03nonsense")
    assert "cannot be read" in refusal(pem(request(extensions=[broken]))).reason
