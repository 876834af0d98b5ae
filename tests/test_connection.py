"""Two connections joined in memory, and a client of another make over TCP: everything that asyncio can get wrong."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from rsocket.helpers import single_transport_provider
from rsocket.payload import Payload as TheirPayload
from rsocket.rsocket_client import RSocketClient
from rsocket.transports.tcp import TransportTCP

from rsocket_broker.connection import Connection
from rsocket_broker.errors import (
    ApplicationError,
    Canceled,
    ConnectionClosed,
    EnrollmentRefused,
    Invalid,
    Rejected,
    RequestFailed,
    SetupRefused,
)
from rsocket_broker.payload import ErrorCode, Payload
from rsocket_broker.protocol.codes import CONNECTION_CLOSE, FrameType
from rsocket_broker.protocol.events import SetupReceived
from rsocket_broker.protocol.frames import Setup
from rsocket_broker.protocol.limits import SECURE, Limits
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.serving import CHANNEL_WINDOW
from rsocket_broker.transports.base import Channel, Peer
from rsocket_broker.transports.memory import memory_pair
from rsocket_broker.transports.tcp import listen_tcp
from tests.playbook import SETUP_BODY, C, N, cut, u32, wire

SECOND = 5.0
"""Far longer than anything here takes."""


class Side:
    """A Responder that does what its payloads say, and notes what happens."""

    def __init__(self) -> None:
        self.setups: list[SetupReceived] = []
        self.judge: Callable[[SetupReceived], Awaitable[None] | None] = lambda setup: None
        self.notes: list[Any] = []
        self.ends: list[ConnectionClosed] = []
        self.cancelled = asyncio.Event()
        self.produced = 0
        self.running = 0
        self.most_running = 0

    def setup(self, connection: Connection, setup: SetupReceived) -> Awaitable[None] | None:
        self.setups.append(setup)
        return self.judge(setup)

    def request_response(self, payload: Payload) -> Payload | Awaitable[Payload]:
        self.notes.append(payload.data)
        match payload.data:
            case b"error":
                raise Invalid("no such thing")
            case b"bug":
                raise ZeroDivisionError("secret internals")
            case b"later bug":
                return self.fail_later()
            case b"wait":
                return self.wait()
            case b"nonsense":
                return Payload("text, not bytes")  # type: ignore[arg-type]
            case b"enrol":
                raise EnrollmentRefused("proof", "no container", "plug it in")
            case b"slow":
                return self.slow(payload)
        return payload

    async def slow(self, payload: Payload) -> Payload:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0.02)
        self.running -= 1
        return payload

    async def fail_later(self) -> Payload:
        await asyncio.sleep(0)
        raise KeyError("secret internals")

    async def wait(self) -> Payload:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        raise AssertionError("not reached")

    def fire_and_forget(self, payload: Payload) -> Awaitable[None] | None:
        self.notes.append(payload.data)
        if payload.data == b"bug":
            raise ZeroDivisionError("secret internals")
        return self.noting(payload) if (payload.data or b"").startswith(b"later") else None

    async def noting(self, payload: Payload) -> None:
        await asyncio.sleep(0)
        if payload.data == b"later bug":
            raise ZeroDivisionError("secret internals")
        self.notes.append("done")

    def request_stream(self, payload: Payload) -> AsyncIterator[Payload] | Iterator[Payload]:
        kind, _, count = (payload.data or b"").partition(b":")
        numbers = self.numbers(int(count or 0))
        if kind == b"plain":
            return numbers
        return self.later(numbers, fails=kind == b"fails")

    def numbers(self, count: int) -> Iterator[Payload]:
        try:
            for n in range(count):
                self.produced += 1
                yield Payload(b"%d" % n)
        finally:
            self.cancelled.set()

    async def later(self, numbers: Iterator[Payload], *, fails: bool) -> AsyncIterator[Payload]:
        with contextlib.closing(numbers):  # type: ignore[type-var]
            for payload in numbers:
                await asyncio.sleep(0)
                yield payload
        if fails:
            raise ApplicationError("halfway")

    async def request_channel(self, payload: Payload, incoming: AsyncIterator[Payload]) -> AsyncIterator[Payload]:
        match payload.data:
            case b"collect":
                yield Payload(b",".join([one.data or b"" async for one in incoming]))
                return
            case b"deaf":
                yield Payload(b"not listening")
                return
            case b"patient":
                try:
                    await asyncio.sleep(60)
                finally:
                    self.cancelled.set()
            case b"bug":
                raise ZeroDivisionError("secret internals")
        yield payload
        try:
            async for one in incoming:
                self.notes.append(one.data)
                yield one
        finally:
            self.cancelled.set()

    def metadata_push(self, metadata: bytes) -> None:
        self.notes.append(metadata)
        if metadata == b"bug":
            raise ZeroDivisionError("secret internals")

    def closed(self, error: ConnectionClosed) -> None:
        self.ends.append(error)


class Line:
    """A server and a client, joined."""

    def __init__(self, limits: Limits = SECURE, setup: Setup | None = None) -> None:
        self.here, self.there = Side(), Side()
        self.server = Connection(Protocol.server(limits, time.monotonic()), self.here)
        self.client = Connection(Protocol.client(setup or Setup(), limits, time.monotonic()), self.there)

    async def __aenter__(self) -> "Line":
        self.ends = memory_pair(self.server, self.client)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.abort()
        self.server.abort()
        await self.client.wait_closed()
        await self.server.wait_closed()
        for side in (self.here, self.there):
            assert len(side.ends) == 1, "closed is told exactly once"
        await asyncio.sleep(0)
        assert len(self.server._work) == len(self.client._work) == 0, "no work outlives its connection"
        assert self.server.streams_open == self.client.streams_open == 0

    def sides(self, which: str) -> tuple[Connection, Side]:
        """The one who asks, and the responder of the other."""
        return (self.client, self.here) if which == "client" else (self.server, self.there)


BOTH = pytest.mark.parametrize("who", ["client", "server"])
within = asyncio.timeout


async def nothing() -> AsyncIterator[Payload]:
    return
    yield


async def until(what: Callable[[], object]) -> None:
    async with within(SECOND):
        while not what():
            await asyncio.sleep(0.001)


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


# ---- handlers --------------------------------------------------------------------------------------------------


@pytest.mark.row("A-39")
async def test_a_slow_handler_delays_no_other_stream(line: Line) -> None:
    slow = asyncio.ensure_future(line.client.request_response(Payload(b"wait")))
    async with within(SECOND):
        for n in range(50):
            assert await line.client.request_response(Payload(b"%d" % n)) == Payload(b"%d" % n)
        async with line.client.request_stream(Payload(b"later:5")) as stream:
            assert len([payload async for payload in stream]) == 5
    assert not slow.done()
    slow.cancel()
    await until(line.here.cancelled.is_set)


@pytest.mark.row("A-39")
async def test_slow_handlers_run_side_by_side(line: Line) -> None:
    await asyncio.gather(*(line.client.request_response(Payload(b"slow")) for _ in range(20)))
    assert line.here.most_running == 20


@BOTH
async def test_a_refusal_reaches_the_caller_with_its_code_and_text(line: Line, who: str) -> None:
    asker, _ = line.sides(who)
    with pytest.raises(Invalid, match="no such thing") as refusal:
        await asker.request_response(Payload(b"error"))
    assert refusal.value.code == ErrorCode.INVALID
    with pytest.raises(ApplicationError, match="proof: no container plug it in"):
        await asker.request_response(Payload(b"enrol"))


@pytest.mark.parametrize("how", [b"bug", b"later bug", b"nonsense"])
async def test_a_bug_is_logged_and_hidden_from_the_peer(
    line: Line, how: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(ApplicationError) as failure:
        await line.client.request_response(Payload(how))
    assert failure.value.public == "internal error"
    assert caplog.records[0].exc_info is not None
    assert await line.client.request_response(Payload(b"alive")) == Payload(b"alive")


@pytest.mark.parametrize("how", [b"bug", b"later bug"])
async def test_a_bug_where_nobody_waits_is_logged_and_hurts_nobody(
    line: Line, how: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    line.client.fire_and_forget(Payload(how))
    await until(lambda: "ZeroDivisionError" in caplog.text)
    assert await line.client.request_response(Payload(b"alive")) == Payload(b"alive")


async def test_a_bug_in_a_stream_or_channel(line: Line) -> None:
    with pytest.raises(ApplicationError, match="internal error"):
        await anext(line.client.request_stream(Payload(b"plain:nonsense")))
    with pytest.raises(ApplicationError, match="internal error"):
        await anext(line.client.request_channel(Payload(b"bug"), nothing()))
    await until(lambda: line.server.streams_open == 0)


async def test_a_handler_whose_own_task_was_cancelled_still_answers(line: Line) -> None:
    async def gives_up() -> Payload:
        raise asyncio.CancelledError

    line.here.request_response = lambda payload: gives_up()  # type: ignore[method-assign]
    with pytest.raises(Canceled, match="stopped"):
        await line.client.request_response(Payload(b"q"))
    line.here.request_stream = lambda payload: stops()  # type: ignore[method-assign]

    async def stops() -> AsyncIterator[Payload]:
        yield Payload(b"1")
        raise asyncio.CancelledError

    with pytest.raises(Canceled, match="stopped"):
        async for _ in line.client.request_stream(Payload(b"q")):
            pass


@pytest.mark.row("A-36")
@BOTH
@pytest.mark.parametrize("kind", [b"at once", b"one way", b"stream", b"channel", b"push"])
async def test_a_handler_that_looks_at_what_was_cancelled_fails_alone(line: Line, who: str, kind: bytes) -> None:
    def look(*given: object) -> Any:
        raise asyncio.CancelledError

    asker, answerer = line.sides(who)
    for name in ("fire_and_forget", "request_stream", "request_channel", "metadata_push"):
        setattr(answerer, name, look)
    if kind in {b"one way", b"push"}:
        (asker.fire_and_forget if kind == b"one way" else lambda payload: asker.metadata_push(b""))(Payload(b""))
    elif kind == b"at once":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(answerer, "request_response", look)
            with pytest.raises(Canceled):
                await asker.request_response(Payload(b""), SECOND)
    else:
        stream = (
            asker.request_channel(Payload(b""), nothing()) if kind == b"channel" else asker.request_stream(Payload(b""))
        )
        with pytest.raises(Canceled):
            await anext(stream)
    assert (await asker.request_response(Payload(b"still here"), SECOND)).data == b"still here"


@BOTH
@pytest.mark.parametrize("how", ["leave", "end"])
async def test_a_source_that_yields_when_it_is_cancelled_is_closed_all_the_same(who: str, how: str) -> None:
    async with Line() as line:
        await line.client.wait_accepted()
        asker, answerer = line.sides(who)

        async def stubborn(payload: Payload) -> AsyncIterator[Payload]:
            try:
                yield payload
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                yield Payload(b"but wait")
            finally:
                answerer.cancelled.set()

        answerer.request_stream = stubborn  # type: ignore[method-assign]
        stream = asker.request_stream(Payload(b""))
        await anext(stream)
        await asyncio.sleep(0)
        if how == "leave":
            stream.close()
        else:
            asker.abort()
        await until(answerer.cancelled.is_set)


async def test_a_channel_source_that_yields_when_it_is_cancelled_is_closed_all_the_same(line: Line) -> None:
    async def stubborn() -> AsyncIterator[Payload]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            while True:
                yield Payload(b"but wait")
                await asyncio.sleep(0)
        finally:
            line.there.cancelled.set()
        yield Payload(b"")

    async with line.client.request_channel(Payload(b"deaf"), stubborn()) as channel:
        assert [payload.data async for payload in channel] == [b"not listening"]
        await until(line.there.cancelled.is_set)
    await until(lambda: len(line.client._work) == 0)


@pytest.mark.parametrize("kind", ["plain", "later"])
async def test_a_source_that_fails_when_it_is_closed_is_logged_as_ours(
    line: Line, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    def plain(payload: Payload) -> Iterator[Payload]:
        try:
            yield payload
            yield payload
        finally:
            raise ZeroDivisionError("while closing")

    async def failing(payload: Payload) -> AsyncIterator[Payload]:
        try:
            yield payload
            yield payload
        finally:
            raise ZeroDivisionError("while closing")

    line.here.request_stream = plain if kind == "plain" else failing  # type: ignore[method-assign]
    stream = line.client.request_stream(Payload(b""), 1)
    await anext(stream)
    stream.close()
    await until(lambda: line.server.streams_open == 0 == len(line.server._work))
    assert "a handler failed while serving memory" in caplog.text
    assert "while closing" in caplog.text


@BOTH
async def test_a_stream_that_fails_halfway(line: Line, who: str) -> None:
    asker, _ = line.sides(who)
    stream = asker.request_stream(Payload(b"fails:3"))
    assert [int((await anext(stream)).data or b"") for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ApplicationError, match="halfway"):
        await anext(stream)


async def test_no_new_requests_while_draining_and_the_running_ones_finish(line: Line) -> None:
    running = asyncio.ensure_future(line.client.request_response(Payload(b"slow")))
    await until(lambda: line.here.running)
    draining = asyncio.ensure_future(line.server.drain_requests(SECOND))
    await asyncio.sleep(0)
    for _ in range(2):
        with pytest.raises(Rejected, match="no new requests"):
            await line.client.request_response(Payload(b"too late"))
    line.client.fire_and_forget(Payload(b"too late"))
    assert await running == Payload(b"slow")
    async with within(SECOND):
        await draining
    assert line.here.notes == [b"slow"]


async def test_draining_has_an_end(line: Line) -> None:
    running = asyncio.ensure_future(line.client.request_response(Payload(b"wait")))
    await until(lambda: line.here.notes)
    async with within(SECOND):
        await line.server.drain_requests(0.01)
    assert not running.done()
    running.cancel()


async def test_a_peer_that_asks_and_cancels_without_end_runs_into_a_bound() -> None:
    limits = Limits(streams=5)
    side = Side()
    server = Connection(Protocol.server(limits, time.monotonic()), side)
    wires = Wires()
    _, end = memory_pair(server, wires)
    flood = b"".join(wire(FrameType.REQUEST_RESPONSE, n, b"wait") + wire(FrameType.CANCEL, n) for n in range(1, 101, 2))
    end.write([wire(FrameType.SETUP, 0, SETUP_BODY), flood, wire(FrameType.REQUEST_RESPONSE, 101, b"end")])
    while not side.notes:
        await asyncio.sleep(0)
    assert len(side.notes) == 51, "all in one read"
    assert len(server._work) == 5, "of which no more than the limit became tasks"
    await until(lambda: any(frame.stream_id == 101 for frame in wires.frames))
    assert wires.frames[-1].body == b"end"
    assert len(server._work) <= 5
    server.abort()
    await server.wait_closed()


# ---- giving up -------------------------------------------------------------------------------------------------


@pytest.mark.row("A-45")
@BOTH
async def test_a_caller_that_gives_up_cancels_the_handler(line: Line, who: str) -> None:
    asker, answerer = line.sides(who)
    with pytest.raises(TimeoutError, match=r"0\.01 s"):
        await asker.request_response(Payload(b"wait"), timeout=0.01)
    await until(answerer.cancelled.is_set)
    waiting = asyncio.ensure_future(asker.request_response(Payload(b"wait")))
    answerer.cancelled.clear()
    await until(lambda: len(answerer.notes) == 2)
    waiting.cancel()
    await until(answerer.cancelled.is_set)
    await until(lambda: line.server.streams_open + line.client.streams_open == 0)


@pytest.mark.row("A-45")
@BOTH
@pytest.mark.parametrize("kind", [b"plain", b"later"])
async def test_leaving_a_stream_closes_its_generator(line: Line, who: str, kind: bytes) -> None:
    asker, answerer = line.sides(who)
    async with asker.request_stream(Payload(kind + b":1000000"), 2) as stream:
        await anext(stream)
    await until(answerer.cancelled.is_set)
    await until(lambda: line.server.streams_open + line.client.streams_open == 0)
    assert answerer.produced < 10


@pytest.mark.row("A-45")
@BOTH
async def test_leaving_a_channel_cancels_its_handler_and_its_source(line: Line, who: str) -> None:
    asker, answerer = line.sides(who)
    closed = asyncio.Event()

    async def outgoing() -> AsyncIterator[Payload]:
        try:
            while True:
                yield Payload(b"x")
        finally:
            closed.set()

    async with asker.request_channel(Payload(b"patient"), outgoing()):
        await until(lambda: line.server.streams_open and line.client.streams_open)
    await until(answerer.cancelled.is_set)
    await until(closed.is_set)


@pytest.mark.row("A-45")
@BOTH
@pytest.mark.parametrize("how", ["abort", "close", "lost"])
async def test_the_end_of_the_connection_cancels_everything(line: Line, who: str, how: str) -> None:
    asker, answerer = line.sides(who)

    async def outgoing() -> AsyncIterator[Payload]:
        await asyncio.sleep(60)
        yield Payload(b"never")

    call = asyncio.ensure_future(asker.request_response(Payload(b"wait")))
    stream = asker.request_stream(Payload(b"later:1000000"), 1)
    await anext(stream)
    await anext(stream)
    channel = asker.request_channel(Payload(b"echo"), outgoing())
    assert (await anext(channel)).data == b"echo"
    if how == "abort":
        asker.abort()
    elif how == "close":
        await asker.close("that was all")
    else:
        line.ends[0].abort()
    with pytest.raises(ConnectionClosed):
        await call
    for one in (stream, channel):
        with pytest.raises(ConnectionClosed):
            while True:
                await anext(one)
    await until(answerer.cancelled.is_set)
    await until(lambda: len(line.server._work) == len(line.client._work) == 0)
    with pytest.raises(ConnectionClosed):
        await asker.request_response(Payload(b"too late"))
    with pytest.raises(ConnectionClosed):
        asker.fire_and_forget(Payload(b"too late"))


async def test_an_exception_in_the_source_of_a_channel_fails_both_sides(line: Line) -> None:
    async def outgoing() -> AsyncIterator[Payload]:
        yield Payload(b"1")
        raise Canceled("the source ran dry")

    channel = line.client.request_channel(Payload(b"echo"), outgoing())
    with pytest.raises(Canceled, match="ran dry"):
        async for _ in channel:
            pass
    await until(line.here.cancelled.is_set)
    await until(lambda: line.server.streams_open + line.client.streams_open == 0)


async def test_a_handler_that_stops_listening_stops_the_requester(line: Line) -> None:
    stopped = asyncio.Event()

    async def outgoing() -> AsyncIterator[Payload]:
        try:
            while True:
                yield Payload(b"x")
        finally:
            stopped.set()

    async with line.client.request_channel(Payload(b"deaf"), outgoing()) as channel:
        assert [payload.data async for payload in channel] == [b"not listening"]
        await until(stopped.is_set)
    await until(lambda: line.server.streams_open + line.client.streams_open == 0)


async def test_a_handler_that_stops_listening_may_go_on_answering(line: Line) -> None:
    async def answers(payload: Payload, incoming: AsyncIterator[Payload]) -> AsyncIterator[Payload]:
        await incoming.aclose()  # type: ignore[attr-defined]
        await until(stopped.is_set)
        for n in range(5):
            yield Payload(b"%d" % n)

    async def outgoing() -> AsyncIterator[Payload]:
        try:
            while True:
                yield Payload(b"x")
        finally:
            stopped.set()

    stopped = asyncio.Event()
    line.here.request_channel = answers  # type: ignore[method-assign]
    async with within(SECOND):
        answered = [payload.data async for payload in line.client.request_channel(Payload(b"hi"), outgoing())]
    assert answered == [b"0", b"1", b"2", b"3", b"4"]
    await until(lambda: line.server.streams_open + line.client.streams_open == 0)


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


@pytest.mark.row("A-38", "A-31")
async def test_what_is_ready_for_a_peer_that_asks_for_no_more_has_a_budget() -> None:
    async with Line(Limits(outgoing=100_000)) as line:
        begun = asyncio.Event()

        async def outgoing() -> AsyncIterator[Payload]:
            await begun.wait()
            yield Payload(bytes(30_000))
            await asyncio.sleep(60)

        channels = [line.client.request_channel(Payload(b"first"), outgoing(), 1) for _ in range(5)]
        await until(lambda: all(line.client._protocol.credit(stream_id) for stream_id in range(1, 11, 2)))
        begun.set()
        await until(lambda: line.server._waiting == 90_000 and len(line.server._work) == 3)
        for channel in channels[:3]:
            assert [(await anext(channel)).data, (await anext(channel)).data] == [b"first", bytes(30_000)]
        for channel in channels[3:]:
            await anext(channel)
            with pytest.raises(Rejected, match="wait for a peer that does not take them"):
                await anext(channel)
        assert line.server._waiting == 0


class Wires:
    """A peer made of wire: takes bytes only when told to, and cuts them into frames."""

    def __init__(self, *, reading: bool = True, pause: float = 0) -> None:
        self.frames: list[Any] = []
        self.lost = asyncio.Event()
        self._pause = pause
        self._rest = b""
        self._reading = reading

    def transport_ready(self, transport: Any) -> None:
        self.transport = transport
        if not self._reading:
            transport.pause_reading()

    def data_received(self, data: bytes | memoryview) -> None:
        self._rest += data
        while len(self._rest) >= 3 and len(self._rest) >= (end := 3 + int.from_bytes(self._rest[:3], "big")):
            self.frames += cut(self._rest[:end])
            self._rest = self._rest[end:]
        if self._pause:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(self._pause, self.transport.resume_reading)

    def eof_received(self) -> None:
        self.transport.close()

    def writing_paused(self) -> None: ...
    def writing_resumed(self) -> None: ...

    def transport_lost(self, error: Exception | None) -> None:
        self.lost.set()


@pytest.mark.row("A-38")
async def test_a_peer_that_does_not_read_is_not_read_from_until_it_does() -> None:
    side = Side()
    server = Connection(Protocol.server(SECURE, time.monotonic()), side)
    wires = Wires(reading=False)
    _, end = memory_pair(server, wires)
    end.write([wire(FrameType.SETUP, 0, SETUP_BODY)])
    big = bytes(100_000)
    for n in range(1, 201, 2):
        end.write([wire(FrameType.REQUEST_RESPONSE, n, big)])
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    served = server.requests_served
    assert served < 10, "it stopped serving"
    assert end.queued > 50 * len(big), "and reading"
    wires.transport.resume_reading()
    await until(lambda: len(wires.frames) == 100)
    assert [frame.stream_id for frame in wires.frames] == list(range(1, 201, 2))
    server.abort()
    await server.wait_closed()


async def test_one_read_with_many_small_requests_for_large_answers_does_not_fill_the_memory() -> None:
    side = Side()
    side.request_response = lambda payload: Payload(bytes(100_000))  # type: ignore[method-assign]
    server = Connection(Protocol.server(SECURE, time.monotonic()), side)
    wires = Wires(reading=False)
    here, end = memory_pair(server, wires)
    asks = b"".join(wire(FrameType.REQUEST_RESPONSE, n) for n in range(1, 2001, 2))
    end.write([wire(FrameType.SETUP, 0, SETUP_BODY), asks])
    await asyncio.sleep(0.01)
    assert here.queued < 1_000_000
    wires.transport.resume_reading()
    await until(lambda: len(wires.frames) == 1000)
    assert [frame.stream_id for frame in wires.frames] == list(range(1, 2001, 2))
    server.abort()
    await server.wait_closed()


async def test_two_engines_that_flood_each_other_do_not_wait_for_each_other_for_ever() -> None:
    async with Line() as line:
        await line.client.wait_accepted()
        payload = Payload(bytes(50_000))
        calls = [one.request_response(payload) for _ in range(100) for one in (line.client, line.server)]
        async with within(20):
            answers = await asyncio.gather(*calls)
        assert all(answer == payload for answer in answers)


async def test_what_nobody_reads_is_refused_to_its_sender() -> None:
    side = Side()
    server = Connection(Protocol.server(Limits(outgoing=500_000), time.monotonic()), side)
    wires = Wires(reading=False)
    _, end = memory_pair(server, wires)
    end.write([wire(FrameType.SETUP, 0, SETUP_BODY)])
    await until(lambda: side.setups)
    with pytest.raises(Rejected, match="does not read"):
        for _ in range(20):
            server.fire_and_forget(Payload(bytes(100_000)))
    waiting = asyncio.ensure_future(server.drain())
    call = asyncio.ensure_future(server.request_response(Payload(b"q")))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    wires.transport.resume_reading()
    async with within(SECOND):
        await waiting
    await until(lambda: wires.frames[-1].kind == FrameType.REQUEST_RESPONSE)
    server.abort()
    with pytest.raises(ConnectionClosed):
        await call
    await server.wait_closed()


async def test_a_server_that_asks_and_never_reads_is_cut_off_by_its_client() -> None:
    side = Side()
    side.request_response = lambda payload: Payload(bytes(100_000))  # type: ignore[method-assign]
    limits = Limits(outgoing=200_000, message=200_000, frame=200_000)
    client = Connection(Protocol.client(Setup(), limits, time.monotonic()), side)
    wires = Wires(reading=False)
    _, end = memory_pair(client, wires)
    end.write([wire(FrameType.REQUEST_RESPONSE, n) for n in range(2, 102, 2)])
    async with within(SECOND):
        assert "does not read" in (await client.wait_closed()).public
    assert len(side.ends) == 1


@pytest.mark.row("A-38")
async def test_a_stream_waits_while_its_peer_does_not_read() -> None:
    side = Side()
    server = Connection(Protocol.server(SECURE, time.monotonic()), side)
    wires = Wires(reading=False)
    here, end = memory_pair(server, wires)
    side.request_stream = lambda payload: (Payload(bytes(10_000)) for _ in range(500))  # type: ignore[method-assign]
    end.write([wire(FrameType.SETUP, 0, SETUP_BODY), wire(FrameType.REQUEST_STREAM, 1, u32(2**31 - 1))])
    await asyncio.sleep(0.02)
    assert here.queued < 2_000_000
    wires.transport.resume_reading()
    await until(lambda: len(wires.frames) == 501)
    server.abort()
    await server.wait_closed()


async def test_a_caller_that_waits_for_a_peer_to_read_waits_no_longer_than_it_said() -> None:
    server = Connection(Protocol.server(SECURE, time.monotonic()), Side())
    _, end = memory_pair(server, Wires(reading=False))
    end.write([wire(FrameType.SETUP, 0, SETUP_BODY)])
    await asyncio.sleep(0.02)
    server.fire_and_forget(Payload(bytes(1_000_000)))
    await asyncio.sleep(0.02)
    async with within(SECOND):
        with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
            await server.request_response(Payload(b"x"), timeout=0.05)
    server.abort()
    await server.wait_closed()


@pytest.mark.row("A-38")
async def test_coroutines_too_answer_only_when_the_peer_reads_and_events_keep_their_order() -> None:
    side = Side()
    server = Connection(Protocol.server(SECURE, time.monotonic()), side)
    wires = Wires(reading=False)
    here, end = memory_pair(server, wires)
    side.request_response = lambda payload: side.slow(Payload(bytes(60_000)))  # type: ignore[method-assign]
    end.write([wire(FrameType.SETUP, 0, SETUP_BODY)])
    end.write([wire(FrameType.REQUEST_RESPONSE, n) for n in range(1, 101, 2)])
    await until(lambda: side.most_running == 50)
    await asyncio.sleep(0.05)
    assert here.queued < 400_000
    wires.transport.resume_reading()
    await until(lambda: len(wires.frames) == 50)
    server.abort()
    await server.wait_closed()


async def test_what_still_arrives_while_answers_wait_is_handled_after_them() -> None:
    side = Side()
    server = Connection(Protocol.server(SECURE, time.monotonic()), side)
    wires = Wires(reading=False)
    here, end = memory_pair(server, wires)
    end.write([wire(FrameType.SETUP, 0, SETUP_BODY)])
    server_reads = b"".join(wire(FrameType.REQUEST_RESPONSE, n, bytes(90_000)) for n in range(1, 21, 2))
    await until(lambda: side.setups)
    server.data_received(server_reads)
    assert here.queued < 500_000
    server.data_received(wire(FrameType.REQUEST_FNF, 21, b"after"))
    assert b"after" not in side.notes
    wires.transport.resume_reading()
    await until(lambda: len(wires.frames) == 10)
    assert side.notes[-1] == b"after"
    server.abort()
    await server.wait_closed()


# ---- setup -----------------------------------------------------------------------------------------------------


@pytest.mark.row("A-36")
@pytest.mark.parametrize("later", [False, True])
async def test_a_refused_setup_closes_the_line_and_nothing_after_it_reaches_a_handler(later: bool) -> None:
    async with Line() as line:

        def refuse(setup: SetupReceived) -> Awaitable[None] | None:
            async def wait() -> None:
                await asyncio.sleep(0.01)
                raise SetupRefused("the field app_id is not yours")

            if later:
                return wait()
            raise SetupRefused("the field app_id is not yours")

        line.here.judge = refuse
        line.client.fire_and_forget(Payload(b"sneaky"))
        call = asyncio.ensure_future(line.client.request_response(Payload(b"sneaky")))
        with pytest.raises(ConnectionClosed, match="app_id"):
            await line.client.wait_accepted()
        with pytest.raises(ConnectionClosed, match="app_id") as end:
            await call
        assert end.value.code == ErrorCode.REJECTED_SETUP
        async with within(SECOND):
            await line.server.wait_closed()
        assert line.here.notes == []
        assert line.server.requests_served == 0


async def test_a_bug_in_setup_refuses_and_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with Line() as line:

        def judge(setup: SetupReceived) -> None:
            raise KeyError("secret internals")

        line.here.judge = judge
        with pytest.raises(ConnectionClosed) as end:
            await line.client.wait_accepted()
        assert (end.value.public, end.value.code) == ("internal error", ErrorCode.REJECTED_SETUP)
        assert "KeyError" in caplog.text


async def test_requests_behind_a_setup_wait_for_it_and_are_served_in_order() -> None:
    async with Line() as line:
        decided = asyncio.Event()

        async def judge(setup: SetupReceived) -> None:
            await decided.wait()

        line.here.judge = judge
        calls = [asyncio.ensure_future(line.client.request_response(Payload(b"%d" % n))) for n in range(3)]
        await until(lambda: line.here.setups)
        await asyncio.sleep(0.01)
        assert line.here.notes == []
        with pytest.raises(ConnectionClosed):
            line.server.fire_and_forget(Payload(b"too early"))
        decided.set()
        await asyncio.gather(*calls)
        assert line.here.notes == [b"0", b"1", b"2"]


@pytest.mark.row("A-32")
@pytest.mark.parametrize("sent", [b"", wire(FrameType.SETUP, 0, SETUP_BODY)[:-1]])
async def test_a_line_without_a_setup_is_closed_at_the_deadline(sent: bytes) -> None:
    side = Side()
    server = Connection(Protocol.server(Limits(setup_deadline=0.03), time.monotonic()), side)
    wires = Wires()
    _, end = memory_pair(server, wires)
    end.write([sent])
    async with within(SECOND):
        await server.wait_closed()
    assert [frame.error_code for frame in wires.frames] == [ErrorCode.INVALID_SETUP]
    assert len(side.ends) == 1


@pytest.mark.row("A-32")
async def test_a_decision_that_is_cancelled_refuses_at_once() -> None:
    async def judge(setup: SetupReceived) -> None:
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    async with Line() as line:
        line.here.judge = judge
        async with within(SECOND):
            with pytest.raises(ConnectionClosed, match="stopped") as refused:
                await line.client.wait_accepted()
        assert refused.value.code == ErrorCode.REJECTED_SETUP


async def test_a_decision_that_never_comes_has_a_deadline_too() -> None:
    async with Line(Limits(setup_deadline=0.03)) as line:

        async def judge(setup: SetupReceived) -> None:
            await asyncio.sleep(60)

        line.here.judge = judge
        with pytest.raises(ConnectionClosed, match="not decided") as end:
            await line.client.wait_accepted()
        assert end.value.code == ErrorCode.REJECTED_SETUP


@pytest.mark.row("A-35")
async def test_a_request_before_setup_is_refused_and_the_line_closed() -> None:
    side = Side()
    server = Connection(Protocol.server(SECURE, time.monotonic()), side)
    wires = Wires()
    _, end = memory_pair(server, wires)
    end.write([wire(FrameType.REQUEST_RESPONSE, 1, b"early"), wire(FrameType.SETUP, 0, SETUP_BODY)])
    async with within(SECOND):
        await server.wait_closed()
    assert [frame.error_code for frame in wires.frames] == [ErrorCode.INVALID_SETUP]
    assert side.setups == side.notes == []


@pytest.mark.row("A-40")
async def test_a_silent_client_is_dropped_and_one_that_beats_is_kept() -> None:
    setup = Setup(keepalive_ms=10, lifetime_ms=60)
    async with Line(setup=setup) as line:
        await asyncio.sleep(0.2)
        assert line.server.closing is None
        assert line.client.closing is None
    server = Connection(Protocol.server(SECURE, time.monotonic()), Side())
    wires = Wires()
    _, end = memory_pair(server, wires)
    end.write([wire(FrameType.SETUP, 0, SETUP_BODY[:8] + u32(60) + SETUP_BODY[12:])])
    async with within(SECOND):
        assert "nothing was heard" in (await server.wait_closed()).public


@pytest.mark.row("A-40")
async def test_a_server_that_does_not_answer_is_given_up() -> None:
    client = Connection(Protocol.client(Setup(keepalive_ms=10, lifetime_ms=30), SECURE, time.monotonic()), Side())
    memory_pair(client, Wires())
    async with within(SECOND):
        assert "keepalives" in (await client.wait_closed()).public


@pytest.mark.row("A-40")
async def test_a_peer_that_takes_its_answers_slowly_is_alive() -> None:
    server = Connection(Protocol.server(SECURE, time.monotonic()), Side())
    wires = Wires(pause=0.02)
    _, end = memory_pair(server, wires)
    end.write([wire(FrameType.SETUP, 0, SETUP_BODY[:8] + u32(100) + SETUP_BODY[12:])])
    for n in range(1, 31, 2):
        end.write([wire(FrameType.REQUEST_RESPONSE, n, bytes(70_000))])
    await until(lambda: len(wires.frames) == 15 or server.closing)
    assert server.closing is None
    async with within(SECOND):
        assert "nothing was heard" in (await server.wait_closed()).public


# ---- the end ---------------------------------------------------------------------------------------------------


async def test_a_goodbye_reaches_the_peer() -> None:
    async with Line() as line:
        await line.client.wait_accepted()
        async with within(SECOND):
            await line.server.close("replaced by a newer session", ErrorCode.CONNECTION_ERROR)
            await line.server.close("twice")
        end = await line.client.wait_closed()
        assert (end.public, end.code) == ("replaced by a newer session", ErrorCode.CONNECTION_ERROR)
        assert [error.code for error in line.here.ends] == [ErrorCode.CONNECTION_ERROR]


async def test_a_goodbye_without_a_code_is_polite_when_nothing_is_open() -> None:
    async with Line() as line:
        await line.client.wait_accepted()
        await line.client.close()
        assert (await line.server.wait_closed()).code == CONNECTION_CLOSE


async def test_a_goodbye_to_a_peer_that_does_not_read_is_bounded() -> None:
    server = Connection(Protocol.server(SECURE, time.monotonic()), Side())
    wires = Wires(reading=False)
    _, end = memory_pair(server, wires)
    end.write([wire(FrameType.SETUP, 0, SETUP_BODY)])
    await asyncio.sleep(0.01)
    server.fire_and_forget(Payload(bytes(1_000_000)))
    started = time.monotonic()
    await server.close("bye", grace=0.05)
    assert time.monotonic() - started < 1


async def test_a_peer_that_leaves_politely_gets_its_last_answer() -> None:
    side = Side()
    server = Connection(Protocol.server(SECURE, time.monotonic()), side)
    wires = Wires()
    _, end = memory_pair(server, wires)
    end.write([wire(FrameType.SETUP, 0, SETUP_BODY), wire(FrameType.REQUEST_RESPONSE, 1, b"slow")])
    end.write([wire(FrameType.ERROR, 0, u32(CONNECTION_CLOSE) + b"going")])
    async with within(SECOND):
        assert (await server.wait_closed()).code == CONNECTION_CLOSE
    assert [(frame.kind, frame.body) for frame in wires.frames] == [(FrameType.PAYLOAD, b"slow")]


async def test_the_end_of_bytes_ends_the_connection() -> None:
    side = Side()
    server = Connection(Protocol.server(SECURE, time.monotonic()), side)
    _, end = memory_pair(server, Wires())
    end.write([wire(FrameType.SETUP, 0, SETUP_BODY)])
    end.close()
    async with within(SECOND):
        await server.wait_closed()
    assert len(side.ends) == 1


async def test_a_connection_that_never_got_a_line_can_be_closed() -> None:
    side = Side()
    client = Connection(Protocol.client(Setup(), SECURE, time.monotonic()), side)
    await client.close("not needed")
    assert len(side.ends) == 1
    with pytest.raises(ConnectionClosed):
        await client.wait_accepted()


async def test_a_bug_in_closed_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    side = Side()

    def closed(error: ConnectionClosed) -> None:
        raise KeyError("secret internals")

    side.closed = closed  # type: ignore[method-assign]
    server = Connection(Protocol.server(SECURE, time.monotonic()), side)
    memory_pair(server, Wires())
    server.abort()
    await server.wait_closed()
    assert "KeyError" in caplog.text


async def test_a_handler_may_close_its_own_connection() -> None:
    async with Line() as line:
        await line.client.wait_accepted()

        served: list[Any] = []

        def abort(payload: Payload) -> Payload:
            served.append(payload.data)
            line.server.abort()
            return payload

        line.here.request_response = abort  # type: ignore[method-assign]
        calls = [line.client.request_response(Payload(b"x")) for _ in range(5)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} == {ConnectionClosed}
        assert served == [b"x"], "nothing after the end reaches a handler"


@pytest.mark.row("A-36")
@pytest.mark.parametrize("kind", ["request_response", "fire_and_forget", "request_stream", "request_channel"])
async def test_what_a_handler_wants_done_after_it_ended_its_connection_is_not_begun(kind: str) -> None:
    async with Line() as line:
        await line.client.wait_accepted()

        def abort(payload: Payload, incoming: object = None) -> Any:
            line.server.abort()
            later = kind in {"request_response", "fire_and_forget"}
            return line.here.wait() if later else Side.request_channel(line.here, Payload(b"patient"), nothing())

        setattr(line.here, kind, abort)
        calls = {
            "request_response": lambda: line.client.request_response(Payload(b"")),
            "request_stream": lambda: anext(line.client.request_stream(Payload(b""))),
            "request_channel": lambda: anext(line.client.request_channel(Payload(b""), nothing())),
        }
        if kind == "fire_and_forget":
            line.client.fire_and_forget(Payload(b""))
        else:
            with pytest.raises(ConnectionClosed):
                await calls[kind]()
        await line.server.wait_closed()


async def test_a_handler_that_ends_its_connection_while_it_runs_is_stopped() -> None:
    async with Line() as line:
        await line.client.wait_accepted()

        async def abort(payload: Payload) -> Payload:
            line.server.abort()
            return await line.here.wait()

        line.here.request_response = abort  # type: ignore[method-assign]
        with pytest.raises(ConnectionClosed):
            await line.client.request_response(Payload(b""))
        await until(line.here.cancelled.is_set)


async def test_a_handler_may_send_much_before_it_answers() -> None:
    async with Line() as line:
        await line.client.wait_accepted()

        def chatty(payload: Payload) -> Payload:
            for _ in range(5):
                line.server.fire_and_forget(Payload(bytes(100_000)))
            return payload

        line.here.request_response = chatty  # type: ignore[method-assign]
        calls = [line.client.request_response(Payload(b"%d" % n)) for n in range(3)]
        assert [answer.data for answer in await asyncio.gather(*calls)] == [b"0", b"1", b"2"]
        await until(lambda: len(line.there.notes) == 15)


# ---- another make of client, over TCP --------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def rsocket_py_client(side: Side) -> AsyncIterator[RSocketClient]:
    listener = await listen_tcp("127.0.0.1", 0, lambda: Connection(Protocol.server(SECURE, time.monotonic()), side))
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    provider = single_transport_provider(TransportTCP(reader, writer))  # type: ignore[no-untyped-call]
    try:
        async with RSocketClient(provider, setup_payload=TheirPayload(b"claims"), fragment_size_bytes=100) as client:
            yield client
    finally:
        listener.close()
        await listener.wait_closed()
        writer.close()


@pytest.mark.row("A-37")
async def test_rsocket_py_asks_in_fragments_and_is_answered() -> None:
    side = Side()
    async with within(SECOND), rsocket_py_client(side) as client:
        data = bytes(range(256)) * 10
        answer = await client.request_response(TheirPayload(data, b"m" * 300))
        assert (answer.data, answer.metadata) == (data, b"m" * 300)
        await client.fire_and_forget(TheirPayload(b"fire"))
        await until(lambda: b"fire" in side.notes)
        assert [setup.data for setup in side.setups] == [b"claims"]


@pytest.mark.row("A-37", "A-38")
async def test_rsocket_py_streams_with_its_own_credit() -> None:
    from rsocket.awaitable.awaitable_rsocket import AwaitableRSocket

    async with within(SECOND), rsocket_py_client(Side()) as client:
        answers = await AwaitableRSocket(client).request_stream(TheirPayload(b"later:20"), limit_rate=3)
        assert [int(payload.data or b"") for payload in answers] == list(range(20))
