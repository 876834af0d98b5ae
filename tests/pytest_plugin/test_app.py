"""The app that a test drives."""

import asyncio
from pathlib import Path

import pytest

from rsocket_broker import client
from rsocket_broker.errors import ApplicationError
from rsocket_broker.pytest_plugin.app import AppUnderTest
from rsocket_broker.pytest_plugin.broker import BrokerUnderTest


def test_it_says_what_it_is(shop: AppUnderTest, broker: BrokerUnderTest) -> None:
    assert shop.connected
    assert shop.identity.app_id == "org.example.shop"
    assert {"Shop", "Network", "Databases"} <= set(shop.plugins)
    assert broker.clients == [str(shop.identity.principal)]


def test_its_own_methods_are_called(shop: AppUnderTest) -> None:
    assert shop.call("Shop", "buy", {"item": "tea"}) == {"done": True}
    shop.send("Shop", "buy", {"item": "cup"})
    with pytest.raises(ApplicationError, match="item is missing"):
        shop.call("Shop", "buy", {})


def test_a_plugin_is_waited_for(shop: AppUnderTest) -> None:
    assert shop.wait_plugin("Network") is shop
    with pytest.raises(TimeoutError, match=r"org.example.shop has no plugin Sandbox within 0.1 s.*org\.example\.shop@"):
        shop.wait_plugin("Sandbox", 0.1)


def test_it_is_the_only_one_that_needs_no_name(shop: AppUnderTest, broker: BrokerUnderTest) -> None:
    assert broker.app().wait_connected().id == shop.id


async def test_one_of_several_must_be_named(shop: AppUnderTest, broker: BrokerUnderTest, tmp_path: Path) -> None:
    ports = broker.ports
    assert ports.insecure_port and ports.secure_port
    other = client.connect(
        app_id="org.example.other",
        app="Other",
        directory=tmp_path / "app",
        insecure_port=ports.insecure_port,
        secure_port=ports.secure_port,
    )
    async with other:
        with pytest.raises(ApplicationError, match=r"Several apps.*org\.example\.other.*--rsocket-app"):
            await asyncio.to_thread(broker.app().wait_connected)
        named = f"org.example.shop@{shop.identity.device_id}"
        assert (await asyncio.to_thread(broker.app(named).wait_connected)).id == shop.id


def test_who_comes_back_has_another_session(shop: AppUnderTest, broker: BrokerUnderTest) -> None:
    before = shop.id

    async def kick(plugin: object, app: object) -> None:
        await next(iter(broker.running.sessions)).connection.close("test")

    shop.ask("Network", kick)
    assert shop.wait_restarted(before).id != before
