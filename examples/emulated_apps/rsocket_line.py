"""RSocketLine: as much RSocket 1.0 as Flipper's SDK used until early 2022, with the habits of its C++ library."""

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable
from enum import IntEnum, IntFlag
from typing import NamedTuple

LARGEST = 0xFFFFFF
"""Bytes of data in one message. A longer answer becomes an error, a longer event is dropped."""
FRAGMENT = LARGEST - 512
"""Bytes of an answer over which it is sent in parts."""
TOO_LARGE = "Error: Skipping sending message larger than max rsocket payload: "
KEEPALIVE = 10.0
MIME = b"text/plain"
CONNECTION_ERROR, APPLICATION_ERROR = 0x101, 0x201

HEAD = struct.Struct(">IH")


class Kind(IntEnum):
    SETUP = 0x01
    LEASE = 0x02
    KEEPALIVE = 0x03
    REQUEST_RESPONSE = 0x04
    REQUEST_FNF = 0x05
    REQUEST_STREAM = 0x06
    REQUEST_CHANNEL = 0x07
    REQUEST_N = 0x08
    CANCEL = 0x09
    PAYLOAD = 0x0A
    ERROR = 0x0B
    METADATA_PUSH = 0x0C
    RESUME = 0x0D
    RESUME_OK = 0x0E
    EXT = 0x3F


class Flag(IntFlag):
    NONE = 0
    METADATA = 0x100
    FOLLOWS = 0x80
    RESPOND = 0x80
    COMPLETE = 0x40
    NEXT = 0x20


UNEXPECTED = (Kind.SETUP, Kind.LEASE, Kind.RESUME, Kind.RESUME_OK, Kind.EXT)
"""Frames that a server must not send: the connection ends."""


class Violation(Exception):
    """The server has done what the library closes the connection for."""


class Refused(Exception):
    """The server's ERROR frame: for one request, or, with stream 0, for the connection."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code:#x}: {text}")
        self.code, self.text = code, text


class Frame(NamedTuple):
    stream: int
    kind: int
    flags: int
    body: bytes

    @property
    def data(self) -> bytes:
        """Of a request or a payload, without its metadata."""
        if not self.flags & Flag.METADATA:
            return self.body
        return self.body[3 + int.from_bytes(self.body[:3], "big") :]


def encode(stream: int, kind: Kind, flags: int = 0, body: bytes = b"") -> bytes:
    frame = HEAD.pack(stream, kind << 10 | flags) + body
    return len(frame).to_bytes(3, "big") + frame


def setup(keepalive: float, data: bytes) -> bytes:
    """Version 1.0, a lifetime without end, no metadata."""
    numbers = struct.pack(">HHII", 1, 0, int(keepalive * 1000), 0x7FFFFFFF)
    mime = bytes([len(MIME)]) + MIME
    return encode(0, Kind.SETUP, Flag.NONE, numbers + mime + mime + data)


Serve = Callable[[bytes], Awaitable[bytes]]
"""Answers a request-response."""
Hear = Callable[[bytes], Awaitable[None]]
"""Takes a fire-and-forget."""


class RSocketLine:
    """One connection as a client. Start `run` in a task; it returns or raises at the end of the connection.

    `dropped` are the requests that were not looked at, since their stream ids were odd or did not rise; `keepalives`
    counts those of ours that were answered.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        serve: Serve | None = None,
        hear: Hear | None = None,
        keepalive: float = KEEPALIVE,
        largest: int = LARGEST,
        fragment: int = FRAGMENT,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._serve, self._hear = serve, hear
        self._keepalive, self._largest, self._fragment = keepalive, largest, fragment
        self.dropped: list[Frame] = []
        self.keepalives = 0
        self._last_server_stream = 0
        self._next_stream = 1
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._parts: dict[int, tuple[int, bytearray]] = {}
        self._unanswered = False
        self._tasks: set[asyncio.Task[None]] = set()

    def setup(self, data: bytes) -> None:
        self._writer.write(setup(self._keepalive, data))

    async def request(self, data: bytes) -> bytes:
        """Raises Refused, or ConnectionError when the connection ends first."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[stream] = answer
        self._writer.write(encode(stream, Kind.REQUEST_RESPONSE, 0, data))
        return await answer

    def fire(self, data: bytes) -> bool:
        """False for what is too large: it is dropped. These are never sent in parts."""
        if len(data) > self._largest or self._writer.is_closing():
            return False
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._writer.write(encode(stream, Kind.REQUEST_FNF, 0, data))
        return True

    async def run(self) -> None:
        """Until the server ends the connection. Raises Violation, and Refused for a frame that ends it with words."""
        beat = asyncio.create_task(self._beat())
        try:
            while True:
                size = int.from_bytes(await self._reader.readexactly(3), "big")
                raw = await self._reader.readexactly(size)
                stream, word = HEAD.unpack_from(raw)
                self._take(Frame(stream, word >> 10, word & 0x3FF, raw[HEAD.size :]))
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        except Violation as violation:
            self._abort(str(violation))
            raise
        finally:
            beat.cancel()
            await self.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError("the connection has ended"))
                answer.exception()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def _abort(self, text: str) -> None:
        body = CONNECTION_ERROR.to_bytes(4, "big") + text.encode()
        self._writer.write(encode(0, Kind.ERROR, 0, body))

    async def _beat(self) -> None:
        """A keepalive in every interval; one that is still unanswered when the next is due ends the connection."""
        while True:
            await asyncio.sleep(self._keepalive)
            if self._unanswered:
                self._abort("no response to keepalive")
                self._writer.close()
                return
            self._unanswered = True
            self._writer.write(encode(0, Kind.KEEPALIVE, Flag.RESPOND, bytes(8)))

    def _take(self, frame: Frame) -> None:
        if frame.kind in UNEXPECTED:
            raise Violation(f"unexpected frame {Kind(frame.kind).name}")
        if frame.kind == Kind.KEEPALIVE:
            self._alive(frame)
        elif frame.kind == Kind.ERROR:
            self._error(frame)
        elif frame.kind in (Kind.REQUEST_RESPONSE, Kind.REQUEST_FNF):
            self._asked(frame)
        elif frame.kind == Kind.PAYLOAD:
            self._payload(frame)
        elif frame.kind in (Kind.REQUEST_STREAM, Kind.REQUEST_CHANNEL, Kind.METADATA_PUSH):
            raise Violation(f"{Kind(frame.kind).name} is not in use between these two")

    def _alive(self, frame: Frame) -> None:
        if frame.flags & Flag.RESPOND:
            raise Violation("a client got a keepalive that it should answer")
        if frame.body != bytes(8):
            raise Violation(f"the answer to a keepalive is {frame.body.hex()}")
        self._unanswered = False
        self.keepalives += 1

    def _error(self, frame: Frame) -> None:
        refused = Refused(int.from_bytes(frame.body[:4], "big"), frame.body[4:].decode())
        if frame.stream == 0:
            raise refused
        if (answer := self._answers.pop(frame.stream, None)) is not None:
            answer.set_exception(refused)

    def _payload(self, frame: Frame) -> None:
        """An answer to us, or more of a request to us. An end without data is no answer at all."""
        if frame.stream in self._parts:
            kind, buffer = self._parts[frame.stream]
            buffer += frame.data
            if not frame.flags & Flag.FOLLOWS:
                del self._parts[frame.stream]
                self._start(frame.stream, kind, bytes(buffer))
        elif frame.flags & Flag.NEXT and (answer := self._answers.pop(frame.stream, None)) is not None:
            answer.set_result(frame.data)

    def _asked(self, frame: Frame) -> None:
        if frame.stream % 2 or frame.stream <= self._last_server_stream:
            self.dropped.append(frame)
            return
        self._last_server_stream = frame.stream
        if frame.flags & Flag.FOLLOWS:
            self._parts[frame.stream] = (frame.kind, bytearray(frame.data))
        else:
            self._start(frame.stream, frame.kind, frame.data)

    def _start(self, stream: int, kind: int, data: bytes) -> None:
        if self._serve is None or self._hear is None:
            raise Violation("a request in the phase of the exchange")
        work = self._answer(stream, data) if kind == Kind.REQUEST_RESPONSE else self._hear(data)
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, stream: int, asked: bytes) -> None:
        """Large answers go out in parts that all say they are the last, and that more follows."""
        assert self._serve is not None
        data = await self._serve(asked)
        if len(data) > self._largest:
            body = APPLICATION_ERROR.to_bytes(4, "big") + TOO_LARGE.encode() + data[:100]
            self._writer.write(encode(stream, Kind.ERROR, 0, body))
            return
        last = Flag.NEXT | Flag.COMPLETE
        parts = [data[at : at + self._fragment] for at in range(0, len(data), self._fragment)] or [b""]
        for part in parts[:-1]:
            self._writer.write(encode(stream, Kind.PAYLOAD, last | Flag.FOLLOWS, part))
        self._writer.write(encode(stream, Kind.PAYLOAD, last, parts[-1]))
        await self._writer.drain()
