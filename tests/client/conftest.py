"""A stub broker in the test's own loop."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker import client
from tests.client.stub_broker import StubBroker


@pytest.fixture
async def stub() -> AsyncIterator[StubBroker]:
    async with StubBroker() as running:
        yield running


Connect = Callable[..., AbstractAsyncContextManager[client.Session]]

QUICK = client.Backoff(first=0.01, longest=0.05)
"""Waits of a client in a test."""


@pytest.fixture
def app(stub: StubBroker, tmp_path: Path) -> Connect:
    """`async with app(...) as session`: our SDK against the stub, impatient, in a folder of the test."""
    settings: dict[str, Any] = {
        "app_id": "org.example.demo",
        "app": "Demo",
        "directory": tmp_path / "app",
        "host": "127.0.0.1",
        "insecure_port": stub.insecure_port,
        "secure_port": stub.secure_port,
        "backoff": QUICK,
        "timeout": 10,
    }
    return lambda **changes: client.connect(**(settings | changes))
