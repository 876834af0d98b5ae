"""The real thing: `rsocket-broker serve` in its own process, and the client SDK in ours."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker import client
from tests.end_to_end.processes import BrokerProcess, start_broker

HERE = Path(__file__).parent
RECORDER = HERE.parent / "foreign" / "recorder_plugin.py"

StartBroker = Callable[..., BrokerProcess]
Connect = Callable[..., AbstractAsyncContextManager[client.Session]]

QUICK = client.Backoff(first=0.05, longest=0.2)
"""Waits of a client in a test."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """One broker for all tests of a module, with the echo plugin and the recorder."""
    running = start_broker(tmp_path_factory.mktemp("broker") / "home", "--plugin", "echo", "--plugin", str(RECORDER))
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartBroker]:
    """`start(home="home", *options, **ports)`: a broker of one's own, ended after the test."""
    running: list[BrokerProcess] = []

    def start_one(*options: str, home: str = "home", **ports: int) -> BrokerProcess:
        one = start_broker(tmp_path / home, "--plugin", "echo", "--plugin", str(RECORDER), *options, **ports)
        running.append(one)
        return one

    yield start_one
    for one in running:
        one.stop()


@pytest.fixture
def app_id(request: pytest.FixtureRequest) -> str:
    """An app of each test's own: the broker counts how often one app asks for certificates."""
    return "org.example." + re.sub(r"[^A-Za-z0-9]+", "_", request.node.name)[:40]


@pytest.fixture
def app(broker: BrokerProcess, app_id: str, tmp_path: Path) -> Connect:
    """`async with app(...) as session`: our SDK against the module's broker, impatient, in a folder of the test."""
    settings: dict[str, Any] = {
        "app_id": app_id,
        "app": "Demo",
        "directory": tmp_path / "app",
        "insecure_port": broker.insecure_port,
        "secure_port": broker.secure_port,
        "backoff": QUICK,
        "timeout": 15,
    }
    return partial(_connect, settings)


def _connect(settings: dict[str, Any], **changes: Any) -> AbstractAsyncContextManager[client.Session]:
    return client.connect(**(settings | changes))
