import asyncio
import gc
from collections.abc import Callable

import attrs
import pytest

from rsocket_broker.observability.traffic import Levels, Sums, Traffic
from rsocket_broker.payload import Payload
from tests.two_sides import Line


async def until_read(traffic: Traffic, what: Callable[[Sums, Levels], object]) -> None:
    async with asyncio.timeout(5):
        while not what(*await traffic.read()):
            await asyncio.sleep(0.001)


@pytest.mark.row("A-53")
async def test_what_a_connection_has_carried_is_kept_when_it_is_gone() -> None:
    traffic = Traffic()
    assert (await traffic.read()) == (Sums(), Levels())
    async with Line() as line:
        traffic.follow(line.server)
        await line.client.request_response(Payload(b"x"))
        sums, levels = await traffic.read()
        assert levels == Levels(connections=1)
        assert sums.requests == 1
        assert (sums.bytes_in, sums.frames_in) == (line.server.bytes_in, line.server.frames_in) != (0, 0)
        waiting = line.client.request_stream(Payload(b"later:5"), 1)
        await anext(waiting)
        assert (await traffic.read())[1].streams == 1
    await until_read(traffic, lambda sums, levels: not levels.connections)
    last = (await traffic.read())[0]
    assert last.requests == 2
    assert (last.bytes_in, last.bytes_out) == (line.server.bytes_in, line.server.bytes_out)
    del line, waiting
    gc.collect()
    assert (await traffic.read()) == (last, Levels())


async def test_waiting_bytes_and_the_time_of_a_slow_peer_are_told() -> None:
    traffic = Traffic()
    async with Line() as line:
        traffic.follow(line.server)
        await line.client.wait_accepted()
        line.client._transport.pause_reading()  # type: ignore[union-attr]
        line.server.fire_and_forget(Payload(bytes(100_000)))
        await until_read(traffic, lambda sums, levels: levels.waiting > 100_000)
        await until_read(traffic, lambda sums, levels: sums.stalled > 0)
        line.client._transport.resume_reading()  # type: ignore[union-attr]
        await until_read(traffic, lambda sums, levels: not levels.waiting)
    assert (await traffic.read())[0].stalled > 0


async def test_a_reading_is_a_copy() -> None:
    traffic = Traffic()
    one, _ = await traffic.read()
    one.bytes_in += 5
    assert (await traffic.read())[0] == Sums() != attrs.evolve(one)
