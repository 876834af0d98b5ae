"""Composite metadata, tags and MIME types: unchanged when built again, and as another implementation writes them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rsocket.extensions.helpers import authenticate_simple, composite, data_mime_type, data_mime_types, metadata_item
from rsocket.extensions.helpers import route as their_route
from rsocket.extensions.mimetypes import WellKnownMimeTypes

from rsocket_broker.errors import Invalid
from rsocket_broker.protocol import metadata as ours
from rsocket_broker.protocol.metadata import (
    ACCEPTED_MIMES,
    AUTHENTICATION,
    DATA_MIME,
    ROUTING,
    WELL_KNOWN,
    Entry,
    Mime,
    build_composite,
    build_mimes,
    build_tags,
    first_content,
    first_tag,
    parse_composite,
    parse_mimes,
    parse_tags,
    route,
)

names = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128)
spelled = names.map(lambda name: Mime(name, None))
by_id = st.integers(0, 127).map(lambda number: Mime(WELL_KNOWN.get(number, ""), number))
entries = st.builds(Entry, spelled | by_id, st.binary(max_size=300))
tags = st.lists(st.text(max_size=60).filter(lambda tag: len(tag.encode("utf-8", "ignore")) <= 255), max_size=5)


@pytest.mark.row("A-46")
@given(st.lists(entries, max_size=6))
def test_composite_metadata_comes_back_entry_by_entry_and_byte_by_byte(items: list[Entry]) -> None:
    built = build_composite(items)
    assert parse_composite(built) == tuple(items)
    assert build_composite(parse_composite(built)) == built


@pytest.mark.row("A-46")
def test_routing_auth_and_mime_types_of_rsocket_py_are_re_encoded_unchanged() -> None:
    theirs = composite(
        their_route("person.1", "second"),
        authenticate_simple("user", "secret"),
        data_mime_type(WellKnownMimeTypes.APPLICATION_JSON.value),
        data_mime_types(WellKnownMimeTypes.APPLICATION_CBOR.value, b"application/x.own"),
        metadata_item(b"anything", b"application/x.own"),
    )
    parsed = parse_composite(theirs)
    assert build_composite(parsed) == theirs
    assert [entry.mime.name for entry in parsed] == [
        ROUTING,
        AUTHENTICATION,
        DATA_MIME,
        ACCEPTED_MIMES,
        "application/x.own",
    ]
    assert parse_tags(parsed[0].content) == ("person.1", "second")
    assert parse_mimes(parsed[2].content) == (Mime("application/json", 5),)
    assert parse_mimes(parsed[3].content) == (Mime("application/cbor", 1), Mime("application/x.own", None))
    assert build_mimes(parse_mimes(parsed[3].content)) == parsed[3].content


@pytest.mark.row("A-46")
def test_a_known_type_that_was_spelled_out_stays_spelled_out() -> None:
    entry = Entry(Mime("application/json", None), b"{}")
    assert parse_composite(build_composite([entry])) == (entry,)
    assert build_composite([entry]) != build_composite([Entry(Mime.of("application/json"), b"{}")])


@pytest.mark.parametrize("theirs", WellKnownMimeTypes, ids=lambda one: one.name)
def test_ids_are_those_of_rsocket_py(theirs: Any) -> None:
    if theirs.value.id is not None and theirs.value.id >= 0:
        assert WELL_KNOWN[theirs.value.id] == theirs.value.name.decode()


@given(tags)
def test_tags(values: list[str]) -> None:
    clean = [value.encode("utf-8", "ignore").decode() for value in values]
    assert parse_tags(build_tags(clean)) == tuple(clean)


def test_our_route_is_theirs() -> None:
    assert route("echo.request") == composite(their_route("echo.request"))


@given(tag=st.text(max_size=40), before=st.lists(entries, max_size=2), after=st.lists(entries, max_size=2))
def test_the_first_tag_is_found_wherever_routing_stands(tag: str, before: list[Entry], after: list[Entry]) -> None:
    tag = tag.encode("utf-8", "ignore").decode()
    before = [entry for entry in before if entry.mime.name != ROUTING]
    routing = Entry(Mime.of(ROUTING), build_tags([tag, "second"]))
    assert first_tag(build_composite([*before, routing, *after])) == tag


def test_no_route_is_no_tag() -> None:
    assert first_tag(b"") is None
    assert first_tag(build_composite([Entry(Mime.of("text/plain"), b"x")])) is None
    assert first_tag(build_composite([Entry(Mime.of(ROUTING), b"")])) is None
    assert first_content(b"", ROUTING) is None


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (parse_composite, parse_tags, parse_mimes, first_tag):
        try:
            read(data)
        except Invalid as refusal:
            assert refusal.public


@given(st.binary(max_size=60))
def test_the_short_way_to_the_first_tag_says_what_the_long_way_says(data: bytes) -> None:
    for metadata in (data, b"\xfe" + data, b"\xfe\x00\x00" + data):
        try:
            content = first_content(metadata, ROUTING)
            expected = parse_tags(content)[0] if content else None
        except Invalid:
            continue
        assert first_tag(metadata) == expected


@pytest.mark.parametrize(
    "broken",
    [b"\xfe", b"\xfe\x00\x00", b"\xfe\x00\x00\x02a", b"\x05ab", b"\x00\xff\x00\x00\x00"],
)
def test_metadata_that_ends_too_soon_or_is_not_ascii(broken: bytes) -> None:
    with pytest.raises(Invalid, match=r"metadata|MIME"):
        parse_composite(broken)


def test_a_tag_cut_short_or_not_utf8() -> None:
    with pytest.raises(Invalid, match="inside a tag"):
        parse_tags(b"\x05ab")
    with pytest.raises(Invalid, match="UTF-8"):
        parse_tags(b"\x01\xff")
    with pytest.raises(Invalid, match="UTF-8"):
        first_tag(build_composite([Entry(Mime.of(ROUTING), b"\x01\xff")]))


def test_what_does_not_fit_is_not_written() -> None:
    with pytest.raises(Invalid, match="255"):
        build_tags(["x" * 256])
    with pytest.raises(Invalid, match="128"):
        build_composite([Entry(Mime("x" * 129, None), b"")])
    with pytest.raises(Invalid, match="ASCII"):
        build_composite([Entry(Mime("té", None), b"")])
    with pytest.raises(Invalid, match="ASCII"):
        build_mimes([Mime("", None)])
    with pytest.raises(Invalid, match=str(0xFF_FFFF)):
        build_composite([Entry(Mime.of("text/plain"), bytes(ours._LONGEST_CONTENT + 1))])


@pytest.mark.row("A-31")
def test_a_message_of_nothing_but_entries_is_not_read_to_its_end() -> None:
    """Millions of them fit into one message; whoever looks for a route must not keep all others waiting."""
    many = ours.MAX_PARTS
    assert len(parse_composite(b"\x85\0\0\0" * many)) == many
    assert len(parse_tags(b"\x01x" * many)) == many
    assert len(parse_mimes(b"\x85" * many)) == many
    for parse, part in ((parse_composite, b"\x85\0\0\0"), (parse_tags, b"\x01x"), (parse_mimes, b"\x85")):
        with pytest.raises(Invalid, match="1024 parts"):
            parse(part * (many + 1))
    assert first_tag(route("a.b") + b"\x85\0\0\0" * (many + 1)) == "a.b"
