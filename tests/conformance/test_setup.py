"""SETUP frame and versions: what a server must take, and how it says no."""

import struct

import pytest

from tests.conformance import wire
from tests.conformance.targets import Target
from tests.conformance.wire import Peer

SECTION = "SETUP"
routes = pytest.mark.applies("routes")


def is_taken(peer: Peer) -> None:
    """The connection is open: a KEEPALIVE is answered."""
    peer.send(wire.keepalive(b"in"))
    assert peer.expect(wire.KEEPALIVE, 0).body[8:] == b"in"


def is_refused_or_taken(peer: Peer) -> None:
    """A parameter that the client must not send is refused with a code for SETUP and a close, or passed over."""
    assert peer.try_to_send(wire.keepalive(b"in"))
    one = peer.next()
    assert one is not None, "closed without a word"
    if one.kind == wire.KEEPALIVE:
        return
    assert (one.kind, one.stream) == (wire.ERROR, 0)
    assert wire.code(one) in wire.SETUP_CODES
    assert peer.ends() == []


def test_a_good_setup_is_taken(peer: Peer) -> None:
    """SETUP Frame: version 1.0, positive times and two MIME types open a connection."""
    is_taken(peer)


@pytest.mark.parametrize("stream", [1, 2, 0x7FFFFFFF])
def test_setup_stands_on_stream_0(target: Target, stream: int) -> None:
    """SETUP Frame, Connection Establishment: on any other stream it is answered with ERROR[INVALID_SETUP] and the
    end."""
    peer = target.join(stream=stream)
    assert wire.code(peer.refusal()) == wire.INVALID_SETUP


@pytest.mark.parametrize("version", [(0, 0), (0, 2), (2, 0), (0xFFFF, 0)], ids=str)
def test_another_major_version_is_refused(target: Target, version: tuple[int, int]) -> None:
    """Versioning Scheme: major versions are not compatible; what is not served gets ERROR[INVALID_SETUP |
    UNSUPPORTED_SETUP]."""
    peer = target.join(version=version)
    assert wire.code(peer.refusal()) in {wire.INVALID_SETUP, wire.UNSUPPORTED_SETUP}


def test_another_minor_version_is_refused_or_taken(target: Target) -> None:
    """Versioning Scheme: a server may take versions that it does not know; if not, it says so by code."""
    is_refused_or_taken(target.join(version=(1, 7)))


def test_a_keepalive_interval_of_nothing_is_refused_or_taken(target: Target) -> None:
    """SETUP Frame: Time Between KEEPALIVE Frames must be more than 0."""
    is_refused_or_taken(target.join(keepalive_ms=0))


def test_a_lifetime_of_nothing_is_refused_or_taken(target: Target) -> None:
    """SETUP Frame: Max Lifetime must be more than 0."""
    is_refused_or_taken(target.join(lifetime_ms=0))


def test_the_longest_times_are_taken(target: Target) -> None:
    """SETUP Frame: both times are numbers of 31 bits."""
    is_taken(target.join(keepalive_ms=wire.MAX_31, lifetime_ms=wire.MAX_31))


@pytest.mark.parametrize(
    "mime", [b"application/x.netflix+cbor", b"no mime type at all", b"x" * 255], ids=["suffix", "words", "longest"]
)
def test_the_data_mime_type_is_not_interpreted(target: Target, mime: bytes) -> None:
    """SETUP Frame: the protocol must not interpret MIME types; any string of up to 255 bytes will do."""
    is_taken(target.join(data_mime=mime))


@pytest.mark.parametrize("mime", [b"text/plain", b"no mime type at all", b"x" * 255], ids=["text", "words", "longest"])
def test_the_metadata_mime_type_is_not_interpreted(target: Target, mime: bytes) -> None:
    """SETUP Frame: the same for metadata; what an application makes of it is its own affair."""
    is_taken(target.join(metadata_mime=mime))


@routes
def test_setup_may_carry_metadata_and_data(target: Target) -> None:
    """SETUP Frame: metadata comes first, with its length, then data."""
    is_taken(target.join(metadata=b"some metadata", data=b"{}"))


@routes
def test_metadata_of_a_setup_may_be_empty(target: Target) -> None:
    """SETUP Frame, Metadata Optional Header: M with a length of 0."""
    is_taken(target.join(metadata=b""))


def test_metadata_longer_than_its_setup_is_refused(target: Target, stranger: Peer) -> None:
    """SETUP Frame, Metadata Optional Header: such a frame is invalid: ERROR[INVALID_SETUP | CONNECTION_ERROR] and the
    end."""
    whole = target.setup(data=b"")
    body = whole[9:] + b"\x00\x00\x05abcd"
    stranger.send(wire.frame(0, wire.SETUP, wire.METADATA, body))
    assert wire.code(stranger.refusal()) in {wire.INVALID_SETUP, wire.UNSUPPORTED_SETUP, wire.CONNECTION_ERROR}


@pytest.mark.parametrize("length", [0, 1, 3, 4, 8, 11, 12, 13, 20, 40, 55, 60])
def test_a_setup_that_ends_too_early_is_refused(stranger: Peer, length: int) -> None:
    """SETUP Frame, Connection Establishment: contents that cannot be accepted get ERROR[INVALID_SETUP |
    UNSUPPORTED_SETUP], and the connection is closed."""
    whole = wire.setup(data_mime=b"application/octet-stream")[9:]
    assert length < len(whole)
    stranger.send(wire.frame(0, wire.SETUP, 0, whole[:length]))
    assert wire.code(stranger.refusal()) in {wire.INVALID_SETUP, wire.UNSUPPORTED_SETUP}


def test_a_mime_length_beyond_the_frame_is_refused(stranger: Peer) -> None:
    """SETUP Frame: MIME Length says how many bytes follow; here they do not."""
    body = struct.pack(">HHII", 1, 0, wire.LONG_MS, wire.LONG_MS) + b"\xfftext/plain\x0atext/plain"
    stranger.send(wire.frame(0, wire.SETUP, 0, body))
    assert wire.code(stranger.refusal()) in {wire.INVALID_SETUP, wire.UNSUPPORTED_SETUP}


def test_a_resume_token_beyond_the_frame_is_refused(stranger: Peer) -> None:
    """SETUP Frame: with R set, a token of the given length stands before the MIME types; here it does not."""
    body = struct.pack(">HHIIH", 1, 0, wire.LONG_MS, wire.LONG_MS, 0xFFFF) + b"token"
    stranger.send(wire.frame(0, wire.SETUP, wire.RESUME_ENABLE, body))
    assert wire.code(stranger.refusal()) in wire.SETUP_CODES


def test_a_refusal_is_readable(target: Target) -> None:
    """ERROR Frame: Error Data should be UTF-8 text, and is not ended by a null byte."""
    refusal = target.join(version=(9, 0)).refusal()
    text = refusal.body[4:]
    assert text.decode()
    assert not text.endswith(b"\0")


@pytest.mark.row("A-36")
@routes
def test_what_follows_a_refused_setup_is_not_handled(target: Target) -> None:
    """Negotiation: the requests that came with a refused SETUP are gone with the connection."""
    before = target.fired()
    peer = target.stranger()
    fire = wire.request(wire.REQUEST_FNF, 1, b"", wire.routed("echo.fire"))
    peer.send(target.setup(version=(9, 0)) + fire + wire.echo(3))
    found = peer.ends()
    assert [(one.kind, one.stream) for one in found] == [(wire.ERROR, 0)]
    assert target.fired() == before


def test_a_second_setup_is_ignored(peer: Peer, target: Target) -> None:
    """Handling the Unexpected: a server must ignore a SETUP after it has accepted one."""
    is_taken(peer)
    peer.send(target.setup())
    assert peer.settle() == []


def test_a_second_setup_is_ignored_even_when_it_is_a_bad_one(peer: Peer, target: Target) -> None:
    """Handling the Unexpected: and that is not a matter of its contents."""
    is_taken(peer)
    peer.send(target.setup(version=(9, 0)), target.setup(stream=1), target.setup(keepalive_ms=0))
    assert peer.settle() == []
