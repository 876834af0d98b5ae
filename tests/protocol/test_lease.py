"""Leases: what each side may ask, and what happens to a request too many."""

import attrs
import pytest

from rsocket_broker.errors import Rejected
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.codes import ErrorCode, FrameType, Interaction
from rsocket_broker.protocol.events import LeaseReceived, RequestReceived, SetupAccepted
from rsocket_broker.protocol.frames import Setup
from rsocket_broker.protocol.lease import GRACE, VALIDITY, Allowance, Grant
from rsocket_broker.protocol.limits import SECURE
from rsocket_broker.protocol.protocol import Protocol
from tests.playbook import SETUP_BODY, SETUP_LEASE, SETUP_RESUME, Playbook, u32, wire
from tests.protocol.test_suspension import WITH_TOKEN

LIMITS = attrs.evolve(SECURE, lease_requests=3, lease_period=10.0, resume_seconds=60.0)
OURS = wire(FrameType.LEASE, 0, u32(15_000) + u32(3))
REQUESTS = [FrameType.REQUEST_RESPONSE, FrameType.REQUEST_FNF, FrameType.REQUEST_STREAM, FrameType.REQUEST_CHANNEL]


def theirs(ttl_ms: int, number: int) -> bytes:
    return wire(FrameType.LEASE, 0, u32(ttl_ms) + u32(number))


def ask(kind: FrameType, stream_id: int) -> bytes:
    return wire(kind, stream_id, u32(5) + b"x")


def serving() -> Playbook:
    """A server whose client has asked for leases and has its first."""
    play = Playbook.new_server(LIMITS) >> wire(FrameType.SETUP, 0, SETUP_BODY, SETUP_LEASE)
    (setup,) = play.events()
    assert setup.lease  # type: ignore[union-attr]
    play.take(play.protocol.accept_setup(play.now))
    play << OURS
    play.quiet()
    return play


def refused(play: Playbook) -> list[int]:
    """The streams that were refused, by their errors."""
    frames = play.sent()
    assert {frame.error_code for frame in frames} <= {ErrorCode.REJECTED}
    return [frame.stream_id for frame in frames]


# ---- what the peer asks ------------------------------------------------------------------------------------------


@pytest.mark.row("A-44")
@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.name)
def test_a_request_beyond_the_lease_is_rejected_and_reaches_nobody(kind: FrameType) -> None:
    play = serving()
    play >> b"".join(ask(kind, stream_id) for stream_id in (1, 3, 5, 7, 9))
    assert [event.stream_id for event in play.events()] == [1, 3, 5]  # type: ignore[union-attr]
    assert refused(play) == [7, 9]


@pytest.mark.row("A-44")
def test_the_fast_lane_counts_too() -> None:
    play = Playbook.new_server(LIMITS)
    play.protocol.answer_at_once = lambda stream_id, data, metadata: Payload(data)
    play >> wire(FrameType.SETUP, 0, SETUP_BODY, SETUP_LEASE)
    play.take(play.protocol.accept_setup(play.now))
    play.sent()
    play.events()
    play >> b"".join(wire(FrameType.REQUEST_RESPONSE, stream_id, b"x") for stream_id in (1, 3, 5, 7, 9))
    assert refused(play) == [7, 9]
    assert len([event for event in play.events() if isinstance(event, RequestReceived)]) == 3


@pytest.mark.row("A-44")
def test_fragments_count_once() -> None:
    play = serving()
    for stream_id in (1, 3, 5):
        play >> wire(FrameType.REQUEST_RESPONSE, stream_id, b"a", 0x80) + wire(FrameType.PAYLOAD, stream_id, b"b")
    assert len(play.events()) == 3
    play.quiet()


@pytest.mark.row("A-44")
def test_a_new_lease_comes_before_the_old_one_ends() -> None:
    play = serving().tick(9.9)
    play.quiet()
    play.tick(0.2)
    play << OURS
    play >> b"".join(ask(FrameType.REQUEST_FNF, stream_id) for stream_id in range(1, 15, 2))
    assert len(play.events()) == 6, "what was left of the old one may have been on its way"
    assert refused(play) == [13]


@pytest.mark.row("A-44")
def test_what_is_left_over_does_not_pile_up() -> None:
    play = serving()
    for _ in range(5):
        play >> wire(FrameType.KEEPALIVE, 0, bytes(8))
        play.tick(10)
    play.sent()
    play >> b"".join(ask(FrameType.REQUEST_FNF, stream_id) for stream_id in range(1, 21, 2))
    assert len(play.events()) == 6


@pytest.mark.row("A-44")
def test_a_lease_that_has_run_out_allows_nothing() -> None:
    grant = Grant(3, 10.0, 0.0)
    assert not grant.spend(0.0)
    grant.renew(0.0)
    assert grant.spend(10.0 * VALIDITY + GRACE - 0.1)
    assert not grant.spend(10.0 * VALIDITY + GRACE)


def test_who_did_not_ask_for_leases_has_none() -> None:
    play = Playbook.server(LIMITS)
    play >> b"".join(ask(FrameType.REQUEST_FNF, stream_id) for stream_id in range(1, 21, 2)) + theirs(1, 0)
    assert len(play.events()) == 10
    play.protocol.request(Interaction.FIRE_AND_FORGET, b"x")
    assert (play.protocol.leased, play.protocol.may_request(play.now)) == (False, True)


# ---- what we ask -------------------------------------------------------------------------------------------------


def client() -> Playbook:
    play = Playbook(Protocol.client(Setup(lease=True), LIMITS, 100.0))
    assert [(frame.kind, frame.flags) for frame in play.sent()] == [
        (FrameType.SETUP, SETUP_LEASE),
        (FrameType.LEASE, 0),
    ], "a client sends its own lease right behind its SETUP"
    return play


@pytest.mark.row("A-44")
@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("kind", Interaction, ids=lambda kind: kind.name)
def test_nothing_is_asked_before_a_lease_nor_beyond_it(who: str, kind: Interaction) -> None:
    play = client() if who == "client" else serving()
    with pytest.raises(Rejected, match="lease"):
        play.protocol.request(kind, b"x", None, 1)
    play >> theirs(1000, 2)
    if who == "client":
        play << SetupAccepted()
    play << LeaseReceived(1000, 2)
    for _ in range(2):
        assert play.protocol.may_request(play.now)
        play.protocol.request(kind, b"x", None, 1)
    with pytest.raises(Rejected):
        play.protocol.request(kind, b"x", None, 1)
    assert len(play.sent()) == 2
    play >> theirs(1000, 1)
    play.protocol.request(kind, b"x", None, 1)


@pytest.mark.row("A-44")
def test_the_last_lease_counts_and_one_runs_out() -> None:
    play = client() >> theirs(1000, 50)
    play >> theirs(1000, 1)
    play.protocol.request(Interaction.FIRE_AND_FORGET, b"x")
    assert not play.protocol.may_request(play.now)
    play >> theirs(1000, 50)
    assert play.protocol.may_request(play.now + 0.9)
    assert not play.protocol.may_request(play.now + 1.0)
    with pytest.raises(Rejected):
        play.protocol.request(Interaction.FIRE_AND_FORGET, b"x")


@pytest.mark.row("A-44")
@pytest.mark.parametrize("stop", [theirs(0, 5), theirs(5, 0)])
def test_a_lease_of_nothing_stops_all_requests(stop: bytes) -> None:
    play = client() >> theirs(1000, 50)
    play >> stop
    assert not play.protocol.may_request(play.now)


def test_a_client_holds_its_server_to_the_lease_that_it_gave() -> None:
    play = client() >> b"".join(ask(FrameType.REQUEST_FNF, stream_id) for stream_id in (2, 4, 6, 8))
    assert len([event for event in play.events() if isinstance(event, RequestReceived)]) == 3
    assert refused(play) == [8]


def test_an_allowance_is_spent_one_by_one() -> None:
    allowance = Allowance()
    assert (allowance.spend(), allowance.left(0.0)) == (False, 0)
    allowance.granted(1000, 1, 5.0)
    assert (allowance.spend(), allowance.spend()) == (True, False)


# ---- resumption --------------------------------------------------------------------------------------------------


@pytest.mark.row("A-41", "A-44")
def test_leases_do_not_carry_over_to_another_line() -> None:
    play = Playbook.new_server(LIMITS) >> wire(FrameType.SETUP, 0, WITH_TOKEN, SETUP_LEASE | SETUP_RESUME)
    play.take(play.protocol.accept_setup(play.now))
    play << OURS
    play >> theirs(60_000, 50)
    play.events()
    play.protocol.suspend(play.now)
    play.tick(30)
    play.quiet()
    assert play.protocol.may_request(play.now)
    play.protocol.resume(0, 0, play.now)
    assert [frame.kind for frame in play.sent()] == [FrameType.RESUME_OK, FrameType.LEASE]
    assert not play.protocol.may_request(play.now)
