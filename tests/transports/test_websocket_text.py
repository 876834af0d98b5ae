"""Text messages over WebSocket: cut in every way, of every size; and what breaks the line."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from rsocket_broker.transports.base import Channel, TextTransport
from rsocket_broker.transports.http import MessageSocket, Site
from rsocket_broker.transports.listener import Listener
from rsocket_broker.transports.tcp import listen_tcp
from rsocket_broker.transports.websocket_text import TextFraming
from tests.transports.recording import PATIENCE

LIMIT = 100_000


def framing(limit: int = LIMIT) -> TextFraming:
    return TextFraming(ServerProtocol(state=OPEN), limit)


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, position = [], 0
    for size in sizes:
        pieces.append(data[position : position + size])
        position += size
    return [*pieces, data[position:]]


texts = st.text(max_size=200).map(str.encode) | st.sampled_from([b"x" * 125, b"x" * 126, b"y" * 300])


@given(st.lists(st.lists(texts, min_size=1, max_size=3), max_size=3), st.lists(st.integers(0, 9), max_size=60))
def test_messages_come_out_whole_however_they_are_cut(messages: list[list[bytes]], sizes: list[int]) -> None:
    data = b""
    for parts in messages:
        for number, part in enumerate(parts):
            data += frame(CONT if number else TEXT, part, fin=number == len(parts) - 1) + frame(PING, b"?")
    reader = framing()
    found = [message for piece in cut(data, sizes) for message in reader.receive(piece)]
    assert reader.broken is None
    assert found == [b"".join(parts) for parts in messages]


def test_characters_may_be_cut_between_frames_and_reads() -> None:
    text = "äöü€🙂".encode()
    data = b"".join(frame(CONT if at else TEXT, text[at : at + 1], fin=at == len(text) - 1) for at in range(len(text)))
    reader = framing()
    assert [message for at in range(len(data)) for message in reader.receive(data[at : at + 1])] == [text]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(BINARY, b"{}"), 1003),
        (frame(BINARY, b"{}", fin=False), 1003),
        (frame(CONT, b"{}"), 1002),
        (frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), 1002),
        (Frame(TEXT, b"{}").serialize(mask=False), 1002),
        (b"\xc1\x80\0\0\0\0", 1002),
        (b"\x89\xfe\x00\x7e\0\0\0\0", 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xc3"), 1007),
        (frame(TEXT, b"\xc3", fin=False) + frame(CONT, b"x"), 1007),
        (frame(TEXT, b"\xed\xa0\x80"), 1007),
        (frame(TEXT, b"x" * (LIMIT + 1)), 1009),
        (frame(TEXT, b"x" * LIMIT, fin=False) + frame(CONT, b"x"), 1009),
        (b"\x81\xff" + bytes([0x7F] * 12), 1009),
    ],
    ids=range(14),  # masks are random, and names must be the same in every process
)
def test_what_breaks_the_rules_is_told_so_by_its_code(data: bytes, code: int) -> None:
    reader = framing()
    before = reader.receive(frame(TEXT, b"before") + data[:1]) + reader.receive(data[1:])
    assert before == [b"before"]
    assert reader.broken
    assert reader.replies(pongs=True)[2:4] == code.to_bytes(2)
    assert reader.receive(frame(TEXT, b"after")) == []


def test_after_a_goodbye_nothing_is_read() -> None:
    reader = framing()
    assert reader.receive(frame(TEXT, b"1") + frame(CLOSE, b"\x03\xe8") + frame(TEXT, b"2")) == [b"1"]
    assert reader.finished


def test_pongs_are_taken() -> None:
    reader = framing()
    assert reader.receive(frame(PONG, b"") + frame(TEXT, b"1")) == [b"1"]
    assert not reader.irregular


# ---- over a socket -------------------------------------------------------------------------------------------------


class Guest:
    """Who uses the messages of one line."""

    def __init__(self) -> None:
        self.transport: TextTransport
        self.events: list[object] = []
        self.bytes = 0
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def transport_ready(self, transport: TextTransport) -> None:
        self.transport = transport

    def heard(self, size: int) -> None:
        self.bytes += size

    def message_received(self, text: bytes) -> None:
        self.events.append(text)
        if text == b"close":
            self.transport.close(1012, "as you wish")
        elif text == b"abort":
            self.transport.abort()
        else:
            self.transport.send(text)

    def eof_received(self) -> None:
        self.events.append("eof")
        self.transport.close(1000, "")

    def writing_paused(self) -> None:
        self.events.append("paused")

    def writing_resumed(self) -> None:
        self.events.append("resumed")

    def transport_lost(self, error: Exception | None) -> None:
        self.lost.set_result(error)


@contextlib.asynccontextmanager
async def place(**options: Any) -> AsyncIterator[tuple[Callable[[], Any], list[Guest]]]:
    guests: list[Guest] = []

    def welcome(peer: object, request: object) -> Guest:
        guests.append(Guest())
        return guests[-1]

    site = Site({}, {}, messages=MessageSocket(welcome, LIMIT), check=lambda request: None)
    listener: Listener = await listen_tcp("localhost", 0, site.greet)
    try:
        yield lambda: connect(f"ws://localhost:{listener.port}/?x=y", **options), guests
    finally:
        listener.close()
        listener.abort()


async def closed(line: ClientConnection) -> tuple[int, str]:
    """The code and the reason that the other side gave."""
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ConnectionClosed) as caught:
            await line.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


async def test_a_foreign_client_gets_its_messages_back() -> None:
    async with place() as (dial, guests), dial() as line:
        for text in ("", "{}", "x" * 126, "ä" * 40_000):
            await line.send(text)
            assert await line.recv() == text
        await line.send(["{", '"a":', "1}"])
        assert await line.recv() == '{"a":1}'
        assert guests[0].transport.peer.channel is Channel.WS
        assert guests[0].bytes > 80_000
        await line.close(1000, "bye")
        await guests[0].lost
        assert guests[0].events[-1] == "eof"


async def test_pings_go_both_ways() -> None:
    async with place() as (dial, guests), dial() as line:
        async with asyncio.timeout(PATIENCE):
            await (await line.ping(b"there?"))
            before = guests[0].bytes
            guests[0].transport.ping()
            while guests[0].bytes == before:
                await asyncio.sleep(0.001)
        assert guests[0].events == []


async def test_we_close_with_a_code_and_a_reason() -> None:
    async with place() as (dial, guests), dial() as line:
        await line.send("close")
        assert await closed(line) == (1012, "as you wish")
        assert await guests[0].lost is None
        guests[0].transport.send(b"nobody reads this")
        guests[0].transport.ping()
        guests[0].transport.close(1000, "")


async def test_nothing_is_delivered_behind_our_goodbye() -> None:
    async with place() as (dial, guests), dial() as line:
        await line.send("abort")
        await line.send("late")
        async with asyncio.timeout(PATIENCE):
            await guests[0].lost
        assert guests[0].events == [b"abort"]


async def test_who_breaks_the_rules_is_told_and_let_go() -> None:
    async with place() as (dial, guests), dial() as line:
        await line.send(b"binary")
        code, reason = await closed(line)
        assert code == 1003
        assert "binary" in reason
        error = await guests[0].lost
        assert isinstance(error, ConnectionAbortedError)
        assert guests[0].events == []


async def test_a_peer_that_does_not_read_is_waited_for() -> None:
    async with place(max_queue=1, close_timeout=0.01) as (dial, guests), dial() as line:
        await line.send("x")
        guest = guests[0] if guests else None
        async with asyncio.timeout(PATIENCE):
            assert await line.recv() == "x"
            guest = guests[0]
            while "paused" not in guest.events:
                guest.transport.send(b"y" * LIMIT)
                await asyncio.sleep(0)
            assert guest.transport.queued > 0
            guest.transport.pause_reading()
            guest.transport.resume_reading()
            while "resumed" not in guest.events:
                await line.recv()


async def test_a_random_stream_of_bytes_breaks_nothing_but_its_line() -> None:
    dice = random.Random(7)
    for _ in range(300):
        reader = framing(1000)
        for _ in range(5):
            reader.receive(dice.randbytes(dice.randrange(1, 60)))
        assert isinstance(reader.replies(pongs=True), bytes)
