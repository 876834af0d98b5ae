import threading
from datetime import timedelta
from pathlib import Path
from sqlite3 import Connection

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from rsocket_broker.authority import Authority, CheckedRequest, Issued
from rsocket_broker.authority.requests import check_request
from rsocket_broker.authority.revocation import Selector
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.errors import AuthorityError, EnrollmentRefused
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.state import State
from tests.authority.conftest import START, Clock, some_key
from tests.authority.crash import run_and_kill

CRASH_POINTS = 400
"""More than any work below has; the loop ends when the work does."""


def der(issued: Issued) -> bytes:
    certificate = x509.load_pem_x509_certificate(issued.certificate_pem)
    return certificate.public_bytes(serialization.Encoding.DER)


@pytest.mark.row("F-9", "F-17")
def test_an_issued_certificate_has_the_key_of_the_request(
    authority: Authority, principal: Principal, request_of_app: CheckedRequest
) -> None:
    issued = authority.issue(request_of_app, principal)
    certificate = x509.load_pem_x509_certificate(issued.certificate_pem)
    certificate.verify_directly_issued_by(authority.certificate)
    assert certificate.public_key() == request_of_app.public_key
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert issued.not_after == certificate.not_valid_after_utc == START + timedelta(days=30)
    assert (issued.not_before, issued.generation) == (certificate.not_valid_before_utc, authority.generation)
    record = authority.record(issued.serial)
    assert record is not None
    assert record.principal == principal
    assert record.fingerprint == certificate.fingerprint(hashes.SHA256()).hex()


@pytest.mark.row("A-06")
def test_nothing_but_key_and_name_of_a_request_is_used(authority: Authority, principal: Principal) -> None:
    key = some_key("p-256")
    asked = [
        x509.SubjectAlternativeName([x509.DNSName("localhost")]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
    ]
    name = [
        x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Bank"),
        x509.NameAttribute(x509.NameOID.COMMON_NAME, principal.app_id),
    ]
    builder = x509.CertificateSigningRequestBuilder(x509.Name(name))
    for extension in asked:
        builder = builder.add_extension(extension, critical=False)
    request = check_request(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    certificate = x509.load_pem_x509_certificate(authority.issue(request, principal).certificate_pem)
    assert certificate.subject.rfc4514_string() == f"CN={principal.app_id}"
    extensions = certificate.extensions
    names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    assert [type(each) for each in names] == [x509.UniformResourceIdentifier]
    assert ExtendedKeyUsageOID.SERVER_AUTH not in extensions.get_extension_for_class(x509.ExtendedKeyUsage).value


@pytest.mark.row("M-12")
def test_two_enrolments_give_two_keys_and_two_serials(authority: Authority) -> None:
    issued = []
    for device in ("one", "two"):
        request = check_request(make_signing_request("org.example.app").csr_pem)
        issued.append((request, authority.issue(request, Principal("org.example.app", device, Proof.ADB))))
    (first_request, first), (second_request, second) = issued
    assert first.serial != second.serial
    assert first_request.key_fingerprint != second_request.key_fingerprint
    identities = [authority.identify(der(each)) for each in (first, second)]
    assert [identity.device_id for identity in identities] == ["one", "two"]
    assert {identity.key_fingerprint for identity in identities} == {
        first_request.key_fingerprint,
        second_request.key_fingerprint,
    }


def test_many_threads_issue_at_once_and_no_serial_repeats(
    authority: Authority, principal: Principal, request_of_app: CheckedRequest
) -> None:
    issued: list[Issued] = []

    def work() -> None:
        issued.extend(authority.issue(request_of_app, principal) for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each.serial for each in issued}) == 60
    assert len({each.fingerprint for each in authority.certificates(principal.app_id)}) == 60
    assert all(0 < each.serial < 1 << 159 for each in issued)
    assert sum(each.serial > 1 << 140 for each in issued) == 60, "serials are random, not counted"


def test_what_is_asked_for_must_fit(authority: Authority, principal: Principal, request_of_app: CheckedRequest) -> None:
    for profile in ("root", "broker", "nothing"):
        with pytest.raises(AuthorityError, match="not for clients"):
            authority.issue(request_of_app, principal, profile)
    with pytest.raises(AuthorityError, match=r"for org.example.app, not for org.example.bank"):
        authority.issue(request_of_app, attrs.evolve(principal, app_id="org.example.bank"))
    with pytest.raises(AuthorityError, match="device id"):
        authority.issue(request_of_app, attrs.evolve(principal, device_id="\n"))
    assert authority.certificates(principal.app_id) == []


def test_a_long_app_id_lives_in_the_alternative_name(authority: Authority) -> None:
    app_id = "org.example." + "long" * 30
    request = check_request(make_signing_request(app_id).csr_pem)
    assert request.common_name == "com.flipper"
    issued = authority.issue(request, Principal(app_id, "d", Proof.ADB))
    assert authority.identify(der(issued)).app_id == app_id


@pytest.mark.row("F-9")
def test_a_kill_at_any_step_of_an_issue_hands_out_nothing_that_is_not_recorded(
    home: Path, clock: Clock, principal: Principal, request_of_app: CheckedRequest
) -> None:
    def issue() -> bytes:
        with State.open(home / "state.db") as state:
            issued = Authority.open(home, state, clock=clock).issue(request_of_app, principal)
            state.read("SELECT 1")  # a step between the commit and the answer
            return der(issued)

    recorded = 0
    for step in range(1, CRASH_POINTS):
        killed, handed_out = run_and_kill(issue, home, step)
        with State.open(home / "state.db") as state:
            authority = Authority.open(home, state, clock=clock)
            records = authority.certificates(principal.app_id)
            if handed_out:
                assert authority.identify(handed_out).principal == principal
        assert len(records) - recorded in (0, 1)
        assert not handed_out or len(records) == recorded + 1
        assert len({record.serial for record in records}) == len(records)
        recorded = len(records)
        if not killed:
            break
    assert 10 < step < CRASH_POINTS - 1
    assert handed_out
    assert recorded > 1


def test_only_what_is_active_and_of_the_same_client_is_renewed(
    authority: Authority, principal: Principal, request_of_app: CheckedRequest
) -> None:
    other = authority.issue(request_of_app, attrs.evolve(principal, device_id="another"))
    for serial in (other.serial, 12345):
        with pytest.raises(AuthorityError, match="cannot be renewed"):
            authority.issue(request_of_app, principal, renews=serial)


def test_what_is_written_alongside_is_there_with_the_row_or_not_at_all(
    home: Path, clock: Clock, principal: Principal, request_of_app: CheckedRequest
) -> None:
    def note(issued: Issued, database: Connection) -> None:
        database.execute("INSERT INTO notes VALUES (?)", (f"{issued.serial:x}",))

    def fail(issued: Issued, database: Connection) -> None:
        note(issued, database)
        raise RuntimeError("no")

    with State.open(home / "state.db") as state:
        state.migrate("notes", ("CREATE TABLE notes (serial TEXT)",))
        authority = Authority.open(home, state, clock=clock)
        issued = authority.issue(request_of_app, principal, alongside=note)
        with pytest.raises(RuntimeError):
            authority.issue(request_of_app, principal, alongside=fail)
        assert [row[0] for row in state.read("SELECT serial FROM notes")] == [f"{issued.serial:x}"]
        assert [record.serial for record in authority.certificates(principal.app_id)] == [issued.serial]


@pytest.mark.row("D-3")
def test_who_is_blocked_gets_nothing_signed(
    authority: Authority, request_of_app: CheckedRequest, principal: Principal
) -> None:
    issued = authority.issue(request_of_app, principal)
    identity = authority.identify(der(issued))
    authority.revocations.revoke(Selector.app(principal.app_id), "sold")
    for attempt in (
        lambda: authority.issue(request_of_app, principal),
        lambda: authority.renew(identity, request_of_app),
    ):
        with pytest.raises(EnrollmentRefused, match=r"app org.example.app was revoked .*\(sold\)"):
            attempt()
    assert len(authority.certificates(principal.app_id)) == 1
