import contextlib
import logging
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from rsocket_broker.authority import Authority
from rsocket_broker.authority.authority import RETRY
from rsocket_broker.authority.endpoint import ServerPair
from rsocket_broker.authority.home import CaHome
from rsocket_broker.authority.inventory import Inventory
from rsocket_broker.authority.issue import Issuer
from rsocket_broker.authority.rotation import Phase
from rsocket_broker.authority.server import alternative_names
from rsocket_broker.errors import BrokerError
from rsocket_broker.state import State
from tests.authority.conftest import START, Clock


def refuse() -> Issuer:
    raise AssertionError("nothing is to be signed")


def test_a_pair_that_will_do_is_taken_as_it_is(home: Path, state: State) -> None:
    found, inventory = CaHome(home), Inventory(state)
    ca = found.load_ca_certificate(1)
    pair = ServerPair.load(found, inventory, ca, refuse, None, START)
    assert pair.issuer == ca
    assert "key" not in repr(pair).replace("PublicKey", "")
    assert START < pair.due < START + timedelta(days=25)


def test_a_new_one_keeps_the_key_and_the_names_where_nobody_says_others(home: Path, state: State) -> None:
    found, inventory = CaHome(home), Inventory(state)
    issuer = found.load_generation(1)
    before = ServerPair.load(found, inventory, issuer.certificate, refuse, None, START)
    after = ServerPair.load(found, inventory, issuer.certificate, lambda: issuer, None, before.due)
    assert after.leaf != before.leaf
    assert after.key.public_key() == before.key.public_key()
    assert alternative_names(after.leaf) == alternative_names(before.leaf) != []
    assert found.load_server_chain() == [after.leaf, issuer.certificate]


@pytest.mark.row("A-17", "F-16")
def test_what_cannot_be_renewed_yet_goes_on_with_the_old(
    authority: Authority, clock: Clock, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = authority.serving()
    clock.now = authority.due
    server = home / "server"
    shutil.move(server, home / "away")
    server.touch()
    with caplog.at_level(logging.ERROR):
        assert authority.serving() is before
    assert "tried again" in caplog.text
    server.unlink()
    shutil.move(home / "away", server)
    assert authority.serving() is before, "not at every handshake"
    clock.now += RETRY
    assert authority.serving() is not before


def test_what_must_change_is_never_left_as_it_was(authority: Authority, home: Path) -> None:
    """A new generation signs, and no certificate of it can be put in place: the old one would lie to whoever comes."""
    authority.prepare()
    shutil.rmtree(home / "server")
    (home / "server").touch()
    with contextlib.suppress(BrokerError):
        authority.switch()
    assert authority.phase is Phase.SWITCHED
    with pytest.raises(BrokerError):
        authority.serving()
