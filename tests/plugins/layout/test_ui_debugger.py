"""The new inspector on the bench: the newest frame and nothing older, of both platforms."""

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import pytest

from rsocket_broker.plugin_api import ApplicationError, Invalid
from rsocket_broker.plugin_api.testing import Bench, Client, running
from rsocket_broker.plugins.layout import UiDebugger, ui_debugger
from tests.plugins.layout.shapes import ANDROID_FRAME, IOS_FRAME, METADATA, PNG, new_node
from tests.until import until


async def streaming(bench: Bench, frame: dict[str, Any], **options: Any) -> Client:
    """An app that begins to push frames when its side is started."""
    client: Client
    tasks: set[asyncio.Future[None]] = set()

    async def push() -> None:
        await client.event(
            "init", {"rootId": 1, "supportedTraversalModes": ["view-hierarchy", "accessibility-hierarchy"]}
        )
        await client.event("metadataUpdate", METADATA)
        await client.event("frameScan", frame)

    def init(params: object) -> dict[str, object]:
        tasks.add(asyncio.ensure_future(push()))
        return {}

    client = await bench.connect(answers={"init": init, "editAttribute": {}}, **options)
    return client


async def test_the_first_question_starts_the_app_and_waits_for_its_first_frame() -> None:
    async with running(UiDebugger) as bench:
        client = await streaming(bench, ANDROID_FRAME)
        assert not client.app.awake
        assert (await client.request("tree"))["nodes"] == 3
        views = (await client.request("find", {"text": "cart"}))["views"]
        assert [one["id"] for one in views] == ["2"]
        assert (await client.request("find", {"text": "hidden"}))["views"] == []
        assert len((await client.request("find", {"text": "hidden", "hidden": True}))["views"]) == 1
        picture = await client.request("snapshot")
        assert (picture["id"], base64.b64decode(picture["png"])) == ("1", PNG)
        with pytest.raises(Invalid, match="picture of view 1 alone"):
            await client.request("snapshot", {"node_id": "2"})


async def test_only_the_newest_frame_is_kept() -> None:
    async with running(UiDebugger) as bench:
        client = await streaming(bench, ANDROID_FRAME)
        await client.request("tree")
        waiting = asyncio.ensure_future(client.request("wait", {"text": "paid", "timeout": 5}))
        await asyncio.sleep(0.01)
        await client.event(
            "frameScan", {"nodes": [new_node(9, None, "TextView", [], inlineAttributes={"text": "Paid"})]}
        )
        assert (await waiting)["id"] == "9"
        assert (await client.request("tree"))["nodes"] == 1


async def test_a_side_that_was_stopped_meanwhile_begins_anew() -> None:
    async with running(UiDebugger) as bench:
        client = await streaming(bench, IOS_FRAME, os="iOS")
        assert (await client.request("tree"))["nodes"] == 2
        await client.event("frameScan", ANDROID_FRAME)
        client.app.awake = False  # nobody asked for a while
        assert (await client.request("tree"))["nodes"] == 2
        with pytest.raises(ApplicationError, match="no picture"):
            await client.request("snapshot")
        await client.request("mode", {"mode": "accessibility-hierarchy"})
        assert client.received[-1] == ("onTraversalModeChange", {"mode": "accessibility-hierarchy"})
        with pytest.raises(Invalid, match="view-hierarchy, accessibility-hierarchy"):
            await client.request("mode", {"mode": "x"})


async def test_attributes_are_set_by_their_names() -> None:
    async with running(UiDebugger) as bench:
        client = await streaming(bench, ANDROID_FRAME)
        await client.request("set", {"node_id": "2", "path": ["View", "alpha"], "value": 0.5})
        await client.request("set", {"node_id": "2", "path": ["View", "padding", "LEFT"], "value": 3})
        edits = [params for name, params in client.received if name == "editAttribute"]
        assert edits == [
            {"nodeId": 2, "value": 0.5, "metadataIdPath": [1, 2]},
            {"nodeId": 2, "value": 3, "metadataIdPath": [1, 5], "compoundTypeHint": "LEFT"},
        ]
        with pytest.raises(ApplicationError, match="cannot be changed"):
            await client.request("set", {"node_id": "2", "path": ["TextView", "text"], "value": "x"})


async def test_an_app_that_shows_nothing_is_told_of_with_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui_debugger, "FIRST_FRAME", 0.05)
    async with running(UiDebugger) as bench:
        client = await bench.connect()
        asking = asyncio.ensure_future(client.request("tree"))
        await until(lambda: client.app.awake)
        await client.event(
            "traversalError", {"nodeName": "V", "errorType": "X", "errorMessage": "no window", "stack": ""}
        )
        with pytest.raises(ApplicationError, match=r"showed nothing within 0\.05 s.*no window.*foreground"):
            await asking


@pytest.mark.row("M-7")
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("frameScan", {"nodes": []}),
        ("frameScan", []),
        ("subtreeUpdate", {"nodes": [{}]}),
        ("metadataUpdate", {"attributeMetadata": []}),
        ("init", {"supportedTraversalModes": "x"}),
        ("init", {"supportedTraversalModes": ["x"] * 100}),
        ("traversalError", {"errorMessage": []}),
    ],
)
async def test_malformed_messages_are_refused_and_the_frame_stays(name: str, params: object) -> None:
    async with running(UiDebugger) as bench:
        client = await streaming(bench, ANDROID_FRAME)
        await client.request("tree")
        table = dict(client.app.state.table)
        with pytest.raises(Invalid):
            await client.event(name, params)
        if name != "init":
            assert (await client.request("tree"))["nodes"] == 3
            assert client.app.state.table == table


@pytest.mark.row("M-7")
async def test_the_table_of_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui_debugger, "MAX_METADATA", 5)
    async with running(UiDebugger) as bench:
        client = await bench.connect()
        await client.event("metadataUpdate", METADATA)
        await client.event("metadataUpdate", METADATA)
        with pytest.raises(Invalid, match="more than 5 attributes"):
            await client.event("metadataUpdate", {"attributeMetadata": {"99": {"name": "x"}}})


async def test_what_is_of_no_use_is_taken_and_let_go() -> None:
    no_use: Callable[[str], dict[str, object]] = lambda name: {"txId": 1, "name": name}  # noqa: E731
    async with running(UiDebugger) as bench:
        client = await bench.connect()
        for name in ("performanceStats", "setTraversalMode"):
            await client.event(name, no_use(name))
        await client.event("subtreeUpdate", {"rootId": 1, "nodes": ANDROID_FRAME["nodes"], "snapshot": ""})
        assert client.app.state.frames == 1
