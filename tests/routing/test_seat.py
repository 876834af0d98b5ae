"""A seat is taken, used and left."""

import asyncio
import logging

import pytest

from rsocket_broker.errors import ApplicationError
from rsocket_broker.plugin_api import App, Plugin
from rsocket_broker.routing import cost
from rsocket_broker.routing.greeting import State
from tests.routing.seats import Greeter, Trouble, ask, host_of, ready_seat, seat_at


async def test_a_plugin_knows_how_many_have_a_seat_until_each_has_left() -> None:
    seat = ready_seat(Trouble())
    assert (host_of(seat).seats, seat.ready, seat.state) == (1, True, State.CONNECTED)
    seat.close()
    seat.close()
    assert (host_of(seat).seats, seat.ready, seat.state) == (0, False, State.CLOSED)


async def test_what_apps_push_is_no_method() -> None:
    seat = ready_seat(Trouble())
    assert seat.is_method("plain")
    assert not seat.is_method("event")


async def test_what_is_served_is_known_by_its_handlers_name() -> None:
    seat = ready_seat(Trouble())
    asked = asyncio.ensure_future(ask(seat, "wait"))
    await asyncio.sleep(0)
    assert seat.running == {asked: "wait"}
    seat.app.state.event.set()
    assert (await asked).data == b'"done"'
    assert not seat.running


async def test_events_wait_for_the_greeting_and_are_let_go_with_the_seat() -> None:
    seat = seat_at(Greeter(), who="friend")
    seat.events.event("event", {}, 7)
    assert seat.events_waiting == (1, cost.of_value({}, 7))
    seat.close()
    assert seat.events_waiting == (0, 0)


async def test_a_plugin_is_told_of_an_apps_errors_and_its_own_stay_here(caplog: pytest.LogCaptureFixture) -> None:
    class Told(Plugin):
        id = "told"

        async def on_app_error(self, app: App, text: str, stack: str) -> None:
            assert (text, stack) == ("it broke", "here")
            raise ZeroDivisionError("secret")

    seat = ready_seat(Told())
    with caplog.at_level(logging.ERROR), pytest.raises(ApplicationError, match=r"internal error in told\.on_app_error"):
        await seat.told("it broke", "here")
    assert "told.on_app_error failed" in caplog.text
