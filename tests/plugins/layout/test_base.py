"""What both inspectors answer alike: tree, search, dump, waiting, pictures."""

import asyncio
import base64
import json
from xml.etree import ElementTree

import pytest

from rsocket_broker.plugin_api import App, ApplicationError, Canceled, Invalid, Plugin
from rsocket_broker.plugin_api.testing import running
from rsocket_broker.plugins.layout import base
from rsocket_broker.plugins.layout.base import LayoutPlugin, checked_png
from rsocket_broker.plugins.layout.tree import Node
from tests.plugins.layout.shapes import PNG
from tests.plugins.layout.test_tree import TREE, node


class Paper(LayoutPlugin):
    """Shows what the test puts there."""

    id = "Paper"

    def __init__(self) -> None:
        self.shown: Node = TREE
        self.news = asyncio.Event()
        self.edits: list[object] = []

    async def root(self, app: App) -> Node:
        return self.shown

    async def picture(self, app: App, node_id: str) -> tuple[str, bytes]:
        return node_id or "1", PNG

    async def edit(self, app: App, node_id: str, path: list[str], value: object) -> None:
        self.edits.append((node_id, path, value))

    def changed(self, app: App) -> asyncio.Event:
        return self.news


async def test_tree_find_and_dump() -> None:
    async with running(Paper) as bench:
        client = await bench.connect()
        tree = await client.request("tree")
        assert (tree["nodes"], tree["root"]["children"][1]["label"]) == (4, "Basket")
        assert "attributes" not in tree["root"]
        assert (await client.request("tree", {"attributes": True}))["root"]["attributes"] == {"View": {"a": 1}}
        found = await client.request("find", {"resource": "pay"})
        assert [one["id"] for one in found["views"]] == ["2"]
        with pytest.raises(Invalid, match="what to look for"):
            await client.request("find")
        xml = (await client.request("dump"))["text"]
        assert ElementTree.fromstring(xml).get("id") == "1"
        whole = json.loads((await client.request("dump", {"form": "json"}))["text"])
        assert whole["attributes"] == {"View": {"a": 1}}


async def test_waiting_until_a_view_comes_or_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = Paper()
    async with running(plugin) as bench:
        client = await bench.connect()
        assert (await client.request("wait", {"text": "now"}))["id"] == "2"
        waiting = asyncio.ensure_future(client.request("wait", {"text": "thanks", "timeout": 5}))
        await asyncio.sleep(0.01)
        plugin.shown = node("1", node("7", text="Thanks!"))
        plugin.news.set()
        assert (await waiting)["id"] == "7"
        assert await client.request("wait", {"text": "now", "gone": True}) == {}
        monkeypatch.setattr(base, "LOOK_AGAIN", 0.01)
        plugin.news = asyncio.Event()
        with pytest.raises(Canceled, match="no view with text 'x' within"):
            await client.request("wait", {"text": "x", "timeout": 0.03})
        with pytest.raises(Canceled, match="still a view with text 'thanks'"):
            await client.request("wait", {"text": "thanks", "gone": True, "timeout": 0})
        with pytest.raises(Invalid, match="timeout"):
            await client.request("wait", {"text": "x", "timeout": -1})


async def test_pictures_are_given_and_attributes_set() -> None:
    plugin = Paper()
    async with running(plugin) as bench:
        client = await bench.connect()
        picture = await client.request("snapshot")
        assert (picture["id"], base64.b64decode(picture["png"])) == ("1", PNG)
        await client.request("set", {"node_id": "2", "path": ["View", "alpha"], "value": 0.5})
        assert plugin.edits == [("2", ["View", "alpha"], 0.5)]
        with pytest.raises(Invalid, match="path"):
            await client.request("set", {"node_id": "2", "path": [], "value": 1})
        with pytest.raises(ApplicationError, match="no PNG"):
            checked_png(b"GIF89a")


def test_the_apps_side_is_not_started_by_itself() -> None:
    assert Plugin.eager
    assert not LayoutPlugin.eager
