"""connect_child against a broker in its own process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rsocket_broker import client
from rsocket_broker.protocol.limits import PLAIN
from tests.end_to_end.processes import BrokerProcess, start_broker


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    running = start_broker(tmp_path_factory.mktemp("child") / "home", "--http-port", "0")
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.fixture
def url(broker: BrokerProcess) -> str:
    return f"ws://localhost:{broker.ports['http_port']}/rsocket"


@pytest.fixture
async def app(broker: BrokerProcess, tmp_path: Path) -> AsyncIterator[client.Session]:
    async with client.connect(
        app_id="com.example.child",
        app="Parent",
        directory=tmp_path / "app",
        insecure_port=broker.insecure_port,
        secure_port=broker.secure_port,
        timeout=15,
    ) as session:
        yield session


@pytest.mark.row("W-6", "W-12", "A-60")
async def test_a_token_is_as_good_as_its_session_and_no_longer(app: client.Session, url: str) -> None:
    made = await app.request("sessions.login", {"name": "page"})
    async with client.connect_child(url, made["token"]) as page:
        assert page.connected
        large = "x" * (2 * PLAIN.message)
        assert await page.request("echo.request", large) == large
        assert (await page.request("sessions.introspect"))["id"] == made["id"]
        with pytest.raises(client.Rejected, match="policy"):
            await page.request("sessions.login", {"name": "deeper"})
        waiting = asyncio.ensure_future(page.request("echo.never"))
        await page.request("echo.request", 1)
        assert await app.request("sessions.logout", {"id": made["id"]}) == {"ended": [made["id"]]}
        with pytest.raises((client.RequestFailed, client.ConnectionClosed), match="it was logged out"):
            await waiting
        with pytest.raises(client.ConnectionClosed, match="it was logged out"):
            while True:
                await page.request("echo.request", 1)
        assert not page.connected
    with pytest.raises(client.SetupRefused, match="it was logged out"):
        async with client.connect_child(url, made["token"]):
            pass


async def test_it_may_come_back_with_its_token(app: client.Session, url: str) -> None:
    token = (await app.request("sessions.login", {"name": "page"}))["token"]
    for _ in range(3):
        async with client.connect_child(url, token) as page:
            assert await page.request("echo.request", 1) == 1


@pytest.mark.parametrize("address", ["wss://localhost:1/rsocket", "http://localhost:1", "ws://example.org/rsocket"])
async def test_only_the_port_of_this_machine_is_for_tokens_alone(address: str) -> None:
    with pytest.raises(ValueError, match="://"):
        async with client.connect_child(address, "rsb_x"):
            pass


async def test_nobody_there_is_an_error_of_the_network() -> None:
    with pytest.raises(OSError, match=r"."):
        async with client.connect_child("ws://127.0.0.1:9/rsocket", "rsb_x"):
            pass
