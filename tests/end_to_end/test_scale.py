"""Many at once: thousands of idle sessions with keepalive, and a crowd that comes back after a restart."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rsocket_broker.transports.base import Transport
from rsocket_broker.transports.tcp import connect_tcp
from rsocket_broker.transports.tls_handshake import ClientHandshake
from tests.end_to_end import wire
from tests.end_to_end.conftest import StartBroker
from tests.end_to_end.processes import BrokerProcess
from tests.end_to_end.wire import Line
from tests.foreign.sdk_folder import client_context
from tests.transports.recording import Recorder

ROOMY = ("--max-sessions", "20000", "--max-sessions-per-identity", "20000")
CALLED = b"anybody there?"
CLIENTS = 16
"""Threads on the test's side."""
KIB_PER_SESSION = 64
"""Measured are less than 56; the rest is room for what an allocator keeps."""
AT_THE_DOOR = 32
"""Clients of ours that connect at a time. They share one thread: of hundreds, the last would stay silent for seconds
after it has connected, which no phone does, and be taken for one that has nothing to say."""
PATIENCE = 60.0
"""Seconds that one of a crowd may wait for its turn on a busy machine. Nobody may be refused."""

Portion = Callable[[int], list[int]]


def call(stream: int) -> bytes:
    return wire.request(wire.REQUEST_RESPONSE, stream, CALLED, wire.routed("echo.request"))


def answer(stream: int) -> bytes:
    """The same data and metadata back."""
    metadata = wire.routed("echo.request")
    body = len(metadata).to_bytes(3, "big") + metadata + CALLED
    return wire.frame(stream, wire.PAYLOAD, wire.METADATA | wire.NEXT | wire.COMPLETE, body)


FIRST_WORDS = wire.setup(b"", wire.COMPOSITE, keepalive_ms=600_000) + call(1)
"""Nobody may be given up for silence before the last of them has come."""
ANSWER = answer(1)


def credentials(broker: BrokerProcess, folder: Path) -> Path:
    done = broker.command("ca", "issue", "--app-id", "org.example.many", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


def in_threads(work: Callable[[int], Line], count: int) -> list[Line]:
    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(work, range(count)))


def is_served(line: Line) -> None:
    """SETUP, one call, and its answer."""
    line.send(FIRST_WORDS)
    assert wire.payload_data(arrived(line)) == CALLED


def arrived(line: Line) -> wire.Frame:
    frame = line.next()
    assert frame is not None, "the broker closed the connection"
    return frame


def close_all(lines: Sequence[Line]) -> None:
    for line in lines:
        line.socket.close()


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.row("A-40", "M-15")
def test_thousands_of_idle_sessions(start: StartBroker, tmp_path: Path, portion: Portion) -> None:
    """Each costs little memory, answers keepalives, and is gone when its line is."""
    many = len(portion(10_000))
    broker = start(*ROOMY)
    context = client_context(credentials(broker, tmp_path / "app"))

    def come(_: int) -> Line:
        line = Line.open(broker.secure_port, context, timeout=PATIENCE)
        is_served(line)
        return line

    warm_up = in_threads(come, CLIENTS)
    before = broker.rss()
    lines = in_threads(come, many)
    try:
        assert (broker.rss() - before) / many < KIB_PER_SESSION * 1024
        for line in lines:
            line.send(wire.keepalive(b"still"))
        for line in lines:
            assert arrived(line).body == bytes(8) + b"still"
        assert len(broker.clients()) == many + len(warm_up)
    finally:
        close_all([*lines, *warm_up])
    while broker.clients():
        pass  # each look takes a process of its own, and the test has a timeout
    assert "Traceback" not in broker.log.read_text()


class OneOfMany(Recorder):
    """A client that makes one call as soon as it is let in."""

    def transport_ready(self, transport: Transport) -> None:
        super().transport_ready(transport)
        transport.write([FIRST_WORDS])


async def comes_back(port: int, context: ssl.SSLContext, door: asyncio.Semaphore) -> OneOfMany:
    """Passes the `door` to connect and to say hello; its handshake goes on outside."""
    client = OneOfMany()
    handshake = ClientHandshake(context, "localhost", client)
    async with asyncio.timeout(PATIENCE):
        async with door:
            await connect_tcp("127.0.0.1", port, handshake, timeout=PATIENCE)
        await handshake.done
        await client.received(ANSWER)
    return client


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.row("A-32", "M-15")
async def test_everybody_comes_back_at_once_after_a_restart(
    start: StartBroker, tmp_path: Path, portion: Portion
) -> None:
    """More than may be in a handshake at a time; nobody is refused, and who has a session is served meanwhile."""
    many = len(portion(8_000))
    first = start(*ROOMY)
    ports = {"insecure_port": first.insecure_port, "secure_port": first.secure_port}
    context = client_context(credentials(first, tmp_path / "app"))
    assert first.stop() == 0
    broker = start(*ROOMY, **ports)
    door = asyncio.Semaphore(AT_THE_DOOR)
    live = await comes_back(broker.secure_port, context, door)
    crowd = asyncio.gather(*(comes_back(broker.secure_port, context, door) for _ in range(many)))
    served = 0
    while not crowd.done():
        live.data.clear()
        live.transport.write([call(2 * served + 3)])
        await live.received(answer(2 * served + 3))
        served += 1
    everybody = [live, *await crowd]
    assert served
    assert len(broker.clients()) == many + 1
    for client in everybody:
        client.transport.abort()
        await client.lost()
    assert "Traceback" not in broker.log.read_text()
