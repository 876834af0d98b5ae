import datetime
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rsocket_broker import credentials
from rsocket_broker.credentials import Credentials, make_signing_request
from rsocket_broker.errors import AuthorityError, HomeError


def self_signed(key_pem: bytes) -> bytes:
    key = serialization.load_pem_private_key(key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    now = datetime.datetime.now(datetime.UTC)
    certificate = x509.CertificateBuilder(
        x509.Name([]), x509.Name([]), key.public_key(), 1, now, now + datetime.timedelta(days=1)
    ).sign(key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    request = make_signing_request("org.example.app")
    request.save(tmp_path / "app")
    certificate = self_signed(request.key_pem)
    (tmp_path / "app" / "device.crt").write_bytes(certificate)
    (tmp_path / "app" / "sonarCA.crt").write_bytes(certificate)
    return tmp_path / "app"


@pytest.mark.row("F-9")
@pytest.mark.parametrize(
    ("app_id", "common_name"),
    [
        ("org.example.app", "org.example.app"),
        ("a" * 63, "a" * 63),
        ("a" * 64, "com.flipper"),
        ("a" * 255, "com.flipper"),
    ],
)
def test_a_request_is_signed_and_names_the_app(app_id: str, common_name: str) -> None:
    request = make_signing_request(app_id)
    parsed = x509.load_pem_x509_csr(request.csr_pem)
    assert parsed.is_signature_valid
    assert parsed.subject.rfc4514_string() == f"CN={common_name}"
    key = serialization.load_pem_private_key(request.key_pem, None)
    assert key.public_key() == parsed.public_key()
    assert "PRIVATE" not in repr(request)
    assert make_signing_request(app_id).key_pem != request.key_pem


@pytest.mark.parametrize("app_id", ["", ".hidden", "-flag", "a b", "a/b", "é", "a\n", "a" * 256])
def test_what_is_no_app_id_is_not_asked_for(app_id: str) -> None:
    with pytest.raises(ValueError, match="not an app id"):
        make_signing_request(app_id)


def test_a_folder_loads_and_shows_no_key(folder: Path) -> None:
    loaded = Credentials.load(folder)
    assert loaded.key_pem == (folder / credentials.KEY_FILE).read_bytes()
    assert loaded.chain_pem == loaded.trust_pem == (folder / credentials.CA_FILE).read_bytes()
    assert "PRIVATE" not in repr(loaded)
    assert stat.S_IMODE((folder / credentials.KEY_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["privateKey.pem", "device.crt", "sonarCA.crt"])
def test_a_missing_or_foreign_file_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"not PEM")
    with pytest.raises(AuthorityError, match=name):
        Credentials.load(folder)
    (folder / name).unlink()
    with pytest.raises(HomeError, match=f"{name} is missing"):
        Credentials.load(folder)


def test_a_key_of_another_certificate_is_refused(folder: Path) -> None:
    make_signing_request("org.example.app").save(folder)
    with pytest.raises(AuthorityError, match="was not issued for the key"):
        Credentials.load(folder)


def test_a_key_that_others_may_read_is_refused(folder: Path) -> None:
    (folder / "privateKey.pem").chmod(0o644)
    with pytest.raises(HomeError, match="chmod 600"):
        Credentials.load(folder)
