"""CANCEL frame."""

import pytest

from tests.conformance import wire
from tests.conformance.targets import Target
from tests.conformance.wire import Peer

SECTION = "CANCEL"
routes = pytest.mark.applies("routes")


@pytest.mark.parametrize("stream", [0, 1, 2, 77, 78, 0x7FFFFFFF])
def test_a_cancel_on_an_unknown_stream_is_ignored(peer: Peer, stream: int) -> None:
    """Handling the Unexpected: CANCEL on a stream id that is unknown, 0 included, must be ignored."""
    peer.send(wire.cancel(stream))
    assert peer.settle() == []


@routes
@pytest.mark.parametrize("kind", [wire.REQUEST_RESPONSE, wire.REQUEST_STREAM, wire.REQUEST_CHANNEL], ids=hex)
def test_a_cancel_is_not_answered(peer: Peer, kind: int) -> None:
    """CANCEL Frame: upon receiving it the stream is terminated on the responder; no frame follows."""
    route = {
        wire.REQUEST_RESPONSE: "probe.wait",
        wire.REQUEST_STREAM: "probe.flow",
        wire.REQUEST_CHANNEL: "echo.channel",
    }
    peer.send(wire.request(kind, 1, b"x", wire.routed(route[kind]), n=1 if kind in wire.WITH_CREDIT else None))
    peer.settle()
    peer.send(wire.cancel(1))
    assert peer.settle() == []
    peer.send(wire.request_n(1, 9), wire.payload(1, b"x"))
    assert peer.settle() == []


@routes
def test_a_second_cancel_is_ignored(peer: Peer) -> None:
    """Handling the Unexpected: after the first, the stream is unknown."""
    peer.send(wire.request(wire.REQUEST_STREAM, 1, b"", wire.routed("probe.flow"), n=1))
    peer.settle()
    peer.send(wire.cancel(1), wire.cancel(1), wire.cancel(1))
    assert peer.settle() == []


@routes
def test_a_cancel_of_one_stream_leaves_others_alone(peer: Peer) -> None:
    """CANCEL Frame: it is for the stream that it stands on."""
    flow = wire.routed("probe.flow")
    peer.send(*(wire.request(wire.REQUEST_STREAM, stream, b"", flow, n=1) for stream in (1, 3)))
    peer.settle()
    peer.send(wire.cancel(1), wire.request_n(1, 3), wire.request_n(3, 3))
    found = peer.settle()
    assert [len(wire.of_stream(found, stream)) for stream in (1, 3)] == [0, 3]


@routes
def test_a_cancel_may_cut_a_fragmented_request(target: Target) -> None:
    """Fragmentation and Reassembly: a requester may cancel a request whose fragments it has not all sent; it is never
    handled."""
    before = target.fired()
    peer = target.join()
    metadata = wire.routed("echo.fire")
    first = len(metadata).to_bytes(3, "big") + metadata + b"begin"
    peer.send(wire.frame(1, wire.REQUEST_FNF, wire.METADATA | wire.FOLLOWS, first), wire.cancel(1))
    peer.send(wire.payload(1, b"end"))
    assert peer.settle() == []
    assert target.fired() == before


@routes
def test_a_cancel_may_cut_a_fragmented_payload(peer: Peer) -> None:
    """Fragmentation and Reassembly: the same for a PAYLOAD in a channel."""
    peer.send(wire.request(wire.REQUEST_CHANNEL, 1, b"one", wire.routed("echo.channel"), n=9))
    peer.settle()
    peer.send(wire.payload(1, b"begin", follows=True), wire.cancel(1), wire.payload(1, b"end"))
    assert peer.settle() == []
    peer.is_served()
