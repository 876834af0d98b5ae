"""Many time limits, one timer."""

import asyncio
import math

import pytest

from rsocket_broker.expiries import Expiries

SOON = 0.02


class Waits:
    """Futures that a loop's Expiries look after."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.expiries = Expiries(self.loop)
        self.count = 0

    def add(self, timeout: float) -> "asyncio.Future[None]":
        wait: asyncio.Future[None] = self.loop.create_future()
        self.expiries.add(self.count, wait, self.loop.time() + timeout, timeout, "this")
        self.count += 1
        return wait


@pytest.fixture
async def waits() -> Waits:
    return Waits()


async def test_each_wait_ends_at_its_own_time_whatever_the_order(waits: Waits) -> None:
    began = waits.loop.time()
    ended: dict[float, float] = {}

    async def watch(timeout: float) -> None:
        with pytest.raises(TimeoutError, match=f"within {timeout:g} s"):
            await waits.add(timeout)
        ended[timeout] = waits.loop.time() - began

    limits = [3 * SOON, SOON, 2 * SOON, 30.0]
    tasks = [asyncio.ensure_future(watch(timeout)) for timeout in limits]
    await asyncio.wait(tasks[:3])
    assert list(ended) == sorted(limits[:3])
    assert all(took >= timeout - 0.005 for timeout, took in ended.items())
    assert waits.expiries.rings == waits.expiries.waits[3][1]
    assert waits.expiries.waits[3][3] == "this"
    tasks[3].cancel()
    waits.expiries.clear()


async def test_a_wait_that_is_over_is_left_alone_and_the_timer_rings_in_vain(waits: Waits) -> None:
    dropped, done, late = waits.add(SOON / 2), waits.add(SOON / 2), waits.add(SOON)
    del waits.expiries.waits[0]
    done.set_result(None)
    with pytest.raises(TimeoutError):
        await late
    assert not dropped.done()
    assert await done is None
    assert waits.expiries.rings == math.inf


async def test_nothing_rings_once_all_is_over(waits: Waits) -> None:
    wait = waits.add(SOON / 4)
    waits.expiries.clear()
    await asyncio.sleep(SOON)
    assert not wait.done()
    again = waits.add(SOON / 4)
    with pytest.raises(TimeoutError):
        await again
