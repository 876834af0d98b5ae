"""The old inspector on the bench, with Android's and iOS's apps."""

import asyncio
from typing import Any

import pytest

from rsocket_broker.plugin_api import ApplicationError, Canceled, ConnectionClosed, Invalid
from rsocket_broker.plugin_api.testing import running
from rsocket_broker.plugins.layout import Inspector, inspector
from tests.plugins.layout.shapes import ANDROID_OLD, IOS_OLD, old_answers, old_node
from tests.until import until


async def never(params: object) -> object:
    return await asyncio.Event().wait()


@pytest.mark.parametrize("all_at_once", [True, False])
async def test_the_tree_comes_all_at_once_or_node_by_node(all_at_once: bool) -> None:
    async with running(Inspector) as bench:
        client = await bench.connect(answers=old_answers(ANDROID_OLD, "1", all_at_once=all_at_once))
        assert (await client.request("tree"))["nodes"] == 4
        assert client.app.awake
        asked = [name for name, _ in client.received]
        assert asked == (["getAllNodes"] if all_at_once else ["getRoot", "getNodes", "getNodes"])
        found = await client.request("find", {"text": "pay"})
        assert [one["id"] for one in found["views"]] == ["4"]


async def test_views_that_are_gone_meanwhile_are_left_out() -> None:
    nodes = {**ANDROID_OLD, "1": old_node("1", "DecorView", ["2", "gone", "3"])}
    async with running(Inspector) as bench:
        client = await bench.connect(answers=old_answers(nodes, "1", all_at_once=False))
        assert (await client.request("tree"))["nodes"] == 4


async def test_a_great_many_views_are_asked_for_in_batches_and_too_many_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = {"0": old_node("0", "A", [str(number) for number in range(1, 250)])}
    many |= {str(number): old_node(str(number), "B", []) for number in range(1, 250)}
    async with running(Inspector) as bench:
        client = await bench.connect(answers=old_answers(many, "0", all_at_once=False))
        assert (await client.request("tree"))["nodes"] == 250
        assert [len(params["ids"]) for name, params in client.received if name == "getNodes"] == [100, 100, 49]  # type: ignore[index]
        monkeypatch.setattr(inspector, "MAX_NODES", 100)
        for all_at_once in (True, False):
            other = await bench.connect(answers=old_answers(many, "0", all_at_once=all_at_once))
            with pytest.raises(ApplicationError, match="more than 100"):
                await other.request("tree")


@pytest.mark.row("M-7")
@pytest.mark.parametrize("hostile", ["children", "data", "strangers"])
async def test_an_app_whose_views_never_end_is_given_up(monkeypatch: pytest.MonkeyPatch, hostile: str) -> None:
    monkeypatch.setattr(inspector, "MAX_NODES", 300)
    monkeypatch.setattr(inspector, "MAX_WEIGHT", 300_000)
    asked = 0

    async def some(params: dict[str, Any]) -> object:
        nonlocal asked
        asked += 1
        begin = asked * 10_000
        more = [f"{begin + number}" for number in range(200 if hostile == "children" else 1)]
        nodes = [old_node(one, "V", more) for one in params["ids"]]
        if hostile == "data":
            nodes[0]["data"] = {"View": "x" * 100_000}
        if hostile == "strangers":
            nodes += [old_node(f"stranger {begin + number}", "V", []) for number in range(200)]
        return {"elements": nodes}

    async with running(Inspector) as bench:
        client = await bench.connect(answers={"getRoot": old_node("0", "A", ["1"]), "getNodes": some})
        with pytest.raises(ApplicationError, match="more than 300 views, or they take more than"):
            await client.request("tree")
        assert asked <= 5


async def test_a_picture_is_of_the_whole_screen_or_of_one_view() -> None:
    answers = old_answers(ANDROID_OLD, "1", all_at_once=True)
    async with running(Inspector) as bench:
        client = await bench.connect(answers=answers)
        assert (await client.request("snapshot"))["id"] == "1"
        assert (await client.request("snapshot", {"node_id": "4"}))["id"] == "4"
        client.app.answers["getSnapshot"] = {"error": "no such view", "id": "4"}
        with pytest.raises(ApplicationError, match="took no picture: no such view"):
            await client.request("snapshot", {"node_id": "4"})


async def test_a_value_is_set_with_an_answer_on_android_and_without_on_ios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspector, "MUTE", 0.02)
    setting = {"node_id": "2", "path": ["View", "alpha"], "value": 0.5}
    sent = {"id": "2", "path": ["View", "alpha"], "value": {"kind": "number", "data": 0.5}, "ax": False}
    async with running(Inspector) as bench:
        android = await bench.connect(answers=old_answers(ANDROID_OLD, "1", all_at_once=True), os="Android")
        await android.request("set", setting)
        assert android.received == [("setData", sent)]
        android.app.answers["setData"] = never
        with pytest.raises(ApplicationError, match="no view '2' any more"):
            await android.request("set", setting)
        ios = await bench.connect(answers={"setData": never}, os="iOS")
        await ios.request("set", setting)
        assert ios.received == [("setData", sent)]


async def test_a_view_is_highlighted_and_no_longer() -> None:
    async with running(Inspector) as bench:
        client = await bench.connect(answers={"setHighlighted": {}})
        await client.request("highlight", {"node_id": "2"})
        await client.request("highlight")
        assert [params for _, params in client.received] == [
            {"id": "2", "isAlignmentMode": False},
            {"id": None, "isAlignmentMode": False},
        ]


async def test_search_mode_is_always_switched_off_again() -> None:
    modes = [("setSearchActive", {"active": True}), ("setSearchActive", {"active": False})]
    async with running(Inspector) as bench:
        client = await bench.connect()
        picking = asyncio.ensure_future(client.request("pick"))
        await until(lambda: client.received)
        with pytest.raises(ApplicationError, match="already"):
            await client.request("pick")
        await client.event("select", {"path": ["1", "3", "4"], "tree": {"1": {}}})
        assert await picking == {"path": ["1", "3", "4"]}
        assert client.received == modes
        with pytest.raises(Canceled, match="Nobody tapped"):
            await client.request("pick", {"timeout": 0.01})
        assert client.received == modes * 2
        stopped = asyncio.ensure_future(client.request("pick"))
        await until(lambda: len(client.received) == 5)
        stopped.cancel()
        await asyncio.wait([stopped])
        await until(lambda: client.received == modes * 3)
        await client.event("select", {"path": ["1"]})
        with pytest.raises(Invalid, match="timeout"):
            await client.request("pick", {"timeout": 0})


async def test_an_app_that_leaves_while_somebody_picks(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(Inspector) as bench:
        client = await bench.connect()
        picking = asyncio.ensure_future(client.request("pick"))
        await until(lambda: client.received)

        async def gone(method: str, params: object = None) -> None:
            raise ConnectionClosed("the session has ended")

        monkeypatch.setattr(client.app, "send", gone)
        picking.cancel()
        await asyncio.wait([picking])
        assert picking.cancelled()
        assert client.app.state.tapped is None


async def test_the_apps_touches_are_given_back_before_the_broker_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspector, "GLANCE", 0.01)
    async with running(Inspector) as bench:
        client = await bench.connect()
        picking = asyncio.ensure_future(client.request("pick"))
        await until(lambda: client.received)
        client.app.going = True
        with pytest.raises(Canceled, match="the session ends"):
            await picking
        assert client.received[-1] == ("setSearchActive", {"active": False})


async def test_changes_wake_whoever_waits() -> None:
    answers = old_answers(dict(IOS_OLD), "a", all_at_once=False)
    async with running(Inspector) as bench:
        client = await bench.connect(answers=answers, os="iOS")
        waiting = asyncio.ensure_future(client.request("wait", {"text": "paid", "timeout": 5}))
        await until(lambda: len(client.received) >= 2)
        answers_now: dict[str, Any] = old_answers(
            {"a": old_node("a", "UILabel", [], data={"UILabel": {"text": "Paid"}})}, "a", all_at_once=False
        )
        client.app.answers.update(answers_now)
        await client.event("invalidateWithData", {"nodes": []})
        assert (await waiting)["id"] == "a"


@pytest.mark.row("M-7")
async def test_malformed_messages_are_refused_or_told_as_the_apps_fault() -> None:
    async with running(Inspector) as bench:
        client = await bench.connect(answers={"getRoot": {"name": "no id"}, "getNodes": {}})
        with pytest.raises(ApplicationError, match="views make no sense"):
            await client.request("tree")
        client.app.answers["getAllNodes"] = {"allNodes": {"elements": [1]}}
        with pytest.raises(ApplicationError, match="views make no sense"):
            await client.request("tree")
        for name, params in [("select", {"path": "1"}), ("select", []), ("invalidate", [])]:
            with pytest.raises(Invalid):
                await client.event(name, params)
        for name in ("invalidate", "invalidateAX", "selectAX", "axFocusEvent", "track", "resolvePath", "openInIDE"):
            await client.event(name, {"nodes": [{"id": "1"}]})
