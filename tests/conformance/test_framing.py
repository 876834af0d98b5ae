"""Framing: frame length, header, flags, the ignore flag, the metadata header."""

import struct

import pytest

from tests.conformance import wire
from tests.conformance.targets import Target
from tests.conformance.wire import Peer

SECTION = "Framing"
routes = pytest.mark.applies("routes")

ODD_BITS = 0x01F
"""The five flag bits that no frame type gives a meaning."""


@routes
def test_a_frame_may_arrive_byte_by_byte(stranger: Peer, target: Target) -> None:
    """Framing Format: over a byte stream, the length field alone says where a frame ends; reads have no meaning."""
    for byte in target.setup() + wire.echo(1):
        stranger.send(bytes([byte]))
    assert wire.payload_data(stranger.on_stream(1)) == b"ping"


@routes
def test_many_frames_may_arrive_in_one_read(stranger: Peer, target: Target) -> None:
    """Framing Format: frames that come together are separate frames, in their order."""
    streams = range(1, 201, 2)
    stranger.send(target.setup(), *(wire.echo(stream, b"%d" % stream) for stream in streams))
    answers = {}
    for _ in streams:
        one = stranger.next()
        assert one is not None
        answers[one.stream] = wire.payload_data(one)
    assert answers == {stream: b"%d" % stream for stream in streams}


@routes
@pytest.mark.parametrize("cut", [1, 2, 3, 4, 6, 7, 8, 9, 10, 12, 20])
def test_a_frame_may_be_cut_anywhere(peer: Peer, cut: int) -> None:
    """Framing Format: a read may end inside the length, the header, the metadata length or the payload."""
    peer.send(wire.echo(1, b"first"))
    assert wire.payload_data(peer.on_stream(1)) == b"first"
    whole = wire.echo(3, b"second")
    peer.send(whole[:cut])
    assert not peer.leftover(0.01)
    peer.send(whole[cut:])
    assert wire.payload_data(peer.on_stream(3)) == b"second"


def test_the_length_does_not_count_itself(peer: Peer) -> None:
    """Framing Format: Frame Length is that of the frame without the three bytes that hold it."""
    peer.send(wire.keepalive(b"12345"))
    answer = peer.expect(wire.KEEPALIVE, 0)  # read by that length
    assert len(answer.body) == 8 + 5
    assert peer.leftover() == []


@routes
@pytest.mark.parametrize("stream", [0x101, 0x10001, 0x1000001, 0x7FFFFFFF])
def test_a_stream_id_is_a_big_endian_number_of_31_bits(peer: Peer, stream: int) -> None:
    """Frame Header Format: all fields are big endian, and a stream id may use all 31 bits."""
    peer.send(wire.echo(stream))
    answer = peer.next()
    assert answer is not None
    assert (answer.kind, answer.stream) == (wire.PAYLOAD, stream)


@routes
def test_a_frame_of_the_largest_size_is_taken(peer: Peer) -> None:
    """Max Frame Size: a frame has up to 16,777,215 bytes, and no answer has more, whatever its payload."""
    metadata = wire.routed("echo.request")
    data = bytes(wire.MAX_FRAME - 6 - 3 - len(metadata))
    peer.wait *= 4
    peer.send(wire.request(wire.REQUEST_RESPONSE, 1, data, metadata))
    back, _, flags = peer.message(1)
    assert back == data
    assert flags & wire.NEXT


@pytest.mark.parametrize("flags", [ODD_BITS, 0x01, 0x10])
def test_flag_bits_without_a_meaning_are_not_read_in_keepalive(peer: Peer, flags: int) -> None:
    """Frame Header Format: a flag bit that a frame type does not define is not interpreted on reception."""
    peer.send(wire.frame(0, wire.KEEPALIVE, wire.RESPOND | flags | wire.COMPLETE | wire.NEXT, bytes(8) + b"odd"))
    assert peer.expect(wire.KEEPALIVE, 0).body[8:] == b"odd"


def test_flag_bits_without_a_meaning_are_not_read_in_setup(target: Target) -> None:
    """Frame Header Format: the same for SETUP, where N and the lower bits mean nothing."""
    peer = target.join(flags=ODD_BITS | wire.NEXT)
    peer.send(wire.keepalive(b"in"))
    assert peer.expect(wire.KEEPALIVE, 0).body[8:] == b"in"


@routes
@pytest.mark.parametrize("kind", wire.REQUESTS, ids=["response", "fnf", "stream", "channel"])
def test_flag_bits_without_a_meaning_are_not_read_in_requests(target: Target, kind: int) -> None:
    """Frame Header Format: the same for requests; C and N mean something only in a channel or a payload."""
    route, data = {
        wire.REQUEST_RESPONSE: ("echo.request", b"ping"),
        wire.REQUEST_FNF: ("echo.fire", b"ping"),
        wire.REQUEST_STREAM: ("echo.stream", b"2:4"),
        wire.REQUEST_CHANNEL: ("echo.channel", b"ping"),
    }[kind]
    before = target.fired()
    metadata = wire.routed(route)
    leading = struct.pack(">I", 5) if kind in wire.WITH_CREDIT else b""
    odd = ODD_BITS | wire.NEXT | (0 if kind == wire.REQUEST_CHANNEL else wire.COMPLETE)
    body = leading + len(metadata).to_bytes(3, "big") + metadata + data
    peer = target.join()
    peer.send(wire.frame(1, kind, wire.METADATA | odd, body))
    if kind == wire.REQUEST_FNF:
        assert peer.settle() == []
        assert wire.until(lambda: target.fired() > before, peer.wait)
        return
    while (one := peer.on_stream(1)).kind == wire.REQUEST_N:
        pass
    assert one.kind == wire.PAYLOAD
    assert len(wire.payload_data(one)) == 4


@routes
def test_flag_bits_without_a_meaning_are_not_read_in_cancel_and_request_n(peer: Peer) -> None:
    """Frame Header Format: the same for REQUEST_N and CANCEL, which have no flags at all."""
    peer.send(wire.request(wire.REQUEST_STREAM, 1, b"9:1", wire.routed("echo.stream"), n=1))
    assert peer.on_stream(1).kind == wire.PAYLOAD
    peer.send(wire.frame(1, wire.REQUEST_N, ODD_BITS | wire.NEXT | wire.COMPLETE, struct.pack(">I", 2)))
    assert [peer.on_stream(1).kind for _ in range(2)] == [wire.PAYLOAD] * 2
    peer.send(wire.frame(1, wire.CANCEL, ODD_BITS | wire.NEXT | wire.COMPLETE))
    peer.send(wire.request_n(1, 5))
    assert wire.of_stream(peer.settle(), 1) == []


@routes
def test_flag_bits_without_a_meaning_are_sent_as_zero(peer: Peer) -> None:
    """Frame Header Format: a bit that a frame type does not define is zero when sent."""
    peer.send(wire.request(wire.REQUEST_CHANNEL, 1, b"ping", wire.routed("echo.channel"), n=5))
    peer.send(wire.request(wire.REQUEST_RESPONSE, 3, b"", wire.routed("echo.error")), wire.keepalive(b"x"))
    meaningful = {
        wire.REQUEST_N: 0,
        wire.PAYLOAD: wire.METADATA | wire.FOLLOWS | wire.COMPLETE | wire.NEXT,
        wire.ERROR: 0,
        wire.KEEPALIVE: wire.RESPOND,
    }
    seen: set[int] = set()
    while seen != set(meaningful):
        one = peer.next()
        assert one is not None
        assert not one.flags & ~meaningful[one.kind], wire.shown(one)
        seen.add(one.kind)


UNKNOWN_TYPES = [wire.RESERVED, 0x0F, 0x10, 0x20, 0x3E]


@pytest.mark.parametrize("stream", [0, 1, 2])
@pytest.mark.parametrize("kind", UNKNOWN_TYPES, ids=hex)
def test_an_unknown_frame_that_may_be_ignored_is_ignored(peer: Peer, kind: int, stream: int) -> None:
    """Handling Ignore Flag: with I set, a frame that is not understood has no effect, on any stream."""
    peer.send(wire.frame(stream, kind, wire.IGNORE, b"something"))
    assert peer.settle() == []


@pytest.mark.parametrize("kind", UNKNOWN_TYPES, ids=hex)
def test_an_unknown_frame_that_may_not_be_ignored_ends_the_connection_or_nothing(peer: Peer, kind: int) -> None:
    """Handling Ignore Flag: without I, the receiver may send ERROR[CONNECTION_ERROR] and close. It does that in full,
    or goes on."""
    peer.send(wire.frame(0, kind, 0, b"something"), wire.keepalive(b"after"))
    one = peer.next()
    assert one is not None, "closed without a word"
    if one.kind == wire.KEEPALIVE:
        return
    assert (one.kind, one.stream, wire.code(one)) == (wire.ERROR, 0, wire.CONNECTION_ERROR)
    assert peer.ends() == []


def _too_long(kind: int, flags: int = 0) -> bytes:
    """A frame whose metadata length is one more than what follows."""
    leading = struct.pack(">I", 1) if kind in wire.WITH_CREDIT else b""
    return wire.frame(1, kind, wire.METADATA | flags, leading + b"\x00\x00\x06" + b"route")


@routes
@pytest.mark.parametrize("kind", wire.REQUESTS, ids=["response", "fnf", "stream", "channel"])
def test_metadata_longer_than_its_frame_ends_the_connection(peer: Peer, kind: int) -> None:
    """Metadata Optional Header: a metadata length that does not fit makes the frame invalid: the receiver must send
    ERROR[CONNECTION_ERROR] and close."""
    peer.send(_too_long(kind))
    assert wire.code(peer.refusal()) == wire.CONNECTION_ERROR


@routes
def test_metadata_longer_than_its_payload_frame_ends_the_connection(peer: Peer) -> None:
    """Metadata Optional Header: the same for a PAYLOAD on a stream that is open."""
    peer.send(wire.request(wire.REQUEST_CHANNEL, 1, b"ping", wire.routed("echo.channel"), n=5))
    peer.on_stream(1)
    peer.send(_too_long(wire.PAYLOAD, wire.NEXT))
    last = peer.ends()[-1]
    assert (last.kind, last.stream, wire.code(last)) == (wire.ERROR, 0, wire.CONNECTION_ERROR)


@routes
def test_a_frame_that_ends_inside_its_metadata_length_ends_the_connection(peer: Peer) -> None:
    """Metadata Optional Header: there must be a length of three bytes where the M flag says so."""
    peer.send(wire.frame(1, wire.REQUEST_RESPONSE, wire.METADATA, b"\x00\x00"))
    assert wire.code(peer.refusal()) == wire.CONNECTION_ERROR


@routes
@pytest.mark.parametrize("kind", wire.REQUESTS, ids=["response", "fnf", "stream", "channel"])
def test_metadata_longer_than_a_frame_that_may_be_ignored_is_ignored(peer: Peer, kind: int) -> None:
    """Metadata Optional Header: unless the frame's I flag is set."""
    peer.send(_too_long(kind, wire.IGNORE))
    assert peer.settle() == []
    peer.is_served()


@routes
def test_data_of_no_bytes_beside_metadata(peer: Peer) -> None:
    """Metadata Optional Header: data may be empty while metadata is not; the answer has its metadata length."""
    peer.send(wire.echo(1, b""))
    answer = peer.expect(wire.PAYLOAD, 1)
    assert answer.flags & wire.NEXT
    assert wire.payload_data(answer) == b""
    assert wire.payload_metadata(answer) == wire.routed("echo.request")
