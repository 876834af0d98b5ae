import asyncio
import time

import pytest

from rsocket_broker.observability.loop_lag import LoopLag


@pytest.mark.row("A-53")
async def test_whoever_blocks_the_loop_shows() -> None:
    lag = LoopLag(0.01)
    lag.start()
    time.sleep(0.2)  # a handler that blocks everybody
    async with asyncio.timeout(5):
        while not lag.seconds.count:
            await asyncio.sleep(0.001)
    assert sum(lag.seconds.counts[lag.seconds.bounds.index(0.1) + 1 :]) == 1
    lag.stop()
    count = lag.seconds.count
    await asyncio.sleep(0.03)
    assert lag.seconds.count == count


async def test_it_may_be_stopped_before_it_began() -> None:
    LoopLag().stop()
