import shutil
from pathlib import Path

import pytest

from rsocket_broker.authority import rekeying
from rsocket_broker.authority.home import CaHome
from rsocket_broker.authority.issue import Issuer
from rsocket_broker.authority.key_ring import Entry
from rsocket_broker.errors import AuthorityError
from tests.authority.conftest import some_key
from tests.authority.crash import run_and_kill
from tests.authority.operators_ca import make_ca

CRASH_POINTS = 200
"""More than the work has; the loop ends when the work does."""


@pytest.fixture
def two(home: Path) -> CaHome:
    """A home with two generations."""
    second = make_ca("Second", key=some_key("p-256"))
    CaHome(home).add_generation(Issuer(2, second.certificate, second.key, imported=True))
    return CaHome(home)


def opens(home: CaHome, passphrase: bytes | None) -> list[bool]:
    """Whether each generation's key opens with exactly this."""
    found = []
    for number in home.generations():
        try:
            home.load_generation(number, passphrase)
            found.append((b"ENCRYPTED" in home.ca_key(number).read_bytes()) is (passphrase is not None))
        except AuthorityError:
            found.append(False)
    return found


@pytest.mark.row("A-24")
def test_all_generations_change_together(two: CaHome) -> None:
    numbers = [two.load_generation(number).key.private_numbers() for number in (1, 2)]
    two.rekey(None, b"first", None)
    assert opens(two, b"first") == [True, True]
    two.rekey(b"first", b"second", Entry("somewhere"))
    assert opens(two, b"second") == [True, True]
    assert opens(two, b"first") == [False, False]
    assert two.note() == Entry("somewhere")
    assert two.ca_key(1).stat().st_mode & 0o777 == 0o600
    two.rekey(b"second", None, None)
    assert opens(two, None) == [True, True]
    assert two.note() is None
    assert [two.load_generation(number).key.private_numbers() for number in (1, 2)] == numbers
    assert sorted(path.name for path in two.ca.iterdir()) == ["1", "2"]


@pytest.mark.row("A-24")
def test_a_wrong_passphrase_changes_nothing(two: CaHome) -> None:
    two.rekey(None, b"first", None)
    before = {path: path.read_bytes() for path in two.ca.rglob("*") if path.is_file()}
    with pytest.raises(AuthorityError, match="does not open with this passphrase"):
        two.rekey(b"wrong", b"second", Entry("somewhere"))
    assert {path: path.read_bytes() for path in two.ca.rglob("*") if path.is_file()} == before


@pytest.mark.row("A-24", "D-15")
def test_a_kill_at_any_step_leaves_the_old_passphrase_or_the_new_one_in_all_generations(
    two: CaHome, tmp_path: Path
) -> None:
    two.rekey(None, b"first", Entry("old"))
    pristine = shutil.copytree(two.root, tmp_path / "pristine")
    seen = set()
    for step in range(1, CRASH_POINTS):
        shutil.rmtree(two.root)
        shutil.copytree(pristine, two.root)

        def change() -> bytes:
            two.rekey(b"first", b"second", Entry("new"))
            return b"done"

        killed, _ = run_and_kill(change, two.root, step)
        two.settle()
        old, new = opens(two, b"first"), opens(two, b"second")
        assert (old, new) in (([True, True], [False, False]), ([False, False], [True, True]))
        assert two.note() == Entry("old" if all(old) else "new")
        assert sorted(path.name for path in two.ca.iterdir()) == ["1", "2", "passphrase.json"]
        seen.add(all(new))
        if not killed:
            break
    assert seen == {False, True}
    assert 10 < step < CRASH_POINTS - 1


def test_settling_a_settled_home_does_nothing(home: Path) -> None:
    before = {path: path.read_bytes() for path in (home / "ca").rglob("*") if path.is_file()}
    rekeying.settle(home / "ca")
    rekeying.settle(home / "missing")
    assert {path: path.read_bytes() for path in (home / "ca").rglob("*") if path.is_file()} == before
