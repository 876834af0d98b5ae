"""Exchanges that are dropped while they wait."""

import asyncio

import pytest

from rsocket_broker.enrollment.pending import Exchange, Pending
from rsocket_broker.errors import EnrollmentRefused

REFUSAL = EnrollmentRefused("block list", "app org.a was revoked.", "Ask.")


async def exchange(pending: Pending, app_id: str, begun: asyncio.Event, work: "asyncio.Future[str]") -> str:
    with pending.track(app_id):
        begun.set()
        return await work


def of_a(each: Exchange) -> EnrollmentRefused | None:
    return REFUSAL if each.app_id == "org.a" else None


async def begin(pending: Pending, app_id: str) -> "tuple[asyncio.Task[str], asyncio.Future[str]]":
    begun, work = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(exchange(pending, app_id, begun, work))
    await begun.wait()
    return task, work


@pytest.mark.row("D-3")
async def test_who_is_dropped_is_told_why_and_others_go_on() -> None:
    pending = Pending()
    one, _ = await begin(pending, "org.a")
    other, work = await begin(pending, "org.b")
    assert len(pending) == 2
    assert pending.drop(of_a) == 1
    assert pending.drop(of_a) == 0, "not twice"
    with pytest.raises(EnrollmentRefused, match=r"org.a was revoked"):
        await one
    work.set_result("a certificate")
    assert await other == "a certificate"
    assert len(pending) == 0


async def test_who_is_dropped_at_the_last_moment_gets_no_answer_all_the_same() -> None:
    pending = Pending()
    task, work = await begin(pending, "org.a")
    work.set_result("a certificate")
    assert pending.drop(of_a) == 1
    with pytest.raises(EnrollmentRefused):
        await task


async def test_an_answer_that_is_there_is_not_given_after_the_drop() -> None:
    pending = Pending()

    async def served() -> str:
        with pending.track("org.a"):
            pending.drop(of_a)
            return "a certificate"

    with pytest.raises(EnrollmentRefused):
        await asyncio.create_task(served())
    assert len(pending) == 0


async def test_who_leaves_by_itself_is_cancelled_as_ever() -> None:
    pending = Pending()
    task, _ = await begin(pending, "org.a")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(pending) == 0
