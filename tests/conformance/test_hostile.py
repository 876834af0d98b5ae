"""Hostile peers: the corpus of `hostile.py`, and those whose only weapon is time."""

import time

import pytest

from tests.conformance import wire
from tests.conformance.hostile import CORPUS, MIB, Case, Fate
from tests.conformance.targets import Target
from tests.conformance.wire import Peer, StillOpen

SECTION = "Hostile peers"

PROMPT = 5.0
"""Seconds in which another client is answered, and a connection is closed, on a machine that has other work too."""
DEADLINE = 12.0
"""Seconds after which a connection without SETUP is gone; the broker gives them 10."""


def is_served(target: Target) -> None:
    """Another client, at once."""
    began = time.monotonic()
    peer = target.join()
    if "routes" in target.has:
        peer.is_served()
    else:
        peer.send(wire.keepalive(b"alive"))
        assert peer.expect(wire.KEEPALIVE, 0).body[8:] == b"alive"
    peer.close()
    assert time.monotonic() - began < PROMPT


def attack(target: Target, peer: Peer, case: Case) -> int:
    """Sends what the case sends, as long as it is taken; the most memory that the server had in use meanwhile."""
    highest = target.rss()
    looked = time.monotonic()
    # One that does not read may be made to wait: then it has sent enough. What is to be served must come as a whole.
    peer.wait = PROMPT if case.reads and case.fate is Fate.SERVED else 0.5
    for chunk in case.chunks():
        if not peer.try_to_send(chunk):
            break
        if case.reads:
            peer.leftover(0)
        if time.monotonic() - looked > 0.02:
            looked = time.monotonic()
            highest = max(highest, target.rss())
    return max(highest, target.rss())


def harms_nobody_else(target: Target, case: Case) -> None:
    is_served(target)
    before = target.rss()
    peer = target.join() if case.joined else target.stranger()
    if case.joined:
        peer.send(wire.keepalive(b"in"))
        assert peer.expect(wire.KEEPALIVE, 0)
    grown = attack(target, peer, case) - before
    is_served(target)
    assert grown < case.growth, f"{grown // MIB} MiB for one peer"
    peer.wait = PROMPT
    if case.fate is Fate.CUT:
        peer.ends()
    elif case.fate is Fate.SERVED:
        peer.send(wire.keepalive(b"still there?"))
        while (one := peer.next()) is None or one.body[8:] != b"still there?":
            assert one is not None, "the connection was closed"


@pytest.mark.row("D-12", "A-31", "A-35")
@pytest.mark.parametrize("name", [name for name, case in CORPUS.items() if not case.routes])
def test_a_hostile_peer_harms_nobody_else(target: Target, name: str) -> None:
    """D-12: whatever one peer sends, others are served, and it costs no more than a few messages' memory."""
    harms_nobody_else(target, CORPUS[name])


@pytest.mark.applies("routes")
@pytest.mark.row("D-12", "A-31")
@pytest.mark.parametrize("name", [name for name, case in CORPUS.items() if case.routes])
def test_a_hostile_requester_harms_nobody_else(target: Target, name: str) -> None:
    """D-12: the same where requests are served."""
    harms_nobody_else(target, CORPUS[name])


@pytest.mark.row("D-12", "A-40")
def test_a_silent_peer_is_given_up(target: Target) -> None:
    """KEEPALIVE Frame, Handling the Unexpected: a dead transport shows in the lack of KEEPALIVE: a client that has
    declared a lifetime of 0.3 s is gone soon after it."""
    peer = target.join(keepalive_ms=100, lifetime_ms=300)
    peer.send(wire.frame(0, wire.KEEPALIVE, 0, bytes(8)))
    peer.ends()


@pytest.mark.applies("routes")
@pytest.mark.row("D-12", "A-40", "A-45")
def test_what_a_silent_peer_asked_for_is_stopped(target: Target) -> None:
    """KEEPALIVE Frame: with the connection goes the work that was done for it."""
    before = target.seen("waits_cancelled")
    peer = target.join(keepalive_ms=100, lifetime_ms=300)
    peer.send(wire.request(wire.REQUEST_RESPONSE, 1, b"", wire.routed("probe.wait")))
    assert wire.until(lambda: target.seen("waits_cancelled") > before, 3)


@pytest.mark.row("D-12")
def test_a_hundred_connections_that_come_and_go(target: Target) -> None:
    """Handling the Unexpected: half-open or cut at any point, they leave nothing behind."""
    is_served(target)
    before = target.rss()
    word = target.setup()
    for number in range(100):
        peer = target.stranger()
        peer.try_to_send(word[: number % (len(word) + 1)])
        peer.close()
    is_served(target)
    assert target.rss() - before < 32 * MIB


@pytest.mark.row("D-12", "A-32")
@pytest.mark.parametrize("what", ["nothing", "half a length", "half a SETUP"])
def test_a_peer_that_never_gets_to_its_setup_is_given_up(target: Target, what: str) -> None:
    """Connection Establishment: the client sends SETUP immediately; a connection on which none comes is a cost
    without a use. These were opened when the server started."""
    peer = target.loiterers[what]
    peer.wait = max(target.started + DEADLINE - time.monotonic(), 0.1)
    try:
        peer.ends()
    except StillOpen:
        pytest.fail(
            f"a connection without SETUP is still open {time.monotonic() - target.started:.0f} s after it began"
        )
