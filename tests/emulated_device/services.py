"""The shell services of a device: `shell:` (one mixed stream, no exit code), `exec:` (the same, raw) and `shell,v2`."""

import asyncio
import contextlib
import struct

from tests.emulated_device.link import LinkLost, Stream
from tests.emulated_device.sandbox import Process, Sandbox

PACKET = struct.Struct("<BI")
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
CHUNK = 64 * 1024


class Input:
    """What the other end sends to a command. `half`: only half of the first piece arrives, then the input ends."""

    def __init__(self, stream: Stream, *, packets: bool) -> None:
        self.stream, self.packets = stream, packets
        self.buffer = bytearray()
        self.half = False

    async def feed(self, process: Process) -> None:
        stdin = process.child.stdin
        assert stdin is not None
        with contextlib.suppress(ConnectionError):
            while (data := await self.next_piece()) is not None:
                if self.half:
                    stdin.write(data[: len(data) // 2])
                    break
                stdin.write(data)
                await stdin.drain()
        with contextlib.suppress(ConnectionError):
            stdin.close()

    async def next_piece(self) -> bytes | None:
        if not self.packets:
            return await self.stream.read()
        while True:
            if len(self.buffer) >= PACKET.size:
                kind, size = PACKET.unpack_from(self.buffer)
                if len(self.buffer) >= PACKET.size + size:
                    body = bytes(self.buffer[PACKET.size : PACKET.size + size])
                    del self.buffer[: PACKET.size + size]
                    if kind == CLOSE_STDIN:
                        return None
                    if kind == STDIN:
                        return body
                    continue
            data = await self.stream.read()
            if data is None:
                return None
            self.buffer += data


async def run_plain(sandbox: Sandbox, stream: Stream, line: str, *, terminal: bool) -> None:
    """`shell:` and `exec:`. A terminal turns every newline of the output into two bytes, as old devices do."""
    process = await sandbox.start(line, split=False)
    feeding = asyncio.ensure_future(Input(stream, packets=False).feed(process))
    watching = asyncio.ensure_future(kill_when_closed(stream, process))
    try:
        assert process.child.stdout is not None
        with contextlib.suppress(LinkLost):
            while data := await process.child.stdout.read(CHUNK):
                shown = sandbox.outside(data)
                await stream.write(shown.replace(b"\n", b"\r\n") if terminal else shown)
        await sandbox.finished(process)
    finally:
        feeding.cancel()
        watching.cancel()


async def run_v2(sandbox: Sandbox, stream: Stream, line: str, *, half_input: bool = False) -> int:
    """`shell,v2`: packets both ways, standard error apart, the exit code last. Answers the exit code, not yet sent."""
    process = await sandbox.start(line, split=True)
    incoming = Input(stream, packets=True)
    incoming.half = half_input
    feeding = asyncio.ensure_future(incoming.feed(process))
    watching = asyncio.ensure_future(kill_when_closed(stream, process))

    async def copy(reader: asyncio.StreamReader | None, kind: int) -> None:
        assert reader is not None
        while data := await reader.read(CHUNK):
            shown = sandbox.outside(data)
            await stream.write(PACKET.pack(kind, len(shown)) + shown)

    try:
        copies = await asyncio.gather(
            copy(process.child.stdout, STDOUT), copy(process.child.stderr, STDERR), return_exceptions=True
        )
        code = await sandbox.finished(process)
        if any(isinstance(result, LinkLost) for result in copies):
            raise LinkLost
        return code
    finally:
        feeding.cancel()
        watching.cancel()


async def send_exit(stream: Stream, code: int) -> None:
    await stream.write(PACKET.pack(EXIT, 1) + bytes([code & 0xFF]))


async def kill_when_closed(stream: Stream, process: Process) -> None:
    """The other end hung up on a running command: it gets no answer and no more time.

    A line that drops is different: the command is not told, and goes on by itself.
    """
    await stream.closed.wait()
    if not stream.link.writer.is_closing():
        process.kill()
