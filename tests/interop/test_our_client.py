"""Our own client on a server of another make: positions that rsocket-java counts, and leases that it gives."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator

import attrs
import pytest

from rsocket_broker.client.responder import Refuser
from rsocket_broker.connection import Connection
from rsocket_broker.errors import Rejected
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.frames import Setup
from rsocket_broker.protocol.limits import SECURE
from rsocket_broker.protocol.metadata import route
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.transports.tcp import connect_tcp
from tests.conformance.targets import BUILD_WITHIN, FOREIGN, LEASE_REQUESTS, Target, Unavailable, start_foreign
from tests.conftest import SEED
from tests.end_to_end.test_resume import Cable

pytestmark = pytest.mark.timeout(BUILD_WITHIN + 60)
LIMITS = attrs.evolve(SECURE, resume_seconds=30.0, fragment=700)
BINARY = "application/octet-stream"


@pytest.fixture(scope="module")
def java() -> Iterator[Target]:
    try:
        target, process = start_foreign(FOREIGN["rsocket-java"], "rsocket-java")
    except Unavailable as missing:
        pytest.skip(str(missing))
    with process:
        yield target
        process.kill()


async def come_back(connection: Connection, port: int) -> None:
    """Gives the connection another line whenever it has lost its own."""
    while connection.closing is None:
        await connection.wait_line_lost()
        if connection.suspended:
            await asyncio.sleep(0.02)
            await connect_tcp("127.0.0.1", port, connection)
            try:
                await connection.wait_resumed()
            except OSError:
                continue  # cut again before the answer


async def cut_often(cable: Cable) -> None:
    dice = random.Random(SEED)
    while True:
        cable.cut_at = cable.bytes + dice.randrange(1, 20_000)
        await asyncio.sleep(0.15)
        cable.cut()


async def numbers() -> AsyncIterator[Payload]:
    for number in range(1500):
        yield Payload(b"%d" % number)


@pytest.mark.row("A-41", "D-4")
async def test_rsocket_java_goes_on_with_our_client_and_nothing_is_lost(java: Target) -> None:
    setup = Setup(resume_token=random.randbytes(16), keepalive_ms=500, lifetime_ms=10_000, data_mime=BINARY)
    connection = Connection(Protocol.client(setup, LIMITS, time.monotonic()), Refuser())
    async with Cable(java.port) as cable, asyncio.timeout(50):
        await connect_tcp("127.0.0.1", cable.port, connection)
        await connection.wait_accepted()
        helpers = [asyncio.ensure_future(work) for work in (come_back(connection, cable.port), cut_often(cable))]
        first = Payload(b"first", route("echo.channel"))
        async with connection.request_channel(first, numbers(), initial_n=16) as answers:
            got = [answer.data async for answer in answers]
        assert got == [b"first", *(b"%d" % number for number in range(1500))]
        for number in range(50):
            data = bytes(number * 60) + b"%d" % number
            assert (await connection.request_response(Payload(data, route("echo.request")))).data == data
        for helper in helpers:
            helper.cancel()
        connection.abort()
    assert connection.times_resumed > 1


@pytest.mark.row("A-44")
async def test_our_client_keeps_to_the_lease_of_rsocket_java(java: Target) -> None:
    setup = Setup(lease=True, data_mime=BINARY)
    connection = Connection(Protocol.client(setup, LIMITS, time.monotonic()), Refuser())
    await connect_tcp("127.0.0.1", java.lease_port, connection)
    ask = Payload(b"x", route("echo.request"))
    for _ in range(LEASE_REQUESTS):
        assert (await connection.request_response(ask, timeout=10)).data == b"x"
    with pytest.raises(TimeoutError):
        await connection.request_response(ask, timeout=0.1)
    with pytest.raises(Rejected, match="lease"):
        connection.fire_and_forget(ask)
    await connection.close()
