"""What goes between a payload and Python."""

import enum
from collections.abc import Callable

import attrs
import pytest

from rsocket_broker.errors import Invalid
from rsocket_broker.jsontext import JsonError
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api.handlers import decode, encode, encode_data, encode_json, encode_raw


class Colour(enum.Enum):
    RED = "red"


@attrs.frozen
class Point:
    x: int
    _y: int = 0
    colour: Colour = Colour.RED


@pytest.mark.parametrize(
    ("result", "data"),
    [
        (None, b"null"),
        ("é", '"é"'.encode()),
        ({"a": [1, True]}, b'{"a":[1,true]}'),
        ((1, 2), b"[1,2]"),
        (b"raw", b"raw"),
        (bytearray(b"raw"), b"raw"),
        (Point(1), b'{"x":1,"y":0,"colour":"red"}'),
        ({"points": [Point(1)], "c": Colour.RED}, b'{"points":[{"x":1,"y":0,"colour":"red"}],"c":"red"}'),
    ],
)
def test_a_result_becomes_a_payload(result: object, data: bytes) -> None:
    assert encode(result) == Payload(data, None)


def test_a_payload_stays_the_one_it_is_and_nothing_raw_is_nothing() -> None:
    payload = Payload(b"d", b"m")
    assert encode(payload) is payload
    assert encode_raw(payload) is payload
    assert encode_raw(None) == Payload(b"", None)


@pytest.mark.parametrize("result", [object(), float("nan"), {1, 2}])
def test_a_result_that_is_no_json_is_an_error(result: object) -> None:
    with pytest.raises(JsonError):
        encode(result)


def test_no_data_is_an_empty_object() -> None:
    assert decode(b"") == decode(None) == {}
    assert decode(b"[]") == []
    with pytest.raises(Invalid):
        decode(b"[")


@pytest.mark.parametrize("encoder", [encode, encode_data, encode_json, encode_raw])
def test_an_answer_that_is_no_json_is_told_without_what_was_tried_before(encoder: Callable[[object], object]) -> None:
    """The author of a plugin reads it in a log: one error, and not the three that led to it."""
    with pytest.raises(JsonError, match="cannot be written as JSON: object has no JSON") as caught:
        encoder({"a": object()})
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
