"""The table of tokens: whose they are, and who may use them."""

from datetime import UTC, datetime

import attrs
import pytest

from rsocket_broker.errors import SetupRefused
from rsocket_broker.identity import Identity, Principal, Proof
from rsocket_broker.payload import ErrorCode
from rsocket_broker.sessions.resumption import MAX_TOKEN, MIN_TOKEN, UNKNOWN, Resumptions, same_key

TOKEN = b"a token of 16 B."
ANN = Identity(Principal("app", "device", Proof.ADB), "client", 1, "aa", 1, datetime.now(UTC))
RENEWED = attrs.evolve(ANN, serial=2, key_fingerprint="bb")
OTHER_KEY = attrs.evolve(ANN, serial=3, key_fingerprint="cc")
BOB = attrs.evolve(ANN, principal=Principal("app", "other device", Proof.ADB), serial=4, key_fingerprint="dd")
OTHER_PROOF = attrs.evolve(ANN, principal=Principal("app", "device", Proof.FILESYSTEM))


def same_holder(old: Identity, new: Identity) -> bool:
    return same_key(old, new) or (old, new) == (ANN, RENEWED)


@pytest.fixture
def table() -> Resumptions[str]:
    table = Resumptions[str](same_holder)
    table.check(TOKEN, ANN)
    table.add(TOKEN, ANN, "session")
    return table


@pytest.mark.row("D-4", "A-43")
@pytest.mark.parametrize("holder", [ANN, attrs.evolve(ANN, serial=9), RENEWED], ids=["it", "same key", "renewed"])
def test_whoever_holds_the_key_or_a_renewal_finds_the_session(table: Resumptions[str], holder: Identity) -> None:
    assert table.find(TOKEN, holder) == "session"


@pytest.mark.row("D-4", "A-43")
@pytest.mark.parametrize(
    ("token", "holder"),
    [(TOKEN, BOB), (TOKEN, OTHER_KEY), (TOKEN, OTHER_PROOF), (TOKEN + b"!", ANN), (b"", ANN)],
    ids=["another client", "another key", "another proof", "wrong token", "no token"],
)
def test_nobody_else_does_and_nobody_learns_why(table: Resumptions[str], token: bytes, holder: Identity) -> None:
    with pytest.raises(SetupRefused) as refusal:
        table.find(token, holder)
    assert (refusal.value.public, refusal.value.code) == (UNKNOWN, ErrorCode.REJECTED_RESUME)


@pytest.mark.row("A-43")
def test_a_token_in_use_is_taken_for_its_client_and_free_for_others(table: Resumptions[str]) -> None:
    with pytest.raises(SetupRefused, match="in use"):
        table.check(TOKEN, OTHER_KEY)
    table.check(TOKEN, BOB)
    table.add(TOKEN, BOB, "session of bob")
    assert (table.find(TOKEN, ANN), table.find(TOKEN, BOB)) == ("session", "session of bob")
    table.remove("session")
    table.check(TOKEN, ANN)
    assert len(table) == 1
    table.remove("session")
    assert table.find(TOKEN, BOB) == "session of bob"


@pytest.mark.parametrize("size", [0, MIN_TOKEN - 1, MAX_TOKEN + 1])
def test_a_token_has_a_length_that_makes_sense(table: Resumptions[str], size: int) -> None:
    with pytest.raises(SetupRefused, match="bytes"):
        table.check(bytes(size), ANN)
    table.check(bytes(MIN_TOKEN), ANN)
    table.check(bytes(MAX_TOKEN), ANN)


@pytest.mark.row("D-4")
def test_once_resumed_the_newer_certificate_counts(table: Resumptions[str]) -> None:
    table.renew("session", RENEWED)
    assert table.find(TOKEN, attrs.evolve(RENEWED, serial=7)) == "session"
    with pytest.raises(SetupRefused):
        table.find(TOKEN, ANN)
    table.remove("session")
    table.renew("session", ANN)  # it has ended
    assert len(table) == 0


def test_what_is_forgotten_cannot_be_resumed(table: Resumptions[str]) -> None:
    table.add(TOKEN, BOB, "session of bob")
    assert table.forget(lambda identity: identity.serial == ANN.serial) == ["session"]
    assert table.forget(lambda identity: identity.serial == ANN.serial) == []
    with pytest.raises(SetupRefused):
        table.find(TOKEN, ANN)
    assert table.find(TOKEN, BOB) == "session of bob"


def test_the_token_itself_is_not_kept(table: Resumptions[str]) -> None:
    assert TOKEN not in b"".join(table._entries)
    assert repr(TOKEN)[2:-1] not in repr(vars(table))
