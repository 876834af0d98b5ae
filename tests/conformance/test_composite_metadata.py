"""Extensions: composite metadata, routing, MIME types per stream, authentication."""

import pytest

from tests.conformance import wire
from tests.conformance.wire import Peer

SECTION = "Extensions: composite metadata, routing, MIME types, authentication"
pytestmark = pytest.mark.applies("routes")

MIME_TYPE, ACCEPTED, AUTHENTICATION, ZIPKIN, ROUTING = 0x7A, 0x7B, 0x7C, 0x7D, 0x7E
ROUTE = "probe.metadata"


def entry(mime: int | str, content: bytes) -> bytes:
    """One entry: a well-known type by its number, or one spelled out, its length less one as all engines write it."""
    head = bytes([0x80 | mime]) if isinstance(mime, int) else bytes([len(mime) - 1]) + mime.encode()
    return head + len(content).to_bytes(3, "big") + content


def tags(*texts: str | bytes) -> bytes:
    parts = [text.encode() if isinstance(text, str) else text for text in texts]
    return b"".join(bytes([len(part)]) + part for part in parts)


def ask(peer: Peer, metadata: bytes, stream: int = 1, data: bytes = b"ping") -> wire.Frame:
    peer.send(wire.request(wire.REQUEST_RESPONSE, stream, data, metadata))
    return peer.on_stream(stream)


def comes_back(peer: Peer, metadata: bytes) -> None:
    """The metadata reaches the handler, which tells it, byte for byte."""
    answer = ask(peer, metadata)
    assert answer.kind == wire.PAYLOAD, wire.shown(answer)
    assert wire.payload_data(answer) == metadata


def is_refused(peer: Peer, metadata: bytes) -> None:
    """Such metadata leads nowhere: an error for this stream, and the connection goes on."""
    answer = ask(peer, metadata)
    assert answer.kind == wire.ERROR, wire.shown(answer)
    assert wire.code(answer) in wire.STREAM_CODES
    peer.is_served()


@pytest.mark.row("A-46")
def test_a_routing_entry_leads_to_its_handler(peer: Peer) -> None:
    """Routing, Metadata Contents: a tag is a length of one byte and UTF-8 text."""
    comes_back(peer, entry(ROUTING, tags(ROUTE)))


def test_a_routing_entry_may_be_spelled_out(peer: Peer) -> None:
    """Composite Metadata, Metadata Contents: without the M bit, the type stands there as text; it means the same."""
    comes_back(peer, entry("message/x.rsocket.routing.v0", tags(ROUTE)))


def test_a_routing_entry_may_stand_anywhere(peer: Peer) -> None:
    """Composite Metadata: any number of entries in any order; a consumer skips what it does not look for."""
    comes_back(peer, entry(5, b"{}") + entry("x/y", b"z") + entry(ROUTING, tags(ROUTE)) + entry(ZIPKIN, b"\0"))


def test_further_tags_are_kept(peer: Peer) -> None:
    """Routing, Metadata Contents: any number of tags; those that are not used are ignored."""
    comes_back(peer, entry(ROUTING, tags(ROUTE, "blue", "", "x" * 255, "grün")))


def test_the_first_tag_counts(peer: Peer) -> None:
    """Routing: how tags are used is the responder's affair; here the first one names the handler."""
    is_refused(peer, entry(ROUTING, tags("no.such.route", ROUTE)))


@pytest.mark.row("A-46")
def test_entries_of_the_same_type_are_kept_in_order(peer: Peer) -> None:
    """Composite Metadata: several payloads of one type are allowed, and their order must be preserved."""
    comes_back(peer, entry(ROUTING, tags(ROUTE)) + entry(5, b"1") + entry(33, b"2") + entry(5, b"3") + entry(5, b"1"))


@pytest.mark.parametrize("number", [0x2B, 0x50, 0x79])
def test_an_unknown_type_by_number_is_skipped(peer: Peer, number: int) -> None:
    """Composite Metadata: a consumer that is unaware of a type can safely skip it: its length says how far."""
    comes_back(peer, entry(number, b"who knows") + entry(ROUTING, tags(ROUTE)) + entry(number, b""))


@pytest.mark.parametrize("length", [1, 2, 127, 128])
def test_an_unknown_type_in_words_is_skipped(peer: Peer, length: int) -> None:
    """Composite Metadata: the same for a type that is spelled out, of any length that fits seven bits."""
    comes_back(peer, entry("x" * length, b"who knows") + entry(ROUTING, tags(ROUTE)))


def test_the_length_of_a_spelled_out_type_is_its_length(peer: Peer) -> None:
    """Composite Metadata, Metadata Contents: by the letter, MIME ID/Length is the length of the type in bytes."""
    letter = bytes([3]) + b"x/y" + (4).to_bytes(3, "big") + b"data"
    answer = ask(peer, letter + entry(ROUTING, tags(ROUTE)))
    assert answer.kind == wire.PAYLOAD, wire.shown(answer)


def test_an_entry_may_be_empty_or_long(peer: Peer) -> None:
    """Composite Metadata, Metadata Contents: a length of 24 bits."""
    comes_back(peer, entry(ROUTING, tags(ROUTE)) + entry(5, b"") + entry(6, bytes(100_000)) + entry("x/y", b""))


def test_no_routing_entry_leads_nowhere(peer: Peer) -> None:
    """Routing: without a tag there is nothing to route by."""
    is_refused(peer, entry(5, b"{}"))


def test_an_empty_routing_entry_leads_nowhere(peer: Peer) -> None:
    """Routing: nor with an entry that has none."""
    is_refused(peer, entry(ROUTING, b""))


MALFORMED = {
    "entry beyond the end": b"\xfe\x00\x00\xff" + tags(ROUTE),
    "ends inside a length": b"\xfe\x00\x00",
    "ends after a type": b"\xfe",
    "type beyond the end": b"\x7fabc",
    "tag beyond the end": entry(ROUTING, b"\xffecho"),
    "tag not UTF-8": entry(ROUTING, tags(b"\xff\xfe\xfd")),
    "type not ASCII": b"\x02\xff\xff\xff\x00\x00\x01x" + entry(ROUTING, tags("no.such.route")),
    "zero bytes": bytes(8),
}


@pytest.mark.parametrize("metadata", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_metadata_fails_its_stream_only(peer: Peer, metadata: bytes) -> None:
    """Frame Validation: what is wrong inside metadata is an application's concern, not one of the connection."""
    is_refused(peer, metadata)


@pytest.mark.parametrize("kind", [wire.REQUEST_FNF, wire.METADATA_PUSH], ids=["fnf", "push"])
@pytest.mark.parametrize("metadata", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_metadata_of_a_message_without_answer_is_dropped(peer: Peer, metadata: bytes, kind: int) -> None:
    """Frame Validation, Request Fire-n-Forget: and where nothing is answered, nothing is."""
    if kind == wire.METADATA_PUSH:
        peer.send(wire.frame(0, kind, wire.METADATA, metadata))
    else:
        peer.send(wire.request(kind, 1, b"", metadata))
    assert peer.settle() == []
    peer.is_served()


@pytest.mark.parametrize(
    "content",
    [b"\x85", b"\xa1", b"\x09text/html\x2b"[:10], b"\x7f" + b"x" * 128],
    ids=["json", "text", "words", "long"],
)
@pytest.mark.row("A-46")
def test_the_data_type_of_a_stream_passes(peer: Peer, content: bytes) -> None:
    """Stream Data MIME Types: the type of a request's data may differ from that of SETUP; the entry that says so
    reaches the handler unchanged, and so does its answer's."""
    comes_back(peer, entry(MIME_TYPE, content) + entry(ROUTING, tags(ROUTE)))


@pytest.mark.row("A-46")
def test_the_accepted_types_of_a_stream_pass(peer: Peer) -> None:
    """Stream Data MIME Types: any number of types, by number and spelled out, in their order."""
    comes_back(peer, entry(ROUTING, tags(ROUTE)) + entry(ACCEPTED, b"\x85\xa1\x02x/y\x81"))


@pytest.mark.row("A-46")
def test_simple_authentication_passes(peer: Peer) -> None:
    """Authentication: type 0x80 | 0 is a user name with its length, then a password; it is for the handler to
    judge."""
    comes_back(peer, entry(ROUTING, tags(ROUTE)) + entry(AUTHENTICATION, b"\x80\x00\x04userpassword"))


@pytest.mark.row("A-46")
def test_bearer_authentication_passes(peer: Peer) -> None:
    """Authentication: type 0x80 | 1 is a token."""
    comes_back(peer, entry(AUTHENTICATION, b"\x81token") + entry(ROUTING, tags(ROUTE)))


def test_authentication_of_another_type_passes(peer: Peer) -> None:
    """Authentication: a type that is spelled out, with its length in front."""
    comes_back(peer, entry(AUTHENTICATION, b"\x06custom!secret") + entry(ROUTING, tags(ROUTE)))


def test_metadata_in_a_stream_request_leads_to_its_handler(peer: Peer) -> None:
    """Composite Metadata: it may stand in every frame that starts an interaction."""
    metadata = entry(5, b"{}") + entry(ROUTING, tags("echo.stream"))
    peer.send(wire.request(wire.REQUEST_STREAM, 1, b"2:3", metadata, n=5))
    assert peer.on_stream(1).kind == wire.PAYLOAD


@pytest.mark.applies("calls")
def test_the_server_routes_its_own_requests(peer: Peer) -> None:
    """Routing: as a requester, it says in composite metadata where a request is to go."""
    peer.send(wire.request(wire.REQUEST_RESPONSE, 1, b"{}", wire.routed("call.response")))
    asked = peer.next()
    assert asked is not None
    by_number, spelled_out = (entry(mime, tags("call.it")) for mime in (ROUTING, "message/x.rsocket.routing.v0"))
    assert wire.payload_metadata(asked) in (by_number, spelled_out)
