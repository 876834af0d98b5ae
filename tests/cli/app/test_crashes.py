"""`app crashes`, with an app on a device behind a real adb server, and with one whose device cannot be reached."""

import json
import time

import pytest

from tests.cli.app.android import PACKAGE, PID, Android
from tests.cli.app.conftest import Phone

FRAMES = ("org.example.Cart.total(Cart.java:10)", "org.example.Cart.show(Cart.java:20)")
LOGGED = "\n".join(
    [
        "FATAL EXCEPTION: main",
        f"Process: {PACKAGE}, PID: {PID}",
        "java.lang.IllegalStateException: logged",
        *(f"\tat {frame}" for frame in FRAMES),
    ]
)


@pytest.mark.row("A-56", "F-13")
def test_crashes_of_the_app_and_of_its_devices_log_are_listed(shop: Android) -> None:
    known = json.loads(shop.say("crashes", "list", "--json").stdout)["newest"]
    assert shop.say("crashes", "none", "--after", str(known)).returncode == 0
    shop.do(lambda: shop.crashes.report("java.lang.IllegalArgumentException", "boom", FRAMES))
    shop.until(lambda: any("logcat" in line for line in shop.device.commands))
    shop.device.write_log("AndroidRuntime", LOGGED, level="E", pid=PID, at=time.time() + 1)
    log = shop.broker.plugin("CrashReporter")._logs  # type: ignore[attr-defined]
    shop.until(lambda: sum(one.history.newest for one in log.values()) >= known + 2)
    listed = json.loads(shop.say("crashes", "list", "--after", str(known), "--json").stdout)
    assert {one["source"] for one in listed["crashes"]} == {"app", "logcat"}
    assert {one["reason"] for one in listed["crashes"]} == {"boom", "java.lang.IllegalStateException: logged"}
    table = shop.say("crashes", "list").stdout
    assert "java.lang.IllegalArgumentException: boom" in table
    refused = shop.say("crashes", "none", "--after", str(known))
    assert refused.returncode == 1
    assert "2 crashes: " in refused.stderr


def test_an_app_whose_device_cannot_be_reached_has_what_it_tells_itself(phone: Phone) -> None:
    found = phone.say("crashes", "list")
    assert found.returncode == 0
    assert "There is no crash." in found.stderr


def test_show_crash_prints_the_stack_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    from rsocket_broker.cli.app.crashes import show_crash

    show_crash({"number": 1, "time": 0, "source": "app", "name": "E", "reason": "why\x1b[2J", "callstack": "a\n\tb"})
    assert capsys.readouterr().out.splitlines()[0] == "1  1970-01-01 00:00:00  app  E"
