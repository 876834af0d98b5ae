"""Connections whose peers send each other requests, and do not read."""

import asyncio
import time
from collections.abc import AsyncIterator

import attrs
import pytest

from rsocket_broker import joined, pressure
from rsocket_broker.connection import Connection
from rsocket_broker.payload import ErrorCode
from rsocket_broker.protocol.codes import FrameType
from rsocket_broker.protocol.limits import MIB, SECURE
from rsocket_broker.protocol.metadata import route
from rsocket_broker.protocol.relay import UNREAD, Relaying
from rsocket_broker.transports.memory import MemoryTransport, memory_pair
from tests.playbook import SETUP_BODY, C, Frame, M, N, u32, wire, with_metadata
from tests.two_sides import Side, Wires, until

TO_B = route("client:b")
STREAM, CALL, FIRE, PAYLOAD = (
    FrameType.REQUEST_STREAM,
    FrameType.REQUEST_RESPONSE,
    FrameType.REQUEST_FNF,
    FrameType.PAYLOAD,
)


@attrs.define
class Client:
    """A peer made of wire, and the broker's connection to it."""

    served: Connection
    wires: Wires
    end: MemoryTransport

    def send(self, *frames: bytes) -> None:
        self.end.write(list(frames))

    def got(self, kind: int) -> list[Frame]:
        return [frame for frame in self.wires.frames if frame.kind == kind]


class Room:
    """Clients that find each other by their names."""

    def __init__(self) -> None:
        self.clients: dict[str, Client] = {}

    async def join(self, name: str, *, reading: bool = True, body: bytes = SETUP_BODY) -> Client:
        served = Connection(Relaying.server(SECURE, time.monotonic()), Side())
        wires = Wires(reading=reading)
        _, end = memory_pair(served, wires)
        served.relay(name, lambda tag: self.clients[tag[7:].decode()].served.relaying)  # type: ignore[arg-type,return-value]
        client = self.clients[name] = Client(served, wires, end)
        client.send(wire(FrameType.SETUP, 0, body))
        await until(lambda: served.metadata_mime)
        return client


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    room = Room()
    yield room
    for client in room.clients.values():
        client.served.abort()
    for client in room.clients.values():
        await client.served.wait_closed()
        assert client.served.streams_open == 0


async def streaming(room: Room, name: str = "b", stream_id: int = 2) -> None:
    """a's stream 1 is answered by b on its stream 2."""
    room.clients["a"].send(wire(STREAM, 1, u32(0x7FFF_FFFF) + with_metadata(route(f"client:{name}"), b""), M))
    await until(lambda: room.clients[name].got(STREAM))


@pytest.mark.row("A-38", "D-11")
async def test_who_feeds_a_slow_reader_is_paused_and_goes_on_when_it_reads(room: Room) -> None:
    slow, feeder = await room.join("a"), await room.join("b")
    await streaming(room)
    slow.end.pause_reading()
    chunk = wire(PAYLOAD, 2, bytes(16_000), N)
    sent = 0
    while not feeder.served.pressure.held:
        feeder.send(chunk)
        sent += 1
        await asyncio.sleep(0)
    assert sent < 20
    feeder.send(*[chunk] * 100)
    await asyncio.sleep(0.01)
    assert slow.served.bytes_waiting < (sent + 1) * len(chunk), "what was not read is not here"
    assert slow.served.pressure.stalled_seconds > 0
    assert feeder.served.pressure.held_seconds > 0
    assert (slow.served.pressure.feeders, feeder.served.pressure.held_by) == (["b"], ["a"])
    slow.end.resume_reading()
    await until(lambda: len(slow.got(PAYLOAD)) == sent + 100)
    assert not feeder.served.pressure.held


@pytest.mark.row("A-38", "D-11")
async def test_past_its_budget_a_slow_reader_loses_the_stream_and_nobody_else_notices(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pressure, "FEEDER_PAUSE", 0.005)
    monkeypatch.setattr(joined, "RELAY_QUEUE", MIB)
    slow, feeder, other = await room.join("a"), await room.join("b"), await room.join("c")
    await streaming(room)
    slow.end.pause_reading()
    chunk = wire(PAYLOAD, 2, bytes(16_000), N)
    async with asyncio.timeout(10):
        while not feeder.got(FrameType.CANCEL):
            feeder.send(chunk)
            await asyncio.sleep(0)
            assert slow.served.bytes_waiting <= MIB + len(chunk)
    assert slow.served.closing is None
    assert feeder.served.closing is None
    for n in range(20):  # the feeder's other streams, with a third client and with the broker itself
        feeder.send(wire(CALL, 4 * n + 1, with_metadata(route("client:c"), b"x"), M), wire(CALL, 4 * n + 3, b"here"))
        await until(lambda n=n: len(other.got(CALL)) == n + 1)  # type: ignore[misc]
        other.send(wire(PAYLOAD, 2 * n + 2, b"answer", N | C))
    await until(lambda: len(feeder.got(PAYLOAD)) == 40)
    feeder.send(wire(CALL, 999, with_metadata(route("client:a"), b"x"), M))
    await until(lambda: feeder.got(FrameType.ERROR))
    assert UNREAD.encode() in feeder.got(FrameType.ERROR)[0].body
    slow.end.resume_reading()
    await until(lambda: slow.got(FrameType.ERROR))
    (error,) = slow.got(FrameType.ERROR)
    assert (error.stream_id, error.error_code, error.body[4:].decode()) == (1, ErrorCode.REJECTED, UNREAD)
    slow.send(wire(CALL, 3, b"here"))
    await until(lambda: slow.wires.frames[-1].stream_id == 3)


@pytest.mark.row("A-44", "D-11")
async def test_a_peer_that_is_not_read_is_not_taken_for_dead(room: Room) -> None:
    """The silence is ours."""
    lifetime = 0.05
    short = SETUP_BODY[:8] + (int(lifetime * 1000)).to_bytes(4, "big") + SETUP_BODY[12:]
    slow, feeder = await room.join("a"), await room.join("b", body=short)
    await streaming(room)
    slow.end.pause_reading()
    while not feeder.served.pressure.held:
        feeder.send(wire(PAYLOAD, 2, bytes(16_000), N))
        await asyncio.sleep(0)
    await asyncio.sleep(lifetime * 3)
    assert feeder.served.pressure.held
    assert feeder.served.closing is None
    slow.end.resume_reading()
    await until(lambda: feeder.served.closing)  # now it is


@pytest.mark.row("D-11")
async def test_one_who_floods_a_reader_that_sleeps_costs_neither_a_connection(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pressure, "FEEDER_PAUSE", 0.001)
    monkeypatch.setattr(joined, "RELAY_QUEUE", MIB)
    slow, feeder = await room.join("a", reading=False), await room.join("b")
    fire = wire(FIRE, 1, with_metadata(route("client:a"), bytes(16_000)), M)
    for n in range(2000):
        feeder.send(fire[:3] + u32(2 * n + 1) + fire[7:])
        if n % 50 == 0:
            await asyncio.sleep(0)
    await until(lambda: feeder.served.relaying is not None and feeder.served.relaying.relays_failed)
    feeder.send(wire(CALL, 5001, b"alive"))
    await until(lambda: feeder.got(PAYLOAD))
    assert slow.served.bytes_waiting <= MIB + len(fire)
    assert slow.served.closing is None


@pytest.mark.row("D-11")
async def test_counters_show_who_waits_for_whose_credit(room: Room) -> None:
    consumer, producer = await room.join("a"), await room.join("b")
    consumer.send(wire(STREAM, 1, u32(1) + with_metadata(TO_B, b""), M), wire(STREAM, 3, u32(1) + b"plain:5"))
    await until(lambda: producer.got(STREAM))
    producer.send(wire(PAYLOAD, 2, b"1", N))
    await until(lambda: len(consumer.got(PAYLOAD)) == 2)
    assert consumer.served.streams_waiting == 2
    assert producer.served.streams_waiting == 0
    assert (consumer.served.partners, producer.served.partners) == ({"b"}, {"a"})
    consumer.send(wire(FrameType.REQUEST_N, 1, u32(5)), wire(FrameType.REQUEST_N, 3, u32(9)))
    await until(lambda: consumer.served.streams_waiting == 0)
