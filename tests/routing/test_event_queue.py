"""Events: in order, bounded, and nobody's burden once their session has ended."""

import asyncio

import pytest

from rsocket_broker.quota import STEP, Holding, House, Kind
from rsocket_broker.routing import event_queue as module
from rsocket_broker.routing.event_queue import EventQueue
from rsocket_broker.routing.tasks import Tasks


class Slow:
    """A handler that waits to be let go."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.gate = asyncio.Event()

    async def handle(self, item: int) -> None:
        await self.gate.wait()
        self.seen.append(item)


async def settle(tasks: Tasks) -> None:
    await tasks.wait(1.0)


async def test_events_wait_until_the_queue_is_opened_and_keep_their_order() -> None:
    slow, tasks = Slow(), Tasks()
    queue: EventQueue[int] = EventQueue("p", slow.handle, tasks)
    slow.gate.set()
    for number in range(100):
        queue.put(number, 1)
    await asyncio.sleep(0)
    assert slow.seen == []
    queue.open(True)
    await settle(tasks)
    assert slow.seen == list(range(100))
    assert queue.idle


@pytest.mark.parametrize(("events", "size", "kept"), [(3, 0, [0, 1, 2, 3]), (99, 40, [0, 1, 2])])
async def test_a_full_queue_drops_and_says_so_once_with_a_count(
    events: int, size: int, kept: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MAX_EVENTS", events)
    monkeypatch.setattr(module, "MAX_BYTES", 120)
    slow, tasks = Slow(), Tasks()
    queue: EventQueue[int] = EventQueue("p from c1", slow.handle, tasks)
    queue.open(True)
    queue.put(0, size)
    await asyncio.sleep(0)  # the first is being handled; it counts by its bytes, not by its number
    for number in range(1, 10):
        queue.put(number, size)
    slow.gate.set()
    await settle(tasks)
    assert slow.seen == kept
    dropped = 10 - len(kept)
    assert caplog.messages == [f"{dropped} events for p from c1 were dropped: they came faster than handled"]


async def test_an_event_alone_may_be_of_any_size() -> None:
    slow, tasks = Slow(), Tasks()
    queue: EventQueue[int] = EventQueue("p", slow.handle, tasks)
    queue.open(True)
    slow.gate.set()
    queue.put(1, module.MAX_BYTES * 2)
    await settle(tasks)
    assert slow.seen == [1]


@pytest.mark.row("M-15", "A-38")
async def test_the_events_of_all_queues_of_a_client_count_together() -> None:
    house = House(4 * STEP)
    holdings = [Holding(house.of("a")) for _ in range(2)]
    slow, tasks = Slow(), Tasks()
    first, second = (EventQueue[int]("p", slow.handle, tasks, holding=holding) for holding in holdings)
    for number in range(3):
        first.put(number, STEP)
    second.put(3, 2 * STEP)
    assert (first.dropped, second.dropped) == (0, 1)
    second.put(4, STEP)
    assert house.by_kind[Kind.EVENTS] == 4 * STEP
    slow.gate.set()
    for queue in (first, second):
        queue.open(True)
    await settle(tasks)
    assert sorted(slow.seen) == [0, 1, 2, 4]
    assert house.used == 0
    first.put(5, STEP)
    assert house.used == STEP
    first.close()
    assert house.used == 0


async def test_a_closed_queue_lets_go_of_everything() -> None:
    slow, tasks = Slow(), Tasks()
    queue: EventQueue[int] = EventQueue("p", slow.handle, tasks)
    queue.open(True)
    queue.put(1, 1)
    queue.put(2, 1)
    await asyncio.sleep(0)
    queue.close()
    queue.put(3, 1)
    slow.gate.set()
    await settle(tasks)
    assert slow.seen == []


async def test_a_queue_that_nobody_serves_takes_nothing() -> None:
    slow, tasks = Slow(), Tasks()
    queue: EventQueue[int] = EventQueue("p", slow.handle, tasks)
    queue.put(1, 1)
    queue.open(False)
    queue.put(2, 1)
    await settle(tasks)
    assert queue.idle
    assert slow.seen == []
