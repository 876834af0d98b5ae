import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from keyring.backends.null import Keyring as NullKeyring
from keyrings.alt.file import PlaintextKeyring

from rsocket_broker.audit import Audit, Event
from rsocket_broker.authority import Authority
from rsocket_broker.authority.home import CaHome
from rsocket_broker.authority.imported import make_issuer
from rsocket_broker.authority.key_ring import Entry
from rsocket_broker.authority.requests import check_request
from rsocket_broker.cli import production
from rsocket_broker.cli.production import Judgement, Level
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.state import State
from tests.authority.operators_ca import make_ca

NOW = datetime.now(UTC).replace(microsecond=0)


def levels(judgements: Iterable[Judgement]) -> dict[str, Level]:
    return {each.what: each.level for each in judgements}


def judged(home: Path, now: datetime = NOW, passphrase_file: Path | None = None) -> dict[str, Judgement]:
    return {each.what: each for each in production.judge_home(home, now, passphrase_file)}


@pytest.mark.row("M-4", "A-24")
def test_a_key_in_the_clear_is_a_must_until_it_is_encrypted(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = judged(home)["CA key"]
    assert found.level is Level.MUST
    assert "generation 1" in found.detail
    assert "ca passphrase set" in found.detail
    CaHome(home).rekey(None, b"a passphrase", None)
    assert judged(home)["CA key"].level is Level.OK
    inside = home / "passphrase"
    inside.write_text("a passphrase")
    found = judged(home, passphrase_file=inside)["CA key"]
    assert (found.level, "Move it elsewhere" in found.detail) == (Level.MUST, True)
    assert judged(home, passphrase_file=tmp_path / "passphrase")["CA key"].level is Level.OK
    CaHome(home).rekey(b"a passphrase", b"a passphrase", Entry("somewhere"))
    monkeypatch.setattr("keyring.core._keyring_backend", NullKeyring())
    (judgement,) = production.judge_key_protection(CaHome(home), None)
    assert (judgement.level, "in the key ring" in judgement.detail) == (Level.OK, True)
    monkeypatch.setattr("keyring.core._keyring_backend", PlaintextKeyring())
    (judgement,) = production.judge_key_protection(CaHome(home), None)
    assert (judgement.level, "in the clear" in judgement.detail) == (Level.MUST, True)


@pytest.mark.row("M-4")
def test_a_loose_mode_and_a_folder_above_that_others_may_change_are_musts(home: Path) -> None:
    assert judged(home)["files and record"].level is Level.OK
    (home / "ca" / "1" / "ca.key").chmod(0o640)
    (found,) = [each for each in production.judge_soundness(home) if each.level is not Level.OK]
    assert (found.what, found.level) == ("CA key, generation 1", Level.MUST)
    assert "chmod 600" in found.detail
    home.parent.chmod(0o777)
    found = next(each for each in production.judge_user(home) if each.what == "folders above")
    assert found.detail.endswith(f"chmod go-w {home.parent}")
    home.parent.chmod(0o700)
    assert "folders above" not in levels(production.judge_user(home))


@pytest.mark.row("M-4")
@pytest.mark.parametrize(
    ("days", "level"), [(30, Level.OK), (90, Level.OK), (91, Level.SHOULD), (397, Level.SHOULD), (398, Level.MUST)]
)
def test_long_lives_are_named(days: int, level: Level) -> None:
    found = production.judge_life("it", timedelta(days=days), "Mend it.")
    assert found.level is level
    assert (level is Level.OK) or found.detail.endswith("Mend it.")


@pytest.mark.row("M-4")
def test_a_long_lived_certificate_is_named_by_its_serial(home: Path) -> None:
    with State.open(home / "state.db") as state:
        authority = Authority.open(home, state)
        request = check_request(make_signing_request("org.example.app").csr_pem)
        issued = authority.issue(request, Principal("org.example.app", "", Proof.OPERATOR))
        records = authority.certificates()
    assert levels(production.judge_lifetimes(records, NOW))["certificates (1 live)"] is Level.OK
    long = [attrs.evolve(each, not_after=each.not_after + timedelta(days=3650)) for each in records]
    found = [each for each in production.judge_lifetimes(long, NOW) if each.level is Level.MUST]
    assert [each.what for each in found] == ["certificates (1 live)"]
    assert f"ca revoke {issued.serial:x}" in found[0].detail


@pytest.mark.row("M-4", "A-55")
def test_an_old_key_and_a_near_end_are_named(home: Path) -> None:
    for later, age, end in (
        (timedelta(0), Level.OK, Level.OK),
        (timedelta(days=400), Level.SHOULD, Level.OK),
        (timedelta(days=1100), Level.MUST, Level.OK),
        (timedelta(days=3650 - 80), Level.MUST, Level.SHOULD),
        (timedelta(days=3650 - 20), Level.MUST, Level.MUST),
    ):
        with State.open(home / "state.db") as state:
            authority = Authority.open(home, state, create=False)
            found = levels(production.judge_ca(authority, authority.certificates(), NOW + later))
        assert (found["age of the CA"], found["end of the CA"]) == (age, end), later


@pytest.mark.row("M-4")
def test_an_imported_ca_that_grows_too_old_is_told_in_time(tmp_path: Path) -> None:
    root = make_ca("Root", number=140, now=NOW, age=timedelta(days=300), life=timedelta(days=500))
    ours = make_ca("Ours", root, number=141, now=NOW, life=timedelta(days=150))
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    CaHome(home).prepare()
    CaHome(home).add_generation(make_issuer(ours.certificate, ours.key, [root.certificate], NOW))
    with State.open(home / "state.db") as state:
        authority = Authority.open(home, state)
        for later, level in ((0, Level.OK), (25, Level.SHOULD), (40, Level.SHOULD)):
            (found,) = production.judge_import(authority, CaHome(home), NOW + timedelta(days=later))
            assert found.level is level
            assert level is Level.OK or "ca import" in found.detail
        near = levels(production.judge_ca(authority, authority.certificates(), NOW + timedelta(days=130)))
    assert near["end of the CA"] is Level.MUST


@pytest.mark.row("M-4")
def test_a_rotation_that_stays_open_is_named(home: Path) -> None:
    with State.open(home / "state.db") as state:
        authority = Authority.open(home, state)
        assert levels(production.judge_rotation(authority, NOW))["rotation"] is Level.OK
        authority.prepare()
        for days, level in ((1, Level.OK), (8, Level.SHOULD), (31, Level.MUST)):
            (found,) = production.judge_rotation(authority, NOW + timedelta(days=days))
            assert found.level is level
            assert "prepared since" in found.detail


@pytest.mark.row("M-4", "A-55")
def test_a_clock_that_was_set_back_shows(home: Path) -> None:
    now = datetime.now(UTC)  # the home was made a while ago, or a moment
    assert levels(production.judge_clock(home, [], now + timedelta(minutes=1)))["clock"] is Level.OK
    (found,) = production.judge_clock(home, [], now - timedelta(days=2))
    assert found.level is Level.MUST
    assert "NTP" in found.detail
    future = (now + timedelta(days=1)).timestamp()
    os.utime(home / "ca" / "1" / "ca.crt", (future, future))
    assert levels(production.judge_clock(home, [], now))["clock"] is Level.MUST


@pytest.mark.row("M-4")
def test_a_backup_is_asked_for(home: Path) -> None:
    with State.open(home / "state.db") as state:
        assert levels(production.judge_backup(state, NOW))["backup"] is Level.SHOULD
        with state.transaction() as database:
            Audit(state).write(database, Event.BACKED_UP, sha256="0" * 64)
        assert levels(production.judge_backup(state, NOW))["backup"] is Level.OK
        assert levels(production.judge_backup(state, NOW + timedelta(days=31)))["backup"] is Level.SHOULD


def test_a_home_without_authority_is_one_must(tmp_path: Path) -> None:
    assert levels(production.judge_home(tmp_path, NOW, None)) == {"home": Level.MUST}
