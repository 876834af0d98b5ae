"""KEEPALIVE frame."""

import time

import pytest

from tests.conformance import wire
from tests.conformance.targets import Target
from tests.conformance.wire import Peer

SECTION = "KEEPALIVE"
routes = pytest.mark.applies("routes")


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)), b"long" * 2500], ids=["none", "one", "binary", "long"])
def test_a_keepalive_is_answered_with_its_data(peer: Peer, data: bytes) -> None:
    """KEEPALIVE Frame: with R set, the receiver must send one back, with the same data."""
    peer.send(wire.keepalive(data))
    answer = peer.expect(wire.KEEPALIVE, 0)
    assert answer.body[8:] == data
    assert peer.leftover() == []


def test_the_answer_does_not_ask_for_one(peer: Peer) -> None:
    """KEEPALIVE Frame: the answer has R not set, or two peers would never stop."""
    peer.send(wire.keepalive(b"x"))
    assert not peer.expect(wire.KEEPALIVE, 0).flags & wire.RESPOND


def test_a_keepalive_that_asks_for_nothing_is_not_answered(peer: Peer) -> None:
    """KEEPALIVE Frame: without R there is no answer."""
    peer.send(wire.frame(0, wire.KEEPALIVE, 0, bytes(8) + b"quiet"))
    assert peer.settle() == []


def test_the_position_is_zero_without_resumption(peer: Peer) -> None:
    """KEEPALIVE Frame: Last Received Position is all zeros where resumption is not in use."""
    peer.send(wire.keepalive(b"x"))
    assert peer.expect(wire.KEEPALIVE, 0).body[:8] == bytes(8)


def test_a_position_is_taken_without_resumption(peer: Peer) -> None:
    """KEEPALIVE Frame: a position that the peer gives anyway is no fault."""
    peer.send(wire.frame(0, wire.KEEPALIVE, wire.RESPOND, (12345).to_bytes(8, "big") + b"at"))
    assert peer.expect(wire.KEEPALIVE, 0).body[8:] == b"at"


@pytest.mark.parametrize("stream", [1, 2])
def test_a_keepalive_on_another_stream_is_ignored(peer: Peer, stream: int) -> None:
    """KEEPALIVE Frame, Handling the Unexpected: it always stands on stream 0; elsewhere it makes no sense."""
    peer.send(wire.frame(stream, wire.KEEPALIVE, wire.RESPOND, bytes(8) + b"elsewhere"))
    assert peer.settle() == []


def test_each_keepalive_is_answered_in_order(peer: Peer) -> None:
    """KEEPALIVE Frame: many at once get as many answers."""
    peer.send(*(wire.keepalive(b"%d" % number) for number in range(50)))
    assert [peer.expect(wire.KEEPALIVE, 0).body[8:] for _ in range(50)] == [b"%d" % number for number in range(50)]


@routes
def test_a_keepalive_is_answered_while_handlers_work(peer: Peer) -> None:
    """QoS and Prioritization: stream 0 concerns the whole connection; a slow request does not hold it up."""
    peer.send(*(wire.request(wire.REQUEST_RESPONSE, one, b"", wire.routed("echo.never")) for one in (1, 3, 5)))
    peer.send(wire.keepalive(b"still here"))
    assert peer.expect(wire.KEEPALIVE, 0).body[8:] == b"still here"


def test_keepalives_keep_a_connection_alive(target: Target) -> None:
    """KEEPALIVE Frame: its reception tells a server that the client is alive, however short a lifetime it declared."""
    peer = target.join(keepalive_ms=100, lifetime_ms=400)
    for _ in range(9):
        peer.send(wire.keepalive(b"alive"))
        while (one := peer.next()) is not None and one.flags & wire.RESPOND:
            pass
        assert one is not None, "closed although it was heard of all the time"
        time.sleep(0.1)
