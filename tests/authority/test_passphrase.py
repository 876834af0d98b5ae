from pathlib import Path

import pytest
from keyring.backends.fail import Keyring as NoKeyring
from keyrings.alt.file import PlaintextKeyring

from rsocket_broker.authority import key_ring
from rsocket_broker.authority.home import CaHome
from rsocket_broker.authority.passphrase import begin_with_key_ring, check_new, expose, protect, protection
from rsocket_broker.errors import AuthorityError

OLD, NEW = b"the old passphrase", b"the new passphrase"


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlaintextKeyring:
    found = PlaintextKeyring()
    found.file_path = str(tmp_path / "ring" / "passwords.cfg")
    monkeypatch.setattr("keyring.core._keyring_backend", found)
    return found


def opens(home: CaHome, passphrase: bytes | None) -> bool:
    try:
        home.load_generation(1, passphrase)
    except AuthorityError:
        return False
    return True


@pytest.mark.row("A-24")
def test_a_passphrase_of_a_file_is_given_changed_and_taken_away(home: Path) -> None:
    found = CaHome(home)
    assert not protection(found).complete
    assert protect(found, None, OLD, ring=False).complete
    assert opens(found, OLD)
    assert not opens(found, None)
    assert protect(found, OLD, NEW, ring=False).entry is None
    assert (opens(found, OLD), opens(found, NEW)) == (False, True)
    assert expose(found, NEW).encrypted == {1: False}
    assert opens(found, None)


@pytest.mark.row("A-24")
@pytest.mark.usefixtures("ring")
def test_the_key_ring_keeps_one_that_nobody_has_seen(home: Path) -> None:
    found = CaHome(home)
    first = protect(found, None, None, ring=True)
    assert first.complete
    assert first.entry is not None
    assert opens(found, None)
    second = protect(found, None, NEW, ring=True)
    assert second.entry not in (None, first.entry)
    with pytest.raises(AuthorityError, match="no entry"):
        key_ring.recall(first.entry)
    assert found.recalled() == NEW
    assert protect(found, None, OLD, ring=False).entry is None
    assert opens(found, OLD)
    assert not opens(found, None)
    with pytest.raises(AuthorityError, match="no entry"):
        key_ring.recall(second.entry or first.entry)


@pytest.mark.row("A-24")
def test_what_fails_leaves_the_old_one(home: Path, ring: PlaintextKeyring, monkeypatch: pytest.MonkeyPatch) -> None:
    found = CaHome(home)
    protect(found, None, OLD, ring=False)
    with pytest.raises(AuthorityError, match="does not open with this passphrase"):
        protect(found, b"wrong", NEW, ring=True)
    assert "home-" not in Path(ring.file_path).read_text(), "the entry that nothing needs is gone"
    monkeypatch.setattr("keyring.core._keyring_backend", NoKeyring())
    with pytest.raises(AuthorityError, match="key ring"):
        protect(found, OLD, None, ring=True)
    with pytest.raises(AuthorityError, match="12 or more"):
        protect(found, OLD, b"short", ring=False)
    assert opens(found, OLD)


@pytest.mark.usefixtures("ring")
def test_a_home_can_begin_with_the_key_ring(tmp_path: Path, home: Path) -> None:
    (tmp_path / "new").mkdir(mode=0o700)
    new = CaHome(tmp_path / "new")
    begin_with_key_ring(new, None)
    new.add_generation(CaHome(home).load_generation(1))
    assert protection(new).complete
    assert opens(new, None)


def test_a_short_one_is_refused_with_its_length_only() -> None:
    with pytest.raises(AuthorityError, match="has 5 characters") as caught:
        check_new(b"hello")
    assert "hello" not in caught.value.public
    assert check_new(NEW) == NEW
