"""What the contract of transports (test_base.py) does not say: WebSocket's own goodbyes, pings and refusals.

The clients here are those of the `websockets` library, and sockets that break the rules.
"""

import asyncio
import subprocess
import sys

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import BINARY, PING, CloseCode, Frame
from websockets.typing import Subprotocol

from rsocket_broker.transports import websocket
from rsocket_broker.transports.base import Channel, MessageTransport
from rsocket_broker.transports.memory import HIGH_WATER, memory_pair
from rsocket_broker.transports.websocket_client import connect_websocket
from tests.transports.recording import PATIENCE, Polite, Recorder, framed
from tests.transports.test_http import UPGRADE, Place, parsed, place


def url(here: Place) -> str:
    return f"ws://{here.host}/rsocket"


async def guest(here: Place) -> Recorder:
    return await here.guests.number(len(here.guests.all))


async def test_a_foreign_client_is_answered_message_for_message() -> None:
    async with place() as here, connect(url(here)) as line:
        for payload in (b"", b"x", bytes(126), bytes(1000)):
            await line.send(payload)
            assert await line.recv() == payload
        await line.send([b"in ", b"", b"fragments"])
        assert await line.recv() == b"in fragments"
        told = (await guest(here)).transport.peer
        assert told.channel is Channel.WS
        assert told.address.startswith("127.0.0.1:")


async def test_the_sub_protocol_is_agreed_on_where_it_is_offered() -> None:
    for offered, agreed in ((["mqtt", "rsocket"], "rsocket"), (["mqtt"], None), (None, None)):
        names = None if offered is None else [Subprotocol(name) for name in offered]
        async with place() as here, connect(url(here), subprotocols=names) as line:
            assert line.subprotocol == agreed


async def test_nothing_is_compressed() -> None:
    async with place() as here, connect(url(here), extensions=[ClientPerMessageDeflateFactory()]) as line:
        assert line.protocol.extensions == []


async def test_pings_are_answered() -> None:
    async with place() as here, connect(url(here)) as line:
        async with asyncio.timeout(PATIENCE):
            await (await line.ping(b"there?"))
        assert (await guest(here)).events == ["ready"]


async def test_text_ends_the_line_with_the_code_for_it() -> None:
    async with place() as here, connect(url(here)) as line:
        await line.send(b"before")
        await line.send("words")
        assert await line.recv() == b"before"
        with pytest.raises(ConnectionClosedError):
            await line.recv()
        assert line.close_code == CloseCode.UNSUPPORTED_DATA
        error = await (await guest(here)).lost()
        assert isinstance(error, ConnectionAbortedError)
        assert "text" in str(error)


@pytest.mark.row("A-31")
async def test_a_message_beyond_the_limit_of_its_path_ends_the_line() -> None:
    async with place() as here, connect(url(here)) as line:
        await line.send(bytes(1001))
        with pytest.raises(ConnectionClosed):
            await line.recv()
        assert line.close_code == CloseCode.MESSAGE_TOO_BIG
        assert isinstance(await (await guest(here)).lost(), ConnectionAbortedError)
        assert (await guest(here)).data == b""


async def test_messages_may_be_longer_once_the_peer_is_known() -> None:
    async with place() as here, connect(url(here)) as line:
        await line.send(b"who I am")
        assert await line.recv() == b"who I am"
        transport = (await guest(here)).transport
        assert isinstance(transport, MessageTransport)
        transport.expect(2000)
        await line.send(bytes(2000))
        assert await line.recv() == bytes(2000)
        await line.send(bytes(2001))
        with pytest.raises(ConnectionClosed):
            await line.recv()
        assert line.close_code == CloseCode.MESSAGE_TOO_BIG


async def test_a_goodbye_is_answered_with_a_goodbye() -> None:
    async with place() as here:
        async with connect(url(here)) as line:
            await line.send(b"last")
        assert line.close_code == CloseCode.NORMAL_CLOSURE
        server = await guest(here)
        assert await server.lost() is None
        assert server.events == ["ready", "data", "eof", "lost"]
        async with connect(url(here)) as line:
            (await guest(here)).transport.close()
            with pytest.raises(ConnectionClosedOK):
                await line.recv()
            assert line.close_code == CloseCode.NORMAL_CLOSURE


async def opened(here: Place) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A raw line on which the upgrade is done."""
    reader, writer = await asyncio.open_connection("127.0.0.1", here.listener.port)
    writer.write(f"GET /rsocket HTTP/1.1\r\nHost: {here.host}\r\n".encode() + UPGRADE + b"\r\n")
    async with asyncio.timeout(PATIENCE):
        answer = parsed(await reader.readuntil(b"\r\n\r\n"))
    assert answer.status == 101
    assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "the example of RFC 6455 1.3"
    return reader, writer


async def test_garbage_after_the_upgrade_ends_that_line_only() -> None:
    async with place() as here, connect(url(here)) as other:
        reader, writer = await opened(here)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            said = await reader.read()
        assert (said[0], int.from_bytes(said[2:4])) == (0x88, CloseCode.PROTOCOL_ERROR)
        writer.close()
        await other.send(b"still here")
        assert await other.recv() == b"still here"


async def test_an_end_of_the_stream_without_a_goodbye_is_an_end() -> None:
    async with place() as here:
        _, writer = await opened(here)
        writer.write(Frame(BINARY, b"last").serialize(mask=True) + b"\x82")
        writer.write_eof()
        server = await guest(here)
        assert await server.lost() is None
        assert server.data == framed(b"last")
        assert server.events == ["ready", "data", "eof", "lost"]
        writer.close()


async def test_a_peer_that_vanishes_is_a_loss() -> None:
    async with place() as here:
        _, writer = await opened(here)
        server = await guest(here)
        writer.transport.abort()
        await server.lost()
        assert server.events[-1] == "lost"


async def test_a_peer_that_reads_no_pongs_gets_none() -> None:
    """Answers to pings never pile up behind a peer that does not read: neither are they sent, nor kept."""
    below, far = Recorder(), Recorder()
    near_end, far_end = memory_pair(below, far)
    head = b"GET /rsocket HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"\r\n"
    framing, _ = websocket.accepted(head)
    user = Polite()
    websocket.WebSocketTransport(near_end, framing, user).start()
    far_end.pause_reading()
    user.transport.write([framed(bytes(HIGH_WATER))])
    assert user.events == ["ready", "paused"]
    queued = user.transport.queued
    for _ in range(100):
        user.transport.resume_reading()
        far_end.write([Frame(PING, bytes(100)).serialize(mask=True)])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert user.transport.queued == queued
    far_end.resume_reading()
    await user.until(lambda: user.events[-1] == "resumed")
    far_end.write([Frame(PING, b"now").serialize(mask=True)])
    await far.until(lambda: far.data.endswith(b"\x8a\x03now"))
    near_end.abort()
    await user.lost()


async def test_our_own_client_knows_the_server_and_how_it_ends() -> None:
    async with place() as here:
        client = Recorder()
        transport = await connect_websocket("localhost", here.listener.port, client)
        assert client.transport is transport
        transport.write([framed(b"hello")])
        await client.received(framed(b"hello"))
        transport.close()
        assert await client.lost() is None


async def test_an_address_of_ipv6_is_named_as_http_wants_it() -> None:
    async with place() as here:
        if "::1" not in here.listener.hosts:
            pytest.skip("this machine has no IPv6")
        client = Recorder()
        transport = await connect_websocket("::1", here.listener.port, client)
        transport.write([framed(b"hello")])
        await client.received(framed(b"hello"))
        assert (await guest(here)).transport.peer.address.startswith("[::1]:")
        transport.abort()
        await client.lost()


def test_the_library_is_loaded_when_the_first_websocket_comes() -> None:
    code = "import sys, rsocket_broker.broker; sys.exit('websockets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=PATIENCE).returncode == 0
