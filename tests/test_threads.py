"""What is handed to a thread comes back to the loop that asked, whatever becomes of it."""

import asyncio
import os
import threading
import time

import pytest

from rsocket_broker.threads import Threads
from tests.until import until


async def test_results_and_errors_come_back() -> None:
    threads = Threads("test", 2)
    assert await threads.run(lambda *given: (given, threading.current_thread().name), 1, "two") == ((1, "two"), "test")
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 1, 0)
    assert await asyncio.gather(*(threads.run(pow, number, 2) for number in range(50))) == [n * n for n in range(50)]


async def test_as_many_at_once_as_there_are_threads_and_the_rest_in_turn() -> None:
    threads, gate, at_work, order = Threads("test", 2), threading.Event(), [], list[int]()

    def hold() -> int:
        at_work.append(threading.get_ident())
        gate.wait(30)
        return threading.get_ident()

    held = [threads.run(hold), threads.run(hold)]
    later = [threads.run(order.append, number) for number in range(10)]
    await until(lambda: len(at_work) == 2)
    assert order == []
    gate.set()
    assert set(await asyncio.gather(*held)) == set(at_work)
    assert len(set(at_work)) == 2
    await asyncio.gather(*later)
    assert sorted(order) == list(range(10))


async def test_work_that_waits_behind_what_hangs_gets_a_spare_thread() -> None:
    threads, gate = Threads("test", 1, spare=2), threading.Event()
    hanging = [threads.run(gate.wait, 60) for _ in range(3)]
    queued = threads.run(pow, 2, 3)
    await until(lambda: threads._to_relieve == 0)
    assert not queued.done()
    hanging[0].cancel()
    gate.set()
    assert await queued == 8
    assert await asyncio.gather(*hanging[1:]) == [True, True]
    assert await asyncio.gather(*(threads.run(pow, number, 2) for number in range(20))) == [n * n for n in range(20)]


async def test_spare_threads_are_not_for_work_that_has_its_turn_soon() -> None:
    threads = Threads("test", 1, spare=2)
    here = await asyncio.gather(*(threads.run(threading.get_ident) for _ in range(20)))
    assert len(set(here)) <= 3
    job = threads.run(pow, 2, 3)
    assert await job == 8


async def test_one_after_the_other_is_one_thread() -> None:
    """The one that was at work last: what it needs is near."""
    threads = Threads("test", 4)
    warm = [await threads.run(threading.get_ident)]
    for _ in range(20):
        await until(lambda: bool(threads._resting))
        warm.append(await threads.run(threading.get_ident))
    assert len(set(warm)) == 1


async def test_what_nobody_waits_for_is_spared_unless_it_has_begun() -> None:
    threads, gate, begun, done = Threads("test", 1), threading.Event(), threading.Event(), list[str]()

    def hold() -> None:
        begun.set()
        gate.wait(30)
        done.append("held")

    first, second = threads.run(hold), threads.run(done.append, "spared")
    await until(begun.is_set)
    first.cancel()
    second.cancel()
    gate.set()
    await threads.run(done.append, "last")
    assert done == ["held", "last"]


def test_several_loops_use_the_same_threads_and_one_that_has_closed_harms_nobody() -> None:
    threads, gate = Threads("test", 1), threading.Event()

    async def leave_behind() -> None:
        threads.run(gate.wait, 30)

    asyncio.run(leave_behind())
    gate.set()

    async def ask() -> int:
        return await threads.run(pow, 2, 3)

    assert [asyncio.run(ask()), asyncio.run(ask())] == [8, 8]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_threads_of_its_own() -> None:
    threads = Threads("test", 1)

    async def ask() -> int:
        return await threads.run(pow, 2, 3)

    assert asyncio.run(ask()) == 8
    child = os.fork()
    if child == 0:
        os._exit(asyncio.run(ask()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 8


async def test_a_system_that_gives_no_thread_costs_none_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads("test", 1, spare=1)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="new thread"):
                threads.run(pow, 2, 3)
    assert await threads.run(pow, 2, 3) == 8


async def test_a_spare_thread_that_cannot_begin_loses_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, gate, refused = Threads("test", 1, spare=1), threading.Event(), list[threading.Thread]()

    def refuse(thread: threading.Thread) -> None:
        refused.append(thread)
        raise RuntimeError("can't start new thread")

    held = threads.run(gate.wait, 60)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        waiting = threads.run(pow, 2, 3)
        await until(lambda: bool(refused))
    gate.set()
    async with asyncio.timeout(30):
        assert await waiting == 8
    assert await held
    assert threads._to_relieve == 1


async def test_a_spare_thread_that_cannot_begin_hands_on_to_one_that_rests_by_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads, gate = Threads("test", 1, spare=1), threading.Event()
    held = threads.run(gate.wait, 60)
    waiting = threads.run(pow, 2, 3)

    def refuse(_thread: threading.Thread) -> None:
        gate.set()
        while not threads._resting:
            time.sleep(0.001)
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        threads._relieve(threads._jobs[0])
    async with asyncio.timeout(30):
        assert await waiting == 8
    assert await held


async def test_what_gave_up_behind_threads_that_hang_is_not_kept() -> None:
    """Else whoever asks for a folder on a disk that does not answer, again and again, fills the memory."""
    threads, gate = Threads("test", 1), threading.Event()
    held = threads.run(gate.wait, 60)
    for _ in range(100):
        threads.run(pow, 2, 3).cancel()
    waiting = threads.run(pow, 2, 3)
    assert len(threads._jobs) == 1
    gate.set()
    assert await waiting == 8
    assert await held


async def test_no_spare_thread_begins_for_what_gave_up() -> None:
    threads, gate = Threads("test", 1, spare=1), threading.Event()
    held = threads.run(gate.wait, 60)
    gave_up = threads.run(pow, 2, 3)
    gave_up.cancel()
    threads._relieve(next(iter(threads._jobs)))
    assert threads._to_relieve == 1
    gate.set()
    assert await held
