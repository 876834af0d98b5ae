"""The address at the head of a route."""

import random

import pytest

from rsocket_broker.errors import Invalid
from rsocket_broker.protocol.addresses import address, address_of, is_addressed
from rsocket_broker.protocol.metadata import (
    AUTHENTICATION,
    MAX_PARTS,
    ROUTING,
    Entry,
    Mime,
    build_composite,
    build_tags,
    first_tag,
    route,
)
from tests.playbook import with_metadata

TO_B = route("client:b")


def spelled(tag: str) -> bytes:
    return build_composite([Entry(Mime(ROUTING, None), build_tags([tag]))])


AUTH = Entry(Mime.of(AUTHENTICATION), b"bearer")


@pytest.mark.row("A-46")
@pytest.mark.parametrize(
    "metadata",
    [
        TO_B,
        spelled("client:b"),
        build_composite([AUTH, Entry(Mime.of(ROUTING), build_tags(["client:b", "plugin.method"]))]),
        build_composite([Entry(Mime("x/y", None), b""), Entry(Mime(ROUTING, None), build_tags(["client:b"])), AUTH]),
    ],
)
def test_an_address_is_found_wherever_the_route_stands(metadata: bytes) -> None:
    assert address(b"??" + metadata, 2, 2 + len(metadata)) == b"client:b"
    tail = len(build_composite([AUTH])) if metadata.endswith(build_composite([AUTH])) else 0
    if b"plugin.method" not in metadata:
        for end in range(2, 2 + len(metadata) - tail):
            assert address(b"??" + metadata, 2, end) is None, "it may be longer than what is there"


@pytest.mark.parametrize(
    "metadata",
    [
        b"",
        route("plugin.client:b"),
        route("clients"),
        b"\xfe\0\0\0",
        b"\xfe\0\0\x02\x08client:b",
        b"\xfe\0\0",
        b"\xff\0\0\x20client:b",
        build_composite(
            [Entry(Mime.of(ROUTING), build_tags(["x"])), Entry(Mime.of(ROUTING), build_tags(["client:b"]))]
        ),
        build_composite([AUTH]),
        build_composite([Entry(Mime.of(ROUTING), build_tags(["x", "client:b"]))]),
    ],
)
def test_what_is_no_address(metadata: bytes) -> None:
    assert address(metadata + b"client:b" * 9, 0, len(metadata)) is None


@pytest.mark.row("A-31")
def test_a_route_behind_too_many_entries_is_no_address() -> None:
    """One request may bring millions of them."""
    empty = b"\x85\0\0\0"
    for entries, found in ((MAX_PARTS - 1, b"client:b"), (MAX_PARTS, None), (1_000_000, None)):
        metadata = empty * entries + TO_B
        assert address(metadata, 0, len(metadata)) == found
    with pytest.raises(Invalid):
        first_tag(empty * MAX_PARTS + TO_B)


def test_any_bytes_have_an_address_or_none() -> None:
    dice = random.Random(3)
    for _ in range(3000):
        data = bytearray(TO_B if dice.random() < 0.5 else spelled("client:b"))
        for _ in range(dice.randrange(4)):
            data[dice.randrange(len(data))] = dice.choice([0, 1, 7, 0x7F, 0xFE, 0xFF, dice.randrange(256)])
        begin_at, end_at = dice.randrange(3), dice.randrange(len(data) + 1)
        address(bytes(data), begin_at, end_at)


def test_the_metadata_of_a_frame_ends_where_its_length_says() -> None:
    body = with_metadata(TO_B, b"data")
    assert (address_of(body, 0, len(body)), is_addressed(body, 0, len(body))) == (b"client:b", True)
    data = with_metadata(b"", TO_B)
    assert (address_of(data, 0, len(data)), is_addressed(data, 0, len(data))) == (None, False)
    longer = (len(TO_B) + 9).to_bytes(3, "big") + TO_B
    assert address_of(longer, 0, len(longer)) == b"client:b", "whether it fits is for others to judge"
