"""A server made of bytes, for clients to be judged by: TLS in front, and behind it whatever the test says."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from rsocket_broker.credentials import Credentials
from tests.conformance import wire
from tests.conformance.wire import Frame

WAIT = 5.0
"""Seconds that a client may take for anything that it must do."""
LINGER = 0.03
"""Seconds in which it would have sent what it should not."""


class Client:
    """One connection of a client. A KEEPALIVE that asks for an answer gets it by itself, and is not shown."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        self._reader = reader
        self._writer = writer
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue()
        self.received = 0
        """The position of what was received."""
        self.answers = answers
        """Whether KEEPALIVE is answered."""

    def send(self, *frames: bytes) -> None:
        self._writer.write(b"".join(frames))

    async def next(self, within: float = WAIT) -> Frame | None:
        """The next frame, None at the end. Raises TimeoutError."""
        async with asyncio.timeout(within):
            return await self._frames.get()

    async def expect(self, kind: int, stream: int | None = None) -> Frame:
        """The next frame, which must be of that type, and stream."""
        one = await self.next()
        assert one is not None, "the client has gone"
        assert one.kind == kind, wire.shown(one)
        assert stream is None or one.stream == stream, wire.shown(one)
        return one

    async def settle(self, stream: int = 0) -> list[Frame]:
        """What has come once the client has dealt with everything sent so far."""
        self.send(wire.keepalive(b"settle"))
        found = []
        while (one := await self.next()) is not None and one.body[8:] != b"settle":
            found.append(one)
        assert one is not None, f"the client has gone; before that it said {[wire.shown(each) for each in found]}"
        with contextlib.suppress(TimeoutError):
            while (one := await self.next(LINGER)) is not None:
                found.append(one)
        return [one for one in found if not stream or one.stream == stream]

    async def ends(self) -> list[Frame]:
        """The client closes; what it said before."""
        found = []
        while (one := await self.next()) is not None:
            found.append(one)
        return found

    def close(self) -> None:
        """Ends the connection without a word."""
        self._writer.transport.abort()

    async def pump(self) -> None:
        """Reads until the end."""
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                self._take(await self._reader.readexactly(int.from_bytes(await self._reader.readexactly(3), "big")))
        self._frames.put_nowait(None)
        self._writer.transport.abort()

    def _take(self, content: bytes) -> None:
        stream, word = int.from_bytes(content[:4], "big"), int.from_bytes(content[4:6], "big")
        one = Frame(stream, word >> 10, word & 0x3FF, content[6:])
        if wire.REQUEST_RESPONSE <= one.kind <= wire.ERROR and stream:
            self.received += len(content)
        if one.kind != wire.KEEPALIVE or not one.flags & wire.RESPOND:
            self._frames.put_nowait(one)
        elif self.answers:
            self.send(wire.frame(0, wire.KEEPALIVE, 0, self.received.to_bytes(8, "big") + one.body[8:]))


class RawServer:
    """Its clients, in the order in which they come. `answers`: whether KEEPALIVE is answered from the beginning."""

    def __init__(self) -> None:
        self.port = 0
        self.answers = True
        self.lines: list[Client] = []
        self._clients: asyncio.Queue[Client] = asyncio.Queue()

    async def client(self) -> Client:
        """The next client."""
        async with asyncio.timeout(WAIT):
            return await self._clients.get()

    async def came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        one = Client(reader, writer, answers=self.answers)
        self.lines.append(one)
        self._clients.put_nowait(one)
        await one.pump()


@contextlib.asynccontextmanager
async def raw_server(credentials: Credentials, folder: Path) -> AsyncIterator[RawServer]:
    """Listens with the certificate of `credentials`; `folder` is for files."""
    pem = folder / "server.pem"
    pem.write_bytes(credentials.key_pem + credentials.chain_pem)
    pem.chmod(0o600)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=credentials.trust_pem.decode())
    raw = RawServer()
    server = await asyncio.start_server(raw.came, "127.0.0.1", 0, ssl=context)
    raw.port = server.sockets[0].getsockname()[1]
    try:
        yield raw
    finally:
        server.close()
        for one in raw.lines:
            one.close()
        await server.wait_closed()
