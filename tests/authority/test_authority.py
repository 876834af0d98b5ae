import logging
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rsocket_broker import files
from rsocket_broker.authority import Authority, CheckedRequest, Issued, Status, keys
from rsocket_broker.authority.issue import Issuer
from rsocket_broker.authority.revocation import Selector
from rsocket_broker.authority.serving import Serving
from rsocket_broker.errors import AuthorityError, HomeError
from rsocket_broker.identity import Identity, Principal, Proof
from rsocket_broker.state import State
from tests.authority.conftest import Clock, some_key
from tests.authority.crash import run_and_kill

CRASH_POINTS = 400
"""More than any work below has; the loops end when the work does."""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def der(issued: Issued) -> bytes:
    certificate = x509.load_pem_x509_certificate(issued.certificate_pem)
    return certificate.public_bytes(serialization.Encoding.DER)


def reopened(home: Path, clock: Clock, **options: object) -> Authority:
    with State.open(home / "state.db") as state:
        return Authority.open(home, state, clock=clock, **options)  # type: ignore[arg-type]


@pytest.fixture
def ready_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key pairs that were made before: making them is not what these tests look at, and takes a tenth of a second."""
    monkeypatch.setattr(keys, "make_key", some_key)


# The first start


@pytest.mark.row("F-11", "A-24")
def test_two_starts_give_one_key_and_every_file_is_private(home: Path, clock: Clock) -> None:
    before = {path: path.read_bytes() for path in home.rglob("*.*") if "state" not in path.name}
    first = reopened(home, clock)
    second = reopened(home, clock)
    assert first.certificate == second.certificate
    assert {path: path.read_bytes() for path in before} == before
    assert {str(path.relative_to(home)) for path in before} == {
        "ca/1/ca.key",
        "ca/1/ca.crt",
        "server/server.key",
        "server/server.crt",
    }
    for path in (home, *home.rglob("*")):
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.row("A-25")
def test_processes_that_start_at_once_make_one_ca(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from rsocket_broker.authority import Authority; from rsocket_broker.state import State\n"
        "home = Path(sys.argv[1]); sys.stdin.readline()\n"
        "state = State.open(home / 'state.db'); authority = Authority.open(home, state)\n"
        "print(authority.certificate.serial_number, hash(authority.serving().web.chain_pem), flush=True)\n"
        "state.close()"
    )
    home = tmp_path / "new" / "home"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONHASHSEED": "1"},
        )
        for _ in range(4)
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * 4
    assert len(set(answers)) == 1
    with State.open(home / "state.db") as state:
        profiles = [record.profile for record in Authority.open(home, state).certificates()]
    assert sorted(profiles) == ["broker", "root"]


@pytest.mark.row("F-11")
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("ready_keys")
def test_a_kill_at_any_step_of_the_first_start_leaves_a_home_that_starts(tmp_path: Path, clock: Clock) -> None:
    def start() -> bytes:
        with State.open(home / "state.db") as state:
            return Authority.open(home, state, clock=clock).trust_pem

    for step in range(1, CRASH_POINTS):
        home = tmp_path / str(step) / "home"
        killed, _ = run_and_kill(start, home, step)
        made = home / "ca" / "1" / "ca.crt"
        before = made.read_bytes() if made.exists() else None
        assert (home / "ca" / "1" / "ca.key").exists() == made.exists(), "a generation is whole or not there"
        again = start()
        assert before in (None, again), "a CA that was made once is kept"
        assert start() == again
        assert [each for each in Authority.verify_home(home, clock=clock) if each.problem] == []
        assert [path.name for path in home.rglob(".*")] == [], "no leftovers"
        with State.open(home / "state.db") as state:
            records = Authority.open(home, state, clock=clock).certificates()
        assert sum(record.profile == "root" for record in records) == 1
        assert sum(record.profile == "broker" and record.status is Status.ACTIVE for record in records) == 1
        shutil.rmtree(home.parent)
        if not killed:
            break
    assert 40 < step < CRASH_POINTS - 1


@pytest.mark.row("A-24")
@pytest.mark.parametrize(
    "name",
    ["", "ca", "ca/1", "ca/1/ca.key", "ca/1/ca.crt", "server", "server/server.key", "server/server.crt", "state.db"],
)
def test_a_looser_mode_stops_the_start(home: Path, clock: Clock, name: str) -> None:
    path = home / name
    good = mode(path)
    path.chmod(good | 0o040)
    with pytest.raises(HomeError, match=rf"{path} has mode {good | 0o40:04o}.*chmod {good:o}"):
        reopened(home, clock)
    path.chmod(good)
    reopened(home, clock)


@pytest.mark.row("A-24")
def test_a_key_can_be_kept_encrypted(
    home: Path, clock: Clock, principal: Principal, request_of_app: CheckedRequest
) -> None:
    key = home / "ca" / "1" / "ca.key"
    plain = reopened(home, clock)
    assert not plain.key_is_encrypted
    encrypted = reopened(home, clock, passphrase=b"open sesame")
    assert encrypted.key_is_encrypted
    assert b"ENCRYPTED" in key.read_bytes()
    assert mode(key) == 0o600
    assert encrypted.certificate == plain.certificate
    with pytest.raises(AuthorityError, match=r"ca\.key is encrypted"):
        reopened(home, clock)
    with pytest.raises(AuthorityError, match="does not open with this passphrase"):
        reopened(home, clock, passphrase=b"wrong")
    with State.open(home / "state.db") as state:
        authority = Authority.open(home, state, clock=clock, passphrase=b"open sesame")
        assert authority.identify(der(authority.issue(request_of_app, principal))).principal == principal


@pytest.mark.row("A-24")
@pytest.mark.usefixtures("ready_keys")
def test_a_new_key_never_touches_the_disk_in_the_clear(tmp_path: Path, clock: Clock) -> None:
    home = tmp_path / "home"
    authority = reopened(home, clock, passphrase=b"open sesame")
    assert authority.key_is_encrypted
    assert authority.trust_pem == reopened(home, clock, passphrase=b"open sesame").trust_pem


# Homes that are damaged


def test_a_lost_ca_is_never_replaced_in_silence(home: Path, clock: Clock) -> None:
    shutil.rmtree(home / "ca")
    with pytest.raises(AuthorityError, match=r"ca/1/ca.key is missing.*Restore"):
        reopened(home, clock)
    assert list((home / "ca").iterdir()) == []


def test_a_ca_of_another_home_is_noticed(home: Path, clock: Clock, tmp_path: Path) -> None:
    other = tmp_path / "other"
    reopened(other, clock)
    shutil.rmtree(home / "ca")
    shutil.copytree(other / "ca", home / "ca")
    with pytest.raises(AuthorityError, match="not the certificate that the inventory knows"):
        reopened(home, clock)
    shutil.copy(home / "ca" / "1" / "ca.key", tmp_path / "key")
    key = keys.to_pem(some_key())
    (home / "ca" / "1" / "ca.key").write_bytes(key)
    with pytest.raises(AuthorityError, match="does not belong to"):
        reopened(home, clock)


@pytest.mark.parametrize(
    ("name", "why"), [("ca.key", "does not hold a private key"), ("ca.crt", "a sound CA certificate")]
)
def test_a_damaged_ca_file_is_named(home: Path, clock: Clock, name: str, why: str) -> None:
    path = home / "ca" / "1" / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(AuthorityError, match=f"{path} .*{why}.*backup"):
        reopened(home, clock)


def test_a_lost_inventory_is_begun_again_with_the_same_ca(home: Path, clock: Clock, authority: Authority) -> None:
    for path in home.glob("state.db*"):
        path.unlink()
    again = reopened(home, clock)
    assert again.certificate == authority.certificate


def test_a_ca_that_has_ended_is_not_used(home: Path, clock: Clock) -> None:
    clock.advance(days=3651)
    with pytest.raises(AuthorityError, match=r"ended on .* clock"):
        reopened(home, clock)


def test_without_create_nothing_is_made(tmp_path: Path, home: Path, clock: Clock) -> None:
    with pytest.raises(AuthorityError, match="Make one: rsocket-broker ca init"):
        reopened(tmp_path / "empty", clock, create=False)
    assert not (tmp_path / "empty" / "ca").exists()
    (home / "server" / "server.crt").unlink()
    (home / "ca" / "1" / "ca.key").chmod(0o644)
    assert reopened(home, clock, create=False).generation == 1
    assert not (home / "server" / "server.crt").exists()


# The endpoint's certificate


@pytest.mark.row("F-16", "F-10")
def test_the_endpoint_has_a_leaf_and_the_ca(authority: Authority) -> None:
    own = authority.serving().web
    leaf, ca = x509.load_pem_x509_certificates(own.chain_pem)
    leaf.verify_directly_issued_by(ca)
    assert own.trust_pem == authority.trust_pem
    assert ca == authority.certificate
    key = serialization.load_pem_private_key(own.key_pem, None)
    assert key.public_key() == leaf.public_key()
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["localhost", "127.0.0.1", "::1"]
    assert authority.serving().web is own


@pytest.mark.row("F-16")
def test_it_is_made_again_while_the_broker_runs_and_at_a_start(home: Path, state: State, clock: Clock) -> None:
    authority = Authority.open(home, state, clock=clock)
    first = authority.serving().web
    clock.advance(days=19)
    assert authority.serving().web is first
    clock.advance(days=2)
    second = authority.serving().web
    assert second.chain_pem != first.chain_pem
    assert second.key_pem == first.key_pem
    assert (home / "server" / "server.crt").read_bytes() == second.chain_pem
    assert Authority.open(home, state, clock=clock).serving().web == second
    clock.advance(days=300)
    third = Authority.open(home, state, clock=clock).serving().web
    assert third.chain_pem != second.chain_pem
    states = [record.status for record in authority.certificates() if record.profile == "broker"]
    assert states == [Status.SUPERSEDED, Status.SUPERSEDED, Status.ACTIVE]


@pytest.mark.row("F-16")
@pytest.mark.parametrize(
    "damage", ["no key", "no certificate", "bad key", "bad certificate", "foreign key", "only leaf"]
)
def test_a_pair_that_does_not_fit_is_made_again_and_said(
    home: Path, state: State, clock: Clock, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    key, certificate = home / "server" / "server.key", home / "server" / "server.crt"
    match damage:
        case "no key":
            key.unlink()
        case "no certificate":
            certificate.unlink()
        case "bad key":
            key.write_bytes(b"damaged")
        case "bad certificate":
            certificate.write_bytes(b"damaged")
        case "foreign key":
            key.write_bytes(keys.to_pem(some_key("rsa-2048", 8)))
        case "only leaf":
            certificate.write_bytes(certificate.read_bytes().split(b"-----BEGIN")[1].join([b"-----BEGIN", b""]))
    with caplog.at_level(logging.INFO, "rsocket_broker.authority"):
        own = Authority.open(home, state, clock=clock).serving().web
    leaf, ca = x509.load_pem_x509_certificates(own.chain_pem)
    leaf.verify_directly_issued_by(ca)
    assert serialization.load_pem_private_key(own.key_pem, None).public_key() == leaf.public_key()
    assert "made a new certificate" in caplog.text
    assert mode(key) == mode(certificate) == 0o600


def test_more_hosts_are_added_to_the_certificate(home: Path, state: State, clock: Clock) -> None:
    first = Authority.open(home, state, clock=clock, hosts=["10.0.2.2", "Broker.example"]).serving().web
    leaf = x509.load_pem_x509_certificate(first.chain_pem)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names][3:] == ["10.0.2.2", "broker.example"]
    again = Authority.open(home, state, clock=clock, hosts=["10.0.2.2", "Broker.example"])
    assert again.serving().web == first


# Who a peer is


@pytest.mark.row("A-26")
def test_an_identity_comes_from_the_certificate(
    authority: Authority, principal: Principal, request_of_app: CheckedRequest
) -> None:
    issued = authority.issue(request_of_app, principal, "operator")
    assert authority.identify(der(issued)) == Identity(
        principal, "operator", issued.serial, request_of_app.key_fingerprint, 1, issued.not_after
    )


@pytest.mark.row("A-26")
def test_a_proof_is_part_of_the_identity(
    authority: Authority, principal: Principal, request_of_app: CheckedRequest
) -> None:
    other = attrs.evolve(principal, proof=Proof.FILESYSTEM)
    found = [authority.identify(der(authority.issue(request_of_app, each))) for each in (principal, other)]
    assert found[0].principal != found[1].principal


@pytest.mark.row("A-26")
def test_other_certificates_are_nobody(
    authority: Authority,
    state: State,
    principal: Principal,
    request_of_app: CheckedRequest,
    clock: Clock,
    tmp_path: Path,
) -> None:
    with State.open(tmp_path / "other" / "state.db") as other_state:
        other = Authority.open(tmp_path / "other", other_state, clock=clock)
        foreign = der(other.issue(request_of_app, principal))
    own = der(authority.issue(request_of_app, principal))
    server = x509.load_pem_x509_certificate(authority.serving().web.chain_pem)
    for certificate, why in {
        b"": "did not issue",
        b"garbage": "did not issue",
        foreign: "did not issue",
        own[:-1] + bytes([own[-1] ^ 1]): "did not issue",
        server.public_bytes(serialization.Encoding.DER): "not one for clients",
        authority.certificate.public_bytes(serialization.Encoding.DER): "not one for clients",
    }.items():
        with pytest.raises(AuthorityError, match=why):
            authority.identify(certificate)
    clock.advance(days=31)
    with pytest.raises(AuthorityError, match=r"ended on 2026-03-31. Enrol again"):
        authority.identify(own)
    clock.advance(days=-33)
    with pytest.raises(AuthorityError, match="not valid yet"):
        authority.identify(own)
    clock.advance(days=2)
    with state.transaction() as database:
        database.execute("UPDATE certificates SET status = 'superseded' WHERE app_id IS NOT NULL")
    with pytest.raises(AuthorityError, match="is superseded"):
        authority.identify(own)


def test_an_inventory_that_was_changed_by_hand_is_noticed(
    authority: Authority, state: State, principal: Principal, request_of_app: CheckedRequest
) -> None:
    own = der(authority.issue(request_of_app, principal))
    with state.transaction() as database:
        database.execute("UPDATE certificates SET app_id = 'org.example.bank' WHERE app_id IS NOT NULL")
    with pytest.raises(AuthorityError, match="name different clients"):
        authority.identify(own)


# Renewals


@pytest.mark.row("D-4", "A-43")
def test_a_renewal_is_recorded_and_says_that_two_certificates_have_one_holder(
    authority: Authority, principal: Principal, request_of_app: CheckedRequest
) -> None:
    def issue(renews: Issued | None = None) -> Issued:
        request = attrs.evolve(request_of_app, public_key=ec.generate_private_key(ec.SECP256R1()).public_key())
        return authority.issue(request, principal, renews=None if renews is None else renews.serial)

    first, stranger = issue(), issue()
    second = issue(first)
    third = issue(second)
    one, other, two, three = [authority.identify(der(each)) for each in (first, stranger, second, third)]
    for new in (one, two, three):
        assert authority.same_holder(one, new)
    assert authority.same_holder(two, three)
    assert not authority.same_holder(one, other)
    assert not authority.same_holder(other, three)
    assert not authority.same_holder(three, one), "not the other way round"
    record = authority.record(third.serial)
    assert record is not None
    assert record.renews == second.serial


def test_the_same_key_has_one_holder_and_another_client_another(
    authority: Authority, principal: Principal, request_of_app: CheckedRequest
) -> None:
    mine, again = [authority.identify(der(authority.issue(request_of_app, principal))) for _ in range(2)]
    assert authority.same_holder(mine, again)
    elsewhere = attrs.evolve(principal, device_id="another")
    assert not authority.same_holder(mine, authority.identify(der(authority.issue(request_of_app, elsewhere))))


def test_what_a_certificate_says_is_remembered_and_whether_it_is_good_is_asked_each_time(
    home: Path, clock: Clock, principal: Principal, request_of_app: CheckedRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsocket_broker.authority.authority.MAX_KNOWN", 1)
    with State.open(home / "state.db") as state:
        authority = Authority.open(home, state, clock=clock)
        first, second = (der(authority.issue(request_of_app, principal)) for _ in range(2))
        assert authority.identify(first) is authority.identify(first)
        assert authority.identify(second) == authority.identify(second) != authority.identify(first)
        with State.open(home / "state.db") as elsewhere, elsewhere.transaction() as database:
            database.execute("UPDATE certificates SET status = 'superseded' WHERE app_id IS NOT NULL")
        with pytest.raises(AuthorityError, match="superseded"):
            authority.identify(first)
        with state.transaction() as database:
            database.execute("DELETE FROM certificates WHERE app_id IS NOT NULL")
        with pytest.raises(AuthorityError, match="did not issue"):
            authority.identify(first)


# What the ports present, and who holds what


@pytest.mark.row("A-17")
def test_what_is_served_is_one_object_until_something_changes(authority: Authority) -> None:
    first = authority.serving()
    assert authority.serving() is first
    assert first.web == authority.serving().web
    authority.changed()
    assert authority.serving() is not first


@pytest.mark.row("A-17", "A-20")
def test_a_revocation_shuts_nobody_else_out_while_a_backup_is_taken(
    authority: Authority, home: Path, principal: Principal, request_of_app: CheckedRequest
) -> None:
    """The lock on the home may be held for long, and its holder may even be stopped: handshakes do not wait for it."""
    first, issued = authority.serving(), authority.issue(request_of_app, principal)
    with files.locked(home):
        authority.revocations.revoke(Selector.serial(issued.serial))
        authority.changed()
        second = authority.serving()
    assert (second.secure, second.web) == (first.secure, first.web)
    found = x509.load_pem_x509_crl(second.crl_pem)
    assert found.get_revoked_certificate_by_serial_number(issued.serial) is not None


@pytest.mark.row("A-17")
def test_what_is_due_is_renewed_later_where_the_home_is_locked(authority: Authority, home: Path, clock: Clock) -> None:
    first = authority.serving()
    clock.advance(days=21)
    with files.locked(home):
        began = time.monotonic()
        assert authority.serving() is first
        assert time.monotonic() - began < files.LOCK_PATIENCE_S / 10, "each handshake waits for this"
    clock.advance(minutes=2)
    assert authority.serving() is not first


@pytest.mark.row("A-20")
def test_whoever_revokes_waits_for_no_list_that_is_being_made(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ten thousand entries that takes a quarter of a second, in which a session goes on that is to end."""
    making, go_on, inner = threading.Event(), threading.Event(), authority._lists.inner

    def slow(issuers: Iterable[Issuer]) -> bytes:
        made = inner(issuers)
        making.set()
        go_on.wait(10)
        return made

    monkeypatch.setattr(authority._lists, "inner", slow)
    authority.changed()
    made: list[Serving] = []
    maker = threading.Thread(target=lambda: made.append(authority.serving()))
    maker.start()
    assert making.wait(10)
    revoker = threading.Thread(target=authority.changed)
    revoker.start()
    revoker.join(1)
    waits = revoker.is_alive()
    assert authority.due
    go_on.set()
    maker.join()
    revoker.join()
    assert not waits
    assert authority.serving() is not made[0], "it was made of what was known before"


@pytest.mark.row("A-16")
def test_a_client_holds_its_generation_until_another_has_reached_it(
    authority: Authority, principal: Principal, request_of_app: CheckedRequest
) -> None:
    authority.issue(request_of_app, principal)
    assert [each.principal for each in authority.holders(authority.generation)] == [principal]


# --- revocation ----------------------------------------------------------------------------------------------------


@pytest.mark.row("A-19", "A-20")
def test_a_revoked_certificate_is_nobodys_and_is_not_renewed(
    authority: Authority, request_of_app: CheckedRequest, principal: Principal
) -> None:
    issued = authority.issue(request_of_app, principal)
    identity = authority.identify(der(issued))
    authority.revocations.revoke(Selector.serial(issued.serial))
    with pytest.raises(AuthorityError, match=r"revoked by whoever runs this broker. Enrol again"):
        authority.identify(der(issued))
    with pytest.raises(AuthorityError, match="cannot be renewed"):
        authority.renew(identity, request_of_app)
    again = authority.issue(request_of_app, principal)
    assert authority.identify(der(again)).principal == principal, "only that certificate is withdrawn"
