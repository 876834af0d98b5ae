"""The plugin `sessions`, asked over real lines."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker.audit import Audit
from rsocket_broker.errors import ApplicationError, Canceled, Invalid, Rejected
from rsocket_broker.lifecycle.sessions_plugin import RATE, SessionsPlugin
from rsocket_broker.plugin_api import App, Plugin, method
from rsocket_broker.routing.children import Children
from rsocket_broker.sessions.store import SessionStore
from rsocket_broker.sessions.tree import TreeLimits
from rsocket_broker.state import State
from tests.routing.line import Client, Line


class Echo(Plugin):
    id = "echo"

    @method("who")
    def who(self, app: App) -> str:
        return str(app.identity.principal)

    @method("never")
    async def never(self, app: App) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(tmp_path / "home" / "state.db") as opened:
        yield opened


def served(state: State | None = None, limits: TreeLimits | None = None, **options: Any) -> Line:
    children = Children(None if state is None else SessionStore(state, Audit(state)), limits)
    line: Line
    plugin = SessionsPlugin(children, lambda session_id: line.sessions.get(session_id), clock=lambda: line.now)
    line = Line(Echo, plugin, children=children, **options)
    return line


async def login(client: Client, **fields: object) -> dict[str, Any]:
    made: dict[str, Any] = await client.json("sessions.login", {"name": "page", **fields})
    return made


async def ended(line: Line, token: str) -> str:
    return (await line.child(token).connection.wait_closed()).public


@pytest.mark.row("W-6", "W-7", "W-8", "W-11")
async def test_a_live_session_makes_a_child_and_introspects_it() -> None:
    async with served() as line:
        parent = await line.connect()
        made = await login(parent, platform="Firefox", device_id="tab", scope=["echo.*", "sessions.*"], user="anna")
        token = made.pop("token")
        assert made["parent"] == parent.session.id
        assert (made["kind"], made["audience"], made["user"]) == ("web", "loopback", "anna")
        assert made["scope"] == ["echo.*", "sessions.*"]
        assert (made["active"], made["connected"], made["children"]) == (True, False, [])
        child = await line.connect_child(token)
        assert await child.json("echo.who") == "com.demo@dev1 (adb)"
        own = await child.json("sessions.introspect")
        assert own == {**made, "connected": True}
        assert await parent.json("sessions.introspect", {"id": made["id"]}) == own
        assert await parent.json("sessions.introspect", {"token": token}) == own
        above = await parent.json("sessions.introspect")
        assert (above["id"], above["kind"], above["children"]) == (parent.session.id, "device", [made["id"]])


@pytest.mark.row("W-8")
@pytest.mark.parametrize("field", ["parent", "parent_id"])
async def test_nobody_chooses_whose_child_it_makes(field: str) -> None:
    async with served() as line:
        parent, other = await line.connect(), await line.connect(b"com.other|dev1|adb|2")
        with pytest.raises(Invalid, match=f"{field}: the session that asks is the parent"):
            await login(parent, **{field: other.session.id})
        assert len(line.endpoint.children.tree) == 2


@pytest.mark.row("W-11")
async def test_what_is_not_below_a_session_does_not_exist_for_it() -> None:
    async with served() as line:
        parent, other = await line.connect(), await line.connect(b"com.other|dev1|adb|2")
        made = await login(parent)
        child = await line.connect_child(made["token"])
        theirs = await login(other)
        asked = (
            (other, {"id": made["id"]}),
            (other, {"token": made["token"]}),
            (other, {"id": parent.session.id}),
            (child, {"id": parent.session.id}),
            (child, {"id": theirs["id"]}),
            (parent, {"id": "s-nobody"}),
            (parent, {"token": "rsb_nobody"}),
        )
        for client, params in asked:
            for verb in ("introspect", "logout"):
                if verb == "logout" and "token" in params:
                    continue
                with pytest.raises(ApplicationError, match="no such session below"):
                    await client.json(f"sessions.{verb}", params)
        assert len(line.endpoint.children.tree) == 4


@pytest.mark.row("A-60", "W-12", "A-59")
async def test_a_logout_ends_a_session_and_all_below_it_at_once(state: State) -> None:
    async with served(state) as line:
        parent = await line.connect()
        first = await login(parent)
        child = await line.connect_child(first["token"])
        second = await login(child)
        below = await line.connect_child(second["token"])
        waiting = asyncio.ensure_future(below.ask("echo.never"))
        await below.settled()
        assert await parent.json("sessions.logout", {"id": first["id"]}) == {"ended": [second["id"], first["id"]]}
        with pytest.raises(Canceled, match="has ended"):
            await waiting
        assert "it was logged out" in (await child.connection.wait_closed()).public
        assert "it was logged out" in await ended(line, first["token"])
        assert "the session above it has ended" in await ended(line, second["token"])
        for params in ({"id": first["id"]}, {"token": first["token"]}):
            gone = await parent.json("sessions.introspect", params)
            assert (gone["active"], gone["reason"], gone["parent"]) == (False, "it was logged out", parent.session.id)
        assert (await parent.json("sessions.introspect", {"id": second["id"]}))["active"] is False


@pytest.mark.row("M-10")
async def test_a_users_logout_ends_the_sessions_bound_to_that_user() -> None:
    async with served() as line:
        parent, other = await line.connect(), await line.connect(b"com.other|dev1|adb|2")
        hers = await login(parent, user="anna")
        page = await line.connect_child(hers["token"])
        below = await login(page)
        assert below["user"] == "anna"
        his, elsewhere = await login(parent, user="bert"), await login(other, user="anna")
        with pytest.raises(ApplicationError, match="another user"):
            await login(page, user="bert")
        ended_ids = (await parent.json("sessions.logout", {"user": "anna"}))["ended"]
        assert ended_ids == [below["id"], hers["id"]]
        assert "user was logged out" in (await page.connection.wait_closed()).public
        for still in (his, elsewhere):
            assert line.endpoint.children.tree.get(still["id"]) is not None
        assert (await parent.json("sessions.logout", {"user": "anna"})) == {"ended": []}


async def test_who_logs_itself_out_gets_its_answer_first() -> None:
    async with served() as line:
        parent = await line.connect()
        made = await login(parent)
        child = await line.connect_child(made["token"])
        assert await child.json("sessions.logout") == {"ended": [made["id"]]}
        assert "it was logged out" in (await child.connection.wait_closed()).public
        again = await login(parent)
        assert await parent.json("sessions.logout") == {"ended": [again["id"], parent.session.id]}
        assert "it was logged out" in (await parent.connection.wait_closed()).public


async def test_an_app_of_flippers_asks_in_its_own_way() -> None:
    async with served() as line:
        app = await line.app()
        inner = {"api": "sessions", "method": "login", "params": {"name": "page"}}
        answer = await app.ask_json({"id": 1, "method": "execute", "params": inner})
        child = await line.connect_child(answer["success"]["token"])
        assert child.session.parent is app.session


@pytest.mark.parametrize("params", [{"id": 5}, {"id": ""}, {"id": "a", "token": "b"}, {"colour": "red"}])
async def test_a_question_that_makes_no_sense_is_refused(params: dict[str, object]) -> None:
    async with served() as line:
        parent = await line.connect()
        with pytest.raises(Invalid, match="id or token"):
            await parent.json("sessions.introspect", params)


@pytest.mark.row("A-30")
async def test_limits_are_told() -> None:
    async with served(limits=TreeLimits(children=1)) as line:
        parent = await line.connect()
        await login(parent)
        with pytest.raises(Exception, match="1 children, which is the limit"):
            await login(parent)


@pytest.mark.row("A-30")
async def test_nobody_makes_sessions_faster_than_the_disk_takes_them() -> None:
    async with served() as line:
        parent = await line.connect()
        for _ in range(int(RATE.burst)):
            made = await login(parent)
            await parent.json("sessions.logout", {"id": made["id"]})
        with pytest.raises(Rejected, match=r"too fast. Try again in 0.5 seconds"):
            await login(parent)
        line.now += 0.5
        await login(parent)
