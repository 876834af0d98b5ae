"""Driving an app from a pytest test: a broker of its own, the app of example 2, and calls into it.

Run it:

    python -m pytest examples/03_test_app.py

Nothing needs to run before; the broker works in a temporary home, on free ports. A test of your own app starts
that app instead, on a device or an emulator if need be: the calls stay the same.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
BROKER = [sys.executable, "-m", "rsocket_broker"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running broker's home."""
    home = tmp_path_factory.mktemp("broker") / "home"
    command = [*BROKER, "--home", str(home), "serve", "--insecure-port", "0", "--secure-port", "0", "--adb", "off"]
    command += ["--plugin", str(HERE / "01_plugin.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as broker:
        assert broker.stdout is not None
        assert broker.stdout.readline().startswith("ready")
        yield home
        broker.terminate()


@pytest.fixture(scope="module", autouse=True)
def app(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The app, connected."""
    ports = json.loads((home / "run" / "ports.json").read_text())
    command = [sys.executable, str(HERE / "02_app.py"), "--directory", str(tmp_path_factory.mktemp("app") / "own")]
    command += ["--insecure-port", str(ports["insecure_port"]), "--secure-port", str(ports["secure_port"])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("connected")
        yield
        process.terminate()


def broker(home: Path, *arguments: str) -> Any:
    """What `rsocket-broker ARGUMENTS` prints, as JSON. Fails with what it says on stderr."""
    done = subprocess.run([*BROKER, "--home", str(home), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def call(home: Path, method: str, params: object = None) -> Any:
    """Calls a method of the app's plugin."""
    return broker(home, "clients", "call", "org.example.thermostat", "Thermostat", method, json.dumps(params or {}))


def test_the_app_is_there(home: Path) -> None:
    (client,) = broker(home, "clients", "list", "--json")
    assert client["app_id"] == "org.example.thermostat"
    assert client["proof"] == "filesystem"


def test_the_target_can_be_set(home: Path) -> None:
    assert call(home, "setTarget", {"celsius": 23}) == {"before": 19.0, "now": 23}
    assert call(home, "setTarget", {"celsius": 17}) == {"before": 23, "now": 17}


def test_a_method_that_the_app_does_not_have_is_an_error(home: Path) -> None:
    started = time.monotonic()
    with pytest.raises(AssertionError, match="selfDestruct"):
        call(home, "selfDestruct")
    assert time.monotonic() - started < 10
