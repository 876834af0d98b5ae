"""REQUEST_CHANNEL frame and the sequences of a channel."""

import struct

import pytest

from tests.conformance import wire
from tests.conformance.wire import Peer

SECTION = "Request channel"
pytestmark = pytest.mark.applies("routes")
NEXT, COMPLETE = wire.NEXT, wire.COMPLETE


def channel(
    stream: int = 1, data: bytes = b"first", *, n: int = wire.MAX_31, route: str = "echo.channel", flags: int = 0
) -> bytes:
    metadata = wire.routed(route)
    body = struct.pack(">I", n) + len(metadata).to_bytes(3, "big") + metadata + data
    return wire.frame(stream, wire.REQUEST_CHANNEL, wire.METADATA | flags, body)


def items(frames: list[wire.Frame], stream: int = 1) -> list[bytes]:
    return [
        wire.payload_data(one)
        for one in wire.of_stream(frames, stream)
        if one.kind == wire.PAYLOAD and one.flags & NEXT
    ]


def completed(frames: list[wire.Frame], stream: int = 1) -> bool:
    return any(one.kind == wire.PAYLOAD and one.flags & COMPLETE for one in wire.of_stream(frames, stream))


def granted(frames: list[wire.Frame], stream: int = 1) -> int:
    return sum(wire.number(one) for one in wire.of_stream(frames, stream) if one.kind == wire.REQUEST_N)


def test_the_responder_grants_credit(peer: Peer) -> None:
    """Request Channel: a responder must respond to the initial REQUEST_CHANNEL with a REQUEST_N."""
    peer.send(channel())
    assert granted(peer.settle()) > 0


def test_the_request_carries_the_first_payload(peer: Peer) -> None:
    """REQUEST_CHANNEL Frame: its data is the first item from requester to responder."""
    peer.send(channel(data=b"first"))
    assert items(peer.settle()) == [b"first"]


@pytest.mark.row("A-37")
def test_payloads_go_both_ways(peer: Peer) -> None:
    """Request Channel: PAYLOAD from either side, any number of times, then COMPLETE from both."""
    peer.send(channel(data=b"0"))
    found = peer.settle()
    credit = granted(found)
    for number in range(1, 20):
        while credit < 1:
            one = peer.on_stream(1)
            found.append(one)
            credit += wire.number(one) if one.kind == wire.REQUEST_N else 0
        peer.send(wire.payload(1, b"%d" % number))
        credit -= 1
    peer.send(wire.payload(1, flags=COMPLETE))
    found += peer.settle()
    assert items(found) == [b"%d" % number for number in range(20)]
    assert completed(found)


def test_complete_may_stand_on_the_request(peer: Peer) -> None:
    """Request Channel: a requester may set C on the initial frame: then that is all it has to say."""
    peer.send(channel(data=b"only", flags=COMPLETE))
    found = peer.settle()
    assert items(found) == [b"only"]
    assert completed(found)


def test_complete_may_stand_on_the_last_payload(peer: Peer) -> None:
    """Request Channel: or on the last PAYLOAD."""
    peer.send(channel(data=b"first"))
    found = peer.settle()
    peer.send(wire.payload(1, b"last", flags=NEXT | COMPLETE))
    found += peer.settle()
    assert items(found) == [b"first", b"last"]
    assert completed(found)


def test_the_stream_is_gone_when_both_have_completed(peer: Peer) -> None:
    """Request Channel: then it is terminated, and what comes for it is for an unknown stream."""
    peer.send(channel(data=b"only", flags=COMPLETE))
    assert completed(peer.settle())
    peer.send(wire.payload(1, b"late"), wire.request_n(1, 3), wire.cancel(1), wire.error(1, wire.CANCELED))
    assert peer.settle() == []


def test_the_responder_goes_on_after_the_requester_has_completed(peer: Peer) -> None:
    """Request Channel: each direction ends by itself: what waits for credit still comes."""
    peer.send(channel(data=b"0", n=1))
    found = peer.settle()
    more = [b"%d" % number for number in range(1, min(granted(found), 3) + 1)]
    peer.send(*(wire.payload(1, one) for one in more), wire.payload(1, flags=COMPLETE))
    found += peer.settle()
    assert items(found) == [b"0"]
    peer.send(wire.request_n(1, 5))
    found += peer.settle()
    assert items(found) == [b"0", *more]
    assert completed(found)


def test_the_responder_keeps_to_its_credit(peer: Peer) -> None:
    """REQUEST_CHANNEL Frame: Initial Request N is the responder's credit, as in a stream."""
    peer.send(channel(data=b"0", n=2))
    found = peer.settle()
    peer.send(*(wire.payload(1, b"%d" % number) for number in range(1, min(granted(found), 6) + 1)))
    found += peer.settle()
    assert items(found) == [b"0", b"1"][: len(items(found))]
    assert len(items(found)) <= 2
    peer.send(wire.request_n(1, 1))
    assert len(items(found + peer.settle())) <= 3


def test_credit_for_the_requester_never_runs_past_31_bits(peer: Peer) -> None:
    """Reactive Streams Semantics: what a responder grants in all fits the field."""
    peer.send(channel())
    assert 0 < granted(peer.settle()) <= wire.MAX_31


def test_credit_is_given_again_as_payloads_are_taken(peer: Peer) -> None:
    """Reactive Streams Semantics: a responder that takes what comes lets more come."""
    peer.send(channel(data=b"x"))
    credit = granted(peer.settle())
    if credit > 10_000:
        return  # it has given all it ever will
    peer.send(*(wire.payload(1, b"x") for _ in range(credit)))
    assert granted(peer.settle()) > 0


def test_an_error_of_the_requester_ends_the_channel(peer: Peer) -> None:
    """Request Channel: ERROR[APPLICATION_ERROR] from the requester terminates the stream on both sides."""
    peer.send(channel())
    peer.settle()
    peer.send(wire.error(1, wire.APPLICATION_ERROR), wire.payload(1, b"late"), wire.request_n(1, 5))
    assert items(peer.settle()) == []
    peer.is_served()


def test_an_error_of_the_responder_ends_the_channel(peer: Peer) -> None:
    """Request Channel: ERROR from the responder terminates it on both sides; the requester's further payloads are for
    nobody."""
    peer.send(channel(route="probe.fail"))
    peer.settle()
    peer.send(wire.payload(1, b"second"))
    found = peer.settle()
    assert [wire.code(one) for one in found if one.kind == wire.ERROR] == [wire.APPLICATION_ERROR]
    peer.send(wire.payload(1, b"third"), wire.payload(1, flags=COMPLETE))
    assert peer.settle() == []


def test_an_error_of_the_responder_after_the_requester_has_completed(peer: Peer) -> None:
    """Request Channel: the same when the requester has said all it had to say."""
    peer.send(channel(route="probe.fail"))
    peer.settle()
    peer.send(wire.payload(1, b"second", flags=NEXT | COMPLETE))
    assert [wire.code(one) for one in peer.settle() if one.kind == wire.ERROR] == [wire.APPLICATION_ERROR]


def test_a_cancel_of_the_requester_ends_the_channel(peer: Peer) -> None:
    """Request Channel: upon a CANCEL the stream is terminated on the responder, both ways."""
    peer.send(channel())
    peer.settle()
    peer.send(wire.cancel(1), wire.payload(1, b"late"), wire.request_n(1, 5))
    assert peer.settle() == []
    peer.is_served()


def test_a_cancel_after_complete_ends_the_channel(peer: Peer) -> None:
    """Request Channel: a requester that has completed may still cancel what comes back."""
    peer.send(channel(data=b"0", n=1))
    more = min(granted(peer.settle()), 3)
    peer.send(*(wire.payload(1, b"%d" % number) for number in range(more)), wire.payload(1, flags=COMPLETE))
    peer.settle()
    peer.send(wire.cancel(1), wire.request_n(1, 5))
    assert items(peer.settle()) == []


def test_a_second_request_on_the_stream_is_ignored(peer: Peer) -> None:
    """REQUEST_CHANNEL Frame: there is only one; later messages are PAYLOAD frames."""
    peer.send(channel(data=b"first"))
    found = peer.settle()
    peer.send(channel(data=b"second"), wire.payload(1, b"third", flags=NEXT | COMPLETE))
    assert items(found + peer.settle()) == [b"first", b"third"]


def test_channels_do_not_wait_for_each_other(peer: Peer) -> None:
    """QoS and Prioritization: a channel that stands still holds up nobody."""
    peer.send(channel(1, b"a", n=1), channel(3, b"b"))
    if granted(peer.settle(), 1):
        peer.send(wire.payload(1, b"waits"))
    peer.send(wire.payload(3, b"goes", flags=NEXT | COMPLETE))
    found = peer.settle()
    assert items(found, 3) == [b"goes"]
    assert items(found, 1) == []


def test_an_empty_first_payload_is_an_item(peer: Peer) -> None:
    """PAYLOAD Frame: data of no bytes is valid, in the request as elsewhere."""
    peer.send(channel(data=b"", flags=COMPLETE))
    assert items(peer.settle()) == [b""]


def test_metadata_goes_both_ways(peer: Peer) -> None:
    """Data and Metadata: metadata may be attached to each payload, upstream and downstream."""
    peer.send(channel())
    peer.settle()
    peer.send(wire.payload(1, b"data", b"and metadata"))
    back = next(one for one in peer.settle() if one.kind == wire.PAYLOAD)
    assert (wire.payload_data(back), wire.payload_metadata(back)) == (b"data", b"and metadata")
