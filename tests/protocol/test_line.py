"""The connection as a whole: SETUP rules, frames cut anywhere, keepalive, errors on stream 0, deadlines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.protocol.codes import CONNECTION_CLOSE, MAX_31, ErrorCode, FrameType, Interaction
from rsocket_broker.protocol.events import (
    ConnectionEnded,
    ErrorReceived,
    Event,
    MetadataPushReceived,
    PayloadReceived,
    RequestReceived,
    SetupAccepted,
    SetupReceived,
)
from rsocket_broker.protocol.frames import Setup
from rsocket_broker.protocol.limits import MAX_FRAME, Limits
from rsocket_broker.protocol.line import HELD_BEHIND_SETUP
from rsocket_broker.protocol.protocol import Protocol
from tests.playbook import (
    IGNORE,
    KEEPALIVE_RESPOND,
    SETUP_BODY,
    SETUP_RESUME,
    C,
    M,
    N,
    Playbook,
    u32,
    wire,
)

SETUP = wire(FrameType.SETUP, 0, SETUP_BODY + b"{}")
RECEIVED = SetupReceived(10_000, MAX_31, "text/plain", "text/plain", b"{}", None)
ASK = wire(FrameType.REQUEST_RESPONSE, 1, b"hello")
ASKED = RequestReceived(1, Interaction.REQUEST_RESPONSE, b"hello", None, 0, False)
TINY = Limits(frame=1000, message=1000, reassembly=2000)


def error(stream_id: int, code: int, text: bytes = b"") -> bytes:
    return wire(FrameType.ERROR, stream_id, u32(code) + text)


# ---- establishing ----------------------------------------------------------------------------------------------


@pytest.mark.row("A-35")
@pytest.mark.parametrize("kind", [kind for kind in range(64) if kind not in (FrameType.SETUP, FrameType.RESUME)])
@pytest.mark.parametrize("flags", [0, IGNORE], ids=["plain", "ignorable"])
def test_anything_before_setup_is_refused_and_nothing_after_it_is_read(kind: int, flags: int) -> None:
    play = Playbook.new_server()
    play >> wire(kind, 1, bytes(8), flags) + SETUP + ASK
    play.ends_with(ErrorCode.INVALID_SETUP, "SETUP")
    play >> SETUP + ASK
    assert [type(event) for event in play.events()] == [ConnectionEnded]
    play.quiet()


@pytest.mark.row("A-35")
@pytest.mark.parametrize("kind", [FrameType.SETUP, FrameType.RESUME])
@pytest.mark.parametrize("stream_id", [1, 2, 1 << 31])
def test_setup_and_resume_belong_on_stream_0(kind: FrameType, stream_id: int) -> None:
    play = Playbook.new_server() >> wire(kind, stream_id, SETUP_BODY)
    play.ends_with(ErrorCode.INVALID_SETUP, "stream 0")


@pytest.mark.row("A-36")
@pytest.mark.parametrize(
    ("body", "flags", "code"),
    [
        (SETUP_BODY[:9], 0, ErrorCode.INVALID_SETUP),
        (b"\x00\x02" + SETUP_BODY[2:], 0, ErrorCode.UNSUPPORTED_SETUP),
        (SETUP_BODY, SETUP_RESUME, ErrorCode.REJECTED_SETUP),
    ],
    ids=["malformed", "version 2", "resume"],
)
def test_a_setup_that_cannot_be_served_ends_it_and_nothing_after_it_is_read(
    body: bytes, flags: int, code: ErrorCode
) -> None:
    play = Playbook.new_server() >> wire(FrameType.SETUP, 0, body, flags) + ASK
    play.ends_with(code)
    assert [type(event) for event in play.events()] == [ConnectionEnded]
    assert play.protocol.accept_setup(play.now) == []


def test_a_minor_version_of_the_future_is_served() -> None:
    play = Playbook.new_server() >> wire(FrameType.SETUP, 0, SETUP_BODY[:3] + b"\x07" + SETUP_BODY[4:])
    assert isinstance(play.events()[0], SetupReceived)


def test_resume_is_rejected_with_its_own_code_where_it_is_not_offered() -> None:
    play = Playbook.new_server() >> wire(FrameType.RESUME, 0, bytes(24)) + ASK
    play.ends_with(ErrorCode.REJECTED_RESUME)


def test_resume_after_setup_is_a_connection_error() -> None:
    play = Playbook.server() >> wire(FrameType.RESUME, 0, bytes(24)) + ASK
    play.ends_with(ErrorCode.CONNECTION_ERROR, "RESUME")


@pytest.mark.row("A-36")
def test_what_stands_behind_a_setup_waits_for_the_decision() -> None:
    play = Playbook.new_server() >> SETUP + ASK
    play << RECEIVED
    play >> wire(FrameType.CANCEL, 1)
    play.quiet()
    play.take(play.protocol.accept_setup(play.now))
    assert play.events()[0] == ASKED


@pytest.mark.row("A-36")
def test_nothing_behind_a_refused_setup_is_ever_read() -> None:
    play = Playbook.new_server() >> SETUP + ASK
    play << RECEIVED
    play.protocol.refuse_setup(ErrorCode.REJECTED_SETUP, "the field app_id")
    play.ends_with(ErrorCode.REJECTED_SETUP, "the field app_id")
    play >> ASK + ASK
    assert play.protocol.accept_setup(play.now) == []
    play.protocol.refuse_setup(ErrorCode.REJECTED_SETUP, "twice")
    assert play.sent() == []


@pytest.mark.row("A-31")
def test_what_waits_behind_a_setup_is_bounded() -> None:
    play = Playbook.new_server(TINY) >> SETUP
    play << RECEIVED
    for _ in range(HELD_BEHIND_SETUP // 65_536 + 1):
        play >> bytes(65_536)
    play.ends_with(ErrorCode.REJECTED_SETUP, "too much")


def test_a_second_setup_is_ignored() -> None:
    play = Playbook.server() >> SETUP + wire(FrameType.SETUP, 0, b"rubbish") + ASK
    play << ASKED
    play.quiet()


def test_a_client_ignores_a_setup_a_resume_and_what_it_has_not_asked_for() -> None:
    play = Playbook.client()
    for kind in (FrameType.SETUP, FrameType.LEASE, FrameType.RESUME, FrameType.RESUME_OK):
        play >> wire(kind, 0, bytes(30))
    play.quiet()


@pytest.mark.row("A-32")
def test_a_setup_has_a_deadline() -> None:
    play = Playbook.new_server().tick(9.9)
    play >> SETUP[:-1]
    play.quiet()
    play.tick(0.2)
    play.ends_with(ErrorCode.INVALID_SETUP, "in time")


@pytest.mark.row("A-32")
def test_the_decision_about_a_setup_has_one_too() -> None:
    play = Playbook.new_server().tick(9)
    play >> SETUP
    play << RECEIVED
    play.tick(9.9)
    play.quiet()
    play.tick(0.2)
    play.ends_with(ErrorCode.REJECTED_SETUP, "not decided")


@pytest.mark.parametrize(
    ("data", "event"),
    [
        (wire(FrameType.KEEPALIVE, 0, bytes(8)), None),
        (wire(FrameType.LEASE, 0, bytes(8)), None),
        (wire(FrameType.REQUEST_FNF, 2, b"x"), RequestReceived(2, Interaction.FIRE_AND_FORGET, b"x", None, 0, False)),
        (wire(FrameType.PAYLOAD, 1, b"x", N | C), PayloadReceived(1, b"x", None, True, True)),
        (error(1, 0x201, b"no"), ErrorReceived(1, 0x201, "no")),
    ],
    ids=["keepalive", "lease", "request", "payload", "error"],
)
def test_a_client_knows_that_it_was_accepted_by_the_first_frame_that_says_so(data: bytes, event: Event | None) -> None:
    play = Playbook.client(joined=False)
    play.protocol.request(Interaction.REQUEST_RESPONSE, b"q")
    play.sent()
    play >> wire(FrameType.RESUME_OK, 0, bytes(8))
    play.quiet()
    play >> data << SetupAccepted()
    if event is not None:
        play << event
    play >> wire(FrameType.KEEPALIVE, 0, bytes(8))
    play.quiet()


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_a_client_learns_that_it_was_refused(code: int) -> None:
    play = Playbook.client(joined=False) >> error(0, code, b"not you")
    play << ConnectionEnded(code, "not you", by_peer=True)
    assert play.protocol.closed


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_setup_errors_are_ignored_where_they_make_no_sense(code: int) -> None:
    for play in (Playbook.client(), Playbook.server()):
        play >> error(0, code)
        play.quiet()
        assert not play.protocol.closed


# ---- frames ----------------------------------------------------------------------------------------------------


@pytest.mark.row("A-31")
@pytest.mark.parametrize("length", [0, 5, 1001, MAX_FRAME])
def test_a_frame_of_an_impossible_length_ends_it_as_soon_as_the_length_is_known(length: int) -> None:
    play = Playbook.server(TINY) >> length.to_bytes(3, "big")
    play.ends_with(ErrorCode.CONNECTION_ERROR, str(length))
    early = Playbook.new_server(TINY) >> length.to_bytes(3, "big")
    early.ends_with(ErrorCode.INVALID_SETUP, str(length))


@pytest.mark.row("A-31")
def test_the_first_frame_is_held_to_a_limit_of_its_own() -> None:
    """Of sixteen megabytes nobody waits for the rest, where a few hundred bytes say who comes."""
    server = Protocol.server(Limits(first=100), now=0.0)
    (end,) = server.receive_data((101).to_bytes(3, "big"), 0.0)
    assert isinstance(end, ConnectionEnded)
    assert "6 to 100 are allowed" in end.text
    server = Protocol.server(Limits(first=100), now=0.0)
    server.receive_data(SETUP, 0.0)
    server.accept_setup(0.0)
    assert server.receive_data((101).to_bytes(3, "big"), 0.0) == []  # later ones may be long


def test_a_frame_as_long_as_the_limit_is_read() -> None:
    play = Playbook.server(TINY) >> wire(FrameType.REQUEST_RESPONSE, 1, b"x" * 994)
    assert len(play.events()[0].data) == 994  # type: ignore[union-attr]
    play >> wire(FrameType.REQUEST_RESPONSE, 3, b"x" * 995)
    play.ends_with(ErrorCode.CONNECTION_ERROR, "1001")


@pytest.mark.parametrize("kind", [0x00, 0x0F, 0x20, FrameType.EXT])
def test_unknown_frames_are_ignored_if_they_allow_it_and_else_end_the_connection(kind: int) -> None:
    play = Playbook.server() >> wire(kind, 0, b"whatever", IGNORE) + wire(kind, 9, b"", IGNORE)
    play.quiet()
    play >> wire(kind, 0, b"whatever") + ASK
    play.ends_with(ErrorCode.CONNECTION_ERROR, "not understood")
    assert [type(event) for event in play.events()] == [ConnectionEnded]


@pytest.mark.parametrize("kind", [FrameType.LEASE, FrameType.RESUME_OK])
def test_frames_of_features_that_are_off_are_ignored(kind: FrameType) -> None:
    play = Playbook.server() >> wire(kind, 0, bytes(8))
    play.quiet()


def any_trace() -> st.SearchStrategy[bytes]:
    frame = st.builds(
        wire, st.integers(0, 63), st.sampled_from([0, 1, 2, 3, 5]), st.binary(max_size=12), st.integers(0, 0x3FF)
    )
    honest = st.sampled_from(
        [
            ASK,
            wire(FrameType.REQUEST_STREAM, 3, u32(2) + b"s"),
            wire(FrameType.REQUEST_CHANNEL, 5, u32(2) + b"c"),
            wire(FrameType.PAYLOAD, 5, b"p", N),
            wire(FrameType.PAYLOAD, 5, b"p", N | C | 0x80),
            wire(FrameType.REQUEST_N, 3, u32(4)),
            wire(FrameType.CANCEL, 3),
            wire(FrameType.KEEPALIVE, 0, bytes(8) + b"k", KEEPALIVE_RESPOND),
        ]
    )
    return st.lists(frame | honest | st.binary(max_size=6), max_size=8).map(b"".join)


def trace(data: bytes, step: int) -> tuple[list[Event], bytes]:
    """All events and bytes that a server gives for SETUP and `data`, fed in pieces of `step` bytes."""
    protocol = Protocol.server(TINY, 0.0)
    events: list[Event] = []
    for at in range(0, len(SETUP + data), step):
        given = protocol.receive_data((SETUP + data)[at : at + step], 0.0)
        while any(isinstance(event, SetupReceived) for event in given):
            events.extend(given)
            given = protocol.accept_setup(0.0)
        events.extend(given)
    return events, b"".join(protocol.data_to_send())


@given(data=any_trace(), step=st.integers(1, 40))
def test_bytes_mean_the_same_however_they_are_cut(data: bytes, step: int) -> None:
    assert trace(data, 1) == trace(data, len(SETUP + data)) == trace(data, step)


@given(data=st.binary(max_size=400))
def test_any_bytes_are_events_or_a_protocol_error(data: bytes) -> None:
    play = Playbook.new_server(TINY) >> data
    for event in play.events():
        assert isinstance(event, SetupReceived | ConnectionEnded)
    if play.protocol.closed:
        assert play.protocol.ended is not None


def test_a_memoryview_is_not_used_after_the_call() -> None:
    play = Playbook.server()
    data = bytearray(ASK + ASK[:5])
    play >> memoryview(data)  # type: ignore[operator]
    data[:] = bytes(len(data))
    play << ASKED
    play >> ASK.replace(b"\x00\x00\x00\x01", b"\x00\x00\x00\x03")[5:]
    assert not play.protocol.closed


# ---- keepalive -------------------------------------------------------------------------------------------------


@given(st.binary(max_size=100))
def test_a_keepalive_that_asks_is_answered_with_its_data_and_no_question(data: bytes) -> None:
    for play in (Playbook.server(), Playbook.client()):
        play >> wire(FrameType.KEEPALIVE, 0, (77).to_bytes(8, "big") + data, KEEPALIVE_RESPOND)
        play << wire(FrameType.KEEPALIVE, 0, bytes(8) + data)
        play >> wire(FrameType.KEEPALIVE, 0, bytes(8) + data)
        play.quiet()


def test_a_keepalive_on_a_stream_is_ignored_and_a_short_one_is_an_error() -> None:
    play = Playbook.server() >> wire(FrameType.KEEPALIVE, 1, bytes(8), KEEPALIVE_RESPOND)
    play.quiet()
    play >> wire(FrameType.KEEPALIVE, 0, bytes(7), KEEPALIVE_RESPOND)
    play.ends_with(ErrorCode.CONNECTION_ERROR, "KEEPALIVE")


@pytest.mark.row("A-40")
def test_a_server_never_asks_for_a_keepalive_and_drops_a_silent_client_after_30_seconds() -> None:
    play = Playbook.server().tick(29.9)
    play.quiet()
    play.tick(0.2)
    play.ends_with(ErrorCode.CONNECTION_ERROR, "30 s")
    assert play.protocol.next_timer() is None


@pytest.mark.row("A-40")
def test_any_byte_ends_the_silence() -> None:
    play = Playbook.server().tick(29)
    play >> b"\x00"
    play.tick(29)
    play.protocol.heard(play.now)
    play.tick(29.9)
    play.quiet()
    assert play.protocol.next_timer() is not None
    play.tick(0.2)
    play.ends_with(ErrorCode.CONNECTION_ERROR)


@pytest.mark.row("A-40")
def test_the_declared_lifetime_counts_when_it_is_shorter() -> None:
    body = SETUP_BODY[:8] + u32(5_000) + SETUP_BODY[12:]
    play = Playbook.new_server() >> wire(FrameType.SETUP, 0, body)
    play.take(play.protocol.accept_setup(play.now))
    play.events()
    play.tick(4.9)
    play.quiet()
    play.tick(0.2)
    play.ends_with(ErrorCode.CONNECTION_ERROR, "5 s")


def test_a_client_asks_at_its_interval_and_gives_up_after_the_lifetime() -> None:
    play = Playbook.client(setup=Setup(keepalive_ms=10_000, lifetime_ms=25_000))
    play.tick(10) << wire(FrameType.KEEPALIVE, 0, bytes(8), KEEPALIVE_RESPOND)
    play >> wire(FrameType.KEEPALIVE, 0, bytes(8))
    play.tick(24.9)
    assert [frame.kind for frame in play.sent()] == [FrameType.KEEPALIVE] * 2
    play.tick(30)
    play.ends_with(ErrorCode.CONNECTION_ERROR, "does not answer")
    assert play.now < 100 + 10 + 10 + 25 + 30


def test_a_server_has_no_keepalive_to_send() -> None:
    play = Playbook.server()
    play.protocol.send_keepalive(play.now)
    play.quiet()


# ---- the end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 0x101, 0x102, 0x201, 0xFFFFFFFF])
def test_an_error_on_stream_0_is_the_end(code: int) -> None:
    play = Playbook.server() >> error(0, code, b"bye") + ASK
    play << ConnectionEnded(code, "bye", by_peer=True)
    play.quiet()
    assert play.protocol.closed


def test_a_peer_that_closes_politely_gets_the_answers_it_waits_for_and_no_new_ones() -> None:
    play = Playbook.server() >> ASK + error(0, CONNECTION_CLOSE) + wire(FrameType.REQUEST_RESPONSE, 3, b"late")
    play << ASKED
    assert (play.protocol.is_open, play.protocol.has_left) == (False, False)
    (refusal,) = play.sent()
    assert (refusal.stream_id, refusal.error_code) == (3, ErrorCode.REJECTED)
    play.protocol.send_payload(1, b"answer", complete=True)
    play << wire(FrameType.PAYLOAD, 1, b"answer", N | C)
    assert play.protocol.has_left
    play.take(play.protocol.handle_timer(play.now))
    play << ConnectionEnded(CONNECTION_CLOSE, "the peer closed the connection", by_peer=True)
    play.quiet()


def test_the_end_of_bytes_is_the_end() -> None:
    play = Playbook.server()
    play >> ASK[:4]
    play.take(play.protocol.receive_eof(play.now))
    play << ConnectionEnded(None, "the peer closed the connection", by_peer=True)
    assert play.protocol.receive_eof(play.now) == []
    play.quiet()


def test_our_goodbye_promises_only_what_we_keep() -> None:
    play = Playbook.server()
    play.protocol.close("bye")
    play.ends_with(CONNECTION_CLOSE, "bye")
    busy = Playbook.server() >> ASK
    busy.protocol.close("bye")
    busy.ends_with(ErrorCode.CONNECTION_ERROR, "bye")
    busy.protocol.close("again")
    assert busy.sent() == []


def test_a_metadata_push_belongs_on_stream_0() -> None:
    play = Playbook.server() >> wire(FrameType.METADATA_PUSH, 0, b"note", M) << MetadataPushReceived(b"note")
    play >> wire(FrameType.METADATA_PUSH, 1, b"note", M)
    play.quiet()
