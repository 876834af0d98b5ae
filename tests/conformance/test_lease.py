"""LEASE frame, Lease Semantics, and the sequences with LEASE. Every target lets a client ask LEASE_REQUESTS times."""

import struct
import time

import pytest

from tests.conformance import wire
from tests.conformance.targets import LEASE_REQUESTS, Target
from tests.conformance.wire import Peer

SECTION = "LEASE"
leased = pytest.mark.applies("routes", "lease")
calls = pytest.mark.applies("routes", "lease", "calls")
LAST = wire.NEXT | wire.COMPLETE


def join(target: Target, **changes: object) -> Peer:
    """A connection with the L flag, on which the first LEASE has come."""
    peer = target.join(leases=True, flags=wire.LEASE_ENABLE, **changes)
    peer.expect(wire.LEASE, 0)
    return peer


def answers(peer: Peer, count: int) -> dict[int, wire.Frame]:
    """The next `count` frames on streams, by their stream."""
    found: dict[int, wire.Frame] = {}
    while len(found) < count:
        one = peer.next()
        assert one is not None
        if one.stream:
            found[one.stream] = one
    return found


def asked(peer: Peer) -> list[wire.Frame]:
    """The requests of the server that have come."""
    return [one for one in peer.settle() if one.kind in wire.REQUESTS]


def ask_to_call(peer: Peer, stream: int) -> None:
    peer.send(wire.request(wire.REQUEST_RESPONSE, stream, b"{}", wire.routed("call.response")))


def test_a_client_that_honours_leases_gets_one_or_a_refusal(target: Target) -> None:
    """Connection Establishment, Sequences with LEASE: a server that accepts a SETUP with the L flag must send a LEASE;
    one that does not says so by code, and closes."""
    peer = target.join(leases=True, flags=wire.LEASE_ENABLE)
    one = peer.next()
    assert one is not None, "closed without a word"
    assert one.stream == 0
    if one.kind == wire.ERROR:
        assert wire.code(one) in wire.SETUP_CODES
        assert peer.ends() == []
        return
    assert one.kind == wire.LEASE, wire.shown(one)


@leased
@pytest.mark.row("A-44")
def test_a_lease_says_how_long_and_how_many(target: Target) -> None:
    """LEASE Frame: a time in milliseconds and a number of requests, both more than 0, on stream 0."""
    peer = target.join(leases=True, flags=wire.LEASE_ENABLE)
    one = peer.expect(wire.LEASE, 0)
    ttl, number = struct.unpack(">II", one.body[:8])
    assert 0 < ttl <= wire.MAX_31
    assert number == LEASE_REQUESTS


@leased
def test_without_the_flag_there_is_no_lease(target: Target) -> None:
    """Connection Establishment: a client that has not set L may ask at once, without a LEASE and as much as it
    likes."""
    peer = target.join(leases=True)
    streams = range(1, 4 * LEASE_REQUESTS, 2)
    peer.send(*(wire.echo(stream) for stream in streams))
    assert {one.kind for one in answers(peer, len(streams)).values()} == {wire.PAYLOAD}
    assert peer.settle() == []


@leased
@pytest.mark.row("A-44")
def test_requests_within_the_lease_are_served(target: Target) -> None:
    """Lease Semantics: so many requests of all types may be sent."""
    peer = join(target)
    streams = range(1, 2 * LEASE_REQUESTS, 2)
    peer.send(*(wire.echo(stream) for stream in streams))
    assert {one.kind for one in answers(peer, LEASE_REQUESTS).values()} == {wire.PAYLOAD}


@leased
@pytest.mark.row("A-44")
@pytest.mark.parametrize("kind", [wire.REQUEST_RESPONSE, wire.REQUEST_STREAM, wire.REQUEST_CHANNEL], ids=hex)
def test_a_request_beyond_the_lease_is_rejected(target: Target, kind: int) -> None:
    """Lease Semantics: a responder that cannot honour a request for want of a lease must answer ERROR[REJECTED]."""
    peer = join(target)
    streams = range(1, 2 * LEASE_REQUESTS, 2)
    peer.send(*(wire.echo(stream) for stream in streams))
    answers(peer, LEASE_REQUESTS)
    beyond = 2 * LEASE_REQUESTS + 1
    route = {wire.REQUEST_RESPONSE: "echo.request", wire.REQUEST_STREAM: "echo.stream"}.get(kind, "echo.channel")
    n = 1 if kind in wire.WITH_CREDIT else None
    peer.send(wire.request(kind, beyond, b"1:1", wire.routed(route), n=n))
    assert wire.code(answers(peer, 1)[beyond]) == wire.REJECTED


@leased
@pytest.mark.row("A-44")
def test_what_is_beyond_the_lease_is_not_handled(target: Target) -> None:
    """Error Codes: REJECTED guarantees that the request was not processed."""
    before = target.fired()
    peer = join(target)
    fire = wire.routed("echo.fire")
    streams = range(1, 2 * LEASE_REQUESTS + 10, 2)
    peer.send(*(wire.request(wire.REQUEST_FNF, stream, b"", fire) for stream in streams))
    peer.settle()
    assert wire.until(lambda: target.fired() - before == LEASE_REQUESTS, peer.wait / 2)


@leased
def test_a_fragmented_request_counts_once(target: Target) -> None:
    """Fragmentation and Reassembly: fragmentation does not change the lease count."""
    peer = join(target)
    metadata = wire.routed("echo.request")
    first = len(metadata).to_bytes(3, "big") + metadata + b"a" * 80
    streams = range(1, 2 * LEASE_REQUESTS, 2)
    for stream in streams:
        peer.send(wire.frame(stream, wire.REQUEST_RESPONSE, wire.METADATA | wire.FOLLOWS, first))
        peer.send(wire.payload(stream, b"b" * 80, follows=True), wire.payload(stream, b"c"))
    assert {one.kind for one in answers(peer, LEASE_REQUESTS).values()} == {wire.PAYLOAD}


@leased
def test_frames_that_are_no_requests_need_no_lease(target: Target) -> None:
    """Lease Semantics: leases count requests; KEEPALIVE, REQUEST_N, CANCEL and PAYLOAD are free."""
    peer = join(target)
    peer.send(wire.request(wire.REQUEST_STREAM, 1, b"", wire.routed("probe.flow"), n=1))
    for number in range(3 * LEASE_REQUESTS):
        assert wire.payload_data(peer.on_stream(1)) == b"%d" % number
        peer.send(wire.keepalive(b"x"), wire.request_n(1, 1))
    peer.send(wire.cancel(1))
    peer.settle()


@calls
@pytest.mark.row("A-44")
def test_the_server_asks_nothing_without_a_lease(target: Target) -> None:
    """Connection Establishment: the server mirrors the L flag: it must wait for a LEASE before it sends a request."""
    peer = join(target)
    ask_to_call(peer, 1)
    assert asked(peer) == []


@calls
@pytest.mark.row("A-44")
def test_the_server_asks_within_its_lease(target: Target) -> None:
    """Sequences with LEASE: the client sends LEASE, the server sends its request."""
    peer = join(target)
    peer.send(wire.lease(wire.LONG_MS, 3))
    ask_to_call(peer, 1)
    request = peer.next()
    assert request is not None
    assert request.kind == wire.REQUEST_RESPONSE
    peer.send(wire.payload(request.stream, b"1", flags=LAST))
    assert wire.payload_data(peer.on_stream(1)) == b"[1]"


@calls
@pytest.mark.row("A-44")
def test_the_server_keeps_to_the_number(target: Target) -> None:
    """Lease Semantics: a requester must not send more than Number of Requests."""
    peer = join(target)
    peer.send(wire.lease(wire.LONG_MS, 2))
    for stream in (1, 3, 5):
        ask_to_call(peer, stream)
    assert len(asked(peer)) == 2


@calls
def test_the_last_lease_counts(target: Target) -> None:
    """LEASE Frame: the last one received overrides all before it: they do not add up."""
    peer = join(target)
    peer.send(wire.lease(wire.LONG_MS, 5), wire.lease(wire.LONG_MS, 1))
    for stream in (1, 3):
        ask_to_call(peer, stream)
    assert len(asked(peer)) == 1


@calls
def test_a_lease_ends_with_its_time(target: Target) -> None:
    """LEASE Frame: when it expires, the number of requests that may be sent is implicitly 0."""
    peer = join(target)
    peer.send(wire.lease(40, 5))
    time.sleep(0.1)
    ask_to_call(peer, 1)
    assert asked(peer) == []


@calls
@pytest.mark.parametrize(("ttl", "number"), [(0, 5), (wire.LONG_MS, 0), (0, 0)], ids=str)
def test_a_lease_of_nothing_stops_requests(target: Target, ttl: int, number: int) -> None:
    """LEASE Frame: a responder may stop all requests with a 0 for the number or for the time."""
    peer = join(target)
    peer.send(wire.lease(wire.LONG_MS, 5), wire.lease(ttl, number))
    ask_to_call(peer, 1)
    assert asked(peer) == []


@calls
def test_a_lease_may_have_metadata(target: Target) -> None:
    """LEASE Frame: metadata follows the number, without a length, also where M is set."""
    peer = join(target)
    peer.send(wire.lease(wire.LONG_MS, 1, metadata=b"for whom it may concern"))
    ask_to_call(peer, 1)
    assert len(asked(peer)) == 1


@calls
def test_a_lease_on_another_stream_is_ignored(target: Target) -> None:
    """LEASE Frame, Handling the Unexpected: it always stands on stream 0."""
    peer = join(target)
    body = wire.lease(wire.LONG_MS, 5)[9:]
    peer.send(wire.frame(1, wire.LEASE, 0, body), wire.frame(2, wire.LEASE, 0, body))
    ask_to_call(peer, 1)
    assert asked(peer) == []
