"""What the transport tests share: a receiver that writes down what happens, and a connected pair of every kind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from rsocket_broker.transports.base import Transport
from rsocket_broker.transports.http import Site, Socket
from rsocket_broker.transports.memory import memory_pair
from rsocket_broker.transports.tcp import connect_tcp, connect_unix, listen_tcp, listen_unix
from rsocket_broker.transports.tls import connect_tls, listen_tls
from rsocket_broker.transports.tls_contexts import ServerContexts, client_context
from rsocket_broker.transports.websocket_client import connect_websocket
from tests.throwaway_ca import shared_ca

PATIENCE = 10.0
"""Seconds until a test that waits for something gives up."""
KINDS = ("memory", "tcp", "unix", "tls", "ws", "wss")
PLAIN_KINDS = KINDS[:4]
"""Those that carry any bytes. Over WebSocket the stream must be RSocket's: frames behind their lengths."""
LIMIT = 0xFF_FFFF


def framed(*payloads: bytes) -> bytes:
    """These as RSocket's stream has frames: each behind its length."""
    return b"".join(len(payload).to_bytes(3) + payload for payload in payloads)


class Recorder:
    """A receiver that keeps everything, and lets a test wait for what it expects."""

    def __init__(self) -> None:
        self.transport: Transport
        self.events: list[str] = []
        self.data = bytearray()
        self.losses: list[Exception | None] = []
        self._changed = asyncio.Event()

    def transport_ready(self, transport: Transport) -> None:
        self.transport = transport
        self._note("ready")

    def data_received(self, data: bytes | memoryview) -> None:
        assert len(data) > 0
        self.data += data
        if self.events[-1] != "data":
            self.events.append("data")
        self._changed.set()

    def eof_received(self) -> None:
        self._note("eof")

    def writing_paused(self) -> None:
        self._note("paused")

    def writing_resumed(self) -> None:
        self._note("resumed")

    def transport_lost(self, error: Exception | None) -> None:
        self.losses.append(error)
        self._note("lost")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until what was recorded makes `condition` true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def lost(self) -> Exception | None:
        await self.until(lambda: bool(self.losses))
        return self.losses[0]

    async def received(self, expected: bytes) -> None:
        """Waits for exactly these bytes; raises ConnectionError when the line ends before they came."""
        await self.until(lambda: len(self.data) >= len(expected) or bool(self.losses))
        if self.losses and not self.data:
            raise ConnectionAbortedError from self.losses[0]
        assert self.data == expected

    def _note(self, event: str) -> None:
        self.events.append(event)
        self._changed.set()


class Polite(Recorder):
    """Closes when the peer has finished."""

    def eof_received(self) -> None:
        super().eof_received()
        self.transport.close()


class Echo(Polite):
    """Sends back what it gets."""

    def data_received(self, data: bytes | memoryview) -> None:
        super().data_received(data)
        self.transport.write([bytes(data)])


class Guests:
    """A receiver factory that remembers whom it made."""

    def __init__(self, make: Callable[[], Recorder] = Recorder) -> None:
        self._make = make
        self.all: list[Recorder] = []
        self._came = asyncio.Event()

    def __call__(self) -> Recorder:
        self.all.append(self._make())
        self._came.set()
        return self.all[-1]

    async def number(self, count: int) -> Recorder:
        """The guest number `count` (from 1), once it has come and is ready."""
        async with asyncio.timeout(PATIENCE):
            while len(self.all) < count:
                self._came.clear()
                await self._came.wait()
        guest = self.all[count - 1]
        await guest.until(lambda: bool(guest.events))
        return guest


@contextlib.asynccontextmanager
async def joined(kind: str, folder: Path, receiver: Recorder | None = None) -> AsyncIterator[tuple[Recorder, Recorder]]:
    """Two receivers, connected over a transport of this `kind`: the one that connected and the one that accepted."""
    client, guests = receiver or Recorder(), Guests()
    listener = None
    if kind == "memory":
        memory_pair(client, guests())
    elif kind == "tcp":
        listener = await listen_tcp("127.0.0.1", 0, guests)
        await connect_tcp("127.0.0.1", listener.port, client)
    elif kind == "unix":
        listener = await listen_unix(folder / "s", guests)
        await connect_unix(folder / "s", client)
    elif kind == "ws":
        site = Site({}, {"/rsocket": Socket(guests, LIMIT)}, loopback=True)
        listener = await listen_tcp("127.0.0.1", 0, site.greet)
        site.port = listener.port
        await connect_websocket("127.0.0.1", listener.port, client)
    elif kind == "wss":
        site = Site({}, {"/rsocket": Socket(guests, LIMIT)})
        listener = await listen_tls("127.0.0.1", 0, site.greet, ServerContexts(shared_ca().server()).pick_web)
        context = client_context(shared_ca().client())
        await connect_websocket("127.0.0.1", listener.port, client, context=context)
    else:
        listener = await listen_tls("127.0.0.1", 0, guests, ServerContexts(shared_ca().server()).pick)
        await connect_tls("127.0.0.1", listener.port, client_context(shared_ca().client()), client)
    server = await guests.number(1)
    try:
        yield client, server
    finally:
        for end in (client, server):
            end.transport.abort()
            await end.lost()
        if listener is not None:
            listener.close()
            await listener.wait_closed()
