"""Bearer tokens in metadata, as the specification's extension has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.errors import Invalid
from rsocket_broker.protocol.authentication import bearer_metadata, bearer_token
from rsocket_broker.protocol.metadata import (
    AUTHENTICATION,
    COMPOSITE,
    ROUTING,
    Entry,
    Mime,
    build_composite,
    build_tags,
)

ROUTE = Entry(Mime.of(ROUTING), build_tags(["a.b"]))


def composite(content: bytes) -> bytes:
    return build_composite([ROUTE, Entry(Mime.of(AUTHENTICATION), content), ROUTE])


@pytest.mark.parametrize(
    ("content", "token"),
    [
        (b"\x81secret", b"secret"),
        (b"\x05bearersecret", b"secret"),
        (b"\x81", b""),
        (b"\x80\x00\x04userpassword", None),
        (b"\x05simple\x00\x04userpassword", None),
        (b"\x05beare", None),
        (b"\x02jwt...", None),
    ],
)
def test_a_bearer_token_is_found_in_an_entry_and_as_the_whole(content: bytes, token: bytes | None) -> None:
    assert bearer_token(COMPOSITE, composite(content)) == token
    assert bearer_token(AUTHENTICATION, content) == token
    assert bearer_token("application/json", composite(content)) is None


def test_metadata_without_it_has_none() -> None:
    for metadata in (None, b"", build_composite([ROUTE])):
        assert bearer_token(COMPOSITE, metadata) is None
    assert bearer_token(AUTHENTICATION, None) is None


@pytest.mark.parametrize("metadata", [composite(b""), composite(b"\x81x")[:-6][:12], b"\xfc\x00\x00\x09\x81"])
def test_what_is_cut_short_is_refused(metadata: bytes) -> None:
    with pytest.raises(Invalid):
        bearer_token(COMPOSITE, metadata)


@given(st.text(max_size=200))
def test_what_is_built_is_read(token: str) -> None:
    assert bearer_token(COMPOSITE, bearer_metadata(token)) == token.encode()


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(metadata: bytes) -> None:
    for mime in (COMPOSITE, AUTHENTICATION):
        try:
            found = bearer_token(mime, metadata)
        except Invalid:
            continue
        assert found is None or found in metadata
