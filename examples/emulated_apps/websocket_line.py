"""WebSocketLine: a WebSocket as a client, over a plain stream or over TLS, one text message after the other."""

import asyncio
import contextlib
from collections import deque
from typing import Protocol

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import CONNECTING, OPEN
from websockets.uri import parse_uri

LARGEST = 2**53 - 1
"""Bytes of a message that the SDK takes."""


class Stream(Protocol):
    """What carries it."""

    async def read(self) -> bytes: ...
    def write(self, data: bytes) -> None: ...
    async def close(self) -> None: ...


class PlainLine:
    """A stream without TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        try:
            return await self._reader.read(65536)
        except ConnectionError:
            return b""

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class NotUpgraded(Exception):
    """The server did not open the WebSocket. `status` is its HTTP answer's, None when there was none."""

    def __init__(self, status: int | None) -> None:
        super().__init__("the end of the stream" if status is None else f"HTTP {status}")
        self.status = status


class WebSocketLine:
    """`open` first. `close_code` and `close_reason` are the server's, once it has closed."""

    def __init__(self, stream: Stream, host: str, query: str) -> None:
        self._stream = stream
        self._protocol = ClientProtocol(parse_uri(f"ws://{host}/?{query}"), max_size=LARGEST)
        self._messages: deque[str] = deque()
        self._parts = bytearray()

    @property
    def close_code(self) -> int | None:
        return self._protocol.close_code

    @property
    def close_reason(self) -> str | None:
        return self._protocol.close_reason

    async def open(self) -> None:
        """Raises NotUpgraded; the stream is closed then."""
        self._protocol.send_request(self._protocol.connect())
        self._flush()
        while self._protocol.state is CONNECTING and self._protocol.handshake_exc is None and await self._more():
            pass
        error = self._protocol.handshake_exc
        if error is not None or self._protocol.state is CONNECTING:
            await self._stream.close()
            raise NotUpgraded(error.response.status_code if isinstance(error, InvalidStatus) else None)

    def send(self, text: str) -> bool:
        """False when the WebSocket is closed."""
        if self._protocol.state is not OPEN:
            return False
        self._protocol.send_text(text.encode())
        self._flush()
        return True

    def ping(self) -> None:
        if self._protocol.state is OPEN:
            self._protocol.send_ping(b"")
            self._flush()

    async def receive(self) -> str | None:
        """The next message, None at the end."""
        while not self._messages:
            if not await self._more():
                return None
        return self._messages.popleft()

    def waiting(self) -> int:
        """Messages that have come and have not been received."""
        return len(self._messages)

    async def close(self, code: int = 1000) -> None:
        if self._protocol.state is OPEN:
            self._protocol.send_close(code)
            self._flush()
        await self._stream.close()

    async def _more(self) -> bool:
        data = await self._stream.read()
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        self._flush()
        for event in self._protocol.events_received():
            if not isinstance(event, Response):
                self._take(event)
        return bool(data)

    def _take(self, event: object) -> None:
        assert isinstance(event, Frame)
        if event.opcode in (Opcode.TEXT, Opcode.CONT, Opcode.BINARY):
            assert event.opcode is not Opcode.BINARY, "the server sent a binary message"
            self._parts += event.data
            if event.fin:
                self._messages.append(self._parts.decode())
                self._parts.clear()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._stream.write(data)
