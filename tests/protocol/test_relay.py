"""Two connections of a broker, the frames of their peers, and what comes out at the other end."""

import random
from typing import Any

import attrs
import pytest

from rsocket_broker.errors import Invalid, Rejected
from rsocket_broker.payload import ErrorCode
from rsocket_broker.protocol.codes import CONNECTION_CLOSE, MAX_31, FrameType, Interaction
from rsocket_broker.protocol.events import RequestReceived
from rsocket_broker.protocol.limits import SECURE, Limits
from rsocket_broker.protocol.metadata import route
from rsocket_broker.protocol.relay import CROWDED, GONE, LEAVING, UNLEASED, UNREAD, Relaying
from rsocket_broker.protocol.ways import OVERRUN
from tests.playbook import IGNORE, SETUP_BODY, C, F, Frame, M, N, Playbook, cut, u32, wire, with_metadata

CALL, FIRE, STREAM, CHANNEL = (
    FrameType.REQUEST_RESPONSE,
    FrameType.REQUEST_FNF,
    FrameType.REQUEST_STREAM,
    FrameType.REQUEST_CHANNEL,
)
PAYLOAD, REQUEST_N, CANCEL, ERROR = FrameType.PAYLOAD, FrameType.REQUEST_N, FrameType.CANCEL, FrameType.ERROR
PUSH = FrameType.METADATA_PUSH

TO_B = route("client:b")
KINDS = {CALL: b"", STREAM: u32(3), CHANNEL: u32(3)}


class Outlet:
    """Stands where a connection is."""

    def __init__(self) -> None:
        self.woken = 0
        self.room = True
        self.feeders: list[Any] = []

    def wake(self) -> None:
        self.woken += 1

    def make_room(self, feeder: Any, size: int) -> bool:
        self.feeders.append(feeder)
        return self.room


class End(Playbook):
    """One connection of the broker."""

    protocol: Relaying

    def __init__(
        self, name: str, ends: dict[str, "End"], limits: Limits, setup: bytes = wire(FrameType.SETUP, 0, SETUP_BODY)
    ) -> None:
        super().__init__(Relaying.server(limits, 100.0))
        self.outlet = self.protocol.outlet = Outlet()
        self.protocol.name = name
        self >> setup
        self.take(self.protocol.accept_setup(self.now))
        self.events()

        def find(tag: bytes) -> Relaying:
            if tag == b"client:me":
                raise Invalid("not yourself")
            if tag[7:].decode() not in ends:
                raise Rejected("no such client")
            return ends[tag[7:].decode()].protocol

        self.protocol.relay(find)
        ends[name] = self

    @property
    def table(self) -> tuple[dict[int, Any], dict[int, Any]]:
        return self.protocol._onward, self.protocol._inward

    def error(self, stream_id: int, code: int, text: str = "") -> None:
        """The next frame is this error."""
        self._collect()
        frame = self._frames.popleft()
        assert (frame.kind, frame.stream_id) == (ERROR, stream_id), frame
        assert ErrorCode(frame.error_code) is ErrorCode(code)
        assert text in frame.body[4:].decode()


@attrs.frozen
class Pair:
    a: End
    b: End

    def over(self) -> None:
        """Nothing is left of any stream, and nothing more was said."""
        for end in (self.a, self.b):
            end.quiet()
            assert end.table == ({}, {})
            assert end.protocol.streams == 0


def make_pair(limits: Limits = SECURE) -> Pair:
    ends: dict[str, End] = {}
    return Pair(End("a", ends, limits), End("b", ends, limits))


@pytest.fixture
def pair() -> Pair:
    return make_pair()


def begin(pair: Pair, kind: int, *, flags: int = 0, data: bytes = b"x", leading: bytes | None = None) -> None:
    """a asks b on its stream 1, which is stream 2 there."""
    body = (KINDS.get(kind, b"") if leading is None else leading) + with_metadata(TO_B, data)
    pair.a >> wire(kind, 1, body, M | flags)
    pair.b << Frame(kind, 2, M | flags, body)


# ---- the five interactions -------------------------------------------------------------------------------------


@pytest.mark.row("A-37", "A-46")
@pytest.mark.parametrize("answer", [b"", b"hello", bytes(70_000)])
@pytest.mark.parametrize("flags", [N | C, N, C, N | C | M])
def test_a_call_and_its_answer(pair: Pair, answer: bytes, flags: int) -> None:
    begin(pair, CALL, data=b"question")
    body = with_metadata(b"meta", answer) if flags & M else answer
    pair.b >> wire(PAYLOAD, 2, body, flags)
    pair.a << Frame(PAYLOAD, 1, flags, body)
    pair.over()
    assert (pair.a.protocol.relayed, pair.b.protocol.relayed) == (1, 0)


@pytest.mark.row("A-37")
@pytest.mark.parametrize("size", [0, 16_000, 16_384, 70_000])
def test_payloads_of_any_size_pass_in_their_order(pair: Pair, size: int) -> None:
    pair.a.sent(), pair.b.sent()
    before = pair.b.protocol.frames_out
    bodies = [with_metadata(TO_B, b"%d" % n + bytes(size)) for n in range(10)]
    pair.a >> b"".join(wire(CALL, 2 * n + 1, body, M) for n, body in enumerate(bodies))
    assert pair.b.sent() == [Frame(CALL, 2 * n + 2, M, body) for n, body in enumerate(bodies)]
    pair.b >> b"".join(wire(PAYLOAD, 2 * n + 2, b"%d" % n + bytes(size), N | C) for n in range(10))
    assert pair.a.sent() == [Frame(PAYLOAD, 2 * n + 1, N | C, b"%d" % n + bytes(size)) for n in range(10)]
    assert pair.b.protocol.frames_out == before + 10
    assert pair.a.protocol.relayed == 10
    pair.over()


@pytest.mark.row("A-37")
def test_calls_in_one_read_leave_in_one_turn(pair: Pair) -> None:
    body = with_metadata(TO_B, b"x")
    pair.a >> b"".join(wire(CALL, n, body, M) for n in range(1, 201, 2))
    assert [frame.stream_id for frame in pair.b.sent()] == list(range(2, 202, 2))
    assert pair.b.outlet.woken == 1
    answers = [wire(PAYLOAD, n, b"%d" % n, N | C) for n in range(2, 202, 2)]
    pair.b >> b"".join(reversed(answers))
    assert [(frame.stream_id, frame.body) for frame in pair.a.sent()] == [(n - 1, b"%d" % n) for n in range(200, 0, -2)]
    assert pair.a.outlet.woken == 1
    assert (pair.a.protocol.frames_in, pair.b.protocol.frames_in) == (101, 101)
    pair.over()


@pytest.mark.row("A-37")
def test_calls_for_here_and_for_others_may_be_mixed(pair: Pair) -> None:
    there, here = with_metadata(TO_B, b"there"), with_metadata(route("plugin.method"), b"here")
    bodies = [there, there, here, there, here, here, there]
    pair.a >> b"".join(wire(CALL, 2 * n + 1, body, M) for n, body in enumerate(bodies))
    assert [event.stream_id for event in pair.a.events()] == [5, 9, 11]  # type: ignore[union-attr]
    assert [frame.stream_id for frame in pair.b.sent()] == [2, 4, 6, 8]
    assert [leg[1] for leg in pair.b.table[1].values()] == [1, 3, 7, 13]


@pytest.mark.row("A-37")
def test_calls_for_several_others_in_one_read(pair: Pair) -> None:
    ends = {"a": pair.a, "b": pair.b}
    third = End("c", ends, SECURE)
    pair.a.protocol.relay(lambda tag: ends[tag[7:].decode()].protocol)
    tags = "bbccbcb"
    pair.a >> b"".join(
        wire(CALL, 2 * n + 1, with_metadata(route(f"client:{tag}"), b"x"), M) for n, tag in enumerate(tags)
    )
    assert [frame.stream_id for frame in pair.b.sent()] == [2, 4, 6, 8]
    assert [frame.stream_id for frame in third.sent()] == [2, 4, 6]
    pair.b >> wire(PAYLOAD, 2, b"1", N | C) + wire(PAYLOAD, 8, b"4", N | C)
    assert [frame.stream_id for frame in pair.a.sent()] == [1, 13]
    assert pair.a.protocol.partners() == {"b", "c"}


@pytest.mark.row("A-37")
def test_answers_for_several_others_in_one_read(pair: Pair) -> None:
    third = End("c", {"b": pair.b}, SECURE)
    for one in (pair.a, third, pair.a, third):
        one >> wire(CALL, one.protocol._peer_next, with_metadata(TO_B, b"x"), M)
    pair.b >> b"".join(wire(PAYLOAD, n, b"%d" % n, N | C) for n in (2, 4, 6, 8))
    pair.a << Frame(PAYLOAD, 1, N | C, b"2") << Frame(PAYLOAD, 3, N | C, b"6")
    third << Frame(PAYLOAD, 1, N | C, b"4") << Frame(PAYLOAD, 3, N | C, b"8")
    pair.b.sent()
    pair.over()


@pytest.mark.row("A-37")
def test_fire_and_forget_leaves_nothing_behind(pair: Pair) -> None:
    begin(pair, FIRE)
    pair.over()


@pytest.mark.row("A-37")
def test_metadata_push(pair: Pair) -> None:
    pair.a >> wire(PUSH, 0, TO_B, M)
    pair.b << Frame(PUSH, 0, M, TO_B)
    pair.a >> wire(PUSH, 0, route("client:nobody"), M)
    assert pair.a.protocol.relays_failed == 1
    pair.over()


@pytest.mark.row("A-37", "A-38")
def test_a_stream_is_sent_as_far_as_it_was_asked_for(pair: Pair) -> None:
    begin(pair, STREAM, leading=u32(2))
    pair.b >> wire(PAYLOAD, 2, b"1", N) + wire(PAYLOAD, 2, b"2", N)
    pair.a << Frame(PAYLOAD, 1, N, b"1") << Frame(PAYLOAD, 1, N, b"2")
    assert pair.a.protocol.ways_without_credit() == 1
    pair.a >> wire(REQUEST_N, 1, u32(5))
    pair.b << Frame(REQUEST_N, 2, 0, u32(5))
    assert pair.a.protocol.ways_without_credit() == 0
    pair.b >> wire(PAYLOAD, 2, b"3", N | C)
    pair.a << Frame(PAYLOAD, 1, N | C, b"3")
    pair.over()


@pytest.mark.row("A-37")
def test_a_channel_both_ways(pair: Pair) -> None:
    begin(pair, CHANNEL)
    pair.b >> wire(REQUEST_N, 2, u32(2)) + wire(PAYLOAD, 2, b"down", N)
    pair.a << Frame(REQUEST_N, 1, 0, u32(2)) << Frame(PAYLOAD, 1, N, b"down")
    pair.a >> wire(PAYLOAD, 1, b"up", N) + wire(PAYLOAD, 1, b"", C)
    pair.b << Frame(PAYLOAD, 2, N, b"up") << Frame(PAYLOAD, 2, C, b"")
    pair.a >> wire(PAYLOAD, 1, b"too late", N)
    pair.b.quiet()
    pair.b >> wire(PAYLOAD, 2, b"last", N | C)
    pair.a << Frame(PAYLOAD, 1, N | C, b"last")
    pair.over()


@pytest.mark.row("A-37")
def test_a_channel_that_is_complete_with_its_request_sends_nothing_up(pair: Pair) -> None:
    begin(pair, CHANNEL, flags=C)
    pair.a >> wire(PAYLOAD, 1, b"up", N)
    pair.b >> wire(REQUEST_N, 2, u32(5))
    pair.b.quiet()
    pair.a.quiet()
    pair.b >> wire(PAYLOAD, 2, b"", C)
    pair.a << Frame(PAYLOAD, 1, C, b"")
    pair.over()


# ---- fragments -------------------------------------------------------------------------------------------------


@pytest.mark.row("A-36", "A-37")
@pytest.mark.parametrize("kind", [CALL, FIRE, STREAM, CHANNEL])
def test_fragments_of_a_request_pass_as_they_are(pair: Pair, kind: int) -> None:
    begin(pair, kind, flags=F)
    pair.a >> wire(PAYLOAD, 1, b"2", N | F) + wire(PAYLOAD, 1, b"3", N)
    pair.b << Frame(PAYLOAD, 2, N | F, b"2") << Frame(PAYLOAD, 2, N, b"3")
    if kind == FIRE:
        pair.over()
    elif kind == CHANNEL:  # now payloads need credit
        pair.a >> wire(PAYLOAD, 1, b"more", N)
        pair.a.error(1, ErrorCode.INVALID, OVERRUN)
        pair.b << Frame(CANCEL, 2, 0, b"")
        pair.over()
    else:
        pair.a >> wire(PAYLOAD, 1, b"more", N)
        pair.b.quiet()
        pair.b >> wire(PAYLOAD, 2, b"answer", N | C)
        pair.a << Frame(PAYLOAD, 1, N | C, b"answer")
        pair.over()


def test_the_last_fragment_of_a_channel_request_may_complete_it(pair: Pair) -> None:
    begin(pair, CHANNEL, flags=F)
    pair.a >> wire(PAYLOAD, 1, b"2", N | C)
    pair.b << Frame(PAYLOAD, 2, N | C, b"2")
    pair.b >> wire(PAYLOAD, 2, b"", C)
    pair.a << Frame(PAYLOAD, 1, C, b"")
    pair.over()


@pytest.mark.row("A-38")
@pytest.mark.parametrize("kind", [CALL, STREAM])
def test_the_fragments_of_a_payload_are_one_payload(pair: Pair, kind: int) -> None:
    begin(pair, kind, leading=b"" if kind == CALL else u32(1))
    parts = [(b"1", N | F), (b"2", N | F), (b"3", F), (b"4", N | C)]
    pair.b >> b"".join(wire(PAYLOAD, 2, data, flags) for data, flags in parts)
    for data, flags in parts:
        pair.a << Frame(PAYLOAD, 1, flags, data)
    pair.over()


def test_complete_is_meant_only_where_no_fragment_follows(pair: Pair) -> None:
    """As in our own reassembly: rsocket-cpp repeats the last flags on all fragments."""
    begin(pair, STREAM)
    pair.b >> wire(PAYLOAD, 2, b"1", N | C | F) + wire(PAYLOAD, 2, b"2", N | C)
    pair.a << Frame(PAYLOAD, 1, N | C | F, b"1") << Frame(PAYLOAD, 1, N | C, b"2")
    pair.over()


def test_a_fragmented_payload_that_is_only_a_completion_costs_no_credit(pair: Pair) -> None:
    begin(pair, STREAM, leading=u32(1))
    pair.b >> wire(PAYLOAD, 2, b"1", N) + wire(PAYLOAD, 2, b"", F) + wire(PAYLOAD, 2, b"", C)
    assert [frame.flags for frame in pair.a.sent()] == [N, F, C]
    pair.over()


# ---- credit ----------------------------------------------------------------------------------------------------


@pytest.mark.row("A-38", "D-11")
@pytest.mark.parametrize("kind", [STREAM, CHANNEL])
@pytest.mark.parametrize("fragmented", [False, True])
def test_a_producer_that_sends_more_than_was_asked_for_is_cut(pair: Pair, kind: int, fragmented: bool) -> None:
    begin(pair, kind, leading=u32(1))
    pair.b >> wire(PAYLOAD, 2, b"1", N) + wire(PAYLOAD, 2, b"2", N | (F if fragmented else 0))
    pair.a << Frame(PAYLOAD, 1, N, b"1")
    pair.a.error(1, ErrorCode.INVALID, OVERRUN)
    pair.b << Frame(CANCEL, 2, 0, b"")
    pair.over()
    pair.b >> wire(PAYLOAD, 2, b"3", N)
    pair.over()


@pytest.mark.row("A-38")
def test_a_requester_of_a_channel_is_held_to_credit_too(pair: Pair) -> None:
    begin(pair, CHANNEL)
    pair.a >> wire(PAYLOAD, 1, b"unasked", N)
    pair.a.error(1, ErrorCode.INVALID, OVERRUN)
    pair.b << Frame(CANCEL, 2, 0, b"")
    pair.over()


@pytest.mark.row("A-38")
def test_credit_never_grows_past_what_the_wire_can_say(pair: Pair) -> None:
    begin(pair, STREAM, leading=u32(MAX_31))
    pair.a >> wire(REQUEST_N, 1, u32(MAX_31))
    pair.b << Frame(REQUEST_N, 2, 0, u32(MAX_31))
    assert pair.a.table[0][1][3].credit == MAX_31


@pytest.mark.parametrize("kind", [STREAM, CHANNEL])
def test_a_request_for_no_payloads_is_refused(pair: Pair, kind: int) -> None:
    pair.a >> wire(kind, 1, u32(0) + with_metadata(TO_B, b""), M)
    pair.a.error(1, ErrorCode.INVALID)
    pair.over()
    pair.a >> wire(kind, 3, u32(1) + with_metadata(TO_B, b""), M)
    pair.b.sent()
    pair.a >> wire(REQUEST_N, 3, u32(0))
    pair.a.error(3, ErrorCode.INVALID)
    pair.b << Frame(CANCEL, 2, 0, b"")
    pair.over()


# ---- the ends of a stream --------------------------------------------------------------------------------------


@pytest.mark.row("A-45")
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("flags", [0, F])
def test_a_requester_cancels(pair: Pair, kind: int, flags: int) -> None:
    begin(pair, kind, flags=flags)
    pair.a >> wire(CANCEL, 1)
    pair.b << Frame(CANCEL, 2, 0, b"")
    pair.over()
    pair.b >> wire(PAYLOAD, 2, b"crossed it", N | C)
    pair.over()


@pytest.mark.row("A-45")
def test_a_responder_may_want_no_more_of_a_channel(pair: Pair) -> None:
    begin(pair, CHANNEL)
    pair.b >> wire(CANCEL, 2)
    pair.a << Frame(CANCEL, 1, 0, b"")
    pair.b >> wire(CANCEL, 2) + wire(PAYLOAD, 2, b"goes on", N)
    pair.a << Frame(PAYLOAD, 1, N, b"goes on")
    pair.b >> wire(PAYLOAD, 2, b"", C)
    pair.a << Frame(PAYLOAD, 1, C, b"")
    pair.over()


def test_a_responder_that_has_said_all_and_wants_no_more_ends_the_channel(pair: Pair) -> None:
    begin(pair, CHANNEL)
    pair.b >> wire(PAYLOAD, 2, b"", C) + wire(CANCEL, 2)
    pair.a << Frame(PAYLOAD, 1, C, b"") << Frame(CANCEL, 1, 0, b"")
    pair.over()


@pytest.mark.parametrize("kind", [CALL, STREAM])
def test_a_responder_has_nothing_else_to_cancel(pair: Pair, kind: int) -> None:
    begin(pair, kind)
    pair.b >> wire(CANCEL, 2)
    pair.a.quiet()
    pair.b >> wire(PAYLOAD, 2, b"answer", N | C)
    pair.a << Frame(PAYLOAD, 1, N | C, b"answer")
    pair.over()


@pytest.mark.row("A-45")
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_responder_fails(pair: Pair, kind: int) -> None:
    begin(pair, kind)
    pair.b >> wire(ERROR, 2, u32(ErrorCode.APPLICATION_ERROR) + b"no")
    pair.a << Frame(ERROR, 1, 0, u32(ErrorCode.APPLICATION_ERROR) + b"no")
    pair.over()


def test_the_text_of_an_error_is_as_long_as_ours_may_be(pair: Pair) -> None:
    begin(pair, CALL)
    pair.b >> wire(ERROR, 2, u32(ErrorCode.APPLICATION_ERROR) + bytes(100_000))
    pair.a << Frame(ERROR, 1, 0, u32(ErrorCode.APPLICATION_ERROR) + bytes(SECURE.error_text))
    pair.over()


@pytest.mark.parametrize("kind", list(KINDS))
def test_only_the_requester_of_a_channel_can_fail_it(pair: Pair, kind: int) -> None:
    begin(pair, kind)
    error = u32(ErrorCode.APPLICATION_ERROR) + b"no"
    pair.a >> wire(ERROR, 1, error)
    if kind == CHANNEL:
        pair.b << Frame(ERROR, 2, 0, error)
        pair.over()
    else:
        pair.b.quiet()
        assert pair.a.protocol.relays_open == pair.b.protocol.relays_open == 1


@pytest.mark.parametrize("kind", [CALL, STREAM])
def test_a_request_that_fails_in_the_middle_is_cancelled(pair: Pair, kind: int) -> None:
    begin(pair, kind, flags=F)
    pair.a >> wire(ERROR, 1, u32(ErrorCode.APPLICATION_ERROR) + b"no")
    pair.b << Frame(CANCEL, 2, 0, b"")
    pair.over()


@pytest.mark.row("A-45")
@pytest.mark.parametrize("how", ["eof", "goodbye", "violation"])
def test_when_the_responder_goes_its_requesters_are_told(pair: Pair, how: str) -> None:
    for n, kind in enumerate(KINDS):
        pair.a >> wire(kind, 2 * n + 1, KINDS[kind] + with_metadata(TO_B, b""), M)
    pair.b.sent()
    woken = pair.a.outlet.woken
    end(pair.b, how)
    for stream_id in (1, 3, 5):
        pair.a.error(stream_id, ErrorCode.CANCELED, GONE)
    assert pair.a.outlet.woken > woken
    pair.b.sent()
    pair.b.events()
    pair.over()
    pair.a >> wire(CALL, 7, with_metadata(TO_B, b""), M)
    pair.a.error(7, ErrorCode.REJECTED, LEAVING)


@pytest.mark.row("A-28")
def test_one_that_may_no_longer_ask_another_loses_what_that_one_was_answering(pair: Pair) -> None:
    for n, kind in enumerate(KINDS):
        pair.a >> wire(kind, 2 * n + 1, KINDS[kind] + with_metadata(TO_B, b""), M)
    pair.b.sent()
    assert (pair.a.protocol.answerers(), pair.b.protocol.answerers()) == ({"b"}, set())
    pair.a.protocol.part_from("c", Rejected("not any more"))
    pair.b.protocol.part_from("a", Rejected("not any more"))
    assert pair.a.protocol.relays_open == 3
    pair.a.protocol.part_from("b", Rejected("not any more"))
    for stream_id in (1, 3, 5):
        pair.a.error(stream_id, ErrorCode.REJECTED, "not any more")
        pair.b << Frame(CANCEL, stream_id + 1, 0, b"")
    pair.over()


@pytest.mark.row("A-45")
@pytest.mark.parametrize("how", ["eof", "goodbye", "violation"])
def test_when_the_requester_goes_its_responders_are_cancelled(pair: Pair, how: str) -> None:
    for n, kind in enumerate(KINDS):
        pair.a >> wire(kind, 2 * n + 1, KINDS[kind] + with_metadata(TO_B, b""), M)
    pair.b.sent()
    end(pair.a, how)
    for stream_id in (2, 4, 6):
        pair.b << Frame(CANCEL, stream_id, 0, b"")
    pair.a.sent()
    pair.a.events()
    pair.over()


def end(one: End, how: str) -> None:
    if how == "eof":
        one.take(one.protocol.receive_eof(one.now))
    elif how == "goodbye":
        one.protocol.close("bye")
    else:
        one >> wire(FrameType.RESUME, 0)


@pytest.mark.row("A-45")
def test_a_peer_that_leaves_lets_its_relayed_streams_finish(pair: Pair) -> None:
    begin(pair, STREAM)
    pair.b >> wire(ERROR, 0, u32(CONNECTION_CLOSE) + b"bye")
    assert not pair.b.protocol.closed
    pair.a >> wire(CALL, 3, with_metadata(TO_B, b""), M)
    pair.a.error(3, ErrorCode.REJECTED, LEAVING)
    pair.b >> wire(PAYLOAD, 2, b"last", N)
    pair.a << Frame(PAYLOAD, 1, N, b"last")
    woken = pair.b.outlet.woken
    pair.a >> wire(CANCEL, 1)
    assert pair.b.protocol.has_left
    assert pair.b.outlet.woken > woken, "its connection must look whether that was the last"


# ---- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, FIRE])
@pytest.mark.parametrize("flags", [0, F])
def test_an_address_that_leads_nowhere(pair: Pair, kind: int, flags: int) -> None:
    for n, tag in enumerate(["client:nobody", "client:me", "client:"]):
        body = KINDS.get(kind, b"") + with_metadata(route(tag), b"x")
        pair.a >> wire(kind, 2 * n + 1, body, M | flags)
        if flags:
            pair.a >> wire(PAYLOAD, 2 * n + 1, b"rest", N)
        if kind != FIRE:
            pair.a.error(2 * n + 1, ErrorCode.INVALID if tag == "client:me" else ErrorCode.REJECTED)
    pair.over()
    assert (pair.a.protocol.relayed, pair.a.protocol.relays_failed) == (0, 3)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_stream_id_in_use_is_not_opened_again(pair: Pair, kind: int) -> None:
    begin(pair, kind)
    for again in (TO_B, route("plugin.method")):
        pair.a >> wire(kind, 1, KINDS[kind] + with_metadata(again, b"x"), M)
        pair.a.quiet()
        pair.b.quiet()


def test_a_stream_id_of_the_wrong_side(pair: Pair) -> None:
    pair.a >> wire(CALL, 2, with_metadata(TO_B, b"x"), M)
    pair.a.error(2, ErrorCode.INVALID)
    pair.over()


@pytest.mark.parametrize("kind", list(KINDS))
def test_frames_that_the_other_side_would_not_take_are_refused_at_the_request(kind: int) -> None:
    pair = make_pair()
    narrow = make_pair(attrs.evolve(SECURE, fragment=1024)).b
    pair.a.protocol.relay(lambda tag: narrow.protocol)
    pair.a >> wire(kind, 1, KINDS[kind] + with_metadata(TO_B, bytes(1024)), M)
    pair.a.error(1, ErrorCode.REJECTED, "1024 bytes")
    narrow.quiet()
    pair.a >> wire(kind, 3, KINDS[kind] + with_metadata(TO_B, b""), M)
    assert len(narrow.sent()) == 1


def test_a_later_frame_that_does_not_fit_costs_its_stream(pair: Pair) -> None:
    narrow = make_pair(attrs.evolve(SECURE, fragment=1024)).a
    narrow.protocol.relay(lambda tag: pair.b.protocol)
    narrow >> wire(STREAM, 1, u32(9) + with_metadata(TO_B, b""), M)
    pair.b.sent()
    pair.b >> wire(PAYLOAD, 2, b"fits", N) + wire(PAYLOAD, 2, bytes(1024), N)
    narrow << Frame(PAYLOAD, 1, N, b"fits")
    narrow.error(1, ErrorCode.REJECTED, "1024 bytes")
    pair.b << Frame(CANCEL, 2, 0, b"")
    pair.b.quiet()


@pytest.mark.parametrize("together", [False, True])
def test_streams_are_bounded_on_both_ends(together: bool) -> None:
    """Sixteen places: half for whoever comes, half for those who have fewer than two streams."""
    limits = attrs.evolve(SECURE, streams=16)
    pair = make_pair(limits)
    calls = [wire(CALL, n, with_metadata(TO_B, b"x"), M) for n in range(1, 21, 2)]
    for data in [b"".join(calls)] if together else calls:
        pair.a >> data
    assert len(pair.b.sent()) == 8
    pair.a.error(17, ErrorCode.REJECTED, CROWDED)
    pair.a.error(19, ErrorCode.REJECTED, CROWDED)
    pair.a >> wire(CALL, 21, b"for the broker itself")
    pair.a << RequestReceived(21, Interaction.REQUEST_RESPONSE, b"for the broker itself", None, 0, False)
    for n in range(23, 39, 2):
        pair.a >> wire(CALL, n, b"and more of them")
    assert len(pair.a.events()) == 7
    pair.a.error(37, ErrorCode.REJECTED, "16 streams")
    others = [make_pair(limits).a for _ in range(5)]
    for other in others:
        other.protocol.relay(lambda tag: pair.b.protocol)
        for data in [b"".join(calls[:3])] if together else calls[:3]:
            other >> data
        if other is not others[-1]:
            other.error(5, ErrorCode.REJECTED, CROWDED)
    third = others[-1]
    assert len(pair.b.sent()) == 8
    for n in (1, 3, 5):
        third.error(n, ErrorCode.REJECTED, CROWDED)
    pair.b >> wire(CALL, 1, b"b itself is not short of room")
    pair.b << RequestReceived(1, Interaction.REQUEST_RESPONSE, b"b itself is not short of room", None, 0, False)
    pair.b >> wire(PAYLOAD, 2, b"one is free again", N | C)
    third >> wire(CALL, 7, with_metadata(TO_B, b"x"), M)
    assert [frame.stream_id for frame in pair.b.sent()] == [34]


@pytest.mark.row("A-43")
def test_a_frame_whose_metadata_does_not_fit_is_the_fault_of_who_sent_it(pair: Pair) -> None:
    """The other client would hold us to account for it."""
    begin(pair, STREAM)
    pair.b >> wire(PAYLOAD, 2, b"\0\0\x09short", N | M | IGNORE)
    pair.a.quiet()
    pair.b >> wire(PAYLOAD, 2, b"\0\0\x09short", N | M)
    pair.b.ends_with(ErrorCode.CONNECTION_ERROR, "metadata")
    pair.b.events()
    pair.a.error(1, ErrorCode.CANCELED, GONE)
    pair.over()


@pytest.mark.row("A-43")
@pytest.mark.parametrize("kind", [*KINDS, FIRE])
def test_a_request_whose_metadata_does_not_fit(pair: Pair, kind: int) -> None:
    body = KINDS.get(kind, b"") + (len(TO_B) + 1).to_bytes(3, "big") + TO_B
    pair.a >> wire(kind, 1, body, M | IGNORE)
    pair.b.quiet()
    pair.a >> wire(kind, 3, body, M)
    pair.a.ends_with(ErrorCode.CONNECTION_ERROR)
    pair.b.quiet()


@pytest.mark.row("A-43")
def test_metadata_that_ends_with_what_was_read_but_says_that_it_is_longer(pair: Pair) -> None:
    body = (len(TO_B) + 1).to_bytes(3, "big") + TO_B
    pair.a >> wire(CALL, 1, body, M)
    pair.a.ends_with(ErrorCode.CONNECTION_ERROR)
    pair.b.quiet()


@pytest.mark.parametrize("frame", [wire(REQUEST_N, 1, b"\0\0"), wire(ERROR, 1, b"\0\0")])
def test_frames_that_are_cut_short_are_violations_on_relayed_streams_too(pair: Pair, frame: bytes) -> None:
    begin(pair, CHANNEL)
    pair.a >> frame
    pair.a.ends_with(ErrorCode.CONNECTION_ERROR)
    pair.b << Frame(CANCEL, 2, 0, b"")


def test_without_a_way_to_find_others_an_address_is_a_route_like_any_other(pair: Pair) -> None:
    pair.a.protocol.relay(None)
    for n, kind in enumerate([*KINDS, FIRE]):
        pair.a >> wire(kind, 2 * n + 1, KINDS.get(kind, b"") + with_metadata(TO_B, b"x"), M)
    pair.a >> wire(PUSH, 0, TO_B, M)
    assert len(pair.a.events()) == 5
    pair.b.quiet()


# ---- a peer that does not read ---------------------------------------------------------------------------------


@pytest.mark.row("A-38", "D-11")
@pytest.mark.parametrize("kind", [*KINDS, FIRE, PUSH])
def test_requests_for_a_peer_that_does_not_read(pair: Pair, kind: int) -> None:
    pair.b.protocol.blocked = True
    frame = (
        wire(PUSH, 0, TO_B, M) if kind == PUSH else wire(kind, 1, KINDS.get(kind, b"") + with_metadata(TO_B, b""), M)
    )
    pair.a >> frame
    assert pair.b.outlet.feeders == [pair.a.outlet], "its feeder is known"
    assert len(pair.b.sent()) == 1
    pair.b.outlet.room = False
    again = frame[:6] + b"\x03" + frame[7:] if kind != PUSH else frame
    pair.a >> again
    pair.b.quiet()
    if kind in KINDS:
        pair.a.error(3, ErrorCode.REJECTED, UNREAD)
    pair.a.quiet()
    assert pair.a.protocol.relays_failed == 1


@pytest.mark.row("A-38", "D-11")
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_stream_for_a_requester_that_does_not_read_is_cut(pair: Pair, kind: int) -> None:
    begin(pair, kind)
    pair.a.protocol.blocked = True
    pair.a.outlet.room = False
    pair.b >> wire(PAYLOAD, 2, b"x", N)
    pair.a.error(1, ErrorCode.REJECTED, UNREAD)
    pair.b << Frame(CANCEL, 2, 0, b"")
    pair.over()


@pytest.mark.row("A-38")
def test_even_requests_for_more_do_not_pile_up(pair: Pair) -> None:
    begin(pair, STREAM)
    pair.b.protocol.blocked = True
    pair.b.outlet.room = False
    pair.a >> wire(REQUEST_N, 1, u32(1)) * 1000
    pair.a.error(1, ErrorCode.REJECTED, UNREAD)
    pair.b << Frame(CANCEL, 2, 0, b"")
    pair.over()


# ---- anything at all -------------------------------------------------------------------------------------------


@pytest.mark.row("A-38", "A-45")
@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("blocked", [0.0, 0.2])
def test_any_frames_leave_both_tables_as_mirrors_and_no_credit_is_invented(seed: int, blocked: float) -> None:
    dice = random.Random(seed)
    pair = make_pair(attrs.evolve(SECURE, streams=16))
    watches = {end.protocol.name: Watch() for end in (pair.a, pair.b)}
    for _ in range(400):
        one, other = dice.sample([pair.a, pair.b], 2)
        for end in (one, other):
            end.protocol.blocked = dice.random() < blocked
            end.outlet.room = dice.random() < 0.5
        data = b"".join(anything(dice, one) for _ in range(dice.randrange(1, 6)))
        for frame in cut(data):
            watches[one.protocol.name].heard(frame)
        one >> data
        for end in (one, other):
            assert not end.protocol.closed
            for frame in end.sent():
                watches[end.protocol.name].said(frame)
            assert_mirrored(end, other if end is one else one)
            end.events()
    assert pair.a.protocol.relayed > 20
    pair.a.take(pair.a.protocol.receive_eof(pair.a.now))
    assert pair.b.table == ({}, {})


def anything(dice: random.Random, end: End) -> bytes:
    other = "b" if end.protocol.name == "a" else "a"
    kind = dice.choice([CALL, FIRE, STREAM, CHANNEL, PAYLOAD, PAYLOAD, PAYLOAD, PAYLOAD, REQUEST_N, CANCEL, ERROR])
    stream_id = dice.randrange(1, 30)
    flags = dice.choice([0, N, N | C, C, F, N | F, N | C | F])
    if kind in {CALL, FIRE, STREAM, CHANNEL}:
        leading = u32(dice.randrange(1, 4)) if kind in {STREAM, CHANNEL} else b""
        body = leading + with_metadata(route(f"client:{other}"), b"x")
        return wire(kind, end.protocol._peer_next if dice.random() < 0.7 else stream_id, body, M | flags & ~N)
    if kind == REQUEST_N:
        return wire(kind, stream_id, u32(dice.randrange(0, 3)))
    if kind == ERROR:
        return wire(kind, stream_id, u32(ErrorCode.APPLICATION_ERROR))
    return wire(kind, stream_id, b"" if kind == CANCEL else b"data", 0 if kind == CANCEL else flags)


class Watch:
    """What one peer knows of its streams: how much it has asked for, and that it never gets more."""

    def __init__(self) -> None:
        self.asked: dict[int, int] = {}
        self.inside: dict[int, bool] = {}

    def heard(self, frame: Frame) -> None:
        if (frame.kind in {STREAM, CHANNEL} and frame.stream_id % 2) or frame.kind == REQUEST_N:
            self.asked[frame.stream_id] = self.asked.get(frame.stream_id, 0) + int.from_bytes(frame.body[:4], "big")
        elif frame.kind == CALL:
            self.asked[frame.stream_id] = self.asked.get(frame.stream_id, 0) + 1

    def said(self, frame: Frame) -> None:
        if frame.kind in {CALL, FIRE, STREAM, CHANNEL}:
            self.inside[frame.stream_id] = bool(frame.flags & F)
            self.asked.pop(frame.stream_id, None)
        elif frame.kind == PAYLOAD:
            inside = self.inside.get(frame.stream_id, False)
            if not inside and frame.flags & N:
                self.asked[frame.stream_id] = self.asked.get(frame.stream_id, 0) - 1
                assert self.asked[frame.stream_id] >= 0, "more came than was asked for"
            self.inside[frame.stream_id] = bool(frame.flags & F) and (inside or bool(frame.flags & N))


def assert_mirrored(one: End, other: End) -> None:
    for mine, theirs in ((one.table[0], other.table[1]), (one.table[1], other.table[0])):
        assert {(n, leg[1]) for n, leg in mine.items()} == {(leg[1], n) for n, leg in theirs.items()}
        for leg in mine.values():
            _, _, heard, sent = leg
            back = theirs[leg[1]]
            assert back[2] is sent and back[3] is heard
            assert back[0] is one.protocol


# ---- leases, resumption, ids that come round -------------------------------------------------------------------


def lease_setup(body: bytes = SETUP_BODY) -> bytes:
    return wire(FrameType.SETUP, 0, body, C)


@pytest.mark.row("A-39")
def test_requests_that_are_passed_on_are_held_to_the_leases_of_both_sides() -> None:
    ends: dict[str, End] = {}
    limits = attrs.evolve(SECURE, lease_requests=3)
    pair = Pair(End("a", ends, limits, setup=lease_setup()), End("b", ends, SECURE, setup=lease_setup()))
    pair.a.sent()
    pair.b.sent()
    call = with_metadata(TO_B, b"x")
    pair.a >> wire(CALL, 1, call, M)
    pair.a.error(1, ErrorCode.REJECTED, UNLEASED)
    pair.b >> wire(FrameType.LEASE, 0, u32(10_000) + u32(1))
    pair.a >> wire(CALL, 3, call, M) + wire(CALL, 5, call, M) + wire(CALL, 7, call, M)
    pair.b << Frame(CALL, 2, M, call)
    pair.a.error(5, ErrorCode.REJECTED, UNLEASED)
    pair.a.error(7, ErrorCode.REJECTED, "the lease does not allow")


def resumable_setup() -> bytes:
    fixed = SETUP_BODY[:12]
    return wire(FrameType.SETUP, 0, fixed + b"\x00\x05token" + SETUP_BODY[12:], 0x80)


@pytest.mark.row("D-4", "A-40")
def test_streams_outlive_the_line_of_one_end() -> None:
    """What is passed on in the meantime is retained there, and goes out when the peer is back."""
    ends: dict[str, End] = {}
    limits = attrs.evolve(SECURE, resume_seconds=60)
    pair = Pair(End("a", ends, limits, setup=resumable_setup()), End("b", ends, SECURE))
    begin(pair, STREAM)
    assert pair.a.protocol.suspend(pair.a.now)
    pair.a.protocol.blocked = True
    pair.b >> wire(PAYLOAD, 2, b"1", N)
    pair.b >> wire(CALL, 1, with_metadata(route("client:a"), b"call"), M)
    assert pair.a.protocol.data_to_send() == []
    assert pair.a.protocol.retained > 0
    pair.a.outlet.room = False
    pair.b >> wire(CALL, 3, with_metadata(route("client:a"), b"call"), M)
    pair.b.error(3, ErrorCode.REJECTED, UNREAD)
    asked = len(KINDS[STREAM]) + 6 + len(with_metadata(TO_B, b"x"))
    pair.a.protocol.resume(0, asked, pair.a.now)
    kinds = [(frame.kind, frame.stream_id) for frame in pair.a.sent()]
    assert kinds == [(FrameType.RESUME_OK, 0), (PAYLOAD, 1), (CALL, 2)]
    assert pair.a.protocol.suspend(pair.a.now)
    pair.a.tick(61)
    assert pair.a.protocol.closed
    pair.b.error(1, ErrorCode.CANCELED, GONE)
    pair.b << Frame(CANCEL, 2, 0, b"")


@pytest.mark.parametrize("who", ["requester", "responder"])
def test_the_end_of_one_may_be_the_end_of_another_for_whom_too_much_waits(who: str) -> None:
    """An end that is away keeps what it is told. When that is too much, it ends in the midst of being told."""
    limits = attrs.evolve(SECURE, resume_seconds=60.0, resume_bytes=1000)
    ends: dict[str, End] = {}
    a, b, third = End("a", ends, limits, resumable_setup()), End("b", ends, limits), End("third", ends, limits)

    class Flushing(Outlet):
        def wake(self) -> None:
            a.protocol.data_to_send()

    a.protocol.outlet = Flushing()
    asks, asked = (a, b) if who == "requester" else (b, a)
    for stream_id in range(1, 201, 2):
        asks >> wire(CALL, stream_id, with_metadata(route(f"client:{asked.protocol.name}"), b""), M)
    third >> wire(CALL, 1, with_metadata(route("client:a"), b""), M)
    assert (b.protocol.relays_open, third.protocol.relays_open, a.protocol.closed) == (100, 1, False)
    a.protocol.suspend(a.now)
    b.protocol.receive_eof(b.now)
    assert a.protocol.closed and b.protocol.closed
    assert a.table == b.table == third.table == ({}, {})
    third.error(1, ErrorCode.CANCELED, GONE)


@pytest.mark.parametrize("together", [False, True])
def test_stream_ids_come_round(pair: Pair, together: bool) -> None:
    begin(pair, STREAM)
    pair.b.protocol._next_id = MAX_31 - 1
    calls = [wire(CALL, n, with_metadata(TO_B, b"x"), M) for n in range(3, 13, 2)]
    for data in [b"".join(calls)] if together else calls:
        pair.a >> data
    assert [frame.stream_id for frame in pair.b.sent()] == [MAX_31 - 1, 4, 6, 8, 10]
    assert pair.b.protocol.request(Interaction.REQUEST_RESPONSE, b"ours") == 12


@pytest.mark.row("A-21")
@pytest.mark.parametrize("gone", ["requester", "responder"])
def test_whoever_is_expelled_leaves_no_stream_without_an_end(gone: str) -> None:
    pair = make_pair()
    for number, kind in enumerate((CALL, STREAM, CHANNEL)):
        pair.a >> wire(kind, 1 + 2 * number, KINDS[kind] + with_metadata(TO_B, b""), M)
    pair.a.sent(), pair.b.sent()
    out, other = (pair.a, pair.b) if gone == "requester" else (pair.b, pair.a)
    out.protocol.end_streams(ErrorCode.CANCELED, "withdrawn")
    out.protocol.close("withdrawn", ErrorCode.CONNECTION_ERROR)
    *ends, last = out.sent()
    assert (last.kind, last.stream_id) == (ERROR, 0)
    expected, at_other = (ERROR, CANCEL) if gone == "requester" else (CANCEL, ERROR)
    assert [frame.kind for frame in ends] == [expected] * 3
    assert [frame.kind for frame in other.sent()] == [at_other] * 3
    assert (out.table, other.table) == (({}, {}), ({}, {}))
