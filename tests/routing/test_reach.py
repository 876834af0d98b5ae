"""From the client that asks a plugin to the client that is asked about."""

import asyncio
import json
from typing import Any

import pytest

from rsocket_broker.errors import ApplicationError, Canceled, Invalid, Rejected
from rsocket_broker.plugin_api import App, Plugin, method
from tests.routing.line import Line, until

OTHER = b"com.other|dev2|adb|7"


class Notes(Plugin):
    """Answers what it knows of an app."""

    id = "Notes"

    def on_connect(self, app: App) -> None:
        app.state.text = f"of {app.identity.app_id}"

    @method("read")
    async def read(self, app: App, client: str = "") -> str:
        found: str = (await app.reach(client, "read")).state.text
        return found

    @method("ask")
    async def ask(self, app: App, client: str) -> Any:
        return await (await app.reach(client, "ask")).call("tell")


async def test_a_caller_asks_about_itself_and_where_relays_are_allowed_about_others() -> None:
    async with Line(Notes, relay=True) as line:
        caller = await line.connect()
        other = await line.app(["Notes"], certificate=OTHER)
        assert await caller.json("Notes.read") == "of com.demo"
        for name in ("com.other", "com.other@dev2", other.session.id):
            assert await caller.json("Notes.read", {"client": name}) == "of com.other"
        assert await caller.json("Notes.read", {"client": caller.session.id}) == "of com.demo"


async def test_without_the_right_to_a_client_it_looks_as_if_nobody_were_there() -> None:
    async with Line(Notes) as line:
        caller = await line.connect()
        await line.app(["Notes"], certificate=OTHER)
        refusals = []
        for name in ("com.other", "com.nobody"):
            with pytest.raises(Rejected) as refused:
                await caller.json("Notes.read", {"client": name})
            refusals.append(refused.value.public.replace(name, "X"))
        assert refusals[0] == refusals[1] == 'No client "X" is connected that this client may reach.'


async def test_a_name_of_several_clients_is_invalid_and_a_client_without_the_plugin_is_named() -> None:
    async with Line(Notes, relay=True) as line:
        caller = await line.connect()
        await line.app(["Notes"], certificate=OTHER)
        bare = await line.app([], certificate=b"com.other|dev3|adb|8")
        with pytest.raises(Invalid, match="more than one client"):
            await caller.json("Notes.read", {"client": "com.other"})
        with pytest.raises(ApplicationError, match="has no plugin Notes"):
            await caller.json("Notes.read", {"client": bare.session.id})


@pytest.mark.row("D-13")
async def test_who_asks_about_a_client_that_leaves_meanwhile_is_told_so_and_no_plugin_is_blamed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def never(params: object) -> None:
        await asyncio.Event().wait()

    async with Line(Notes, relay=True) as line:
        caller = await line.connect()
        other = await line.app(["Notes"], certificate=OTHER, answers={"Notes.tell": never})
        asked = asyncio.ensure_future(caller.json("Notes.ask", {"client": "com.other"}))
        await until(lambda: other.session.to_app.waiting)
        other.served.abort()
        with pytest.raises(Canceled, match="has left"):
            await asked
        assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_plugin_that_is_not_here_is_invalid() -> None:
    async with Line(Notes) as line:
        caller = await line.connect()
        with pytest.raises(Invalid, match='no plugin "Missing"'):
            await caller.session.plugins.seat_of("Missing")
        seat = await caller.session.plugins.seat_of("Notes")
        assert seat.is_method("read")
        assert json.loads((await seat.answers.to_json("read", {})).data or b"") == "of com.demo"
