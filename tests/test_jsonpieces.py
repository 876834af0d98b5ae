"""Texts in pieces: whatever the text and wherever it is cut, the value or the error is that of the plain parser."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rsocket_broker import jsonpieces, jsontext
from rsocket_broker.jsonpieces import check, is_heavy, let_go, parse, write
from rsocket_broker.jsontext import MAX_DEPTH, JsonError, dump

SHORT_WINDOW = 24

strings = st.text(st.characters() | st.sampled_from('"\\{}[],:\ud83d\ude00é€😀\n'), max_size=60)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | strings
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=12) | st.dictionaries(strings, inner, max_size=8), max_leaves=40
)
words = [
    "true",
    "false",
    "null",
    '"a"',
    '"k":',
    "[[",
    "}]",
    "\\u",
    "\\ud83d",
    "1e999",
    "NaN",
    "é",
    '"[{,',
    "\x00",
    "\ufeff",
]
fragments = st.sampled_from([*'[]{},:" \n\t-+.eE0123456789\\', *words, "12345678901234567890123"])


@pytest.fixture(autouse=True)
def _short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonpieces, "WINDOW", SHORT_WINDOW)
    monkeypatch.setattr(jsonpieces, "WEIGHT", 4)
    monkeypatch.setattr(jsonpieces, "FREED", 2)


def nothing() -> None:
    """A turn that nobody needs."""


def outcome(data: bytes, *, in_pieces: bool) -> tuple[str, Any]:
    try:
        value = parse(data, nothing).value if in_pieces else jsontext.parse(data)
    except JsonError as error:
        return "error", str(error)
    return "value", json.dumps(value)


def same(data: bytes) -> None:
    whole = outcome(data, in_pieces=False)
    assert outcome(data, in_pieces=True) == whole
    if whole[0] == "error":
        with pytest.raises(JsonError):
            check(data, nothing)
    else:
        check(data, nothing)


@given(values, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_every_json_text_has_the_same_value(value: object, indent: int | str | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    same(text.encode("utf-8", "surrogatepass"))


@given(st.lists(fragments, max_size=40))
@example(["[", "1", ",", "]"])
@example(["{", '"k":', "}"])
def test_any_text_has_the_same_value_or_the_same_error(parts: list[str]) -> None:
    same("".join(parts).encode())


@given(values, st.integers(0, 400), fragments, st.booleans())
def test_a_text_with_one_fault_has_the_same_error(value: object, at: int, fault: str, cut: bool) -> None:
    text = json.dumps(value, ensure_ascii=False)
    at %= len(text) + 1
    broken = text[:at] if cut else text[:at] + fault + text[at:]
    same(broken.encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=200))
def test_any_bytes_have_the_same_value_or_the_same_error(data: bytes) -> None:
    same(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " " * 100,
        "[" + " " * 100 + "]",
        '{"a":1,"b":[' + "1," * 50 + '2],"a":' + '"x"' + "}",
        '{"a":{"b":' + '"y"' * 1 + "}," * 3,
        "[" * 30 + "]" * 30,
        '[{"a":[{"b":[{"c":[1,2,3,4,5,6,7,8,9,10,11,12,13]}]}]}]',
        '"' + "a" * 500 + '"',
        '"' + "\\u00e9" * 50 + '"',
        '"' + "\\ud83d\\ude00" * 50 + '"',
        '"' + "x" * 17 + "\\ud83d\\ude00" * 9 + '"',
        '"' + "x" * 17 + "\\\\" * 9 + 'ud83d"',
        '"' + "😀é€" * 40 + '"',
        '"' + "a" * 100,
        '"' + "a" * 100 + "\\",
        '"' + "a" * 100 + "\\u12",
        '"' + "a" * 30 + "\x01" + "b" * 30 + '"',
        '"' + "a" * 30 + "\\x" + "b" * 30 + '"',
        "[" + "1" * 100 + "]",
        "[0." + "0" * 5000 + "1]",
        "[" + "1" * 5000 + "]",
        "[1e999" + ",1" * 40 + "]",
        "[" + "1," * 40 + "NaN]",
        '{"' + "k" * 100 + '":1}',
        '{"' + "k" * 100 + '" 1}',
        '{"k" :  [1] , "l"' + " " * 60 + ": 2}",
        "[1 2]",
        "[" + "1," * 30 + "]",
        "[,1]",
        "[1,,2]",
        "{,}",
        '{"a":1,}',
        "[1}",
        '{"a":1]',
        "[1] x",
        "[1]" + " " * 100 + "]",
        '[{"a":' + "[1," * 20 + "1" + "]" * 20 + "}" + ',"tail"' * 10 + "]",
        "\ufeff[1]",
    ],
)
def test_texts_that_are_cut_at_awkward_places(text: str) -> None:
    same(text.encode())


def test_what_is_not_utf_8_is_told_before_anything_else() -> None:
    same(b'[1,,"' + b"a" * 100 + b"\xff" + b'"]')
    same(b'["' + b"a" * 22 + b"\xe2\x82")


def test_bytes_that_look_like_brackets_are_not_counted_in_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsontext, "MAX_CONTAINERS", 10)
    same(b'["' + b"[{" * 60 + b'","' + b'[\\"' * 30 + b'"]')
    same(b"[" + b"[]," * 9 + b"[]]")
    assert (
        outcome(b"[" + b"[]," * 10 + b'"' + b"[" * 100 + b'"]', in_pieces=True)[1]
        == "too many arrays and objects in it"
    )


@pytest.mark.parametrize("levels", [MAX_DEPTH - 5, MAX_DEPTH, MAX_DEPTH + 1, 3000])
@pytest.mark.parametrize(("opens", "closes"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_no_text_is_nested_deeper_than_the_plain_parser_allows(levels: int, opens: bytes, closes: bytes) -> None:
    same(opens * levels + b"1" + closes * levels)
    same(b"[1," + opens * (levels - 1) + b"1" + closes * (levels - 1) + b",2]")


def test_there_is_a_turn_for_each_piece_and_none_is_long() -> None:
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1

    data = json.dumps([{"n": n, "t": "x" * 10} for n in range(200)]).encode()
    parse(data, turn)
    assert turns >= len(data) / SHORT_WINDOW


def test_what_a_turn_raises_ends_it() -> None:
    def turn() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        parse(b"[" + b"1," * 100 + b"1]", turn)


# --- writing ---------------------------------------------------------------------------------------------------------


@given(values)
def test_what_is_written_in_pieces_is_what_is_written_whole(value: object) -> None:
    assert jsontext.parse(write(value, nothing)) == jsontext.parse(dump(value))


@pytest.mark.parametrize(
    "value", [float("nan"), [1, 2, {"a": [object()] * 3}], {"a": [float("inf")] * 20}, {1: {2: {}}}]
)
def test_what_has_no_json_is_refused_in_pieces_too(value: object) -> None:
    try:
        expected = dump(value)
    except JsonError:
        with pytest.raises(JsonError):
            write(value, nothing)
    else:
        assert write(value, nothing) == expected


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = [list(range(10))]
    loop.append(loop)
    with pytest.raises(JsonError):
        write(loop, nothing)


def test_weighing_looks_at_no_more_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonpieces, "WEIGHT", 100)
    assert not is_heavy({"a": [1, 2]})
    assert is_heavy(["x" * 5000])
    assert is_heavy({"a": {"b": list(range(1000))}})
    loop: list[Any] = []
    loop.append(loop)
    assert is_heavy(loop)


# --- letting go ------------------------------------------------------------------------------------------------------


@pytest.fixture
def large() -> Iterator[bytes]:
    yield json.dumps({"list": [{"n": n} for n in range(50)], "deep": {"a": {"b": list(range(60))}}}).encode()


def test_what_nobody_keeps_is_taken_apart(large: bytes) -> None:
    read = parse(large, nothing)
    inner = read.value["list"]
    del inner
    box, spine = [read.value], read.spine
    turns = []
    read = parse(b"1", nothing)
    let_go(box, spine, lambda: turns.append(1))
    assert box == []
    assert len(turns) > 20


def test_what_somebody_keeps_stays_whole(large: bytes) -> None:
    read = parse(large, nothing)
    kept = read.value["deep"]["a"]
    box, spine = [read.value], read.spine
    del read
    let_go(box, spine, nothing)
    assert kept == {"b": list(range(60))}
    read = parse(large, nothing)
    whole = read.value
    let_go([read.value], read.spine, nothing)
    assert whole == json.loads(large)
    assert sys.getrefcount(whole) >= 2
