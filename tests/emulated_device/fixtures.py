"""Fixtures for every test that wants Android: `adb_server` is one real adb server for the whole run."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.emulated_device.server import ADB_MISSING, AdbServer, adb_program


@pytest.fixture(scope="session")
def shared_adb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbServer]:
    if adb_program() is None:
        pytest.skip(ADB_MISSING)
    server = AdbServer(tmp_path_factory.mktemp("adb"))
    asyncio.run(server.start())
    yield server
    server.stop()


@pytest.fixture
def adb_server(shared_adb_server: AdbServer) -> AdbServer:
    """Shared by all tests: each brings devices of its own and takes them away again (`server.attached`).

    adb 29 aborts now and then when devices vanish: that test fails, and the next one has a server again.
    """
    if shared_adb_server.ended:
        asyncio.run(shared_adb_server.start())
    return shared_adb_server
