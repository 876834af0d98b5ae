"""A server and a client of ours, joined in memory, for the tests of what drives the engine."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from rsocket_broker.connection import Connection
from rsocket_broker.errors import (
    ApplicationError,
    ConnectionClosed,
    EnrollmentRefused,
    Invalid,
    RequestFailed,
)
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.events import SetupReceived
from rsocket_broker.protocol.frames import Setup
from rsocket_broker.protocol.limits import SECURE, Limits
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.transports.memory import memory_pair
from tests.playbook import cut

SECOND = 5.0
"""Far longer than anything here takes."""


class Side:
    """A Responder that does what its payloads say, and notes what happens."""

    def __init__(self) -> None:
        self.setups: list[SetupReceived] = []
        self.judge: Callable[[SetupReceived], Awaitable[None] | None] = lambda setup: None
        self.notes: list[Any] = []
        self.ends: list[ConnectionClosed] = []
        self.cancelled = asyncio.Event()
        self.produced = 0
        self.running = 0
        self.most_running = 0

    def setup(self, connection: Connection, setup: SetupReceived) -> Awaitable[None] | None:
        self.setups.append(setup)
        return self.judge(setup)

    def request_response(self, payload: Payload) -> Payload | Awaitable[Payload]:
        self.notes.append(payload.data)
        match payload.data:
            case b"error":
                raise Invalid("no such thing")
            case b"bug":
                raise ZeroDivisionError("secret internals")
            case b"later bug":
                return self.fail_later()
            case b"wait":
                return self.wait()
            case b"nonsense":
                return Payload("text, not bytes")  # type: ignore[arg-type]
            case b"enrol":
                raise EnrollmentRefused("proof", "no container", "plug it in")
            case b"slow":
                return self.slow(payload)
        return payload

    async def slow(self, payload: Payload) -> Payload:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0.02)
        self.running -= 1
        return payload

    async def fail_later(self) -> Payload:
        await asyncio.sleep(0)
        raise KeyError("secret internals")

    async def wait(self) -> Payload:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        raise AssertionError("not reached")

    def fire_and_forget(self, payload: Payload) -> Awaitable[None] | None:
        self.notes.append(payload.data)
        if payload.data == b"bug":
            raise ZeroDivisionError("secret internals")
        return self.noting(payload) if (payload.data or b"").startswith(b"later") else None

    async def noting(self, payload: Payload) -> None:
        await asyncio.sleep(0)
        if payload.data == b"later bug":
            raise ZeroDivisionError("secret internals")
        self.notes.append("done")

    def request_stream(self, payload: Payload) -> AsyncIterator[Payload] | Iterator[Payload]:
        kind, _, count = (payload.data or b"").partition(b":")
        numbers = self.numbers(int(count or 0))
        if kind == b"plain":
            return numbers
        return self.later(numbers, fails=kind == b"fails")

    def numbers(self, count: int) -> Iterator[Payload]:
        try:
            for n in range(count):
                self.produced += 1
                yield Payload(b"%d" % n)
        finally:
            self.cancelled.set()

    async def later(self, numbers: Iterator[Payload], *, fails: bool) -> AsyncIterator[Payload]:
        with contextlib.closing(numbers):  # type: ignore[type-var]
            for payload in numbers:
                await asyncio.sleep(0)
                yield payload
        if fails:
            raise ApplicationError("halfway")

    async def request_channel(self, payload: Payload, incoming: AsyncIterator[Payload]) -> AsyncIterator[Payload]:
        match payload.data:
            case b"collect":
                yield await self.gather(incoming)
                return
            case b"deaf":
                yield Payload(b"not listening")
                return
            case b"patient":
                try:
                    await asyncio.sleep(60)
                finally:
                    self.cancelled.set()
            case b"bug":
                raise ZeroDivisionError("secret internals")
        yield payload
        try:
            async for one in incoming:
                self.notes.append(one.data)
                yield one
        finally:
            self.cancelled.set()

    async def gather(self, incoming: AsyncIterator[Payload]) -> Payload:
        try:
            return Payload(b",".join([one.data or b"" async for one in incoming]))
        except RequestFailed as error:
            self.notes.append(error.public)
            raise

    def metadata_push(self, metadata: bytes) -> None:
        self.notes.append(metadata)
        if metadata == b"bug":
            raise ZeroDivisionError("secret internals")

    def closed(self, error: ConnectionClosed) -> None:
        self.ends.append(error)


class Line:
    """A server and a client, joined."""

    def __init__(self, limits: Limits = SECURE, setup: Setup | None = None) -> None:
        self.here, self.there = Side(), Side()
        self.server = Connection(Protocol.server(limits, time.monotonic()), self.here)
        self.client = Connection(Protocol.client(setup or Setup(), limits, time.monotonic()), self.there)

    async def __aenter__(self) -> "Line":
        self.ends = memory_pair(self.server, self.client)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.abort()
        self.server.abort()
        await self.client.wait_closed()
        await self.server.wait_closed()
        for side in (self.here, self.there):
            assert len(side.ends) == 1, "closed is told exactly once"
        await asyncio.sleep(0)
        assert len(self.server._work) == len(self.client._work) == 0, "no work outlives its connection"
        assert self.server.streams_open == self.client.streams_open == 0

    def sides(self, which: str) -> tuple[Connection, Side]:
        """The one who asks, and the responder of the other."""
        return (self.client, self.here) if which == "client" else (self.server, self.there)


BOTH = pytest.mark.parametrize("who", ["client", "server"])
within = asyncio.timeout


async def nothing() -> AsyncIterator[Payload]:
    return
    yield


async def until(what: Callable[[], object]) -> None:
    async with within(SECOND):
        while not what():
            await asyncio.sleep(0.001)


class Wires:
    """A peer made of wire: takes bytes only when told to, and cuts them into frames."""

    def __init__(self, *, reading: bool = True, pause: float = 0) -> None:
        self.frames: list[Any] = []
        self.lost = asyncio.Event()
        self._pause = pause
        self._rest = b""
        self._reading = reading

    def transport_ready(self, transport: Any) -> None:
        self.transport = transport
        if not self._reading:
            transport.pause_reading()

    def data_received(self, data: bytes | memoryview) -> None:
        self._rest += data
        while len(self._rest) >= 3 and len(self._rest) >= (end := 3 + int.from_bytes(self._rest[:3], "big")):
            self.frames += cut(self._rest[:end])
            self._rest = self._rest[end:]
        if self._pause:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(self._pause, self.transport.resume_reading)

    def eof_received(self) -> None:
        self.transport.close()

    def writing_paused(self) -> None: ...
    def writing_resumed(self) -> None: ...

    def transport_lost(self, error: Exception | None) -> None:
        self.lost.set()
