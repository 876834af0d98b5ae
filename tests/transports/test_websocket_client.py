"""Servers that do not answer as they should. One that does is in test_base.py."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from rsocket_broker.transports.http_request import MAX_HEAD
from rsocket_broker.transports.websocket_client import connect_websocket
from tests.transports.recording import PATIENCE, Recorder, framed


@contextlib.asynccontextmanager
async def server(answer: bytes, *, closes: bool = True) -> AsyncIterator[int]:
    """One that gives the same answer to everybody; its port."""

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if closes:
            writer.write_eof()
        await reader.read()
        writer.close()

    serving: list[asyncio.Task[None] | None] = []
    running = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    async with running:
        yield running.sockets[0].getsockname()[1]
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*filter(None, serving))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nthing", "it says 404"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "handshake is wrong"),
        (
            b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: eA==\r\n\r\n",
            "handshake is wrong",
        ),
        (b"\x00\x00\x20\x00\r\n\r\n", "nothing that is HTTP"),
        (b"x" * (MAX_HEAD + 1), "endless headers"),
        (b"", "closed the connection during"),
        (b"HTTP/1.1 101", "closed the connection during"),
    ],
)
async def test_a_server_that_agrees_to_nothing_is_an_error_in_words(answer: bytes, words: str) -> None:
    client = Recorder()
    async with server(answer) as port:
        with pytest.raises(ConnectionError, match=re.escape(words)):
            await connect_websocket("127.0.0.1", port, client)
    assert client.events == []


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async with server(b"", closes=False) as port:
        with pytest.raises(TimeoutError):
            await connect_websocket("127.0.0.1", port, Recorder(), timeout=0.1)


async def test_nobody_there_is_an_error_of_the_network() -> None:
    async with server(b"") as port:
        pass
    with pytest.raises(OSError):
        await connect_websocket("127.0.0.1", port, Recorder())


async def test_a_foreign_server_is_understood() -> None:
    """The library's own server compresses where a client asks for it; ours does not."""
    paths: list[str] = []

    async def greet(line: ServerConnection) -> None:
        assert line.request is not None
        paths.append(line.request.path)
        await line.send(b"welcome")
        async for message in line:
            await line.send(message)

    async with serve(greet, "127.0.0.1", 0, subprotocols=[Subprotocol("rsocket")]) as running:
        port = next(iter(running.sockets)).getsockname()[1]
        client = Recorder()
        transport = await connect_websocket("127.0.0.1", port, client, path="/elsewhere")
        transport.write([framed(b"one", b"two")])
        await client.received(framed(b"welcome", b"one", b"two"))
        transport.close()
        async with asyncio.timeout(PATIENCE):
            assert await client.lost() is None
    assert paths == ["/elsewhere"]
