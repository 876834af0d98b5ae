"""What we may send, and two engines that talk to each other without a loop."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsocket_broker.errors import ConnectionClosed, ProtocolViolation, Rejected
from rsocket_broker.flow import parts
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.codes import MAX_31, ErrorCode, FrameType, Interaction
from rsocket_broker.protocol.events import Event, PayloadReceived, RequestReceived, SetupReceived
from rsocket_broker.protocol.frames import Setup
from rsocket_broker.protocol.limits import MAX_FRAME, SECURE, Limits
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.protocol.states import ROWS, STREAM, Input, StreamState
from rsocket_broker.protocol.streams import ENOUGH_AT_ONCE, WORTH_A_COPY
from tests.playbook import C, F, M, N, Playbook, u32, wire, with_metadata

SMALL = Limits(fragment=64)
ASK = Interaction.REQUEST_RESPONSE


@pytest.mark.row("A-37")
@pytest.mark.parametrize("play", [Playbook.server, Playbook.client], ids=["server", "client"])
def test_requests_on_the_wire(play: Callable[[], Playbook]) -> None:
    side = play()
    one = 2 if side.protocol.is_server else 1
    assert side.protocol.request(Interaction.REQUEST_RESPONSE, b"q") == one
    assert side.protocol.request(Interaction.FIRE_AND_FORGET, b"f", b"") == one + 2
    assert side.protocol.request(Interaction.REQUEST_STREAM, b"s", b"m", 7) == one + 4
    assert side.protocol.request(Interaction.REQUEST_CHANNEL, b"c", None, 8, complete=True) == one + 6
    side.protocol.metadata_push(b"note")
    side << wire(FrameType.REQUEST_RESPONSE, one, b"q")
    side << wire(FrameType.REQUEST_FNF, one + 2, with_metadata(b"", b"f"), M)
    side << wire(FrameType.REQUEST_STREAM, one + 4, u32(7) + with_metadata(b"m", b"s"), M)
    side << wire(FrameType.REQUEST_CHANNEL, one + 6, u32(8) + b"c", C)
    side << wire(FrameType.METADATA_PUSH, 0, b"note", M)
    assert side.protocol.streams == 3
    side.quiet()


@pytest.mark.row("A-37")
@pytest.mark.parametrize("play", [Playbook.server, Playbook.client], ids=["server", "client"])
@pytest.mark.parametrize("metadata", [None, b"", b"m", bytearray(b"m"), b"m" * 10_000])
@pytest.mark.parametrize("data", [b"", b"q", bytearray(b"q"), b"q" * 10_000, b"q" * 40_000])
def test_the_short_way_asks_as_the_long_one(
    play: Callable[[], Playbook], metadata: bytes | bytearray | None, data: bytes | bytearray
) -> None:
    quick, slow = play(), play()
    for _ in range(2):
        stream_id = slow.protocol.request(Interaction.REQUEST_RESPONSE, data, metadata)
        assert quick.protocol.ask(data, metadata) == stream_id
    assert quick.protocol.queued == slow.protocol.queued
    assert quick.sent() == slow.sent()
    assert quick.protocol.streams == slow.protocol.streams == 2
    assert quick.protocol.frames_out == slow.protocol.frames_out
    answer = wire(FrameType.PAYLOAD, stream_id, b"a", N | C)
    quick >> answer << PayloadReceived(stream_id, b"a", None, True, True)
    assert quick.protocol.streams == 1


@pytest.mark.parametrize("ask", [Protocol.ask, lambda protocol, data: protocol.request(ASK, data)])
def test_no_way_asks_before_the_connection_is_open_or_after_its_end(ask: Callable[[Protocol, bytes], int]) -> None:
    with pytest.raises(ConnectionClosed):
        ask(Playbook.new_server().protocol, b"")
    play = Playbook.server()
    play.protocol.close()
    with pytest.raises(ConnectionClosed):
        ask(play.protocol, b"")


def test_a_server_asks_nothing_before_it_has_accepted() -> None:
    play = Playbook.new_server()
    assert not play.protocol.is_open
    with pytest.raises(ConnectionClosed):
        play.protocol.request(Interaction.REQUEST_RESPONSE, b"")
    with pytest.raises(ConnectionClosed):
        play.protocol.metadata_push(b"")
    play.quiet()


def test_a_client_may_ask_at_once() -> None:
    play = Playbook.client(joined=False)
    assert play.protocol.is_open
    assert play.protocol.request(Interaction.REQUEST_RESPONSE, b"") == 1


def test_nothing_is_asked_after_the_end() -> None:
    play = Playbook.client()
    play.protocol.close()
    with pytest.raises(ConnectionClosed):
        play.protocol.request(Interaction.REQUEST_RESPONSE, b"")


@pytest.mark.parametrize("side", ["client", "server"])
def test_stream_ids_come_round_and_none_is_used_twice_at_once(side: str) -> None:
    play = Playbook.client() if side == "client" else Playbook.server()
    first = 1 if side == "client" else 2
    last = MAX_31 if side == "client" else MAX_31 - 1
    assert play.protocol.request(Interaction.REQUEST_RESPONSE, b"") == first
    play.protocol._next_id = last
    assert play.protocol.request(Interaction.REQUEST_RESPONSE, b"") == last
    assert play.protocol.request(Interaction.REQUEST_RESPONSE, b"") == first + 2
    play.protocol._next_id = last
    assert play.protocol.request(Interaction.FIRE_AND_FORGET, b"") == first + 4
    play.protocol.send_cancel(first)
    play.protocol._next_id = last
    assert play.protocol.request(Interaction.FIRE_AND_FORGET, b"") == first


@pytest.mark.parametrize("n", [0, -1, MAX_31 + 1])
def test_a_request_for_nothing_is_not_sent(n: int) -> None:
    play = Playbook.client()
    with pytest.raises(ValueError, match="payloads"):
        play.protocol.request(Interaction.REQUEST_STREAM, b"", None, n)
    play.quiet()
    stream_id = play.protocol.request(Interaction.REQUEST_STREAM, b"", None, 1)
    if n <= 0:
        with pytest.raises(ValueError, match="at least 1"):
            play.protocol.send_request_n(stream_id, n)


def test_what_cannot_be_fragmented_must_fit() -> None:
    play = Playbook.client(SMALL)
    with pytest.raises(Rejected, match="58"):
        play.protocol.metadata_push(bytes(59))
    with pytest.raises(ValueError, match="setup"):
        Protocol.client(Setup(data=bytes(2**24)), SECURE, 0.0)


def test_an_error_text_is_cut_to_the_limit() -> None:
    play = Playbook.server(Limits(error_text=10)) >> wire(FrameType.REQUEST_RESPONSE, 1)
    play.events()
    play.protocol.send_error(1, ErrorCode.APPLICATION_ERROR, "0123456789 and more")
    play << wire(FrameType.ERROR, 1, u32(0x201) + b"0123456789")


SENT = [given for given in Input if given >= Input.SENT_NEXT]


@pytest.mark.parametrize("state", STREAM, ids=lambda state: state.name)
@pytest.mark.parametrize("given_input", SENT, ids=lambda given: given.name)
def test_what_the_table_does_not_allow_us_to_send_raises(state: StreamState, given_input: Input) -> None:
    play = Playbook.server()
    protocol = play.protocol
    protocol._states[1] = state
    protocol._credit[1] = protocol._granted[1] = 5
    send: dict[Input, Callable[[], None]] = {
        Input.SENT_NEXT: lambda: protocol.send_payload(1, b""),
        Input.SENT_COMPLETE: lambda: protocol.send_payload(1, b"", next=False, complete=True),
        Input.SENT_LAST: lambda: protocol.send_payload(1, b"", complete=True),
        Input.SENT_REQUEST_N: lambda: protocol.send_request_n(1, 1),
        Input.SENT_CANCEL: lambda: protocol.send_cancel(1),
        Input.SENT_ERROR: lambda: protocol.send_error(1, 0x201, ""),
    }
    row = ROWS[state][given_input]
    if row is None:
        with pytest.raises(ProtocolViolation, match=state.name):
            send[given_input]()
        play.quiet()
        return
    send[given_input]()
    effect, after = row
    assert protocol._states.get(1, StreamState.CLOSED) is after
    assert len(play.sent()) == bool(effect)


def test_a_payload_says_something() -> None:
    play = Playbook.server() >> wire(FrameType.REQUEST_STREAM, 1, u32(1))
    with pytest.raises(ProtocolViolation):
        play.protocol.send_payload(1, b"", next=False)


class Pair:
    """A client and a server joined back to back, the bytes between them cut as the test says."""

    def __init__(self, limits: Limits, step: int) -> None:
        self.client = Protocol.client(Setup(), limits, 0.0)
        self.server = Protocol.server(limits, 0.0)
        self.step = step
        (setup,) = self.move(self.client, self.server)
        assert isinstance(setup, SetupReceived)
        self.server.accept_setup(0.0)

    def move(self, sender: Protocol, receiver: Protocol) -> list[Event]:
        data = b"".join(sender.data_to_send())
        events: list[Event] = []
        for at in range(0, len(data), self.step):
            events += receiver.receive_data(data[at : at + self.step], 0.0)
        return events


payloads = st.tuples(st.binary(max_size=300), st.none() | st.binary(max_size=200))


@pytest.mark.row("A-37")
@settings(max_examples=60)
@given(
    questions=st.lists(st.tuples(st.sampled_from(Interaction), payloads), min_size=1, max_size=5),
    fragment=st.integers(64, 150),
    step=st.integers(1, 200),
    by_server=st.booleans(),
)
def test_every_request_arrives_as_it_was_sent(
    questions: list[tuple[Interaction, tuple[bytes, bytes | None]]], fragment: int, step: int, by_server: bool
) -> None:
    pair = Pair(Limits(fragment=fragment), step)
    asks, answers = (pair.server, pair.client) if by_server else (pair.client, pair.server)
    for interaction, (data, metadata) in questions:
        asks.request(interaction, data, metadata, 3)
    arrived = [event for event in pair.move(asks, answers) if isinstance(event, RequestReceived)]
    assert [(event.interaction, (event.data, event.metadata)) for event in arrived] == questions


@pytest.mark.row("A-37")
@settings(max_examples=60)
@given(answers=st.lists(payloads, max_size=6), fragment=st.integers(64, 150), step=st.integers(1, 200))
def test_every_answer_arrives_as_it_was_sent(
    answers: list[tuple[bytes, bytes | None]], fragment: int, step: int
) -> None:
    pair = Pair(Limits(fragment=fragment), step)
    stream_id = pair.client.request(Interaction.REQUEST_STREAM, b"", None, 10)
    pair.move(pair.client, pair.server)
    for data, metadata in answers:
        pair.server.send_payload(stream_id, data, metadata)
    pair.server.send_payload(stream_id, b"", next=False, complete=True)
    arrived = [event for event in pair.move(pair.server, pair.client) if isinstance(event, PayloadReceived)]
    assert [(event.data, event.metadata) for event in arrived[:-1]] == answers
    assert arrived[-1] == PayloadReceived(stream_id, b"", None, False, True)
    assert pair.client.streams == pair.server.streams == 0


KINDS = [kind for kind in FrameType if kind not in {FrameType.SETUP, FrameType.RESUME}]
heard = st.builds(
    lambda kind, stream_id, body, flags: ("heard", wire(kind, stream_id, body, flags)),
    st.sampled_from(KINDS),
    st.integers(0, 6),
    st.sampled_from([u32(2) + b"x", u32(0), u32(3), b"", u32(0x101), bytes(8)]),
    st.sampled_from([0, N, C, N | C, N | F, N | C | F, F, C | F]),
)
said = st.tuples(st.sampled_from(["payload", "last", "complete", "error", "request_n", "cancel"]), st.integers(1, 6))
asked = st.tuples(st.just("ask"), st.sampled_from(Interaction))


def act(protocol: Protocol, what: str, value: Any) -> None:
    match what:
        case "heard":
            protocol.receive_data(value, 0.0)
        case "ask":
            protocol.request(value, b"q", None, 2)
        case "payload":
            protocol.send_payload(value, b"p")
        case "last":
            protocol.send_payload(value, b"p", complete=True)
        case "complete":
            protocol.send_payload(value, b"", next=False, complete=True)
        case "error":
            protocol.send_error(value, 0x201, "no")
        case "request_n":
            protocol.send_request_n(value, 1)
        case "cancel":
            protocol.send_cancel(value)


@pytest.mark.parametrize("play", [Playbook.server, Playbook.client], ids=["server", "client"])
@settings(max_examples=300)
@given(steps=st.lists(heard | said | asked, max_size=30))
def test_whatever_happens_the_books_agree(play: Callable[[], Playbook], steps: list[tuple[str, Any]]) -> None:
    """No state, credit or fragment is kept for a stream that has ended, and the counts are those of the streams."""
    protocol = play().protocol
    for what, value in steps:
        with contextlib.suppress(ProtocolViolation, ConnectionClosed):
            act(protocol, what, value)
        open_streams = set(protocol._states)
        assert set(protocol._credit) <= open_streams
        assert set(protocol._granted) <= open_streams
        assert set(protocol._requests) <= open_streams
        assert set(protocol._reassembler.unfinished) <= open_streams
        assert protocol._own_streams == sum(1 for one in open_streams if one % 2 != protocol.is_server)
        assert all(credit >= 0 for credit in (*protocol._credit.values(), *protocol._granted.values()))
        with_credit = {one for one, state in protocol._states.items() if "RESPONSE" not in state.name}
        assert set(protocol._credit) <= with_credit
    for stream_id in tuple(protocol._states):
        protocol._give_up(stream_id, ErrorCode.CANCELED, "end of test")
    assert not (protocol._states or protocol._credit or protocol._granted or protocol._requests)
    assert protocol._reassembler.held == protocol._own_streams == 0


# ---- payloads in one go ----------------------------------------------------------------------------------------------


def streaming(n: int, limits: Limits = SECURE) -> Playbook:
    play = Playbook.server(limits) >> wire(FrameType.REQUEST_STREAM, 1, n.to_bytes(4, "big"))
    play.events()
    return play


items = st.one_of(
    st.binary(max_size=100),
    st.builds(Payload, st.none() | st.binary(max_size=100) | st.just(bytes(WORTH_A_COPY)), st.none() | st.just(b"m")),
    st.builds(Payload, st.builds(bytearray, st.binary(max_size=9)), st.none()),
)


@given(st.lists(items, max_size=12), st.integers(1, 15), st.integers(1, 15), st.sampled_from([MAX_FRAME, 64]))
def test_items_leave_as_they_would_one_by_one(
    given: list[Payload | bytes], credit: int, most: int, fragment: int
) -> None:
    limits = Limits(fragment=fragment)
    at_once, each = streaming(credit, limits), streaming(credit, limits)
    source, ended = iter(given), False
    while at_once.protocol.credit(1) and not ended:
        ended, left = at_once.protocol.send_items(1, source, most)
        if left is not None:
            at_once.protocol.send_payload(1, *parts(left))
    for item in given[:credit]:
        each.protocol.send_payload(1, *parts(item))
    assert at_once.protocol.queued == each.protocol.queued
    assert at_once.sent() == each.sent()
    assert at_once.protocol.credit(1) == each.protocol.credit(1)
    assert at_once.protocol.frames_out == each.protocol.frames_out
    assert list(source) == given[credit:], "nothing is taken out that cannot be sent"
    assert ended or len(given) >= credit


def test_items_stop_when_much_is_queued() -> None:
    play = streaming(MAX_31)
    given = iter([bytes(8000)] * 1000)
    assert play.protocol.send_items(1, given, 1000) == (False, None)
    assert ENOUGH_AT_ONCE < play.protocol.queued < ENOUGH_AT_ONCE + 9000


def test_what_was_given_before_an_error_has_been_sent() -> None:
    def failing() -> Iterator[bytes]:
        yield b"1"
        raise ZeroDivisionError

    play = streaming(5)
    with pytest.raises(ZeroDivisionError):
        play.protocol.send_items(1, failing(), 5)
    play << wire(FrameType.PAYLOAD, 1, b"1", N)
    assert play.protocol.credit(1) == 4


@pytest.mark.parametrize("how", ["stream", "connection"])
def test_a_source_that_ends_its_own_stream_sends_nothing_behind_the_end(how: str) -> None:
    play = streaming(5)

    def ending() -> Iterator[bytes]:
        yield b"1"
        if how == "stream":
            play.protocol.send_error(1, ErrorCode.APPLICATION_ERROR, "enough")
        else:
            play.protocol.close("enough")
        yield b"2"

    play.protocol.send_items(1, ending(), 5)
    assert [frame.kind for frame in play.sent()] == [FrameType.ERROR]
    assert play.protocol.send_items(1, iter([b"3"]), 5) == (False, None)


@pytest.mark.parametrize("request_", [wire(FrameType.REQUEST_RESPONSE, 1), b""])
def test_no_items_go_where_there_is_no_stream(request_: bytes) -> None:
    play = Playbook.server() >> request_
    play.events()
    given = iter([b"1"])
    assert play.protocol.send_items(1, given, 5) == (False, None)
    assert next(given) == b"1"
    play.quiet()


@pytest.mark.row("A-21", "D-3")
@pytest.mark.parametrize("play", [Playbook.server, Playbook.client], ids=["server", "client"])
def test_every_open_stream_ends_with_a_word_of_its_own(play: Callable[[], Playbook]) -> None:
    side = play()
    ours, theirs = (2, 1) if side.protocol.is_server else (1, 2)
    for number, kind in enumerate((ASK, Interaction.REQUEST_STREAM, Interaction.REQUEST_CHANNEL)):
        side.protocol.request(kind, b"", None, 1)
        side >> wire(kind, theirs + 2 * number, b"" if kind is ASK else u32(1))
    side >> wire(Interaction.REQUEST_RESPONSE, theirs + 6, b"half", F)
    side.sent(), side.events()
    side.protocol.end_streams(ErrorCode.CANCELED, "withdrawn")
    said = {frame.stream_id: frame for frame in side.sent()}
    errors = {theirs, theirs + 2, theirs + 4, theirs + 6, ours + 4}
    assert said.keys() == errors | {ours, ours + 2}, "a requester of an answer or a stream can only cancel"
    for stream_id, frame in said.items():
        if stream_id in errors:
            assert (frame.error_code, frame.body[4:]) == (ErrorCode.CANCELED, b"withdrawn")
        else:
            assert (frame.kind, frame.body) == (FrameType.CANCEL, b"")
    assert side.protocol.streams == 0
    side.quiet()


def test_ending_a_stream_says_what_its_state_allows() -> None:
    for state in STREAM:
        given = Input.SENT_CANCEL if ROWS[state][Input.SENT_ERROR] is None else Input.SENT_ERROR
        assert ROWS[state][given] is not None, state
