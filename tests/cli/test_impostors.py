"""The demo's impostors must be able to tell when they are let in, or the demo would verify nothing."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rsocket_broker import client
from rsocket_broker.broker import Broker
from rsocket_broker.cli import impostors
from rsocket_broker.client.folder import AppFolder
from rsocket_broker.credentials import Credentials
from rsocket_broker.settings import ListenSettings, Settings

APP = "com.example.app"


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    made = Broker(Settings(home=tmp_path / "home", listen=ListenSettings(insecure_port=0, secure_port=0), adb="off"))
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def own(broker: Broker, tmp_path: Path) -> Credentials:
    """What the real app was given."""
    port = broker.ports.insecure_port or 0
    await client.enroll(app_id=APP, app="A", directory=tmp_path / "app", insecure_port=port)
    return AppFolder(tmp_path / "app").load().credentials


async def test_the_real_app_is_let_in(broker: Broker, own: Credentials) -> None:
    port = broker.ports.secure_port or 0
    assert await impostors.try_credentials(port, own) == ""
    assert await impostors.try_claims(port, own, {"app_id": APP}) == ""


async def test_a_false_claim_is_refused_by_its_name(broker: Broker, own: Credentials) -> None:
    assert "app_id" in await impostors.try_claims(broker.ports.secure_port or 0, own, {"app_id": "com.other"})


@pytest.mark.row("M-11")
async def test_no_certificate_is_answered_by_an_alert(broker: Broker, own: Credentials) -> None:
    assert "certificate required" in await impostors.try_without_certificate(broker.ports.secure_port or 0, own)


async def test_a_foreign_certificate_is_answered_by_an_alert(broker: Broker, own: Credentials, tmp_path: Path) -> None:
    foreign = impostors.foreign_credentials(tmp_path / "foreign", APP, own)
    assert foreign.trust_pem == own.trust_pem
    assert "unknown_ca" in await impostors.try_credentials(broker.ports.secure_port or 0, foreign)


async def test_the_plain_port_serves_no_plugin(broker: Broker) -> None:
    assert "only signs" in await impostors.try_plain_call(broker.ports.insecure_port or 0, "echo.request")


async def test_the_folder_of_another_is_no_proof(broker: Broker, own: Credentials, tmp_path: Path) -> None:
    port = broker.ports.insecure_port or 0
    assert (await impostors.try_folder_of_another(port, APP, tmp_path / "app")).startswith("proof: ")


async def test_an_open_port_is_not_called_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not await impostors.is_closed(port)
    assert await impostors.is_closed(port)
