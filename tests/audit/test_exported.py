import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.audit.chain import START, Entry, Head, Mark, Verdict, after, entry
from rsocket_broker.audit.events import Book
from rsocket_broker.audit.exported import NotExported, line_of, verify_lines


def made(*counts: int) -> list[str]:
    lines = []
    for book, count in zip(Book, counts, strict=True):
        head, entries = Head(book), list[Entry]()
        for number in range(count):
            entries.append(entry(head, "2026-03-01T12:00:00.000Z", "issue", {"serial": f"{number:x}", "é": None}))
            head = after(head, entries[-1])
        lines += [line_of(item) + "\n" for item in (head, *entries)]
    return lines


def faults(verdict: Verdict) -> list[tuple[str, int]]:
    return [(each.book.value, each.number) for each in verdict.faults]


def test_what_was_exported_is_sound() -> None:
    for counts in ((0, 0), (3, 0), (0, 2), (3, 2)):
        verdict = verify_lines(made(*counts))
        assert verdict.faults == []
        assert [head.count for head in verdict.heads] == list(counts)
    assert verify_lines([line.rstrip("\n") for line in made(1, 1)]).faults == []


@pytest.mark.row("D-14")
@given(st.data())
def test_any_flipped_bit_is_found(data: st.DataObject) -> None:
    lines = made(3, 2)
    which = data.draw(st.integers(0, len(lines) - 1))
    raw = bytearray(lines[which].rstrip("\n").encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    lines[which] = raw.decode("utf-8", "surrogateescape") + "\n"
    text = "".join(lines)
    try:
        found = faults(verify_lines(text.split("\n")[:-1]))
    except NotExported:
        assert which == 0
        return
    assert found
    if which in (1, 2, 3):
        assert found[0] == ("changes", which)
    if which in (5, 6):
        assert found == [("traffic", which - 4)]


@pytest.mark.row("D-14")
@pytest.mark.parametrize(
    ("which", "named"),
    [(1, ("changes", 1)), (2, ("changes", 2)), (3, ("changes", 3)), (5, ("traffic", 1)), (6, ("traffic", 2))],
)
def test_a_dropped_line_is_named(which: int, named: tuple[str, int]) -> None:
    lines = made(3, 2)
    del lines[which]
    assert faults(verify_lines(lines)) == [named]


@pytest.mark.row("D-14")
def test_lines_that_changed_places_or_came_twice_are_named() -> None:
    lines = made(3, 2)
    lines[2], lines[3] = lines[3], lines[2]
    assert faults(verify_lines(lines)) == [("changes", 2)]
    lines = made(3, 2)
    assert faults(verify_lines([*lines[:3], lines[2], *lines[3:]])) == [("changes", 3)]
    assert faults(verify_lines([*lines, lines[-1]])) == [("traffic", 3)]


@pytest.mark.row("D-14")
def test_a_file_that_ends_early_is_not_whole() -> None:
    lines = made(3, 2)
    assert faults(verify_lines(lines[:4])) == [("traffic", 1)], "a whole book is missing"
    assert faults(verify_lines(lines[:2])) == [("changes", 2), ("traffic", 1)]


def test_another_file_is_none_of_ours() -> None:
    for lines in ([], [""], ["hello"], ["{}"], made(1, 1)[1:], ['{"book":"changes","head":{}}'], ["[" * 10_000]):
        with pytest.raises(NotExported, match="audit export"):
            verify_lines(lines)


def test_a_mark_is_looked_up_in_the_file() -> None:
    lines = made(3, 2)
    mark = Mark(Book.CHANGES, 3, verify_lines(lines).heads[0].hash)
    assert verify_lines(lines, [mark]).faults == []
    assert faults(verify_lines(lines, [Mark(Book.TRAFFIC, 1, START)])) == [("traffic", 1)]


def test_each_book_is_judged_whatever_is_wrong_with_the_other() -> None:
    lines = made(3, 2)
    del lines[5]
    lines[1] = lines[1].replace("issue", "renew")
    assert faults(verify_lines(lines)) == [("changes", 1), ("traffic", 1)]


def test_a_trim_in_the_file_says_where_the_other_book_begins() -> None:
    changes, traffic = Head(Book.CHANGES), Head(Book.TRAFFIC)
    first = entry(traffic, "2026-03-01T12:00:00.000Z", "session", {})
    second = entry(after(traffic, first), "2026-03-01T12:00:00.000Z", "session", {})
    told = {"book": "traffic", "first": 1, "last": 1, "hash": first.hash}
    trim = entry(changes, "2026-03-01T12:00:00.000Z", "trim", told)
    head = Head(Book.TRAFFIC, 1, first.hash, 2, second.hash)
    lines = [line_of(item) for item in (after(changes, trim), trim, head, second)]
    assert verify_lines(lines).faults == []
    untold = [line_of(item) for item in (changes, head, second)]
    assert faults(verify_lines(untold)) == [("traffic", 2)]
