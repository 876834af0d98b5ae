"""REQUEST_RESPONSE frame and the sequence of a request-response."""

import pytest

from tests.conformance import wire
from tests.conformance.targets import Target
from tests.conformance.wire import Peer

SECTION = "Request response"
pytestmark = pytest.mark.applies("routes")


@pytest.mark.row("A-37")
def test_the_answer_is_one_payload_that_completes(peer: Peer) -> None:
    """Request Response: PAYLOAD with COMPLETE, on the stream of the request, and nothing after it."""
    peer.send(wire.echo(1, b"ping"))
    answer = peer.expect(wire.PAYLOAD, 1)
    assert answer.flags & (wire.NEXT | wire.COMPLETE) == wire.NEXT | wire.COMPLETE
    assert not answer.flags & wire.FOLLOWS
    assert wire.payload_data(answer) == b"ping"
    assert peer.settle() == []


@pytest.mark.parametrize("data", [b"", b"\0", bytes(range(256)), b"x" * 70_000], ids=["none", "null", "all", "long"])
def test_data_are_bytes(peer: Peer, data: bytes) -> None:
    """Data and Metadata: the protocol does not look into data."""
    peer.send(wire.echo(1, data))
    assert peer.message(1)[0] == data


def test_metadata_comes_back_apart_from_data(peer: Peer) -> None:
    """Data and Metadata: both travel in one payload, each with its own length."""
    peer.send(wire.echo(1, b"ping"))
    answer = peer.expect(wire.PAYLOAD, 1)
    assert wire.payload_metadata(answer) == wire.routed("echo.request")


def test_data_of_no_bytes_is_still_an_item(peer: Peer) -> None:
    """PAYLOAD Frame: the N flag says that there is a payload, not the number of its bytes."""
    peer.send(wire.echo(1, b""))
    assert peer.expect(wire.PAYLOAD, 1).flags & wire.NEXT


@pytest.mark.row("A-39")
def test_a_slow_request_delays_no_other(peer: Peer) -> None:
    """QoS and Prioritization: frames of one stream are handled in order, those of different streams need not be."""
    peer.send(wire.request(wire.REQUEST_RESPONSE, 1, b"200", wire.routed("echo.slow")), wire.echo(3))
    assert [(peer.next() or wire.Frame(0, 0, 0, b"")).stream for _ in range(2)] == [3, 1]


def test_many_requests_are_under_way_at_once(peer: Peer) -> None:
    """Terminology: a connection carries any number of streams."""
    streams = range(1, 101, 2)
    peer.send(*(wire.request(wire.REQUEST_RESPONSE, one, b"60", wire.routed("echo.slow")) for one in streams))
    peer.wait = 2.0  # one after the other, they would take three seconds
    answered = {(peer.next() or wire.Frame(0, 0, 0, b"")).stream for _ in streams}
    assert answered == set(streams)


def test_a_cancelled_request_is_not_answered(peer: Peer) -> None:
    """Request Response: upon a CANCEL, the stream is terminated on the responder, and no response should be sent."""
    peer.send(wire.request(wire.REQUEST_RESPONSE, 1, b"60", wire.routed("echo.slow")), wire.cancel(1))
    assert wire.of_stream(peer.settle() + peer.leftover(0.1), 1) == []


@pytest.mark.row("A-45")
def test_a_cancel_reaches_the_handler(target: Target) -> None:
    """Request Response: with the stream goes the work that was done for it."""
    before = target.seen("waits_cancelled")
    peer = target.join()
    peer.send(wire.request(wire.REQUEST_RESPONSE, 1, b"", wire.routed("probe.wait")))
    assert peer.settle() == []
    peer.send(wire.cancel(1))
    assert wire.until(lambda: target.seen("waits_cancelled") > before, peer.wait / 2)


@pytest.mark.row("A-45")
def test_the_end_of_the_connection_reaches_the_handler(target: Target) -> None:
    """Stream Sequences and Lifetimes: a stream lives no longer than its connection."""
    before = target.seen("waits_cancelled")
    peer = target.join()
    peer.send(wire.request(wire.REQUEST_RESPONSE, 1, b"", wire.routed("probe.wait")))
    assert peer.settle() == []
    peer.close()
    assert wire.until(lambda: target.seen("waits_cancelled") > before, 2)


def test_an_error_is_the_answer_too(peer: Peer) -> None:
    """Request Response: or ERROR with one of the four codes for streams."""
    peer.send(wire.request(wire.REQUEST_RESPONSE, 1, b"", wire.routed("echo.error")))
    assert wire.code(peer.expect(wire.ERROR, 1)) in wire.STREAM_CODES


def test_frames_after_the_answer_are_ignored(peer: Peer) -> None:
    """Request Response: once the response is sent the stream is gone; CANCEL, ERROR, REQUEST_N and PAYLOAD for it are
    for an unknown stream."""
    peer.send(wire.echo(1))
    peer.expect(wire.PAYLOAD, 1)
    peer.send(wire.cancel(1), wire.error(1, wire.CANCELED), wire.request_n(1, 3), wire.payload(1, b"late"))
    assert peer.settle() == []


def test_a_request_on_an_id_in_use_is_ignored(peer: Peer) -> None:
    """Handling the Unexpected: a request on a stream that is open must be ignored: there is one answer, to the
    first."""
    peer.send(
        wire.request(wire.REQUEST_RESPONSE, 1, b"80", wire.routed("echo.slow")),
        wire.echo(1, b"second"),
    )
    assert wire.payload_data(peer.on_stream(1)) == b"80"
    assert wire.of_stream(peer.settle(), 1) == []


@pytest.mark.parametrize("odd", ["payload", "request n", "keepalive"])
def test_frames_that_make_no_sense_for_a_request_are_ignored(peer: Peer, odd: str) -> None:
    """Handling the Unexpected: the requester of a response has nothing more to say but CANCEL."""
    frames = {
        "payload": wire.payload(1, b"more", flags=wire.NEXT | wire.COMPLETE),
        "request n": wire.request_n(1, 5),
        "keepalive": wire.frame(1, wire.KEEPALIVE, wire.RESPOND, bytes(8)),
    }
    peer.send(wire.request(wire.REQUEST_RESPONSE, 1, b"60", wire.routed("echo.slow")), frames[odd])
    assert wire.payload_data(peer.on_stream(1)) == b"60"
    assert peer.settle() == []
