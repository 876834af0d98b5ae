"""Tasks of a peer: bounded, found by stream, and cleaned up even when they never ran."""

import asyncio
import inspect
import warnings

import pytest

from rsocket_broker.quota import Holding, House
from rsocket_broker.work import GRAIN, WEIGHT, Work, abandon


class Diary:
    """Work that notes what happens to it."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.seen: list[str] = []

    async def run(self, stream_id: int, source: object) -> None:
        try:
            self.seen.append(f"start {stream_id}")
            await asyncio.sleep(60)
        finally:
            self.seen.append(f"end {stream_id}")
            self.work.done(stream_id)


async def handler() -> None:
    raise AssertionError("nobody awaits this")


async def test_work_is_found_by_its_stream_and_stopped() -> None:
    work = Work(asyncio.get_running_loop(), 10)
    diary = Diary(work)
    assert work.start(1, None, diary.run(1, None))
    assert work.start(3, None, diary.run(3, None))
    await asyncio.sleep(0)
    work.stop(1)
    work.stop(99)
    await asyncio.sleep(0)
    assert diary.seen == ["start 1", "start 3", "end 1"]
    assert len(work) == 1
    work.stop_all()
    await work.wait(1)
    assert len(work) == 0


async def test_streams_are_found_by_their_tasks() -> None:
    work = Work(asyncio.get_running_loop(), 10)
    diary = Diary(work)
    for stream_id in (1, 3, 5):
        work.start(stream_id, None, diary.run(stream_id, None))
    mine = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
    found = work.streams_of(mine)
    assert [stream_id for stream_id, _ in found] == [1, 3, 5]
    assert work.streams_of({found[1][1]}) == [found[1]]
    assert work.streams_of(()) == []
    work.stop_all()
    await work.wait(1)


async def test_work_stopped_before_its_first_step_leaves_nothing_behind() -> None:
    work = Work(asyncio.get_running_loop(), 10)
    diary = Diary(work)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = handler()
        assert work.start(1, source, diary.run(1, source))
        work.stop(1)
        await work.wait(1)
    assert len(work) == 0
    assert inspect.getcoroutinestate(source) == inspect.CORO_CLOSED, "so Python does not warn that nobody awaited it"


async def test_too_much_work_is_refused_and_closed() -> None:
    work = Work(asyncio.get_running_loop(), 2)
    diary = Diary(work)
    assert work.start(1, None, diary.run(1, None))
    assert work.start(3, None, diary.run(3, None))
    source, refused = handler(), diary.run(5, None)
    assert not work.start(5, source, refused)
    assert inspect.getcoroutinestate(source) == inspect.getcoroutinestate(refused) == inspect.CORO_CLOSED
    work.stop_all()
    await work.wait(1)


async def test_a_stream_that_is_still_being_cleaned_up_is_not_used_again() -> None:
    work = Work(asyncio.get_running_loop(), 10)
    diary = Diary(work)
    assert work.start(1, None, diary.run(1, None))
    await asyncio.sleep(0)
    work.stop(1)
    assert not work.start(1, None, diary.run(1, None))
    await work.wait(1)
    assert work.start(1, None, diary.run(1, None))
    work.stop_all()
    await work.wait(1)


async def test_what_begins_on_a_stream_in_the_moment_in_which_its_last_work_ends_is_kept() -> None:
    work = Work(asyncio.get_running_loop(), 10)
    diary = Diary(work)
    assert work.start(1, None, diary.run(1, None))
    await asyncio.sleep(0)
    work.stop(1)
    asyncio.get_running_loop().call_soon(work.start, 1, None, diary.run(1, None))
    await asyncio.sleep(0)
    assert len(work) == 1
    await asyncio.sleep(0)
    assert len(work) == 1, "the last of the work before it is none of its business"
    work.stop_all()
    await work.wait(1)
    assert diary.seen == ["start 1", "end 1"] * 2


async def test_nothing_begins_after_the_end() -> None:
    work = Work(asyncio.get_running_loop(), 10)
    diary = Diary(work)
    work.stop_all()
    assert not work.start(1, None, diary.run(1, None))
    assert len(work) == 0


async def test_work_whose_first_step_is_the_end_is_stopped_too() -> None:
    work = Work(asyncio.get_running_loop(), 10)
    diary = Diary(work)

    async def last() -> None:
        work.stop_all()
        await diary.run(1, None)

    assert work.start(1, None, last())
    await work.wait(1)
    assert len(work) == 0
    assert diary.seen in (["start 1", "end 1"], []), "where tasks are eager, it has come as far as its first wait"


async def test_work_may_end_by_itself_before_it_is_stopped() -> None:
    work = Work(asyncio.get_running_loop(), 10)
    diary = Diary(work)
    work.stop_later(1, 0)  # there is none
    work.start(1, None, diary.run(1, None))
    work.stop_later(1, 0)
    await work.wait(1)
    assert len(work) == 0
    assert diary.seen == ["start 1", "end 1"]

    async def brief(stream_id: int) -> None:
        work.done(stream_id)

    work.start(3, None, brief(3))
    work.stop_later(3, 0)
    await asyncio.sleep(0)
    work.start(3, None, diary.run(3, None))
    await asyncio.sleep(0.01)
    assert len(work) == 1, "what came after it under the same id goes on"
    work.stop_all()
    await work.wait(1)


async def test_waiting_has_an_end() -> None:
    work = Work(asyncio.get_running_loop(), 10)
    work.start(1, None, Diary(work).run(1, None))
    await work.wait(0.01)
    assert len(work) == 1
    work.stop_all()
    await work.wait(1)


def test_only_coroutines_need_to_be_closed() -> None:
    abandon(None)
    abandon(iter(()))


@pytest.mark.row("M-15")
async def test_many_tasks_count_and_one_too_many_is_not_started() -> None:
    house = House(2 * GRAIN * WEIGHT)
    work = Work(asyncio.get_running_loop(), 10_000, Holding(house.of("a")))
    ends = asyncio.Event()

    async def serve(stream_id: int) -> None:
        await ends.wait()
        work.done(stream_id)

    begun = [work.start(number, None, serve(number)) for number in range(10 * GRAIN)]
    assert begun == [True] * (3 * GRAIN) + [False] * (7 * GRAIN), "the first are for nothing"
    assert house.used == 2 * GRAIN * WEIGHT
    ends.set()
    await work.wait(5.0)
    assert house.used == 0
