"""JSON from peers: parsed or refused with one error, whatever the bytes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.jsontext import JsonError, dump, parse, parse_object

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
