"""The record of child sessions: what is known after an end, and after a restart."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from rsocket_broker.audit import Audit
from rsocket_broker.sessions import store as store_module
from rsocket_broker.sessions.store import KEPT, RESTARTED, Record, SessionStore
from rsocket_broker.sessions.tokens import new_token, token_digest
from rsocket_broker.sessions.tree import Node, NodeKind
from rsocket_broker.state import State
from rsocket_broker.transports.base import Channel

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
NODE = Node(
    id="s-1",
    kind=NodeKind.WEB,
    channel=Channel.WS,
    since=NOW,
    expires=NOW + timedelta(hours=1),
    parent="c1",
    scope=("Network.*", "echo.request"),
    rate=2.5,
    user="anna",
    device_id="tab-1",
    name="Inspector",
    platform="Firefox",
)
RECORD = Record(node=NODE, path=("c1",), principal="com.demo@dev1 (adb)")


def ended(node: Node = NODE, reason: str = "logged out", when: datetime = NOW) -> Record:
    return attrs.evolve(RECORD, node=node, ended=when, reason=reason)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(tmp_path / "home" / "state.db") as opened:
        yield opened


def opened(state: State) -> SessionStore:
    return SessionStore(state, Audit(state))


def events(state: State) -> list[str]:
    return [row["body"] for row in state.read("SELECT body FROM audit WHERE event = 'session' ORDER BY number")]


@pytest.mark.row("W-2", "W-7", "W-11")
def test_what_was_made_is_known_with_all_that_it_was_given(state: State) -> None:
    store = opened(state)
    store.add(RECORD, b"digest")
    assert store.get("s-1") == RECORD
    assert store.by_token(b"digest") == RECORD
    assert store.by_token(b"other") is None
    assert store.ended() == []
    plain = attrs.evolve(RECORD, node=attrs.evolve(NODE, id="s-2", scope=None, rate=None, user=""))
    store.add(plain, b"second")
    assert store.get("s-2") == plain


@pytest.mark.row("A-60")
def test_what_has_ended_is_known_with_its_reason_and_is_not_ended_twice(state: State) -> None:
    store = opened(state)
    store.add(RECORD, b"digest")
    store.end([ended()])
    store.end([ended(NODE, "again", NOW + timedelta(hours=1))])
    assert store.get("s-1") == store.by_token(b"digest") == ended()
    assert store.ended() == [ended()]
    assert len(events(state)) == 2


@pytest.mark.row("A-59", "W-12")
def test_no_child_outlives_the_process_that_held_its_root(state: State) -> None:
    before = opened(state)
    before.add(RECORD, b"digest")
    after = opened(state)
    assert after.key == before.key
    assert after.settle(NOW) == 1
    found = after.by_token(b"digest")
    assert found is not None
    assert (found.ended, found.reason) == (NOW, RESTARTED)
    assert after.get("s-1") is None, "ids of roots come again, so those of another process say nothing"
    assert after.settle(NOW) == 0
    assert RESTARTED in events(state)[-1]


def test_its_own_children_are_not_ended_by_settling(state: State) -> None:
    store = opened(state)
    store.add(RECORD, b"digest")
    assert store.settle(NOW) == 0
    assert store.get("s-1") == RECORD


def test_what_ended_long_ago_is_forgotten(state: State) -> None:
    store = opened(state)
    store.add(RECORD, b"digest")
    store.end([ended()])
    store.settle(NOW + KEPT)
    assert len(store.ended()) == 1
    store.settle(NOW + KEPT + timedelta(seconds=1))
    assert store.ended() == []


def test_no_more_are_remembered_than_there_is_room_for(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_ENDED", 5)
    monkeypatch.setattr(store_module, "TRIM_EVERY", 4)
    store = opened(state)
    for number in range(24):
        node = attrs.evolve(NODE, id=f"s-{number}")
        store.add(attrs.evolve(RECORD, node=node), str(number).encode())
        store.end([ended(node, "logged out", NOW + timedelta(seconds=number))])
    assert [record.node.id for record in store.ended()] == ["s-19", "s-20", "s-21", "s-22", "s-23"]


@pytest.mark.row("D-14")
def test_no_token_is_in_the_database(state: State, tmp_path: Path) -> None:
    store = opened(state)
    token = new_token()
    store.add(RECORD, token_digest(store.key, NODE.channel, token.encode()))
    store.end([ended()])
    state.close()
    for path in (tmp_path / "home").iterdir():
        assert token.encode() not in path.read_bytes()


def test_two_sessions_never_share_a_token(state: State) -> None:
    store = opened(state)
    store.add(RECORD, b"digest")
    with pytest.raises(sqlite3.IntegrityError):
        store.add(attrs.evolve(RECORD, node=attrs.evolve(NODE, id="s-2")), b"digest")


def test_a_broker_that_starts_finds_the_table_settled(state: State) -> None:
    opened(state).add(RECORD, b"digest")
    store = SessionStore.open(state, Audit(state))
    assert [record.reason for record in store.ended()] == [RESTARTED]


@pytest.mark.row("D-14", "W-11")
def test_the_audit_repeats_no_more_of_a_scope_than_of_another_text(state: State) -> None:
    store = opened(state)
    store.add(RECORD, b"digest")
    many = tuple(str(number) + "\N{GRINNING FACE}" * 100 for number in range(20))
    store.add(attrs.evolve(RECORD, node=attrs.evolve(NODE, id="s-2", scope=many)), b"other")
    found = store.get("s-2")
    assert found is not None
    assert found.node.scope == many
    small, large = events(state)
    assert '"scope":["Network.*","echo.request"]' in small
    assert large.count('"...') == 1
    assert len(large.encode()) < 8192
