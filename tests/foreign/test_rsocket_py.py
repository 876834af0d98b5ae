"""The client of rsocket-py over mutual TLS, with a certificate that was obtained without our code."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from rsocket.awaitable.awaitable_rsocket import AwaitableRSocket
from rsocket.extensions.helpers import composite, route
from rsocket.extensions.mimetypes import WellKnownMimeTypes
from rsocket.helpers import single_transport_provider
from rsocket.payload import Payload
from rsocket.rsocket_client import RSocketClient
from rsocket.streams.stream_from_generator import StreamFromGenerator
from rsocket.transports.tcp import TransportTCP

from tests.end_to_end.processes import BrokerProcess
from tests.foreign.sdk_folder import client_context, enrolled_folder

APP_ID = "org.example.python"


@pytest.fixture(scope="module")
def folder(broker: BrokerProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return enrolled_folder(tmp_path_factory.mktemp("rsocket-py") / "sonar", APP_ID, broker.insecure_port)


@contextlib.asynccontextmanager
async def connected(broker: BrokerProcess, folder: Path) -> AsyncIterator[AwaitableRSocket]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", broker.secure_port, ssl=client_context(folder), server_hostname="localhost"
    )
    client = RSocketClient(
        single_transport_provider(TransportTCP(reader, writer)),
        metadata_encoding=WellKnownMimeTypes.MESSAGE_RSOCKET_COMPOSITE_METADATA,
        data_encoding=WellKnownMimeTypes.APPLICATION_OCTET_STREAM,
        keep_alive_period=timedelta(seconds=5),
        max_lifetime_period=timedelta(seconds=60),
    )
    async with client:
        yield AwaitableRSocket(client)


def to(path: str, data: bytes) -> Payload:
    return Payload(data, composite(route(path)))


@pytest.mark.row("A-37", "A-46")
async def test_request_response(broker: BrokerProcess, folder: Path) -> None:
    async with connected(broker, folder) as client:
        answer = await client.request_response(to("echo.request", b"\x00\xffhello"))
    assert answer.data == b"\x00\xffhello"
    assert answer.metadata == composite(route("echo.request"))


@pytest.mark.row("A-37")
async def test_an_application_error(broker: BrokerProcess, folder: Path) -> None:
    async with connected(broker, folder) as client:
        with pytest.raises(RuntimeError, match="always fails"):
            await client.request_response(to("echo.error", b""))
        assert (await client.request_response(to("echo.request", b"alive"))).data == b"alive"


@pytest.mark.row("A-37")
async def test_request_stream(broker: BrokerProcess, folder: Path) -> None:
    async with connected(broker, folder) as client:
        answers = await client.request_stream(to("echo.stream", b"7:100"), limit_rate=2)
    assert [len(answer.data) for answer in answers] == [100] * 7


@pytest.mark.row("A-37")
async def test_fire_and_forget(broker: BrokerProcess, folder: Path) -> None:
    async with connected(broker, folder) as client:
        await client.fire_and_forget(to("echo.fire", b"gone"))
        assert (await client.request_response(to("echo.request", b"alive"))).data == b"alive"


@pytest.mark.row("A-37")
async def test_request_channel(broker: BrokerProcess, folder: Path) -> None:
    more = [(Payload(b"two"), False), (Payload(b"three"), True)]
    async with connected(broker, folder) as client:
        answers = await client.request_channel(to("echo.channel", b"one"), StreamFromGenerator(lambda: iter(more)))
    assert [answer.data for answer in answers] == [b"one", b"two", b"three"]


@pytest.mark.row("A-37")
async def test_a_megabyte_in_pieces(broker: BrokerProcess, folder: Path) -> None:
    data = bytes(range(256)) * 4096
    async with connected(broker, folder) as client:
        assert (await client.request_response(to("echo.request", data))).data == data
