"""Frames as readable lines: what they tell, and what they never do."""

from hypothesis import example, given
from hypothesis import strategies as st

from rsocket_broker.protocol import frames
from rsocket_broker.protocol.codes import FrameType
from rsocket_broker.protocol.frames import joined
from rsocket_broker.protocol.metadata import (
    AUTHENTICATION,
    COMPOSITE,
    ROUTING,
    build_tags,
    route,
)
from rsocket_broker.protocol.trace import UNFINISHED, FrameTrace
from rsocket_broker.protocol.trace_words import KEPT
from tests.protocol.test_trace_words import SECRET, composite, frame, opened, request


def test_a_resumed_connection_is_told_its_type() -> None:
    trace = FrameTrace()
    trace.resumed(COMPOSITE)
    assert trace.received(request(route("a.b")))[0].endswith('route="a.b"')


def test_what_goes_on_over_another_line_may_be_a_piece_from_the_middle() -> None:
    """What began on the line that was lost: half of a token must not pass for a route."""
    trace = FrameTrace()
    trace.resumed(COMPOSITE)
    for take in (trace.received, trace.sent):
        (line,) = take(frame(FrameType.PAYLOAD, 1, joined(route("half of a token"), b""), 0x1A0))
        assert "token" not in line


def test_a_piece_from_the_middle_of_a_message_is_not_taken_for_its_beginning() -> None:
    trace = opened()
    assert (
        'route="a.b"'
        in trace.received(frame(FrameType.REQUEST_STREAM, 1, b"\0\0\0\1" + joined(route("a.b"), b""), 0x180))[0]
    )
    for flags in (0x180, 0x100):
        (line,) = trace.received(frame(FrameType.PAYLOAD, 1, joined(route("x.y"), b""), flags))
        assert "route" not in line
    assert "route" in trace.received(frame(FrameType.PAYLOAD, 1, joined(route("x.y"), b""), 0x120))[0]


def test_messages_in_pieces_without_number_cost_no_memory_and_tell_nothing() -> None:
    trace = opened()
    for number in range(UNFINISHED + 2):
        trace.received(frame(FrameType.REQUEST_FNF, 2 * number + 1, b"", 0x80))
    assert len(trace._in._unfinished) == UNFINISHED
    (line,) = trace.received(frame(FrameType.PAYLOAD, 2 * UNFINISHED + 3, joined(route("x.y"), b""), 0x120))
    assert "route" not in line


def test_a_huge_frame_is_not_kept() -> None:
    trace = opened()
    assert trace.received(frame(FrameType.REQUEST_FNF, 1, bytes(1 << 20))[: 1 << 19]) == []
    assert len(trace._in._kept) == KEPT
    (line,) = trace.received(bytes((1 << 19) + 9))
    assert line.startswith("REQUEST_FNF stream=1 flags=- size=1048582 data=1048576")
    long = composite((ROUTING, build_tags(["a.b"])), ("text/plain", bytes(KEPT)))
    (line,) = opened().received(request(long))
    assert line.endswith(f"metadata={len(long)} data=5")


def test_directions_are_cut_apart() -> None:
    trace, sent = opened(), frames.cancel(1)
    assert trace.received(sent[:4]) == trace.sent(sent[:5]) == []
    assert trace.received(sent[4:]) == trace.sent(sent[5:]) == ["CANCEL stream=1 flags=- size=6"]


KINDS = st.integers(0, 63)
FRAMES = st.builds(
    lambda kind, stream_id, flags, body: frame(kind, stream_id, body, flags),
    KINDS,
    st.integers(0, 9),
    st.sampled_from([0, 0x100, 0x180, 0x1E0, 0x20, 0x3FF]),
    st.binary(max_size=60) | st.builds(lambda body: route("a.b") + body, st.binary(max_size=30)),
)


@given(st.binary(max_size=300) | st.lists(FRAMES, max_size=10).map(b"".join))
@example(b"\x00\x00\x00" * 3)
def test_any_bytes_make_lines_of_visible_ascii_whole_and_one_by_one(data: bytes) -> None:
    whole, slow = opened(), opened()
    lines = whole.received(memoryview(data))
    assert lines == [line for at in range(len(data)) for line in slow.received(data[at : at + 1])]
    assert all(line.isascii() and line.isprintable() for line in lines)


@given(
    st.lists(st.tuples(KINDS, st.sampled_from([0, 0x100, 0x120, 0x80, 0xC0, 0x1C0]), st.integers(0, 30)), max_size=12)
)
def test_a_secret_in_data_tokens_or_credentials_is_never_told(shapes: list[tuple[int, int, int]]) -> None:
    """Whatever stands in front of it, as long as the frame is not one whose very purpose is to name a route."""
    trace = opened()
    for kind, flags, lead in shapes:
        if kind == FrameType.ERROR:
            continue  # an engine's farewell is told: see above
        body = composite((AUTHENTICATION, b"\x80" + SECRET), ("text/plain", SECRET))
        for line in trace.received(frame(kind, 1, bytes(lead) + joined(body, SECRET), flags)):
            assert "hunter2-hunter2" not in line
