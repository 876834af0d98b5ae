"""A client and a server that lose their line and find another; a peer that lets us ask only so much."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable

import attrs
import pytest

from rsocket_broker.connection import Connection
from rsocket_broker.errors import ConnectionClosed, Rejected, SetupRefused
from rsocket_broker.payload import ErrorCode, Payload
from rsocket_broker.protocol.codes import FrameType
from rsocket_broker.protocol.events import ResumeReceived
from rsocket_broker.protocol.frames import Setup, resume, resume_ok
from rsocket_broker.protocol.limits import SECURE, Limits
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.transports.memory import MemoryTransport, memory_pair
from tests.playbook import wire
from tests.two_sides import SECOND, Side, Wires, until, within

TOKEN = b"a token of 16 B."
LIMITS = attrs.evolve(SECURE, resume_seconds=60.0)
SHORT = attrs.evolve(SECURE, resume_seconds=0.05)


class Answerer(Side):
    """Makes large answers, when it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    def request_response(self, payload: Payload) -> Payload | Awaitable[Payload]:
        if payload.data != b"large":
            return super().request_response(payload)
        self.notes.append(payload.data)
        return self.large()

    async def large(self) -> Payload:
        await self.go_on.wait()
        return Payload(bytes(6000))


class Host:
    """A server that resumes whatever it is asked to, and its client."""

    def __init__(self, limits: Limits = LIMITS, *, lease: bool = False) -> None:
        self.limits = limits
        self.here, self.there = Answerer(), Side()
        self.server = self.door(self.here)
        setup = Setup(resume_token=TOKEN, lease=lease)
        self.client = Connection(Protocol.client(setup, limits, time.monotonic()), self.there)
        self.doors: list[Side] = []
        self.refuse = False

    def door(self, side: Side) -> Connection:
        return Connection(Protocol.server(self.limits, time.monotonic()), side, resumer=self.take)

    def take(self, door: Connection, event: ResumeReceived) -> None:
        if self.refuse:
            raise SetupRefused("nobody knows you")
        assert event.token == TOKEN
        self.server.resume(door, event)

    async def __aenter__(self) -> "Host":
        self.line = memory_pair(self.server, self.client)
        await self.client.wait_accepted()
        return self

    async def __aexit__(self, *_: object) -> None:
        for end in (self.client, self.server):
            end.abort()
            async with within(SECOND):
                await end.wait_closed()
        for side in (self.here, self.there, *self.doors):
            assert len(side.ends) == 1, "closed is told exactly once"
        await asyncio.sleep(0)
        assert len(self.server._work) == len(self.client._work) == 0

    async def cut(self) -> None:
        """The line is lost, and both ends are told."""
        lines, self.line = self.line, ()
        for end in lines:
            end.abort()
        await until(lambda: self.client.suspended or self.client.closing)
        await until(lambda: self.server.suspended or self.server.closing)

    def connect(self) -> tuple[MemoryTransport, ...]:
        """A new line for the client."""
        side = Side()
        self.doors.append(side)
        self.line = memory_pair(self.door(side), self.client)
        return self.line

    async def come_back(self) -> None:
        self.connect()
        async with within(SECOND):
            await self.client.wait_resumed()

    def wires(self) -> Wires:
        """A new line on which the test itself speaks."""
        side, wires = Side(), Wires()
        self.doors.append(side)
        memory_pair(self.door(side), wires)
        return wires


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    async with Host() as host:
        yield host


@pytest.mark.row("A-41")
async def test_calls_that_are_under_way_are_answered_over_the_new_line(host: Host) -> None:
    for asker in (host.client, host.server):
        call = asyncio.ensure_future(asker.request_response(Payload(b"slow"), timeout=SECOND))
        await until(lambda: host.here.running + host.there.running)
        await host.cut()
        assert (host.client.suspended, host.server.suspended) == (True, True)
        assert host.client.closing is None
        await until(lambda: not host.here.running + host.there.running)
        assert not call.done()
        await host.come_back()
        assert (await call).data == b"slow"
    assert (host.client.times_resumed, host.server.times_resumed) == (2, 2)


@pytest.mark.row("A-41")
async def test_calls_wait_while_the_line_is_away_and_what_is_told_is_kept(host: Host) -> None:
    await host.cut()
    call = asyncio.ensure_future(host.server.request_response(Payload(b"hello")))
    late = asyncio.ensure_future(host.client.request_response(Payload(b"late"), timeout=0.02))
    host.client.fire_and_forget(Payload(b"one"))
    host.client.fire_and_forget(Payload(b"two"))
    with pytest.raises(TimeoutError):
        await late
    assert not call.done()
    await host.come_back()
    assert (await call).data == b"hello"
    await until(lambda: host.here.notes == [b"one", b"two"])


@pytest.mark.row("A-41")
@pytest.mark.parametrize("kind", [b"plain", b"later"])
async def test_streams_go_on_in_order_and_wait_while_the_line_is_away(host: Host, kind: bytes) -> None:
    got: list[int] = []

    async def consume() -> None:
        async with host.client.request_stream(Payload(kind + b":3000"), initial_n=50) as stream:
            async for payload in stream:
                got.append(int(payload.data or b""))
                if len(got) % 700 == 0:
                    await asyncio.sleep(0.001)

    consumer = asyncio.ensure_future(consume())
    for count in (100, 900, 1700):
        await until(lambda count=count: len(got) >= count)
        await host.cut()
        produced = host.here.produced
        await asyncio.sleep(0.01)
        assert host.here.produced <= produced + 1, "a source is not asked for what nobody takes"
        await host.come_back()
    async with within(SECOND):
        await consumer
    assert got == list(range(3000))


@pytest.mark.row("A-41")
async def test_a_channel_goes_on_in_both_directions(host: Host) -> None:
    go_on = asyncio.Event()

    async def outgoing() -> AsyncIterator[Payload]:
        for n in range(200):
            if n == 100:
                await go_on.wait()
            yield Payload(b"%d" % n)

    async with host.client.request_channel(Payload(b"first"), outgoing(), initial_n=5) as stream:
        got = [(await anext(stream)).data for _ in range(50)]
        await host.cut()
        go_on.set()
        await host.come_back()
        got += [payload.data async for payload in stream]
    assert got == [b"first", *(b"%d" % n for n in range(200))]


@pytest.mark.row("A-41")
async def test_a_line_that_still_stands_is_dropped_for_the_new_one(host: Host) -> None:
    """The client has lost it, and the server has not noticed."""
    old_server, old_client = host.line
    old_client.hand_over(Wires())  # what the server still writes there reaches nobody
    host.server.fire_and_forget(Payload(b"into the void"))
    await asyncio.sleep(0)
    host.client.drop_line()
    assert (host.client.suspended, host.server.suspended) == (True, False)
    await host.come_back()
    await until(lambda: host.there.notes == [b"into the void"])
    assert (await host.client.request_response(Payload(b"hello"))).data == b"hello"
    assert old_server is not host.line[0]


@pytest.mark.row("A-41")
async def test_whoever_comes_first_is_put_out_by_whoever_comes_next(host: Host) -> None:
    await host.cut()
    first, second = host.wires(), host.wires()
    for wires in (first, second):
        wires.transport.write([resume(TOKEN, 0, 0)])
        await until(lambda wires=wires: wires.frames)
        assert wires.frames[0].kind == FrameType.RESUME_OK
    await until(first.lost.is_set)
    assert not second.lost.is_set()
    assert not host.server.suspended


@pytest.mark.row("A-41")
async def test_what_came_right_behind_a_resume_is_read(host: Host) -> None:
    await host.cut()
    wires = host.wires()
    wires.transport.write([resume(TOKEN, 0, 0) + wire(FrameType.REQUEST_FNF, 1, b"behind") + b"\x00\x00"])
    await until(lambda: host.here.notes == [b"behind"])


@pytest.mark.row("A-41")
async def test_a_refused_resume_says_so_and_hurts_nobody(host: Host) -> None:
    await host.cut()
    for received, available in ((5000, 0), (0, 5000)):
        wires = host.wires()
        wires.transport.write([resume(TOKEN, received, available)])
        await until(wires.lost.is_set)
        assert wires.frames[0].error_code == ErrorCode.REJECTED_RESUME
        assert host.server.suspended
    host.refuse = True
    host.connect()
    with pytest.raises(ConnectionClosed, match="nobody knows you") as refusal:
        await host.client.wait_resumed()
    assert refusal.value.code == ErrorCode.REJECTED_RESUME


async def test_a_bug_in_what_resumes_is_told_as_one(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    await host.cut()
    wires = host.wires()
    wires.transport.write([resume(b"another token", 0, 0)])
    await until(wires.lost.is_set)
    assert wires.frames[0].body[4:] == b"internal error"
    assert "AssertionError" in caplog.text


async def test_a_server_without_a_resumer_refuses() -> None:
    server, wires = Connection(Protocol.server(LIMITS, time.monotonic()), Side()), Wires()
    memory_pair(server, wires)
    wires.transport.write([resume(TOKEN, 0, 0)])
    await until(wires.lost.is_set)
    assert wires.frames[0].error_code == ErrorCode.REJECTED_RESUME
    await server.wait_closed()


@pytest.mark.row("A-41")
async def test_the_session_ends_when_its_time_is_over() -> None:
    async with Host(SHORT) as host:
        call = asyncio.ensure_future(host.client.request_response(Payload(b"wait")))
        await until(lambda: host.here.notes)
        await host.cut()
        with pytest.raises(ConnectionClosed, match="not resumed"):
            await call
        assert "not resumed" in (await host.server.wait_closed()).public
        await until(host.here.cancelled.is_set)
        assert len(host.here.ends) == 1


@pytest.mark.row("A-41", "A-31")
async def test_too_much_for_a_peer_that_is_away_is_refused_to_whoever_asks() -> None:
    async with Host(attrs.evolve(LIMITS, resume_bytes=2000)) as host:
        await host.cut()
        for _ in range(3):
            host.server.fire_and_forget(Payload(bytes(300)))
            await asyncio.sleep(0)
        for ask in (host.server.fire_and_forget, host.server.request_stream):
            with pytest.raises(Rejected, match="away"):
                ask(Payload(bytes(300)))
        with pytest.raises(Rejected, match="away"):
            host.server.metadata_push(bytes(300))
        await host.come_back()
        await until(lambda: host.there.notes == [bytes(300)] * 3)
        host.server.fire_and_forget(Payload(bytes(1900)))


@pytest.mark.row("A-41", "A-31")
async def test_too_much_that_cannot_be_refused_ends_the_session() -> None:
    async with Host(attrs.evolve(LIMITS, resume_bytes=1000)) as host:
        calls = [asyncio.ensure_future(host.server.request_response(Payload(b"wait"))) for _ in range(200)]
        await until(lambda: len(host.there.notes) == 200)
        await host.cut()
        for call in calls:
            call.cancel()
        assert "1000 bytes" in (await host.server.wait_closed()).public


@pytest.mark.row("A-31")
async def test_answers_for_a_peer_that_is_away_are_bounded_too() -> None:
    """They wait in the hands of those who made them; one too many becomes an error, told once the peer is back."""
    async with Host(attrs.evolve(LIMITS, resume_bytes=10_000)) as host:
        calls = [asyncio.ensure_future(host.client.request_response(Payload(b"large"))) for _ in range(3)]
        await until(lambda: host.here.notes == [b"large"] * 3)
        await host.cut()
        host.here.go_on.set()
        await asyncio.sleep(0)
        await host.come_back()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        kinds = [type(answer) for answer in answers]
        assert kinds.count(Payload) == 1
        assert kinds.count(Rejected) == 2


async def test_the_end_of_the_peers_bytes_is_a_lost_line_too(host: Host) -> None:
    wires = host.wires()
    wires.transport.write([resume(TOKEN, 0, 0)])
    await until(lambda: wires.frames)
    wires.transport.close()
    await until(lambda: host.server.suspended)


async def test_a_silent_peer_that_does_not_read_loses_its_line_all_the_same(host: Host) -> None:
    """Its requests are stalled behind what it does not read, and nothing gets past them."""
    clock = time.monotonic()
    host.server._clock = lambda: clock
    wires = Wires(reading=False)
    door = Side()
    host.doors.append(door)
    memory_pair(host.door(door), wires)
    asks = [wire(FrameType.REQUEST_RESPONSE, stream, bytes(60_000)) for stream in range(1, 41, 2)]
    wires.transport.write([resume(TOKEN, 0, 0)])
    wires.transport.write([b"".join(asks)])
    await until(lambda: host.server._stalled)
    clock += 100
    host.server._on_timer()
    await until(lambda: host.server.suspended)
    await until(wires.lost.is_set)


async def test_a_goodbye_is_no_lost_line(host: Host) -> None:
    await host.client.close()
    await host.server.wait_closed()
    assert not host.server.suspended


@pytest.mark.parametrize("how", ["close", "abort", "forget", "drain"])
async def test_a_suspended_connection_can_be_ended(host: Host, how: str) -> None:
    await host.cut()
    match how:
        case "close":
            await host.server.close("kicked")
        case "abort":
            host.server.abort()
        case "forget":
            host.server.forget_resumption()
        case "drain":
            await host.server.drain_requests(SECOND)
    async with within(SECOND):
        await host.server.wait_closed()
    assert len(host.here.ends) == 1
    wires = host.wires()
    wires.transport.write([resume(TOKEN, 0, 0)])
    await until(wires.lost.is_set)
    assert wires.frames[0].error_code == ErrorCode.REJECTED_RESUME


async def test_whose_line_cannot_be_replaced_ends_with_it(host: Host) -> None:
    host.client.forget_resumption()
    host.client.drop_line()
    assert host.client.closing is not None
    await host.client.wait_line_lost()


async def test_a_client_that_loses_its_new_line_before_the_answer_is_told_and_tries_again(host: Host) -> None:
    await host.cut()
    memory_pair(wires := Wires(), host.client)
    waiting = asyncio.ensure_future(host.client.wait_resumed())
    await until(lambda: wires.frames)
    assert wires.frames[0].kind == FrameType.RESUME
    wires.transport.abort()
    with pytest.raises(OSError):  # whatever the line was lost with
        await waiting
    await host.come_back()
    assert (await host.client.request_response(Payload(b"hello"))).data == b"hello"


@pytest.mark.row("A-41")
async def test_a_goodbye_for_the_client_on_its_return(host: Host) -> None:
    await host.cut()
    memory_pair(wires := Wires(), host.client)
    wires.transport.write([resume_ok(1 << 40)])
    await until(wires.lost.is_set)
    assert wires.frames[-1].error_code == ErrorCode.CONNECTION_ERROR
    assert host.client.closing is not None


# ---- leases --------------------------------------------------------------------------------------------------------

THREE = attrs.evolve(LIMITS, lease_requests=3, lease_period=0.05)


@pytest.mark.row("A-44")
async def test_both_sides_wait_until_they_may_ask() -> None:
    async with Host(THREE, lease=True) as host:
        for asker in (host.client, host.server):
            began = time.monotonic()
            calls = [asker.request_response(Payload(b"%d" % n), timeout=SECOND) for n in range(10)]
            assert [answer.data for answer in await asyncio.gather(*calls)] == [b"%d" % n for n in range(10)]
            assert time.monotonic() - began > 2 * THREE.lease_period


@pytest.mark.row("A-44")
async def test_what_cannot_wait_is_refused_here() -> None:
    async with Host(attrs.evolve(THREE, lease_period=30.0), lease=True) as host:
        await host.client.request_response(Payload(b"first"))
        host.client.fire_and_forget(Payload(b"second"))
        host.client.request_stream(Payload(b"plain:1"))
        with pytest.raises(Rejected, match="lease"):
            host.client.fire_and_forget(Payload(b"fourth"))
        with pytest.raises(Rejected, match="lease"):
            host.client.request_stream(Payload(b"plain:1"))
        with pytest.raises(TimeoutError):
            await host.client.request_response(Payload(b"fourth"), timeout=0.01)
        waiting = asyncio.ensure_future(host.client.request_response(Payload(b"fifth")))
        await asyncio.sleep(0)
        host.client.abort()
        with pytest.raises(ConnectionClosed):
            await waiting


@pytest.mark.row("A-41", "A-44")
async def test_leases_begin_anew_on_a_new_line() -> None:
    async with Host(attrs.evolve(THREE, lease_period=30.0), lease=True) as host:
        for _ in range(3):
            await host.client.request_response(Payload(b"x"))
        await host.cut()
        call = asyncio.ensure_future(host.client.request_response(Payload(b"y"), timeout=SECOND))
        await host.come_back()
        assert (await call).data == b"y"
