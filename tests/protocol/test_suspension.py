"""Suspended and resumed: whatever byte the line is cut at, nothing is lost and nothing comes twice."""

import random
from collections.abc import Callable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.errors import ProtocolViolation
from rsocket_broker.payload import Payload
from rsocket_broker.protocol import resume as resume_module
from rsocket_broker.protocol.codes import CONNECTION_CLOSE, ErrorCode, FrameType, Interaction
from rsocket_broker.protocol.events import ConnectionEnded, LineLost, LineResumed, ResumeReceived
from rsocket_broker.protocol.frames import Setup, resume, resume_ok
from rsocket_broker.protocol.limits import SECURE
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.protocol.resume import Pool
from tests.playbook import KEEPALIVE_RESPOND, SETUP_BODY, SETUP_RESUME, C, M, N, Playbook, wire
from tests.protocol.two_ends import End, TwoEnds

TOKEN = b"a token of 16 B."
LIMITS = attrs.evolve(SECURE, resume_seconds=60.0, resume_bytes=1000)
WITH_TOKEN = SETUP_BODY[:12] + len(TOKEN).to_bytes(2, "big") + TOKEN + SETUP_BODY[12:]
ASK = wire(FrameType.REQUEST_RESPONSE, 1, b"hello")
ANSWER = wire(FrameType.PAYLOAD, 1, b"answer", N | C)


def position(value: int) -> bytes:
    return value.to_bytes(8, "big")


def serving(limits: object = LIMITS, pool: Pool | None = None) -> Playbook:
    """A server with a client that may come back."""
    play = Playbook(Protocol.server(limits, 100.0, pool))  # type: ignore[arg-type]
    play >> wire(FrameType.SETUP, 0, WITH_TOKEN, SETUP_RESUME)
    play.take(play.protocol.accept_setup(play.now))
    play.events()
    play.quiet()
    return play


def joined() -> Playbook:
    return Playbook.client(LIMITS, Setup(resume_token=TOKEN))


# ---- D-4 -------------------------------------------------------------------------------------------------------

INTERACTIONS = list(Interaction)


def act(end: End, dice: random.Random) -> None:
    """Something that an application does."""
    data = dice.randbytes(dice.choice([0, 1, 10, 150, 700]))
    metadata = dice.choice([None, b"", dice.randbytes(20)])
    if dice.random() < 0.4:
        end.ask(dice.choice(INTERACTIONS), data, metadata)
    else:
        end.answer(dice, data, metadata)


def meddle(ends: TwoEnds, dice: random.Random) -> None:
    """One step: an application acts, bytes arrive, time passes, or the line is cut; while it is, both go on."""
    what = dice.random()
    if what < 0.5:
        act(dice.choice([ends.client, ends.server]), dice)
    elif what < 0.85:
        pair = (ends.client, ends.server)
        ends.deliver(*(pair if dice.random() < 0.5 else pair[::-1]), dice.randrange(1, 400))
    elif what < 0.92:
        ends.now += 1.0
        ends.client.act(ends.client.protocol.handle_timer(ends.now))
    else:
        lose(ends, dice)


def lose(ends: TwoEnds, dice: random.Random) -> None:
    """A cut, and a return; on the way back the line may be cut again, be it in the midst of RESUME_OK."""
    again = True
    while again:
        ends.cut()
        for _ in range(dice.randrange(4)):
            act(dice.choice([ends.client, ends.server]), dice)
        again = dice.random() < 0.3
        ends.resume(dice.randrange(0, 300) if again else 1 << 30)


@pytest.mark.row("D-4", "A-41")
@pytest.mark.long
def test_whatever_byte_the_line_is_cut_at_nothing_is_lost_and_nothing_comes_twice(
    portion: Callable[[int], list[int]],
) -> None:
    cuts = 0
    for case in portion(1000):
        dice = random.Random(case)
        ends = TwoEnds()
        for _ in range(60):
            meddle(ends, dice)
        lose(ends, dice)
        ends.settle()
        assert ends.client.heard == ends.server.said, f"case {case}"
        assert ends.server.heard == ends.client.said, f"case {case}"
        cuts += ends.cuts
    assert cuts > len(portion(1000))


@pytest.mark.row("D-4", "A-41")
def test_every_single_byte_of_a_conversation_as_the_place_of_the_cut() -> None:
    """One conversation, cut once after each number of bytes, in either direction."""

    def talk(ends: TwoEnds) -> None:
        ends.client.ask(Interaction.REQUEST_STREAM, b"s" * 300, None)
        ends.client.ask(Interaction.REQUEST_CHANNEL, b"c", b"m")
        ends.deliver(ends.client, ends.server, 1 << 30)
        dice = random.Random(1)
        for n in range(6):
            ends.server.answer(dice, b"%d" % n * 150, None)
        ends.client.ask(Interaction.FIRE_AND_FORGET, b"f" * 500, None)

    whole = TwoEnds()
    talk(whole)
    whole.client.write()
    whole.server.write()
    for at in range(max(len(whole.client.line), len(whole.server.line)) + 1):
        ends = TwoEnds()
        talk(ends)
        ends.deliver(ends.client, ends.server, at)
        ends.deliver(ends.server, ends.client, at)
        ends.cut()
        assert ends.resume() == LineResumed()
        ends.settle()
        assert ends.client.heard == ends.server.said
        assert ends.server.heard == ends.client.said


# ---- server ----------------------------------------------------------------------------------------------------


@pytest.mark.row("A-41")
def test_a_server_sends_again_what_the_client_has_not_received() -> None:
    play = serving() >> ASK + wire(FrameType.REQUEST_RESPONSE, 3, b"two")
    play.events()
    play.protocol.send_payload(1, b"answer", complete=True)
    play << ANSWER
    assert play.protocol.suspend(play.now)
    assert (play.protocol.suspended, play.protocol.resumable, play.protocol.is_open) == (True, True, True)
    play.protocol.send_payload(3, b"later", complete=True)
    play.quiet()
    play >> ASK  # of the old line
    play.quiet()
    play.protocol.resume(0, 0, play.now)
    play << resume_ok(len(ASK) - 3 + len(ASK) - 3 - 2)
    play << ANSWER
    play << wire(FrameType.PAYLOAD, 3, b"later", N | C)
    assert not play.protocol.suspended
    play >> wire(FrameType.REQUEST_FNF, 5, b"goes on")
    assert len(play.events()) == 1
    play.quiet()


@pytest.mark.row("A-41")
def test_frames_without_a_position_are_not_counted_and_not_repeated() -> None:
    play = serving()
    play.protocol.metadata_push(b"note")
    play << wire(FrameType.METADATA_PUSH, 0, b"note", M)
    play >> wire(FrameType.KEEPALIVE, 0, bytes(8), KEEPALIVE_RESPOND) + wire(FrameType.METADATA_PUSH, 0, b"x", M)
    play >> wire(FrameType.LEASE, 0, bytes(8)) + wire(FrameType.EXT, 1, b"", 0x200) + wire(FrameType.CANCEL, 0)
    play << wire(FrameType.KEEPALIVE, 0, bytes(8))
    play.events()
    play >> wire(FrameType.REQUEST_FNF, 1, b"f")
    play.protocol.suspend(play.now)
    play.protocol.metadata_push(b"kept")
    play.protocol.data_to_send()
    play.protocol.resume(0, 0, play.now)
    play << resume_ok(7)
    play << wire(FrameType.METADATA_PUSH, 0, b"kept", M)
    play.events()
    play.quiet()


@pytest.mark.row("A-41")
def test_a_keepalive_carries_the_position_and_releases_what_the_peer_has() -> None:
    play = serving() >> ASK
    play.events()
    play.protocol.send_payload(1, b"answer", complete=True)
    play << ANSWER
    play >> wire(FrameType.KEEPALIVE, 0, position(len(ANSWER) - 3) + b"echo", KEEPALIVE_RESPOND)
    play << wire(FrameType.KEEPALIVE, 0, position(len(ASK) - 3) + b"echo")
    play.protocol.suspend(play.now)
    with pytest.raises(ProtocolViolation, match="kept no longer") as refusal:
        play.protocol.resume(0, 0, play.now)
    assert refusal.value.code == ErrorCode.REJECTED_RESUME
    play.protocol.resume(len(ANSWER) - 3, len(ASK) - 3, play.now)
    play << resume_ok(len(ASK) - 3)
    play.quiet()


@pytest.mark.row("A-41")
def test_a_keepalive_behind_requests_of_the_same_read_counts_them() -> None:
    play = serving() >> ASK + wire(FrameType.KEEPALIVE, 0, bytes(8), KEEPALIVE_RESPOND) + ASK[:5]
    play << wire(FrameType.KEEPALIVE, 0, position(len(ASK) - 3))


@pytest.mark.parametrize(
    ("received", "available", "why"),
    [(1, 0, "begins there"), (1000, 0, "than was sent"), (0, 1000, "keeps them no longer")],
)
@pytest.mark.row("A-41")
def test_positions_that_cannot_be(received: int, available: int, why: str) -> None:
    play = serving() >> ASK
    play.protocol.send_payload(1, b"answer", complete=True)
    play.sent()
    play.events()
    for _ in range(2):  # on a line that stands, and on one that is lost
        with pytest.raises(ProtocolViolation, match=why) as refusal:
            play.protocol.resume(received, available, play.now)
        assert refusal.value.code == ErrorCode.REJECTED_RESUME
        assert not play.protocol.closed
        play.quiet()
        play.protocol.suspend(play.now)


@pytest.mark.row("A-41")
def test_a_line_that_still_stands_is_taken_over() -> None:
    play = serving() >> ASK + ASK[:7]
    play.events()
    play.protocol.send_payload(1, b"answer", complete=True)
    play.protocol.resume(0, 0, play.now)
    play << resume_ok(len(ASK) - 3) << ANSWER
    play >> wire(FrameType.REQUEST_RESPONSE, 3, b"new")
    assert len(play.events()) == 1


@pytest.mark.row("A-41")
def test_what_was_never_established_or_is_being_left_is_not_suspended() -> None:
    fresh = Playbook.new_server(LIMITS)
    assert not fresh.protocol.suspend(fresh.now)
    plain = Playbook.server(LIMITS)
    assert not plain.protocol.suspend(plain.now)
    asked = Playbook.client(LIMITS, Setup(resume_token=TOKEN), joined=False)
    assert not asked.protocol.suspend(asked.now)
    leaving = serving() >> ASK + wire(FrameType.ERROR, 0, CONNECTION_CLOSE.to_bytes(4, "big"))
    assert not leaving.protocol.suspend(leaving.now)
    with pytest.raises(ProtocolViolation):
        plain.protocol.resume(0, 0, plain.now)


@pytest.mark.row("A-41", "A-31")
def test_more_than_the_budget_ends_a_session_that_is_away() -> None:
    play = serving()
    play.protocol.suspend(play.now)
    play.protocol.request(Interaction.FIRE_AND_FORGET, bytes(900))
    play.protocol.data_to_send()
    assert not play.protocol.closed
    play.protocol.request(Interaction.FIRE_AND_FORGET, bytes(900))
    play.protocol.data_to_send()
    assert play.protocol.ended is not None
    assert play.protocol.ended.code == ErrorCode.CONNECTION_ERROR
    assert "1000 bytes" in play.protocol.ended.text
    assert play.protocol.next_timer() is None


@pytest.mark.row("A-31")
def test_pushes_are_held_to_the_budget_too() -> None:
    play = serving()
    play.protocol.suspend(play.now)
    for _ in range(20):
        if not play.protocol.closed:
            play.protocol.metadata_push(bytes(100))
            play.protocol.data_to_send()
    assert play.protocol.closed


def test_what_was_kept_back_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was once with every push that followed, which took minutes for a few thousand of them."""
    play = serving(attrs.evolve(LIMITS, resume_bytes=100_000))
    play.protocol.suspend(play.now)
    measured = 0
    measure = resume_module.measure

    def counted(frames: bytes, begin: int, end: int) -> tuple[int, list[tuple[int, int]]]:
        nonlocal measured
        measured += end - begin
        return measure(frames, begin, end)

    monkeypatch.setattr(resume_module, "measure", counted)
    for number in range(1000):
        play.protocol.metadata_push(b"%d" % number)
        assert play.protocol.data_to_send() == []
    assert play.protocol.retained == measured < 13_000
    play.protocol.resume(0, 0, play.now)
    play << resume_ok(0)
    assert [frame.body for frame in play.sent()] == [b"%d" % number for number in range(1000)]


@pytest.mark.row("A-31")
def test_all_connections_together_are_held_to_theirs() -> None:
    pool = Pool(1500)
    plays = [serving(pool=pool) for _ in range(3)]
    for play, size in zip(plays, (900, 900, 400), strict=True):
        play.protocol.suspend(play.now)
        play.protocol.request(Interaction.FIRE_AND_FORGET, bytes(size))
        play.protocol.data_to_send()
    assert [play.protocol.closed for play in plays] == [False, True, False]
    assert 0 < pool.used <= 1500
    for play in plays:
        play.protocol.close()
    assert (pool.used, pool.members) == (0, 0)


@pytest.mark.row("A-41")
def test_on_a_line_that_stands_the_oldest_is_given_up_and_the_connection_lives() -> None:
    play = serving()
    for _ in range(3):
        play.protocol.request(Interaction.FIRE_AND_FORGET, bytes(400))
        play.sent()
    assert not play.protocol.closed
    play.protocol.suspend(play.now)
    with pytest.raises(ProtocolViolation, match="kept no longer"):
        play.protocol.resume(0, 0, play.now)
    play.protocol.resume(406, 0, play.now)
    again = [FrameType.RESUME_OK, FrameType.REQUEST_FNF, FrameType.REQUEST_FNF]
    assert [frame.kind for frame in play.sent()] == [*again, FrameType.KEEPALIVE], "and it is asked how far it has come"


@pytest.mark.row("A-41")
def test_at_half_of_the_budget_the_peer_is_asked_for_its_position_once() -> None:
    play = serving()
    for _ in range(3):
        play.protocol.request(Interaction.FIRE_AND_FORGET, bytes(200))
        play.sent()
    play.protocol.request(Interaction.FIRE_AND_FORGET, b"")
    assert [frame.kind for frame in play.sent()] == [FrameType.REQUEST_FNF], "it was asked before"
    play >> wire(FrameType.KEEPALIVE, 0, position(3 * 206 + 6))
    play.protocol.suspend(play.now)
    play.protocol.resume(3 * 206 + 6, 0, play.now)
    assert [frame.kind for frame in play.sent()] == [FrameType.RESUME_OK]


@pytest.mark.row("A-41")
def test_a_session_ends_when_nobody_comes_back_in_time() -> None:
    play = serving()
    play.protocol.suspend(play.now)
    play.tick(59.9)
    assert play.protocol.suspended
    play.protocol.suspend(play.now)  # again: the time goes on
    play.tick(0.2)
    (end,) = play.events()
    assert isinstance(end, ConnectionEnded)
    assert "60 s" in end.text
    play.quiet()


@pytest.mark.row("A-41", "A-40")
def test_a_silent_peer_is_given_the_time_to_come_back() -> None:
    play = serving().tick(30.1)
    (event,) = play.events()
    assert isinstance(event, LineLost)
    assert play.protocol.suspended
    play.quiet()
    play.protocol.resume(0, 0, play.now)
    play.sent()
    play.tick(29.9)
    play.quiet()


@pytest.mark.row("A-41")
def test_a_second_resume_on_one_line_is_an_error() -> None:
    play = serving()
    play.protocol.suspend(play.now)
    play.protocol.resume(0, 0, play.now)
    play >> resume(TOKEN, 0, 0)
    play.ends_with(ErrorCode.CONNECTION_ERROR, "RESUME")


@pytest.mark.row("A-41")
def test_a_resume_is_decided_on_by_the_owner_and_the_line_is_surrendered_with_what_came_behind() -> None:
    door = Playbook.new_server(LIMITS) >> resume(TOKEN, 7, 5) + ASK
    door << ResumeReceived(TOKEN, 7, 5)
    door >> ASK[:4]
    assert door.protocol.surrender() == ASK + ASK[:4]
    assert door.sent() == []
    refused = Playbook.new_server(LIMITS) >> resume(TOKEN, 7, 5) + ASK
    refused.protocol.refuse_setup(ErrorCode.REJECTED_RESUME, "who are you")
    refused.ends_with(ErrorCode.REJECTED_RESUME, "who are you")


def test_who_may_not_be_resumed_any_more() -> None:
    play = serving()
    play.protocol.forget_resumption()
    assert (play.protocol.closed, play.protocol.suspend(play.now)) == (False, False)
    away = serving()
    away.protocol.suspend(away.now)
    away.protocol.forget_resumption()
    assert away.protocol.closed


# ---- client ----------------------------------------------------------------------------------------------------


def test_a_client_needs_a_time_limit_for_its_token() -> None:
    with pytest.raises(ValueError, match="time limit"):
        Protocol.client(Setup(resume_token=TOKEN), SECURE, 0.0)


@pytest.mark.row("A-41")
def test_a_client_asks_with_its_positions_and_goes_on() -> None:
    play = joined()
    play.protocol.request(Interaction.REQUEST_RESPONSE, b"hello")
    play << ASK
    play >> wire(FrameType.KEEPALIVE, 0, position(len(ASK) - 3)) + wire(FrameType.REQUEST_FNF, 2, b"f")
    play.events()
    play.protocol.request(Interaction.REQUEST_RESPONSE, b"two")
    play.sent()
    play.protocol.suspend(play.now)
    play.protocol.begin_resume(play.now)
    play.protocol.request(Interaction.REQUEST_RESPONSE, b"three")
    play << resume(TOKEN, 7, len(ASK) - 3)
    play.quiet()
    play >> resume_ok(len(ASK) - 3) << LineResumed()
    assert [frame.body for frame in play.sent()] == [b"two", b"three"]
    play >> wire(FrameType.PAYLOAD, 1, b"answer", N | C)
    assert len(play.events()) == 1
    play.tick(20)
    assert [frame.kind for frame in play.sent()] == [FrameType.KEEPALIVE]


@pytest.mark.row("A-41")
@pytest.mark.parametrize("answer", [resume_ok(0), resume_ok(9999)], ids=["forgotten", "never sent"])
def test_a_client_ends_it_when_the_server_lost_something(answer: bytes) -> None:
    play = joined()
    play.protocol.request(Interaction.REQUEST_RESPONSE, b"hello")
    play.sent()
    play >> wire(FrameType.KEEPALIVE, 0, position(len(ASK) - 3))
    play.protocol.suspend(play.now)
    play.protocol.begin_resume(play.now)
    play >> answer
    play.ends_with(ErrorCode.CONNECTION_ERROR, "resumed")


@pytest.mark.row("A-41")
@pytest.mark.parametrize("code", [ErrorCode.REJECTED_RESUME, ErrorCode.CONNECTION_ERROR, CONNECTION_CLOSE])
def test_a_client_that_is_refused_ends(code: int) -> None:
    play = joined()
    play.protocol.suspend(play.now)
    play.protocol.begin_resume(play.now)
    play >> wire(FrameType.ERROR, 0, int(code).to_bytes(4, "big") + b"no")
    assert play.events() == [ConnectionEnded(code, "no", by_peer=True)]


def test_a_client_takes_nothing_before_the_answer() -> None:
    play = joined()
    play.protocol.suspend(play.now)
    play.protocol.begin_resume(play.now)
    play >> wire(FrameType.KEEPALIVE, 0, bytes(8))
    play.ends_with(ErrorCode.CONNECTION_ERROR, "RESUME_OK")


@pytest.mark.row("A-41")
@pytest.mark.parametrize("end", ["closed", "impossible", "refused"])
def test_a_client_sends_nothing_but_an_error_until_it_is_resumed(end: str) -> None:
    """A request that the server took for the next one would stand at a wrong position."""
    play = joined()
    play.protocol.suspend(play.now)
    play.protocol.begin_resume(play.now)
    play << resume(TOKEN, 0, 0)
    play.protocol.request(Interaction.FIRE_AND_FORGET, b"for another line")
    if end == "closed":
        play.protocol.close("bye")
    else:
        play >> (resume_ok(9999) if end == "impossible" else wire(FrameType.ERROR, 0, bytes(4)))
    assert play.protocol.closed
    assert [frame.kind for frame in play.sent()] == [FrameType.ERROR] * (end == "impossible")


def test_a_line_that_is_lost_in_the_midst_of_a_read_leaves_no_half_frame() -> None:
    play = joined()

    def lose(stream_id: int, data: bytes, metadata: bytes | None) -> Payload:
        play.protocol.suspend(play.now)
        return Payload(b"answer")

    play.protocol.answer_at_once = lose
    ask = wire(FrameType.REQUEST_RESPONSE, 2, b"hello")
    play >> ask + ask[:7]
    play.protocol.data_to_send()
    play.protocol.begin_resume(play.now)
    play << resume(TOKEN, len(ask) - 3, 0)
    play >> resume_ok(0) << LineResumed()
    assert [frame.body for frame in play.sent()] == [b"answer"]


@pytest.mark.row("A-41", "A-40")
def test_a_client_whose_server_is_silent_tries_another_line_until_its_own_time_is_over() -> None:
    play = Playbook.client(LIMITS, Setup(resume_token=TOKEN, keepalive_ms=1000, lifetime_ms=3000))
    play.tick(4.1)
    assert [type(event) for event in play.events()] == [LineLost]
    play.sent()
    play.protocol.begin_resume(play.now)
    assert [frame.kind for frame in play.sent()] == [FrameType.RESUME]
    play.tick(59)
    play.quiet()
    play.tick(2)
    assert [type(event) for event in play.events()] == [ConnectionEnded]


def test_a_client_knows_of_its_acceptance_only_once() -> None:
    play = joined()
    play.protocol.suspend(play.now)
    play.protocol.begin_resume(play.now)
    play >> resume_ok(0) + wire(FrameType.KEEPALIVE, 0, bytes(8))
    assert [type(event) for event in play.events()] == [LineResumed]


# ---- any bytes -------------------------------------------------------------------------------------------------

ANY = st.lists(
    st.builds(wire, st.integers(0, 63), st.sampled_from([0, 1, 2]), st.binary(max_size=40), st.integers(0, 0x3FF))
    | st.binary(max_size=20)
    | st.builds(resume, st.binary(min_size=1, max_size=20), st.integers(0, 1 << 63), st.integers(0, 1 << 63))
    | st.builds(resume_ok, st.integers(0, 50))
).map(b"".join)


@given(data=ANY, step=st.integers(1, 50))
def test_any_answer_to_a_resume_is_understood_or_the_end(data: bytes, step: int) -> None:
    play = joined()
    play.protocol.request(Interaction.REQUEST_RESPONSE, b"hello")
    play.sent()
    play.protocol.suspend(play.now)
    play.protocol.begin_resume(play.now)
    for at in range(0, len(data), step):
        play >> data[at : at + step]
    play.sent()
    assert play.protocol.closed == (play.protocol.ended is not None)
    assert play.protocol.closed or play.protocol.next_timer() is not None


@given(data=ANY, received=st.integers(0, 30), available=st.integers(0, 30), step=st.integers(1, 50))
def test_any_bytes_behind_a_resume_are_read_or_the_end(data: bytes, received: int, available: int, step: int) -> None:
    play = serving() >> ASK
    play.protocol.send_payload(1, b"answer", complete=True)
    play.sent()
    play.protocol.suspend(play.now)
    try:
        play.protocol.resume(received, available, play.now)
    except ProtocolViolation as refusal:
        assert refusal.code == ErrorCode.REJECTED_RESUME
        assert play.protocol.suspended
        return
    for at in range(0, len(data), step):
        play >> data[at : at + step]
    assert play.protocol.closed == (play.protocol.ended is not None)
    assert not play.protocol.suspended


@given(data=ANY)
def test_the_positions_of_both_sides_agree_whatever_was_sent(data: bytes) -> None:
    """What a peer counts for these bytes, read whole or one at a time, is what a sender counts for its frames."""
    whole, slowly = serving(), serving()
    whole >> data
    for at in range(len(data)):
        slowly >> data[at : at + 1]
    for play in (whole, slowly):
        play.events()
    if not whole.protocol.closed:
        assert whole.protocol._ledger is not None
        assert slowly.protocol._ledger is not None
        assert whole.protocol._ledger.received == slowly.protocol._ledger.received
