"""Tests of an app with the pytest plugin: its buttons, and what it then says to its server and keeps in its database.

Run it:

    python -m pytest examples/05_test_shop.py --rsocket-serve "--insecure-port 0 --secure-port 0 --adb off"

Nothing needs to run before. The app is the emulated one of example 4, which `launch_app` starts; a test of your own
app starts that one there. `app`, `network`, `databases` and the others come from the pytest plugin of rsocket_broker.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def launch_app(broker: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Starts the app, and ends it when all tests are through."""
    command = [sys.executable, str(HERE / "04_android_app.py"), "--quiet", "--era", "rsocket"]
    command += ["--directory", str(tmp_path_factory.mktemp("shop"))]
    command += ["--insecure-port", str(broker.ports.insecure_port), "--secure-port", str(broker.ports.secure_port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        yield
        process.terminate()


def test_a_purchase_is_sent_and_kept(app: Any, network: Any, databases: Any, navigation: Any) -> None:
    app.call("Shop", "buy", {"item": "tea"})
    sent = network.wait(method="POST", url="/cart", status=201)
    assert sent["request"]["postData"]["text"] == '{"item": "tea"}'
    assert {"item": "tea", "price": 4.5} in databases.query("SELECT item, price FROM cart")
    assert navigation.wait("shop://cart?last=tea")


def test_what_is_not_for_sale_is_not_kept(app: Any, network: Any, databases: Any) -> None:
    before = databases.query("SELECT count(*) AS items FROM cart")
    assert app.call("Shop", "buy", {"item": "moon"}) == {"done": False}
    network.wait(url="/cart", status=404)
    assert databases.query("SELECT count(*) AS items FROM cart") == before


def test_a_server_that_is_down(app: Any, network: Any) -> None:
    with network.mocked("/login", '{"error": "down"}', method="POST", status=503):
        assert app.call("Shop", "logIn", {"user": "ada"}) == {"done": False}
    assert app.call("Shop", "logIn", {"user": "ada"}) == {"done": True}
    assert [each["status"] for each in network.exchanges(url="/login")] == [503, 200]


def test_preferences_are_put_back(app: Any, preferences: Any) -> None:
    with preferences.kept():
        preferences.set("currency", "CHF")
        assert preferences.get("currency") == "CHF"
    assert preferences.get("currency") == "EUR"


def test_it_shows_a_button_and_does_not_crash(layout: Any, crashes: Any, leaks: Any) -> None:
    assert layout.find(text="Buy")
    crashes.none()
    leaks.none()
