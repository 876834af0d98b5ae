"""Two clients on rsocket-py that talk to each other through the broker: neither end is ours."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from reactivestreams.publisher import Publisher
from reactivestreams.subscriber import Subscriber
from rsocket.awaitable.awaitable_rsocket import AwaitableRSocket
from rsocket.exceptions import RSocketProtocolError
from rsocket.extensions.composite_metadata import CompositeMetadata
from rsocket.extensions.helpers import composite, route
from rsocket.extensions.mimetypes import WellKnownMimeTypes
from rsocket.helpers import create_future, single_transport_provider
from rsocket.payload import Payload
from rsocket.request_handler import BaseRequestHandler
from rsocket.rsocket_client import RSocketClient
from rsocket.streams.stream_from_generator import StreamFromGenerator
from rsocket.transports.tcp import TransportTCP

from tests.end_to_end.processes import BrokerProcess, start_broker
from tests.foreign.sdk_folder import client_context

LARGE = bytes(range(256)) * 800
"""More than rsocket-py sends in one frame here."""


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    running = start_broker(tmp_path_factory.mktemp("relay") / "home", "--allow-relay")
    yield running
    assert running.stop() == 0, running.log.read_text()


class Bob(BaseRequestHandler):
    """The one who is asked."""

    heard: list[Payload]

    async def request_response(self, payload: Payload) -> asyncio.Future[Payload]:
        if payload.data == b"fail":
            raise RuntimeError("bob says no")
        return create_future(Payload(payload.data, payload.metadata))

    async def request_fire_and_forget(self, payload: Payload) -> None:
        self.heard.append(payload)

    async def on_metadata_push(self, payload: Payload) -> None:
        self.heard.append(payload)

    async def request_stream(self, payload: Payload) -> Publisher:
        return StreamFromGenerator(lambda: ((Payload(b"%d" % n), n == 9) for n in range(10)))

    async def request_channel(self, payload: Payload) -> tuple[Publisher, Subscriber]:
        publisher = StreamFromGenerator(lambda: ((Payload(b"%d" % n), n == 9) for n in range(10)))
        return publisher, Listener(self.heard)


class Listener(Subscriber):
    def __init__(self, heard: list[Payload]) -> None:
        self.heard = heard

    def on_subscribe(self, subscription: object) -> None:
        self.subscription = subscription
        subscription.request(2)  # type: ignore[attr-defined]

    def on_next(self, value: Payload, is_complete: bool = False) -> None:
        self.heard.append(value)
        self.subscription.request(1)  # type: ignore[attr-defined]

    def on_complete(self) -> None: ...

    def on_error(self, exception: Exception) -> None: ...


@contextlib.asynccontextmanager
async def joined(
    broker: BrokerProcess, folder: Path, app_id: str, handler: type[BaseRequestHandler] = BaseRequestHandler
) -> AsyncIterator[RSocketClient]:
    done = broker.command("ca", "issue", "--app-id", app_id, "--out", str(folder / app_id))
    assert done.returncode == 0, done.stderr
    context = client_context(folder / app_id)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", broker.secure_port, ssl=context, server_hostname="localhost"
    )
    async with RSocketClient(
        single_transport_provider(TransportTCP(reader, writer)),
        handler_factory=handler,
        metadata_encoding=WellKnownMimeTypes.MESSAGE_RSOCKET_COMPOSITE_METADATA,
        fragment_size_bytes=1024,
        keep_alive_period=timedelta(seconds=5),
    ) as client:
        yield client


@pytest.mark.row("A-37", "A-46", "F-2")
async def test_all_interactions_between_two_clients_of_another_make(relay: BrokerProcess, tmp_path: Path) -> None:
    heard: list[Payload] = []

    class Handler(Bob):
        pass

    Handler.heard = heard
    metadata = composite(route("client:org.example.bob"))
    async with (
        joined(relay, tmp_path, "org.example.bob", Handler),
        joined(relay, tmp_path, "org.example.alice") as client,
    ):
        alice = AwaitableRSocket(client)
        async with asyncio.timeout(20):
            while len(relay.clients()) < 2:
                await asyncio.sleep(0.01)
            for data in (b"hello", b"\x00\xff", LARGE):
                answer = await alice.request_response(Payload(data, metadata))
                assert (answer.data, route_in(answer.metadata)) == (data, ["client:org.example.bob"])
            with pytest.raises(RuntimeError, match="bob says no"):
                await alice.request_response(Payload(b"fail", metadata))
            numbers = [b"%d" % n for n in range(10)]
            assert [one.data for one in await alice.request_stream(Payload(b"", metadata), limit_rate=3)] == numbers
            assert [
                one.data for one in await alice.request_channel(Payload(b"", metadata), more(), limit_rate=2)
            ] == numbers
            await wait_for(heard, 20)
            assert [one.data for one in heard] == [b"%d" % n for n in range(20)]
            client.fire_and_forget(Payload(LARGE, metadata))
            client.metadata_push(metadata)
            await wait_for(heard, 22)
        assert sorted(bytes(one.data or b"") for one in heard[20:]) == [b"", LARGE]
        with pytest.raises(RSocketProtocolError, match=r'No client "org\.example\.carol" is connected'):
            await alice.request_response(Payload(b"", composite(route("client:org.example.carol"))))


def more() -> StreamFromGenerator:
    return StreamFromGenerator(lambda: ((Payload(b"%d" % n), n == 19) for n in range(20)))


def route_in(metadata: bytes) -> list[str]:
    parsed = CompositeMetadata()
    parsed.parse(metadata)
    return [tag.decode() for tag in parsed.items[0].tags]


async def wait_for(heard: list[Payload], count: int) -> None:
    while len(heard) < count:
        await asyncio.sleep(0.01)
