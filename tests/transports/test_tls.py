"""Connecting: whose certificate is believed, who is told what, and what the network gets to see."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import attrs
import pytest

from rsocket_broker.credentials import Credentials
from rsocket_broker.errors import TlsRefused
from rsocket_broker.transports.listener import Listener
from rsocket_broker.transports.tcp import listen_tcp
from rsocket_broker.transports.tls import connect_tls, listen_tls
from rsocket_broker.transports.tls_contexts import ServerContexts, client_context
from tests.throwaway_ca import LOOPBACK, ThrowawayCa, shared_ca
from tests.transports.recording import PATIENCE, Echo, Guests, Polite, Recorder


@contextlib.asynccontextmanager
async def serving(credentials: Credentials | None = None, host: str = "localhost") -> AsyncIterator[Listener]:
    contexts = ServerContexts(credentials or shared_ca().server())
    listener = await listen_tls(host, 0, Guests(Echo), contexts.pick)
    try:
        yield listener
    finally:
        listener.abort()
        await asyncio.wait_for(listener.wait_closed(), PATIENCE)


@pytest.mark.row("M-13", "F-4")
@pytest.mark.parametrize("host", LOOPBACK)
async def test_names_and_addresses_are_checked_and_found(host: str) -> None:
    async with serving() as listener:
        client = Recorder()
        transport = await connect_tls(host, listener.port, client_context(shared_ca().client()), client)
        transport.write([b"there?"])
        await client.received(b"there?")
        assert transport.peer.tls_version == "TLSv1.3" and transport.peer.certificate
        transport.close()
        assert await client.lost() is None


@pytest.mark.row("M-13")
@pytest.mark.parametrize("host", LOOPBACK)
async def test_a_server_of_another_name_is_refused(host: str) -> None:
    others = [name for name in ("broker.example", *LOOPBACK) if name != host]
    async with serving(shared_ca().server(others)) as listener:
        with pytest.raises(TlsRefused, match=r"mismatch|not valid for") as refusal:
            await connect_tls(host, listener.port, client_context(shared_ca().client()), Recorder())
        assert (refusal.value.alert, refusal.value.by_peer) == ("bad_certificate", False)


async def test_the_name_to_check_may_differ_from_the_address_dialled() -> None:
    async with serving(shared_ca().server(["broker.example"])) as listener:
        client = Polite()
        context = client_context(shared_ca().client())
        transport = await connect_tls("127.0.0.1", listener.port, context, client, server_name="broker.example")
        transport.close()
        await client.lost()


@pytest.mark.row("M-11")
async def test_a_server_of_another_ca_is_refused() -> None:
    async with serving(ThrowawayCa("Another CA").server()) as listener:
        with pytest.raises(TlsRefused) as refusal:
            await connect_tls("127.0.0.1", listener.port, client_context(shared_ca().client()), Recorder())
        assert (refusal.value.alert, refusal.value.by_peer) == ("unknown_ca", False)


BAD = [("foreign", "unknown_ca"), ("expired", "certificate_expired")]


def bad_context(kind: str, newest: ssl.TLSVersion) -> ssl.SSLContext:
    credentials = ThrowawayCa("Another CA").client() if kind == "foreign" else shared_ca().client(ends=-0.5)
    context = client_context(attrs.evolve(credentials, trust_pem=shared_ca().trust_pem))
    context.maximum_version = newest
    return context


@pytest.mark.row("M-11")
@pytest.mark.parametrize(("kind", "alert"), BAD)
async def test_under_1_2_the_connect_itself_is_refused(kind: str, alert: str) -> None:
    async with serving() as listener:
        with pytest.raises(TlsRefused) as refusal:
            context = bad_context(kind, ssl.TLSVersion.TLSv1_2)
            await connect_tls("127.0.0.1", listener.port, context, Recorder())
        assert (refusal.value.alert, refusal.value.by_peer) == (alert, True)


@pytest.mark.row("M-11")
@pytest.mark.parametrize(("kind", "alert"), BAD)
async def test_under_1_3_the_refusal_comes_later_and_is_told(kind: str, alert: str) -> None:
    async with serving() as listener:
        client = Polite()
        transport = await connect_tls("127.0.0.1", listener.port, bad_context(kind, ssl.TLSVersion.TLSv1_3), client)
        for _ in range(3):
            transport.write([bytes(100_000)])  # a client does not wait before it speaks
        error = await client.lost()
        assert isinstance(error, TlsRefused)
        assert (error.alert, error.by_peer) == (alert, True)
        assert client.data == b""


async def test_a_network_that_fails_is_no_refusal() -> None:
    async with serving() as listener:
        port = listener.port
    with pytest.raises(ConnectionRefusedError):
        await connect_tls("127.0.0.1", port, client_context(shared_ca().client()), Recorder())


async def test_an_end_during_the_handshake_is_no_refusal() -> None:
    class Gone(Recorder):
        def data_received(self, data: bytes | memoryview) -> None:
            self.transport.close()

    listener = await listen_tcp("127.0.0.1", 0, Guests(Gone))
    with pytest.raises(ConnectionResetError):
        await connect_tls("127.0.0.1", listener.port, client_context(shared_ca().client()), Recorder())
    listener.abort()
    await listener.wait_closed()


@pytest.mark.row("F-8")
async def test_a_server_without_tls_is_told_apart() -> None:
    class Plain(Polite):
        def data_received(self, data: bytes | memoryview) -> None:
            self.transport.write([b"HTTP/1.1 400 Bad Request\r\n\r\n"])

    listener = await listen_tcp("127.0.0.1", 0, Guests(Plain))
    with pytest.raises(TlsRefused, match="does not speak TLS") as refusal:
        await connect_tls("127.0.0.1", listener.port, client_context(shared_ca().client()), Recorder())
    assert (refusal.value.alert, refusal.value.by_peer) == (None, False)
    listener.abort()
    await listener.wait_closed()


@pytest.mark.row("A-32")
async def test_a_server_that_says_nothing_is_given_up() -> None:
    guests = Guests()
    listener = await listen_tcp("127.0.0.1", 0, guests)
    with pytest.raises(TimeoutError):
        context = client_context(shared_ca().client())
        await connect_tls("127.0.0.1", listener.port, context, Recorder(), timeout=0.1)
    await guests.all[0].until(lambda: bool({"eof", "lost"} & set(guests.all[0].events)))
    listener.abort()
    await listener.wait_closed()


@pytest.mark.row("M-3")
@pytest.mark.parametrize("alpn", [(), ("rs",)], ids=["1.3", "1.2"])
async def test_the_wire_shows_none_of_what_is_said(alpn: tuple[str, ...]) -> None:
    """A proxy in between keeps every byte of both directions."""
    captured = bytearray()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            captured.extend(data)
            writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = await asyncio.open_connection("127.0.0.1", listener.port)
        await asyncio.gather(copy(reader, onward[1]), copy(onward[0], writer))

    async with serving() as listener:
        proxy = await asyncio.start_server(relay, "127.0.0.1", 0)
        port = proxy.sockets[0].getsockname()[1]
        client, secret = Polite(), b"the known plaintext of this session " * 50
        transport = await connect_tls("127.0.0.1", port, client_context(shared_ca().client(), alpn), client)
        transport.write([secret])
        await client.received(secret)
        transport.close()
        await client.lost()
        proxy.close()
    assert len(captured) > 2 * len(secret)
    assert b"known plaintext" not in captured
    assert (b"org.example.app" in captured) == bool(alpn), "TLS 1.3 hides the client's certificate too"


async def test_many_clients_at_once_are_all_served() -> None:
    async def talk(number: int) -> None:
        client = Polite()
        transport = await connect_tls("localhost", listener.port, context, client)
        message = f"client {number}".encode() * 2000
        transport.write([message])
        await client.received(message)
        transport.close()
        assert await client.lost() is None

    context = client_context(shared_ca().client())
    async with serving() as listener:
        await asyncio.gather(*(talk(number) for number in range(40)))
        assert listener.counters.handshakes == 40
