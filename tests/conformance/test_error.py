"""ERROR frame and its codes, on streams and on the connection."""

import pytest

from tests.conformance import wire
from tests.conformance.targets import Target
from tests.conformance.wire import Peer

SECTION = "ERROR"
routes = pytest.mark.applies("routes")


@routes
def test_an_application_error_ends_its_stream(peer: Peer) -> None:
    """Error Codes: APPLICATION_ERROR is what a responder's onError becomes; its stream id is that of the request."""
    peer.send(wire.request(wire.REQUEST_RESPONSE, 1, b"", wire.routed("echo.error")))
    answer = peer.expect(wire.ERROR, 1)
    assert wire.code(answer) == wire.APPLICATION_ERROR
    assert peer.settle() == []


@routes
def test_error_data_is_readable(peer: Peer) -> None:
    """ERROR Frame: Error Data should be UTF-8, must not be ended by a null byte, and says something."""
    peer.send(wire.request(wire.REQUEST_RESPONSE, 1, b"", wire.routed("echo.error")))
    text = peer.expect(wire.ERROR, 1).body[4:]
    assert text.decode()
    assert not text.endswith(b"\0")


@routes
@pytest.mark.parametrize("kind", [wire.REQUEST_RESPONSE, wire.REQUEST_STREAM, wire.REQUEST_CHANNEL], ids=hex)
def test_a_request_that_leads_nowhere_gets_an_error_on_its_stream(peer: Peer, kind: int) -> None:
    """Error Codes: a request that cannot be served gets a code for streams, and costs nobody else anything."""
    n = 5 if kind in wire.WITH_CREDIT else None
    peer.send(wire.request(kind, 1, b"x", wire.routed("no.such.route"), n=n))
    while (answer := peer.on_stream(1)).kind == wire.REQUEST_N:
        pass
    assert answer.kind == wire.ERROR
    assert wire.code(answer) in wire.STREAM_CODES
    peer.is_served()


@routes
def test_nothing_follows_an_error_on_its_stream(peer: Peer) -> None:
    """Request Stream: ERROR is the last frame of a stream, whatever credit is left."""
    peer.send(wire.request(wire.REQUEST_STREAM, 1, b"2:3", wire.routed("echo.stream-error"), n=100))
    assert [peer.on_stream(1).kind for _ in range(3)] == [wire.PAYLOAD, wire.PAYLOAD, wire.ERROR]
    peer.send(wire.request_n(1, 5), wire.cancel(1))
    assert wire.of_stream(peer.settle(), 1) == []


@routes
def test_an_error_on_one_stream_leaves_others_alone(peer: Peer) -> None:
    """ERROR Frame: a stream id above 0 means that the error is of that stream."""
    peer.send(
        wire.request(wire.REQUEST_STREAM, 1, b"4:1", wire.routed("echo.stream"), n=2),
        wire.request(wire.REQUEST_RESPONSE, 3, b"", wire.routed("echo.error")),
    )
    assert peer.on_stream(3).kind == wire.ERROR
    peer.send(wire.request_n(1, 2))
    kinds = []
    while not (one := peer.on_stream(1)).flags & wire.COMPLETE:
        kinds.append(one.kind)
    assert set(kinds) == {wire.PAYLOAD}


@pytest.mark.parametrize("stream", [1, 2, 77, 78, 0x7FFFFFFF])
def test_an_error_on_an_unknown_stream_is_ignored(peer: Peer, stream: int) -> None:
    """Handling the Unexpected: ERROR on a stream that does not exist must be ignored."""
    peer.send(wire.error(stream, wire.APPLICATION_ERROR), wire.error(stream, wire.CANCELED))
    assert peer.settle() == []


@pytest.mark.parametrize("code", sorted({*wire.SETUP_CODES, wire.REJECTED_RESUME}))
def test_a_server_ignores_errors_about_setup(peer: Peer, code: int) -> None:
    """Handling the Unexpected: a server must ignore ERROR[INVALID_SETUP | UNSUPPORTED_SETUP | REJECTED_SETUP |
    REJECTED_RESUME]."""
    peer.send(wire.error(0, code))
    assert peer.settle() == []


def test_a_connection_error_ends_the_connection(peer: Peer) -> None:
    """Error Codes: CONNECTION_ERROR says that the connection is being ended; with no stream open, it is over."""
    peer.send(wire.error(0, wire.CONNECTION_ERROR))
    assert all(one.kind == wire.ERROR and one.stream == 0 for one in peer.ends())


@routes
def test_a_connection_error_reaches_the_handlers(target: Target) -> None:
    """Error Codes: what was under way for that client is stopped."""
    before = target.seen("waits_cancelled")
    peer = target.join()
    peer.send(wire.request(wire.REQUEST_RESPONSE, 1, b"", wire.routed("probe.wait")), wire.keepalive())
    peer.next()
    peer.send(wire.error(0, wire.CONNECTION_ERROR))
    assert wire.until(lambda: target.seen("waits_cancelled") > before, peer.wait / 2)


def test_a_connection_close_with_no_stream_open_ends_the_connection(peer: Peer) -> None:
    """Error Codes: CONNECTION_CLOSE waits for open streams, of which there are none here."""
    peer.send(wire.error(0, wire.CONNECTION_CLOSE))
    assert all(one.kind == wire.ERROR and one.stream == 0 for one in peer.ends())


@routes
def test_a_connection_close_lets_open_streams_finish(peer: Peer) -> None:
    """Error Codes: the receiver of CONNECTION_CLOSE must wait for outstanding streams before it closes."""
    peer.send(
        wire.request(wire.REQUEST_RESPONSE, 1, b"150", wire.routed("echo.slow")),
        wire.error(0, wire.CONNECTION_CLOSE),
    )
    answer = peer.on_stream(1)
    assert answer.kind == wire.PAYLOAD
    assert wire.payload_data(answer) == b"150"
    peer.ends()


@routes
def test_an_error_needs_no_data(peer: Peer) -> None:
    """ERROR Frame: Error Data may be empty; a channel that a requester fails that way is over."""
    peer.send(wire.request(wire.REQUEST_CHANNEL, 1, b"ping", wire.routed("echo.channel"), n=5))
    peer.on_stream(1)
    peer.send(wire.error(1, wire.APPLICATION_ERROR, b""))
    peer.settle()
    peer.is_served()


@routes
@pytest.mark.parametrize("code", [0x301, 0xFFFFFFFE, 0xFFFFFFFF, 0x0, 0x250])
def test_a_code_of_applications_is_an_error_too(peer: Peer, code: int) -> None:
    """Error Codes: values from 0x301 up are the applications' own, and the rest is reserved; none of them upsets the
    connection."""
    peer.send(wire.request(wire.REQUEST_CHANNEL, 1, b"ping", wire.routed("echo.channel"), n=5))
    peer.on_stream(1)
    peer.send(wire.error(1, code))
    peer.settle()
    peer.send(wire.payload(1, b"more"))
    assert wire.of_stream(peer.settle(), 1) == []
    peer.is_served()
