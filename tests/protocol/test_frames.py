"""Each frame goes out and comes back the same, and reads the same to another implementation."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rsocket import frame as theirs

from rsocket_broker.errors import ProtocolViolation
from rsocket_broker.protocol import frames
from rsocket_broker.protocol.codes import MAX_31, ErrorCode, FrameType
from rsocket_broker.protocol.events import ResumeReceived, SetupReceived
from rsocket_broker.protocol.frames import Setup
from tests.playbook import SETUP_BODY, SETUP_RESUME, Frame, M, cut, wire, with_metadata

stream_ids = st.integers(1, MAX_31)
times = st.integers(1, MAX_31)
mimes = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=255)
metadata = st.none() | st.binary(max_size=400)


def one(data: bytes) -> Frame:
    (found,) = cut(data)
    return found


def parsed_by_rsocket_py(data: bytes) -> Any:
    return theirs.parse_or_ignore(data[3:])


@given(keepalive_ms=times, lifetime_ms=times, metadata_mime=mimes, data_mime=mimes, data=st.binary(), extra=metadata)
def test_setup(
    keepalive_ms: int, lifetime_ms: int, metadata_mime: str, data_mime: str, data: bytes, extra: bytes | None
) -> None:
    value = Setup(
        keepalive_ms=keepalive_ms,
        lifetime_ms=lifetime_ms,
        metadata_mime=metadata_mime,
        data_mime=data_mime,
        data=data,
        metadata=extra,
    )
    sent = one(frames.setup(value))
    assert (sent.kind, sent.stream_id, sent.flags) == (FrameType.SETUP, 0, 0 if extra is None else M)
    event = frames.read_setup(sent.body, 0, len(sent.body), sent.flags)
    assert event == SetupReceived(keepalive_ms, lifetime_ms, metadata_mime, data_mime, data, extra)


def test_rsocket_py_reads_our_setup() -> None:
    frame = parsed_by_rsocket_py(frames.setup(Setup(data=b"d", metadata=b"m", keepalive_ms=7, lifetime_ms=9)))
    assert (frame.major_version, frame.minor_version) == (1, 0)
    assert (frame.keep_alive_milliseconds, frame.max_lifetime_milliseconds) == (7, 9)
    assert (frame.data, frame.metadata) == (b"d", b"m")
    assert frame.data_encoding == b"application/json"


def test_the_setup_of_flippers_sdk() -> None:
    body = SETUP_BODY + b'{"os":"Android"}'
    event = frames.read_setup(body, 0, len(body), 0)
    assert event == SetupReceived(10_000, 2**31 - 1, "text/plain", "text/plain", b'{"os":"Android"}', None)


@pytest.mark.parametrize(
    ("body", "flags", "code"),
    [
        (b"", 0, ErrorCode.INVALID_SETUP),
        (SETUP_BODY[:11], 0, ErrorCode.INVALID_SETUP),
        (SETUP_BODY[:12], 0, ErrorCode.INVALID_SETUP),
        (SETUP_BODY[:20], 0, ErrorCode.INVALID_SETUP),
        (SETUP_BODY[:23], 0, ErrorCode.INVALID_SETUP),
        (SETUP_BODY[:-1], 0, ErrorCode.INVALID_SETUP),
        (SETUP_BODY + b"\x00\x00\x05abc", M, ErrorCode.INVALID_SETUP),
        (SETUP_BODY + b"\x00", M, ErrorCode.INVALID_SETUP),
        (SETUP_BODY[:12] + b"\x02\xff\xfe" + SETUP_BODY[23:], 0, ErrorCode.INVALID_SETUP),
        (SETUP_BODY[:4] + bytes(4) + SETUP_BODY[8:], 0, ErrorCode.INVALID_SETUP),
        (SETUP_BODY[:8] + bytes(4) + SETUP_BODY[12:], 0, ErrorCode.INVALID_SETUP),
        (SETUP_BODY[:4] + b"\x80" + SETUP_BODY[5:], 0, ErrorCode.INVALID_SETUP),
        (b"\x00\x02" + SETUP_BODY[2:], 0, ErrorCode.UNSUPPORTED_SETUP),
        (b"\x00\x00" + SETUP_BODY[2:], 0, ErrorCode.UNSUPPORTED_SETUP),
        (SETUP_BODY, SETUP_RESUME, ErrorCode.INVALID_SETUP),
        (SETUP_BODY[:12], SETUP_RESUME, ErrorCode.INVALID_SETUP),
        (SETUP_BODY[:12] + b"\x00\x00" + SETUP_BODY[12:], SETUP_RESUME, ErrorCode.INVALID_SETUP),
        (SETUP_BODY[:12] + b"\x00\x04tok", SETUP_RESUME, ErrorCode.INVALID_SETUP),
        (SETUP_BODY[:12] + b"\x00\x04toke", SETUP_RESUME, ErrorCode.INVALID_SETUP),
    ],
)
def test_a_setup_that_cannot_be_served(body: bytes, flags: int, code: ErrorCode) -> None:
    with pytest.raises(ProtocolViolation) as refusal:
        frames.read_setup(body, 0, len(body), flags)
    assert refusal.value.code == code


@pytest.mark.parametrize(
    "settings",
    [
        {"keepalive_ms": 0},
        {"lifetime_ms": 2**31},
        {"data_mime": "x" * 256},
        {"metadata_mime": "é"},
        {"resume_token": b""},
        {"resume_token": bytes(1 << 16)},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_setup_of_ours_that_nobody_could_read(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Setup(**settings)


POSITIONS = st.integers(0, (1 << 63) - 1)


@given(data=st.binary(max_size=300), respond=st.booleans(), position=POSITIONS)
def test_keepalive(data: bytes, respond: bool, position: int) -> None:
    raw = frames.keepalive(data, respond=respond, position=position)
    sent = one(raw)
    assert frames.read_keepalive(sent.body, 0, len(sent.body)) == (position, data)
    other = parsed_by_rsocket_py(raw)
    assert (other.flags_respond, other.data, other.stream_id) == (respond, data, 0)
    assert other.last_received_position == position


@given(token=st.binary(min_size=1, max_size=300), lease=st.booleans(), metadata=st.none() | st.binary(max_size=20))
def test_a_setup_that_asks_for_resumption_and_leases(token: bytes, lease: bool, metadata: bytes | None) -> None:
    raw = frames.setup(Setup(resume_token=token, lease=lease, data=b"claims", metadata=metadata))
    sent = one(raw)
    event = frames.read_setup(sent.body, 0, len(sent.body), sent.flags)
    assert (event.resume_token, event.lease, event.data, event.metadata) == (token, lease, b"claims", metadata)
    other = parsed_by_rsocket_py(raw)
    assert (other.flags_resume, other.flags_lease) == (True, lease)
    assert (other.resume_identification_token, other.data) == (token, b"claims")


@given(token=st.binary(min_size=1, max_size=300), received=POSITIONS, available=POSITIONS)
def test_resume(token: bytes, received: int, available: int) -> None:
    raw = frames.resume(token, received, available)
    sent = one(raw)
    assert (sent.kind, sent.stream_id, sent.flags) == (FrameType.RESUME, 0, 0)
    assert frames.read_resume(sent.body, 0, len(sent.body)) == ResumeReceived(token, received, available)
    other = parsed_by_rsocket_py(raw)
    assert (other.resume_identification_token, other.last_server_position) == (token, received)
    assert other.first_client_position == available


RESUME_BODY = bytes([0, 1, 0, 0, 0, 3]) + b"tok" + (7).to_bytes(8, "big") + (5).to_bytes(8, "big")


@pytest.mark.parametrize("size", range(len(RESUME_BODY)))
def test_a_resume_that_is_too_short(size: int) -> None:
    with pytest.raises(ProtocolViolation) as refusal:
        frames.read_resume(RESUME_BODY[:size], 0, size)
    assert refusal.value.code == ErrorCode.CONNECTION_ERROR


def test_a_resume_of_another_version() -> None:
    with pytest.raises(ProtocolViolation) as refusal:
        frames.read_resume(b"\x00\x02" + RESUME_BODY[2:], 0, len(RESUME_BODY))
    assert refusal.value.code == ErrorCode.REJECTED_RESUME


@given(position=POSITIONS)
def test_resume_ok(position: int) -> None:
    raw = frames.resume_ok(position)
    sent = one(raw)
    assert (sent.kind, sent.stream_id) == (FrameType.RESUME_OK, 0)
    assert frames.read_position(sent.body, 0, len(sent.body)) == position
    assert parsed_by_rsocket_py(raw).last_received_client_position == position
    with pytest.raises(ProtocolViolation):
        frames.read_position(sent.body, 0, 7)


def test_the_reserved_bit_of_a_position_is_not_read() -> None:
    assert frames.read_position(b"\x80" + bytes(6) + b"\x05", 0, 8) == 5


@given(ttl_ms=st.integers(0, MAX_31), number=st.integers(0, MAX_31))
def test_lease(ttl_ms: int, number: int) -> None:
    raw = frames.lease(ttl_ms, number)
    sent = one(raw)
    assert (sent.kind, sent.stream_id) == (FrameType.LEASE, 0)
    assert frames.read_lease(sent.body, 0, len(sent.body)) == (ttl_ms, number)
    other = parsed_by_rsocket_py(raw)
    assert (other.time_to_live, other.number_of_requests) == (ttl_ms, number)
    with pytest.raises(ProtocolViolation):
        frames.read_lease(sent.body, 0, 7)


@given(stream_id=stream_ids, n=st.integers(1, MAX_31))
def test_request_n(stream_id: int, n: int) -> None:
    raw = frames.request_n(stream_id, n)
    sent = one(raw)
    assert (sent.kind, sent.stream_id) == (FrameType.REQUEST_N, stream_id)
    assert frames.read_number(sent.body, 0, len(sent.body)) == n
    assert parsed_by_rsocket_py(raw).request_n == n


def test_the_reserved_bit_of_a_number_is_not_read() -> None:
    assert frames.read_number(b"\x80\x00\x00\x05", 0, 4) == 5


@given(stream_id=stream_ids)
def test_cancel(stream_id: int) -> None:
    raw = frames.cancel(stream_id)
    assert one(raw) == (FrameType.CANCEL, stream_id, 0, b"")
    assert parsed_by_rsocket_py(raw).stream_id == stream_id


@given(stream_id=st.integers(0, MAX_31), code=st.integers(0, 2**32 - 1), text=st.text(max_size=80))
def test_error(stream_id: int, code: int, text: str) -> None:
    sent = one(frames.error(stream_id, code, text, 4096))
    assert (sent.kind, sent.stream_id, sent.flags) == (FrameType.ERROR, stream_id, 0)
    assert frames.read_error(sent.body, 0, len(sent.body), 4096) == (code, text.encode("utf-8", "replace").decode())


@given(text=st.text(max_size=60), limit=st.integers(0, 40))
@example(text="ab\N{GRINNING FACE}", limit=4)
def test_the_text_of_an_error_is_cut_between_characters(text: str, limit: int) -> None:
    sent = one(frames.error(1, 0x201, text, limit)).body[4:]
    assert len(sent) <= limit
    assert text.encode("utf-8", "replace").startswith(sent)
    sent.decode()


def test_a_long_error_text_of_a_peer_is_cut_and_bad_text_replaced() -> None:
    body = b"\x00\x00\x02\x01" + b"\xff" + b"x" * 5000
    assert frames.read_error(body, 0, len(body), 10) == (0x201, "\N{REPLACEMENT CHARACTER}" + "x" * 9)


@given(data=st.binary(max_size=100))
def test_metadata_push(data: bytes) -> None:
    raw = frames.metadata_push(data)
    assert one(raw) == (FrameType.METADATA_PUSH, 0, M, data)
    assert parsed_by_rsocket_py(raw).metadata == data


@given(extra=metadata, data=st.binary(max_size=400))
def test_metadata_and_data_keep_apart(extra: bytes | None, data: bytes) -> None:
    body = bytes(frames.joined(extra, data))
    if extra is None:
        assert body == data
    else:
        assert body == with_metadata(extra, data)
        assert frames.split(b"..." + body, 3, 3 + len(body)) == (extra, data)


@pytest.mark.parametrize("body", [b"", b"\x00", b"\x00\x00", b"\x00\x00\x01", b"\xff\xff\xffabc"])
def test_a_metadata_length_that_points_outside_its_frame(body: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="metadata") as violation:
        frames.split(body + b"of the next frame", 0, len(body))
    assert violation.value.code == ErrorCode.CONNECTION_ERROR


@pytest.mark.parametrize("size", range(4))
def test_bodies_cut_short(size: int) -> None:
    body = bytes(20)
    with pytest.raises(ProtocolViolation, match="request-n"):
        frames.read_number(body, 0, size)
    with pytest.raises(ProtocolViolation, match="code"):
        frames.read_error(body, 0, size, 10)
    with pytest.raises(ProtocolViolation, match="position"):
        frames.read_keepalive(body, 0, size * 2)


@given(stream_id=stream_ids, body=st.binary(max_size=300), flags=st.integers(0, 0x3FF))
def test_the_header(stream_id: int, body: bytes, flags: int) -> None:
    kind = FrameType.PAYLOAD << 10 | flags
    assert frames.frame(stream_id, kind, body) == wire(FrameType.PAYLOAD, stream_id, body, flags)
    assert frames.start(6 + len(body), stream_id, kind) + body == frames.frame(stream_id, kind, body)
