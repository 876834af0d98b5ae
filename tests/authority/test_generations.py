import itertools
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rsocket_broker.audit import Event
from rsocket_broker.authority import Authority, CheckedRequest, Issued, keys
from rsocket_broker.authority.home import CaHome, certificate_pem
from rsocket_broker.authority.issue import Issuer
from rsocket_broker.authority.requests import check_request
from rsocket_broker.authority.rotation import Phase, Step
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.errors import AuthorityError, BrokerError, HomeError
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.moments import utc_now
from rsocket_broker.state import State
from rsocket_broker.transports.tls_contexts import server_context
from tests.authority.conftest import Clock, some_key
from tests.authority.crash import run_and_kill
from tests.authority.operators_ca import OperatorsCa, make_ca

CRASH_POINTS = 400


@pytest.fixture(autouse=True)
def ready_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key pairs that were made before, each a different one."""
    numbers = iter(range(100, 1000))
    monkeypatch.setattr(keys, "make_key", lambda kind: some_key(kind, 100 + next(numbers) % 4))


def chain(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


def der(issued: Issued) -> bytes:
    return x509.load_pem_x509_certificate(issued.certificate_pem).public_bytes(Encoding.DER)


def faults(home: Path, clock: Clock) -> list[str]:
    return [f"{each.what}: {each.problem}" for each in Authority.verify_home(home, clock=clock) if each.problem]


# What is trusted, what signs, what is presented


@pytest.mark.row("A-14", "A-15")
def test_each_phase_trusts_and_presents_what_it_is_to(authority: Authority) -> None:
    old = authority.certificate
    assert chain(authority.trust_pem) == [old]

    authority.prepare()
    new = authority.trusted()[0]
    assert authority.phase is Phase.PREPARED
    assert authority.certificate == old, "the old one signs"
    assert chain(authority.trust_pem) == [new, old]
    assert chain(authority.web_trust_pem) == [old, new]
    assert chain(authority.serving().web.chain_pem)[1:] == [old]
    assert chain(authority.serving().secure.chain_pem)[1:] == [old]
    assert chain(authority.serving().secure.trust_pem) == [new, old]

    authority.switch()
    assert authority.phase is Phase.SWITCHED
    assert authority.certificate == new
    assert chain(authority.trust_pem) == chain(authority.web_trust_pem) == [new, old]
    assert chain(authority.serving().web.chain_pem)[1:] == [new]
    (cross,) = chain(authority.serving().secure.chain_pem)[1:]
    assert (cross.subject, cross.issuer, cross.public_key()) == (new.subject, old.subject, new.public_key())
    cross.verify_directly_issued_by(old)
    assert chain(authority.serving().secure.trust_pem) == [new, old]

    authority.finish()
    assert authority.phase is Phase.STEADY
    assert chain(authority.trust_pem) == [new]
    assert chain(authority.serving().secure.chain_pem)[1:] == [new]
    assert chain(authority.serving().secure.trust_pem) == [new]


@pytest.mark.row("A-14")
def test_a_cross_certificate_has_no_path_length_and_names_by_key_only(authority: Authority) -> None:
    authority.prepare()
    authority.switch()
    cross = chain(authority.serving().secure.chain_pem)[1]
    constraints = cross.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and constraints.value == x509.BasicConstraints(ca=True, path_length=None)
    above = cross.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert above.authority_cert_issuer is None and above.authority_cert_serial_number is None
    assert cross.subject != cross.issuer


@pytest.mark.row("A-14", "A-16")
def test_certificates_of_both_generations_are_good_until_the_old_one_is_dropped(
    authority: Authority, principal: Principal, request_of_app: CheckedRequest
) -> None:
    old = authority.issue(request_of_app, principal)
    authority.prepare()
    during = authority.issue(request_of_app, principal)
    authority.switch()
    new = authority.issue(request_of_app, principal, renews=old.serial)
    assert [authority.identify(der(each)).generation for each in (old, during, new)] == [1, 1, 2]
    authority.finish()
    assert authority.identify(der(new)).generation == 2
    for each in (old, during):
        with pytest.raises(AuthorityError, match="replaced by a new one"):
            authority.identify(der(each))


@pytest.mark.row("A-15")
def test_a_rollback_leaves_what_was_there_before(
    authority: Authority, home: Path, clock: Clock, principal: Principal, request_of_app: CheckedRequest
) -> None:
    old, issued = authority.certificate, authority.issue(request_of_app, principal)
    authority.prepare()
    authority.rollback()
    assert (authority.phase, authority.certificate, authority.trusted()) == (Phase.STEADY, old, [old])
    assert not (home / "ca" / "2").exists()
    authority.identify(der(issued))
    authority.prepare()
    assert authority.rotation.next == 3, "a number is never used twice"
    authority.switch()
    authority.rollback()
    assert (authority.phase, authority.generation) == (Phase.PREPARED, 1)
    assert chain(authority.serving().secure.chain_pem)[1:] == [old]
    authority.rollback()
    assert authority.trusted() == [old]
    authority.identify(der(issued))
    assert faults(home, clock) == []


def test_a_step_that_the_phase_has_not_names_the_right_one(authority: Authority) -> None:
    with pytest.raises(AuthorityError, match="ca rotate prepare"):
        authority.switch()
    authority.prepare()
    with pytest.raises(AuthorityError, match="ca rotate switch"):
        authority.finish()


# Who would be left out


@pytest.mark.row("A-16")
def test_finish_is_refused_while_somebody_holds_only_the_old_and_names_them(
    authority: Authority, principal: Principal, request_of_app: CheckedRequest, clock: Clock
) -> None:
    old = authority.issue(request_of_app, principal)
    authority.identify(der(old))
    authority.prepare()
    authority.switch()
    with pytest.raises(AuthorityError, match=r"org\.example\.app@device-1 \(adb\).*--without"):
        authority.finish()
    assert authority.phase is Phase.SWITCHED
    new = authority.renew(authority.identify(der(old)), request_of_app)
    with pytest.raises(AuthorityError, match="shut out"):
        authority.finish()
    authority.arrived(new.serial)
    authority.finish()
    assert authority.phase is Phase.STEADY


@pytest.mark.row("A-16")
def test_finish_can_be_forced_by_name_only(
    authority: Authority, principal: Principal, request_of_app: CheckedRequest, state: State
) -> None:
    authority.issue(request_of_app, principal)
    authority.prepare()
    authority.switch()
    with pytest.raises(AuthorityError, match="shut out"):
        authority.finish([attrs.evolve(principal, device_id="device-2")])
    authority.finish([principal])
    (body,) = [row["body"] for row in state.read("SELECT body FROM audit ORDER BY number DESC LIMIT 1")]
    assert Event.ROTATED.value in body and "org.example.app@device-1 (adb)" in body and '"dropped":1' in body


@pytest.mark.row("A-15", "A-16")
def test_a_rollback_is_refused_while_somebody_holds_only_the_new(
    authority: Authority, principal: Principal, request_of_app: CheckedRequest
) -> None:
    authority.prepare()
    authority.switch()
    new = authority.issue(request_of_app, principal)
    authority.rollback()
    with pytest.raises(AuthorityError, match=r"rotate rollback --without"):
        authority.rollback()
    again = authority.issue(request_of_app, principal, renews=new.serial)
    authority.arrived(again.serial)
    authority.rollback()
    assert authority.rotation.trusted == (1,)


@pytest.mark.row("A-16")
def test_an_app_that_slept_and_enrolled_again_is_no_longer_left(
    authority: Authority, principal: Principal, request_of_app: CheckedRequest, clock: Clock
) -> None:
    """As one on the WebSocket port does: refused twice, it makes a new key and proves itself once more."""
    old = authority.issue(request_of_app, principal)
    authority.identify(der(old))
    clock.advance(days=1)
    authority.prepare()
    authority.switch()
    clock.advance(hours=1)
    new = authority.issue(check_request(make_signing_request(principal.app_id).csr_pem), principal)
    assert [each.serials for each in authority.holders(1)] == [(old.serial,)], "it may never have got there"
    authority.identify(der(new))
    authority.arrived(old.serial, ago=7200.0)  # a session of before, whose line nobody has closed
    assert authority.holders(1) == []
    authority.finish()


def test_what_an_ended_generation_has_signed_meanwhile_is_not_handed_out(
    authority: Authority, principal: Principal, request_of_app: CheckedRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = authority._generations.signer()
    authority.prepare()
    authority.switch()
    authority.finish()
    monkeypatch.setattr(authority._generations, "signer", lambda: issuer)
    with pytest.raises(AuthorityError, match="Ask again"):
        authority.issue(request_of_app, principal)
    assert authority.certificates(principal.app_id) == []


# Keys


@pytest.mark.row("A-24")
def test_the_key_of_a_dropped_generation_is_destroyed_and_its_certificate_kept(
    authority: Authority, home: Path, clock: Clock, principal: Principal, request_of_app: CheckedRequest
) -> None:
    old = authority.issue(request_of_app, principal)
    kept = home.parent / "linked.key"
    kept.hardlink_to(home / "ca" / "1" / "ca.key")
    authority.prepare()
    authority.switch()
    authority.finish([principal])
    assert [path.name for path in (home / "ca").iterdir()] == ["2"]
    assert set(kept.read_bytes()) == {0}, "overwritten, not only unlinked"
    findings = authority.verify_certificate(x509.load_pem_x509_certificate(old.certificate_pem))
    assert {each.what: each.problem for each in findings}["signature"] is None
    assert [each.problem for each in findings if each.problem] == [
        "Generation 1 of the CA, which signed it, was replaced."
    ]
    assert faults(home, clock) == []


@pytest.mark.row("A-24")
def test_with_a_passphrase_the_next_key_is_encrypted_too_and_needed(home: Path, state: State, clock: Clock) -> None:
    Authority.open(home, state, clock=clock, passphrase=b"correct")
    with pytest.raises(AuthorityError, match="passphrase"):
        Authority.open(home, state, clock=clock, create=False).prepare()
    authority = Authority.open(home, state, clock=clock, passphrase=b"correct", create=False)
    authority.prepare()
    assert keys.is_encrypted((home / "ca" / "2" / "ca.key").read_bytes())
    with pytest.raises(AuthorityError, match="passphrase"):
        Authority.open(home, state, clock=clock, create=False).switch()
    assert Authority.open(home, state, clock=clock, passphrase=b"correct").switch().phase is Phase.SWITCHED


def test_a_passphrase_that_was_not_needed_encrypts_nothing_by_the_way(home: Path, state: State, clock: Clock) -> None:
    Authority.open(home, state, clock=clock, passphrase=b"unused", create=False).prepare()
    assert not keys.is_encrypted((home / "ca" / "2" / "ca.key").read_bytes())


# Renewal of the anchor


@pytest.mark.row("A-14", "A-17")
def test_the_anchor_is_renewed_every_25_days_under_the_same_key_and_name(
    authority: Authority, home: Path, state: State, clock: Clock
) -> None:
    names, moments = {authority.certificate.subject}, [authority.certificate.not_valid_before_utc]
    first = authority.certificate
    for _ in range(60):
        clock.now = max(clock.now, authority.due)
        presented = chain(authority.serving().web.chain_pem)
        assert all(clock.now - each.not_valid_before_utc < timedelta(days=30) for each in presented)
        assert presented[1] == authority.certificate
        presented[0].verify_directly_issued_by(first)
        if authority.certificate.not_valid_before_utc != moments[-1]:
            moments.append(authority.certificate.not_valid_before_utc)
        clock.advance(days=2)
    assert {authority.certificate.subject} == names
    assert authority.certificate.public_key() == first.public_key()
    assert len(moments) >= 4
    assert all(later - earlier <= timedelta(days=26) for earlier, later in itertools.pairwise(moments))
    assert authority.rotation.current == 1
    assert faults(home, clock) == []
    assert len(state.read("SELECT * FROM audit WHERE event = 'anchor'")) == len(moments) - 1


def test_both_anchors_stay_good_over_a_long_rotation(authority: Authority, home: Path, clock: Clock) -> None:
    authority.prepare()
    clock.advance(days=26)
    authority.serving()
    authority.switch()
    for each in chain(authority.serving().web.chain_pem):
        assert clock.now - each.not_valid_before_utc < timedelta(days=25)
    assert faults(home, clock) == []


def test_a_renewal_that_was_cut_short_is_finished_by_the_next_start(
    authority: Authority, home: Path, state: State, clock: Clock
) -> None:
    before = (home / "ca" / "1" / "ca.crt").read_bytes()
    clock.advance(days=26)
    authority.serving()
    renewed = authority.certificate
    (home / "ca" / "1" / "ca.crt").write_bytes(before)
    again = Authority.open(home, state, clock=clock)
    assert again.certificate == renewed
    assert faults(home, clock) == []


@pytest.mark.row("A-14", "D-15")
def test_a_disk_that_fails_behind_the_transaction_shuts_nobody_out(
    authority: Authority, home: Path, state: State, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is decided is at hand though its files are not in their places: the next start puts them there."""
    with monkeypatch.context() as disk:
        disk.setattr(CaHome, "place_generation", _fail)
        with pytest.raises(HomeError):
            authority.prepare()
    assert authority.phase is Phase.PREPARED
    assert len(x509.load_pem_x509_certificates(authority.serving().secure.trust_pem)) == 2
    clock.advance(days=26)
    with monkeypatch.context() as disk:
        disk.setattr(CaHome, "save_ca_certificate", _fail)
        for _ in range(3):
            clock.advance(minutes=2)
            authority.serving()
    assert authority.certificate.not_valid_before_utc > clock() - timedelta(days=2)
    roots = [each for each in authority.certificates() if (each.profile, each.generation) == ("root", 1)]
    assert len(roots) == 2, "it is renewed once, not again at each try"
    again = Authority.open(home, state, clock=clock)
    assert again.trusted() == authority.trusted()
    again.switch()


def _fail(*_: object) -> None:
    raise HomeError("No space left on device.")


def test_what_the_next_start_finishes_is_no_damage(
    authority: Authority, home: Path, state: State, clock: Clock
) -> None:
    authority.prepare()
    (home / "ca" / "2").rename(home / "ca" / ".new")
    assert faults(home, clock) == [
        "inventory: CA: Generation 2 is on its way into place; the next start finishes that."
    ]
    assert Authority.open(home, state, clock=clock, create=False).trusted() == authority.trusted()
    assert faults(home, clock) == []
    shutil.rmtree(home / "ca" / "2")
    assert "Generation 2 has no sound files. Restore" in faults(home, clock)[0]


def test_the_files_of_another_generation_are_not_taken_for_a_renewal(
    authority: Authority, home: Path, state: State, clock: Clock, tmp_path: Path
) -> None:
    with State.open(tmp_path / "other" / "state.db") as elsewhere:
        Authority.open(tmp_path / "other", elsewhere, clock=clock)
    for name in ("ca.key", "ca.crt"):
        shutil.copy2(tmp_path / "other" / "ca" / "1" / name, home / "ca" / "1" / name)
    with pytest.raises(AuthorityError, match="not the certificate that the inventory knows"):
        Authority.open(home, state, clock=clock)


# An operator's own CA, by the handshakes of its clients


def verifies(authority: Authority, *anchors: x509.Certificate) -> bool:
    """Whether a client that trusts these verifies what the RSocket port presents."""
    serving = authority.serving()
    server = server_context(serving.secure, ssl.TLSVersion.TLSv1_2)
    server.verify_mode = ssl.CERT_NONE
    client = ssl.create_default_context(cadata="".join(certificate_pem(each).decode() for each in anchors))
    ends = ssl.MemoryBIO(), ssl.MemoryBIO()
    asks = client.wrap_bio(*ends, server_hostname="localhost")
    answers = server.wrap_bio(*reversed(ends), server_side=True)
    for _ in range(4):
        for end in (asks, answers):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return True


def imported(ca: OperatorsCa, *above: OperatorsCa) -> Issuer:
    return Issuer(1, ca.certificate, ca.key, tuple(each.certificate for each in above), imported=True)


@pytest.mark.row("A-14", "A-24")
def test_from_our_own_ca_to_one_below_an_operators_root_and_on(home: Path, state: State) -> None:
    """By the real clock, since TLS takes no other."""
    authority = Authority.open(home, state)
    ours = authority.certificate
    root = make_ca("Root", number=60, now=utc_now())
    first = make_ca("First", root, number=61, now=utc_now())
    authority.prepare(imported(first, root))
    assert verifies(authority, ours) and not verifies(authority, root.certificate)
    authority.switch()
    assert verifies(authority, ours) and verifies(authority, root.certificate)
    authority.finish()
    assert verifies(authority, root.certificate) and not verifies(authority, ours)
    assert authority.due < datetime.max.replace(tzinfo=UTC), "the endpoint's own certificate still is renewed"

    second = make_ca("Second", root, number=62, now=utc_now())
    authority.prepare(imported(second, root))
    assert authority.trust_pem == certificate_pem(root.certificate), "one root, named once"
    authority.switch()
    assert authority.cross_certificate() is None, "nobody has to be brought from one root to another"
    assert verifies(authority, root.certificate)
    authority.finish()

    authority.prepare()
    new = authority.trusted()[0]
    authority.switch()
    assert verifies(authority, root.certificate) and verifies(authority, new)
    authority.finish()
    assert verifies(authority, new) and not verifies(authority, root.certificate)


def test_a_ca_that_may_not_certify_the_next_one_says_so_before_anything_changes(home: Path, state: State) -> None:
    authority = Authority.open(home, state)
    root = make_ca("Root", number=60, now=utc_now())
    narrow = make_ca("Narrow", root, number=61, now=utc_now(), path_length=0)
    authority.prepare(imported(narrow, root))
    authority.switch()
    authority.finish()
    with pytest.raises(AuthorityError, match="may not certify another CA"):
        authority.prepare()
    assert authority.phase is Phase.STEADY
    with pytest.raises(AuthorityError, match="the same key"):
        authority.prepare(imported(attrs.evolve(make_ca("Other", root, number=61, now=utc_now())), root))
    with pytest.raises(AuthorityError, match="the same name"):
        authority.prepare(imported(make_ca("Narrow", root, number=63, now=utc_now()), root))
    assert CaHome(home).generations() == [2]


# Crashes and other processes


WALK = (Step.PREPARE, Step.SWITCH, Step.FINISH)
BACK = (Step.PREPARE, Step.SWITCH, Step.ROLLBACK, Step.ROLLBACK)


@pytest.mark.long
@pytest.mark.row("D-15", "A-15")
@pytest.mark.parametrize(
    ("steps", "last"),
    [((Step.PREPARE,), 1), (WALK[:2], 2), (WALK, 3), (BACK[:3], 3), (BACK, 4)],
    ids=["prepare", "switch", "finish", "back to prepared", "back to steady"],
)
def test_a_kill_at_any_point_of_a_step_leaves_the_old_phase_or_the_new(
    home: Path,
    clock: Clock,
    steps: tuple[Step, ...],
    last: int,
    tmp_path: Path,
    portion: Callable[[int], list[int]],
) -> None:
    def take(folder: Path, *some: Step) -> bytes:
        with State.open(folder / "state.db") as state:
            authority = Authority.open(folder, state, clock=clock)
            for step in some:
                getattr(authority, step.value)()
            return authority.phase.value.encode()

    take(home, *steps[: last - 1])
    before = reopened_phase(home, clock)
    whole = shutil.copytree(home, tmp_path / "whole")
    take(whole, steps[last - 1])
    after = reopened_phase(whole, clock)
    assert before != after
    found = set()
    for step in [number + 1 for number in portion(CRASH_POINTS)]:
        copy = shutil.copytree(home, tmp_path / str(step))
        killed, _ = run_and_kill(lambda copy=copy: take(copy, steps[last - 1]), copy, step)
        phase = reopened_phase(copy, clock)
        found.add(phase)
        assert phase in (before, after)
        assert faults(copy, clock) == []
        with State.open(copy / "state.db") as state:
            authority = Authority.open(copy, state, clock=clock)
            serials = [each.serial for each in authority.certificates()]
            assert len(set(serials)) == len(serials)
            assert set(CaHome(copy).generations()) == set(authority.rotation.trusted)
            if phase == before:
                getattr(authority, steps[last - 1].value)()
        shutil.rmtree(copy)
        if not killed:
            break
    assert found == {before, after}
    assert not killed, "more steps than were tried"


def reopened_phase(home: Path, clock: Clock) -> tuple[Phase, int]:
    with State.open(home / "state.db") as state:
        authority = Authority.open(home, state, clock=clock)
        return authority.phase, authority.generation


@pytest.mark.row("A-25", "D-15")
def test_two_processes_that_prepare_at_once_make_one_generation(home: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from rsocket_broker.authority import Authority; from rsocket_broker.state import State\n"
        "home = Path(sys.argv[1])\n"
        "with State.open(home / 'state.db') as state:\n"
        "    authority = Authority.open(home, state, hosts=None, create=False)\n"
        "    sys.stdin.readline()\n"
        "    try: authority.prepare(); print('made')\n"
        "    except Exception as error: print(error)\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    answers = sorted(process.communicate("go\n")[0].strip() for process in running)
    assert answers == ["A rotation is prepared already. Go on: rsocket-broker ca rotate switch"] * 2 + ["made"]
    assert CaHome(home).generations() == [1, 2]


def test_a_step_sees_what_another_process_has_done(home: Path, state: State, clock: Clock) -> None:
    first = Authority.open(home, state, clock=clock)
    second = Authority.open(home, state, clock=clock)
    first.prepare()
    second.switch()
    with pytest.raises(AuthorityError, match="signs already"):
        first.switch()
    first.finish()
    assert first.generation == second.generation == 2


def test_issuing_goes_on_through_all_phases(
    authority: Authority, principal: Principal, request_of_app: CheckedRequest
) -> None:
    stop, errors, issued = threading.Event(), [], []

    def work() -> None:
        while not stop.is_set():
            try:
                issued.append(authority.issue(request_of_app, principal))
                authority.identify(der(issued[-1]))
            except BrokerError as error:
                errors.append(error.public)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for each in workers:
        each.start()
    authority.prepare()
    authority.switch()
    authority.rollback()
    authority.switch()
    stop.set()
    for each in workers:
        each.join()
    assert errors == []
    assert {each.serial for each in issued} <= {each.serial for each in authority.certificates()}


def test_a_home_of_before_rotations_is_taken_as_it_is(home: Path, clock: Clock) -> None:
    with State.open(home / "state.db") as state, state.transaction() as database:
        database.execute("DROP TABLE rotation")
        database.execute("DELETE FROM schema_version WHERE component = 'rotation'")
    with State.open(home / "state.db") as state:
        assert Authority.open(home, state, clock=clock, create=False).phase is Phase.STEADY
        assert Authority.open(home, state, clock=clock, create=False).prepare().next == 2


# Any steps in any order


class Walk(RuleBasedStateMachine):
    """A home that is rotated, issued from, restarted and aged at random; what must always hold, holds."""

    homes: Path
    number = 0

    @initialize(made=some.just(None))
    def begin(self, made: None) -> None:
        type(self).number += 1
        self.home = shutil.copytree(self.homes / "made", self.homes / str(self.number))
        self.clock = Clock()
        self.good: dict[int, tuple[int, bytes]] = {}
        self.open()

    def open(self) -> None:
        self.state = State.open(self.home / "state.db")
        self.authority = Authority.open(self.home, self.state, clock=self.clock)

    def teardown(self) -> None:
        if hasattr(self, "state"):
            self.state.close()
            shutil.rmtree(self.home)

    @rule(step=some.sampled_from(Step), forced=some.booleans())
    def take(self, step: Step, forced: bool) -> None:
        before, left = self.authority.rotation, []
        dropped = before.dropped_by(step)
        if dropped is not None:
            left = self.authority.holders(dropped)
        try:
            match step:
                case Step.FINISH | Step.ROLLBACK:
                    getattr(self.authority, step.value)([each.principal for each in left] if forced else [])
                case _:
                    getattr(self.authority, step.value)()
        except AuthorityError:
            assert self.authority.rotation == before
            return
        assert forced or not left

    @rule(number=some.integers(0, 3), arrives=some.booleans())
    def issue(self, number: int, arrives: bool) -> None:
        principal = Principal(f"app{number}", "d", Proof.ADB)
        csr = CheckedRequest(principal.app_id, some_key("p-256", number).public_key(), "unused", f"key {number}")
        issued = self.authority.issue(csr, principal)
        self.good[issued.serial] = self.authority.generation, der(issued)
        if arrives:
            self.authority.arrived(issued.serial)

    @rule(days=some.integers(1, 20))
    def age(self, days: int) -> None:
        self.clock.advance(days=days)

    @rule()
    def restart(self) -> None:
        self.state.close()
        self.open()

    @invariant()
    def what_is_presented_fits_together(self) -> None:
        if not hasattr(self, "authority"):
            return
        authority, rotation = self.authority, self.authority.rotation
        serving = authority.serving()
        leaf, *rest = chain(serving.secure.chain_pem)
        leaf.verify_directly_issued_by(authority.certificate)
        assert chain(serving.web.chain_pem) == [leaf, authority.certificate]
        assert (rest == [authority.certificate]) == (rotation.phase is not Phase.SWITCHED)
        young = timedelta(days=27)  # on the WebSocket port; nobody asks how old a cross-certificate is
        assert all(self.clock() - each.not_valid_before_utc < young for each in chain(serving.web.chain_pem))
        assert len(chain(serving.secure.trust_pem)) == len(rotation.trusted)
        assert set(CaHome(self.home).generations()) == set(rotation.trusted)

    @invariant()
    def certificates_are_good_as_long_as_their_generation(self) -> None:
        if not hasattr(self, "authority"):
            return
        records = {each.serial: each for each in self.authority.certificates()}
        for serial, (generation, encoded) in self.good.items():
            trusted = generation in self.authority.rotation.trusted and self.clock() <= records[serial].not_after
            try:
                assert self.authority.identify(encoded).serial == serial
            except AuthorityError:
                assert not trusted
            else:
                assert trusted


def test_any_walk_keeps_what_must_always_hold(made_home: Path, tmp_path: Path) -> None:
    shutil.copytree(made_home, tmp_path / "made")
    Walk.homes = tmp_path
    walk = Walk.TestCase
    walk.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
    walk().runTest()
