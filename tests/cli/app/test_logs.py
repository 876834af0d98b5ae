"""`app logs`, through a real adb server."""

import json

import pytest

from tests.cli.app.android import PID, Android
from tests.cli.app.conftest import Phone


@pytest.mark.row("A-56", "F-13")
def test_what_the_device_logged_of_the_app(shop: Android) -> None:
    shop.device.write_log("Cart", "total is 3\x1b[2J", level="W", pid=PID)
    shop.device.write_log("Other", "of another app", level="W", pid=1)
    shop.device.write_log("Cart", "mild", level="I", pid=PID)
    said = shop.say("logs", "recent", "--level", "warn", "--tag", "Cart")
    assert said.returncode == 0, said.stderr
    (line,) = said.stdout.splitlines()
    assert "warn" in line
    assert "Cart: total is 3" in line
    assert "\x1b" not in line
    found = json.loads(shop.say("logs", "recent", "--contains", "mild", "--json").stdout)
    assert [one["tag"] for one in found["lines"]] == ["Cart"]
    refused = shop.say("logs", "recent", "--contains", "another", "--whole-device")
    assert (refused.returncode, "whole_device = true" in refused.stderr) == (1, True)


def test_a_client_without_a_device_is_told_of(phone: Phone) -> None:
    said = phone.say("logs", "recent")
    assert said.returncode == 1
    assert "cannot be reached: that takes an Android device on adb, or an iOS simulator" in said.stderr
    assert phone.say("logs", "follow").returncode == 1
