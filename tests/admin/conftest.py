"""A broker in this process with one connected app, and the admin line to it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker import client
from rsocket_broker.broker import Broker
from rsocket_broker.settings import ListenSettings, Settings


class Counter(client.AppPlugin):
    """The app's side of a plugin."""

    id = "Counter"

    @client.method("add")
    def add(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"sum": params["a"] + params["b"]}

    @client.method("fail")
    def fail(self, params: dict[str, Any]) -> None:
        raise client.ApplicationError("no such counter")


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    made = Broker(Settings(home=tmp_path / "home", listen=ListenSettings(insecure_port=0, secure_port=0), adb="off"))
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def session(broker: Broker, tmp_path: Path) -> AsyncIterator[client.Session]:
    async with client.connect(
        app_id="com.example.app",
        app="Example",
        directory=tmp_path / "app",
        insecure_port=broker.ports.insecure_port or 0,
        secure_port=broker.ports.secure_port or 0,
        plugins=[Counter()],
        timeout=10,
    ) as made:
        yield made
