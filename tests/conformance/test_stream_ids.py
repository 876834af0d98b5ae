"""Stream Identifiers: who makes them, how long they live, what happens when they run out."""

import pytest

from tests.conformance import wire
from tests.conformance.wire import Peer

SECTION = "Stream identifiers and lifetimes"
routes = pytest.mark.applies("routes")
LAST = wire.MAX_31


@pytest.mark.parametrize("kind", wire.REQUESTS, ids=["response", "fnf", "stream", "channel"])
def test_a_request_on_stream_0_is_ignored(peer: Peer, kind: int) -> None:
    """Generation, Handling the Unexpected: 0 is for the connection; a request there makes no sense."""
    peer.send(wire.request(kind, 0, b"x", wire.routed("echo.request"), n=1 if kind in wire.WITH_CREDIT else None))
    assert peer.settle() == []


@routes
def test_ids_of_a_client_are_odd_and_ascend(peer: Peer) -> None:
    """Generation: 1, 3, 5 and so on; each stream is its own."""
    for stream in (1, 3, 5, 7):
        peer.send(wire.echo(stream, b"%d" % stream))
        assert wire.payload_data(peer.expect(wire.PAYLOAD, stream)) == b"%d" % stream


@routes
def test_the_largest_id_is_served(peer: Peer) -> None:
    """Generation: 2^31 - 1 is the last id of a client."""
    peer.send(wire.echo(LAST))
    assert peer.expect(wire.PAYLOAD, LAST)


@routes
def test_ids_start_again_when_they_have_run_out(peer: Peer) -> None:
    """Lifetime: a responder must assume that ids are used again after the last: 1 follows it."""
    peer.send(wire.echo(1), wire.echo(LAST))
    peer.expect(wire.PAYLOAD, 1)
    peer.expect(wire.PAYLOAD, LAST)
    peer.send(wire.echo(1, b"again"), wire.echo(3, b"and on"))
    assert wire.payload_data(peer.on_stream(1)) == b"again"
    assert wire.payload_data(peer.on_stream(3)) == b"and on"


@routes
def test_an_id_still_in_use_after_the_turn_is_ignored_or_rejected(peer: Peer) -> None:
    """Lifetime: a responder may answer ERROR[REJECTED] for an id that it considers in use; the stream that has it
    goes on."""
    peer.send(wire.request(wire.REQUEST_STREAM, 1, b"9:1", wire.routed("echo.stream"), n=1))
    assert peer.on_stream(1).kind == wire.PAYLOAD
    peer.send(wire.echo(LAST))
    peer.expect(wire.PAYLOAD, LAST)
    peer.send(wire.echo(1, b"again"))
    found = wire.of_stream(peer.settle(), 1)
    if found:
        assert wire.code(found[0]) == wire.REJECTED
        return
    peer.send(wire.request_n(1, 1))
    assert peer.on_stream(1).kind == wire.PAYLOAD


@routes
def test_a_stream_lives_as_long_as_its_requester_wants(peer: Peer) -> None:
    """Stream Sequences and Lifetimes: a thousand others in between change nothing."""
    peer.send(wire.request(wire.REQUEST_STREAM, 1, b"", wire.routed("probe.flow"), n=1))
    assert peer.on_stream(1).kind == wire.PAYLOAD
    streams = range(3, 2003, 2)
    peer.send(*(wire.echo(stream) for stream in streams))
    for _ in streams:
        peer.next()
    peer.send(wire.request_n(1, 1))
    assert wire.payload_data(peer.on_stream(1)) == b"1"


@pytest.mark.applies("calls")
def test_ids_of_the_server_are_even_and_ascend_by_two(peer: Peer) -> None:
    """Generation: a server must start at 2 and go on with 4, 6, 8."""
    found = []
    for stream in (1, 3, 5):
        peer.send(wire.request(wire.REQUEST_RESPONSE, stream, b"{}", wire.routed("call.response")))
        asked = peer.next()
        assert asked is not None
        found.append(asked.stream)
        peer.send(wire.payload(asked.stream, b"1", flags=wire.NEXT | wire.COMPLETE))
        assert peer.on_stream(stream).kind == wire.PAYLOAD
    assert found == [2, 4, 6]


@pytest.mark.applies("calls")
def test_ids_of_both_sides_are_apart(peer: Peer) -> None:
    """Generation: odd and even keep the two requesters of a connection from meeting."""
    peer.send(wire.request(wire.REQUEST_RESPONSE, 1, b"{}", wire.routed("call.response")))
    asked = peer.next()
    assert asked is not None
    peer.send(wire.request(wire.REQUEST_RESPONSE, asked.stream + 1, b"30", wire.routed("echo.slow")))
    peer.send(wire.payload(asked.stream, b"1", flags=wire.NEXT | wire.COMPLETE))
    answers = [peer.next(), peer.next()]
    assert {one.stream for one in answers if one} == {1, asked.stream + 1}
