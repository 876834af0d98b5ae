"""The ledger: positions, what is kept, and what is sent again."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.errors import ProtocolViolation
from rsocket_broker.protocol.codes import FrameType
from rsocket_broker.protocol.resume import Ledger, Pool, measure
from rsocket_broker.quota import STEP, Holding, House, Kind
from tests.playbook import cut, wire

POSITIONED = range(0x04, 0x0C)
FRAMES = st.builds(wire, st.integers(0, 63), st.sampled_from([0, 1, 2]), st.binary(max_size=30))
SENT = st.builds(wire, st.sampled_from(POSITIONED), st.sampled_from([1, 2]), st.binary(max_size=30))


def ledger(budget: int = 1 << 20, pool: Pool | None = None) -> Ledger:
    return Ledger(budget, pool or Pool(1 << 30))


def size_of(data: bytes) -> int:
    """By the words of the specification."""
    frames = [frame for frame in cut(data) if frame.kind in POSITIONED and frame.stream_id]
    return sum(6 + len(frame.body) for frame in frames)


@given(frames=st.lists(FRAMES))
def test_frames_of_streams_have_a_position_and_others_have_none(frames: list[bytes]) -> None:
    data = b"".join(frames)
    size, others = measure(data, 0, len(data))
    assert size == size_of(data)
    assert b"".join(data[begin:end] for begin, end in others) == b"".join(one for one in frames if not size_of(one))


def test_an_error_on_stream_0_has_none() -> None:
    assert measure(wire(FrameType.ERROR, 0, bytes(4)), 0, 13)[0] == 0
    assert measure(wire(FrameType.ERROR, 1, bytes(4)), 0, 13)[0] == 10


@given(batches=st.lists(st.lists(FRAMES).map(b"".join)), data=st.data())
def test_everything_from_any_frame_on_can_be_had_again(batches: list[bytes], data: st.DataObject) -> None:
    kept = ledger()
    for batch in batches:
        left_out = kept.record(batch)
        assert b"".join(left_out) == b"".join(one for one in _each(batch) if not size_of(one))
    frames = [one for one in _each(b"".join(batches)) if size_of(one)]
    at = data.draw(st.integers(0, len(frames)))
    assert kept.sent == size_of(b"".join(frames))
    position = size_of(b"".join(frames[:at]))
    assert b"".join(kept.replay(position)) == b"".join(frames[at:])
    kept.release(position)
    assert b"".join(kept.replay(position)) == b"".join(frames[at:])
    assert kept.first <= position


def _each(data: bytes) -> list[bytes]:
    return [wire(frame.kind, frame.stream_id, frame.body, frame.flags) for frame in cut(data)]


@given(frames=st.lists(SENT, min_size=1), position=st.integers(-1, 400))
def test_no_other_position_will_do(frames: list[bytes], position: int) -> None:
    kept = ledger()
    kept.record(b"".join(frames))
    places = {size_of(b"".join(frames[:at])) for at in range(len(frames) + 1)}
    if position in places:
        kept.replay(position)
        return
    with pytest.raises(ProtocolViolation):
        kept.replay(position)


def test_the_oldest_are_given_up_first() -> None:
    kept = ledger(budget=50)
    for _ in range(4):
        kept.record(wire(FrameType.PAYLOAD, 1, bytes(11)))  # 20 bytes, 17 of them counted
        kept.trim()
    assert (kept.first, kept.size, kept.sent) == (34, 40, 68)
    assert kept.is_filling
    kept.release(51)
    assert (kept.first, kept.size, kept.is_filling) == (51, 20, False)
    kept.release(1000)  # it cannot have received that
    assert kept.size == 20


def test_what_is_larger_than_the_budget_is_not_kept() -> None:
    kept = ledger(budget=50)
    kept.record(wire(FrameType.PAYLOAD, 1, bytes(100)))
    assert kept.is_over
    kept.trim()
    assert (kept.first, kept.size) == (106, 0)
    assert kept.replay(106) == []


def test_small_frames_take_little_more_memory_than_their_bytes() -> None:
    """Each alone would cost fifteen times its nine bytes."""
    kept = ledger(budget=1 << 20)
    tracemalloc.start()
    try:
        while kept.size < 1_000_000:
            kept.record(wire(FrameType.CANCEL, 1))
            kept.put_aside(wire(FrameType.METADATA_PUSH, 0))
        assert tracemalloc.get_traced_memory()[0] < 1_200_000
    finally:
        tracemalloc.stop()
    assert sum(map(len, kept.replay(0))) == sum(map(len, kept.take_back())) == kept.size


def held(kept: Ledger, size: int) -> Ledger:
    """Keeps a frame of `size` bytes, if it may."""
    kept.record(wire(FrameType.PAYLOAD, 1, bytes(size - 9)))
    kept.trim()
    return kept


def test_a_pool_is_shared_and_whoever_takes_more_than_a_share_pays() -> None:
    pool = Pool(100)
    greedy, modest, late = [ledger(pool=pool) for _ in range(3)]
    assert held(greedy, 80).size == 80
    assert held(modest, 30).size == 30, "less than a third of all"
    assert greedy.is_over
    assert held(late, 60).size == 0, "it is full, and this is more than a share"
    assert held(late, 33).size == 33
    assert held(greedy, 20).size <= 33
    assert not modest.is_over
    for kept in (greedy, modest, late):
        kept.clear()
    assert (pool.used, pool.members) == (0, 0)


@given(sizes=st.lists(st.tuples(st.integers(0, 4), st.integers(9, 200))))
def test_no_more_than_twice_the_limit_of_a_pool_is_held(sizes: list[tuple[int, int]]) -> None:
    pool = Pool(300)
    all_of_them = [ledger(pool=pool) for _ in range(5)]
    for which, size in sizes:
        held(all_of_them[which], size)
        assert pool.used <= 2 * pool.limit
        assert pool.used == sum(kept.size for kept in all_of_them)


@given(batches=st.lists(st.lists(FRAMES).map(b"".join)))
def test_what_is_received_is_counted(batches: list[bytes]) -> None:
    kept = ledger()
    for batch in batches:
        kept.take_in(b"junk" + batch + b"rest", 4, 4 + len(batch))
    assert kept.received == size_of(b"".join(batches))


@pytest.mark.row("M-15")
def test_what_is_retained_counts_for_the_client_and_the_oldest_goes_where_that_is_full() -> None:
    house = House(4 * STEP)
    ledger = Ledger(100 * STEP, Pool(100 * STEP), Holding(house.of("a")))
    for _ in range(6):
        ledger.record(wire(FrameType.PAYLOAD, 1, bytes(STEP)))
        ledger.trim()
    assert ledger.first > 0
    assert STEP < house.by_kind[Kind.RETAINED] <= 4 * STEP
    ledger.clear()
    assert house.used == 0
