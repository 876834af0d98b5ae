"""The contract of transports/base.py, held by every transport on each kind of event loop (see conftest.py)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rsocket_broker.transports import memory, sockets
from rsocket_broker.transports.base import Channel
from tests.transports.recording import KINDS, Recorder, framed, joined

BIG = 8 * 1024 * 1024
"""More than socket buffers of both sides hold, so that back-pressure shows."""

pytestmark = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def short_deadline(monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """Peers that never close are dropped soon, so that these tests are quick."""
    for module in (memory, sockets):
        monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.3)
    yield 0.3


async def test_bytes_go_both_ways_in_order(kind: str, tmp_path: Path) -> None:
    async with joined(kind, tmp_path) as (client, server):
        sent = framed(b"one", b"two", b"three")
        client.transport.write([sent[:4], sent[4:9], b""])
        client.transport.write([sent[9:]])
        await server.received(sent)
        server.transport.write([framed(b"back")])
        await client.received(framed(b"back"))
        assert client.transport.peer.channel is Channel(kind)
        assert server.transport.peer.channel is Channel(kind)
        assert server.transport.peer.address


async def test_a_line_that_is_handed_over_brings_what_follows_to_its_new_user(kind: str, tmp_path: Path) -> None:
    async with joined(kind, tmp_path) as (client, server):
        client.transport.write([framed(b"first")])
        await server.received(framed(b"first"))
        heir = Recorder()
        heir.events.append("handed over")
        server.transport.hand_over(heir)
        client.transport.write([framed(b"second")])
        await heir.received(framed(b"second"))
        client.transport.close()
        await heir.until(lambda: "eof" in heir.events)
        server.transport.close()
        await heir.lost()
        assert server.data == framed(b"first")
        assert server.events == ["ready", "data"]
        server.transport.hand_over(server)
        server.transport_lost(None)  # the heir has had it; this is for the clean-up of the test


async def test_nothing_written_is_nothing_sent(kind: str, tmp_path: Path) -> None:
    async with joined(kind, tmp_path) as (client, server):
        client.transport.write([])
        client.transport.write([b"", b""])
        client.transport.write([framed(b".")])
        await server.received(framed(b"."))


async def test_an_orderly_close_flushes_first(kind: str, tmp_path: Path) -> None:
    sent = framed(bytes(range(256)) * 4096)
    async with joined(kind, tmp_path) as (client, server):
        client.transport.write([sent])
        client.transport.close()
        client.transport.close()
        client.transport.write([framed(b"too late")])
        await server.until(lambda: "eof" in server.events)
        assert server.data == sent
        server.transport.close()
        assert await server.lost() is None
        assert await client.lost() is None
        assert client.events[-1] == server.events[-1] == "lost"
        assert client.losses == server.losses == [None]


async def test_after_the_peer_has_finished_it_can_still_be_answered(kind: str, tmp_path: Path) -> None:
    """Its close only says that no more comes; what it then gets it may throw away, but nothing breaks."""
    async with joined(kind, tmp_path) as (client, server):
        client.transport.close()
        await server.until(lambda: "eof" in server.events)
        server.transport.write([framed(b"answer")])
        server.transport.close()
        assert await server.lost() is None
        assert client.data == b""


async def test_a_closed_end_hears_no_more(kind: str, tmp_path: Path) -> None:
    async with joined(kind, tmp_path) as (client, server):
        client.transport.close()
        server.transport.write([framed(b"x" * 1000)])
        await server.until(lambda: "eof" in server.events)
        server.transport.write([framed(b"y" * 1000)])
        server.transport.close()
        assert await client.lost() is None
        assert client.events == ["ready", "lost"]


async def test_a_peer_that_never_closes_is_dropped_at_the_deadline(kind: str, tmp_path: Path) -> None:
    async with joined(kind, tmp_path) as (client, server):
        client.transport.close()
        assert await client.lost() is None
        assert server.events[:2] == ["ready", "eof"]


async def test_a_peer_that_never_reads_is_dropped_at_the_deadline(kind: str, tmp_path: Path) -> None:
    async with joined(kind, tmp_path) as (client, server):
        server.transport.pause_reading()
        client.transport.write([framed(bytes(BIG))])
        assert client.transport.queued > 0
        client.transport.close()
        assert await client.lost() is None
        assert len(server.data) < BIG


async def test_an_abort_drops_what_is_queued(kind: str, tmp_path: Path) -> None:
    async with joined(kind, tmp_path) as (client, server):
        server.transport.pause_reading()
        client.transport.write([framed(bytes(BIG))])
        client.transport.abort()
        client.transport.abort()
        assert client.losses == [], "the end is told later, never from inside the call"
        assert await client.lost() is None
        server.transport.resume_reading()
        await server.until(lambda: "lost" in server.events or "eof" in server.events)
        assert len(server.data) < BIG


async def test_a_slow_reader_holds_up_the_writer(kind: str, tmp_path: Path) -> None:
    sent = framed(bytes(BIG // 2), b"a" * (BIG // 2))
    async with joined(kind, tmp_path) as (client, server):
        server.transport.pause_reading()
        client.transport.write([sent[: BIG // 2], sent[BIG // 2 :]])
        await client.until(lambda: "paused" in client.events)
        assert client.transport.queued > 0
        server.transport.resume_reading()
        await client.until(lambda: "resumed" in client.events)
        await server.until(lambda: len(server.data) == len(sent))
        assert server.data == sent
        assert client.transport.queued < BIG
        assert client.events.count("paused") == client.events.count("resumed")


async def test_a_paused_reader_gets_nothing(kind: str, tmp_path: Path) -> None:
    async with joined(kind, tmp_path) as (client, server):
        server.transport.pause_reading()
        client.transport.write([framed(b"later")])
        server.transport.write([framed(b"now")])
        await client.received(framed(b"now"))
        assert server.data == b""
        server.transport.resume_reading()
        await server.received(framed(b"later"))


async def test_pausing_when_the_peer_has_finished_repeats_nothing(kind: str, tmp_path: Path) -> None:
    async with joined(kind, tmp_path) as (client, server):
        client.transport.close()
        await server.until(lambda: "eof" in server.events)
        server.transport.pause_reading()
        server.transport.resume_reading()
        server.transport.close()
        await server.lost()
        assert server.events == ["ready", "eof", "lost"]


async def test_it_may_be_closed_from_inside_a_callback(kind: str, tmp_path: Path) -> None:
    class Brusque(Recorder):
        def data_received(self, data: bytes | memoryview) -> None:
            super().data_received(data)
            self.transport.write([framed(b"enough")])
            self.transport.close()

    async with joined(kind, tmp_path, Brusque()) as (client, server):
        server.transport.write([framed(bytes(100_000))])
        server.transport.write([framed(bytes(100_000))])
        await server.until(lambda: "eof" in server.events)
        assert server.data == framed(b"enough")
        server.transport.close()
        assert await client.lost() is None
