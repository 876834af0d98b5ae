"""Payloads on one stream, without a connection: order, credit, the end, and iterators of every kind."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from rsocket_broker.errors import ApplicationError
from rsocket_broker.flow import RequestedStream, as_async, close_source, parts, payload_size
from rsocket_broker.payload import Payload
from rsocket_broker.quota import STEP, Holding, House, Kind
from tests.until import until


class Owner:
    def __init__(self) -> None:
        self.granted: list[int] = []
        self.left = 0

    def grant(self, stream_id: int, n: int) -> None:
        self.granted.append(n)

    def leave(self, stream_id: int) -> None:
        self.left += 1


def numbered(n: int) -> Payload:
    return Payload(b"%d" % n)


@pytest.mark.row("A-38")
async def test_credit_is_topped_up_only_by_taking() -> None:
    owner = Owner()
    stream = RequestedStream(owner, 1, window=4)
    for n in range(4):
        stream.put(numbered(n))
    assert owner.granted == []
    assert [await anext(stream) for _ in range(4)] == [numbered(n) for n in range(4)]
    assert owner.granted == [2, 2]


@pytest.mark.parametrize("window", [1, 2, 3, 5])
async def test_a_window_of_any_size_never_stalls_and_is_never_exceeded(window: int) -> None:
    owner = Owner()
    stream = RequestedStream(owner, 1, window)
    sent = 0
    for n in range(20):
        while sent < window + sum(owner.granted):
            stream.put(numbered(sent))
            sent += 1
        assert await anext(stream) == numbered(n)
        assert window + sum(owner.granted) - (n + 1) <= window


async def test_what_has_come_is_delivered_before_the_end() -> None:
    stream = RequestedStream(Owner(), 1, 4)
    stream.put(numbered(1))
    stream.end(ApplicationError("broken"))
    stream.put(numbered(2))
    assert await anext(stream) == numbered(1)
    with pytest.raises(ApplicationError, match="broken"):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_waiting_consumer_is_woken() -> None:
    stream = RequestedStream(Owner(), 1, 4)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    stream.put(numbered(1))
    assert await waiting == numbered(1)
    ending = asyncio.ensure_future(anext(stream, None))
    await asyncio.sleep(0)
    stream.end(None)
    assert await ending is None


async def test_a_consumer_that_gives_up_waiting_loses_nothing() -> None:
    stream = RequestedStream(Owner(), 1, 4)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await anext(stream)
    stream.put(numbered(1))
    assert await anext(stream) == numbered(1)


async def test_leaving_tells_the_owner_once_and_drops_what_came() -> None:
    owner = Owner()
    async with RequestedStream(owner, 1, 4) as stream:
        stream.put(Payload(b"12345", b"678"))
        assert stream.held == 8
    assert stream.held == 0
    await stream.aclose()
    assert owner.left == 1
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@pytest.mark.row("A-28")
async def test_a_stream_that_is_failed_here_tells_its_consumer_why_and_its_producer_to_stop() -> None:
    owner = Owner()
    stream = RequestedStream(owner, 1, window=4)
    stream.put(numbered(1))
    stream.fail(ApplicationError("not any more"))
    stream.fail(ApplicationError("again"))
    with pytest.raises(ApplicationError, match="not any more"):
        await anext(stream)
    assert (owner.left, stream.held) == (1, 0)


async def test_leaving_after_the_end_tells_nobody() -> None:
    owner = Owner()
    async with RequestedStream(owner, 1, 4) as stream:
        stream.end(None)
    assert owner.left == 0


async def test_a_plain_iterator_becomes_an_async_one_and_is_closed_with_it() -> None:
    closed = []

    def numbers() -> Iterator[Payload]:
        try:
            for n in range(10):
                yield numbered(n)
        finally:
            closed.append(True)

    source = as_async(numbers())
    assert await anext(source) == numbered(0)
    await close_source(source)
    assert closed == [True]
    assert [payload async for payload in as_async(iter([numbered(1)]))] == [numbered(1)]


async def test_an_iterator_without_clean_up_needs_none() -> None:
    class Bare:
        def __aiter__(self) -> AsyncIterator[Payload]:
            return self

        async def __anext__(self) -> Payload:
            raise StopAsyncIteration

    await close_source(Bare())


def test_size_counts_data_and_metadata() -> None:
    assert payload_size(Payload(b"abc", b"de")) == 5
    assert payload_size(Payload(None, None)) == 0


@pytest.mark.parametrize(("data", "metadata"), [(b"d", None), (bytearray(b"d"), b""), (None, b"m"), (b"", bytearray())])
def test_what_may_be_sent(data: bytes | None, metadata: bytes | None) -> None:
    assert parts(Payload(data, metadata)) == (data or b"", metadata)


@pytest.mark.parametrize(("data", "metadata"), [("text", None), (b"", "text"), (memoryview(b"d"), None), ([1], None)])
def test_what_is_not_bytes_is_not_sent(data: Any, metadata: Any) -> None:
    with pytest.raises(TypeError, match="bytes"):
        parts(Payload(data, metadata))


@pytest.mark.row("M-15", "A-38")
@pytest.mark.parametrize("end", ["taken", "closed", "failed", "forgotten"])
async def test_payloads_that_wait_count_until_they_do_not(end: str) -> None:
    house = House(4 * STEP)
    stream = RequestedStream(Owner(), 1, 100, Holding(house.of("a")))
    assert [stream.put(Payload(bytes(STEP))) for _ in range(5)] == [True] * 4 + [False]
    assert house.by_kind[Kind.PAYLOADS] == 5 * STEP
    if end == "taken":
        for _ in range(5):
            await anext(stream)
    elif end == "closed":
        stream.close()
    elif end == "failed":
        stream.fail(ApplicationError("no"))
    else:
        del stream
        await until(lambda: house.used == 0)
    assert house.used == 0


@pytest.mark.row("M-15")
async def test_a_stream_that_the_collector_finds_on_another_thread_is_uncounted_by_the_loop() -> None:
    house, threads = House(4 * STEP), set[int]()

    class Watched(Holding):
        def change(self, kind: Kind, by: int) -> None:
            threads.add(threading.get_ident())
            super().change(kind, by)

    stream = RequestedStream(Owner(), 1, 100, Watched(house.of("a")))
    stream.put(Payload(bytes(STEP)))
    stream._owner = stream  # type: ignore[assignment]  # a cycle, as that of a failed consumer and its traceback
    del stream
    await asyncio.to_thread(gc.collect)
    await until(lambda: house.used == 0)
    assert threads == {threading.get_ident()}
