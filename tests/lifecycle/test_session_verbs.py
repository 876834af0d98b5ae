"""The operator's verbs on the tree of sessions."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker.admin.endpoint import Verb, check_params
from rsocket_broker.audit import Audit
from rsocket_broker.errors import ApplicationError, Canceled, Invalid
from rsocket_broker.lifecycle.session_verbs import session_verbs
from rsocket_broker.plugin_api import App, Plugin, method
from rsocket_broker.routing.children import Children
from rsocket_broker.sessions.store import SessionStore
from rsocket_broker.state import State
from tests.routing.line import Line


class Echo(Plugin):
    id = "echo"

    @method("never")
    async def never(self, app: App) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    with State.open(tmp_path / "home" / "state.db") as state:
        yield Children(SessionStore(state, Audit(state)))


async def ask(line: Line, name: str, **params: Any) -> Any:
    verb = session_verbs(line.endpoint.children, line.sessions)[name]
    assert isinstance(verb, Verb)
    check_params(verb, params)
    result: Any = verb.run(params)
    return await result


async def test_the_list_has_parents_before_children_and_says_who_is_connected(children: Children) -> None:
    async with Line(Echo, children=children) as line:
        parent = await line.connect(claims={"app": "Demo", "os": "Linux"})
        made = await ask(line, "sessions.login", parent="com.demo", wish={"name": "bench", "kind": "cli"})
        child = await line.connect_child(made["token"])
        below = await ask(line, "sessions.login", parent=made["id"], wish={"name": "deep"})
        first, second, third = await ask(line, "sessions.list")
        assert (first["id"], first["name"], first["platform"], first["parent"]) == (
            parent.session.id,
            "Demo",
            "Linux",
            None,
        )
        assert (second["id"], second["line"], second["client"]) == (
            made["id"],
            child.session.id,
            "com.demo@dev1 (adb)",
        )
        assert (third["id"], third["line"], third["parent"]) == (below["id"], None, made["id"])
        assert "token" not in first | second | third


@pytest.mark.row("W-4", "A-59", "A-60")
async def test_a_revoke_ends_what_is_below_and_gives_a_receipt(children: Children) -> None:
    async with Line(Echo, children=children) as line:
        parent = await line.connect()
        made = await ask(line, "sessions.login", parent=parent.session.id, wish={"name": "one"})
        child = await line.connect_child(made["token"])
        below = await ask(line, "sessions.login", parent=child.session.id, wish={"name": "two"})
        waiting = asyncio.ensure_future(child.ask("echo.never"))
        await child.settled()
        receipt = await ask(line, "sessions.revoke", id=made["id"])
        assert child.served.closing is not None
        assert receipt["sessions"] == [below["id"], made["id"]]
        assert (receipt["lines"], receipt["streams"]) == (1, 1)
        assert 0 <= receipt["refused_after_ms"] <= receipt["closed_after_ms"] < 5000
        with pytest.raises(Canceled, match="the operator ended it"):
            await waiting
        await line.endpoint.stop(5.0)
        ended = [one for one in await ask(line, "sessions.list", all=True) if one["ended"] is not None]
        assert {one["id"]: one["reason"] for one in ended} == {
            below["id"]: "the session above it has ended",
            made["id"]: "the operator ended it",
        }
        assert [one["id"] for one in await ask(line, "sessions.list")] == [parent.session.id]


async def test_a_root_ends_with_its_line_and_may_come_back(children: Children) -> None:
    async with Line(Echo, children=children) as line:
        root = (await line.connect()).session.id
        receipt = await ask(line, "sessions.revoke", id="com.demo")
        assert receipt["sessions"] == [root]
        assert (receipt["lines"], len(line.sessions)) == (1, 0)
        await line.connect()
        assert len(line.sessions) == 1


@pytest.mark.row("M-10")
async def test_a_user_is_logged_out_everywhere(children: Children) -> None:
    async with Line(Echo, children=children) as line:
        for certificate in (b"com.a|dev1|adb|1", b"com.b|dev1|adb|2"):
            root = await line.connect(certificate)
            hers = await ask(line, "sessions.login", parent=root.session.id, wish={"name": "x", "user": "anna"})
            await ask(line, "sessions.login", parent=hers["id"], wish={"name": "y"})
            await ask(line, "sessions.login", parent=root.session.id, wish={"name": "z", "user": "bert"})
        receipt = await ask(line, "sessions.revoke", user="anna")
        assert len(receipt["sessions"]) == 4
        left = await ask(line, "sessions.list")
        assert sorted(one["user"] for one in left) == ["", "", "bert", "bert"]
        with pytest.raises(ApplicationError, match="No session belongs"):
            await ask(line, "sessions.revoke", user="anna")


@pytest.mark.parametrize(
    ("name", "params", "error"),
    [
        ("sessions.revoke", {}, ApplicationError),
        ("sessions.revoke", {"id": "c1", "user": "anna"}, ApplicationError),
        ("sessions.revoke", {"id": "nobody"}, ApplicationError),
        ("sessions.login", {"parent": "nobody", "wish": {"name": "x"}}, ApplicationError),
        ("sessions.login", {"parent": "c1", "wish": {}}, Invalid),
        ("sessions.login", {"parent": "c1", "wish": {"name": "x", "parent": "c2"}}, Invalid),
    ],
)
async def test_what_makes_no_sense_is_refused(
    children: Children, name: str, params: dict[str, Any], error: type[Exception]
) -> None:
    async with Line(Echo, children=children) as line:
        await line.connect()
        with pytest.raises(error):
            await ask(line, name, **params)


async def test_a_session_that_is_over_is_not_taken_for_a_client(children: Children) -> None:
    async with Line(Echo, children=children) as line:
        await line.connect()
        for name, params in (
            ("sessions.revoke", {"id": "s-gone"}),
            ("sessions.login", {"parent": "s-gone", "wish": {"name": "x"}}),
        ):
            with pytest.raises(
                ApplicationError, match=r"^No session 's-gone' lives\. See: rsocket-broker sessions list"
            ):
                await ask(line, name, **params)
