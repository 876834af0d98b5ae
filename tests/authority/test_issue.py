import shutil
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rsocket_broker.authority.home import certificate_pem
from rsocket_broker.authority.issue import Issuer, host_names, issue_cross, issue_leaf, issue_root, renew_root
from rsocket_broker.authority.names import read_names, to_uri
from rsocket_broker.authority.profiles import KEY_USAGES, load_profile
from rsocket_broker.errors import AuthorityError, ConfigurationError
from rsocket_broker.identity import Principal, Proof
from tests.authority.conftest import START, some_key
from tests.authority.operators_ca import make_ca

HOSTS = host_names(["localhost", "127.0.0.1", "::1"])
CLIENT = Principal("org.example.app", "device-1", Proof.FILESYSTEM)
LONG = Principal("a" * 255, "d" * 128, Proof.UPLOAD)


def root(number: int = 1, now: datetime = START) -> Issuer:
    key = some_key("rsa-2048", number)
    return Issuer(number, issue_root(load_profile("root"), key, number, 1000 + number, now), key)


def server(issuer: Issuer, now: datetime = START) -> x509.Certificate:
    return issue_leaf(load_profile("broker"), some_key("rsa-2048", 9).public_key(), HOSTS, issuer, 7, now)


def client(issuer: Issuer, profile: str = "client", principal: Principal = CLIENT) -> x509.Certificate:
    uri = x509.UniformResourceIdentifier(to_uri(principal, issuer.generation))
    key = some_key("p-256", 1).public_key()
    return issue_leaf(load_profile(profile), key, [uri], issuer, 9, START, common_name="org.example.app")


@pytest.mark.row("F-16")
def test_a_root_is_what_every_client_accepts() -> None:
    certificate = root().certificate
    extensions = certificate.extensions
    assert certificate.version is x509.Version.v3
    assert certificate.issuer == certificate.subject
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=None)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature
    identifier = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert identifier.key_identifier == extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert identifier.authority_cert_issuer is None
    assert identifier.authority_cert_serial_number is None
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
    assert certificate.not_valid_before_utc == START - timedelta(days=1)
    assert certificate.not_valid_after_utc > START + timedelta(days=9 * 365)


def test_each_generation_and_each_home_has_a_subject_of_its_own() -> None:
    key = some_key("rsa-2048", 2)
    other_home = issue_root(load_profile("root"), key, 1, 5, START)
    subjects = {root(1).certificate.subject, root(2).certificate.subject, other_home.subject}
    assert len(subjects) == 3


@pytest.mark.row("F-16")
def test_the_certificate_of_the_endpoint() -> None:
    issuer = root()
    certificate = server(issuer)
    certificate.verify_directly_issued_by(issuer.certificate)
    extensions = certificate.extensions
    assert list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == HOSTS
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    identifier = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert identifier.authority_cert_serial_number is None
    assert [each.oid._name for each in extensions if each.critical] == ["basicConstraints", "keyUsage"]


@pytest.mark.row("F-17")
@pytest.mark.parametrize(("profile", "days"), [("client", 30), ("operator", 90)])
@pytest.mark.parametrize("principal", [CLIENT, LONG])
def test_the_certificate_of_a_client(profile: str, days: int, principal: Principal) -> None:
    certificate = client(root(), profile, principal)
    assert certificate.public_key() == some_key("p-256", 1).public_key()
    assert certificate.subject.rfc4514_string() == "CN=org.example.app"
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert read_names(certificate) == (principal, 1)
    assert certificate.not_valid_before_utc == START - timedelta(days=1)
    assert certificate.not_valid_after_utc == START + timedelta(days=days)
    assert not certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_the_same_input_gives_the_same_certificate() -> None:
    issuer = root()
    assert client(issuer) == client(issuer)


@pytest.mark.row("F-17")
@pytest.mark.parametrize("profile", ["client", "operator", "broker"])
def test_a_leaf_is_byte_for_byte_what_the_library_makes_step_by_step(profile: str) -> None:
    issuer, wanted = root(), load_profile(profile)
    key, name = some_key("p-256", 1).public_key(), x509.UniformResourceIdentifier(to_uri(CLIENT, 1))
    common_name = wanted.subject.format(common_name="org.example.app")
    usages = {usage: usage in wanted.key_usage for usage in KEY_USAGES}
    extended = {"server_auth": ExtendedKeyUsageOID.SERVER_AUTH, "client_auth": ExtendedKeyUsageOID.CLIENT_AUTH}
    ca_key_id = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    made = (
        x509.CertificateBuilder()
        .issuer_name(issuer.certificate.subject)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .public_key(key)
        .serial_number(9)
        .not_valid_before(START - wanted.backdate)
        .not_valid_after(START + wanted.validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usages, encipher_only=False, decipher_only=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.ExtendedKeyUsage([extended[each] for each in wanted.extended_key_usage]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_key_id), critical=False)
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .sign(issuer.key, hashes.SHA256())
    )
    assert issue_leaf(wanted, key, [name], issuer, 9, START, common_name="org.example.app") == made


def test_a_leaf_never_outlives_its_issuer() -> None:
    issuer = root()
    end = issuer.certificate.not_valid_after_utc
    assert server(issuer, end - timedelta(days=2)).not_valid_after_utc == end
    with pytest.raises(AuthorityError, match="ended on"):
        server(issuer, end)


def test_a_leaf_is_never_made_from_the_root_profile() -> None:
    with pytest.raises(AuthorityError, match="not one for"):
        issue_leaf(load_profile("root"), some_key().public_key(), [], root(), 1, START)


def test_hosts_become_names_or_addresses_once_each() -> None:
    named = host_names(["Broker.Example.", "10.0.2.2", "fe80::1", "broker.example", "a_b-c.d"])
    assert [str(name.value) for name in named] == ["broker.example", "10.0.2.2", "fe80::1", "a_b-c.d"]
    assert [type(name) for name in named] == [x509.DNSName, x509.IPAddress, x509.IPAddress, x509.DNSName]
    for wrong in ("", "a b", "-a", "a..b", "é.example", "a" * 64, "*.example", "http://a", "x." * 130 + "y"):
        with pytest.raises(ConfigurationError, match="neither a host name nor an address"):
            host_names([wrong])


@pytest.mark.row("F-10")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_verifies_the_chains_strictly(tmp_path: Path) -> None:
    issuer, other = root(), root(2)
    certificates = {
        "ca.crt": issuer.certificate,
        "other.crt": other.certificate,
        "server.crt": server(issuer),
        "client.crt": client(issuer, principal=LONG),
    }
    for name, certificate in certificates.items():
        (tmp_path / name).write_bytes(certificate_pem(certificate))

    def verify(*arguments: str) -> bool:
        command = ["openssl", "verify", "-x509_strict", "-attime", str(int(START.timestamp())), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0

    assert verify("-CAfile", "ca.crt", "-purpose", "sslserver", "-verify_hostname", "localhost", "server.crt")
    assert verify("-CAfile", "ca.crt", "-purpose", "sslserver", "-verify_ip", "::1", "server.crt")
    assert verify("-CAfile", "ca.crt", "-purpose", "sslclient", "client.crt")
    assert not verify("-CAfile", "ca.crt", "-purpose", "sslclient", "server.crt")
    assert not verify("-CAfile", "ca.crt", "-purpose", "sslserver", "client.crt")
    assert not verify("-CAfile", "other.crt", "-purpose", "sslclient", "client.crt")
    assert not verify("-CAfile", "client.crt", "-purpose", "sslserver", "server.crt")


# CA certificates of one key, and of one generation for another


@pytest.mark.row("A-14")
def test_a_renewed_root_verifies_what_the_old_one_did_and_the_other_way_round() -> None:
    old = root(1)
    later = START + timedelta(days=25)
    renewed = renew_root(load_profile("root"), old, 77, later)
    assert (renewed.subject, renewed.public_key()) == (old.certificate.subject, old.certificate.public_key())
    assert renewed.not_valid_before_utc == later - load_profile("root").backdate
    assert renewed.serial_number == 77
    by_old = issue_leaf(load_profile("broker"), some_key("p-256").public_key(), HOSTS, old, 5, later, common_name="x")
    by_old.verify_directly_issued_by(renewed)
    by_new = issue_leaf(
        load_profile("broker"), some_key("p-256").public_key(), HOSTS, attrs.evolve(old, certificate=renewed), 6, later
    )
    by_new.verify_directly_issued_by(old.certificate)


@pytest.mark.row("A-14")
def test_a_cross_certificate_has_the_name_and_key_of_the_one_and_the_signature_of_the_other() -> None:
    old, new = root(1), root(2)
    cross = issue_cross(load_profile("root"), new.certificate, old, 9, START)
    cross.verify_directly_issued_by(old.certificate)
    leaf = issue_leaf(load_profile("broker"), some_key("p-256").public_key(), HOSTS, new, 5, START)
    leaf.verify_directly_issued_by(cross)
    key_id = cross.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert key_id == new.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert cross.not_valid_after_utc <= min(old.certificate.not_valid_after_utc, new.certificate.not_valid_after_utc)


def test_a_ca_that_may_certify_no_other_is_named() -> None:
    top = make_ca("Root", path_length=1)
    below = make_ca("Issuing", top, number=101)
    issuer = Issuer(1, below.certificate, below.key, (top.certificate,), imported=True)
    with pytest.raises(AuthorityError, match=r"CN=Root.*path length is 1"):
        issue_cross(load_profile("root"), root(2).certificate, issuer, 9, START)
    roomy = make_ca("Root", path_length=2)
    issuer = Issuer(1, make_ca("Issuing", roomy, number=101).certificate, below.key, (roomy.certificate,), True)
    issue_cross(load_profile("root"), root(2).certificate, issuer, 9, START)
    with pytest.raises(AuthorityError, match="path length is 2"):
        issue_cross(load_profile("root"), root(2).certificate, issuer, 9, START, below=1)
