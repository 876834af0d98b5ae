"""Who stalls whom."""

import pytest

from rsocket_broker import pressure
from rsocket_broker.pressure import FEEDER_PAUSE, RELAY_QUEUE, Pressure
from rsocket_broker.protocol.limits import SECURE
from tests.two_sides import until


class Part:
    """A Pressure whose clock stands still, and how often it was asked to think again."""

    def __init__(self) -> None:
        self.now = 10.0
        self.changes: list[bool] = []
        self.pressure = Pressure(lambda: self.now, lambda: self.changes.append(self.pressure.held))


@pytest.fixture
async def parts() -> tuple[Part, Part, Part]:
    return Part(), Part(), Part()


@pytest.mark.row("A-38", "D-11")
async def test_a_feeder_is_held_while_the_slow_one_is_behind(parts: tuple[Part, Part, Part]) -> None:
    slow, feeder, _ = parts
    slow.pressure.hold(feeder.pressure)
    assert feeder.changes == [], "nobody is behind"
    slow.pressure.begin()
    slow.now = 12.0
    slow.pressure.begin()
    slow.pressure.hold(feeder.pressure)
    slow.pressure.hold(feeder.pressure)
    assert feeder.changes == [True]
    feeder.now, slow.now = 10.25, 13.0
    assert (slow.pressure.stalled_seconds, feeder.pressure.held_seconds) == (3.0, 0.25)
    slow.pressure.end()
    assert feeder.changes == [True, False]
    slow.now = feeder.now = 99.0
    assert (slow.pressure.stalled_seconds, feeder.pressure.held_seconds) == (3.0, 0.25)


@pytest.mark.row("D-11")
async def test_a_feeder_is_not_held_for_long_nor_twice_for_one_stall(
    parts: tuple[Part, Part, Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pressure, "FEEDER_PAUSE", 0.01)
    slow, feeder, other = parts
    slow.pressure.begin()
    slow.pressure.hold(feeder.pressure)
    await until(lambda: feeder.changes == [True, False])
    slow.pressure.hold(feeder.pressure)
    assert len(slow.pressure.feeders) == 1
    assert not feeder.pressure.held, "it has waited long enough for that one"
    other.pressure.begin()
    other.pressure.hold(feeder.pressure)
    assert feeder.pressure.held, "but not for another"
    slow.pressure.end()
    slow.pressure.begin()
    slow.pressure.hold(feeder.pressure)
    other.pressure.end()
    assert feeder.pressure.held, "and the first had caught up in between"
    slow.pressure.end()
    assert feeder.changes == [True, False, True, False]


@pytest.mark.row("A-45")
@pytest.mark.parametrize("spared", [False, True])
async def test_whoever_ends_holds_nobody_and_is_forgotten(
    parts: tuple[Part, Part, Part], monkeypatch: pytest.MonkeyPatch, *, spared: bool
) -> None:
    if spared:
        monkeypatch.setattr(pressure, "FEEDER_PAUSE", 0.001)
    slow, feeder, other = parts
    for one in (slow, other):
        one.pressure.begin()
        one.pressure.hold(feeder.pressure)
    if spared:
        await until(lambda: not feeder.pressure.held)
    slow.pressure.close()
    assert feeder.pressure.held is not spared
    feeder.pressure.close()
    other.pressure.end()
    for one in parts:
        each = one.pressure
        assert not each._feeders and not each._slow and not each._spared and not each._sparing


async def test_two_that_feed_each_other_do_not_stand_still_for_ever(
    parts: tuple[Part, Part, Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pressure, "FEEDER_PAUSE", 0.01)
    one, other, _ = parts
    for slow, feeder in ((one, other), (other, one)):
        slow.pressure.begin()
        slow.pressure.hold(feeder.pressure)
    await until(lambda: not one.pressure.held and not other.pressure.held)
    one.pressure.hold(one.pressure)
    assert not one.pressure.held


def test_a_relay_never_fills_the_budget_of_a_connection() -> None:
    """Otherwise what one client sends could cost another its connection."""
    assert RELAY_QUEUE + SECURE.frame < SECURE.outgoing
    assert FEEDER_PAUSE < 1
