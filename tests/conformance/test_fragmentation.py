"""Fragmentation and Reassembly, of requests and payloads, both ways."""

import itertools
import struct

import pytest

from tests.conformance import wire
from tests.conformance.targets import Target
from tests.conformance.wire import Peer

SECTION = "Fragmentation and reassembly"
pytestmark = pytest.mark.applies("routes")
NEXT, COMPLETE, FOLLOWS, METADATA = wire.NEXT, wire.COMPLETE, wire.FOLLOWS, wire.METADATA


def pieces(
    kind: int,
    stream: int,
    data: bytes,
    metadata: bytes,
    cuts: list[int],
    *,
    n: int | None = None,
    complete: bool = False,
) -> list[bytes]:
    """A request in fragments: `cuts` are the places, in metadata and data as one string, where a new frame begins."""
    whole = metadata + data
    edges = [0, *cuts, len(whole)]
    frames = []
    for number, (begin, end) in enumerate(itertools.pairwise(edges)):
        part = whole[begin : min(end, len(metadata))] if begin < len(metadata) else None
        rest = whole[max(begin, len(metadata)) : end]
        flags = (METADATA if part is not None else 0) | (FOLLOWS if end < len(whole) else 0)
        body = (b"" if part is None else len(part).to_bytes(3, "big") + part) + rest
        if number == 0:
            leading = b"" if n is None else struct.pack(">I", n)
            frames.append(wire.frame(stream, kind, flags, leading + body))
        else:
            last = COMPLETE if complete and end == len(whole) else 0
            frames.append(wire.frame(stream, wire.PAYLOAD, flags | NEXT | last, body))
    return frames


def long_route(name: str) -> bytes:
    """A route, and an entry behind it that is there to be cut: rsocket-java takes no fragment of less than 64 bytes."""
    return wire.routed(name) + b"\x86" + (300).to_bytes(3, "big") + b"m" * 300


ECHO = long_route("echo.request")
DATA = b"in pieces " * 30


@pytest.mark.parametrize(
    "cuts",
    [[len(ECHO)], [len(ECHO) + 90], [90], [90, len(ECHO)], [80, 170, len(ECHO) + 100]],
    ids=["data apart", "in data", "in metadata", "metadata in two", "both"],
)
def test_a_request_in_fragments_is_one_request(peer: Peer, cuts: list[int]) -> None:
    """REQUEST Frames: the first is REQUEST_* with F, the rest are PAYLOAD frames; metadata comes first and whole, and
    may end in the frame in which data begins."""
    peer.send(*pieces(wire.REQUEST_RESPONSE, 1, DATA, ECHO, cuts))
    assert peer.message(1)[0] == DATA
    assert peer.settle() == []


def test_metadata_in_fragments_is_whole_again(peer: Peer) -> None:
    """REQUEST Frames: what a handler gets is the metadata as it was sent."""
    metadata = long_route("probe.metadata")
    peer.send(*pieces(wire.REQUEST_RESPONSE, 1, b"", metadata, [80, 170, 270]))
    assert peer.message(1)[0] == metadata


def test_a_fragment_may_have_a_single_byte(peer: Peer) -> None:
    """Fragmentation and Reassembly: no fragment is too small."""
    cuts = list(range(1, len(ECHO) + 6))
    peer.send(*pieces(wire.REQUEST_RESPONSE, 1, b"in pieces", ECHO, cuts))
    assert peer.message(1)[0] == b"in pieces"


def test_fragments_of_fire_and_forget_are_one_message(target: Target) -> None:
    """REQUEST Frames: the same for REQUEST_FNF: it is handled once, when it is whole."""
    before = target.fired()
    peer = target.join()
    peer.send(*pieces(wire.REQUEST_FNF, 1, DATA, long_route("echo.fire"), [84, 194, 400]))
    assert peer.settle() == []
    assert wire.until(lambda: target.fired() > before, peer.wait / 2)
    assert target.fired() == before + 1


def test_a_stream_request_in_fragments(peer: Peer) -> None:
    """REQUEST Frames: the initial request-n stands in the first frame and counts once."""
    peer.send(*pieces(wire.REQUEST_STREAM, 1, b"10:4", long_route("echo.stream"), [84, 194], n=3))
    assert [one.kind for one in wire.of_stream(peer.settle(), 1)] == [wire.PAYLOAD] * 3


def test_a_channel_request_in_fragments(peer: Peer) -> None:
    """REQUEST Frames: the same for a channel."""
    peer.send(*pieces(wire.REQUEST_CHANNEL, 1, DATA, long_route("echo.channel"), [84, 400], n=5))
    found = [one for one in wire.of_stream(peer.settle(), 1) if one.kind == wire.PAYLOAD]
    assert [wire.payload_data(one) for one in found] == [DATA]


def test_the_last_fragment_of_a_channel_request_may_complete_it(peer: Peer) -> None:
    """REQUEST Frames, Request Channel: C on the last fragment is the requester's COMPLETE."""
    route = long_route("echo.channel")
    peer.send(*pieces(wire.REQUEST_CHANNEL, 1, DATA, route, [84, 400], n=5, complete=True))
    found = [one for one in wire.of_stream(peer.settle(), 1) if one.kind == wire.PAYLOAD]
    assert wire.payload_data(found[0]) == DATA
    assert found[-1].flags & COMPLETE


def test_a_payload_in_fragments_is_one_item(peer: Peer) -> None:
    """PAYLOAD Frame: a sequence of PAYLOAD frames, all but the last with F."""
    peer.send(wire.request(wire.REQUEST_CHANNEL, 1, b"", wire.routed("probe.collect"), n=1))
    peer.settle()
    peer.send(
        wire.payload(1, b"", b"m" * 100, follows=True),
        wire.payload(1, b"d" * 100, b"m" * 50, follows=True),
        wire.payload(1, b"d" * 100, follows=True),
        wire.payload(1, b"!", flags=NEXT | COMPLETE),
    )
    answer = next(one for one in peer.settle() if one.kind == wire.PAYLOAD)
    assert wire.parsed(answer) == [[0, len(wire.routed("probe.collect"))], [201, 150]]


def test_a_payload_in_fragments_costs_one_credit(peer: Peer) -> None:
    """Fragmentation and Reassembly: a fragmented PAYLOAD counts as a single request(n) credit: a channel's whole
    credit may be used that way."""
    peer.send(wire.request(wire.REQUEST_CHANNEL, 1, b"0", wire.routed("echo.channel"), n=wire.MAX_31))
    found = peer.settle()
    credit = min(sum(wire.number(one) for one in found if one.kind == wire.REQUEST_N), 64)
    for number in range(credit):
        half = b"%d" % number * 80
        peer.send(wire.payload(1, half, follows=True), wire.payload(1, half, follows=True), wire.payload(1, half))
    found += peer.settle()
    assert [one for one in found if one.kind in (wire.ERROR, wire.CANCEL)] == []
    items = [wire.payload_data(one) for one in found if one.kind == wire.PAYLOAD]
    assert items == [b"0", *(b"%d" % number * 240 for number in range(credit))]


def test_fragments_of_two_streams_may_be_mixed(peer: Peer) -> None:
    """Fragmentation and Reassembly: fragments belong together by their stream id, not by their place."""
    one = pieces(wire.REQUEST_RESPONSE, 1, b"one" * 90, ECHO, [84, 200, 400])
    three = pieces(wire.REQUEST_RESPONSE, 3, b"three" * 90, ECHO, [77, 220, 411])
    peer.send(*(each for pair in zip(one, three, strict=True) for each in pair))
    answers = {}
    for _ in range(2):
        frame = peer.next()
        assert frame is not None
        answers[frame.stream] = wire.payload_data(frame)
    assert answers == {1: b"one" * 90, 3: b"three" * 90}


def test_other_frames_may_come_between_fragments(peer: Peer) -> None:
    """QoS and Prioritization: a connection does not stand still for one message; whole requests and KEEPALIVE are
    served between its fragments."""
    first, *rest = pieces(wire.REQUEST_RESPONSE, 1, DATA, ECHO, [84, 200])
    peer.send(first, wire.keepalive(b"between"))
    assert peer.expect(wire.KEEPALIVE, 0).body[8:] == b"between"
    peer.send(wire.echo(3, b"whole"))
    assert wire.payload_data(peer.expect(wire.PAYLOAD, 3)) == b"whole"
    peer.send(*rest)
    assert wire.payload_data(peer.expect(wire.PAYLOAD, 1)) == DATA


def test_a_fragment_may_have_no_bytes(peer: Peer) -> None:
    """Fragmentation and Reassembly: F alone says that there is more; so does its absence that there is not."""
    first, last = pieces(wire.REQUEST_RESPONSE, 1, b"data", ECHO, [len(ECHO) + 2])
    nothing = wire.payload(1, b"", follows=True)
    peer.send(first, nothing, nothing, last)
    assert peer.message(1)[0] == b"data"


@pytest.mark.parametrize("style", ["all", "none", "last"])
def test_the_next_flag_of_fragments_behind_a_request_does_not_matter(peer: Peer, style: str) -> None:
    """REQUEST Frames: the sequence behind a request is one message whatever N says in each frame; implementations
    differ in where they set it."""
    route = wire.routed("echo.request")
    metadata = len(route).to_bytes(3, "big") + route
    flags = {"all": (NEXT, NEXT), "none": (0, 0), "last": (0, NEXT)}[style]
    peer.send(
        wire.frame(1, wire.REQUEST_RESPONSE, METADATA | FOLLOWS, metadata + b"a" * 80),
        wire.payload(1, b"b" * 80, flags=flags[0], follows=True),
        wire.payload(1, b"c", flags=flags[1]),
    )
    assert peer.message(1)[0] == b"a" * 80 + b"b" * 80 + b"c"


def test_a_request_on_an_id_whose_fragments_are_coming_is_ignored(peer: Peer) -> None:
    """Handling the Unexpected: the id is in use from the first fragment on."""
    first, last = pieces(wire.REQUEST_RESPONSE, 1, b"in pieces", ECHO, [len(ECHO) + 4])
    peer.send(first, wire.echo(1, b"intruder"), last)
    assert peer.message(1)[0] == b"in pieces"
    assert wire.of_stream(peer.settle(), 1) == []


def test_an_answer_too_long_for_a_frame_comes_in_fragments(peer: Peer) -> None:
    """Fragmentation and Reassembly: metadata completely before data, F on all frames but the last, C on the last
    only."""
    peer.wait *= 4
    data = bytes(wire.MAX_FRAME) + b"and a little more"
    cuts = [len(ECHO) + 16_000_000]
    peer.send(*pieces(wire.REQUEST_RESPONSE, 1, data, ECHO, cuts))
    frames = [peer.on_stream(1)]
    while frames[-1].flags & FOLLOWS:
        frames.append(peer.on_stream(1))
    assert len(frames) > 1
    assert b"".join(wire.payload_data(one) for one in frames) == data
    with_metadata = [bool(one.flags & METADATA) for one in frames]
    assert with_metadata == sorted(with_metadata, reverse=True)
    assert [bool(one.flags & COMPLETE) for one in frames] == [False] * (len(frames) - 1) + [True]


def test_a_message_of_megabytes_in_small_fragments(peer: Peer) -> None:
    """Fragmentation and Reassembly: an application message is not bounded by the size of a frame."""
    peer.wait *= 4
    data = bytes(range(256)) * 4096
    cuts = list(range(len(ECHO) + 16_000, len(ECHO) + len(data), 16_000))
    peer.send(*pieces(wire.REQUEST_RESPONSE, 1, data, ECHO, cuts))
    assert peer.message(1)[0] == data
