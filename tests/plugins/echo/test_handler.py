"""The echo plugin on the bench."""

import asyncio

import pytest

from rsocket_broker.plugin_api import ApplicationError, Invalid, Payload
from rsocket_broker.plugin_api.testing import running
from rsocket_broker.plugins.echo import Echo, plugin


async def test_request_gives_back_the_very_payload() -> None:
    async with running(plugin) as bench:
        client = await bench.connect()
        for payload in (Payload(b"data", b"metadata"), Payload(b"", None), Payload(b"", b"")):
            assert await client.request_payload("request", payload) is payload


async def test_error_fails() -> None:
    async with running(Echo) as bench:
        client = await bench.connect()
        with pytest.raises(ApplicationError, match="always fails"):
            await client.request_payload("error", Payload(b"", None))


@pytest.mark.row("A-45")
async def test_never_waits_until_it_is_cancelled() -> None:
    async with running(Echo) as bench:
        client = await bench.connect()
        task = asyncio.create_task(client.request_payload("never", Payload(b"", None)))
        done, _ = await asyncio.wait([task], timeout=0.02)
        assert not done
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_slow_takes_its_time() -> None:
    async with running(Echo) as bench:
        client = await bench.connect()
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert (await client.request_payload("slow", Payload(b"20", None))).data == b"20"
        assert loop.time() - began >= 0.019


async def test_streams_count_and_fail() -> None:
    async with running(Echo) as bench:
        client = await bench.connect()
        sizes = [len(one.data or b"") async for one in client.stream_payloads("stream", Payload(b"3:5", None))]
        assert sizes == [5, 5, 5]
        got = []
        with pytest.raises(ApplicationError, match="fails after 2 payloads"):
            async for one in client.stream_payloads("stream-error", Payload(b"2:0", None)):
                got.append(one.data)
        assert got == [b"", b""]


async def test_channel_gives_each_payload_back() -> None:
    async with running(Echo) as bench:
        client = await bench.connect()
        sent = [Payload(b"a", None), Payload(b"", b"m"), Payload(b"c", None)]
        assert [one async for one in client.channel_payloads("channel", sent)] == sent


async def test_fire_is_counted() -> None:
    async with running(Echo) as bench:
        client = await bench.connect()
        for _ in range(3):
            await client.fire("fire", Payload(b"x", None))
        assert await client.request("fired") == {"count": 3}


@pytest.mark.row("M-7")
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("slow", b"-1"),
        ("slow", b"1.5"),
        ("slow", b""),
        ("slow", b"3600001"),
        ("slow", b"9" * 5000),
        ("stream", b"3"),
        ("stream", b"a:1"),
        ("stream", b"1:16777216"),
        ("stream", "٣:1".encode()),
    ],
)
async def test_data_that_makes_no_sense_is_refused_before_anything_happens(name: str, data: bytes) -> None:
    async with running(Echo) as bench:
        client = await bench.connect()
        with pytest.raises(Invalid, match="must be"):
            if name == "slow":
                await client.request_payload(name, Payload(data, None))
            else:
                await anext(client.stream_payloads(name, Payload(data, None)))
