"""What two connections ask of each other, and how much may come back."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from rsocket_broker.connection import Connection
from rsocket_broker.errors import (
    RequestFailed,
)
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.codes import FrameType
from rsocket_broker.protocol.events import SetupReceived
from rsocket_broker.protocol.frames import Setup
from rsocket_broker.protocol.limits import SECURE, Limits
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.serving import CHANNEL_WINDOW
from rsocket_broker.transports.base import Channel, Peer
from rsocket_broker.transports.memory import memory_pair
from tests.playbook import SETUP_BODY, C, N, u32, wire
from tests.two_sides import BOTH, Line, Side, Wires, until


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    async with Line() as line:
        await line.client.wait_accepted()
        yield line


# ---- the five interactions, both ways --------------------------------------------------------------------------


@pytest.mark.row("A-37", "F-3")
@BOTH
@pytest.mark.parametrize("data", [b"", b"hello", b"slow"])
@pytest.mark.parametrize("metadata", [None, b"", b"meta"])
async def test_request_response(line: Line, who: str, data: bytes, metadata: bytes | None) -> None:
    asker, _ = line.sides(who)
    assert await asker.request_response(Payload(data, metadata)) == Payload(data, metadata)
    assert asker.streams_open == 0


@BOTH
async def test_what_is_asked_is_told_of_until_it_is_answered_where_it_is_about_something(line: Line, who: str) -> None:
    asker, _ = line.sides(who)
    _, told = asker.ask(b"slow", None, None, about="this")
    _, untold = asker.ask(b"slow", None, 30.0)
    assert asker.asked() == [(told, "this")]
    assert [await told, await untold] == [b"slow", b"slow"]
    assert asker.asked() == []


@pytest.mark.row("A-37")
@BOTH
async def test_fire_and_forget(line: Line, who: str) -> None:
    asker, answerer = line.sides(who)
    asker.fire_and_forget(Payload(b"fire"))
    asker.fire_and_forget(Payload(b"later"))
    await until(lambda: answerer.notes == [b"fire", b"later", "done"])


@pytest.mark.row("A-37")
@BOTH
@pytest.mark.parametrize("kind", [b"plain", b"later"])
@pytest.mark.parametrize("count", [0, 1, 3, 300])
async def test_request_stream(line: Line, who: str, kind: bytes, count: int) -> None:
    asker, _ = line.sides(who)
    async with asker.request_stream(Payload(kind + b":%d" % count), initial_n=3) as stream:
        assert [int(payload.data or b"") async for payload in stream] == list(range(count))
    assert asker.streams_open == 0


@pytest.mark.row("A-37")
@BOTH
@pytest.mark.parametrize("count", [0, 1, 200])
async def test_request_channel(line: Line, who: str, count: int) -> None:
    asker, answerer = line.sides(who)
    sent = [b"%d" % n for n in range(count)]

    async def outgoing() -> AsyncIterator[Payload]:
        for data in sent:
            yield Payload(data)

    async with asker.request_channel(Payload(b"first"), outgoing(), initial_n=3) as stream:
        assert [payload.data async for payload in stream] == [b"first", *sent]
    assert answerer.notes == sent, "the first payload is not repeated"
    await until(lambda: line.server.streams_open + line.client.streams_open == 0)


@pytest.mark.row("A-37")
async def test_a_channel_that_is_complete_with_its_request(line: Line) -> None:
    wires = Wires()
    server = Connection(Protocol.server(SECURE, time.monotonic()), Side())
    _, end = memory_pair(server, wires)
    end.write([wire(FrameType.SETUP, 0, SETUP_BODY), wire(FrameType.REQUEST_CHANNEL, 1, u32(1) + b"collect", C)])
    await until(lambda: len(wires.frames) == 2)
    assert [(frame.kind, frame.flags) for frame in wires.frames] == [(FrameType.PAYLOAD, N), (FrameType.PAYLOAD, C)]
    server.abort()
    await server.wait_closed()


@pytest.mark.row("A-37")
@BOTH
async def test_metadata_push(line: Line, who: str) -> None:
    asker, answerer = line.sides(who)
    asker.metadata_push(b"about us")
    asker.metadata_push(b"bug")
    await until(lambda: answerer.notes == [b"about us", b"bug"])
    assert await asker.request_response(Payload(b"alive")) == Payload(b"alive")


@pytest.mark.row("F-3")
async def test_both_sides_call_each_other_at_the_same_time(line: Line) -> None:
    calls = [one.request_response(Payload(b"%d" % n)) for n in range(100) for one in (line.client, line.server)]
    answers = await asyncio.gather(*calls)
    assert [answer.data for answer in answers] == [b"%d" % (n // 2) for n in range(200)]
    assert line.server.requests_served == line.client.requests_served == 100


async def test_answers_and_requests_longer_than_a_frame() -> None:
    async with Line(Limits(fragment=100)) as line:
        for asker in (line.client, line.server):
            await line.client.wait_accepted()
            payload = Payload(bytes(range(256)) * 20, b"m" * 500)
            assert await asker.request_response(payload) == payload


async def test_what_the_two_sides_know_of_each_other() -> None:
    async with Line(setup=Setup(data_mime="text/plain", data=b"claims", metadata=b"")) as line:
        await line.client.wait_accepted()
        assert line.here.setups == [
            SetupReceived(20_000, 90_000, "message/x.rsocket.composite-metadata.v0", "text/plain", b"claims", b"")
        ]
        assert line.server.data_mime == "text/plain"
        assert line.server.metadata_mime == "message/x.rsocket.composite-metadata.v0"
        assert line.server.peer == Peer("memory", Channel.MEMORY)
        assert line.client.frames_out == line.server.frames_in == 2
        assert line.client.bytes_out == line.server.bytes_in > 0


# ---- flow control ----------------------------------------------------------------------------------------------


@pytest.mark.row("A-38")
@BOTH
@pytest.mark.parametrize("kind", [b"plain", b"later"])
async def test_a_slow_consumer_stops_the_producer(line: Line, who: str, kind: bytes) -> None:
    asker, answerer = line.sides(who)
    async with asker.request_stream(Payload(kind + b":1000000"), initial_n=4) as stream:
        await until(lambda: answerer.produced)
        for taken in range(1, 21):
            await anext(stream)
            for _ in range(30):
                await asyncio.sleep(0)
            assert answerer.produced <= taken + 4 + 1, "at most one ahead of the credit"


@pytest.mark.row("A-38")
async def test_a_slow_handler_stops_the_requester_of_a_channel(line: Line) -> None:
    produced = 0

    async def outgoing() -> AsyncIterator[Payload]:
        nonlocal produced
        while True:
            produced += 1
            yield Payload(bytes(1000))

    async with line.client.request_channel(Payload(b"patient"), outgoing()):
        for _ in range(500):
            await asyncio.sleep(0)
        assert CHANNEL_WINDOW <= produced <= CHANNEL_WINDOW + 1


@pytest.mark.row("A-38")
async def test_a_consumer_past_its_byte_budget_is_cut_and_nobody_else_notices() -> None:
    async with Line(Limits(incoming=100_000)) as line:

        async def outgoing() -> AsyncIterator[Payload]:
            while True:
                yield Payload(bytes(30_000))

        stream = line.client.request_stream(Payload(b"plain:0"))
        channel = line.client.request_channel(Payload(b"patient"), outgoing())
        with pytest.raises(RequestFailed):
            await anext(channel)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert await line.client.request_response(Payload(b"alive")) == Payload(b"alive")


@pytest.mark.row("A-38", "A-31")
@pytest.mark.parametrize("count", [None, 3], ids=["endless", "complete"])
async def test_all_channels_of_a_peer_share_a_byte_budget(count: int | None) -> None:
    async with Line(Limits(incoming=100_000, incoming_all=200_000)) as line:

        async def outgoing(size: int) -> AsyncIterator[Payload]:
            for _ in range(1000 if count is None else count):
                yield Payload(bytes(size))
                await asyncio.sleep(0)

        channels = [line.client.request_channel(Payload(b"patient"), outgoing(size)) for size in (100, *[30_000] * 20)]
        await until(lambda: 0 < len(line.server._work) <= 4)
        assert sum(stream.held for stream in line.server._channels.values()) <= 300_000
        assert 1 in line.server._work._running, "the fullest are cut, and not the others"
        for channel in channels:
            channel.close()
        assert await line.client.request_response(Payload(b"alive")) == Payload(b"alive")
