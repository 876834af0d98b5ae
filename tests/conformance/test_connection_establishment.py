"""Connection Establishment: who speaks first, and the sequences without LEASE."""

import struct

import pytest

from tests.conformance import wire
from tests.conformance.targets import Target
from tests.conformance.wire import Peer

SECTION = "Connection establishment"
routes = pytest.mark.applies("routes")

NUMBER = struct.pack(">I", 1)
TOO_EARLY = {
    "lease": wire.lease(1000, 1),
    "keepalive": wire.keepalive(),
    "request response": wire.echo(1),
    "fire and forget": wire.request(wire.REQUEST_FNF, 1, b"", wire.routed("echo.fire")),
    "request stream": wire.request(wire.REQUEST_STREAM, 1, b"1:1", wire.routed("echo.stream"), n=1),
    "request channel": wire.request(wire.REQUEST_CHANNEL, 1, b"", wire.routed("echo.channel"), n=1),
    "request n": wire.request_n(1, 1),
    "cancel": wire.cancel(1),
    "payload": wire.payload(1, b"x"),
    "error": wire.error(0, wire.CONNECTION_ERROR),
    "metadata push": wire.frame(0, wire.METADATA_PUSH, wire.METADATA, b"x"),
    "resume ok": wire.frame(0, wire.RESUME_OK, 0, bytes(8)),
    "extension": wire.frame(0, wire.EXT, 0, NUMBER),
    "unknown": wire.frame(0, 0x20),
}


@pytest.mark.row("A-35")
@pytest.mark.parametrize("first", TOO_EARLY.values(), ids=TOO_EARLY.keys())
def test_the_first_frame_is_setup_or_resume(stranger: Peer, first: bytes) -> None:
    """Connection Establishment: any other first frame gets ERROR[INVALID_SETUP], and the connection is closed."""
    stranger.send(first)
    assert wire.code(stranger.refusal()) == wire.INVALID_SETUP


@pytest.mark.row("A-35")
@routes
def test_a_request_before_setup_is_never_handled(target: Target) -> None:
    """Connection Establishment: nor is what follows it, be that a good SETUP."""
    before = target.fired()
    peer = target.stranger()
    fire = wire.request(wire.REQUEST_FNF, 1, b"", wire.routed("echo.fire"))
    peer.send(fire + target.setup() + fire)
    assert [(one.kind, one.stream) for one in peer.ends()] == [(wire.ERROR, 0)]
    assert target.fired() == before


@pytest.mark.parametrize("stream", [1, 2])
def test_resume_stands_on_stream_0(stranger: Peer, stream: int) -> None:
    """Connection Establishment: a RESUME with another stream id gets ERROR[INVALID_SETUP] and the end."""
    stranger.send(wire.resume(b"token", 0, 0, stream=stream))
    assert wire.code(stranger.refusal()) == wire.INVALID_SETUP


def test_the_server_waits_for_setup(stranger: Peer) -> None:
    """Connection Establishment: until a client has spoken, a server emits nothing."""
    assert stranger.leftover(0.1) == []


@routes
def test_requests_may_follow_setup_at_once(stranger: Peer, target: Target) -> None:
    """Connection Establishment, Sequences without LEASE: a client without the L flag need not wait for anything."""
    stranger.send(target.setup() + wire.echo(1, b"one") + wire.echo(3, b"three"))
    answers = [stranger.next(), stranger.next()]
    assert {one.stream: wire.payload_data(one) for one in answers if one} == {1: b"one", 3: b"three"}


@pytest.mark.applies("calls")
def test_the_server_may_request_at_once(stranger: Peer, target: Target) -> None:
    """Connection Establishment: a server that has accepted SETUP may send requests, with ids of its own."""
    stranger.send(target.setup(), wire.request(wire.REQUEST_RESPONSE, 1, b"{}", wire.routed("call.response")))
    asked = stranger.next()
    assert asked is not None
    assert (asked.kind, asked.stream % 2) == (wire.REQUEST_RESPONSE, 0)


def test_an_accepted_setup_is_not_answered(peer: Peer) -> None:
    """Connection Establishment: acceptance shows in answers and requests; no frame of its own says it."""
    assert peer.settle() == []


def test_connections_are_independent(target: Target) -> None:
    """Connection Establishment: what one client does wrong is nothing to another."""
    peer = target.join()
    peer.send(wire.keepalive(b"one"))
    assert peer.expect(wire.KEEPALIVE, 0).body[8:] == b"one"
    target.stranger().send(b"\xff\xff\xff no frame")
    target.join(stream=7).close()
    peer.send(wire.keepalive(b"two"))
    assert peer.expect(wire.KEEPALIVE, 0).body[8:] == b"two"
