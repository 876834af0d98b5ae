import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from rsocket_broker.authority.home import CaHome, certificate_pem
from rsocket_broker.authority.imported import cautions, make_issuer, reaches, read_issuer, young_until
from rsocket_broker.authority.issue import issue_leaf
from rsocket_broker.authority.keys import to_pem
from rsocket_broker.authority.profiles import BROKER, load_profile
from rsocket_broker.errors import AuthorityError, HomeError
from tests.authority.conftest import START, some_key
from tests.authority.operators_ca import OperatorsCa, make_ca

ROOT = make_ca("Root", number=110, life=timedelta(days=3650), age=timedelta(days=400))
OURS = make_ca("Issuing CA", ROOT, number=111)


def made(ours: OperatorsCa = OURS, *others: OperatorsCa) -> object:
    return make_issuer(ours.certificate, ours.key, [each.certificate for each in others], START)


def test_an_intermediate_is_taken_with_its_root() -> None:
    issuer = make_issuer(OURS.certificate, OURS.key, [ROOT.certificate, OURS.certificate], START, 3)
    assert (issuer.generation, issuer.imported) == (3, True)
    assert issuer.above == (ROOT.certificate,)
    assert issuer.anchor == ROOT.certificate


def test_a_root_of_the_operators_own_is_taken_alone() -> None:
    issuer = make_issuer(ROOT.certificate, ROOT.key, [], START)
    assert (issuer.above, issuer.anchor) == ((), ROOT.certificate)


def test_the_chain_is_put_in_order() -> None:
    middle = make_ca("Middle", ROOT, number=112)
    lowest = make_ca("Lowest", middle, number=113)
    issuer = make_issuer(lowest.certificate, lowest.key, [ROOT.certificate, middle.certificate], START)
    assert issuer.above == (middle.certificate, ROOT.certificate)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"ca": False}, "is no CA"),
        ({"usage": ["digital_signature"]}, "may not sign certificates"),
        ({"usage": ["key_cert_sign"]}, "may not sign certificates and CRLs"),
        ({"key_id": False}, "no subject key identifier"),
        ({"age": timedelta(days=-1)}, "valid from 2026-03-02"),
        ({"age": timedelta(days=340)}, "ends on 2026-03-26, which is too soon"),
        ({"algorithm": hashes.SHA224()}, "signed with sha224"),
        ({"life": timedelta(days=9000)}, "ends before"),
    ],
)
def test_a_ca_that_clients_would_refuse_is_not_taken(options: dict[str, object], why: str) -> None:
    with pytest.raises(AuthorityError, match=why):
        made(make_ca("Ours", ROOT, number=114, **options), ROOT)  # type: ignore[arg-type]


def test_a_path_length_that_forbids_it_is_refused_and_one_that_hinders_is_said() -> None:
    short = make_ca("Short", number=115, path_length=0)
    with pytest.raises(AuthorityError, match="path length 0, and 1 CAs are below"):
        made(make_ca("Ours", short, number=116), short)
    last = make_ca("Last", ROOT, number=117, path_length=0)
    issuer = make_issuer(last.certificate, last.key, [ROOT.certificate], START)
    assert any("below the same root only" in each for each in cautions(issuer))
    free = make_issuer(OURS.certificate, OURS.key, [ROOT.certificate], START)
    assert not any("below the same root only" in each for each in cautions(free))


def test_what_only_strict_clients_refuse_is_said() -> None:
    bare = make_ca("Bare", ROOT, number=120, signer_id=False, usage=None)
    issuer = make_issuer(bare.certificate, bare.key, [ROOT.certificate], START)
    (caution,) = [each for each in cautions(issuer) if "Strict clients" in each]
    assert "no key usage" in caution
    assert "no authority key identifier" in caution
    assert not [each for each in cautions(make_issuer(ROOT.certificate, ROOT.key, [], START)) if "Strict" in each]


@pytest.mark.parametrize(
    ("extension", "critical", "why"),
    [
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False, "TLS clients in its extended key usage"),
        (x509.NameConstraints([x509.DNSName("example")], None), True, "name constraints"),
        (x509.InhibitAnyPolicy(0), True, "critical extension 2.5.29.54"),
    ],
)
def test_what_limits_the_certificates_below_is_refused(extension: x509.ExtensionType, critical: bool, why: str) -> None:
    key = some_key("rsa-2048", 118)
    builder = (
        x509.CertificateBuilder(ROOT.certificate.subject, OURS.certificate.subject, key.public_key(), 7)
        .not_valid_before(START)
        .not_valid_after(START + timedelta(days=300))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(extension, critical=critical)
    )
    certificate = builder.sign(ROOT.key, hashes.SHA256())
    with pytest.raises(AuthorityError, match=why):
        make_issuer(certificate, key, [ROOT.certificate], START)


def test_the_key_and_the_whole_chain_must_fit() -> None:
    with pytest.raises(AuthorityError, match="key does not belong"):
        make_issuer(OURS.certificate, ROOT.key, [ROOT.certificate], START)
    with pytest.raises(AuthorityError, match=r"Nothing among the certificates has signed .*--chain"):
        made(OURS)
    other = make_ca("Other", number=119)
    with pytest.raises(AuthorityError, match=r"Other.* is not above"):
        made(OURS, ROOT, other)


def test_it_says_which_sdks_cannot_take_it_and_why() -> None:
    issuer = make_issuer(OURS.certificate, OURS.key, [ROOT.certificate], START)
    assert [each.client for each in reaches(issuer, START) if not each.served] == []
    assert "until 2026-03-30" in " ".join(each.detail for each in reaches(issuer, START))
    assert young_until(issuer) == START + timedelta(days=29)
    later = reaches(issuer, START + timedelta(days=30))
    assert (later[0].client, later[0].served) == ("Flipper's WebSocket SDK on Android", False)
    assert "too old since 2026-03-30" in later[0].detail
    middle = make_ca("Middle", ROOT, number=112)
    lowest = make_ca("Lowest", middle, number=113)
    deep = make_issuer(lowest.certificate, lowest.key, [ROOT.certificate, middle.certificate], START)
    assert "exactly two certificates, and this chain has 3" in reaches(deep, START)[0].detail
    curve = make_ca("Curve", ROOT, key=some_key("p-256"))
    refused = reaches(make_issuer(curve.certificate, curve.key, [ROOT.certificate], START), START)
    assert [each.client for each in refused if not each.served] == ["Flipper's RSocket SDKs"]
    assert "never renewed here" in cautions(issuer)[0]
    assert "rotate to another" in cautions(make_issuer(ROOT.certificate, ROOT.key, [], START))[0]


def written(folder: Path, passphrase: bytes | None = None) -> tuple[Path, Path, Path]:
    certificate, key, chain = folder / "ca.crt", folder / "ca.key", folder / "chain.crt"
    certificate.write_bytes(certificate_pem(OURS.certificate))
    key.write_bytes(to_pem(OURS.key, passphrase))
    key.chmod(0o600)
    chain.write_bytes(certificate_pem(ROOT.certificate))
    return certificate, key, chain


@pytest.mark.row("A-24")
def test_it_is_read_from_files_and_each_fault_names_its_file(tmp_path: Path) -> None:
    certificate, key, chain = written(tmp_path, b"open sesame")
    with pytest.raises(AuthorityError, match=f"{key} is encrypted.*--key-passphrase-file"):
        read_issuer(certificate, key, chain, None, START)
    with pytest.raises(AuthorityError, match=f"{key} does not open"):
        read_issuer(certificate, key, chain, b"wrong", START)
    assert read_issuer(certificate, key, chain, b"open sesame", START).above == (ROOT.certificate,)
    key.chmod(0o640)
    with pytest.raises(HomeError, match="chmod 600"):
        read_issuer(certificate, key, chain, b"open sesame", START)
    key.chmod(0o600)
    certificate.write_bytes(certificate.read_bytes() + chain.read_bytes())
    assert read_issuer(certificate, key, None, b"open sesame", START).above == (ROOT.certificate,), "a full chain"
    chain.write_text("hello")
    with pytest.raises(AuthorityError, match=f"{chain} does not hold certificates"):
        read_issuer(certificate, key, chain, b"open sesame", START)
    with pytest.raises(AuthorityError, match="cannot be read: No such file"):
        read_issuer(tmp_path / "none", key, chain, None, START)


def test_openssl_verifies_a_leaf_with_the_root_alone(tmp_path: Path, home: Path) -> None:
    issuer = make_issuer(OURS.certificate, OURS.key, [ROOT.certificate], START, 2)
    CaHome(home).add_generation(issuer)
    again = CaHome(home).load_generation(2)
    leaf = issue_leaf(load_profile(BROKER), some_key().public_key(), [x509.DNSName("localhost")], again, 9, START)
    for name, certificate in (("root", issuer.anchor), ("sent", again.certificate), ("leaf", leaf)):
        (tmp_path / name).write_bytes(certificate_pem(certificate))
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-attime", str(int(START.timestamp()))]
    command += ["-CAfile", "root", "-untrusted", "sent", "leaf"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "leaf: OK\n", done.stderr
