"""One line from the adb server to the device: the handshake, and the streams that share it."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable

from tests.emulated_device.wire import CHECKED, MAX_PAYLOAD, UNCHECKED, BrokenWire, Command, Message, read_message

AUTH_TOKEN = 1
AUTH_PUBLIC_KEY = 3
TOKEN_SIZE = 20


class LinkLost(Exception):
    """The line or the stream is gone."""


class Stream:
    """A two-way byte stream inside a link. One message is in flight each way, as the protocol wants."""

    def __init__(self, link: "Link", local: int, remote: int = 0) -> None:
        self.link, self.local, self.remote = link, local, remote
        self.incoming: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.closed = asyncio.Event()
        self.ready = asyncio.Event()

    async def write(self, data: bytes) -> None:
        """Raises LinkLost when the other end has closed the stream."""
        for start in range(0, len(data), self.link.max_payload):
            self.ready.clear()
            self.link.send(Command.WRTE, self.local, self.remote, data[start : start + self.link.max_payload])
            await self.wait_ready()

    async def wait_ready(self) -> None:
        await self.ready.wait()
        if self.closed.is_set():
            raise LinkLost

    async def read(self) -> bytes | None:
        """The next message's payload, or None when the other end has closed."""
        return await self.incoming.get()

    def close(self) -> None:
        if not self.closed.is_set():
            self.link.send(Command.CLSE, self.local, self.remote)
            self.ended()

    def ended(self) -> None:
        self.link.streams.pop(self.local, None)
        self.closed.set()
        self.ready.set()
        self.incoming.put_nowait(None)


class Link:
    """`serve(stream, name)` runs one service; `banner` is what the device says of itself.

    `version` below UNCHECKED makes the device demand and send checksums. Without `authorized` it
    takes no signature, as a phone does whose owner has not yet tapped "allow".
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        banner: bytes,
        serve: Callable[[Stream, str], Awaitable[None]],
        version: int = UNCHECKED,
        authorized: bool = True,
    ) -> None:
        self.reader, self.writer, self.banner, self.serve = reader, writer, banner, serve
        self.version, self.authorized = version, authorized
        self.checked = True
        self.max_payload = MAX_PAYLOAD
        self.streams: dict[int, Stream] = {}
        self.ids = itertools.count(1)
        self.tasks: set[asyncio.Task[None]] = set()

    def send(self, command: Command, arg0: int, arg1: int, payload: bytes = b"") -> None:
        if not self.writer.is_closing():
            self.writer.write(Message(command, arg0, arg1, payload).encode(checked=self.checked))

    async def run(self) -> None:
        try:
            while True:
                self.handle(await read_message(self.reader, checked=self.checked))
        except (asyncio.IncompleteReadError, ConnectionError, BrokenWire):
            pass
        finally:
            self.drop()
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    def drop(self) -> None:
        """Cuts the line as a pulled cable does."""
        for stream in list(self.streams.values()):
            stream.ended()
        self.writer.transport.abort()

    def handle(self, message: Message) -> None:
        handlers: dict[Command, Callable[[Message], None]] = {
            Command.CNXN: self.greet,
            Command.AUTH: self.ask_for_signature,
            Command.OPEN: self.open_from_server,
            Command.OKAY: self.acknowledged,
            Command.WRTE: self.received,
            Command.CLSE: self.closed_by_server,
        }
        handlers[message.command](message)

    def greet(self, message: Message) -> None:
        if not self.authorized:
            self.ask_for_signature(message)
            return
        self.max_payload = min(self.max_payload, message.arg1)
        self.send(Command.CNXN, self.version, MAX_PAYLOAD, self.banner)
        self.checked = min(self.version, message.arg0) <= CHECKED

    def ask_for_signature(self, message: Message) -> None:
        """No signature is good enough, and a public key waits for the owner, who is away."""
        if message.command is Command.AUTH and message.arg0 == AUTH_PUBLIC_KEY:
            return
        self.send(Command.AUTH, AUTH_TOKEN, 0, bytes(TOKEN_SIZE))

    def open_from_server(self, message: Message) -> None:
        stream = self.add_stream(remote=message.arg0)
        self.spawn(self.run_service(stream, message.payload.rstrip(b"\0").decode()))

    def add_stream(self, remote: int = 0) -> Stream:
        stream = Stream(self, next(self.ids), remote)
        self.streams[stream.local] = stream
        return stream

    def spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def run_service(self, stream: Stream, name: str) -> None:
        with contextlib.suppress(LinkLost):
            await self.serve(stream, name)
        stream.close()

    def accept(self, stream: Stream) -> None:
        self.send(Command.OKAY, stream.local, stream.remote)

    def acknowledged(self, message: Message) -> None:
        if stream := self.streams.get(message.arg1):
            stream.remote = message.arg0
            stream.ready.set()

    def received(self, message: Message) -> None:
        if stream := self.streams.get(message.arg1):
            stream.incoming.put_nowait(message.payload)
            self.send(Command.OKAY, stream.local, stream.remote)

    def closed_by_server(self, message: Message) -> None:
        if stream := self.streams.get(message.arg1):
            stream.ended()

    async def open_to_server(self, name: str) -> Stream:
        """Opens a stream to the adb server, which connects it to `tcp:PORT` there. Raises LinkLost if it will not."""
        stream = self.add_stream()
        self.send(Command.OPEN, stream.local, 0, name.encode() + b"\0")
        await stream.wait_ready()
        return stream
