"""The emulated RSocket client is as strict as the library that it stands for: a server of raw frames tries it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from emulated_apps.rsocket_line import (
    CONNECTION_ERROR,
    HEAD,
    Flag,
    Frame,
    Kind,
    Refused,
    RSocketLine,
    Violation,
    encode,
)


class Server:
    """The other end of one line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))

    async def next(self) -> Frame:
        raw = await self.reader.readexactly(int.from_bytes(await self.reader.readexactly(3), "big"))
        stream, word = HEAD.unpack_from(raw)
        return Frame(stream, word >> 10, word & 0x3FF, raw[HEAD.size :])


@contextlib.asynccontextmanager
async def line_and_server(**changes: Any) -> AsyncIterator[tuple[RSocketLine, Server, list[bytes]]]:
    """A line, its server, and the fire-and-forgets that the line has heard."""
    arrived: asyncio.Future[Server] = asyncio.get_running_loop().create_future()
    listener = await asyncio.start_server(lambda r, w: arrived.set_result(Server(r, w)), "127.0.0.1", 0)
    heard: list[bytes] = []

    async def serve(data: bytes) -> bytes:
        return data * 2

    async def hear(data: bytes) -> None:
        heard.append(data)

    reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
    server = await arrived
    try:
        yield RSocketLine(reader, writer, **({"serve": serve, "hear": hear, "keepalive": 60} | changes)), server, heard
    finally:
        for one in (writer, server.writer):
            one.close()
            with contextlib.suppress(OSError):
                await one.wait_closed()
        listener.close()


async def test_setup_is_what_the_sdk_sends() -> None:
    async with line_and_server(keepalive=10) as (line, server, _):
        line.setup(b"{}")
        frame = await server.next()
        assert frame == (0, Kind.SETUP, 0, bytes.fromhex("0001000000002710 7fffffff") + 2 * b"\x0atext/plain" + b"{}")


@pytest.mark.parametrize("kind", [Kind.SETUP, Kind.LEASE, Kind.RESUME, Kind.RESUME_OK, Kind.EXT])
async def test_frames_that_end_it(kind: Kind) -> None:
    await ends_with(encode(0, kind, 0, bytes(12)), "unexpected frame")


async def test_a_keepalive_to_answer_ends_it() -> None:
    await ends_with(encode(0, Kind.KEEPALIVE, Flag.RESPOND, bytes(8)), "should answer")


async def ends_with(frame: bytes, why: str) -> None:
    async with line_and_server() as (line, server, _):
        server.send(frame)
        with pytest.raises(Violation, match=why):
            await line.run()
        last = await server.next()
        assert (last.stream, last.kind, last.body[:4]) == (0, Kind.ERROR, CONNECTION_ERROR.to_bytes(4, "big"))


async def test_an_error_for_the_connection_ends_it() -> None:
    async with line_and_server() as (line, server, _):
        server.send(encode(0, Kind.ERROR, 0, (3).to_bytes(4, "big") + b"no"))
        with pytest.raises(Refused, match="0x3: no"):
            await line.run()


async def running(line: RSocketLine, use: Callable[[], Any]) -> Any:
    task = asyncio.create_task(line.run())
    try:
        return await use()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_requests_with_odd_or_old_ids_are_dropped() -> None:
    async with line_and_server() as (line, server, heard):

        async def use() -> None:
            for stream, data in ((2, b"a"), (3, b"odd"), (6, b"b"), (4, b"old"), (6, b"again"), (8, b"c")):
                server.send(encode(stream, Kind.REQUEST_FNF, 0, data))
            server.send(encode(10, Kind.REQUEST_RESPONSE, 0, b"ab"))
            frame = await server.next()
            assert frame == (10, Kind.PAYLOAD, Flag.NEXT | Flag.COMPLETE, b"abab")
            assert heard == [b"a", b"b", b"c"]
            assert [one.data for one in line.dropped] == [b"odd", b"old", b"again"]

        await running(line, use)


async def test_metadata_is_skipped_and_fragments_are_joined() -> None:
    async with line_and_server() as (line, server, heard):

        async def use() -> None:
            server.send(encode(2, Kind.REQUEST_FNF, Flag.METADATA, b"\x00\x00\x01mdata"))
            server.send(encode(4, Kind.REQUEST_RESPONSE, Flag.FOLLOWS, b"a"))
            server.send(encode(4, Kind.PAYLOAD, Flag.FOLLOWS | Flag.NEXT, b"b"))
            server.send(encode(4, Kind.PAYLOAD, Flag.NEXT, b"c"))
            assert (await server.next()).body == b"abcabc"
            assert heard == [b"data"]

        await running(line, use)


async def test_large_answers_repeat_their_end_and_larger_ones_are_errors() -> None:
    async with line_and_server(fragment=4, largest=10) as (line, server, _):

        async def use() -> None:
            server.send(encode(2, Kind.REQUEST_RESPONSE, 0, b"abcde"))
            last = Flag.NEXT | Flag.COMPLETE
            frames = [await server.next() for _ in range(3)]
            assert [(frame.flags, frame.body) for frame in frames] == [
                (last | Flag.FOLLOWS, b"abcd"),
                (last | Flag.FOLLOWS, b"eabc"),
                (last, b"de"),
            ]
            server.send(encode(4, Kind.REQUEST_RESPONSE, 0, b"abcdef"))
            frame = await server.next()
            assert frame.kind == Kind.ERROR
            assert b"Skipping sending message larger" in frame.body
            assert not line.fire(b"x" * 11)

        await running(line, use)


async def test_an_unanswered_keepalive_ends_it() -> None:
    async with line_and_server(keepalive=0.01) as (line, server, _):
        await line.run()
        assert (await server.next()).kind == Kind.KEEPALIVE
        assert b"no response to keepalive" in (await server.next()).body


async def test_an_end_without_data_is_no_answer() -> None:
    async with line_and_server() as (line, server, _):

        async def use() -> None:
            asking = asyncio.create_task(line.request(b"x"))
            assert (await server.next()).stream == 1
            server.send(encode(1, Kind.PAYLOAD, Flag.COMPLETE), encode(1, Kind.PAYLOAD, Flag.NEXT, b"answer"))
            assert await asking == b"answer"
            asking = asyncio.create_task(line.request(b"x"))
            assert (await server.next()).stream == 3
            server.writer.close()
            with pytest.raises(ConnectionError):
                await asking

        await running(line, use)
