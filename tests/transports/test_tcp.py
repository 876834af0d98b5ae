import asyncio
import socket
from pathlib import Path

import pytest

from rsocket_broker.errors import ConfigurationError
from rsocket_broker.transports.binding import Options
from rsocket_broker.transports.tcp import connect_tcp, connect_unix, listen_tcp, listen_unix
from tests.transports.recording import Echo, Guests, Recorder


@pytest.mark.row("A-12", "M-13")
async def test_localhost_serves_both_loopback_addresses_and_nothing_else() -> None:
    listener = await listen_tcp("localhost", 0, Guests(Echo))
    assert listener.hosts[0] == "127.0.0.1" and set(listener.hosts) <= {"127.0.0.1", "::1"}
    for host in (*listener.hosts, "localhost"):
        client = Recorder()
        await connect_tcp(host, listener.port, client)
        client.transport.write([b"there?"])
        await client.received(b"there?")
        client.transport.close()
        assert await client.lost() is None
    with pytest.raises(ConnectionRefusedError):
        await connect_tcp("127.0.0.2", listener.port, Recorder())
    listener.close()
    await listener.wait_closed()


async def test_small_packets_are_not_held_back() -> None:
    guests = Guests()
    listener = await listen_tcp("127.0.0.1", 0, guests)
    client = Recorder()
    transport = await connect_tcp("127.0.0.1", listener.port, client)
    server = await guests.number(1)
    for end in (transport, server.transport):
        raw = end._transport.get_extra_info("socket")  # type: ignore[attr-defined]
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    transport.abort()
    listener.abort()
    await listener.wait_closed()


async def test_a_taken_port_stops_the_second_listener() -> None:
    first = await listen_tcp("localhost", 0, Guests())
    with pytest.raises(ConfigurationError, match="--insecure-port"):
        await listen_tcp("localhost", first.port, Guests(), options=Options(port="--insecure-port"))
    first.close()
    second = await listen_tcp("localhost", first.port, Guests())
    second.close()


async def test_a_network_that_fails_is_an_os_error(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await connect_tcp("127.0.0.1", bound.getsockname()[1], Recorder())
    with pytest.raises(FileNotFoundError):
        await connect_unix(tmp_path / "nothing", Recorder())


async def test_a_connect_that_is_not_answered_ends_in_time() -> None:
    """A listener whose queue is full drops what comes, as a firewall does."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        with pytest.raises(TimeoutError):
            await connect_tcp(*address, Recorder(), timeout=0.1)
        for filler in fillers:
            filler.close()


async def test_a_unix_socket_is_removed_on_close_but_never_another_ones(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = await listen_unix(path, Guests())
    first.close()
    assert not path.exists()
    second = await listen_unix(path, Guests())
    path.unlink()
    third = await listen_unix(path, Guests())
    second.close()
    assert path.exists()
    third.close()
    await asyncio.gather(*(listener.wait_closed() for listener in (first, second, third)))
