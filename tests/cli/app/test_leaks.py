"""`app leaks`, with an emulated LeakCanary."""

import json

from tests.cli.app.android import Android
from tests.cli.app.conftest import Phone


def test_leaks_are_listed_and_stop_a_test(shop: Android) -> None:
    assert shop.say("leaks", "list").stderr == "There is no leak.\n"
    assert shop.say("leaks", "gate").returncode == 0
    shop.do(lambda: shop.leaks.found("CartActivity", "org.example.Cache", "org.example.CartActivity", retained="1 kB"))
    state = next(iter(shop.broker.sessions)).plugins.seats["LeakCanary"].app.state
    shop.until(lambda: state.history.newest == 1)
    listed = json.loads(shop.say("leaks", "list", "--json").stdout)
    assert [element["leaking"] for element in listed["leaks"][0]["path"]] == ["N", "Y"]
    assert "CartActivity" in shop.say("leaks", "list").stdout
    refused = shop.say("leaks", "gate")
    assert (refused.returncode, "1 new in the app's memory: CartActivity" in refused.stderr) == (1, True)
    allowed = shop.say("leaks", "gate", "--allow", "CartActivity")
    assert (allowed.returncode, "(1 that are)" in allowed.stderr) == (0, True)
    assert shop.say("leaks", "gate", "--after", "1").returncode == 0


def test_an_app_without_leak_canary_is_told_of(phone: Phone) -> None:
    assert "No connected client has the plugin LeakCanary" in phone.say("leaks", "list").stderr
