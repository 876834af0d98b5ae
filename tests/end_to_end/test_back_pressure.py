"""Slow consumers and fast sources, with the broker's memory looked at from outside."""

import asyncio
import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker import client
from rsocket_broker.pressure import FEEDER_PAUSE, RELAY_QUEUE
from rsocket_broker.protocol.limits import KIB, MIB
from rsocket_broker.protocol.relay import UNREAD
from rsocket_broker.transports.sockets import HIGH_WATER
from tests.end_to_end import wire
from tests.end_to_end.conftest import QUICK, StartBroker
from tests.end_to_end.meddlers import RecordingProxy
from tests.end_to_end.processes import BrokerProcess
from tests.end_to_end.wire import Line
from tests.foreign.sdk_folder import client_context

FLOW = Path(__file__).parent / "flow_plugin.py"
OPTIONS = ("--plugin", str(FLOW), "--allow-relay")
GROWTH = MIB
"""Bytes by which the broker may grow while slow consumers take their time."""
ITEMS = 600
EVERYTHING = 0x7FFF_FFFF

Portion = Callable[[int], list[int]]


class Source(client.AppPlugin):
    """An app's endless source, and how much was taken from it."""

    id = "Flow"

    def __init__(self) -> None:
        self.made = 0

    @client.method("numbers")
    def numbers(self) -> Iterator[dict[str, object]]:
        while True:
            self.made += 1
            yield {"n": self.made, "fill": "x" * 1000}


@pytest.fixture
def broker(start: StartBroker) -> BrokerProcess:
    return start(*OPTIONS)


async def join(
    stack: contextlib.AsyncExitStack,
    broker: BrokerProcess,
    folder: Path,
    app_id: str,
    source: Source | None = None,
    port: int | None = None,
) -> client.Session:
    return await stack.enter_async_context(
        client.connect(
            app_id=app_id,
            app=app_id,
            directory=folder / app_id,
            insecure_port=broker.insecure_port,
            secure_port=port or broker.secure_port,
            plugins=[] if source is None else [source],
            backoff=QUICK,
            timeout=15,
        )
    )


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.row("A-38", "D-11")
async def test_one_item_a_second_from_a_source_without_end_costs_no_memory(
    broker: BrokerProcess, tmp_path: Path, portion: Portion
) -> None:
    """From a plugin, from an app through a plugin, and from one app to another. The whole form takes ten minutes; the
    everyday share takes a tenth of the items ten times as fast."""
    count = len(portion(ITEMS))
    pause = 1.0 if count == ITEMS else 0.1
    own, other = Source(), Source()
    async with contextlib.AsyncExitStack() as stack:
        consumer = await join(stack, broker, tmp_path, "org.example.slow", own)
        await join(stack, broker, tmp_path, "org.example.fast", other)
        fast = consumer.stream("client:org.example.fast/Flow.numbers")  # to warm up, at full speed
        for stream in (fast, consumer.stream("Flow.numbers"), consumer.stream("Flow.through")):
            async with contextlib.aclosing(stream):
                for _ in range(5000):
                    await anext(stream)
        made = await consumer.request("Flow.made"), own.made, other.made
        before = broker.rss()
        routes = ["Flow.numbers", "Flow.through", "client:org.example.fast/Flow.numbers"]
        taken = await asyncio.gather(*(slowly(consumer, route, count, pause) for route in routes))
        assert taken == [count] * 3
        growth = broker.rss() - before
        sources = await consumer.request("Flow.made"), own.made, other.made
    assert growth < GROWTH, f"{growth / KIB:.0f} KiB"
    ahead = [now - then - count for then, now in zip(made, sources, strict=True)]
    assert all(0 <= number <= 300 for number in ahead), f"{ahead}: no source runs further ahead than its window"


async def slowly(session: client.Session, route: str, count: int, pause: float) -> int:
    taken = 0
    async with contextlib.aclosing(session.stream(route, credit=1)) as values:
        async for _ in values:
            taken += 1
            if taken == count:
                break
            await asyncio.sleep(pause)
    return taken


@pytest.mark.row("D-4", "A-38")
async def test_a_stream_between_two_apps_outlives_the_lines_of_both(broker: BrokerProcess, tmp_path: Path) -> None:
    """Nothing is lost, and nothing comes twice."""
    async with (
        RecordingProxy("consumer", broker.secure_port, []) as one,
        RecordingProxy("producer", broker.secure_port, []) as other,
        contextlib.AsyncExitStack() as stack,
    ):
        consumer = await join(stack, broker, tmp_path, "org.example.consumer", None, one.port)
        await join(stack, broker, tmp_path, "org.example.producer", Source(), other.port)
        numbers = []
        async with contextlib.aclosing(consumer.stream("client:org.example.producer/Flow.numbers")) as values:
            async for value in values:
                numbers.append(value["n"])
                if len(numbers) in {500, 1500, 2500, 3500}:
                    await (one, other)[len(numbers) // 500 % 4 // 2].cut()
                if len(numbers) == 5000:
                    break
        assert numbers == list(range(1, 5001))
        assert consumer.connections == 1


# ---- peers that stop reading -----------------------------------------------------------------------------------


Join = Callable[[str], Line]


@pytest.fixture
def raw(broker: BrokerProcess, tmp_path: Path) -> Iterator[Join]:
    """`raw("deaf")`: a client made of frames, which has been let in."""
    lines: list[Line] = []

    def come(name: str) -> Line:
        folder = tmp_path / name
        done = broker.command("ca", "issue", "--app-id", f"org.example.{name}", "--out", str(folder))
        assert done.returncode == 0, done.stderr
        line = Line.open(broker.secure_port, client_context(folder))
        lines.append(line)
        line.send(wire.setup(b"", wire.COMPOSITE), wire.keepalive(b"hello"))
        assert next_of(line).kind == wire.KEEPALIVE
        return line

    yield come
    for line in lines:
        line.socket.close()


class Bystander(threading.Thread):
    """Calls the broker again and again, and knows its slowest call. Seconds."""

    def __init__(self, line: Line) -> None:
        super().__init__(daemon=True)
        self.slowest = 0.0
        self.calls = 0
        self._line = line
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.005):  # or the two threads would get in each other's way
            began = time.monotonic()
            self._line.send(wire.request(wire.REQUEST_RESPONSE, 2 * self.calls + 1, b"1", wire.routed("echo.request")))
            answer = self._line.next()
            assert answer is not None
            assert wire.payload_data(answer) == b"1"
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.calls += 1

    def finish(self) -> None:
        self._over.set()
        self.join(20)
        assert not self.is_alive()


@pytest.fixture
def bystander(raw: Join) -> Iterator[Bystander]:
    one = Bystander(raw("bystander"))
    one.start()
    yield one
    one.finish()


@pytest.mark.row("A-38", "D-11", "A-45")
def test_a_reader_that_stops_is_fed_up_to_its_budget_and_then_loses_the_stream(
    broker: BrokerProcess, raw: Join, bystander: Bystander
) -> None:
    """It has asked for all there is, and its producer sends as fast as it can."""
    deaf, source = raw("deaf"), raw("source")
    address = wire.routed("client:org.example.source")
    deaf.send(wire.request(wire.REQUEST_STREAM, 1, b"", address, n=EVERYTHING))
    request = next_of(source)
    assert (request.kind, request.stream) == (wire.REQUEST_STREAM, 2)
    before = broker.rss()
    item = wire.frame(2, wire.PAYLOAD, wire.NEXT, bytes(128 * KIB))
    began, sent = time.monotonic(), 0
    while (cancel := stopped(source)) is None:
        send_all(source, item)
        sent += len(item)
        assert sent < 400 * MIB
    assert cancel == wire.frame(2, wire.CANCEL)
    assert broker.rss() - before < RELAY_QUEUE + HIGH_WATER + 4 * MIB
    assert time.monotonic() - began > FEEDER_PAUSE, "its producer was paused before that"
    slow, fast = counters(broker, "deaf"), counters(broker, "source")
    assert slow["stalled_seconds"] > FEEDER_PAUSE
    assert slow["bytes_waiting"] > RELAY_QUEUE // 2
    assert (slow["fed_too_fast_by"], slow["relays_failed"], fast["relays_failed"]) == ([fast["id"]], 1, 1)
    assert FEEDER_PAUSE * 0.9 < fast["held_seconds"] < FEEDER_PAUSE * 3
    source.socket.settimeout(10)
    source.send(wire.request(wire.REQUEST_RESPONSE, 1, b"1", wire.routed("echo.request")))
    assert wire.payload_data(next_of(source)) == b"1", "the producer's other streams go on"
    calls = bystander.calls
    while bystander.calls < calls + 20:
        time.sleep(0.01)
    assert bystander.slowest < FEEDER_PAUSE, "others notice nothing"
    frames = iter(partial(next_of, deaf), None)  # it wakes up, and reads what there is
    error = next(one for one in frames if one.kind != wire.PAYLOAD)
    assert (error.stream, error.error) == (1, (0x202, UNREAD))
    deaf.send(wire.request(wire.REQUEST_RESPONSE, 3, b"2", wire.routed("echo.request")))
    assert wire.payload_data(next_of(deaf)) == b"2"


def counters(broker: BrokerProcess, name: str) -> dict[str, Any]:
    """What the command line shows of one client."""
    done = broker.command("clients", "show", f"org.example.{name}", "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def next_of(line: Line) -> wire.Frame:
    found = line.next()
    assert found is not None
    return found


def send_all(line: Line, data: bytes) -> None:
    line.socket.settimeout(20)
    line.send(data)


def stopped(line: Line) -> bytes | None:
    """What the broker has said to a producer, if anything."""
    line.socket.settimeout(0.0005)
    try:
        data = line.socket.recv(4096)
    except (TimeoutError, ssl.SSLWantReadError):
        return None
    return data


@pytest.mark.row("A-38", "D-11")
def test_a_reader_that_stops_stops_the_source_of_a_plugin(
    broker: BrokerProcess, raw: Join, bystander: Bystander
) -> None:
    deaf, other = raw("deaf"), raw("other")
    before = broker.rss()
    deaf.send(wire.request(wire.REQUEST_STREAM, 1, b"{}", wire.routed("Flow.numbers"), n=EVERYTHING))
    counts = [made(other, n) for n in range(1, 400, 2)]
    while counts[-1] != counts[-20]:
        counts.append(made(other, 2 * len(counts) + 1))
    assert 100 < counts[-1] < 40_000
    assert broker.rss() - before < HIGH_WATER + 4 * MIB
    assert bystander.slowest < FEEDER_PAUSE
    for _ in range(counts[-1] + 100):
        assert wire.payload_data(next_of(deaf)), "it reads again, and there is more"
    assert made(other, 999_999) > counts[-1]


def made(line: Line, stream: int) -> int:
    line.send(wire.request(wire.REQUEST_RESPONSE, stream, b"{}", wire.routed("Flow.made")))
    time.sleep(0.005)
    return int(wire.payload_data(next_of(line)))
