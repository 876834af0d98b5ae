"""A broker in a thread of its own."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsocket_broker import client
from rsocket_broker.errors import HomeError
from rsocket_broker.pytest_plugin.broker import broker_settings
from rsocket_broker.pytest_plugin.broker_thread import BrokerThread

FREE = "--insecure-port 0 --secure-port 0 --adb off"


@pytest.fixture
def thread(tmp_path: Path) -> Iterator[BrokerThread]:
    made = BrokerThread(broker_settings(tmp_path / "home", FREE))
    made.start()
    yield made
    made.stop()


async def test_apps_connect_while_the_test_waits_for_them(thread: BrokerThread, tmp_path: Path) -> None:
    ports = thread.broker.ports
    assert ports.insecure_port and ports.secure_port
    waiting = asyncio.ensure_future(
        asyncio.to_thread(thread.wait_session, lambda session: session.identity.app_id == "org.example.one", 30)
    )
    app = client.connect(
        app_id="org.example.one",
        app="One",
        directory=tmp_path / "app",
        insecure_port=ports.insecure_port,
        secure_port=ports.secure_port,
    )
    async with app:
        found = await waiting
        assert [session.id for session in await asyncio.to_thread(thread.sessions)] == [found.id]


def test_nobody_comes(thread: BrokerThread) -> None:
    with pytest.raises(TimeoutError):
        thread.wait_session(lambda session: True, 0.05)


def test_what_is_run_has_a_limit_and_ends_at_it(thread: BrokerThread) -> None:
    ended = []

    async def never() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(True)

    with pytest.raises(TimeoutError):
        thread.run(never(), 0.05)
    assert ended == [True]


def test_the_ports_are_free_after_the_end(tmp_path: Path) -> None:
    made = BrokerThread(broker_settings(tmp_path / "home", FREE))
    made.start()
    port = made.broker.ports.secure_port
    assert port
    made.stop()
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


def test_a_start_that_fails_says_why_and_leaves_nothing(thread: BrokerThread, tmp_path: Path) -> None:
    second = BrokerThread(broker_settings(tmp_path / "home", FREE))
    with pytest.raises(HomeError, match="pid"):
        second.start()
    second.stop()
    assert thread.sessions() == []
