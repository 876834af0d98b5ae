"""PAYLOAD frame: N, C, F and M."""

import pytest

from tests.conformance import wire
from tests.conformance.wire import Peer

SECTION = "PAYLOAD"
routes = pytest.mark.applies("routes")
NEXT, COMPLETE = wire.NEXT, wire.COMPLETE


def collect(peer: Peer) -> None:
    """Opens a channel whose responder takes everything and answers with the sizes of it, the request's first; waits
    for credit."""
    peer.send(wire.request(wire.REQUEST_CHANNEL, 1, b"1", wire.routed("probe.collect"), n=5))
    assert peer.on_stream(1).kind == wire.REQUEST_N


def collected(peer: Peer) -> list[list[int]]:
    """What the responder says it got after the request: the sizes of data and metadata, 0 for none."""
    while (one := peer.on_stream(1)).kind == wire.REQUEST_N:
        pass
    found = wire.parsed(one)
    assert isinstance(found, list)
    return [[data, max(metadata, 0)] for data, metadata in found[1:]]


@pytest.mark.parametrize("flags", [NEXT, COMPLETE, NEXT | COMPLETE, 0], ids=["N", "C", "NC", "none"])
@pytest.mark.parametrize("stream", [0, 1, 2, 77, 0x7FFFFFFF])
def test_a_payload_on_an_unknown_stream_is_ignored(peer: Peer, stream: int, flags: int) -> None:
    """Handling the Unexpected: PAYLOAD on an unknown stream id, 0 included, must be ignored."""
    peer.send(wire.payload(stream, b"what for?", flags=flags))
    assert peer.settle() == []


@routes
def test_next_is_an_item_and_complete_is_the_end(peer: Peer) -> None:
    """PAYLOAD Frame: just N is an item, just C is the end without one."""
    collect(peer)
    peer.send(wire.payload(1, b"22"), wire.payload(1, b"333"), wire.payload(1, flags=COMPLETE))
    assert collected(peer) == [[2, 0], [3, 0]]


@routes
def test_next_and_complete_is_the_last_item(peer: Peer) -> None:
    """PAYLOAD Frame: N and C together are onNext, then onComplete."""
    collect(peer)
    peer.send(wire.payload(1, b"22", flags=NEXT | COMPLETE))
    assert collected(peer) == [[2, 0]]


@routes
def test_an_item_may_have_no_bytes(peer: Peer) -> None:
    """PAYLOAD Frame: data of no bytes is a valid payload and reaches the application."""
    collect(peer)
    peer.send(wire.payload(1), wire.payload(1), wire.payload(1, flags=NEXT | COMPLETE))
    assert collected(peer) == [[0, 0]] * 3


@routes
def test_neither_next_nor_complete_is_nothing(peer: Peer) -> None:
    """PAYLOAD Frame, Handling the Unexpected: a PAYLOAD must not have both empty; one that has is passed over."""
    collect(peer)
    peer.send(wire.payload(1, b"22", flags=0), wire.payload(1, b"333", flags=NEXT | COMPLETE))
    assert collected(peer) == [[3, 0]]


@routes
def test_metadata_of_a_payload_is_its_own(peer: Peer) -> None:
    """PAYLOAD Frame: each payload may have metadata, which may be empty, or none."""
    collect(peer)
    peer.send(wire.payload(1, b"22", b"abc"), wire.payload(1, b"", b"abcd"), wire.payload(1, b"x"))
    peer.send(wire.payload(1, b"333", flags=NEXT | COMPLETE))
    assert collected(peer) == [[2, 3], [0, 4], [1, 0], [3, 0]]


@routes
def test_payloads_after_complete_are_ignored(peer: Peer) -> None:
    """Request Channel: a requester must not send PAYLOAD after C; what comes makes no sense and is passed over."""
    collect(peer)
    peer.send(wire.payload(1, b"22", flags=NEXT | COMPLETE), wire.payload(1, b"late"), wire.payload(1, flags=COMPLETE))
    assert collected(peer) == [[2, 0]]
    assert [one for one in wire.of_stream(peer.settle(), 1) if not one.flags & COMPLETE] == []
    peer.is_served()


@routes
def test_complete_overrules_follows(peer: Peer) -> None:
    """Handling the Unexpected: a PAYLOAD with both F and C set implicitly ignores F: it is the last one, and whole."""
    collect(peer)
    peer.send(wire.payload(1, b"22", flags=NEXT | COMPLETE, follows=True))
    found = [one for one in peer.settle() if one.kind == wire.PAYLOAD]
    assert found, "the message is thought to go on"
    assert str(wire.parsed(found[0])).startswith("[[1, ")
    assert "[2, " in str(wire.parsed(found[0]))
