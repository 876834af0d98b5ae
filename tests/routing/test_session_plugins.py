"""The plugins' life in a session: which side of the app is spoken to, and who gets a seat."""

from typing import Any

import pytest

from rsocket_broker.errors import ConnectionClosed, Invalid
from rsocket_broker.plugin_api import App, ApplicationError, Plugin, method
from rsocket_broker.sessions.live import Kind
from tests.routing.line import FLIPPER_CLAIMS, Line, until


class Keeper(Plugin):
    """Has a side in the app."""

    id = "Keeper"


class Needless(Plugin):
    """Needs none."""

    id = "Needless"
    needs_app = False

    @method("name")
    def name(self, app: App) -> str:
        return app.name


async def test_an_app_that_learns_to_speak_json_is_spoken_to_in_it() -> None:
    lists: Any = {"error": {"message": "not yet"}}

    async def get_plugins(params: object) -> Any:
        return lists

    answers = {"getPlugins": get_plugins, "getBackgroundPlugins": {"error": "none"}, "P.m": {"success": 7}}
    async with Line(Keeper) as line:
        app = await line.connect(claims=FLIPPER_CLAIMS, answers=answers)
        await until(lambda: app.session.kind is Kind.ROUTED)
        lists = {"success": {"plugins": ["P"]}}
        app.tell({"method": "refreshPlugins"})
        await until(lambda: app.session.kind is Kind.FLIPPER)
        assert await app.session.to_app.call("P", "m") == 7


async def test_a_plugin_that_needs_no_app_can_be_asked_about_one_without_it() -> None:
    async with Line(Needless, Keeper) as line:
        app = await line.app([])
        assert (await app.session.plugins.seat_of("Needless")).app.id == app.session.id
        with pytest.raises(ApplicationError, match="has no plugin Keeper"):
            await app.session.plugins.seat_of("Keeper")


async def test_what_is_asked_of_a_plugin_is_refused_where_it_cannot_be() -> None:
    async with Line(Keeper) as line:
        app = await line.app(["Keeper"])
        with pytest.raises(Invalid, match='has no plugin "Nobody"'):
            await app.session.plugins.seat_of("Nobody")
        assert list(app.session.plugins.seats) == ["Keeper"]
        assert list(app.session.plugins.events_waiting()) == [("Keeper", 0, 0)]


@pytest.mark.row("D-13")
async def test_a_session_that_has_ended_takes_no_seat() -> None:
    async with Line(Needless) as line:
        client = await line.connect()
        session, host = client.session, line.endpoint.router.hosts["Needless"]
        client.served.abort()
        with pytest.raises(ConnectionClosed):
            await session.plugins.seat_of("Needless")
        with pytest.raises(ConnectionClosed):
            session.seat(host)
        assert (host.seats, dict(session.plugins.seats)) == (0, {})
