"""The time limit for handlers."""

import asyncio
from typing import Any

import pytest

from rsocket_broker.routing.deadline import DeadlinePassed, limited


async def at_once(value: object) -> object:
    return value


async def after(seconds: float, value: object) -> object:
    await asyncio.sleep(0)
    await asyncio.sleep(seconds)
    return value


@pytest.mark.parametrize("seconds", [None, 5.0])
async def test_a_result_in_time(seconds: float | None) -> None:
    assert await limited(at_once(1), seconds) == 1
    assert await limited(after(0.001, 2), seconds) == 2


async def test_work_that_takes_too_long_is_stopped() -> None:
    stopped = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stopped.append(1)
            raise

    with pytest.raises(DeadlinePassed):
        await limited(work(), 0.01)
    assert stopped == [1]


async def test_what_the_work_raises_comes_out_its_own_timeout_too() -> None:
    async def fails(error: Exception, wait: bool) -> None:
        if wait:
            await asyncio.sleep(0)
        raise error

    for error in (ZeroDivisionError(), TimeoutError()):
        for wait in (False, True):
            with pytest.raises(type(error)) as caught:
                await limited(fails(error, wait), 5.0)
            assert caught.value is error


async def test_cancelling_the_task_reaches_the_work_and_it_may_take_its_time_over_it() -> None:
    log: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            log.append("cleaned up")

    task = asyncio.ensure_future(limited(work(), 5.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["cleaned up"]


async def test_values_and_errors_find_their_way_in() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> Any:
        first = await future
        try:
            await failing
        except KeyError:
            return first

    failing: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(limited(work(), 5.0))
    await asyncio.sleep(0)
    future.set_result(7)
    await asyncio.sleep(0)
    failing.set_exception(KeyError())
    assert await task == 7


def test_work_that_is_given_up_is_closed() -> None:
    closed = []

    async def work() -> None:
        loop = asyncio.new_event_loop()
        future = loop.create_future()
        loop.close()
        try:
            await future
        finally:
            closed.append(1)

    async def outer() -> None:
        await limited(work(), None)

    coroutine = outer()
    coroutine.send(None)
    coroutine.close()
    assert closed == [1]
