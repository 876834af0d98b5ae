"""Handling the Unexpected: what is left of it; most of its rules stand with the frame that they are about."""

import struct

import pytest

from tests.conformance import wire
from tests.conformance.wire import Peer

SECTION = "Handling the unexpected"
routes = pytest.mark.applies("routes")


def test_a_resume_ok_out_of_place_is_ignored(peer: Peer) -> None:
    """Handling the Unexpected: frames that are not accounted for must be ignored; only a server sends RESUME_OK."""
    peer.send(wire.frame(0, wire.RESUME_OK, 0, bytes(8)))
    assert peer.settle() == []


def test_a_lease_that_nobody_asked_for_is_ignored(peer: Peer) -> None:
    """Handling the Unexpected: without the L flag in SETUP, LEASE means nothing."""
    peer.send(wire.lease(1000, 5), wire.lease(0, 0))
    assert peer.settle() == []


@pytest.mark.parametrize("stream", [1, 2])
def test_a_setup_on_another_stream_is_ignored_later(peer: Peer, stream: int) -> None:
    """Handling the Unexpected: SETUP after SETUP must be ignored, wherever it stands."""
    peer.send(wire.keepalive(b"in"))
    peer.expect(wire.KEEPALIVE, 0)
    peer.send(wire.setup(stream=stream))
    assert peer.settle() == []


def test_a_resume_after_setup_ends_the_connection(peer: Peer) -> None:
    """Resume Operation: a server that receives RESUME after SETUP should send ERROR[CONNECTION_ERROR]."""
    peer.send(wire.keepalive(b"in"))
    peer.expect(wire.KEEPALIVE, 0)
    peer.send(wire.resume(b"token", 0, 0))
    assert wire.code(peer.refusal()) == wire.CONNECTION_ERROR


def test_the_client_may_go_without_a_word(peer: Peer) -> None:
    """Transport Protocol: a transport may be closed at any time; the other side closes as well."""
    peer.send(wire.keepalive(b"in"))
    peer.expect(wire.KEEPALIVE, 0)
    peer.socket.shutdown(1)
    assert all(one.stream == 0 for one in peer.ends())


@routes
def test_every_odd_frame_at_once(peer: Peer) -> None:
    """Handling the Unexpected: this protocol is lenient: a connection outlives everything that makes no sense."""
    peer.send(
        wire.setup(),
        wire.setup(version=(7, 7)),
        wire.lease(1, 1),
        wire.frame(0, wire.RESUME_OK, 0, bytes(8)),
        *(
            one
            for stream in (0, 2, 76, 77, 0x7FFFFFFE)
            for one in (
                wire.cancel(stream),
                wire.payload(stream, b"x"),
                wire.payload(stream, b"x", follows=True),
                wire.payload(stream, flags=0),
                wire.request_n(stream, 3),
                wire.frame(stream, 0x2A, wire.IGNORE),
                wire.frame(stream, wire.EXT, wire.IGNORE, struct.pack(">I", 1)),
            )
        ),
        *(wire.error(stream, wire.APPLICATION_ERROR) for stream in (2, 76, 77)),
        wire.frame(3, wire.METADATA_PUSH, wire.METADATA, b"x"),
    )
    assert peer.settle() == []
    peer.is_served()
