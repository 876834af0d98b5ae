"""Each tool, on an app that has all of the plugins."""

import pytest

from rsocket_broker.errors import ApplicationError, Canceled, Invalid
from rsocket_broker.pytest_plugin import tools
from rsocket_broker.pytest_plugin.app import AppUnderTest


def buy(shop: AppUnderTest, item: str) -> None:
    shop.call("Shop", "buy", {"item": item})


def test_network(shop: AppUnderTest) -> None:
    buy(shop, "cup")
    network = tools.Network(shop)
    assert network.exchanges() == []
    buy(shop, "tea")
    found = network.wait("POST", "/cart", 201)
    assert found["request"]["postData"]["text"] == '{"item": "tea"}'
    assert [(each["method"], each["status"]) for each in network.exchanges()] == [("POST", 201)]
    assert len(network.har()["log"]["entries"]) == 1
    with pytest.raises(Canceled, match="/nowhere"):
        network.wait(url="/nowhere", timeout=0.05)


def test_network_mocks_end_with_their_block(shop: AppUnderTest) -> None:
    network = tools.Network(shop)
    with network.mocked("/cart", "{}", method="POST", status=500):
        assert shop.call("Shop", "buy", {"item": "tea"}) == {"done": False}
    assert shop.call("Shop", "buy", {"item": "tea"}) == {"done": True}


def test_databases(shop: AppUnderTest) -> None:
    databases = tools.Databases(shop)
    assert databases.tables() == {"shop.db": ["cart"]}
    databases.execute("INSERT INTO cart (item, price) VALUES ('kettle', 30.5)")
    assert databases.query("SELECT item, price FROM cart WHERE item = 'kettle'") == [{"item": "kettle", "price": 30.5}]
    with pytest.raises(Invalid):
        databases.query("DELETE FROM cart")


def test_preferences(shop: AppUnderTest) -> None:
    preferences = tools.Preferences(shop)
    with preferences.kept():
        preferences.set("currency", "CHF")
        preferences.delete("onboarded")
        assert preferences.get("currency") == "CHF"
        (values,) = preferences.all().values()
        assert "onboarded" not in values
    assert preferences.get("currency") == "EUR"


def test_navigation(shop: AppUnderTest) -> None:
    navigation = tools.Navigation(shop)
    shop.call("Shop", "open", {"uri": "shop://items"})
    assert navigation.wait("shop://items")["uri"] == "shop://items"
    assert [each["uri"] for each in navigation.history()] == ["shop://items"]
    current = navigation.current()
    assert current is not None
    assert current["uri"] == "shop://items"
    with pytest.raises(ApplicationError):
        navigation.open("shop://cart")  # there is no device behind it


def test_crashes(shop: AppUnderTest) -> None:
    crashes = tools.Crashes(shop)
    crashes.none()
    shop.call("Shop", "crash", {"reason": "no price"})
    with pytest.raises(ApplicationError, match="no price"):
        crashes.none(settle=5)
    assert [each["reason"] for each in crashes.all()] == ["no price"]
    tools.Crashes(shop).none()


def test_leaks(shop: AppUnderTest) -> None:
    leaks = tools.Leaks(shop)
    leaks.none()
    shop.call("Shop", "leak", {"activity": "CartActivity"})
    with pytest.raises(ApplicationError, match="CartActivity"):
        leaks.none(settle=5)
    (found,) = leaks.all()
    leaks.none(allow=[found["title"]])


def test_layout(shop: AppUnderTest) -> None:
    layout = tools.Layout(shop)
    assert layout.find(text="Buy")
    assert layout.wait(text="Buy")
    assert layout.tree()
    assert layout.snapshot().startswith(b"\x89PNG")


def test_images(shop: AppUnderTest) -> None:
    images = tools.Images(shop)
    assert images.levels()
    assert all(each["number"] > images.since for each in images.loads())


def test_logs_need_a_device(shop: AppUnderTest) -> None:
    with pytest.raises(ApplicationError, match="device"):
        tools.Logs(shop).recent()
