import contextlib
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import example, given
from hypothesis import strategies as st

from rsocket_broker.authority import keys, names
from rsocket_broker.errors import AuthorityError
from rsocket_broker.identity import Principal, Proof
from tests.authority.conftest import START, some_key

URI = "rsocket-broker:client/1/1/adb/device-1/org.example.app"

app_ids = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}", fullmatch=True)
device_ids = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=128)
PROVED = [proof for proof in Proof if proof is not Proof.UNVERIFIED]
principals = st.builds(Principal, app_ids, device_ids, st.sampled_from(PROVED))


@given(principals, st.integers(1, 999_999_999))
@example(Principal("a" * 255, "/%2F?#&" * 10, Proof.OPERATOR), 1)
def test_what_is_written_reads_back(principal: Principal, generation: int) -> None:
    uri = names.to_uri(principal, generation)
    assert uri.isascii()
    assert names.from_uri(uri) == (principal, generation)


@given(st.integers(0, len(URI) - 1), st.characters(max_codepoint=0x7F))
def test_there_is_one_way_to_write_an_identity(position: int, character: str) -> None:
    """Whatever is read is written again as it was: no two URIs are one identity."""
    changed = URI[:position] + character + URI[position + 1 :]
    try:
        principal, generation = names.from_uri(changed)
    except AuthorityError:
        return
    assert names.to_uri(principal, generation) == changed


@given(st.text() | st.text().map(lambda text: f"rsocket-broker:client/1/1/adb/{text}"))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(AuthorityError):
        names.from_uri(text)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "https://example.org/1/1/adb/d/a",
        URI.replace("client/1", "client/2"),
        URI.replace("/1/1/", "/1/0/"),
        URI.replace("/1/1/", "/1/01/"),
        URI.replace("/1/1/", "/1/٣/"),
        URI.replace("adb", "ADB"),
        URI.replace("adb", "root"),
        URI.replace("adb", "unverified"),
        URI.replace("device-1", "%64evice-1"),
        URI.replace("device-1", "a%2fb"),
        URI.replace("device-1", "%00"),
        URI.replace("device-1", "%ff"),
        URI + "/",
        URI + "?x",
        URI.replace("org.example.app", ""),
        URI.replace("org.example.app", ".."),
        URI.upper(),
    ],
)
def test_other_forms_are_refused(uri: str) -> None:
    with pytest.raises(AuthorityError, match="does not name a client"):
        names.from_uri(uri)


@pytest.mark.parametrize(
    "principal",
    [
        Principal("", "d", Proof.ADB),
        Principal("a" * 256, "d", Proof.ADB),
        Principal("-rf", "d", Proof.ADB),
        Principal("a", "d" * 129, Proof.ADB),
        Principal("a", "line\n", Proof.ADB),
        Principal("a", "é", Proof.ADB),
        Principal("a", "d", Proof.UNVERIFIED),
    ],
)
def test_what_cannot_stand_in_a_certificate_is_not_written(principal: Principal) -> None:
    with pytest.raises(AuthorityError):
        names.to_uri(principal, 1)


def certificate(*extensions: x509.ExtensionType) -> x509.Certificate:
    key = some_key("p-256")
    builder = x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key(), 1, START, START + timedelta(1))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256())


CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
SERVER = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


def san(*uris: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])


@pytest.mark.row("A-26")
def test_only_a_client_certificate_with_one_name_is_an_identity() -> None:
    assert names.read_names(certificate(CLIENT, san(URI))) == (Principal("org.example.app", "device-1", Proof.ADB), 1)
    assert keys.key_kind(certificate().public_key()) == "P-256"
    for extensions in (
        (),
        (CLIENT,),
        (san(URI),),
        (SERVER, san(URI)),
        (CLIENT, san(URI, URI)),
        (CLIENT, san()),
        (CLIENT, x509.SubjectAlternativeName([x509.DNSName("org.example.app")])),
        (CLIENT, san(URI + "x/")),
    ):
        with pytest.raises(AuthorityError):
            names.read_names(certificate(*extensions))
