"""`app navigation`: a real `am start` on the emulated device leads the app to a screen."""

import json
import threading

import pytest

from tests.cli.app.android import PACKAGE, Android
from tests.cli.app.conftest import Phone


def follow_links(shop: Android, count: int) -> threading.Thread:
    """The app does what Android makes it do: shows the screen of the next link that the device opens."""

    def work() -> None:
        shop.until(lambda: len(shop.device.opened) >= count)
        uri = shop.device.opened[-1][1]
        shop.do(lambda: shop.navigation.go(uri, "org.example.Cart"))

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.row("A-56", "F-13")
def test_a_link_is_opened_and_the_screen_is_seen(shop: Android) -> None:
    thread = follow_links(shop, len(shop.device.opened) + 1)
    opened = shop.say("navigation", "open", "shop://item/{#id}?q={?q}", "--value", "id=3", "--json")
    thread.join()
    assert opened.returncode == 0, opened.stderr
    found = json.loads(opened.stdout)
    assert (found["opened"], found["visit"]["screen"]) == ("shop://item/3?q=", "org.example.Cart")
    assert shop.device.opened[-1] == (PACKAGE, "shop://item/3?q=")
    assert shop.say("navigation", "current").stdout == "shop://item/3?q=  org.example.Cart\n"
    assert json.loads(shop.say("navigation", "current", "--json").stdout)["visit"] == {
        key: value for key, value in found["visit"].items() if key != "number"
    }
    assert "shop://item/3?q=" in shop.say("navigation", "history").stdout
    after = str(found["visit"]["number"])
    assert json.loads(shop.say("navigation", "history", "--after", after, "--json").stdout)["visits"] == []


def test_what_goes_wrong_is_told(shop: Android, phone: Phone) -> None:
    late = shop.say("navigation", "open", "shop://nowhere", "--timeout", "0.1")
    assert late.returncode == 1
    assert "The link was opened. There was no visit of shop://nowhere within 0.1 s." in late.stderr
    assert shop.say("navigation", "open", "shop://nowhere", "--timeout", "0").stderr == "Opened shop://nowhere.\n"
    assert "must have a scheme" in shop.say("navigation", "open", "nowhere").stderr
    wrong = shop.say("navigation", "open", "shop://{id}", "--value", "id")
    assert wrong.returncode == 2
    assert "is not NAME=VALUE" in wrong.stderr
    unreachable = phone.say("navigation", "open", "shop://cart")
    assert unreachable.returncode == 1
    assert "cannot be reached" in unreachable.stderr
    assert "no screen yet" in phone.say("navigation", "current").stderr
