"""REQUEST_N frame and credit: Flow Control, Reactive Streams Semantics."""

import struct

import pytest

from tests.conformance import wire
from tests.conformance.targets import Target
from tests.conformance.wire import Peer

SECTION = "REQUEST_N and flow control"
pytestmark = pytest.mark.applies("routes")


def flow(stream: int, n: int) -> bytes:
    """An endless stream."""
    return wire.request(wire.REQUEST_STREAM, stream, b"", wire.routed("probe.flow"), n=n)


def count(peer: Peer, stream: int = 1) -> int:
    """Items that have come by the time that everything sent so far was dealt with."""
    return sum(one.kind == wire.PAYLOAD for one in wire.of_stream(peer.settle(), stream))


def test_request_n_adds_to_the_credit(peer: Peer) -> None:
    """Reactive Streams Semantics: as in the specification's example: three items, a wait, and more once asked for."""
    peer.send(flow(1, 3))
    assert count(peer) == 3
    peer.send(wire.request_n(1, 3))
    assert count(peer) == 3


def test_credits_are_cumulative(peer: Peer) -> None:
    """Reactive Streams Semantics: request(3) and request(2) make 5."""
    peer.send(flow(1, 1), wire.request_n(1, 3), wire.request_n(1, 2))
    assert count(peer) == 6


def test_credits_arrive_one_by_one(peer: Peer) -> None:
    """Reactive Streams Semantics: many small ones are as good as a large one."""
    peer.send(flow(1, 1), *(wire.request_n(1, 1) for _ in range(99)))
    found = 0
    while found < 100:
        assert peer.on_stream(1).kind == wire.PAYLOAD
        found += 1
    assert count(peer) == 0


def test_credit_of_one_stream_is_not_that_of_another(peer: Peer) -> None:
    """REQUEST_N Frame: it stands on the stream whose items it asks for."""
    peer.send(flow(1, 1), flow(3, 1))
    peer.settle()
    peer.send(wire.request_n(3, 4))
    found = peer.settle()
    assert [len(wire.of_stream(found, stream)) for stream in (1, 3)] == [0, 4]


def test_a_stream_without_credit_waits_for_ever(peer: Peer) -> None:
    """Handling the Unexpected: lack of REQUEST_N that stops a stream is no concern of the protocol: nothing is ended
    for it."""
    peer.send(flow(1, 1))
    assert count(peer) == 1
    assert peer.leftover(0.3) == []
    peer.send(wire.request_n(1, 1))
    assert count(peer) == 1


@pytest.mark.row("A-38")
def test_a_source_runs_no_further_than_its_credit(target: Target) -> None:
    """Reactive Streams Semantics: the responder must respect demand; here, that its source feels it too. One item may
    stand ready ahead of demand."""
    before = target.seen("made")
    peer = target.join()
    peer.send(flow(1, 5))
    assert count(peer) == 5
    assert target.seen("made") - before <= 6


@pytest.mark.parametrize("stream", [0, 2, 77, 0x7FFFFFFF])
def test_request_n_on_an_unknown_stream_is_ignored(peer: Peer, stream: int) -> None:
    """Handling the Unexpected: frames that are not accounted for must be ignored."""
    peer.send(wire.request_n(stream, 5))
    assert peer.settle() == []


def test_request_n_after_the_end_is_ignored(peer: Peer) -> None:
    """Request Stream: the stream is gone with its COMPLETE."""
    peer.send(wire.request(wire.REQUEST_STREAM, 1, b"1:1", wire.routed("echo.stream"), n=5))
    while not peer.on_stream(1).flags & wire.COMPLETE:
        pass
    peer.send(wire.request_n(1, 5))
    assert peer.settle() == []


def test_request_n_of_nothing_does_no_harm(peer: Peer) -> None:
    """REQUEST_N Frame: the value must be more than 0. A stream that breaks this may be ended, and nothing else."""
    peer.send(flow(1, 1))
    assert count(peer) == 1
    peer.send(wire.request_n(1, 0))
    assert [one.kind for one in wire.of_stream(peer.settle(), 1)] in ([], [wire.ERROR])
    peer.is_served()


def test_the_largest_credit_is_taken(peer: Peer) -> None:
    """REQUEST_N Frame: up to 2^31 - 1, which has no magic meaning."""
    peer.send(wire.request(wire.REQUEST_STREAM, 1, b"50:1", wire.routed("echo.stream"), n=wire.MAX_31))
    items = 0
    while True:
        one = peer.on_stream(1)
        items += bool(one.flags & wire.NEXT)
        if one.flags & wire.COMPLETE:
            break
    assert items == 50


def test_credit_beyond_31_bits_in_all_is_no_fault(peer: Peer) -> None:
    """Reactive Streams Semantics: credits are cumulative and cannot be revoked; a sum beyond the field is as good as
    endless, and never turns into less."""
    peer.send(wire.request(wire.REQUEST_STREAM, 1, b"300:1", wire.routed("echo.stream"), n=1))
    peer.send(*(wire.request_n(1, wire.MAX_31) for _ in range(5)))
    items = 0
    while True:
        one = peer.on_stream(1)
        assert one.kind == wire.PAYLOAD, wire.shown(one)
        items += bool(one.flags & wire.NEXT)
        if one.flags & wire.COMPLETE:
            break
    assert items == 300


def test_the_reserved_bit_of_a_credit_does_no_harm(peer: Peer) -> None:
    """REQUEST_N Frame: the number has 31 bits, and the bit in front is 0. Where it is not, the rest is the number, or
    the stream fails; it is not a license for more."""
    peer.send(flow(1, 1))
    assert count(peer) == 1
    peer.send(wire.frame(1, wire.REQUEST_N, 0, struct.pack(">I", 0x80000003)))
    kinds = [one.kind for one in wire.of_stream(peer.settle(), 1)]
    assert kinds in ([wire.PAYLOAD] * 3, [wire.ERROR], [])
    peer.is_served()


def test_a_fragmented_item_costs_one_credit(peer: Peer) -> None:
    """Fragmentation and Reassembly: fragments do not change the request(n) count: two items of 16 MiB, two frames
    each, for a credit of 2."""
    peer.wait *= 4
    size = wire.MAX_FRAME
    peer.send(wire.request(wire.REQUEST_STREAM, 1, b"3:%d" % size, wire.routed("echo.stream"), n=2))
    assert [len(peer.message(1)[0]) for _ in range(2)] == [size] * 2
    assert count(peer) == 0


def test_stream_0_is_served_while_a_stream_runs_flat_out(peer: Peer) -> None:
    """QoS and Prioritization: frames with stream id 0 should have a higher priority: a KEEPALIVE is answered in the
    middle of an endless stream."""
    peer.send(flow(1, wire.MAX_31))
    peer.on_stream(1)
    peer.send(wire.keepalive(b"and now?"))
    seen = 0
    while (one := peer.next()) is not None and one.kind != wire.KEEPALIVE:
        seen += 1
        assert seen < 500_000, "the stream does not let a KEEPALIVE through"
    assert one is not None
    peer.send(wire.cancel(1))
