"""An app reports an error outside any request: the plugins that ask for it are told, and nobody else is disturbed."""

import asyncio

import pytest

from rsocket_broker.plugin_api import App, Plugin
from tests.routing.line import Line, until


class Listener(Plugin):
    """Keeps what it is told; takes its time, or fails, at will."""

    id = "Listener"

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.free = asyncio.Event()
        self.free.set()

    async def on_app_error(self, app: App, text: str, stack: str) -> None:
        await self.free.wait()
        if text == "break":
            raise RuntimeError("listener")
        self.told.append((text, stack))


class Deaf(Plugin):
    id = "Deaf"


@pytest.mark.row("A-56")
async def test_plugins_that_listen_are_told_in_order_whether_the_app_has_them_or_not() -> None:
    listener = Listener()
    async with Line(listener, Deaf) as line:
        app = await line.app(["Deaf"])
        app.tell({"error": {"message": "boom", "stacktrace": "at a\nat b", "name": "X"}})
        app.tell({"error": {"message": "break"}})
        app.tell({"error": {"message": "again", "stacktrace": 7}})
        await until(lambda: len(listener.told) == 2)
        assert listener.told == [("boom", "at a\nat b"), ("again", "")]
        assert "Deaf" in app.session.plugins.seats


@pytest.mark.row("M-7")
async def test_a_flood_of_reports_is_bounded_and_ends_with_the_session() -> None:
    listener = Listener()
    listener.free.clear()
    async with Line(listener) as line:
        app = await line.app([])
        for _ in range(2500):
            app.tell({"error": {"message": "m"}})
        await app.settled()
        await until(lambda: app.session.plugins.app_errors._queue.dropped > 0)
        await app.connection.close()
        await until(lambda: app.side.ended)
        listener.free.set()
        await until(lambda: not len(app.responder.session.tasks) if app.responder.session else True)
        assert len(listener.told) <= 1


async def test_nobody_listens_and_nothing_is_kept() -> None:
    async with Line(Deaf) as line:
        app = await line.app([])
        app.tell({"error": {"message": "m"}})
        await app.settled()
        assert app.session.plugins.app_errors._queue.load == (0, 0)
        assert not app.session.plugins.seats
