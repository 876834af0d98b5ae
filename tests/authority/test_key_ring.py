import os
import stat
import subprocess
import sys
from pathlib import Path

import attrs
import keyring
import pytest
from keyring.backends.fail import Keyring as NoKeyring
from keyring.backends.null import Keyring as ForgetfulKeyring
from keyrings.alt.file import PlaintextKeyring

from rsocket_broker.authority import key_ring
from rsocket_broker.authority.home import CaHome
from rsocket_broker.authority.key_ring import Entry
from rsocket_broker.errors import AuthorityError, ConfigurationError


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlaintextKeyring:
    """A real key ring, in a file of the test's."""
    found = PlaintextKeyring()
    found.file_path = str(tmp_path / "ring" / "passwords.cfg")
    monkeypatch.setattr("keyring.core._keyring_backend", found)
    return found


@pytest.mark.row("A-24")
@pytest.mark.usefixtures("ring")
def test_what_is_stored_is_recalled_until_it_is_forgotten() -> None:
    entry, passphrase = Entry.new("home"), key_ring.generated()
    assert entry.account.startswith("home-")
    assert len(passphrase) >= 43
    key_ring.store(entry, passphrase)
    assert key_ring.recall(entry) == passphrase
    assert key_ring.forget(entry)
    assert not key_ring.forget(entry)
    with pytest.raises(AuthorityError, match=rf"no entry {entry.account} of rsocket-broker.*--passphrase-file"):
        key_ring.recall(entry)


def test_entries_have_names_of_their_own() -> None:
    assert Entry.new("home") != Entry.new("home")
    entry = Entry.new("home")
    assert Entry.from_json(entry.to_json(), "it") == entry
    for damaged in (b"", b"{}", b'{"service": 1, "account": "a"}'):
        with pytest.raises(AuthorityError, match="it is damaged"):
            Entry.from_json(damaged, "it")


@pytest.mark.row("A-24")
@pytest.mark.parametrize("backend", [NoKeyring, ForgetfulKeyring])
def test_where_no_key_ring_keeps_it_the_way_out_is_named(
    backend: type[NoKeyring], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyring.core._keyring_backend", backend())
    with pytest.raises(AuthorityError, match=r"key ring.*--passphrase-file") as caught:
        key_ring.store(Entry("a"), b"open sesame")
    assert "sesame" not in caught.value.public
    with pytest.raises(AuthorityError, match="--passphrase-file"):
        key_ring.recall(Entry("a"))


@pytest.mark.usefixtures("ring")
def test_only_text_goes_into_a_key_ring() -> None:
    with pytest.raises(ConfigurationError, match="UTF-8"):
        key_ring.store(Entry("a"), b"\xff\xfe")


def test_without_the_library_the_command_that_installs_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "keyring.py").write_text("raise ImportError('not here')")
    code = (
        "from rsocket_broker.authority import key_ring\n"
        "from rsocket_broker.errors import ConfigurationError\n"
        "try: key_ring.recall(key_ring.Entry('a'))\n"
        "except ConfigurationError as error: print(error.public)"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "pip install 'rsocket_broker[keyring]'" in done.stdout


def test_the_library_is_not_loaded_unless_a_key_ring_is_needed() -> None:
    code = "import sys, rsocket_broker.authority; print('keyring' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n"


@pytest.mark.row("A-24")
def test_a_home_remembers_where_its_passphrase_is(home: Path, ring: PlaintextKeyring) -> None:
    entry = Entry.new("home")
    key_ring.store(entry, b"open sesame")
    found = CaHome(home)
    found.rekey(None, b"open sesame", entry)
    note = home / "ca" / "passphrase.json"
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert "sesame" not in note.read_text()
    issuer = found.load_generation(1)
    assert found.recalled() == b"open sesame"
    found.add_generation(attrs.evolve(issuer, generation=2))
    assert b"ENCRYPTED" in found.ca_key(2).read_bytes()
    keyring.delete_password(entry.service, entry.account)
    with pytest.raises(AuthorityError, match="no entry"):
        found.load_generation(1)
    assert found.load_generation(1, b"open sesame").certificate == issuer.certificate
