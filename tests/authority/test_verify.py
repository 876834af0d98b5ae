from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from rsocket_broker.authority import Authority, CheckedRequest
from rsocket_broker.identity import Principal
from rsocket_broker.state import State
from tests.authority.conftest import START, Clock


def problems(home: Path, clock: Clock) -> dict[str, str]:
    return {each.what: each.problem for each in Authority.verify_home(home, clock=clock) if each.problem}


@pytest.fixture
def certificate(authority: Authority, principal: Principal, request_of_app: CheckedRequest) -> x509.Certificate:
    return x509.load_pem_x509_certificate(authority.issue(request_of_app, principal).certificate_pem)


@pytest.mark.row("A-24")
def test_a_sound_home_has_no_problems(home: Path, clock: Clock, certificate: x509.Certificate) -> None:
    assert problems(home, clock) == {}
    assert len(Authority.verify_home(home, clock=clock)) == 10


def test_a_home_that_is_not_there_or_empty_is_said_to_be(tmp_path: Path, clock: Clock) -> None:
    assert "is missing" in problems(tmp_path / "home", clock)[f"folder {tmp_path / 'home'}"]
    assert not (tmp_path / "home").exists()
    (tmp_path / "home").mkdir(mode=0o700)
    found = problems(tmp_path / "home", clock)
    assert "rsocket-broker ca init" in found["CA"]
    assert "state.db is missing" in found["database"]
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.row("A-24")
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("ca", "CA folders"),
        ("ca/1/ca.key", "CA key, generation 1"),
        ("ca/1/ca.crt", "CA certificate, generation 1"),
        ("server/server.key", "server certificate"),
        ("state.db", "database"),
    ],
)
def test_each_loose_mode_is_found(home: Path, clock: Clock, name: str, what: str) -> None:
    (home / name).chmod(0o755 if name == "ca" else 0o644)
    assert "chmod" in problems(home, clock)[what]


def test_more_than_one_fault_is_found_at_once(home: Path, clock: Clock) -> None:
    (home / "ca" / "1" / "ca.key").chmod(0o644)
    (home / "server" / "server.crt").write_bytes(b"damaged")
    found = problems(home, clock)
    assert set(found) == {"CA key, generation 1", "server certificate"}
    assert "the next start of the broker makes it" in found["server certificate"]
    assert [each.what for each in Authority.verify_home(home, clock=clock) if each.mends_itself] == [
        "server certificate"
    ]
    assert (home / "server" / "server.crt").read_bytes() == b"damaged"


def test_a_ca_that_is_gone_or_has_ended_is_found(home: Path, clock: Clock) -> None:
    clock.advance(days=4000)
    assert "valid from 2026-02-28" in problems(home, clock)["CA certificate, generation 1"]
    clock.advance(days=-4000)
    (home / "ca" / "1" / "ca.crt").write_bytes(b"damaged")
    found = problems(home, clock)
    assert "sound CA certificate" in found["CA certificate, generation 1"]
    assert "no sound files" in found["inventory: CA"]


def test_an_encrypted_key_is_opened_only_with_its_passphrase(home: Path, clock: Clock) -> None:
    with State.open(home / "state.db") as state:
        Authority.open(home, state, clock=clock, passphrase=b"open sesame")
    assert problems(home, clock) == {}
    assert all(each.problem is None for each in Authority.verify_home(home, clock=clock, passphrase=b"open sesame"))
    found = [each.problem for each in Authority.verify_home(home, clock=clock, passphrase=b"wrong") if each.problem]
    assert found == [f"{home}/ca/1/ca.key does not open with this passphrase."]


@pytest.mark.parametrize(
    "change",
    [
        "certificate = x'00'",
        "fingerprint = zeroblob(32)",
        "app_id = 'org.example.bank'",
        "proof = 'operator'",
        "serial = 'abc'",
        "generation = 2",
    ],
)
def test_a_row_that_was_changed_is_found(
    home: Path, state: State, clock: Clock, certificate: x509.Certificate, change: str
) -> None:
    with state.transaction() as database:
        database.execute(f"UPDATE certificates SET {change} WHERE app_id IS NOT NULL")
    assert "do not fit" in problems(home, clock)["inventory: certificates"]


def test_a_certificate_of_ours_and_one_that_is_not(
    authority: Authority, state: State, clock: Clock, certificate: x509.Certificate, tmp_path: Path, home: Path
) -> None:
    def found(checked: x509.Certificate, by: Authority = authority) -> dict[str, str]:
        return {each.what: each.problem for each in by.verify_certificate(checked) if each.problem}

    assert found(certificate) == {}
    assert found(authority.certificate) == {}
    with State.open(tmp_path / "other" / "state.db") as other_state:
        other = Authority.open(tmp_path / "other", other_state, clock=clock)
        assert set(found(certificate, other)) == {"inventory", "signature"}
    with state.transaction() as database:
        database.execute("UPDATE certificates SET status = 'superseded', device_id = 'x' WHERE app_id IS NOT NULL")
    assert set(found(certificate)) == {"status", "names"}
    clock.now = START + timedelta(days=30, seconds=1)
    assert set(found(certificate)) == {"status", "names", "dates"}


@pytest.mark.row("D-14")
def test_a_record_that_was_taken_out_of_the_audit_is_found(home: Path, state: State, clock: Clock) -> None:
    with state.transaction() as database:
        database.execute("DELETE FROM audit WHERE number = 1")
    assert problems(home, clock) == {
        "audit": "Record 1 of changes: it is missing. Somebody changed it: see `rsocket-broker audit verify`."
    }
