"""Any message in any fragments is the same message again, and nothing unfinished grows without a bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.errors import Invalid, Rejected
from rsocket_broker.protocol.codes import FrameType
from rsocket_broker.protocol.fragments import OVERHEAD, Reassembler, fragments
from rsocket_broker.protocol.frames import split
from rsocket_broker.protocol.limits import Limits
from rsocket_broker.quota import FULL, STEP, Holding, House, Kind
from tests.playbook import C, F, Frame, M, N, cut, u32

SMALL = Limits(frame=1000, message=1000, reassembly=3000)
kinds = st.sampled_from(
    [
        (FrameType.REQUEST_RESPONSE, 0, b""),
        (FrameType.REQUEST_FNF, 0, b""),
        (FrameType.REQUEST_STREAM, 0, u32(7)),
        (FrameType.REQUEST_CHANNEL, 0, u32(7)),
        (FrameType.REQUEST_CHANNEL, C, u32(7)),
        (FrameType.PAYLOAD, N, b""),
        (FrameType.PAYLOAD, N | C, b""),
    ]
)


def parts(frame: Frame, leading: int) -> tuple[bytes | None, bytes]:
    body = frame.body[leading:]
    return split(body, 0, len(body)) if frame.flags & M else (None, body)


@given(
    kind=kinds,
    data=st.binary(min_size=200, max_size=700),
    metadata=st.none() | st.binary(max_size=300),
    size=st.integers(64, 200),
)
def test_what_is_cut_is_put_together_again(
    kind: tuple[FrameType, int, bytes], data: bytes, metadata: bytes | None, size: int
) -> None:
    frame_type, flags, leading = kind
    sent = cut(b"".join(fragments(5, frame_type << 10 | flags, leading, data, metadata, size)))
    reassembler = Reassembler(SMALL)
    for index, frame in enumerate(sent):
        piece_metadata, piece = parts(frame, 0 if index else len(leading))
        reassembler.add(5, piece, piece_metadata, has_next=bool(frame.flags & N))
    whole, _ = reassembler.finish(5)
    assert whole == (metadata, data)
    assert reassembler.held == 0

    assert all(6 + len(frame.body) <= size for frame in sent)
    assert sent[0].kind == frame_type
    assert sent[0].body.startswith(leading)
    assert all(frame.kind == FrameType.PAYLOAD and frame.flags & N for frame in sent[1:])


@given(kind=kinds, metadata=st.none() | st.binary(max_size=300), size=st.integers(64, 100))
def test_the_flags_of_fragments(kind: tuple[FrameType, int, bytes], metadata: bytes | None, size: int) -> None:
    frame_type, flags, leading = kind
    *first, last = cut(b"".join(fragments(5, frame_type << 10 | flags, leading, b"d" * 300, metadata, size)))
    assert first
    assert all(frame.flags & F and not frame.flags & C for frame in first)
    assert not last.flags & F
    assert last.flags & C == flags & C


@given(data=st.binary(min_size=1, max_size=300), metadata=st.binary(min_size=100, max_size=300))
def test_metadata_is_complete_before_data_begins(data: bytes, metadata: bytes) -> None:
    sent = cut(b"".join(fragments(5, FrameType.PAYLOAD << 10 | N, b"", data, metadata, 64)))
    begun = False
    for frame in sent:
        piece_metadata, piece = parts(frame, 0)
        assert not (begun and piece_metadata is not None)
        begun = begun or bool(piece)


def test_empty_metadata_is_kept_apart_from_none() -> None:
    reassembler = Reassembler(SMALL)
    reassembler.add(1, b"a", b"", has_next=True)
    reassembler.add(1, b"b", None, has_next=False)
    assert reassembler.finish(1) == ((b"", b"ab"), True)
    reassembler.add(3, b"a", None, has_next=False)
    assert reassembler.finish(3) == ((None, b"a"), False)


@pytest.mark.row("A-31")
def test_a_message_that_grows_too_long_is_dropped() -> None:
    reassembler = Reassembler(SMALL)
    reassembler.add(1, b"x" * 900, b"m" * 100, has_next=True)
    with pytest.raises(Invalid, match="1000 bytes"):
        reassembler.add(1, b"x", None, has_next=True)
    assert 1 not in reassembler.unfinished
    assert reassembler.held == 0


@pytest.mark.row("A-31")
def test_all_unfinished_messages_share_one_budget() -> None:
    reassembler = Reassembler(SMALL)
    reassembler.add(1, b"x" * 1000, None, has_next=True)
    reassembler.add(3, b"x" * 1000, None, has_next=True)
    with pytest.raises(Rejected, match="3000 bytes"):
        reassembler.add(5, b"x" * 1000, None, has_next=True)
    assert reassembler.held == 2 * (1000 + OVERHEAD)
    reassembler.drop(1)
    reassembler.add(7, b"x" * 1000, None, has_next=True)


def test_empty_fragments_are_not_free() -> None:
    reassembler = Reassembler(SMALL)
    with pytest.raises(Rejected, match="unfinished"):
        for stream_id in range(1, 101, 2):
            reassembler.add(stream_id, b"", None, has_next=True)
    assert reassembler.held <= 3000


def test_dropping_what_is_not_there_is_nothing() -> None:
    reassembler = Reassembler(SMALL)
    reassembler.drop(9)
    assert reassembler.held == 0


@given(sizes=st.lists(st.sampled_from([0, 1, 7, 63, 64, 65, 200]), min_size=1, max_size=30))
def test_large_and_small_fragments_come_out_in_their_order(sizes: list[int]) -> None:
    pieces = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rsocket_broker.protocol.fragments.PART", 64)
        reassembler = Reassembler(Limits())
        for piece in pieces:
            reassembler.add(1, piece, None, has_next=True)
        assert reassembler.held == OVERHEAD + sum(sizes)
        (metadata, data), _ = reassembler.finish(1)
    assert (metadata, data) == (None, b"".join(pieces))
    assert reassembler.held == 0


@pytest.mark.row("M-15", "A-31")
def test_what_is_unfinished_counts_until_it_is_finished_or_dropped() -> None:
    house = House(4 * STEP)
    reassembler = Reassembler(Limits(), Holding(house.of("a")))
    for stream_id in (1, 3):
        reassembler.add(stream_id, bytes(STEP + STEP // 2), None, has_next=True)
    assert STEP <= house.by_kind[Kind.FRAGMENTS] <= reassembler.held
    with pytest.raises(Rejected, match=FULL):
        reassembler.add(3, bytes(2 * STEP), None, has_next=True)
    assert list(reassembler.unfinished) == [1], "only what has asked for more is dropped"
    reassembler.finish(1)
    assert house.used == 0
    reassembler.add(5, bytes(2 * STEP), None, has_next=True)
    reassembler.clear()
    assert house.used == reassembler.held == 0
