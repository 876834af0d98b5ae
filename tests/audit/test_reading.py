import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rsocket_broker.audit import Audit, Event, reading
from rsocket_broker.audit import audit as audit_module
from rsocket_broker.audit.audit import to_text
from rsocket_broker.audit.chain import Entry, Head, Mark, content
from rsocket_broker.audit.events import Book
from rsocket_broker.audit.reading import Wanted
from rsocket_broker.errors import HomeError
from rsocket_broker.state import State

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
Write = Callable[..., None]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(tmp_path / "state.db") as opened:
        reading.prepare(opened)
        yield opened


@pytest.fixture
def write(state: State) -> Write:
    """Writes records a minute apart."""
    now = [NOON]

    def tick() -> datetime:
        now[0] += timedelta(minutes=1)
        return now[0]

    audit = Audit(state, tick)

    def one(event: Event, **facts: object) -> None:
        with state.transaction() as database:
            audit.write(database, event, **facts)

    return one


@pytest.fixture
def some(write: Write) -> None:
    write(Event.ISSUED, app_id="a", device_id="1", serial="1")
    write(Event.SESSION, app_id="a", device_id="1")
    write(Event.ISSUED, app_id="a", device_id="2", serial="2")
    write(Event.REVOKED, app_id="b", device_id="1", serial="3")
    write(Event.LISTENER, name="http")


def events(entries: list[Entry]) -> list[str]:
    return [each.event for each in entries]


def spoil(state: State, sql: str, *values: object) -> None:
    with state.transaction() as database:
        database.execute(sql, values)


@pytest.mark.usefixtures("some")
def test_the_newest_come_last_and_may_be_chosen(state: State) -> None:
    def found(limit: int = 50, **wanted: object) -> list[str]:
        return events(reading.newest(state, Wanted(**wanted), limit))  # type: ignore[arg-type]

    assert found() == ["issue", "session", "issue", "revoke", "listener"]
    assert found(2) == ["revoke", "listener"]
    assert found(1, events=("issue",)) == ["issue"]
    assert found(events=("issue", "revoke")) == ["issue", "issue", "revoke"]
    assert found(app_id="a") == ["issue", "session", "issue"]
    assert found(app_id="a", device_id="1") == ["issue", "session"]
    assert found(app_id="c") == []
    assert found(since=to_text(NOON + timedelta(minutes=4))) == ["revoke", "listener"]


@pytest.mark.usefixtures("some")
def test_what_comes_later_is_given_once(state: State, write: Write) -> None:
    seen = reading.ends(state)
    assert seen == {Book.CHANGES: 4, Book.TRAFFIC: 1}
    assert reading.later(state, Wanted(), seen) == []
    write(Event.SESSION, app_id="a")
    write(Event.REVOKED, app_id="a")
    assert events(reading.later(state, Wanted(events=("revoke",)), seen)) == ["revoke"]
    assert reading.later(state, Wanted(), seen) == []


@pytest.mark.usefixtures("some")
def test_everything_is_given_book_by_book(state: State) -> None:
    found = list(reading.everything(state))
    assert [item.book for item in found if isinstance(item, Head)] == [Book.CHANGES, Book.TRAFFIC]
    assert [item.number for item in found if isinstance(item, Entry)] == [1, 2, 3, 4, 1]


@pytest.mark.row("D-14")
@pytest.mark.usefixtures("some")
@pytest.mark.parametrize(
    ("sql", "number"),
    [
        ('UPDATE audit SET body = replace(body, \'"serial":"2"\', \'"serial":"4"\') WHERE book = \'changes\'', 2),
        ("UPDATE audit SET body = CAST(x'ff' || body AS TEXT) WHERE book = 'changes' AND number = 3", 3),
        ("UPDATE audit SET event = 'issue' WHERE event = 'revoke'", 3),
        ("UPDATE audit SET time = '2020' WHERE event = 'revoke'", 3),
        ("DELETE FROM audit WHERE book = 'changes' AND number = 1", 1),
        ("DELETE FROM audit WHERE book = 'changes' AND number = 4", 4),
        ("DELETE FROM audit WHERE book = 'changes'", 1),
        ("UPDATE audit SET book = 'other' WHERE book = 'changes' AND number = 2", 2),
        ("UPDATE audit_heads SET count = 3 WHERE book = 'changes'", 4),
        ("UPDATE audit_heads SET hash = base_hash WHERE book = 'changes'", 4),
        ("UPDATE audit_heads SET base = 1 WHERE book = 'changes'", 2),
        ("DELETE FROM audit_heads WHERE book = 'changes'", 1),
    ],
)
def test_whatever_is_changed_is_named(state: State, sql: str, number: int) -> None:
    assert reading.verify(state).faults == []
    spoil(state, sql)
    (fault,) = reading.verify(state).faults
    assert (fault.book, fault.number) == (Book.CHANGES, number)
    reading.newest(state, Wanted(), 10)


@pytest.mark.row("D-14")
def test_a_trimmed_book_is_sound_and_one_cut_by_hand_is_not(
    state: State, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "MAX_TRAFFIC", 6)
    monkeypatch.setattr(audit_module, "TRIMMED_AT_ONCE", 2)
    for number in range(9):
        write(Event.SESSION, id=number)
    verdict = reading.verify(state)
    assert verdict.faults == []
    assert verdict.heads[1].base == 4
    found = state.read("SELECT hash FROM audit WHERE book = 'traffic' AND number = 5")[0][0]
    spoil(state, "DELETE FROM audit WHERE book = 'traffic' AND number = 5")
    spoil(state, "UPDATE audit_heads SET base = 5, base_hash = ? WHERE book = 'traffic'", found)
    (fault,) = reading.verify(state).faults
    assert (fault.book, fault.number) == (Book.TRAFFIC, 6)


@pytest.mark.row("D-14")
@pytest.mark.usefixtures("some")
def test_a_mark_that_is_no_longer_true_is_named(state: State) -> None:
    (head, _) = reading.verify(state).heads
    mark = Mark(Book.CHANGES, head.count, head.hash)
    assert reading.verify(state, [mark]).faults == []
    (fault,) = reading.verify(state, [Mark(Book.CHANGES, 2, head.hash)]).faults
    assert fault.number == 2
    (fault,) = reading.verify(state, [Mark(Book.TRAFFIC, 7, head.hash)]).faults
    assert (fault.book, fault.number) == (Book.TRAFFIC, 7)


def test_what_sqlite_cannot_read_is_told(state: State) -> None:
    spoil(state, "DROP TABLE audit_heads")
    with pytest.raises(HomeError, match="audit cannot be read"):
        reading.verify(state)


def test_a_record_without_facts_is_of_no_client() -> None:
    assert Wanted().takes("issue", {})
    assert not Wanted(app_id="a").takes("issue", {})


def test_a_client_is_known_by_its_whole_name_too() -> None:
    body = {"facts": {"client": "com.example@d1 (adb)"}}
    assert Wanted(app_id="com.example").takes("session", body)
    assert Wanted(app_id="com.example", device_id="d1").takes("session", body)
    assert not Wanted(app_id="com.example", device_id="d").takes("session", body)
    assert not Wanted(app_id="com").takes("session", body)
    bare = {"facts": {"client": "com.example@- (operator)"}}
    assert Wanted(app_id="com.example", device_id="").takes("session", bare)
    assert not Wanted(app_id="com.example", device_id="").takes("session", body)


@pytest.mark.usefixtures("some")
def test_a_flipped_byte_in_the_file_is_named(state: State, tmp_path: Path) -> None:
    """As a hex editor would do it: behind the back of SQLite."""
    spoil(state, "PRAGMA user_version = 1")
    state.close()
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    raw = path.read_bytes()
    place = raw.index(b'"serial":"3"') + len('"serial":"')
    path.write_bytes(raw[:place] + b"4" + raw[place + 1 :])
    with State.open(path) as again:
        (fault,) = reading.verify(again).faults
        assert fault.number == 3
        assert content(reading.newest(again, Wanted(events=("revoke",)), 1)[0])["facts"]["serial"] == "4"
