"""Events, at once and in their turn."""

import logging

import pytest

from rsocket_broker.errors import Invalid
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import Proof
from rsocket_broker.plugin_api.testing import FakeApp, fake_identity
from rsocket_broker.routing.delivery import UNVERIFIED_EVENTS
from rsocket_broker.routing.event_queue import MAX_BYTES
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.seat import Seat
from rsocket_broker.routing.tasks import Tasks
from tests.routing.line import loaded, until
from tests.routing.seats import Trouble, host_of, ready_seat


async def test_fewer_events_wait_for_who_has_proved_nothing() -> None:
    host = PluginHost(loaded(Trouble())[0], Tasks())
    for proof, most in ((Proof.ADB, MAX_BYTES), (Proof.UNVERIFIED, UNVERIFIED_EVENTS)):
        seat = Seat(host, FakeApp(1, fake_identity(proof=proof), {}, {}), Tasks())
        assert seat.events._queue._most == most


async def test_plain_events_are_handled_at_once_and_trouble_with_one_is_over_with_it() -> None:
    plugin = Trouble()
    seat = ready_seat(plugin)
    for how in ("a", "bug", "meant", "exit", "b"):
        seat.events.event("event", {"how": how}, 10)
    assert plugin.seen == ["a", "bug", "meant", "exit", "b"]
    with pytest.raises(Invalid):
        seat.events.event("absent", {}, 0)


async def test_events_keep_their_order_across_kinds_and_trouble() -> None:
    plugin = Trouble()
    seat = ready_seat(plugin)
    order = ["a", "bug", "exit", "cancel", "hang", "meant", "z"]
    for number, how in enumerate(order):
        seat.events.event("event" if number % 2 else "slow-event", {"how": how}, 10)
    seat.events.fire("event", Payload(b'{"how": "last"}', None))
    assert plugin.seen == []  # one of them waits, so all behind it do
    await until(lambda: plugin.seen == [*order, "last"])
    assert host_of(seat).gate.held == 0


async def test_an_event_that_is_dropped_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        seat = ready_seat(Trouble())
        seat.events.event("event", {"how": 5}, 1)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "trouble.event: how: wanted str, got int" in caplog.messages[0]
