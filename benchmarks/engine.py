"""Request-response through the engine against a bare asyncio frame echo, over loopback TCP, one server process each.

    python -m benchmarks.engine [--size 100] [--requests 200000] [--window 128] [--handler plain|coroutine]

The client is the same for both: it keeps `window` requests on their way and counts the bytes that come back. The
ratios are what to look at; the rates are those of the machine.
"""

import argparse
import asyncio
import multiprocessing
import os
import struct
import time
from collections.abc import Awaitable
from multiprocessing.connection import Connection as Pipe
from typing import Any

from rsocket_broker.connection import Connection
from rsocket_broker.errors import ConnectionClosed
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.codes import TYPE_SHIFT, FrameType
from rsocket_broker.protocol.events import SetupReceived
from rsocket_broker.protocol.frames import Setup, frame, setup
from rsocket_broker.protocol.limits import SECURE
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.transports.tcp import listen_tcp


class Echo:
    """The handler whose cost is not the engine's."""

    def setup(self, connection: Connection, setup: SetupReceived) -> None: ...

    def request_response(self, payload: Payload) -> Payload | Awaitable[Payload]:
        return payload

    def fire_and_forget(self, payload: Payload) -> None: ...

    def request_stream(self, payload: Payload) -> Any:
        raise NotImplementedError

    def request_channel(self, payload: Payload, incoming: Any) -> Any:
        raise NotImplementedError

    def metadata_push(self, metadata: bytes) -> None: ...

    def closed(self, error: ConnectionClosed) -> None: ...


class CoroutineEcho(Echo):
    async def request_response(self, payload: Payload) -> Payload:
        return payload


class BareEcho(asyncio.Protocol):
    """Cuts frames by their length and sends each back: the least that any engine must do."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        out = []
        at, size = 0, len(data)
        unpack = struct.Struct("!BH").unpack_from
        while size - at >= 3:
            high, low = unpack(data, at)
            end = at + 3 + (high << 16 | low)
            if end > size:
                break
            out.append(data[at:end])
            at = end
        self.rest = data[at:]
        self.transport.write(b"".join(out))


async def serve(kind: str, pipe: Pipe) -> None:
    if kind == "bare":
        server = await asyncio.get_running_loop().create_server(BareEcho, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
    else:
        responder = Echo() if kind == "plain" else CoroutineEcho()
        listener = await listen_tcp(
            "127.0.0.1", 0, lambda: Connection(Protocol.server(SECURE, time.monotonic()), responder)
        )
        port = listener.port
    pipe.send(port)
    while True:
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        pipe.send(sum(os.times()[:2]))


def run_server(kind: str, pipe: Pipe) -> None:
    asyncio.run(serve(kind, pipe))


class Load(asyncio.Protocol):
    """Keeps `window` bytes of the prepared frames under way until all are answered, byte for byte as an echo does."""

    transport: Any

    def __init__(self, first: bytes, frames: bytes, window: int) -> None:
        self.first, self.frames, self.window = first, frames, window
        self.sent = self.received = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.write(self.first)
        self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        allowed = min(len(self.frames), self.received + self.window)
        if allowed > self.sent:
            self.transport.write(self.frames[self.sent : allowed])
            self.sent = allowed
        if self.received >= len(self.frames) and not self.done.done():
            self.done.set_result(None)


async def measure(kind: str, requests: int, size: int, window: int) -> tuple[float, float]:
    """Requests per second, and microseconds of server CPU for each."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=run_server, args=(kind, theirs), daemon=True)
    process.start()
    port = ours.recv()
    body = b"x" * size
    frames = b"".join(frame(2 * n + 1, FrameType.REQUEST_RESPONSE << TYPE_SHIFT, body) for n in range(requests))
    first = b"" if kind == "bare" else setup(Setup())
    ours.send(None)
    before = ours.recv()
    started = time.perf_counter()

    transport, protocol = await asyncio.get_running_loop().create_connection(
        lambda: Load(first, frames, window * (size + 9)), "127.0.0.1", port
    )
    await protocol.done
    elapsed = time.perf_counter() - started
    ours.send(None)
    cpu = ours.recv() - before
    transport.close()
    process.terminate()
    process.join()
    return requests / elapsed, cpu / requests * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--window", type=int, default=128)
    chosen = parser.parse_args()
    bare_rate = bare_cost = 0.0
    for kind in ("bare", "plain", "coroutine"):
        rate, cost = asyncio.run(measure(kind, chosen.requests, chosen.size, chosen.window))
        if kind == "bare":
            bare_rate, bare_cost = rate, cost
        print(
            f"{kind:>10}: {rate:9.0f}/s  {cost:6.2f} us of server CPU  "
            f"rate {rate / bare_rate:.2f}  cost {bare_cost / cost:.2f} of the bare echo"
        )


if __name__ == "__main__":
    main()
