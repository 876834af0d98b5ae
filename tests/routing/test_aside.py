"""Beside the loop: large values are read, handed out and freed without holding anybody up."""

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator

import pytest

from rsocket_broker import jsonpieces
from rsocket_broker.jsonpieces import Turn
from rsocket_broker.routing import aside as module
from rsocket_broker.routing.aside import Aside
from tests.routing.line import until


@pytest.fixture
async def aside(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Aside]:
    monkeypatch.setattr(module, "LOOKED", 0.001)
    one = Aside()
    yield one
    one.stop()


async def test_the_loop_goes_on_while_a_job_runs(aside: Aside) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def job(turn: Turn) -> str:
        begun.set()
        assert may_end.wait(10)
        turn()
        return threading.current_thread().name

    running = asyncio.ensure_future(aside.run(job))
    await until(begun.is_set)
    may_end.set()
    assert (await running).startswith("large messages")


async def test_jobs_run_one_after_the_other(aside: Aside) -> None:
    order: list[str] = []

    def job(name: str) -> None:
        order.append(f"{name} begins")
        order.append(f"{name} ends")

    await asyncio.gather(aside.run(lambda turn: job("one")), aside.run(lambda turn: job("two")))
    assert order == ["one begins", "one ends", "two begins", "two ends"]


async def test_no_full_collection_meanwhile(aside: Aside) -> None:
    before = gc.get_threshold()
    inside = await aside.run(lambda turn: gc.get_threshold())
    assert inside[:2] == before[:2]
    assert inside[2] > 1000 * before[2]
    assert gc.get_threshold() == before


async def test_a_job_that_nobody_waits_for_ends_at_its_next_turn(aside: Aside) -> None:
    ended, begun = threading.Event(), threading.Event()

    def job(turn: Turn) -> None:
        begun.set()
        try:
            while True:
                turn()
        finally:
            ended.set()

    running = asyncio.ensure_future(aside.run(job))
    await until(begun.is_set)
    running.cancel()
    await until(ended.is_set)
    assert await aside.run(lambda turn: 1) == 1


async def test_what_was_handed_out_is_freed_once_nobody_has_it(aside: Aside) -> None:
    data = json.dumps({"a": [{"n": n} for n in range(20_000)]}).encode()
    read = await aside.run(lambda turn: jsonpieces.parse(data, turn))
    kept = read.value["a"]
    aside.hand_out(read, kept)
    del read
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert len(kept) == 20_000
    done = aside.done
    del kept
    await until(lambda: aside.done > done and not aside._handed_out)


async def test_what_raises_comes_out(aside: Aside) -> None:
    def job(turn: Turn) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await aside.run(job)


async def test_a_value_that_is_its_only_argument_is_freed_too(aside: Aside) -> None:
    data = json.dumps({f"k{n}": [n] for n in range(20_000)}).encode()
    read = await aside.run(lambda turn: jsonpieces.parse(data, turn))
    aside.hand_out(read, read.value)
    done = aside.done
    del read
    await until(lambda: aside.done > done and not aside._handed_out)
