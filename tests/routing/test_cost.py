"""What values take in memory is never thought to be less than it is."""

import sys
from collections.abc import Iterator

import pytest

from rsocket_broker.jsontext import parse_bytes
from rsocket_broker.routing import cost

SLACK = 300
"""Bytes of the outermost value, whatever is in it."""

REPEATED = {
    "arrays": b"[]",
    "objects": b"{}",
    "keys": b'{"":1}',
    "two levels": b'[{"a":[]}]',
    "numbers": b"1.5",
    "long numbers": b"123456",
    "texts": b'"ab"',
    "wide texts": '"\N{GRINNING FACE} and so on"'.encode(),
    "escapes": rb'"\ud83d\ude00 and so on and on"',
    "booleans": b"true",
}


def taken(value: object) -> int:
    """The bytes of all objects in a value, but those that Python has only one of."""
    return sum(map(sys.getsizeof, {id(one): one for one in inside(value)}.values()))


def inside(value: object) -> Iterator[object]:
    if value is None or isinstance(value, bool) or (isinstance(value, int) and -5 <= value <= 256):
        return
    yield value
    if isinstance(value, dict):
        for key, one in value.items():
            yield from (key, *inside(one))
    elif isinstance(value, list):
        for one in value:
            yield from inside(one)


@pytest.mark.row("A-38")
@pytest.mark.parametrize("number", [1, 10, 1000, 20_000])
@pytest.mark.parametrize("name", REPEATED)
def test_many_of_one_kind(name: str, number: int) -> None:
    text = b"[" + b",".join([REPEATED[name]] * number) + b"]"
    value = parse_bytes(text)
    assert taken(value) <= cost.of_value(value, len(text)) + SLACK
    assert taken(value) <= cost.of_text(text, lambda: None) + SLACK


@pytest.mark.parametrize("number", [1, 10, 1000, 20_000])
def test_an_object_with_many_keys(number: int) -> None:
    text = b"{" + b",".join(b'"k%d":%d' % (at, 1000 + at) for at in range(number)) + b"}"
    value = parse_bytes(text)
    assert taken(value) <= cost.of_value(value, len(text)) + SLACK
    assert taken(value) <= cost.of_text(text, lambda: None) + SLACK


def test_what_is_usual_is_not_thought_to_be_much_more_than_it_is() -> None:
    text = b'{"url":"https://example.org","body":"' + bytes(100_000).replace(b"\0", b"x") + b'","headers":[]}'
    value = parse_bytes(text)
    assert cost.of_value(value, len(text)) < 1.02 * len(text)
    assert cost.of_text(text, lambda: None) < 1.02 * len(text)
    assert cost.of_value(b"bytes", 5) == cost.of_value("text", 5) == 5


def test_a_long_text_gives_way_to_others() -> None:
    turns: list[None] = []
    cost.of_text(b"[" * (3 * cost.WINDOW), lambda: turns.append(None))
    assert len(turns) == 3
