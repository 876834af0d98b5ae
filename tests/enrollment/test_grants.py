import functools
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsocket_broker.audit import Audit
from rsocket_broker.authority import Authority
from rsocket_broker.authority.inventory import Inventory
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.enrollment import grants as module
from rsocket_broker.enrollment.grants import KEPT, KEY_FILE, Grant, Grants
from rsocket_broker.errors import ApplicationError, ConfigurationError, EnrollmentRefused, HomeError
from rsocket_broker.grant_tokens import GrantToken, proof_key
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.state import State
from tests.authority.crash import count_steps, run_and_kill

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
APP = "org.example.demo"
CSR = "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(tmp_path / "home" / "state.db") as state:
        yield state


@pytest.fixture
def grants(state: State, tmp_path: Path) -> Grants:
    return Grants(tmp_path / "home", state, Audit(state))


def find(grants: Grants, token: str, csr: str = CSR) -> Grant | None:
    """By the proof that an app with that CSR sends."""
    return grants.find(GrantToken.parse(token).grant_for(csr), csr)


def use(grants: Grants, state: State, token: str, now: datetime = NOW) -> None:
    grant = find(grants, token)
    assert grant is not None
    with state.transaction() as database:
        grants.use(database, grant, "a device", now)


@pytest.mark.row("A-07")
def test_a_grant_works_once(grants: Grants, state: State) -> None:
    grant, token = grants.make(APP, now=NOW, life=HOUR)
    assert grant.state(NOW) == "open"
    assert find(grants, token) == grant
    use(grants, state, token)
    found = find(grants, token)
    assert found is not None and found.state(NOW) == "used up"
    with pytest.raises(EnrollmentRefused, match="token: the token was used already"):
        use(grants, state, token)


@pytest.mark.row("A-07")
def test_what_is_undone_uses_nothing_up(grants: Grants, state: State) -> None:
    """As a crash before the end of the transaction does."""
    grant, token = grants.make(APP, now=NOW, life=HOUR)
    with pytest.raises(RuntimeError), state.transaction() as database:
        grants.use(database, grant, "a device", NOW)
        raise RuntimeError("the power failed")
    use(grants, state, token)


@pytest.mark.row("A-07")
def test_a_crowd_uses_it_as_often_as_it_says(grants: Grants, state: State) -> None:
    _, token = grants.make(APP, now=NOW, life=HOUR, uses=3)
    outcomes: list[bool] = []

    def enrol() -> None:
        try:
            use(grants, state, token)
        except EnrollmentRefused:
            outcomes.append(False)
        else:
            outcomes.append(True)

    threads = [threading.Thread(target=enrol) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 7 + [True] * 3


def test_it_ends_in_time_and_can_be_withdrawn(grants: Grants, state: State) -> None:
    _, token = grants.make(APP, now=NOW, life=HOUR)
    with pytest.raises(EnrollmentRefused, match="has ended"):
        use(grants, state, token, NOW + HOUR)
    use(grants, state, token, NOW + HOUR - timedelta(seconds=1))
    other, token = grants.make(APP, now=NOW, life=HOUR, uses=2)
    assert grants.withdraw(other.id, NOW).state(NOW) == "withdrawn"
    with pytest.raises(EnrollmentRefused, match="was withdrawn"):
        use(grants, state, token)
    with pytest.raises(ApplicationError, match="withdrawn already"):
        grants.withdraw(other.id, NOW)
    with pytest.raises(ApplicationError, match="enrollment grants"):
        grants.withdraw("0123456789ab", NOW)


def test_no_secret_is_kept(grants: Grants, tmp_path: Path, state: State) -> None:
    grant, token = grants.make(APP, now=NOW, life=HOUR, device="a device")
    number, secret = token.split(".")
    use(grants, state, token)
    assert number == grant.id and len(secret) == 43
    state.close()
    for path in (tmp_path / "home").iterdir():
        assert secret.encode() not in path.read_bytes()
        assert proof_key(secret) not in path.read_bytes()
    assert secret not in repr(grant) + repr(grant.describe(NOW))


def test_what_is_kept_needs_the_key_beside_it(grants: Grants, state: State, tmp_path: Path) -> None:
    _, token = grants.make(APP, now=NOW, life=HOUR)
    key = tmp_path / "home" / KEY_FILE
    assert key.stat().st_mode & 0o777 == 0o600 and len(key.read_bytes()) == 32
    again = Grants(tmp_path / "home", state, Audit(state))
    assert find(again, token) is not None
    key.write_bytes(bytes(32))
    assert find(Grants(tmp_path / "home", state, Audit(state)), token) is None
    key.write_bytes(bytes(31))
    with pytest.raises(HomeError, match="damaged"):
        find(Grants(tmp_path / "home", state, Audit(state)), token)
    key.chmod(0o644)
    with pytest.raises(HomeError, match="chmod"):
        Grants(tmp_path / "home", state, Audit(state))


def test_the_comparison_is_one_that_takes_its_time(grants: Grants, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is nothing to compare with: a key is unsealed and two proofs are compared, every time."""
    grant, token = grants.make(APP, now=NOW, life=HOUR)
    shown = GrantToken.parse(token).grant_for(CSR)
    seen: list[tuple[int, int]] = []
    opened: list[str] = []

    def compare(one: bytes, other: bytes) -> bool:
        seen.append((len(one), len(other)))
        return one == other

    def unseal(seal: object, number: str, sealed: bytes) -> bytes:
        opened.append(number)
        assert len(sealed) == 60
        return open_it(seal, number, sealed)  # type: ignore[arg-type]

    open_it = module._Seal.open
    monkeypatch.setattr(module.hmac, "compare_digest", compare)
    monkeypatch.setattr(module._Seal, "open", unseal)
    for text in (shown, token, grant.id + "." + "x" * 43, "0" * 12 + "." + "x" * 43, "no token", "", "\ud800"):
        assert (grants.find(text, CSR) is not None) is (text == shown)
    assert seen == [(43, 43)] * 4 + [(43, 0)] * 3  # the last have not even the shape
    assert opened == [grant.id] * 3 + [""] * 4


@pytest.mark.row("A-33", "M-8")
def test_a_proof_is_for_one_request_and_one_grant(grants: Grants) -> None:
    (one, token), (other, _) = grants.make(APP, now=NOW, life=HOUR), grants.make(APP, now=NOW, life=HOUR)
    shown = GrantToken.parse(token).grant_for(CSR)
    assert grants.find(shown, CSR) == one
    assert grants.find(shown, CSR.replace("MIIB", "MIIC")) is None
    assert grants.find(other.id + shown[12:], CSR) is None


def test_a_sealed_key_moved_to_another_grant_is_worth_nothing(grants: Grants, state: State) -> None:
    (one, token), (other, _) = grants.make(APP, now=NOW, life=HOUR), grants.make(APP, now=NOW, life=HOUR)
    with state.transaction() as database:
        database.execute(
            "UPDATE grants SET sealed = (SELECT sealed FROM grants WHERE id = ?) WHERE id = ?", (one.id, other.id)
        )
    assert find(grants, other.id + token[12:]) is None
    assert find(grants, token) == one


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(text=st.text(max_size=80))
def test_no_other_text_is_a_token(grants: Grants, text: str) -> None:
    assert grants.find(text, CSR) is None


def test_whoever_has_no_grants_finds_none(grants: Grants, tmp_path: Path) -> None:
    assert grants.find("0" * 12 + "." + "x" * 43, CSR) is None
    assert grants.list() == []
    assert not (tmp_path / "home" / KEY_FILE).exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"app_id": "no id"}, "not an app id"),
        ({"life": timedelta(0)}, "365d"),
        ({"life": timedelta(days=366)}, "365d"),
        ({"uses": 0}, "uses"),
        ({"uses": 100_001}, "uses"),
        ({"device": "x" * 257}, "device"),
        ({"device": "\x1b[2J"}, "device"),
    ],
)
def test_a_grant_for_nobody_is_refused(grants: Grants, changes: dict[str, object], words: str) -> None:
    wanted: dict[str, object] = {"app_id": APP, "now": NOW, "life": HOUR} | changes
    with pytest.raises(ConfigurationError, match=words):
        grants.make(**wanted)  # type: ignore[arg-type]


def test_those_that_ended_are_forgotten_in_the_end(grants: Grants, monkeypatch: pytest.MonkeyPatch) -> None:
    old, _ = grants.make(APP, now=NOW, life=HOUR)
    assert [grant.id for grant in grants.list()] == [old.id]
    later = NOW + HOUR + KEPT + timedelta(seconds=1)
    new, _ = grants.make(APP, now=later, life=HOUR)
    assert [grant.id for grant in grants.list()] == [new.id]
    monkeypatch.setattr(module, "MAX_GRANTS", 1)
    with pytest.raises(ConfigurationError, match="grants already"):
        grants.make(APP, now=later, life=HOUR)


def test_those_of_one_second_stand_in_the_order_in_which_they_were_made(grants: Grants) -> None:
    made = [grants.make(APP, now=NOW, life=HOUR)[0] for _ in range(10)]
    assert grants.list() == made


def test_every_step_is_in_the_audit_and_no_token(grants: Grants, state: State) -> None:
    grant, token = grants.make(APP, now=NOW, life=HOUR, uses=2)
    use(grants, state, token)
    grants.withdraw(grant.id, NOW)
    rows: list[sqlite3.Row] = state.read("SELECT body FROM audit ORDER BY number")
    assert [action for row in rows for action in ("made", "used", "withdrawn") if f'"{action}"' in row["body"]] == [
        "made",
        "used",
        "withdrawn",
    ]
    assert all(grant.id in row["body"] and token.split(".")[1] not in row["body"] for row in rows)


def enrol_with(home: Path, token: str) -> bytes:
    """The part of an enrolment that signs, as the enroller does it."""
    with State.open(home / "state.db") as state:
        authority = Authority.open(home, state, create=False)
        grants = Grants(home, state, authority.audit)
        grant = find(grants, token)
        assert grant is not None
        principal = Principal(APP, "a device", Proof.FILESYSTEM)

        def use(database: sqlite3.Connection) -> None:
            grants.use(database, grant, principal.device_id, NOW)

        request = authority.check_request(make_signing_request(APP).csr_pem)
        authority.issue(request, principal, condition=use)
        grants.list()  # a step after the last one that counts
    return b"issued"


@pytest.mark.row("A-07", "D-15")
def test_killed_at_any_step_a_grant_is_used_exactly_with_its_certificate(first_home: Path, tmp_path: Path) -> None:
    pattern = Path(shutil.copytree(first_home, tmp_path / "pattern"))
    with State.open(pattern / "state.db") as state:
        _, token = Grants(pattern, state, Audit(state)).make(APP, now=NOW, life=HOUR)
    counted = Path(shutil.copytree(pattern, tmp_path / "counted"))
    steps = count_steps(lambda: enrol_with(counted, token), counted)
    seen = set()
    for step in range(1, steps + 1):
        home = Path(shutil.copytree(pattern, tmp_path / str(step)))
        killed, answer = run_and_kill(functools.partial(enrol_with, home, token), home, step)
        assert killed or answer == b"issued"
        with State.open(home / "state.db") as state:
            audit = Audit(state)
            (grant,) = Grants(home, state, audit).list()
            issued = len(Inventory(state, audit).records(APP))
        assert grant.used == issued
        seen.add((killed, issued))
        if not issued:
            assert enrol_with(home, token) == b"issued"  # it was not lost
        with pytest.raises(EnrollmentRefused, match="used already"):  # and does not work twice
            enrol_with(home, token)
        shutil.rmtree(home)
    assert {(True, 0), (True, 1)} <= seen
