"""Reverse forwards: ports of the device whose connections come out on the adb server's machine.

A device port is a real listener on a free loopback port of this machine, since two emulated devices share it: an
emulated app asks `port(8089)` where its 8089 is.
"""

import asyncio
import contextlib
from collections.abc import Callable

import attrs

from tests.emulated_device.link import Link, LinkLost, Stream


@attrs.define
class Forward:
    local: str
    remote: str
    server: asyncio.Server


OKAY = b"OKAY"


def text_block(text: str) -> bytes:
    return f"{len(text):04x}{text}".encode()


def fail(text: str) -> bytes:
    return b"FAIL" + text_block(text)


class ReverseForwards:
    """`refused`: device port specifications (`tcp:8088`) that cannot be bound, with the text of the refusal."""

    def __init__(self, link: Callable[[], Link]) -> None:
        self.link = link
        self.forwards: dict[str, Forward] = {}
        self.refused: dict[str, str] = {}
        self.writers: set[asyncio.StreamWriter] = set()
        self.clearings = 0

    def port(self, device_port: int) -> int:
        """The real loopback port behind a port of the device; KeyError when it is not forwarded."""
        return int(self.forwards[f"tcp:{device_port}"].server.sockets[0].getsockname()[1])

    async def serve(self, stream: Stream, request: str) -> None:
        """One `reverse:` request, the prefix already taken off."""
        verb, _, rest = request.partition(":")
        if verb == "forward":
            answer = await self.forward(rest)
        elif verb == "list-forward":
            # A device sends the list with no OKAY before it: the one that opened the service has to do.
            answer = text_block("".join(f"(reverse) {item.local} {item.remote}\n" for item in self.forwards.values()))
        elif verb == "killforward":
            answer = self.kill(rest)
        elif verb == "killforward-all":
            self.clear()
            answer = OKAY
        else:
            answer = fail(f"unknown request {request}")
        await stream.write(answer)

    async def forward(self, specification: str) -> bytes:
        rebind = not specification.startswith("norebind:")
        local, _, remote = specification.removeprefix("norebind:").partition(";")
        if local in self.refused:
            return fail(self.refused[local])
        if local in self.forwards:
            if not rebind:
                return fail("cannot rebind existing socket")
            self.forwards[local].remote = remote
            return OKAY
        clearings = self.clearings
        server = await self.listen(local)
        if self.clearings != clearings:  # the device has gone meanwhile, and its ports with it
            server.close()
            raise LinkLost
        if local in self.forwards:  # another request for the same port was faster
            server.close()
            self.forwards[local].remote = remote
        else:
            self.forwards[local] = Forward(local, remote, server)
        return OKAY

    async def listen(self, local: str) -> asyncio.Server:
        """A line that drops cancels this in the middle; a server that listens already must not be left behind."""
        starting = asyncio.ensure_future(asyncio.start_server(lambda r, w: self.carry(local, r, w), "127.0.0.1", 0))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(lambda done: done.result().close())
            raise

    def kill(self, local: str) -> bytes:
        found = self.forwards.pop(local, None)
        if found is None:
            return fail(f"listener '{local}' not found")
        found.server.close()
        return OKAY

    def clear(self) -> None:
        self.clearings += 1
        for item in self.forwards.values():
            item.server.close()
        self.forwards.clear()
        for writer in self.writers:
            writer.close()

    async def carry(self, local: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection made by an app on the device."""
        self.writers.add(writer)
        try:
            stream = await self.link().open_to_server(self.forwards[local].remote)
            inwards = asyncio.ensure_future(self.to_app(stream, writer))
            await self.to_server(reader, stream)
            await inwards
        except (LinkLost, ConnectionError, KeyError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()

    async def to_server(self, reader: asyncio.StreamReader, stream: Stream) -> None:
        with contextlib.suppress(LinkLost, ConnectionError):
            while data := await reader.read(64 * 1024):
                await stream.write(data)
        stream.close()

    async def to_app(self, stream: Stream, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while (data := await stream.read()) is not None:
                writer.write(data)
                await writer.drain()
        writer.close()
