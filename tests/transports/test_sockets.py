import asyncio
import socket
import struct
from pathlib import Path

import pytest

from rsocket_broker.transports.base import Channel
from rsocket_broker.transports.sockets import READ_SIZE
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
        server.transport.write([bytes(READ_SIZE * 2)])
        await asyncio.sleep(0)
        client.transport.resume_reading()
        await client.until(lambda: len(client.data) == READ_SIZE * 2)
        assert 64 * 1024 < sizes.largest <= READ_SIZE


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
