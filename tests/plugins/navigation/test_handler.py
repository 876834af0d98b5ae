"""The plugin on the bench: an app goes where it is sent, and tells."""

import asyncio

import pytest

from rsocket_broker.plugin_api import ApplicationError, Canceled, ConnectionClosed, Invalid
from rsocket_broker.plugin_api.testing import Client, running
from rsocket_broker.plugins.navigation import plugin
from rsocket_broker.plugins.navigation.handler import KEPT
from tests.plugins.devices import PaperDevice

CART = {"uri": "shop://cart?id=3", "class": "org.example.Cart", "date": "Mon Jun 10 08:00:00 GMT+02:00 2024"}


async def test_where_an_app_is_and_has_been() -> None:
    async with running(plugin) as bench:
        client = await bench.connect()
        assert await client.request("current") == {"number": 0, "visit": None}
        await client.event("nav_plugin_active")
        await client.event("nav_event", CART)
        await client.event("nav_event", {"class": "org.example.Pay"})
        current = await client.request("current")
        assert (current["number"], current["visit"]["screen"]) == (2, "org.example.Pay")
        history = await client.request("history")
        assert [one["uri"] for one in history["visits"]] == ["shop://cart?id=3", ""]
        assert (await client.request("history", {"after": 1}))["visits"] == history["visits"][1:]
        assert await client.request("wait", {"uri": "org.example.Cart"}) == history["visits"][0]
        assert await anext(client.stream("follow", {"after": 1})) == history["visits"][1]
        waiting = asyncio.ensure_future(client.request("wait", {"after": 2}))
        await asyncio.sleep(0)
        await bench.disconnect(client)
        with pytest.raises(ConnectionClosed):
            await waiting


def driven(client: Client, device: PaperDevice, tells: dict[str, object] | None) -> None:
    """The app tells so when the device opens a link."""
    tasks = set()

    def opened(uri: str) -> None:
        if tells is not None:
            tasks.add(asyncio.ensure_future(client.event("nav_event", tells)))

    device.on_open = opened


async def test_a_link_is_opened_and_the_app_says_that_it_is_there() -> None:
    device = PaperDevice()
    async with running(plugin) as bench:
        client = await bench.connect(hardware=device)
        await client.event("nav_event", CART)  # it was there before: that does not count
        driven(client, device, {"uri": "shop%3A%2F%2Fcart%3Fid%3D3"})
        answer = await client.request("open", {"uri": "shop://cart?id={#id}", "values": {"id": 3}})
        assert (answer["opened"], answer["visit"]["number"]) == ("shop://cart?id=3", 2)
        assert device.opened == [("shop://cart?id=3", "com.example.app")]
        driven(client, device, {"uri": "shop://login", "class": "Login"})
        with pytest.raises(Canceled, match=r"The link was opened\. .* It told of shop://login: name one"):
            await client.request("open", {"uri": "shop://pay", "timeout": 0.05})
        assert (await client.request("open", {"uri": "shop://pay", "expect": "Login"}))["visit"]["number"] == 4
        driven(client, device, None)
        with pytest.raises(Canceled, match="It told of nothing"):
            await client.request("open", {"uri": "shop://pay", "timeout": 0.05})
        assert await client.request("open", {"uri": "shop://x", "timeout": 0}) == {"opened": "shop://x", "visit": None}


async def test_what_cannot_be_opened_is_told() -> None:
    device = PaperDevice()
    async with running(plugin) as bench:
        client, bare = await bench.connect(hardware=device), await bench.connect()
        with pytest.raises(Invalid, match="scheme"):
            await client.request("open", {"uri": "cart"})
        with pytest.raises(Invalid, match="missing"):
            await client.request("open", {"uri": "shop://{id}"})
        assert device.opened == []
        with pytest.raises(ApplicationError, match="cannot be reached"):
            await bare.request("open", {"uri": "shop://cart"})
        with pytest.raises(ApplicationError, match="cannot be reached"):
            await client.request("open", {"uri": "shop://cart", "client": bare.app.id})


@pytest.mark.row("M-7")
async def test_malformed_events_are_refused_and_what_is_kept_is_bounded() -> None:
    async with running(plugin) as bench:
        client = await bench.connect()
        for params in ({}, [], {"uri": 7, "class": []}, "x", {"uri": {"a": 1}}):
            with pytest.raises(Invalid):
                await client.event("nav_event", params)
        for number in range(KEPT + 10):
            await client.event("nav_event", {"uri": f"a:{number}"})
        history = await client.request("history")
        assert (len(history["visits"]), history["newest"], history["dropped"]) == (KEPT, KEPT + 10, 10)
