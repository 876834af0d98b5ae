"""Places for handlers: counted, handed on in order, never lost."""

import asyncio

import pytest

from rsocket_broker.errors import Rejected
from rsocket_broker.routing import gate as module
from rsocket_broker.routing.gate import Gate


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_places_are_handed_on_in_order() -> None:
    gate = Gate("p", 1)
    order = []

    async def one(name: str) -> None:
        await gate.enter(name)
        order.append(name)
        await asyncio.sleep(0)
        gate.leave(name)

    await asyncio.gather(*(one(name) for name in "abcd"))
    assert order == list("abcd")
    assert gate.held == 0


async def test_no_more_than_the_limit_is_inside() -> None:
    gate = Gate("p", 3)
    inside = most = 0

    async def one(name: int) -> None:
        nonlocal inside, most
        await gate.enter(name)
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        inside -= 1
        gate.leave(name)

    await asyncio.gather(*(one(number) for number in range(20)))
    assert (most, gate.held) == (3, 0)


async def test_waiting_has_an_end_in_number_and_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 1)
    monkeypatch.setattr(module, "MAX_WAIT", 0.02)
    gate = Gate("p", 1)
    await gate.enter("a")
    waiting = asyncio.create_task(gate.enter("b"))
    await turns()
    with pytest.raises(Rejected, match="requests are waiting for it"):
        await gate.enter("c")
    with pytest.raises(Rejected, match="was busy for"):
        await waiting
    with pytest.raises(Rejected, match="is busy"):
        gate.enter_now("d")
    gate.leave("a")
    gate.enter_now("d")
    assert gate.held == 1


async def test_the_patient_wait_for_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 0)
    monkeypatch.setattr(module, "MAX_WAIT", 0.0)
    gate = Gate("p", 1)
    await gate.enter("a")
    waiting = asyncio.create_task(gate.enter("b", patient=True))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    gate.leave("a")
    await waiting


async def test_who_gives_up_in_the_moment_its_turn_comes_loses_no_place() -> None:
    gate = Gate("p", 1)
    await gate.enter("a")
    waiting = asyncio.create_task(gate.enter("b"))
    next_one = asyncio.create_task(gate.enter("c"))
    await turns()
    gate.leave("a")  # b has the place now, but has not run
    waiting.cancel()
    await turns()
    assert waiting.cancelled()
    assert next_one.done()
    gate.leave("c")
    assert gate.held == 0


async def test_one_owner_cannot_hold_every_place() -> None:
    gate = Gate("p", 8)
    for _ in range(7):
        gate.enter_now("greedy")
    with pytest.raises(Rejected):
        gate.enter_now("greedy")
    blocked = asyncio.create_task(gate.enter("greedy"))
    await turns()
    await gate.enter("modest")  # past the greedy one, who waits for a place of its own
    assert not blocked.done()
    gate.leave("greedy")
    await blocked
    assert gate.held == 8


async def test_a_small_plugin_keeps_no_place_back() -> None:
    gate = Gate("p", 2)
    gate.enter_now("a")
    gate.enter_now("a")
    assert gate.held == 2
