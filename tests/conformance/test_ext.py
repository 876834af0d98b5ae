"""EXT frame: the way to types of frames that are not in the specification."""

import struct

import pytest

from tests.conformance import wire
from tests.conformance.wire import Peer

SECTION = "EXT"
routes = pytest.mark.applies("routes")


def extension(kind: int, stream: int = 0, flags: int = 0, content: bytes = b"content") -> bytes:
    return wire.frame(stream, wire.EXT, flags, struct.pack(">I", kind) + content)


@pytest.mark.parametrize("stream", [0, 1, 2, 0x7FFFFFFF])
@pytest.mark.parametrize("kind", [1, 0x7FFFFFFF])
def test_an_extension_that_may_be_ignored_is_ignored(peer: Peer, kind: int, stream: int) -> None:
    """EXT Frame, Handling Ignore Flag: with I set, an extended type that is not understood has no effect."""
    peer.send(extension(kind, stream, wire.IGNORE))
    assert peer.settle() == []


def test_an_extension_that_may_be_ignored_may_have_metadata(peer: Peer) -> None:
    """EXT Frame: M says that there is metadata; what comes after the extended type is for those who know it."""
    peer.send(extension(1, 0, wire.IGNORE | wire.METADATA, b"\x00\x00\x04metadata"))
    assert peer.settle() == []


def test_an_extension_that_may_not_be_ignored_ends_the_connection_or_nothing(peer: Peer) -> None:
    """EXT Frame, Handling Ignore Flag: without I, ERROR[CONNECTION_ERROR] and a close may follow: both, or neither."""
    peer.send(extension(1), wire.keepalive(b"after"))
    one = peer.next()
    assert one is not None, "closed without a word"
    if one.kind == wire.KEEPALIVE:
        return
    assert (one.kind, one.stream, wire.code(one)) == (wire.ERROR, 0, wire.CONNECTION_ERROR)
    assert peer.ends() == []


@routes
def test_an_extension_on_an_open_stream_leaves_it_alone(peer: Peer) -> None:
    """EXT Frame: it may stand on any stream; ignored, it changes nothing there."""
    peer.send(wire.request(wire.REQUEST_RESPONSE, 1, b"50", wire.routed("echo.slow")), extension(7, 1, wire.IGNORE))
    assert wire.payload_data(peer.on_stream(1)) == b"50"
