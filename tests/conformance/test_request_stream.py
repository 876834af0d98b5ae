"""REQUEST_STREAM frame and the sequence of a stream."""

import struct

import pytest

from tests.conformance import wire
from tests.conformance.targets import Target
from tests.conformance.wire import Peer

SECTION = "Request stream"
pytestmark = pytest.mark.applies("routes")


def stream(number: int, count: int, size: int = 4, *, n: int = wire.MAX_31, route: str = "echo.stream") -> bytes:
    return wire.request(wire.REQUEST_STREAM, number, b"%d:%d" % (count, size), wire.routed(route), n=n)


def items(peer: Peer, number: int) -> int:
    """Payloads of a stream, up to its end."""
    count = 0
    while True:
        _, _, flags = peer.message(number)
        count += bool(flags & wire.NEXT)
        if flags & wire.COMPLETE:
            return count


@pytest.mark.row("A-37")
@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_a_stream_gives_its_items_and_completes(peer: Peer, count: int) -> None:
    """Request Stream: PAYLOAD any number of times, then COMPLETE, then nothing."""
    peer.send(stream(1, count))
    assert items(peer, 1) == count
    assert peer.settle() == []


def test_a_stream_that_fails_gives_its_items_first(peer: Peer) -> None:
    """Request Stream: PAYLOAD any number of times, then ERROR."""
    peer.send(stream(1, 3, route="echo.stream-error"))
    assert [peer.on_stream(1).kind for _ in range(4)] == [wire.PAYLOAD] * 3 + [wire.ERROR]


def test_items_of_no_bytes_are_items(peer: Peer) -> None:
    """PAYLOAD Frame: N, not the number of bytes, says that there is an item."""
    peer.send(stream(1, 5, 0))
    assert items(peer, 1) == 5


def test_the_initial_credit_is_in_the_request(peer: Peer) -> None:
    """REQUEST_STREAM Frame: no more items than Initial Request N come without a REQUEST_N."""
    peer.send(stream(1, 100, n=7))
    assert len(wire.of_stream(peer.settle(), 1)) == 7


def test_a_stream_completes_without_credit(peer: Peer) -> None:
    """Reactive Streams Semantics: credit is for payloads; the end of a stream needs none."""
    peer.send(stream(1, 4, n=4))
    assert items(peer, 1) == 4


def test_an_empty_stream_completes_with_a_payload_that_is_no_item(peer: Peer) -> None:
    """PAYLOAD Frame: just C set means the end, and no data."""
    peer.send(stream(1, 0, n=1))
    end = peer.expect(wire.PAYLOAD, 1)
    assert end.flags & (wire.NEXT | wire.COMPLETE) == wire.COMPLETE
    assert wire.payload_data(end) == b""


def test_an_initial_credit_of_nothing_does_no_harm(peer: Peer) -> None:
    """REQUEST_STREAM Frame: Initial Request N must be more than 0. A stream that breaks this is refused, or stays
    without items."""
    peer.send(stream(1, 5, n=0))
    found = wire.of_stream(peer.settle(), 1)
    assert [one.kind for one in found] in ([], [wire.ERROR])
    peer.is_served()


def test_the_reserved_bit_of_the_initial_credit_does_no_harm(peer: Peer) -> None:
    """REQUEST_STREAM Frame: the credit has 31 bits, and the bit in front is 0. Where it is not, the rest is the
    credit, or the stream fails; it is not a license for more."""
    metadata = wire.routed("echo.stream")
    body = struct.pack(">I", 0x80000002) + len(metadata).to_bytes(3, "big") + metadata + b"9:1"
    peer.send(wire.frame(1, wire.REQUEST_STREAM, wire.METADATA, body))
    kinds = [one.kind for one in wire.of_stream(peer.settle(), 1)]
    assert kinds in ([wire.PAYLOAD] * 2, [wire.ERROR], [])
    peer.is_served()


def test_a_cancel_ends_a_stream(peer: Peer) -> None:
    """Request Stream: upon a CANCEL the stream is terminated on the responder, whatever credit it has."""
    peer.send(wire.request(wire.REQUEST_STREAM, 1, b"", wire.routed("probe.flow"), n=3))
    for _ in range(3):
        assert peer.on_stream(1).kind == wire.PAYLOAD
    peer.send(wire.cancel(1), wire.request_n(1, 50))
    assert wire.of_stream(peer.settle(), 1) == []


@pytest.mark.row("A-45")
def test_a_cancel_reaches_the_source(target: Target) -> None:
    """Request Stream: and so does the source of its items."""
    before = target.seen("flows_cancelled")
    peer = target.join()
    peer.send(wire.request(wire.REQUEST_STREAM, 1, b"", wire.routed("probe.flow"), n=3))
    for _ in range(3):
        peer.on_stream(1)
    peer.send(wire.cancel(1))
    assert wire.until(lambda: target.seen("flows_cancelled") > before, peer.wait / 2)


@pytest.mark.row("A-45")
def test_the_end_of_the_connection_reaches_the_source(target: Target) -> None:
    """Stream Sequences and Lifetimes: a stream lives no longer than its connection."""
    before = target.seen("flows_cancelled")
    peer = target.join()
    peer.send(wire.request(wire.REQUEST_STREAM, 1, b"", wire.routed("probe.flow"), n=3))
    peer.on_stream(1)
    peer.close()
    assert wire.until(lambda: target.seen("flows_cancelled") > before, 2)


def test_streams_do_not_wait_for_each_other(peer: Peer) -> None:
    """QoS and Prioritization: a stream without credit holds up nobody."""
    peer.send(stream(1, 100, n=1), stream(3, 50))
    assert items(peer, 3) == 50


def test_items_come_in_order(peer: Peer) -> None:
    """QoS and Prioritization: within one stream, frames are in order."""
    peer.send(wire.request(wire.REQUEST_STREAM, 1, b"", wire.routed("probe.flow"), n=200))
    found = [int(peer.message(1)[0]) for _ in range(200)]
    assert found == list(range(200))


def test_a_request_on_the_id_of_an_open_stream_is_ignored(peer: Peer) -> None:
    """Handling the Unexpected: a request on a stream id in use must be ignored."""
    peer.send(stream(1, 10, n=2), stream(1, 10, n=5), wire.echo(1))
    assert [one.kind for one in wire.of_stream(peer.settle(), 1)] == [wire.PAYLOAD] * 2
    peer.send(wire.request_n(1, 1))
    assert [one.kind for one in wire.of_stream(peer.settle(), 1)] == [wire.PAYLOAD]
