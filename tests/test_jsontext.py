"""JSON from peers: parsed or refused with one error, whatever the bytes."""

import datetime
import enum
import json
import subprocess
import sys
import tracemalloc
import uuid
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker import jsontext
from rsocket_broker.jsontext import MAX_DEPTH, JsonError, dump, parse, parse_object

text = st.text(st.characters())  # halves of characters too
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner) | st.dictionaries(text, inner),
)


@given(values)
def test_what_is_written_reads_back(value: object) -> None:
    assert parse(dump(value)) == json.loads(json.dumps(value))  # which joins two halves that meet


@given(st.binary())
def test_any_bytes_parse_or_raise_the_one_error(data: bytes) -> None:
    try:
        assert json.loads(data.decode()) == parse(data)
    except (JsonError, ValueError):
        with pytest.raises(JsonError):
            parse(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff", "not UTF-8 text"),
        (b"{", "not JSON: Expecting property name enclosed in double quotes at character 1"),
        (b"NaN", "NaN is not a JSON number"),
        (b"1" * 5000, "a number in it is too long"),
        (b"1e999", "a number in it is too large"),
        (b"-1e999", "a number in it is too large"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_the_error_names_the_fault_and_quotes_nothing(data: bytes, message: str) -> None:
    with pytest.raises(JsonError, match=f"^{message}$"):
        parse(data)


@pytest.mark.row("M-7")
def test_half_a_character_goes_through_as_it_came() -> None:
    """An app that cuts a text between the halves of an emoji must not be able to break whoever lists it."""
    assert dump(parse(b'{"\xc3\xa4":"\\ud83d"}')) == b'{"\\u00e4":"\\ud83d"}'
    assert dump(parse(b'"\\ud83d\\ude00"')) == '"\U0001f600"'.encode()


def test_an_object_is_wanted() -> None:
    assert parse_object(b'{"a": 1}') == {"a": 1}
    with pytest.raises(JsonError, match="not a JSON object"):
        parse_object(b"[1]")


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes", {b"bytes": "\ud800"}])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(JsonError):
        dump(value)


# ---- two libraries, one contract -----------------------------------------------------------------------------------


def outcome(work: Callable[[Any], object], given: object) -> object:
    """What comes of it, exactly: `1`, `1.0` and `True` are three things, and so are `0.0` and `-0.0`."""
    try:
        return repr(work(given))
    except JsonError as error:
        return f"refused: {error}"


both = pytest.mark.skipif(jsontext.orjson is None, reason="orjson is not installed: there is nothing to compare")

digits = st.text("0123456789", min_size=1, max_size=25)
numbers = st.one_of(
    st.integers().map(str),
    st.floats().map(repr),
    st.builds(lambda sign, whole, rest: f"{sign}{whole}{rest}", st.sampled_from(["", "-"]), digits, digits),
    st.builds(lambda whole, part, power: f"{whole}.{part}e{power}", digits, digits, st.integers(-400, 400)),
    st.sampled_from(
        ["1e999", "-1e999", "1e-999", "-0", "-0.0", "NaN", "Infinity", str(2**63), str(2**64), str(-(2**63) - 1)]
    ),
)
texts = st.one_of(
    text.map(json.dumps),
    text.map(lambda one: json.dumps(one, ensure_ascii=False)),
    st.text(st.sampled_from(["\\", '"', "u", "d", "8", "[", "{", "\x00", "\x7f", "é", "n"])).map('"{}"'.format),
)
documents = st.recursive(
    numbers | texts | st.sampled_from(["true", "false", "null", "", " ", "nul"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda parts: f"[{', '.join(parts)}]")
        | st.lists(st.tuples(texts, inner), max_size=4).map(lambda ps: "{" + ",".join(f"{k}:{v}" for k, v in ps) + "}")
    ),
)


@both
@pytest.mark.row("M-7")
@given(documents | st.binary(max_size=40))
def test_both_libraries_read_the_same(document: str | bytes) -> None:
    data = document if isinstance(document, bytes) else document.encode("utf-8", "surrogatepass")
    assert outcome(jsontext._fast_parse, data) == outcome(jsontext._slow_parse, data)


class Colour(enum.Enum):
    RED = "red"
    NAN = float("nan")


class Size(enum.IntEnum):
    BIG = 2


class Pair(NamedTuple):
    a: int
    b: object


class Ratio(float): ...


class Name(str): ...


odd = st.sampled_from(
    [
        float("nan"), float("inf"), 2**64, -(2**63) - 1, b"bytes", {1, 2}, object, Colour.RED, Colour.NAN, Size.BIG,
        Pair(1, None), Pair(1, float("inf")), Ratio(0.5), Ratio("nan"), Name("n"), uuid.UUID(int=5),
        datetime.datetime(2020, 1, 1), OrderedDict(a=1), defaultdict(int, a=1), 1e-7, 1e300, -0.0, Decimal("1.5"),
    ]
)  # fmt: skip
keys = text | st.integers() | st.none() | st.booleans() | st.sampled_from([Size.BIG, (1, 2), Name("n")])
objects = st.recursive(
    values | odd,
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@both
@pytest.mark.row("M-7")
@given(objects)
def test_both_libraries_write_the_same(value: object) -> None:
    fast, slow = outcome(jsontext._fast_dump, value), outcome(jsontext._slow_dump, value)
    if fast != slow:  # the spelling of a number is the library's own
        assert outcome(parse, jsontext._fast_dump(value)) == outcome(parse, jsontext._slow_dump(value))


def nested(depth: int, kind: str, inside: bytes = b"") -> bytes:
    opening, closing = (b"[", b"]") if kind == "array" else (b'{"k":', b"}")
    return opening * depth + (inside or b"1") + closing * depth


@pytest.mark.parametrize("kind", ["array", "object"])
@pytest.mark.parametrize(
    "inside", [b"", b'"]]]"', b'"\\"[{"', b'[[],{},"",[""]]'], ids=["bare", "brackets", "quote", "wide"]
)
@pytest.mark.parametrize("way", ["_fast_parse", "_slow_parse"])
def test_nesting_has_one_limit(kind: str, inside: bytes, way: str) -> None:
    if way == "_fast_parse" and jsontext.orjson is None:
        pytest.skip("orjson is not installed")
    work = getattr(jsontext, way)
    most = MAX_DEPTH - (2 if inside.startswith(b"[") else 0)
    work(nested(most, kind, inside))
    work(b"[" + b",".join([nested(most - 1, kind, inside)] * 3) + b"]")
    with pytest.raises(JsonError, match=r"^nested too deeply$"):
        work(nested(most + 1, kind, inside))
    with pytest.raises(JsonError, match=r"^nested too deeply$"):
        work(b'["]]]]", ' + nested(most, kind, inside) + b"]")


def test_much_that_is_wide_is_not_deep() -> None:
    wide = dump([{"n": [number], "text": '[{"'} for number in range(MAX_DEPTH)])
    assert parse(wide) == json.loads(wide)


@pytest.mark.parametrize("way", ["_fast_parse", "_slow_parse"])
def test_arrays_and_objects_are_counted_before_they_are_made(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "_fast_parse" and jsontext.orjson is None:
        pytest.skip("orjson is not installed")
    monkeypatch.setattr(jsontext, "MAX_CONTAINERS", 100)
    work = getattr(jsontext, way)
    texts = b'"[{\\"[{",' * 100
    assert len(work(b"[" + texts + b"{}," * 98 + b"[]]")) == 199
    for more in (b"[" + texts + b"{}," * 99 + b"[]]", b"[" * 101 + b" " * 100, b'"[' * 60 + b"[" * 101):
        with pytest.raises(JsonError, match=r"^too many arrays and objects in it$"):
            work(more)


@pytest.mark.parametrize("unit", [b"a", b"[", b"\\n"])
@pytest.mark.parametrize("way", ["_fast_parse", "_slow_parse"])
def test_to_measure_the_depth_takes_little_memory(unit: bytes, way: str) -> None:
    """One long text among many arrays: once it took a hundred bytes for each of its characters."""
    if way == "_fast_parse" and jsontext.orjson is None:
        pytest.skip("orjson is not installed")
    message = b"[" + b"[]," * (MAX_DEPTH + 1) + b'"' + unit * (1 << 20) + b'["]'
    tracemalloc.start()
    try:
        getattr(jsontext, way)(message)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(message)  # orjson sets 12 aside, and uses one
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("make", [bytearray, memoryview])
def test_any_kind_of_bytes_is_taken(make: Callable[[bytes], Any]) -> None:
    assert parse(make(b'{"a":[1]}')) == {"a": [1]}
    assert parse_object(make(b'{"a":[1]}')) == {"a": [1]}


def test_without_orjson_the_standard_library_does_it_all() -> None:
    """In a Python of its own, where orjson cannot be found."""
    program = (
        "import sys; sys.modules['orjson'] = None\n"
        "from rsocket_broker import jsontext\n"
        "assert jsontext.orjson is None\n"
        "assert jsontext.parse(jsontext.dump({'a': [1, 2**70, None]})) == {'a': [1, 2**70, None]}\n"
        "assert jsontext.dump is jsontext._slow_dump\n"
        "print(jsontext.parse(bytearray(b'[1]')))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert ran.stdout == "[1]\n"
