"""Two connections joined in memory, and a client of another make over TCP: everything that asyncio can get wrong."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import attrs
import pytest
from rsocket.helpers import single_transport_provider
from rsocket.payload import Payload as TheirPayload
from rsocket.rsocket_client import RSocketClient
from rsocket.transports.tcp import TransportTCP

from rsocket_broker import pressure
from rsocket_broker.connection import CATCH_UP, Connection
from rsocket_broker.errors import (
    Canceled,
    ConnectionClosed,
    Rejected,
    SetupRefused,
)
from rsocket_broker.histogram import Histogram
from rsocket_broker.payload import ErrorCode, Payload
from rsocket_broker.protocol.codes import CONNECTION_CLOSE, FrameType
from rsocket_broker.protocol.events import SetupReceived
from rsocket_broker.protocol.frames import Setup
from rsocket_broker.protocol.limits import SECURE, Limits
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.quota import FULL, Holding, House, Kind
from rsocket_broker.transports.memory import memory_pair
from rsocket_broker.transports.tcp import listen_tcp
from tests.playbook import SETUP_BODY, C, F, N, u32, wire
from tests.two_sides import BOTH, SECOND, Line, Side, Wires, nothing, until, within


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    async with Line() as line:
        await line.client.wait_accepted()
        yield line


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
    assert len(line.server._work) == 0


async def test_a_handler_that_listens_hears_of_an_error_of_the_requester(line: Line) -> None:
    async def outgoing() -> AsyncIterator[Payload]:
        yield Payload(b"1")
        raise Canceled("the source ran dry")

    channel = line.client.request_channel(Payload(b"collect"), outgoing())
    with pytest.raises(Canceled, match="ran dry"):
        await anext(channel)
    await until(lambda: len(line.server._work) == 0)
    assert line.here.notes == ["the source ran dry"]


async def test_an_error_of_the_requester_cancels_a_handler_that_is_not_listening(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsocket_broker.asking.LAST_WORDS", 0.01)

    async def outgoing() -> AsyncIterator[Payload]:
        raise Canceled("the source ran dry")
        yield

    channel = line.client.request_channel(Payload(b"patient"), outgoing())
    with pytest.raises(Canceled, match="ran dry"):
        await anext(channel)
    await until(line.here.cancelled.is_set)
    await until(lambda: len(line.server._work) == 0)


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
@pytest.mark.parametrize("beats", [True, False])
async def test_what_a_peer_sent_while_something_held_the_loop_is_read_before_it_is_given_up(beats: bool) -> None:
    """A debugger in a handler, or a machine that was asleep. Under uvloop the timers ring first."""
    shift = 0.0
    server = Connection(Protocol.server(SECURE, time.monotonic()), Side(), clock=lambda: time.monotonic() + shift)
    wires = Wires()
    memory_pair(server, wires)
    wires.transport.write([wire(FrameType.SETUP, 0, SETUP_BODY[:8] + u32(1000) + SETUP_BODY[12:])])
    await until(lambda: server.metadata_mime)
    shift = 60
    server._on_timer()
    assert server.closing is None
    if beats:
        wires.transport.write([wire(FrameType.KEEPALIVE, 0, bytes(8))])
    await asyncio.sleep(1.5 * CATCH_UP)
    assert (server.closing is None) is beats
    server.abort()


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


@pytest.mark.row("A-21", "D-3")
async def test_who_is_expelled_hears_why_on_every_stream_and_gets_nothing_more() -> None:
    async with Line() as line:
        await line.client.wait_accepted()
        waiting = asyncio.ensure_future(line.client.request_response(Payload(b"wait")))
        stream = line.client.request_stream(Payload(b"later:1000000"), initial_n=4)
        channel = line.client.request_channel(Payload(b"patient"), nothing())
        asked = asyncio.ensure_future(line.server.request_response(Payload(b"wait")))
        await until(lambda: line.server.streams_open == 4 and line.here.produced >= 4)
        assert line.server.expel("the certificate was revoked") == 4
        frames = line.server.frames_out
        async with within(SECOND):
            with pytest.raises(Canceled, match="the certificate was revoked"):
                await waiting
            for each in (stream, channel):
                with pytest.raises(Canceled, match="the certificate was revoked"):
                    while True:
                        await each.__anext__()
            with pytest.raises(ConnectionClosed, match="the certificate was revoked"):
                await asked
            end = await line.client.wait_closed()
            await line.there.cancelled.wait()
        assert (end.public, end.code) == ("the certificate was revoked", ErrorCode.CONNECTION_ERROR)
        assert line.server.frames_out == frames, "all was queued at once"
        assert line.server.expel("again") == 0


async def test_who_is_expelled_while_away_is_simply_gone() -> None:
    limits = attrs.evolve(SECURE, resume_seconds=60)
    async with Line(limits, Setup(resume_token=b"12345678")) as line:
        await line.client.wait_accepted()
        line.server.drop_line()
        assert line.server.suspended
        line.server.expel("revoked")
        assert (await line.server.wait_closed()).public == "revoked"
        line.client.abort()


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


# ---- what is counted ---------------------------------------------------------------------------------------


@pytest.mark.row("A-53")
async def test_answers_given_at_once_are_observed_run_by_run() -> None:
    async with Line(setup=Setup(keepalive_ms=1500)) as line:
        await line.client.wait_accepted()
        assert (line.server.keepalive, line.server.answer_seconds) == (1.5, None)
        line.server.answer_seconds = seconds = Histogram()
        for count in (1, 10):
            calls = [line.client.request_response(Payload(b"x")) for _ in range(count)]
            await asyncio.gather(*calls)
        await line.client.request_response(Payload(b"slow"))
        assert seconds.count == 11, "what came later is no answer at once"
        assert 0 < seconds.total < SECOND
        assert 0 <= line.server.silence < SECOND


async def test_whoever_wants_to_know_hears_of_the_end_once() -> None:
    ended: list[Connection] = []
    async with Line() as line:
        line.server.when_lost(ended.append)
        await line.client.wait_accepted()
        assert ended == []
    await until(lambda: ended)
    assert ended == [line.server]


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


async def test_answers_that_come_together_reach_those_who_still_wait() -> None:
    wires = Wires()
    side = Side()
    server = Connection(Protocol.server(SECURE, time.monotonic()), side)
    memory_pair(server, wires)
    wires.transport.write([wire(FrameType.SETUP, 0, SETUP_BODY)])
    await until(lambda: server.metadata_mime)
    calls = [asyncio.ensure_future(server.request_response(Payload(b"q"), 30.0)) for _ in range(4)]
    await until(lambda: len(wires.frames) == 4)
    answers = [wire(FrameType.PAYLOAD, frame.stream_id, b"a%d" % frame.stream_id, N | C) for frame in wires.frames]
    calls[1].cancel()  # and its task has not run yet when the answers come
    server.data_received(b"".join((*answers, answers[0], wire(FrameType.PAYLOAD, 90, b"nobody's", N | C))))
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [one.data if isinstance(one, Payload) else type(one) for one in found] == [
        b"a2",
        asyncio.CancelledError,
        b"a6",
        b"a8",
    ]
    assert server.streams_open == 0
    await asyncio.sleep(0)
    assert len(wires.frames) == 4  # nothing is cancelled that has been answered
    await server.close()


# ---- what all lines of one peer may hold ---------------------------------------------------------------------


class Crowd:
    """Servers whose peers, made of wire, are one client: they share a quota."""

    def __init__(self, most: int) -> None:
        self.house = House(most)
        self.servers: list[Connection] = []
        self.sides: list[Side] = []

    def connect(self, *frames: bytes, name: str = "one", reading: bool = True) -> Wires:
        protocol = Protocol.server(SECURE, time.monotonic())
        protocol.count_in(Holding(self.house.of(name)))
        side = Side()
        server, wires = Connection(protocol, side), Wires(reading=reading)
        self.servers.append(server)
        self.sides.append(side)
        _, end = memory_pair(server, wires)
        end.write([wire(FrameType.SETUP, 0, SETUP_BODY), *frames])
        wires.transport = end
        return wires

    async def end(self) -> None:
        for server in self.servers:
            server.abort()
            await server.wait_closed()
        assert self.house.used == self.house.crowded == len(self.house) == 0


FIRST_PART = wire(FrameType.REQUEST_FNF, 1, bytes(600_000), F)
LAST_PART = wire(FrameType.PAYLOAD, 1, b"end", N)
BEGUN = FIRST_PART, LAST_PART
"""A message in two fragments."""
WHOLE = wire(FrameType.REQUEST_FNF, 1, bytes(600_000))
CUT = WHOLE[:100], WHOLE[100:]
"""A frame in two parts."""


@pytest.mark.row("M-15", "A-38")
@pytest.mark.parametrize("begun", [BEGUN, CUT], ids=["fragments", "frame"])
async def test_a_line_waits_while_others_of_its_client_hold_all_they_may(begun: tuple[bytes, bytes]) -> None:
    crowd = Crowd(1_000_000)
    first = crowd.connect(begun[0])
    await until(lambda: crowd.house.used >= 600_000)
    second = crowd.connect(begun[0])
    await until(lambda: crowd.house.crowded == 1)
    assert crowd.servers[1].pressure.held
    other = crowd.connect(wire(FrameType.REQUEST_RESPONSE, 1, b"q"), name="other")
    await until(lambda: other.frames)
    first.transport.abort()
    await until(lambda: not crowd.house.crowded)
    assert not crowd.servers[1].pressure.held
    second.transport.write([begun[1]])
    await until(lambda: crowd.sides[1].notes)
    await crowd.end()


@pytest.mark.row("M-15")
async def test_a_line_that_has_waited_too_long_loses_its_unfinished_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pressure, "ROOM_PAUSE", 0.05)
    crowd = Crowd(1_000_000)
    first = wire(FrameType.REQUEST_RESPONSE, 1, bytes(600_000), F)
    crowd.connect(first)
    await until(lambda: crowd.house.used >= 600_000)
    second = crowd.connect(first)
    await until(lambda: second.frames)
    assert (second.frames[0].kind, second.frames[0].stream_id) == (FrameType.ERROR, 1)
    assert second.frames[0].body == u32(ErrorCode.REJECTED) + FULL.encode()
    second.transport.write([wire(FrameType.REQUEST_RESPONSE, 3, b"q")])
    await until(lambda: len(second.frames) == 2)
    assert second.frames[1].kind == FrameType.PAYLOAD, "the line lives on"
    await crowd.end()


@pytest.mark.row("M-15")
async def test_a_line_that_has_waited_too_long_inside_a_frame_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pressure, "ROOM_PAUSE", 0.05)
    crowd = Crowd(1_000_000)
    crowd.connect(CUT[0])
    await until(lambda: crowd.house.used >= 600_000)
    second = crowd.connect(CUT[0])
    await until(second.lost.is_set)
    assert second.frames[0].body == u32(ErrorCode.CONNECTION_ERROR) + FULL.encode()
    await crowd.end()


@pytest.mark.row("M-15")
async def test_what_a_client_does_not_read_counts_for_all_of_its_lines() -> None:
    crowd = Crowd(1_500_000)
    ask = wire(FrameType.REQUEST_RESPONSE, 1, bytes(600_000))
    first = crowd.connect(ask, reading=False)
    await until(lambda: crowd.house.by_kind[Kind.OUTGOING] >= 600_000)
    second = crowd.connect(ask)
    await until(lambda: second.frames)
    assert second.frames[0].body == u32(ErrorCode.REJECTED) + FULL.encode()
    first.transport.resume_reading()
    await until(lambda: not crowd.house.used)
    await crowd.end()


async def test_what_was_read_and_waits_for_a_peer_that_does_not_read_counts() -> None:
    crowd = Crowd(10_000_000)
    asks = [wire(FrameType.REQUEST_RESPONSE, n, bytes(150_000)) for n in range(1, 21, 2)]
    wires = crowd.connect(b"".join(asks), reading=False)
    await until(lambda: crowd.house.by_kind[Kind.STALLED])
    wires.transport.resume_reading()
    await until(lambda: len(wires.frames) == len(asks))
    await until(lambda: not crowd.house.used)
    await crowd.end()
