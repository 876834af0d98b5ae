"""Rates, turns and quiet logs."""

import asyncio
import contextlib

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.enrollment.throttle import (
    LOOP_EXCHANGES,
    LOOP_S,
    PER_MINUTE,
    EnrollmentLimits,
    Note,
    Rate,
    RateLimiter,
    Repeats,
    Turns,
    too_often,
)
from rsocket_broker.errors import EnrollmentRefused

IMPATIENT = EnrollmentLimits(running=2, waiting=2, wait_s=0.02)
PATIENT = attrs.evolve(IMPATIENT, wait_s=30)


@pytest.mark.row("A-10")
def test_a_burst_and_then_a_pace() -> None:
    limiter = RateLimiter(Rate(3, 0.5))
    assert [limiter.take("a", 100) for _ in range(4)] == [0, 0, 0, 2]
    assert limiter.take("a", 101) == 1
    assert limiter.take("a", 102) == 0
    assert limiter.take("a", 102) == 2
    assert limiter.take("b", 102) == 0
    assert [limiter.take("a", 9999) for _ in range(4)] == [0, 0, 0, 2]


@pytest.mark.row("A-10")
def test_who_only_looks_takes_nothing() -> None:
    limiter = RateLimiter(Rate(2, 0.5))
    assert [limiter.wait("a", 100) for _ in range(5)] == [0] * 5
    assert [limiter.take("a", 100) for _ in range(2)] == [0, 0]
    assert [limiter.wait("a", 100) for _ in range(5)] == [2] * 5 == [limiter.take("a", 100) for _ in range(5)]
    assert limiter.wait("a", 101) == 1 and limiter.wait("a", 102) == 0 == limiter.take("a", 102)


@pytest.mark.row("A-10")
@given(st.lists(st.floats(0, 10), max_size=200))
def test_no_pattern_of_asking_gets_more_than_the_rate(pauses: list[float]) -> None:
    limiter, now, granted = RateLimiter(Rate(5, 1)), 0.0, 0
    for pause in pauses:
        now += pause
        granted += limiter.take("a", now) == 0
    assert granted <= 5 + now + 1e-6


@pytest.mark.row("A-10")
def test_a_flood_of_names_is_forgotten_oldest_first() -> None:
    limiter = RateLimiter(Rate(1, 0.001), max_keys=100)
    limiter.take("mine", 0)
    for number in range(99):
        limiter.take(number, 0)
        assert limiter.take("mine", 0) > 0
    for number in range(1000):
        limiter.take(number, 1)
    assert len(limiter._buckets) == 100


@pytest.mark.row("F-29")
async def test_one_at_a_time_for_each_app() -> None:
    turns, order, gate = Turns(PATIENT), [], asyncio.Event()

    async def work(app: str) -> None:
        async with turns.admitted(app):
            order.append(f"{app} begins")
            await gate.wait()
            order.append(f"{app} ends")

    async with asyncio.TaskGroup() as group:
        for app in ("a", "a", "b"):
            group.create_task(work(app))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == ["a begins", "b begins"]
        gate.set()
    assert order[-2:] == ["a begins", "a ends"]
    assert not turns._locks


@pytest.mark.row("A-10")
async def test_more_than_may_run_wait_and_more_than_may_wait_are_refused() -> None:
    turns, gate = Turns(PATIENT), asyncio.Event()

    async def work(app: int) -> str:
        try:
            async with turns.admitted(app):
                await gate.wait()
                return "served"
        except EnrollmentRefused as refused:
            assert refused.step == "limits"
            return refused.reason

    tasks = [asyncio.ensure_future(work(app)) for app in range(6)]
    await asyncio.sleep(0.01)
    assert [task.done() for task in tasks] == [False] * 4 + [True] * 2
    gate.set()
    assert await asyncio.gather(*tasks) == ["served"] * 4 + ["too many enrolments are waiting."] * 2
    assert await work(7) == "served"


@pytest.mark.row("A-10", "A-13")
async def test_nobody_waits_for_ever() -> None:
    turns = Turns(IMPATIENT)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(turns.admitted("a"))
        with pytest.raises(EnrollmentRefused, match="another enrolment of the same app is still at work"):
            await stack.enter_async_context(turns.admitted("a"))
        await stack.enter_async_context(turns.admitted("b"))
        with pytest.raises(EnrollmentRefused, match="too many enrolments are at work"):
            await stack.enter_async_context(turns.admitted("c"))
    async with turns.admitted("a"), turns.admitted("c"):
        pass
    assert not turns._locks


async def test_one_who_goes_away_while_waiting_leaves_no_trace() -> None:
    turns = Turns(PATIENT)

    async def wait() -> None:
        async with turns.admitted("a"):
            pytest.fail("it was another's turn")

    async with turns.admitted("a"):
        waiting = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert not turns._locks
    assert turns._admitted == 0
    async with turns.admitted("a"):
        pass


def test_the_same_failure_every_two_seconds_is_told_once_and_then_that_it_loops_once() -> None:
    repeats = Repeats()
    notes = [repeats.note("app", "refused", 100 + 2 * number) for number in range(60)]
    assert notes[0] is Note.LINE
    assert notes[LOOP_EXCHANGES - 1] is Note.LOOPING
    assert {note for number, note in enumerate(notes) if number not in (0, LOOP_EXCHANGES - 1)} == {Note.NOTHING}


def test_another_failure_or_another_app_is_news() -> None:
    repeats = Repeats()
    assert repeats.note("app", "refused", 0) is Note.LINE
    assert repeats.note("other", "refused", 0) is Note.LINE
    assert repeats.note("app", "busy", 1) is Note.LINE
    assert repeats.note("app", "refused", 2) is Note.LINE


def test_the_same_failure_after_a_pause_is_news_again() -> None:
    repeats = Repeats()
    assert repeats.note("app", "refused", 0) is Note.LINE
    assert repeats.note("app", "refused", LOOP_S) is Note.NOTHING
    assert repeats.note("app", "refused", 2 * LOOP_S + 1) is Note.LINE


def test_slow_repeats_are_no_loop() -> None:
    repeats = Repeats()
    assert Note.LOOPING not in {repeats.note("app", "refused", 15 * number) for number in range(20)}


def test_a_flood_of_apps_is_forgotten_oldest_first() -> None:
    repeats = Repeats(max_keys=10)
    for number in range(100):
        repeats.note(number, "refused", 0)
    assert len(repeats._apps) == 10
    assert repeats.note(99, "refused", 0) is Note.NOTHING


@pytest.mark.row("A-10", "A-13")
def test_who_asks_too_often_is_told_when_to_come_again() -> None:
    assert too_often("org.example.demo", 0.2).public == "limits: org.example.demo asked too often. Try again in 1 s."
    assert too_often("this address", 7.4).remedy == "Try again in 7 s."


@pytest.mark.row("A-10")
def test_one_number_sets_the_rates_and_the_default_is_what_it_gives() -> None:
    assert EnrollmentLimits.of(PER_MINUTE) == EnrollmentLimits()
    few = EnrollmentLimits.of(6)
    assert (few.overall, few.per_peer) == (Rate(10, 0.1), Rate(5, 0.025))
