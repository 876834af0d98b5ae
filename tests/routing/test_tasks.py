"""Background work with an owner."""

import asyncio
import logging

import pytest

from rsocket_broker.routing.tasks import TURN, Tasks, in_turns


async def test_a_failure_is_logged_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()
    done = []

    async def good() -> None:
        await asyncio.sleep(0)
        done.append(1)

    async def bad() -> None:
        raise ZeroDivisionError

    tasks.spawn(bad())
    tasks.spawn(good())
    await tasks.wait(1.0)
    assert done == [1]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_who_does_not_finish_in_time_is_stopped() -> None:
    tasks = Tasks()
    task = tasks.spawn(asyncio.sleep(60))
    await tasks.wait(0.01)
    assert task.cancelled()
    await tasks.wait(0.01)


async def test_cancel_stops_all_at_once() -> None:
    tasks = Tasks()
    started = [tasks.spawn(asyncio.sleep(60)) for _ in range(3)]
    tasks.cancel()
    await asyncio.gather(*started, return_exceptions=True)
    assert all(task.cancelled() for task in started)


async def test_what_is_done_to_many_leaves_turns_to_others() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(other())
    found = [(list(some), turns) async for some in in_turns(range(2 * TURN + 1))]
    task.cancel()
    assert [some for some, _ in found] == [list(range(TURN)), list(range(TURN, 2 * TURN)), [2 * TURN]]
    assert found[0][1] < found[1][1] < found[2][1]
    assert [some async for some in in_turns(())] == []
