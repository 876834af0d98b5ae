"""The shop of the examples, against a broker in a thread."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsocket_broker.pytest_plugin.app import AppUnderTest
from rsocket_broker.pytest_plugin.broker import BrokerUnderTest, broker_settings

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
FREE = "--insecure-port 0 --secure-port 0 --adb off"


def shop_command(folder: Path, insecure_port: int | None, secure_port: int | None) -> list[str]:
    command = [sys.executable, str(EXAMPLES / "04_android_app.py"), "--quiet", "--era", "rsocket"]
    command += ["--directory", str(folder)]
    return [*command, "--insecure-port", str(insecure_port), "--secure-port", str(secure_port)]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerUnderTest]:
    home = tmp_path_factory.mktemp("broker") / "home"
    with BrokerUnderTest(broker_settings(home, FREE), 30.0) as running:
        yield running


@pytest.fixture(scope="module")
def shop(broker: BrokerUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppUnderTest]:
    """The app, connected."""
    ports = broker.ports
    command = shop_command(tmp_path_factory.mktemp("shop"), ports.insecure_port, ports.secure_port)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        yield broker.app("org.example.shop").wait_connected()
        process.terminate()
