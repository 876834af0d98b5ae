"""METADATA_PUSH frame."""

import pytest

from tests.conformance import wire
from tests.conformance.targets import Target
from tests.conformance.wire import Peer

SECTION = "METADATA_PUSH"
routes = pytest.mark.applies("routes")


def push(metadata: bytes, stream: int = 0) -> bytes:
    return wire.frame(stream, wire.METADATA_PUSH, wire.METADATA, metadata)


@pytest.mark.parametrize("metadata", [b"", b"x", b"no composite metadata at all"])
def test_a_push_is_not_answered(peer: Peer, metadata: bytes) -> None:
    """METADATA_PUSH Frame: it is a notification; whatever it says, nothing comes back."""
    peer.send(push(metadata))
    assert peer.settle() == []


@pytest.mark.row("A-37")
@routes
def test_a_push_reaches_the_application(target: Target) -> None:
    """METADATA_PUSH Frame: its metadata, which has no length in front, reaches the peer's application."""
    before = target.seen("pushed")
    peer = target.join()
    peer.send(push(wire.routed("push.count")), push(wire.routed("push.count")))
    assert peer.settle() == []
    assert wire.until(lambda: target.seen("pushed") == before + 2, peer.wait / 2)


@routes
@pytest.mark.parametrize("stream", [1, 2, 0x7FFFFFFF])
def test_a_push_on_another_stream_is_ignored(target: Target, stream: int) -> None:
    """Handling the Unexpected: METADATA_PUSH with a stream id other than 0 must be ignored."""
    before = target.seen("pushed")
    peer = target.join()
    peer.send(push(wire.routed("push.count"), stream))
    assert peer.settle() == []
    assert target.seen("pushed") == before


@routes
def test_a_push_disturbs_no_stream(peer: Peer) -> None:
    """METADATA_PUSH Frame: it pertains to the connection, and to no stream of it."""
    peer.send(wire.request(wire.REQUEST_RESPONSE, 1, b"50", wire.routed("echo.slow")), push(wire.routed("push.count")))
    assert wire.payload_data(peer.on_stream(1)) == b"50"
