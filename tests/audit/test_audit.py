import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from rsocket_broker.audit import Audit, Event
from rsocket_broker.audit import audit as audit_module
from rsocket_broker.audit.audit import MAX_ITEMS, MAX_TEXT, read_head, to_text
from rsocket_broker.audit.chain import Entry, Head, first_fault, misplaced_base
from rsocket_broker.audit.events import Book
from rsocket_broker.identity import Proof
from rsocket_broker.state import State

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(tmp_path / "state.db") as opened:
        yield opened


@pytest.fixture
def audit(state: State) -> Audit:
    return Audit(state, lambda: NOON)


def book(state: State, which: Book) -> tuple[list[Entry], Head]:
    with state.snapshot() as database:
        rows = database.execute("SELECT * FROM audit WHERE book = ? ORDER BY number", (which.value,)).fetchall()
        return [Entry(which, *row[1:]) for row in rows], read_head(database, which)


def bodies(state: State, which: Book) -> list[dict[str, object]]:
    return [json.loads(each.body) for each in book(state, which)[0]]


def test_a_record_stands_and_falls_with_what_it_tells_of(state: State, audit: Audit) -> None:
    with pytest.raises(ZeroDivisionError), state.transaction() as database:
        audit.write(database, Event.ISSUED, serial="1")
        _ = 1 / 0
    with state.transaction() as database:
        audit.write(database, Event.ISSUED, serial="2", proof=Proof.ADB)
        audit.write(database, Event.REVOKED, serial="2", reason="lost")
    first, second = bodies(state, Book.CHANGES)
    assert (first["number"], first["event"], first["time"]) == (1, "issue", "2026-03-01T12:00:00.000Z")
    assert first["facts"] == {"serial": "2", "proof": "adb"}
    assert second["number"] == 2
    assert first_fault(*book(state, Book.CHANGES)) is None


def test_many_records_of_both_books_are_the_chain_that_they_are_one_by_one(state: State, audit: Audit) -> None:
    told = [(event, {"serial": str(n)}) for n in range(3) for event in (Event.ISSUED, Event.SESSION, Event.DEPLOYED)]
    with state.transaction() as database:
        for event, facts in told:
            audit.write(database, event, **facts)
    one_by_one = {which: book(state, which) for which in Book}
    with state.transaction() as database:
        database.execute("DELETE FROM audit")
        database.execute("DELETE FROM audit_heads")
        audit.write_all(database, told[:2])
        audit.write_all(database, told[2:])
    assert {which: book(state, which) for which in Book} == one_by_one
    assert [first_fault(*one_by_one[which]) for which in Book] == [None, None]


def test_a_note_is_on_the_disk_soon_and_nobody_waits_for_it(state: State, audit: Audit) -> None:
    written = threading.Event()
    write = audit.flush

    def flush(*, all_of_it: bool = False) -> None:
        write(all_of_it=all_of_it)
        written.set()

    audit.flush = flush  # type: ignore[method-assign]
    audit.note(Event.CALL_REFUSED, app_id="com.example", method="echo.request")
    assert written.wait(5)
    audit.close()
    (record,) = bodies(state, Book.TRAFFIC)
    assert record["facts"] == {"app_id": "com.example", "method": "echo.request"}


def test_what_was_noted_is_on_the_disk_once_it_is_closed(state: State, audit: Audit) -> None:
    audit.note(Event.LISTENER, name="http", state="closed")
    audit.close()
    audit.close()
    assert [record["event"] for record in bodies(state, Book.CHANGES)] == ["listener"]


def test_nothing_runs_after_it_is_closed(state: State, audit: Audit) -> None:
    before = threading.active_count()
    audit.note(Event.CALL_REFUSED, app_id="a")
    audit.flush()
    assert threading.active_count() == before + 1
    audit.close()
    audit.note(Event.CALL_REFUSED, app_id="b")
    assert threading.active_count() == before
    assert len(bodies(state, Book.TRAFFIC)) == 1


def test_two_who_write_at_once_make_one_chain(state: State, tmp_path: Path) -> None:
    def work() -> None:
        with State.open(tmp_path / "state.db") as mine:
            audit = Audit(mine)
            for number in range(20):
                with mine.transaction() as database:
                    audit.write(database, Event.ISSUED, serial=f"{number:x}")

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries, head = book(state, Book.CHANGES)
    assert (len(entries), head.count, first_fault(entries, head)) == (60, 60, None)


def test_facts_are_cut_to_what_a_record_may_hold(state: State, audit: Audit) -> None:
    with state.transaction() as database:
        audit.write(
            database,
            Event.ISSUED,
            text="x" * 10_000,
            many=[1] * 1000,
            some={"b", "a"},
            when=NOON.astimezone(timezone(timedelta(hours=2))),
            half="\ud83d",
            nothing=None,
            endless=float("inf"),
        )
    (record,) = bodies(state, Book.CHANGES)
    facts = record["facts"]
    assert isinstance(facts, dict)
    assert len(facts["text"]) == MAX_TEXT
    assert len(facts["many"]) == MAX_ITEMS
    assert facts["some"] == ["a", "b"]
    assert facts["when"] == to_text(NOON)
    assert facts["half"] == "\ud83d"
    assert facts["endless"] == "inf"


def test_what_may_be_a_secret_is_no_fact(state: State, audit: Audit) -> None:
    with pytest.raises(TypeError, match="bytes"), state.transaction() as database:
        audit.write(database, Event.ISSUED, key=b"secret")
    with pytest.raises(TypeError, match="Audit"):
        audit.note(Event.ISSUED, who=audit)


def test_a_disk_that_fails_is_told_to_the_log(
    state: State, audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audit_module, "FLUSH_S", 60)
    audit.note(Event.POLICY, digest="1")
    state.close()
    audit.close()
    assert "1 audit records could not be written" in caplog.text


def test_a_thousand_refusals_are_two_records(state: State, audit: Audit) -> None:
    for _ in range(1000):
        audit.note(Event.CALL_REFUSED, app_id="a", method="m")
    audit.close()
    records = bodies(state, Book.TRAFFIC)
    assert [record["facts"].get("count") for record in records] == [None, 999]  # type: ignore[attr-defined]


def test_what_the_disk_did_not_take_is_recorded_when_it_takes_again(
    state: State, audit: Audit, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "FLUSH_S", 60)
    with state.transaction() as database:
        database.execute("ALTER TABLE audit RENAME TO hidden")
    audit.note(Event.CALL_REFUSED, app_id="a")
    audit.flush()
    with state.transaction() as database:
        database.execute("ALTER TABLE hidden RENAME TO audit")
    audit.close()
    (record,) = bodies(state, Book.TRAFFIC)
    assert record["event"] == "drop"
    assert "could not be written" in caplog.text


def test_the_oldest_traffic_makes_room_and_that_is_recorded(
    state: State, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "MAX_TRAFFIC", 10)
    monkeypatch.setattr(audit_module, "TRIMMED_AT_ONCE", 4)
    for number in range(25):
        with state.transaction() as database:
            audit.write(database, Event.SESSION, id=number)
    entries, head = book(state, Book.TRAFFIC)
    assert (head.base, head.count, len(entries)) == (16, 25, 9)
    assert first_fault(entries, head) is None
    trims = [record["facts"] for record in bodies(state, Book.CHANGES)]
    assert [(trim["first"], trim["last"]) for trim in trims] == [(1, 4), (5, 8), (9, 12), (13, 16)]  # type: ignore[index]
    assert misplaced_base(head, trims) is None  # type: ignore[arg-type]


def test_a_change_is_never_taken_away(state: State, audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "MAX_TRAFFIC", 3)
    for number in range(10):
        with state.transaction() as database:
            audit.write(database, Event.ISSUED, serial=f"{number:x}")
    assert len(bodies(state, Book.CHANGES)) == 10


def test_many_notes_are_written_a_few_at_a_time(state: State, audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "FLUSH_S", 60)
    monkeypatch.setattr(audit_module, "AT_ONCE", 10)
    sizes: list[int] = []
    write = audit._write_notes
    monkeypatch.setattr(audit, "_write_notes", lambda notes: (sizes.append(len(notes)), write(notes)))
    for number in range(35):
        audit.note(Event.CALL_REFUSED, app_id=f"a{number}")
    audit.close()
    assert sizes == [10, 10, 10, 5]
    assert len(bodies(state, Book.TRAFFIC)) == 35


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("UPDATE audit_heads SET count = 1, hash = (SELECT hash FROM audit WHERE number = 1)", 4),
        ("UPDATE audit_heads SET count = 1", None),  # not one record is other than it was
        ("DELETE FROM audit_heads", 4),
        ("DELETE FROM audit", 1),
    ],
)
def test_whoever_meddles_with_the_record_stops_nobody_and_is_found(
    state: State, audit: Audit, change: str, named: int | None
) -> None:
    def work() -> None:
        with state.transaction() as database:
            audit.write(database, Event.ISSUED, serial="1")

    for _ in range(3):
        work()
    with state.transaction() as database:
        database.execute(change)
    work()
    work()
    fault = first_fault(*book(state, Book.CHANGES))
    assert (None if fault is None else fault.number) == named
