"""REQUEST_FNF frame and the shortest of all sequences."""

import pytest

from tests.conformance import wire
from tests.conformance.targets import Target
from tests.conformance.wire import Peer

SECTION = "Fire and forget"
pytestmark = pytest.mark.applies("routes")


def fire(stream: int, route: str = "echo.fire", data: bytes = b"") -> bytes:
    return wire.request(wire.REQUEST_FNF, stream, data, wire.routed(route))


@pytest.mark.row("A-37")
def test_it_is_handled_and_not_answered(target: Target) -> None:
    """Request Fire-n-Forget: one frame from the requester, none from the responder."""
    before = target.fired()
    peer = target.join()
    peer.send(fire(1), fire(3), fire(5, data=b"x" * 1000))
    assert peer.settle() == []
    assert wire.until(lambda: target.fired() == before + 3, peer.wait / 2)


def test_its_failure_is_not_answered(peer: Peer) -> None:
    """Request Fire-n-Forget: the stream ended upon reception, so there is none on which an ERROR could stand."""
    peer.send(fire(1, "no.such.route"), fire(3, "echo.error"))
    assert peer.settle() == []
    peer.is_served()


def test_its_stream_ends_at_once(peer: Peer) -> None:
    """Request Fire-n-Forget: upon reception the stream is terminated: what comes for it later is for an unknown
    stream."""
    peer.send(fire(1), wire.cancel(1), wire.payload(1, b"x"), wire.request_n(1, 2), wire.error(1, wire.CANCELED))
    assert peer.settle() == []


def test_many_are_handled(target: Target) -> None:
    """Request Fire-n-Forget: best effort, but on a connection that is well nothing is lost."""
    before = target.fired()
    peer = target.join()
    peer.send(*(fire(stream) for stream in range(1, 401, 2)))
    assert peer.settle() == []
    assert wire.until(lambda: target.fired() == before + 200, peer.wait / 2)
