"""What is not a call of the app: its events, streams with credit, calls to the app, and the relay between two apps."""

import asyncio
import functools
import json
from collections.abc import Iterator

import attrs
from load import (
    CLAIMS,
    Batch,
    Call,
    Caller,
    Line,
    connected,
    echo,
    timed,
)
from measures import Figures, Outdo, Reach, Result, Scale, Workshop, result, take_turns
from servers import APP_ID, FAR_APP_ID, Contestant
from wire import (
    COMPLETE,
    FIRST,
    GREETING,
    HEADER,
    NEXT,
    REQUEST_FNF,
    REQUEST_N,
    REQUEST_RESPONSE,
    REQUEST_STREAM,
    data_of,
    frame,
    request,
    sized,
)

# --- events ----------------------------------------------------------------------------------------------------------

BURST = 64
BURSTS_AHEAD = 4
"""Events between two questions how many have been handled, and how many such bursts may be under way: an app that
sends more than that ahead of its plugin has its events dropped, by design."""
ASK_AGAIN = 0.002
"""Seconds between questions at the end, when all has been sent and some of it is still being handled."""


@functools.lru_cache(maxsize=2)
def bursts(count: int) -> list[bytes]:
    """`count` bursts: each its events, as Flipper's SDKs send them, and a question."""
    found, stream_id, n = [], 3, FIRST
    for _ in range(count):
        pieces = []
        for _ in range(BURST):
            text = b'{"method":"execute","params":{"api":"bench","method":"note","params":{"n":%d}}}' % n
            pieces.append(request(stream_id, REQUEST_FNF, None, text))
            stream_id, n = stream_id + 2, n + 1
        pieces.append(request(stream_id, REQUEST_RESPONSE, "bench.noted", b"{}"))
        stream_id += 2
        found.append(b"".join(pieces))
    return found


class Events(Line):
    """Sends events as fast as they are handled, until the plugin has counted all of them and has the right sum."""

    def __init__(self, count: int) -> None:
        super().__init__(GREETING, CLAIMS)
        self.bursts = bursts(count)
        self.sent = self.answered = 0
        self.total = count * BURST
        self.stream_id = count * (BURST + 1) * 2 + 3

    def begin(self) -> None:
        self.transport.write(b"".join(self.bursts[:BURSTS_AHEAD]))
        self.sent = min(BURSTS_AHEAD, len(self.bursts))

    def take(self, stream_id: int, kind: int, body: bytes) -> None:
        if not kind & NEXT:
            return
        noted = json.loads(data_of(body))
        self.answered += 1
        if noted["count"] == self.total:
            wanted = sum(range(FIRST, FIRST + self.total))
            self.finish() if noted["sum"] == wanted else self.fail(f"the sum is {noted['sum']}, not {wanted}")
        elif self.sent < len(self.bursts):
            self.transport.write(self.bursts[self.sent])
            self.sent += 1
        elif self.answered >= self.sent:
            asyncio.get_running_loop().call_later(ASK_AGAIN, self._ask)

    def _ask(self) -> None:
        if not self.done.done():
            self.transport.write(request(self.stream_id, REQUEST_RESPONSE, "bench.noted", b"{}"))
            self.stream_id += 2


EVENT_REACHES = (Outdo(0.8, "node"), Outdo(1.0, "node"), Outdo(6, "rsocket-py"))


def measure_events(workshop: Workshop, scale: Scale) -> Iterator[Result]:
    async def job(server: Contestant) -> Figures:
        line = Events(scale.amount(1_000, server.name, BURSTS_AHEAD + 1))
        async with connected(server, [line], server.json_port):
            return await timed(server, [line], line.total)

    contestants = workshop.contestants("broker", "node", "rsocket-py")
    rounds = take_turns(contestants, scale, lambda server: asyncio.run(job(server)))
    yield result("app events (Flipper's JSON, fire-and-forget) into a plugin", rounds, EVENT_REACHES)


# --- streams ---------------------------------------------------------------------------------------------------------

CREDIT = 256
"""Items that the consumer has asked for at most; half of that is asked for again when half has come."""


@attrs.frozen
class Items:
    """A kind of stream. Item n carries `FIRST + n` where the item is a pattern."""

    name: str
    route: str
    item: bytes
    reaches: tuple[Reach, ...]
    json: bool = False

    def data(self, n: int) -> bytes:
        return self.item % (FIRST + n) if self.json else self.item


ITEMS = (
    Items("request-stream, 64 opaque bytes", "bench.items", b"x" * 64, (Outdo(2, "node"), Outdo(20, "rsocket-py"))),
    Items(
        "request-stream, JSON",
        "bench.numbers",
        b'{"n":%d}',
        (Outdo(1.25, "node"), Outdo(20, "rsocket-py")),
        json=True,
    ),
)
STREAM_ID = 3


@functools.lru_cache(maxsize=4)
def expected(items: Items, count: int) -> bytes:
    """The whole stream as it comes on the wire, but for the flag of completion on its last item."""
    head = HEADER.pack(STREAM_ID, (0x0A << 10) | NEXT)
    return b"".join(sized(head + items.data(n)) for n in range(count))


class Consumer(Line):
    """Draws one stream to its end: every item in its place, none beyond the credit, and the end where it must be."""

    def __init__(self, items: Items, count: int, credit: int = CREDIT) -> None:
        super().__init__(GREETING)
        self.items, self.count, self.credit = items, count, credit
        self.expected = expected(items, count)
        self.size = len(self.expected) // count
        self.at = self.received = 0
        self.granted = credit
        self.in_order = True

    def begin(self) -> None:
        data = b'{"count":%d}' % self.count
        self.transport.write(request(STREAM_ID, REQUEST_STREAM, self.items.route, data, self.credit))

    def data_received(self, data: bytes) -> None:
        if self.in_order and self.ready.done():
            at = self.at + len(data)
            if self.expected[self.at : at] == data:
                self.at, self.received = at, at // self.size
                self._go_on()
                return
            data = self.expected[self.received * self.size : self.at] + data
            self.in_order = False
        super().data_received(data)
        if self.received and not self.buffer:
            self.in_order, self.at = True, self.received * self.size
        self._go_on()

    def take(self, stream_id: int, kind: int, body: bytes) -> None:
        if kind & NEXT and (self.received < self.count or not kind & COMPLETE or data_of(body)):
            if self.received >= self.count or data_of(body) != self.items.data(self.received):
                self.fail(f"wrong item {self.received}: {body[:200]!r}")
                return
            self.received += 1
        if kind & COMPLETE:
            self.finish() if self.received == self.count else self.fail(f"the stream ends after {self.received} items")

    def _go_on(self) -> None:
        if self.received > self.granted:
            self.fail(f"{self.received} items have come, and {self.granted} were asked for")
        half = self.credit // 2
        if self.granted - self.received <= half and not self.done.done():
            more = self.credit - (self.granted - self.received)
            self.granted += more
            self.transport.write(frame(STREAM_ID, REQUEST_N, more.to_bytes(4, "big")))


def measure_streams(workshop: Workshop, scale: Scale) -> Iterator[Result]:
    contestants = workshop.contestants("broker", "node", "rsocket-py")
    for items in filter(lambda one: scale.wants(one.name), ITEMS):

        async def job(server: Contestant, items: Items = items) -> Figures:
            line = Consumer(items, scale.amount(100_000, server.name, CREDIT * 2))
            async with connected(server, [line], server.json_port if items.json else server.port):
                return await timed(server, [line], line.count)

        rounds = take_turns(contestants, scale, lambda server: asyncio.run(job(server)))
        yield result(f"{items.name}, credit {CREDIT}", rounds, items.reaches)


# --- the broker calls the app ----------------------------------------------------------------------------------------

APP_WINDOW = 64


class App(Line):
    """An app that answers calls: twice the number that it is given. The server says at the end what it has added up."""

    def __init__(self, count: int) -> None:
        super().__init__(GREETING, CLAIMS)
        self.count = count
        self.called = 0

    def begin(self) -> None:
        data = b'{"count":%d,"window":%d}' % (self.count, APP_WINDOW)
        self.transport.write(request(3, REQUEST_RESPONSE, "bench.drive", data))

    def reply(self, body: bytes) -> bytes:
        if body[-14:-10] != b'"n":':
            return super().reply(body)
        self.called += 1
        return b'{"success":{"n":%d}}' % (2 * int(body[-10:-3]))

    def take(self, stream_id: int, kind: int, body: bytes) -> None:
        told = json.loads(data_of(body))
        wanted = {"calls": self.count, "sum": 2 * sum(range(FIRST, FIRST + self.count))}
        right = told == wanted and self.called == self.count
        self.finish() if right else self.fail(f"the server tells {told} of {self.called} calls, not {wanted}")


APP_REACHES = (Outdo(1.0, "node"), Outdo(5, "rsocket-py"))


def measure_app_calls(workshop: Workshop, scale: Scale) -> Iterator[Result]:
    async def job(server: Contestant) -> Figures:
        line = App(scale.amount(40_000, server.name))
        async with connected(server, [line], server.json_port):
            return await timed(server, [line], line.count)

    contestants = workshop.contestants("broker", "node", "rsocket-py")
    rounds = take_turns(contestants, scale, lambda server: asyncio.run(job(server)))
    yield result(f"the broker calls the app (Flipper's JSON), window {APP_WINDOW}", rounds, APP_REACHES)


# --- relay -----------------------------------------------------------------------------------------------------------

RELAY_REACHES = (Outdo(1.2, "node"), Outdo(0.75, "floor"))


class Far(Line):
    """The app at the other end: answers each request with its own data."""

    def __init__(self) -> None:
        super().__init__(GREETING, {"app_id": FAR_APP_ID})

    def reply(self, body: bytes) -> bytes:
        return data_of(body)


async def relayed(workshop: Workshop, server: Contestant, batch: Batch) -> Figures:
    """One app calls another through the server. The far one's greeting goes to a handler of the server."""
    near = Caller(batch, 64, {"app_id": APP_ID})
    far = Far()
    there = attrs.evolve(server, secrets=workshop.far_secrets)
    async with connected(there, [far], server.relay_port), connected(server, [near], server.relay_port):
        return await timed(server, [near], batch.total)


@functools.lru_cache(maxsize=4)
def relay_batch(size: int, total: int) -> Batch:
    call = echo(size)
    return Batch(Call(f"client:{FAR_APP_ID}", call.data, call.answer), total)


def measure_relay(workshop: Workshop, scale: Scale) -> Iterator[Result]:
    plans = (("relay of calls, 64 bytes", 64, 50_000), ("relay of calls, 16 KiB", 16 * 1024, 4_000))
    contestants = workshop.contestants("broker", "node", "floor", options=("--allow-relay",))
    for name, size, total in plans:
        if not scale.wants(name):
            continue

        async def job(server: Contestant, size: int = size, total: int = total) -> Figures:
            return await relayed(workshop, server, relay_batch(size, scale.amount(total, server.name)))

        rounds = take_turns(contestants, scale, lambda server: asyncio.run(job(server)))
        yield result(f"{name}, window 64", rounds, RELAY_REACHES, "serve --allow-relay")
