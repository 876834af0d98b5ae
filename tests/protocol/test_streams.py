"""What a peer may do on streams: requests, payloads, credit, cancel, errors, fragments, and the bounds on them."""

import pytest

from rsocket_broker.errors import ProtocolViolation
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.codes import MAX_31, ErrorCode, FrameType, Interaction
from rsocket_broker.protocol.events import (
    CancelReceived,
    ConnectionEnded,
    ErrorReceived,
    PayloadReceived,
    RequestNReceived,
    RequestReceived,
)
from rsocket_broker.protocol.limits import LIGHT, Limits
from rsocket_broker.protocol.streams import ENOUGH_AT_ONCE, WORTH_A_COPY
from tests.playbook import IGNORE, C, F, Frame, M, N, Playbook, u32, wire, with_metadata

TINY = Limits(frame=1000, message=1000, reassembly=2500, streams=3)
RESPONSE, FIRE = Interaction.REQUEST_RESPONSE, Interaction.FIRE_AND_FORGET
STREAM, CHANNEL = Interaction.REQUEST_STREAM, Interaction.REQUEST_CHANNEL


def ask(interaction: Interaction, stream_id: int, data: bytes = b"", flags: int = 0, n: int = 1) -> bytes:
    credit = u32(n) if interaction in (STREAM, CHANNEL) else b""
    return wire(interaction, stream_id, credit + data, flags)


def refusal(play: Playbook) -> tuple[int, int]:
    (frame,) = play.sent()
    return frame.stream_id, frame.error_code


@pytest.mark.row("A-31")
@pytest.mark.parametrize("interaction", [RESPONSE, STREAM, CHANNEL], ids=lambda one: one.name)
@pytest.mark.parametrize("in_pieces", [False, True])
@pytest.mark.parametrize("at_once", [False, True])
def test_requests_that_are_being_served_share_a_budget(
    interaction: Interaction, in_pieces: bool, at_once: bool
) -> None:
    play = Playbook.server(Limits(serving=3 * LIGHT))

    def later(stream_id: int, data: bytes, metadata: bytes | None) -> None:
        play.protocol.owe(stream_id)

    if at_once:
        play.protocol.answer_at_once = later
    heavy = bytes(LIGHT + 1)

    def large(stream_id: int) -> bytes:
        if not in_pieces:
            return ask(interaction, stream_id, heavy)
        return ask(interaction, stream_id, heavy[:-9], F) + wire(FrameType.PAYLOAD, stream_id, heavy[-9:], N)

    play >> large(1) >> large(3) >> large(5)
    assert [event.stream_id for event in play.events()] == [1, 3]  # type: ignore[union-attr]
    assert refusal(play) == (5, ErrorCode.REJECTED)
    play >> ask(interaction, 7, b"light") >> ask(FIRE, 9, heavy)
    assert play.protocol.streams == 3
    play.events()
    play.protocol.send_error(1, ErrorCode.APPLICATION_ERROR, "done")
    play.sent()
    play >> large(11) >> large(13)
    assert [event.stream_id for event in play.events()] == [11]  # type: ignore[union-attr]
    assert refusal(play) == (13, ErrorCode.REJECTED)


@pytest.mark.row("A-37")
@pytest.mark.parametrize("interaction", Interaction, ids=lambda one: one.name)
@pytest.mark.parametrize("metadata", [None, b"", b"meta"])
@pytest.mark.parametrize("data", [b"", b"data"])
def test_every_kind_of_request_with_every_kind_of_payload(
    interaction: Interaction, metadata: bytes | None, data: bytes
) -> None:
    body, flags = (data, 0) if metadata is None else (with_metadata(metadata, data), M)
    play = Playbook.server() >> ask(interaction, 1, body, flags, n=5)
    play << RequestReceived(1, interaction, data, metadata, 5 if interaction in (STREAM, CHANNEL) else 0, False)
    play.quiet()
    assert play.protocol.streams == (0 if interaction is FIRE else 1)


def test_a_server_may_ask_its_client_too() -> None:
    play = Playbook.client() >> ask(RESPONSE, 2, b"q") << RequestReceived(2, RESPONSE, b"q", None, 0, False)
    play.protocol.send_payload(2, b"a", b"m", complete=True)
    play << wire(FrameType.PAYLOAD, 2, with_metadata(b"m", b"a"), M | N | C)


@pytest.mark.parametrize("interaction", Interaction, ids=lambda one: one.name)
def test_ids_of_the_other_side_are_invalid(interaction: Interaction) -> None:
    play = Playbook.server() >> ask(interaction, 2)
    assert refusal(play) == (2, ErrorCode.INVALID)
    client = Playbook.client() >> ask(interaction, 1)
    assert refusal(client) == (1, ErrorCode.INVALID)
    assert not play.events() + client.events()


@pytest.mark.parametrize("interaction", Interaction, ids=lambda one: one.name)
@pytest.mark.parametrize("stream_id", [0, 1 << 31, (1 << 31) + 1])
def test_requests_on_no_stream_at_all_are_ignored(interaction: Interaction, stream_id: int) -> None:
    play = Playbook.server() >> ask(interaction, stream_id)
    play.quiet()


@pytest.mark.parametrize("interaction", Interaction, ids=lambda one: one.name)
def test_a_request_on_an_id_in_use_is_ignored(interaction: Interaction) -> None:
    play = Playbook.server() >> ask(STREAM, 1, n=1)
    assert len(play.events()) == 1
    play >> ask(interaction, 1, b"again")
    play.quiet()


def test_a_free_id_below_an_earlier_one_is_taken() -> None:
    play = Playbook.server() >> ask(RESPONSE, 9) + ask(RESPONSE, 3) + ask(RESPONSE, 11) + ask(STREAM, 5)
    assert [event.stream_id for event in play.events()] == [9, 3, 11, 5]  # type: ignore[union-attr]


@pytest.mark.parametrize("interaction", [RESPONSE, FIRE], ids=lambda one: one.name)
def test_ids_may_wrap_round(interaction: Interaction) -> None:
    play = Playbook.server()
    play.protocol.answer_at_once = lambda stream_id, data, metadata: (play.protocol.owe(stream_id), None)[1]
    play >> ask(STREAM, 5) + ask(interaction, MAX_31 - 2) + ask(interaction, MAX_31)
    play.events()
    play >> ask(interaction, (1 << 31) + 1)
    play.quiet()
    for stream_id in (1, 3, 5, 7):
        play >> ask(interaction, stream_id)
    assert [event.stream_id for event in play.events()] == [1, 3, 7], "5 is still in use"  # type: ignore[union-attr]


@pytest.mark.parametrize("at_once", [False, True], ids=["events", "at once"])
def test_streams_beyond_the_limit_are_rejected_and_room_comes_back(at_once: bool) -> None:
    play = Playbook.server(TINY)
    if at_once:
        play.protocol.answer_at_once = lambda stream_id, data, metadata: (play.protocol.owe(stream_id), None)[1]
    play >> b"".join(ask(RESPONSE, stream_id) for stream_id in (1, 3, 5, 7))
    assert refusal(play) == (7, ErrorCode.REJECTED)
    play >> wire(FrameType.CANCEL, 3)
    play >> ask(RESPONSE, 9) + ask(STREAM, 11)
    assert refusal(play) == (11, ErrorCode.REJECTED)
    assert play.protocol.streams == 3
    play.events()
    play >> ask(FIRE, 13) + ask(FIRE, 15, with_metadata(b"m", b""), M)
    assert len(play.events()) == 2, "what wants no answer opens no stream"
    play >> ask(FIRE, 17, b"", F)
    assert refusal(play) == (17, ErrorCode.REJECTED)


def test_own_streams_do_not_use_up_the_peers_room() -> None:
    play = Playbook.server(TINY)
    for _ in range(9):
        play.protocol.request(RESPONSE, b"")
    play.sent()
    play >> ask(RESPONSE, 1) + ask(RESPONSE, 3) + ask(RESPONSE, 5)
    assert len(play.events()) == 3
    play >> wire(FrameType.PAYLOAD, 2, b"", N | C) + ask(RESPONSE, 7)
    assert refusal(play) == (7, ErrorCode.REJECTED)


@pytest.mark.parametrize("interaction", Interaction, ids=lambda one: one.name)
def test_metadata_that_does_not_fit_ends_the_connection_unless_the_frame_may_be_ignored(
    interaction: Interaction,
) -> None:
    play = Playbook.server() >> ask(interaction, 1, b"\x00\x00\x09abc", M | IGNORE)
    play.quiet()
    play >> ask(interaction, 3, b"\x00\x00\x09abc", M)
    play.ends_with(ErrorCode.CONNECTION_ERROR, "metadata")


@pytest.mark.parametrize("interaction", [STREAM, CHANNEL], ids=lambda one: one.name)
def test_a_request_for_nothing_is_invalid(interaction: Interaction) -> None:
    play = Playbook.server() >> ask(interaction, 1, n=0)
    assert refusal(play) == (1, ErrorCode.INVALID)
    play.quiet()
    play >> wire(interaction, 3, b"\x00")
    play.ends_with(ErrorCode.CONNECTION_ERROR, "request-n")


# ---- answers ---------------------------------------------------------------------------------------------------


def test_an_answer_given_at_once_leaves_no_event_and_no_stream() -> None:
    play = Playbook.server()
    seen = []

    def answer(stream_id: int, data: bytes, metadata: bytes | None) -> Payload:
        seen.append((stream_id, data, metadata))
        return Payload(data + b"!", metadata)

    play.protocol.answer_at_once = answer
    play >> ask(RESPONSE, 1, b"a") + ask(RESPONSE, 3, with_metadata(b"", b"b"), M) + ask(RESPONSE, 5, b"c")[:-1]
    play << wire(FrameType.PAYLOAD, 1, b"a!", N | C) << wire(FrameType.PAYLOAD, 3, with_metadata(b"", b"b!"), M | N | C)
    play.quiet()
    play >> b"c"
    play << wire(FrameType.PAYLOAD, 5, b"c!", N | C)
    assert seen == [(1, b"a", None), (3, b"b", b""), (5, b"c", None)]
    assert play.protocol.streams == 0
    assert play.protocol.frames_in == 4
    assert play.protocol.frames_out == 3


@pytest.mark.row("A-36")
@pytest.mark.parametrize("interaction", Interaction)
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("flags", [*(1 << bit for bit in range(10) if 1 << bit not in {M, F}), 0x3FF ^ M ^ F])
def test_flags_that_mean_nothing_on_a_request_are_not_read(interaction: Interaction, at_once: bool, flags: int) -> None:
    play = Playbook.server()
    if at_once:
        play.protocol.answer_at_once = lambda stream_id, data, metadata: Payload(data)
    for stream_id in (1, 3, 5):
        play >> ask(interaction, stream_id, b"data", flags if stream_id == 3 else 0)
    asked = {event.stream_id: event.data for event in play.events()}  # type: ignore[union-attr]
    asked |= {frame.stream_id: frame.body for frame in play.sent()}
    assert asked == dict.fromkeys((1, 3, 5), b"data")
    assert play.protocol.frames_in == 4


def test_what_comes_in_order_is_handled_in_order() -> None:
    play = Playbook.server()
    seen = []
    play.protocol.answer_at_once = lambda stream_id, data, metadata: (seen.append(stream_id), Payload(data))[1]  # type: ignore[func-returns-value]
    play >> ask(RESPONSE, 1) + ask(FIRE, 3) + ask(RESPONSE, 5) + ask(RESPONSE, 7)
    assert seen == [1]
    assert [event.stream_id for event in play.events()] == [3, 5, 7]  # type: ignore[union-attr]


def test_answers_at_once_stop_when_enough_is_queued() -> None:
    play = Playbook.server()
    play.protocol.answer_at_once = lambda stream_id, data, metadata: Payload(bytes(ENOUGH_AT_ONCE))
    play >> ask(RESPONSE, 1) + ask(RESPONSE, 3) + ask(RESPONSE, 5)
    assert [event.stream_id for event in play.events()] == [3, 5]  # type: ignore[union-attr]
    assert [len(frame.body) for frame in play.sent()] == [ENOUGH_AT_ONCE]


@pytest.mark.row("A-36")
def test_a_handler_that_closes_the_connection_is_the_last_to_be_called() -> None:
    play = Playbook.server()
    seen = []

    def answer(stream_id: int, data: bytes, metadata: bytes | None) -> Payload:
        seen.append(stream_id)
        play.protocol.close("enough")
        assert not play.protocol.owe(stream_id)
        return Payload(data)

    play.protocol.answer_at_once = answer
    play >> ask(RESPONSE, 1) + ask(RESPONSE, 3) + ask(FIRE, 5)
    assert seen == [1]
    assert [type(event) for event in play.events()] == [ConnectionEnded]
    assert [frame.kind for frame in play.sent()] == [FrameType.ERROR]


@pytest.mark.parametrize("size", [WORTH_A_COPY - 7, WORTH_A_COPY - 6, WORTH_A_COPY - 5, WORTH_A_COPY, 100_000])
@pytest.mark.parametrize("metadata", [None, b"", b"m" * 20_000])
def test_answers_of_every_size_are_the_same_on_both_ways(size: int, metadata: bytes | None) -> None:
    data = bytes(size)
    at_once, later = Playbook.server(), Playbook.server()
    at_once.protocol.answer_at_once = lambda stream_id, question, _: Payload(data, metadata)
    at_once >> ask(RESPONSE, 1)
    later >> ask(RESPONSE, 1)
    later.protocol.send_payload(1, data, metadata, complete=True)
    frames = at_once.sent()
    assert frames == later.sent()
    assert len(frames) == 1
    assert at_once.protocol.frames_out == later.protocol.frames_out == 1


@pytest.mark.parametrize("flags", [0, N, C, N | C])
def test_a_payload_for_a_request_response_is_always_the_last(flags: int) -> None:
    play = Playbook.client()
    stream_id = play.protocol.request(RESPONSE, b"q")
    play.sent()
    play >> wire(FrameType.PAYLOAD, stream_id, b"", flags) << PayloadReceived(1, b"", None, bool(flags & N), True)
    play >> wire(FrameType.PAYLOAD, stream_id, b"", flags)
    play.quiet()
    assert play.protocol.streams == 0


def test_payloads_of_a_stream() -> None:
    play = Playbook.client()
    play.protocol.request(STREAM, b"q", None, 10)
    play.sent()
    play >> wire(FrameType.PAYLOAD, 1, b"", N) << PayloadReceived(1, b"", None, True, False)
    play >> wire(FrameType.PAYLOAD, 1, b"what", 0)
    play.quiet()
    play >> wire(FrameType.PAYLOAD, 1, with_metadata(b"", b""), N | M) << PayloadReceived(1, b"", b"", True, False)
    play >> wire(FrameType.PAYLOAD, 1, b"end", N | C) << PayloadReceived(1, b"end", None, True, True)
    assert play.protocol.streams == 0


@pytest.mark.row("A-38")
def test_a_responder_that_sends_more_than_it_was_asked_for_loses_the_stream() -> None:
    play = Playbook.client()
    play.protocol.request(STREAM, b"q", None, 2)
    play.sent()
    play >> wire(FrameType.PAYLOAD, 1, b"1", N) + wire(FrameType.PAYLOAD, 1, b"2", N)
    assert len(play.events()) == 2
    assert play.protocol.granted(1) == 0
    play >> wire(FrameType.PAYLOAD, 1, b"3", N) + wire(FrameType.PAYLOAD, 1, b"4", N)
    play << ErrorReceived(1, ErrorCode.INVALID, "more payloads were sent than were asked for")
    play << wire(FrameType.CANCEL, 1)
    play.quiet()


@pytest.mark.row("A-38")
def test_a_requester_that_sends_more_on_its_channel_than_it_was_asked_for_loses_it() -> None:
    play = Playbook.server() >> ask(CHANNEL, 1, n=1)
    play.events()
    play.protocol.send_request_n(1, 1)
    play.sent()
    play >> wire(FrameType.PAYLOAD, 1, b"1", N) << PayloadReceived(1, b"1", None, True, False)
    play >> wire(FrameType.PAYLOAD, 1, b"2", N)
    play << ErrorReceived(1, ErrorCode.INVALID, "more payloads were sent than were asked for")
    assert refusal(play) == (1, ErrorCode.INVALID)


# ---- credit ----------------------------------------------------------------------------------------------------


@pytest.mark.row("A-38")
def test_credit_adds_up_and_is_used_up() -> None:
    play = Playbook.server() >> ask(STREAM, 1, n=2)
    play.events()
    assert play.protocol.credit(1) == 2
    play >> wire(FrameType.REQUEST_N, 1, u32(3)) << RequestNReceived(1, 3)
    assert play.protocol.credit(1) == 5
    for _ in range(5):
        play.protocol.send_payload(1, b"x")
    assert len(play.sent()) == 5
    with pytest.raises(ProtocolViolation, match="asked for no more"):
        play.protocol.send_payload(1, b"x")
    assert play.sent() == []
    play.protocol.send_payload(1, b"", next=False, complete=True)
    play << wire(FrameType.PAYLOAD, 1, b"", C)


@pytest.mark.row("A-38")
def test_credit_stops_growing_at_the_largest_number() -> None:
    play = Playbook.server() >> ask(STREAM, 1, n=MAX_31)
    play >> wire(FrameType.REQUEST_N, 1, u32(MAX_31)) + wire(FrameType.REQUEST_N, 1, u32(5))
    assert play.protocol.credit(1) == MAX_31
    client = Playbook.client()
    client.protocol.request(STREAM, b"", None, MAX_31 - 1)
    client.sent()
    client.protocol.send_request_n(1, 5)
    client << wire(FrameType.REQUEST_N, 1, u32(1))
    client.protocol.send_request_n(1, 5)
    client.quiet()
    assert client.protocol.granted(1) == MAX_31


@pytest.mark.parametrize("interaction", [STREAM, CHANNEL], ids=lambda one: one.name)
def test_credit_of_nothing_is_an_error_on_its_stream(interaction: Interaction) -> None:
    play = Playbook.server() >> ask(interaction, 1) + wire(FrameType.REQUEST_N, 1, u32(0))
    play.events()
    assert refusal(play) == (1, ErrorCode.INVALID)
    assert play.protocol.streams == 0
    assert not play.protocol.closed


def test_credit_where_none_is_due_is_ignored() -> None:
    play = Playbook.server() >> ask(RESPONSE, 1)
    play.events()
    for stream_id in (0, 1, 99):
        play >> wire(FrameType.REQUEST_N, stream_id, u32(5)) + wire(FrameType.REQUEST_N, stream_id, u32(0))
    play.quiet()
    play >> wire(FrameType.REQUEST_N, 1, b"\x00")
    play.ends_with(ErrorCode.CONNECTION_ERROR, "request-n")


# ---- cancel, errors, what is unknown ---------------------------------------------------------------------------


@pytest.mark.row("A-45")
@pytest.mark.parametrize("interaction", [RESPONSE, STREAM, CHANNEL], ids=lambda one: one.name)
def test_cancel_ends_a_stream_and_what_is_sent_later_goes_nowhere(interaction: Interaction) -> None:
    play = Playbook.server() >> ask(interaction, 1)
    play.events()
    play >> wire(FrameType.CANCEL, 1) << CancelReceived(1)
    play.protocol.send_payload(1, b"late", complete=True)
    play.protocol.send_error(1, 0x201, "late")
    play.protocol.send_request_n(1, 1)
    play.quiet()
    assert play.protocol.streams == 0


@pytest.mark.parametrize("stream_id", [0, 1, 2, 99])
def test_frames_for_unknown_streams_are_ignored(stream_id: int) -> None:
    for play in (Playbook.server(), Playbook.client()):
        play >> wire(FrameType.CANCEL, stream_id) + wire(FrameType.PAYLOAD, stream_id, b"x", N)
        play >> wire(FrameType.PAYLOAD, stream_id, b"x", N | F) + wire(FrameType.REQUEST_N, stream_id, u32(1))
        if stream_id:
            play >> wire(FrameType.ERROR, stream_id, u32(0x201))
        play.quiet()
        assert not play.protocol.closed


def test_frames_that_make_no_sense_on_a_stream_are_ignored() -> None:
    play = Playbook.server() >> ask(RESPONSE, 1) + ask(STREAM, 3)
    play.events()
    for stream_id in (1, 3):
        play >> wire(FrameType.PAYLOAD, stream_id, b"x", N | C) + wire(FrameType.PAYLOAD, stream_id, b"x", N | F)
        play >> wire(FrameType.ERROR, stream_id, u32(0x201))
    play.quiet()
    assert play.protocol.streams == 2


@pytest.mark.parametrize("interaction", [RESPONSE, STREAM, CHANNEL], ids=lambda one: one.name)
def test_an_error_ends_what_was_asked_for(interaction: Interaction) -> None:
    play = Playbook.client()
    play.protocol.request(interaction, b"", None, 3 if interaction is not RESPONSE else 0)
    play.sent()
    play >> wire(FrameType.ERROR, 1, u32(0x203) + "né".encode()) << ErrorReceived(1, 0x203, "né")
    play >> wire(FrameType.PAYLOAD, 1, b"x", N)
    play.quiet()
    assert play.protocol.streams == 0


def test_a_malformed_error_ends_the_connection() -> None:
    play = Playbook.server() >> wire(FrameType.ERROR, 1, b"\x00\x00\x02")
    play.ends_with(ErrorCode.CONNECTION_ERROR, "ERROR")


@pytest.mark.row("A-37")
def test_a_channel_closes_half_by_half_requester_first() -> None:
    play = Playbook.server() >> ask(CHANNEL, 1, b"first", n=5)
    play << RequestReceived(1, CHANNEL, b"first", None, 5, False)
    play.protocol.send_request_n(1, 5)
    play.sent()
    play >> wire(FrameType.PAYLOAD, 1, b"a", N | C) << PayloadReceived(1, b"a", None, True, True)
    play.protocol.send_payload(1, b"b")
    play << wire(FrameType.PAYLOAD, 1, b"b", N)
    play >> wire(FrameType.PAYLOAD, 1, b"after the end", N)
    play.quiet()
    play.protocol.send_payload(1, b"c", complete=True)
    play << wire(FrameType.PAYLOAD, 1, b"c", N | C)
    assert play.protocol.streams == 0


@pytest.mark.row("A-37")
def test_a_channel_closes_half_by_half_responder_first() -> None:
    play = Playbook.server() >> ask(CHANNEL, 1, n=5)
    play.events()
    play.protocol.send_request_n(1, 5)
    play.protocol.send_payload(1, b"", next=False, complete=True)
    play.sent()
    assert play.protocol.streams == 1
    play >> wire(FrameType.PAYLOAD, 1, b"a", N) << PayloadReceived(1, b"a", None, True, False)
    play >> wire(FrameType.PAYLOAD, 1, b"", C) << PayloadReceived(1, b"", None, False, True)
    assert play.protocol.streams == 0


def test_a_channel_whose_only_payload_is_its_request() -> None:
    play = Playbook.server() >> ask(CHANNEL, 1, b"all", C, n=5)
    play << RequestReceived(1, CHANNEL, b"all", None, 5, True)
    play.protocol.send_request_n(1, 5)
    play >> wire(FrameType.PAYLOAD, 1, b"more", N)
    play.quiet()


def test_a_responder_that_wants_no_more_cancels_and_may_go_on_sending() -> None:
    play = Playbook.server() >> ask(CHANNEL, 1, n=5)
    play.events()
    play.protocol.send_cancel(1)
    play << wire(FrameType.CANCEL, 1)
    play >> wire(FrameType.PAYLOAD, 1, b"crossing", N)
    play.protocol.send_payload(1, b"answer", complete=True)
    play << wire(FrameType.PAYLOAD, 1, b"answer", N | C)
    assert play.protocol.streams == 0


def test_a_requester_that_is_told_to_stop_still_receives() -> None:
    play = Playbook.client()
    play.protocol.request(CHANNEL, b"", None, 5)
    play.sent()
    play >> wire(FrameType.REQUEST_N, 1, u32(5)) << RequestNReceived(1, 5)
    play >> wire(FrameType.CANCEL, 1) << CancelReceived(1)
    play.protocol.send_payload(1, b"crossing")
    play.quiet()
    play >> wire(FrameType.PAYLOAD, 1, b"x", N | C) << PayloadReceived(1, b"x", None, True, True)
    assert play.protocol.streams == 0


# ---- fragments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interaction", Interaction, ids=lambda one: one.name)
def test_a_request_in_fragments_is_one_request(interaction: Interaction) -> None:
    play = Playbook.server()
    play.protocol.answer_at_once = lambda stream_id, data, metadata: Payload(b"never called for these")
    play >> ask(interaction, 1, with_metadata(b"me", b""), M | F, n=2)
    play >> wire(FrameType.PAYLOAD, 1, with_metadata(b"ta", b"da"), M | F | N)
    play.quiet()
    assert play.protocol.streams == 1
    play >> wire(FrameType.PAYLOAD, 1, b"ta", N)
    play << RequestReceived(1, interaction, b"data", b"meta", 2 if interaction in (STREAM, CHANNEL) else 0, False)
    assert play.protocol.streams == (0 if interaction is FIRE else 1)


def test_rsocket_cpp_repeats_the_final_flags_on_every_fragment() -> None:
    play = Playbook.server()
    play.protocol.request(RESPONSE, b"getPlugins")
    play.sent()
    play >> wire(FrameType.PAYLOAD, 2, b"one ", N | C | F) + wire(FrameType.PAYLOAD, 2, b"two ", N | C | F)
    play.quiet()
    play >> wire(FrameType.PAYLOAD, 2, b"three", N | C) << PayloadReceived(2, b"one two three", None, True, True)


def test_a_channel_request_in_fragments_completes_with_its_last() -> None:
    play = Playbook.server() >> ask(CHANNEL, 1, b"a", F | C) + wire(FrameType.PAYLOAD, 1, b"b", N | C)
    play << RequestReceived(1, CHANNEL, b"ab", None, 1, True)


def test_credit_that_comes_between_fragments_counts() -> None:
    play = Playbook.server() >> ask(STREAM, 1, b"a", F, n=2) + wire(FrameType.REQUEST_N, 1, u32(3))
    play.quiet()
    play >> wire(FrameType.PAYLOAD, 1, b"b", N) << RequestReceived(1, STREAM, b"ab", None, 5, False)
    assert play.protocol.credit(1) == 5


def test_a_fragmented_payload_uses_one_credit() -> None:
    play = Playbook.client()
    play.protocol.request(STREAM, b"", None, 1)
    play.sent()
    play >> wire(FrameType.PAYLOAD, 1, b"a", N | F) + wire(FrameType.PAYLOAD, 1, b"b", F)
    play >> wire(FrameType.PAYLOAD, 1, b"c", C) << PayloadReceived(1, b"abc", None, True, True)


@pytest.mark.parametrize("frame", [wire(FrameType.CANCEL, 1), wire(FrameType.ERROR, 1, u32(0x201))], ids=["C", "E"])
def test_a_request_may_be_given_up_between_fragments(frame: bytes) -> None:
    play = Playbook.server() >> ask(RESPONSE, 1, b"a", F) + frame + wire(FrameType.PAYLOAD, 1, b"b", N)
    play.quiet()
    assert play.protocol.streams == 0


@pytest.mark.row("A-31")
def test_a_request_that_grows_too_long_is_refused_and_the_connection_lives() -> None:
    play = Playbook.server(TINY) >> ask(RESPONSE, 1, b"x" * 900, F)
    play >> wire(FrameType.PAYLOAD, 1, b"x" * 101, F | N)
    assert refusal(play) == (1, ErrorCode.INVALID)
    play >> wire(FrameType.PAYLOAD, 1, b"x" * 900, F | N) + wire(FrameType.PAYLOAD, 1, b"x", N)
    play >> ask(RESPONSE, 3, b"next") << RequestReceived(3, RESPONSE, b"next", None, 0, False)
    play.quiet()


@pytest.mark.row("A-31")
def test_an_answer_that_grows_too_long_is_cancelled() -> None:
    play = Playbook.client(TINY)
    play.protocol.request(RESPONSE, b"q")
    play.sent()
    play >> wire(FrameType.PAYLOAD, 1, b"x" * 900, F | N) + wire(FrameType.PAYLOAD, 1, b"x" * 900, F | N)
    play << ErrorReceived(1, ErrorCode.INVALID, "the message is longer than 1000 bytes") << wire(FrameType.CANCEL, 1)
    play.quiet()


@pytest.mark.row("A-31")
def test_parallel_fragments_share_one_budget() -> None:
    play = Playbook.server(TINY)
    play >> b"".join(ask(RESPONSE, stream_id, b"x" * 900, F) for stream_id in (1, 3, 5))
    assert refusal(play) == (5, ErrorCode.REJECTED)
    play >> wire(FrameType.CANCEL, 1) + ask(RESPONSE, 7, b"x" * 900, F) + wire(FrameType.PAYLOAD, 7, b"y", N)
    assert len(play.events()) == 1


@pytest.mark.row("A-31")
def test_unfinished_requests_count_as_streams() -> None:
    play = Playbook.server(TINY)
    play >> b"".join(ask(FIRE, stream_id, b"", F) for stream_id in (1, 3, 5, 7))
    assert refusal(play) == (7, ErrorCode.REJECTED)


def test_an_unfinished_payload_that_nobody_wants_any_more_is_dropped() -> None:
    play = Playbook.server(TINY) >> ask(CHANNEL, 1, n=5)
    play.events()
    play.protocol.send_request_n(1, 5)
    play >> wire(FrameType.PAYLOAD, 1, b"x" * 900, N | F)
    play.protocol.send_cancel(1)
    assert play.protocol._reassembler.held == 0
    play >> wire(FrameType.PAYLOAD, 1, b"x" * 900, N | F) + wire(FrameType.PAYLOAD, 1, b"x", N)
    assert play.protocol._reassembler.held == 0
    assert play.events() == []


def test_the_end_drops_everything() -> None:
    play = Playbook.server(TINY) >> ask(RESPONSE, 1) + ask(CHANNEL, 3) + ask(RESPONSE, 5, b"x", F)
    play.events()
    play.protocol.close()
    assert play.protocol.streams == 0
    assert play.protocol._reassembler.held == 0
    assert [Frame(*frame).kind for frame in play.sent()] == [FrameType.ERROR]
