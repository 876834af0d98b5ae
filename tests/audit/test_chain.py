import hashlib
import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.audit.chain import (
    START,
    Entry,
    Fault,
    Head,
    Mark,
    Verdict,
    after,
    content,
    entry,
    first_fault,
    misplaced_base,
    missing_mark,
)
from rsocket_broker.audit.events import Book

FACTS = st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.integers(), st.text(max_size=5)), max_size=3)


def make(count: int, facts: list[dict[str, object]] | None = None) -> tuple[list[Entry], Head]:
    head, entries = Head(Book.CHANGES), []
    for number in range(count):
        added = entry(head, "2026-03-01T12:00:00.000Z", "issue", facts[number] if facts else {"serial": f"{number:x}"})
        entries.append(added)
        head = after(head, added)
    return entries, head


def named(entries: list[Entry], head: Head) -> int | None:
    fault = first_fault(entries, head)
    return None if fault is None else fault.number


def test_a_hash_can_be_reckoned_with_any_tool() -> None:
    (first, second), head = make(2)
    assert first.hash == hashlib.sha256(first.body.encode()).hexdigest()
    assert json.loads(first.body)["previous"] == START
    assert json.loads(second.body)["previous"] == first.hash
    assert (head.count, head.hash) == (2, second.hash)
    assert first.body == json.dumps(json.loads(first.body), sort_keys=True, separators=(",", ":"))


@given(st.lists(FACTS, max_size=8))
def test_a_chain_as_it_was_written_has_no_fault(facts: list[dict[str, object]]) -> None:
    assert first_fault(*make(len(facts), facts)) is None


@pytest.mark.row("D-14")
@given(st.lists(FACTS, min_size=1, max_size=8), st.data())
def test_one_flipped_bit_names_its_record(facts: list[dict[str, object]], data: st.DataObject) -> None:
    entries, head = make(len(facts), facts)
    which = data.draw(st.integers(0, len(entries) - 1))
    name = data.draw(st.sampled_from(["body", "hash"]))
    raw = bytearray(getattr(entries[which], name).encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    entries[which] = attrs.evolve(entries[which], **{name: raw.decode("utf-8", "surrogateescape")})
    assert named(entries, head) == which + 1


@pytest.mark.row("D-14")
@given(st.integers(1, 8), st.data())
def test_a_dropped_record_is_named_wherever_it_was(count: int, data: st.DataObject) -> None:
    entries, head = make(count)
    which = data.draw(st.integers(0, count - 1))
    assert named(entries[:which] + entries[which + 1 :], head) == which + 1
    assert named(entries[:which], head) == which + 1, "and so is the first of those cut off at the end"


@pytest.mark.row("D-14")
@given(st.integers(2, 8), st.data())
def test_records_that_changed_places_are_named(count: int, data: st.DataObject) -> None:
    entries, head = make(count)
    one, other = sorted(data.draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=2, unique=True)))
    moved = entries[:]
    moved[one], moved[other] = moved[other], moved[one]
    assert named(moved, head) == one + 1
    renumbered = [attrs.evolve(each, number=number) for number, each in enumerate(moved, 1)]
    assert named(renumbered, head) == one + 1


@pytest.mark.row("D-14")
def test_what_a_record_is_found_by_is_what_it_says() -> None:
    entries, head = make(3)
    for change in ({"time": "2020-01-01T12:00:00.000Z"}, {"event": "revoke"}):
        assert named([entries[0], attrs.evolve(entries[1], **change), entries[2]], head) == 2


@pytest.mark.row("D-14")
def test_a_changed_head_is_noticed() -> None:
    entries, head = make(3)
    assert named(entries, attrs.evolve(head, hash=START)) == 3
    assert named(entries, attrs.evolve(head, count=2, hash=entries[1].hash)) == 3
    assert named(entries, attrs.evolve(head, base_hash=entries[0].hash)) == 1
    assert named([], head) == 1


@pytest.mark.row("D-14")
def test_a_record_that_was_written_anew_breaks_the_next() -> None:
    entries, head = make(3)
    forged = entry(Head(Book.CHANGES), "2026-03-01T12:00:00.000Z", "issue", {"serial": "another"})
    assert named([forged, *entries[1:]], head) == 2


def test_a_book_whose_oldest_were_taken_away_begins_where_its_head_says() -> None:
    entries, head = make(5)
    shortened = attrs.evolve(head, base=2, base_hash=entries[1].hash)
    assert first_fault(entries[2:], shortened) is None
    assert named(entries[3:], shortened) == 3
    assert named(entries[1:], shortened) == 3


def test_a_book_may_begin_later_only_where_the_other_says_so() -> None:
    head = Head(Book.TRAFFIC, 20, "a" * 64, 50, "b" * 64)
    trim = {"book": "traffic", "first": 1, "last": 20, "hash": "a" * 64}
    assert misplaced_base(head, [trim]) is None
    assert misplaced_base(head, [{**trim, "last": 10}, trim]) is None
    assert misplaced_base(Head(Book.TRAFFIC), []) is None
    for wrong in ([], [{**trim, "last": 21}], [{**trim, "hash": "c" * 64}], [trim, {**trim, "last": 30}]):
        fault = misplaced_base(head, wrong)
        assert fault is not None
        assert fault.number == 21
    assert misplaced_base(Head(Book.TRAFFIC), [trim]) is not None, "its end was moved back to nothing"


def test_a_mark_kept_elsewhere_finds_a_record_that_was_written_anew_as_a_whole() -> None:
    entries, head = make(3)
    mark = Mark(Book.CHANGES, 2, entries[1].hash)
    assert Mark.parse(str(mark)) == mark
    assert missing_mark(mark, [head], entries[1].hash) is None
    forged, other = make(3, [{"serial": "9"}] * 3)
    assert first_fault(forged, other) is None
    assert missing_mark(mark, [other], forged[1].hash) == Fault(
        Book.CHANGES, 2, "it is not the one that the mark names"
    )
    assert missing_mark(mark, [other], None) is not None
    assert missing_mark(mark, [], None) is not None
    assert missing_mark(mark, [attrs.evolve(head, base=2, base_hash=entries[1].hash)], None) is None
    assert missing_mark(mark, [attrs.evolve(head, base=3)], None) is None, "it was taken away, and that is recorded"


@pytest.mark.parametrize("text", ["", "changes:1", "changes:x:" + START, "nothing:1:" + START, "changes:1:abc"])
def test_what_is_no_mark_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Mark.parse(text)


def test_the_first_fault_of_each_book_counts() -> None:
    first, second = Fault(Book.CHANGES, 1, "a"), Fault(Book.CHANGES, 2, "b")
    assert Verdict.of([], [None, first, second, None]).faults == [first]
    assert str(first) == "record 1 of changes: a"


def test_a_body_that_is_no_json_says_nothing() -> None:
    assert content(Entry(Book.CHANGES, 1, "", "", "{", "")) == {}
