import asyncio
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsocket_broker.transports.base import Channel
from rsocket_broker.transports.listener import Listener
from rsocket_broker.transports.sockets import FIRST_READ, LEAST_READ, READ_SIZE, SHARE
from rsocket_broker.transports.tcp import connect_tcp, listen_tcp
from tests.transports.recording import Guests, Recorder, joined


async def test_a_reset_by_the_peer_is_told_as_such(tmp_path: Path) -> None:
    guests = Guests()
    listener = await listen_tcp("127.0.0.1", 0, guests)
    with socket.create_connection(("127.0.0.1", listener.port)) as client:
        server = await guests.number(1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert isinstance(await server.lost(), ConnectionResetError)
    server.transport.write([b"anyone?"])
    assert server.transport.queued == 0
    server.transport.close()
    listener.close()


async def test_the_last_words_reach_a_peer_that_is_still_sending() -> None:
    """Closing on unread bytes makes a reset, which may destroy what was sent last; so we read on."""

    class Curt(Recorder):
        def data_received(self, data: bytes | memoryview) -> None:
            super().data_received(data)
            self.transport.write([b"no, and here is why"])
            self.transport.close()

    guests = Guests(Curt)
    listener = await listen_tcp("127.0.0.1", 0, guests)

    def chatter() -> bytes:
        with socket.create_connection(("127.0.0.1", listener.port)) as client:
            for _ in range(64):
                client.sendall(bytes(64 * 1024))
            client.shutdown(socket.SHUT_WR)
            return client.makefile("rb").read()

    assert await asyncio.to_thread(chatter) == b"no, and here is why"
    listener.close()
    await listener.wait_closed()


async def test_half_a_close_leaves_the_other_half() -> None:
    guests = Guests()
    listener = await listen_tcp("127.0.0.1", 0, guests)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(b"question")
    writer.write_eof()
    server = await guests.number(1)
    await server.until(lambda: "eof" in server.events)
    assert server.data == b"question" and not server.losses
    server.transport.write([b"ans", b"wer"])
    server.transport.close()
    assert await reader.read() == b"answer"
    writer.close()
    listener.close()
    await listener.wait_closed()
    assert server.losses == [None]


async def test_one_read_takes_a_whole_burst(tmp_path: Path) -> None:
    class Sizes(Recorder):
        largest = 0

        def data_received(self, data: bytes | memoryview) -> None:
            super().data_received(data)
            self.largest = max(self.largest, len(data))

    sizes = Sizes()
    async with joined("unix", tmp_path, sizes) as (client, server):
        client.transport.pause_reading()
        server.transport.write([bytes(READ_SIZE * 16)])
        await asyncio.sleep(0)
        client.transport.resume_reading()
        await client.until(lambda: len(client.data) == READ_SIZE * 16)
        assert 64 * 1024 < sizes.largest <= READ_SIZE


class Slow(Recorder):
    """Whose bytes cost us more than their sender: `costs` seconds of our time for each read."""

    def __init__(self) -> None:
        super().__init__()
        self.costs = 2 * SHARE
        self.sizes: list[int] = []
        self.turns: list[int] = []
        self.turn = 0

    def data_received(self, data: bytes | memoryview) -> None:
        super().data_received(data)
        self.sizes.append(len(data))
        self.turns.append(self.turn)
        asyncio.get_running_loop().call_soon(self._next_turn)
        ends = time.thread_time() + self.costs
        while time.thread_time() < ends:
            pass

    def _next_turn(self) -> None:
        self.turn += 1


@pytest.fixture(params=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    factory = None
    if request.param == "uvloop":
        factory = pytest.importorskip("uvloop", reason="needs uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as made:
        yield made


async def over(listener: Listener, client: Recorder, server: Recorder) -> None:
    for side in (client, server):
        side.transport.abort()
        await side.lost()
    listener.close()
    await listener.wait_closed()


@pytest.mark.row("A-21")
def test_who_sends_what_takes_us_long_has_one_turn_like_everybody(runner: asyncio.Runner) -> None:
    """libuv reads 32 times before it looks at anybody else, and each time as much as fits."""

    async def flood() -> None:
        guests = Guests(Slow)
        listener = await listen_tcp("127.0.0.1", 0, guests)
        client = Recorder()
        sent = 16 * READ_SIZE
        await connect_tcp("127.0.0.1", listener.port, client)
        client.transport.write([bytes(sent)])
        server = await guests.number(1)
        assert isinstance(server, Slow)
        await server.until(lambda: len(server.sizes) >= 10)
        assert len(set(server.turns)) == len(server.turns), "others had their turn after each read"
        assert max(server.sizes[:2]) <= FIRST_READ
        assert max(server.sizes[2:]) <= FIRST_READ // 2
        assert min(server.sizes) >= LEAST_READ
        server.costs = 0.0
        await server.until(lambda: len(server.data) == sent)
        assert max(server.sizes[10:]) > 4 * server.sizes[9], "and more again once it is cheap"
        await over(listener, client, server)

    runner.run(flood())


@pytest.mark.row("A-21")
def test_a_pause_lasts_although_others_have_had_their_turn(runner: asyncio.Runner) -> None:
    async def pause() -> None:
        class Choosy(Slow):
            def data_received(self, data: bytes | memoryview) -> None:
                self.transport.pause_reading()
                super().data_received(data)

        guests = Guests(Choosy)
        listener = await listen_tcp("127.0.0.1", 0, guests)
        client = Recorder()
        await connect_tcp("127.0.0.1", listener.port, client)
        client.transport.write([bytes(4 * READ_SIZE)])
        server = await guests.number(1)
        assert isinstance(server, Choosy)
        for number in range(1, 5):
            await server.until(lambda number=number: len(server.sizes) >= number)  # type: ignore[misc]
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(server.sizes) == number
            server.transport.resume_reading()
        await over(listener, client, server)

    runner.run(pause())


async def test_idle_connections_share_one_buffer() -> None:
    guests = Guests()
    listener = await listen_tcp("127.0.0.1", 0, guests)
    clients = [Recorder() for _ in range(3)]
    for client in clients:
        await connect_tcp("127.0.0.1", listener.port, client)
    buffers = {id(client.transport._buffer.obj) for client in clients}  # type: ignore[attr-defined]
    assert len(buffers) == 1
    listener.abort()
    for client in clients:
        client.transport.abort()
        await client.lost()


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "127.0.0.1:{}"), ("::1", "[::1]:{}")])
async def test_a_peer_has_a_readable_address(host: str, address: str) -> None:
    listener = await listen_tcp(host, 0, Guests())
    client = Recorder()
    transport = await connect_tcp(host, listener.port, client)
    assert transport.peer.address == address.format(listener.port)
    assert transport.peer.channel is Channel.TCP
    transport.abort()
    listener.abort()
    await client.lost()


async def test_a_unix_peer_is_known_by_the_path(tmp_path: Path) -> None:
    async with joined("unix", tmp_path) as (client, server):
        assert client.transport.peer.address == server.transport.peer.address == f"unix:{tmp_path / 's'}"


@pytest.mark.row("A-21")
@pytest.mark.parametrize("flushing", [False, True], ids=["open", "while closing"])
async def test_what_a_peer_has_not_taken_when_it_is_cut_off_never_comes(flushing: bool) -> None:
    """The kernel would go on sending what it holds long after the socket is closed."""
    guests = Guests()
    listener = await listen_tcp("127.0.0.1", 0, guests)
    with socket.create_connection(("127.0.0.1", listener.port)) as client:
        server = await guests.number(1)
        sent = 8 * 1024 * 1024
        server.transport.write([bytes(sent)])
        if flushing:
            server.transport.close()
        server.transport.abort()
        await server.lost()
        client.settimeout(10)

        def read() -> int:
            taken = 0
            while True:
                try:
                    data = client.recv(1 << 20)
                except ConnectionResetError:
                    return taken
                assert data, "the end came in good order"
                taken += len(data)

        assert await asyncio.to_thread(read) < sent
    listener.close()


async def test_a_line_that_has_nothing_left_to_send_ends_in_good_order() -> None:
    guests = Guests()
    listener = await listen_tcp("127.0.0.1", 0, guests)
    with socket.create_connection(("127.0.0.1", listener.port)) as client:
        server = await guests.number(1)
        server.transport.write([b"farewell"])
        assert await asyncio.to_thread(client.recv, 100) == b"farewell"
        server.transport.abort()
        assert await asyncio.to_thread(client.recv, 100) == b""
    listener.close()
