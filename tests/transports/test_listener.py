import asyncio
import contextlib
import os
import resource
import socket

import pytest

from rsocket_broker.errors import ConfigurationError
from rsocket_broker.transports import listener as module
from rsocket_broker.transports.binding import BACKLOG
from rsocket_broker.transports.tcp import connect_tcp, listen_tcp
from tests.transports.recording import PATIENCE, Echo, Guests, Recorder


async def ended(reader: asyncio.StreamReader) -> bool:
    """Did the other side end this connection without a byte?"""
    try:
        return await asyncio.wait_for(reader.read(1), PATIENCE) == b""
    except ConnectionResetError:
        return True


async def test_over_the_cap_a_connection_ends_at_once_and_room_is_used_again() -> None:
    guests = Guests(Echo)
    listener = await listen_tcp("127.0.0.1", 0, guests, max_connections=2)
    clients = [Recorder(), Recorder()]
    for client in clients:
        await connect_tcp("127.0.0.1", listener.port, client)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    assert await ended(reader)
    writer.close()
    assert (listener.open, listener.counters.accepted, listener.counters.turned_away) == (2, 2, 1)
    assert len(guests.all) == 2

    clients[0].transport.close()
    assert await clients[0].lost() is None
    await guests.all[0].lost()
    third = Recorder()
    await connect_tcp("127.0.0.1", listener.port, third)
    third.transport.write([b"room?"])
    await third.received(b"room?")
    listener.abort()
    for client in (clients[1], third):
        client.transport.abort()
    await listener.wait_closed()


@pytest.mark.row("A-32")
async def test_where_nobody_stays_the_oldest_gives_way(caplog: pytest.LogCaptureFixture) -> None:
    guests = Guests(Echo)
    listener = await listen_tcp("127.0.0.1", 0, guests, max_connections=2, displace=True)
    clients = []
    for number in range(1, 6):
        clients.append(await asyncio.open_connection("127.0.0.1", listener.port))
        await guests.number(number)
    for reader, _ in clients[:3]:
        assert await ended(reader)
    for reader, writer in clients[3:]:
        writer.write(b"room?")
        assert await asyncio.wait_for(reader.readexactly(5), PATIENCE) == b"room?"
    assert (listener.open, listener.counters.displaced, listener.counters.turned_away) == (2, 3, 0)
    assert "has 2 connections, so 127.0.0.1:" in caplog.text
    for _, writer in clients:
        writer.close()
    listener.abort()
    await listener.wait_closed()


async def test_a_closed_listener_refuses_newcomers_and_keeps_the_guests() -> None:
    guests = Guests(Echo)
    listener = await listen_tcp("localhost", 0, guests)
    client = Recorder()
    await connect_tcp("localhost", listener.port, client)
    await guests.number(1)
    listener.close()
    listener.close()
    for host in listener.hosts:
        with pytest.raises(ConnectionRefusedError):
            await connect_tcp(host, listener.port, Recorder())
    client.transport.write([b"still here"])
    await client.received(b"still here")
    waiting = asyncio.create_task(listener.wait_closed())
    await asyncio.sleep(0)
    assert not waiting.done()
    client.transport.close()
    await asyncio.wait_for(waiting, PATIENCE)
    assert listener.open == 0


@pytest.mark.row("M-17")
async def test_a_listener_that_is_shut_refuses_newcomers_until_it_opens_again_on_its_number() -> None:
    guests, shut = Guests(Echo), list[int]()
    listener = await listen_tcp("localhost", 0, guests, max_connections=2)
    listener.on_shut(lambda: shut.append(listener.port))
    port = listener.port
    client = Recorder()
    await connect_tcp("localhost", port, client)
    await guests.number(1)
    for number in range(1, 3):
        listener.shut()
        listener.shut()
        assert not listener.listening and shut == [port] * number
        for host in listener.hosts:
            with pytest.raises(ConnectionRefusedError):
                await connect_tcp(host, port, Recorder())
        await asyncio.gather(listener.reopen(), listener.reopen())
        assert listener.listening and listener.port == port
        client.transport.write([b"still here"])
        await client.received(b"still here" * number)
    newcomer = Recorder()
    await connect_tcp("localhost", port, newcomer)
    await guests.number(2)
    assert (listener.open, listener.counters.accepted) == (2, 2)  # limits and counters have gone on
    await connect_tcp("localhost", port, third := Recorder())
    await third.until(lambda: "eof" in third.events or bool(third.losses))
    assert listener.counters.turned_away == 1
    listener.shut()
    listener.abort()
    await listener.reopen()
    assert not listener.listening
    for each in (client, newcomer, third):
        each.transport.abort()
        await each.lost()
    await asyncio.wait_for(listener.wait_closed(), PATIENCE)


@pytest.mark.row("M-17")
async def test_a_number_that_was_taken_meanwhile_is_told_and_the_listener_stays_shut() -> None:
    listener = await listen_tcp("127.0.0.1", 0, Guests(Echo))
    listener.shut()
    with socket.create_server(("127.0.0.1", listener.port)):
        with pytest.raises(ConfigurationError, match=f"Port {listener.port} .*is taken"):
            await listener.reopen()
        assert not listener.listening
    await listener.reopen()
    assert listener.listening
    listener.abort()


async def test_an_aborted_listener_drops_its_guests() -> None:
    guests = Guests()
    listener = await listen_tcp("127.0.0.1", 0, guests)
    client = Recorder()
    await connect_tcp("127.0.0.1", listener.port, client)
    await guests.number(1)
    listener.abort()
    await asyncio.wait_for(listener.wait_closed(), PATIENCE)
    assert guests.all[0].losses == [None]
    client.transport.abort()
    await client.lost()


async def test_without_descriptors_it_waits_and_then_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "ACCEPT_PAUSE", 0.05)
    listener = await listen_tcp("127.0.0.1", 0, Guests(Echo))
    hoard: list[int] = []
    with socket.socket() as client:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    hoard.append(os.dup(client.fileno()))
            client.connect(("127.0.0.1", listener.port))
            await asyncio.sleep(0.12)
            assert listener.counters.accepted == 0
            assert "cannot accept connections" in caplog.text and len(caplog.records) < 5
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in hoard:
                os.close(descriptor)
        client.setblocking(False)
        client.send(b"at last")
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 100), PATIENCE) == b"at last"
    listener.abort()
    await listener.wait_closed()


async def test_a_connection_that_cannot_be_set_up_is_not_counted_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise OSError("the socket has gone")

    listener = await listen_tcp("127.0.0.1", 0, Guests())
    monkeypatch.setattr(asyncio.get_running_loop(), "connect_accepted_socket", fail)
    with socket.create_connection(("127.0.0.1", listener.port)):
        async with asyncio.timeout(PATIENCE):
            while not listener.counters.accepted or listener.open:
                await asyncio.sleep(0.005)
    listener.close()
    await listener.wait_closed()


@pytest.mark.parametrize("turns", range(6))
async def test_a_listener_may_go_while_a_connection_is_being_made(turns: int) -> None:
    """Accepting takes several turns of the loop; none of them is a bad moment."""
    guests = Guests()
    listener = await listen_tcp("127.0.0.1", 0, guests)
    with socket.create_connection(("127.0.0.1", listener.port)) as client:
        for _ in range(turns):
            await asyncio.sleep(0)
        listener.abort()
        await asyncio.wait_for(listener.wait_closed(), PATIENCE)
        for guest in guests.all:
            assert guest.events in ([], ["ready", "lost"])
        client.setblocking(False)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1), PATIENCE) == b""


@pytest.mark.row("A-32")
async def test_connects_by_the_hundred_are_taken_while_the_loop_is_busy() -> None:
    """Android's SDK waits 30 ms for its connect: the kernel must complete it whether we are awake or not."""
    guests = Guests()
    listener = await listen_tcp("127.0.0.1", 0, guests)
    connecting = []
    for _ in range(400):  # the loop does not run meanwhile
        client = socket.socket()
        client.settimeout(1)
        client.connect(("127.0.0.1", listener.port))
        connecting.append(client)
    await guests.number(400)
    assert listener.counters.accepted == 400 <= BACKLOG
    listener.abort()
    for client in connecting:
        client.close()
    await listener.wait_closed()
