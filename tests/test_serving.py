"""Handlers at work for a peer: side by side, failing alone, cancelled, bounded."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from rsocket_broker.connection import Connection
from rsocket_broker.errors import (
    ApplicationError,
    Canceled,
    Invalid,
    Rejected,
)
from rsocket_broker.payload import ErrorCode, Payload
from rsocket_broker.protocol.codes import FrameType
from rsocket_broker.protocol.limits import SECURE, Limits
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.quiet_log import BURST
from rsocket_broker.serving import RUN
from rsocket_broker.transports.memory import memory_pair
from tests.playbook import SETUP_BODY, wire
from tests.two_sides import BOTH, SECOND, Line, Side, Wires, nothing, until, within


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    async with Line() as line:
        await line.client.wait_accepted()
        yield line


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


@pytest.mark.row("A-28")
async def test_work_that_is_ended_from_here_tells_the_peer_why_and_stops(line: Line) -> None:
    asked = asyncio.ensure_future(line.client.request_response(Payload(b"wait")))
    other = asyncio.ensure_future(line.client.request_response(Payload(b"slow")))
    async with within(SECOND):
        await until(lambda: len(line.server._work) == 2)
    ((_, task), *_) = line.server._work.streams_of(asyncio.all_tasks())
    line.server.end_work({task: Rejected("not any more")})
    with pytest.raises(Rejected, match="not any more"):
        await asked
    await until(line.here.cancelled.is_set)
    assert await other == Payload(b"slow")


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


async def test_a_peer_that_brings_a_bug_about_over_and_over_does_not_fill_the_log(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask(payload: Payload) -> Payload:
        raise OverflowError("a defect of this test's own")

    line.here.request_response = ask  # type: ignore[method-assign]
    for _ in range(3 * BURST):
        with pytest.raises(ApplicationError):
            await line.client.request_response(Payload(b"x"))
    assert len([record for record in caplog.records if record.exc_info]) == BURST


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


# ---- plain iterators -------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("count", [0, 1, 5, 6, RUN, RUN + 1, 3 * RUN])
@pytest.mark.parametrize("window", [1, 5, 1000])
async def test_a_plain_source_is_read_to_its_end_whatever_is_asked_for(
    line: Line, who: str, count: int, window: int
) -> None:
    asker, answerer = line.sides(who)
    kinds = [lambda n: b"%d" % n, lambda n: Payload(b"%d" % n), lambda n: Payload(b"%d" % n, b"m")]
    answerer.request_stream = lambda payload: (kinds[n % 3](n) for n in range(count))  # type: ignore[method-assign]
    async with within(SECOND), asker.request_stream(Payload(b""), window) as stream:
        got = [payload async for payload in stream]
    assert [int(payload.data or b"") for payload in got] == list(range(count))
    assert [payload.metadata for payload in got] == [(None, None, b"m")[n % 3] for n in range(count)]


async def test_a_plain_source_without_end_leaves_room_for_others(line: Line) -> None:
    made = 0

    def endless(payload: Payload) -> Iterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield b"x"

    line.here.request_stream = endless  # type: ignore[method-assign]
    async with within(SECOND), line.client.request_stream(Payload(b""), 1_000_000) as stream:
        await anext(stream)
        for n in range(20):
            assert await line.client.request_response(Payload(b"%d" % n)) == Payload(b"%d" % n)
        assert made < 1_000_000
    await until(lambda: len(line.server._work) == 0)


async def test_a_plain_source_waits_for_a_reader_that_does_not_read() -> None:
    made = 0

    def endless(payload: Payload) -> Iterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield bytes(1000)

    side = Side()
    side.request_stream = endless  # type: ignore[method-assign]
    server = Connection(Protocol.server(SECURE, time.monotonic()), side)
    wires = Wires(reading=False)
    memory_pair(server, wires)
    wires.transport.write([wire(FrameType.SETUP, 0, SETUP_BODY)])
    wires.transport.write([wire(FrameType.REQUEST_STREAM, 1, (1 << 30).to_bytes(4, "big"))])
    await until(lambda: made and not server._may_write.is_set())
    before = made
    await asyncio.sleep(0.02)
    assert made <= before + 1
    wires.transport.resume_reading()
    await until(lambda: made > before + 1)
    server.abort()
    await server.wait_closed()


@pytest.mark.parametrize("value", [None, "text", Payload("text")])  # type: ignore[arg-type]
async def test_nonsense_from_a_plain_source_is_a_bug_of_its_own(line: Line, value: Any) -> None:
    line.here.request_stream = lambda payload: iter([b"1", value])  # type: ignore[method-assign]
    for window in (1, 5):
        stream = line.client.request_stream(Payload(b""), window)
        assert (await anext(stream)).data == b"1"
        with pytest.raises(ApplicationError, match="internal error"):
            await anext(stream)
