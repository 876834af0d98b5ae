"""Only what lies in the app's own folder, safe and fitting together, is trusted."""

import contextlib
import datetime
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rsocket_broker.client.folder import EXCHANGE_FILES, AppFolder
from rsocket_broker.credentials import (
    CA_FILE,
    CERTIFICATE_FILE,
    CONFIG_FILE,
    CSR_FILE,
    KEY_FILE,
    make_signing_request,
)
from rsocket_broker.errors import AuthorityError, HomeError
from rsocket_broker.files import write_private
from tests.client.stub_broker import StubAuthority

APP_ID = "org.example.demo"


class Authority:
    """A throwaway CA that does what a broker does to a folder."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "throwaway")])
        self.certificate = self._certificate(self.name, self.key.public_key())

    def _certificate(self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(
            self.name, subject, public_key, x509.random_serial_number(), now, now + datetime.timedelta(days=1)
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def deploy(self, folder: Path, csr_pem: str) -> None:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        key = request.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        for name, content in (
            (CA_FILE, self.certificate),
            (CERTIFICATE_FILE, self._certificate(request.subject, key)),
        ):
            (folder / name).write_bytes(content)
            (folder / name).chmod(0o644)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def folder(tmp_path: Path) -> AppFolder:
    return AppFolder(tmp_path / "app")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_exchange_begins_with_a_private_key_and_a_request_for_the_app(folder: AppFolder) -> None:
    csr = x509.load_pem_x509_csr(folder.begin(APP_ID).encode())
    assert csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == APP_ID
    assert mode(folder.path) == 0o700
    assert mode(folder.path / KEY_FILE) == 0o600
    assert sorted(path.name for path in folder.path.iterdir()) == [CSR_FILE, KEY_FILE]


@pytest.mark.row("A-09")
def test_a_new_exchange_keeps_nothing_of_the_old_one(folder: AppFolder, authority: Authority) -> None:
    first = folder.begin(APP_ID)
    authority.deploy(folder.path, first)
    folder.complete("d1")
    old_key = (folder.path / KEY_FILE).read_bytes()
    (folder.path / "device.p12").write_bytes(b"of another SDK")
    (folder.path / "notes.txt").write_text("the user's own")
    second = folder.begin(APP_ID)
    assert second != first
    assert (folder.path / KEY_FILE).read_bytes() != old_key
    assert sorted(path.name for path in folder.path.iterdir()) == [CSR_FILE, "notes.txt", KEY_FILE]


def test_a_completed_exchange_is_read_back(folder: AppFolder, authority: Authority) -> None:
    csr = folder.begin(APP_ID)
    authority.deploy(folder.path, csr)
    folder.complete("d1")
    enrolled = AppFolder(folder.path).load()
    assert enrolled.device_id == "d1"
    assert enrolled.csr_pem == csr
    assert enrolled.credentials.trust_pem == authority.certificate
    assert mode(folder.path / CONFIG_FILE) == 0o600


@pytest.mark.parametrize("name", [CA_FILE, CERTIFICATE_FILE, KEY_FILE, CSR_FILE, CONFIG_FILE])
@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_half_an_exchange_is_none(folder: AppFolder, authority: Authority, name: str, damage: str) -> None:
    authority.deploy(folder.path, folder.begin(APP_ID))
    folder.complete("d1")
    if damage == "missing":
        (folder.path / name).unlink()
    else:
        (folder.path / name).write_bytes(b"")
    with pytest.raises((HomeError, AuthorityError)):
        folder.load()


@pytest.mark.row("F-23")
@pytest.mark.parametrize("name", [CA_FILE, CERTIFICATE_FILE])
def test_a_certificate_that_lies_elsewhere_is_not_followed(
    folder: AppFolder, authority: Authority, tmp_path: Path, name: str
) -> None:
    authority.deploy(folder.path, folder.begin(APP_ID))
    shared = tmp_path / "shared"
    (folder.path / name).rename(shared)
    (folder.path / name).symlink_to(shared)
    with pytest.raises(HomeError, match="symbolic link"):
        folder.complete("d1")
    assert not (folder.path / CONFIG_FILE).exists()


@pytest.mark.row("F-23")
@pytest.mark.parametrize("name", [CA_FILE, CERTIFICATE_FILE])
def test_a_certificate_that_others_may_change_is_not_trusted(
    folder: AppFolder, authority: Authority, name: str
) -> None:
    authority.deploy(folder.path, folder.begin(APP_ID))
    (folder.path / name).chmod(0o666)
    with pytest.raises(HomeError, match="may change"):
        folder.complete("d1")


def test_a_folder_that_others_may_enter_is_refused(folder: AppFolder) -> None:
    folder.path.mkdir(mode=0o755)
    folder.path.chmod(0o755)
    with pytest.raises(HomeError, match="0755"):
        folder.begin(APP_ID)


@pytest.mark.row("F-23")
def test_a_certificate_for_another_key_is_refused(folder: AppFolder, authority: Authority, tmp_path: Path) -> None:
    folder.begin(APP_ID)
    authority.deploy(folder.path, AppFolder(tmp_path / "other").begin(APP_ID))
    with pytest.raises(AuthorityError, match="was not issued for the key"):
        folder.complete("d1")


def test_a_pair_from_two_authorities_is_refused(folder: AppFolder, authority: Authority) -> None:
    authority.deploy(folder.path, folder.begin(APP_ID))
    (folder.path / CA_FILE).write_bytes(Authority().certificate)
    with pytest.raises(AuthorityError, match="not issued by the authority"):
        folder.complete("d1")


def test_an_exchange_that_was_refused_is_undone(folder: AppFolder, authority: Authority) -> None:
    assert folder.held() == {}
    authority.deploy(folder.path, folder.begin(APP_ID))
    assert folder.held() == {}  # half an exchange is none
    enrolled = folder.complete("host-1")
    held = folder.held()
    folder.begin("org.example.other")
    assert folder.held() == {}
    folder.put_back(held)
    assert folder.load() == enrolled
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.path.iterdir()} == {
        KEY_FILE: 0o600,
        CSR_FILE: 0o600,
        CONFIG_FILE: 0o600,
        CA_FILE: 0o644,
        CERTIFICATE_FILE: 0o644,
    }


@pytest.mark.parametrize("config", [b"{", b"[]", b'{"deviceId":7,"medium":1}', b'{"deviceId":"d","medium":3}', b"{}"])
def test_a_damaged_configuration_means_no_exchange(folder: AppFolder, authority: Authority, config: bytes) -> None:
    authority.deploy(folder.path, folder.begin(APP_ID))
    folder.complete("d1")
    (folder.path / CONFIG_FILE).write_bytes(config)
    with pytest.raises(AuthorityError, match="Enrol again"):
        folder.load()


def test_what_cannot_be_removed_is_named(folder: AppFolder) -> None:
    folder.begin(APP_ID)
    (folder.path / EXCHANGE_FILES[0]).mkdir()
    with pytest.raises(HomeError, match=EXCHANGE_FILES[0]):
        folder.begin(APP_ID)


def test_the_destination_ends_with_a_separator(folder: AppFolder) -> None:
    assert folder.destination == f"{folder.path}/"
    assert folder.path.is_absolute()


@pytest.fixture
def enrolled(folder: AppFolder) -> tuple[AppFolder, StubAuthority, str]:
    old, csr = StubAuthority(), folder.begin(APP_ID)
    old.deploy({"destination": str(folder.path), "csr": csr})
    folder.complete("d1")
    return folder, old, csr


def certificate(authority: StubAuthority, csr: str) -> bytes:
    request = x509.load_pem_x509_csr(csr.encode())
    return authority.issue(request.subject, request.public_key())


@pytest.mark.row("A-18")
def test_a_renewed_certificate_takes_its_place_beside_its_anchors(
    enrolled: tuple[AppFolder, StubAuthority, str],
) -> None:
    folder, old, csr = enrolled
    renewed = certificate(old, csr)
    held = folder.store_renewal(renewed, old.pem)
    assert (held.credentials.chain_pem, held.credentials.trust_pem) == (renewed, old.pem)
    assert held == folder.load()
    assert mode(folder.path / CERTIFICATE_FILE) == mode(folder.path / CA_FILE) == 0o644


@pytest.mark.row("A-14")
def test_anchors_are_taken_only_with_one_that_our_certificate_came_from(
    enrolled: tuple[AppFolder, StubAuthority, str],
) -> None:
    folder, old, _csr = enrolled
    new = StubAuthority()
    both = new.pem + old.pem
    assert folder.store_trust(both).credentials.trust_pem == both
    for bad in (new.pem, b"", b"words", old.pem.replace(b"M", b"N", 3), old.pem * 9):
        with pytest.raises(AuthorityError):
            folder.store_trust(bad)
        assert folder.load().credentials.trust_pem == both


@pytest.mark.row("A-18", "D-1")
def test_what_is_no_certificate_for_our_key_changes_nothing(enrolled: tuple[AppFolder, StubAuthority, str]) -> None:
    folder, old, csr = enrolled
    before, new = folder.load(), StubAuthority()
    other = ec.generate_private_key(ec.SECP256R1())
    leaf = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    for made, trust in (
        (old.issue(leaf, other.public_key()), old.pem),
        (certificate(new, csr), old.pem),
        (certificate(old, csr), new.pem),
        (b"words", old.pem),
        (certificate(old, csr), certificate(old, csr)),
    ):
        with pytest.raises(AuthorityError):
            folder.store_renewal(made, trust)
        assert folder.load() == before


@pytest.mark.row("A-18", "D-7")
@pytest.mark.parametrize("bundle", ["both", "new alone"])
@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_a_crash_between_the_files_leaves_a_pair_to_connect_with(
    enrolled: tuple[AppFolder, StubAuthority, str], monkeypatch: pytest.MonkeyPatch, writes: int, bundle: str
) -> None:
    folder, old, csr = enrolled
    new = StubAuthority()
    trust = new.pem + old.pem if bundle == "both" else new.pem
    left = iter([True] * writes)

    def write(path: Path, content: bytes, mode: int) -> None:
        if not next(left, False):
            raise HomeError("the power went")
        write_private(path, content, mode)

    monkeypatch.setattr("rsocket_broker.client.folder.write_private", write)
    with contextlib.suppress(HomeError):
        folder.store_renewal(certificate(new, csr), trust)
    folder.load()  # it fits together, whichever it is
    monkeypatch.undo()
    held = folder.store_renewal(certificate(new, csr), trust)
    assert held.credentials.trust_pem == trust


# ---- what did not come through files -----------------------------------------------------------------------------


@pytest.mark.row("D-10", "F-9")
def test_a_pair_that_came_over_the_line_takes_the_place_of_everything_at_once(folder: AppFolder) -> None:
    authority, request = StubAuthority(), make_signing_request(APP_ID)
    parsed = x509.load_pem_x509_csr(request.csr_pem)
    issued = authority.issue(parsed.subject, parsed.public_key())
    enrolled = folder.adopt(request, issued, authority.pem, "paired-1", 4)
    assert enrolled == folder.load() and enrolled.device_id == "paired-1"
    assert (folder.path / KEY_FILE).read_bytes() == request.key_pem
    another = make_signing_request(APP_ID)
    for certificate, trust in ((issued, authority.pem), (b"none", authority.pem), (issued, StubAuthority().pem)):
        with pytest.raises(AuthorityError):
            folder.adopt(another, certificate, trust, "paired-2", 4)
        assert folder.load() == enrolled, "it is left as it was"


@pytest.mark.row("D-6")
def test_a_nonce_that_was_left_goes_with_the_next_exchange(folder: AppFolder) -> None:
    folder.begin(APP_ID)
    (folder.path / "nonce-0123456789abcdef").write_text("left over")
    (folder.path / "nonce-of-somebody-else").write_text("not ours")
    folder.begin(APP_ID)
    assert sorted(path.name for path in folder.path.iterdir()) == [CSR_FILE, "nonce-of-somebody-else", KEY_FILE]
