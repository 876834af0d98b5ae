"""The load generator for calls: raw frames, prepared before the clock starts, every answer checked.

It is the same for all contestants and costs little: answers that come in the order of their requests are compared in
whole reads, byte for byte. A server that answers in another order is checked frame by frame.
"""

import asyncio
import contextlib
import itertools
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import attrs
from measures import Figures
from servers import Contestant, CpuMeter
from wire import (
    COMPLETE,
    ERROR,
    FIRST,
    GREETING_ID,
    HEADER,
    NEXT,
    PAYLOAD,
    REQUEST_RESPONSE,
    SIZED_HEADER,
    WHOLE,
    cut,
    data_of,
    frame,
    request,
    setup,
)

GREETED_WITHIN = 30.0
CLOSED_WITHIN = 2.0
GIVEN_UP_AFTER = 120.0
KEPT_READY = 16 * 1024 * 1024
"""Bytes of requests that are prepared in one piece; those of larger calls are put together as they are sent."""

Claims = Mapping[str, object] | None
Data = Callable[[int], bytes]


@attrs.frozen
class Call:
    """A kind of call: `data(n)` is what is asked in call n, `answer(n)` what must come back."""

    route: str | None
    data: Data
    answer: Data
    json: bool = False


def echo(size: int) -> Call:
    body = b"x" * size
    return Call("bench.echo", lambda n: body, lambda n: body)


JSON_CALL = Call(
    "bench.add",
    lambda n: b'{"a":%d,"b":%d}' % (FIRST + n, FIRST + 2 * n),
    lambda n: b'{"sum":%d}' % (2 * FIRST + 3 * n),
    json=True,
)
FLIPPER_CALL = Call(
    None,
    lambda n: b'{"method":"execute","params":{"api":"bench","method":"add","params":%b}}' % JSON_CALL.data(n),
    lambda n: b'{"success":%b}' % JSON_CALL.answer(n),
    json=True,
)
"""The same in the words of Flipper's SDKs: no metadata, plugin and method in the message."""
CLAIMS = {"os": "Linux", "device": "bench", "app": "Bench", "sdk_version": 3}
"""What a Flipper SDK says in its SETUP. At this version it is asked for its plugins, and nothing more."""


class Batch:
    """`total` calls of one kind, as bytes. Stream ids are 3, 5, 7 and so on, after that of the greeting."""

    def __init__(self, call: Call, total: int) -> None:
        self.call, self.total = call, total
        self.answer_size = len(call.answer(0)) + 9
        first = request(3, REQUEST_RESPONSE, call.route, call.data(0))
        self._head = first[7 : len(first) - len(call.data(0))]
        self._size = len(first)
        self.ready = self._size * total <= KEPT_READY
        self._requests = self._make(0, total) if self.ready else b""
        self.answers = b"".join(map(self._answer, range(total))) if self.ready else b""

    def _make(self, start: int, end: int) -> bytes:
        size, pieces = (self._size - 3).to_bytes(3, "big"), []
        for n in range(start, end):
            pieces += (size, (2 * n + 3).to_bytes(4, "big"), self._head, self.call.data(n))
        return b"".join(pieces)

    def _answer(self, n: int) -> bytes:
        data = self.call.answer(n)
        size = len(data) + 6
        return SIZED_HEADER.pack(size >> 16, size & 0xFFFF, 2 * n + 3, WHOLE) + data

    def requests(self, start: int, end: int) -> bytes:
        return self._requests[start * self._size : end * self._size] if self.ready else self._make(start, end)


class Line(asyncio.Protocol):
    """One client connection. It greets with a call; `ready` once that is answered, `done` when its work is.

    What it does with the frames that come is the business of `take` and `reply` of a subclass.
    """

    transport: Any

    def __init__(self, greeting: bytes, claims: Claims = None) -> None:
        self.first = setup(claims) + greeting
        self.buffer = bytearray()
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.write(self.first)

    def begin(self) -> None:
        """Start the work: all lines of a round have been greeted."""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        out = []
        for body in cut(self.buffer):
            stream_id, kind = HEADER.unpack_from(body)
            if kind >> 10 == REQUEST_RESPONSE:
                out.append(frame(stream_id, PAYLOAD, self.reply(body), NEXT | COMPLETE))
            elif kind >> 10 == ERROR:
                self.fail(f"the server answers stream {stream_id} with an error: {body[6:300]!r}")
            elif stream_id == GREETING_ID:
                self._finish(self.ready)
            elif kind >> 10 == PAYLOAD:
                self.take(stream_id, kind, body)
        if out:
            self.transport.write(b"".join(out))

    def reply(self, body: bytes) -> bytes:
        """What the app answers when the server asks it something: here only which plugins it has."""
        return b'{"success":{"plugins":["bench"]}}'

    def take(self, stream_id: int, kind: int, body: bytes) -> None:
        """An answer has come. `body` is the frame without its length."""
        raise NotImplementedError

    def fail(self, text: str) -> None:
        for future in (self.ready, self.done):
            if not future.done():
                future.set_exception(AssertionError(text))

    def finish(self) -> None:
        self._finish(self.done)

    @staticmethod
    def _finish(future: asyncio.Future[None]) -> None:
        if not future.done():
            future.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._finish(self.lost)
        self.fail(f"the server closed the connection: {error}")


class Caller(Line):
    """Keeps `window` calls of a batch in flight until all have been answered right.

    `moments` are the times at which answers came; with a window of 1 their differences are the latencies.
    """

    def __init__(self, batch: Batch, window: int, claims: Claims = None) -> None:
        call = batch.call
        super().__init__(request(GREETING_ID, REQUEST_RESPONSE, call.route, call.data(0)), claims)
        self.batch, self.window = batch, window
        self.sent = self.answered = self.at = 0
        self.in_order = batch.ready
        self.seen = bytearray(batch.total)
        self.moments: list[float] = []

    def begin(self) -> None:
        self.moments.append(time.perf_counter())
        self._send()

    def data_received(self, data: bytes) -> None:
        if self.in_order and self.ready.done():
            at = self.at + len(data)
            if self.batch.answers[self.at : at] == data and at <= self.sent * self.batch.answer_size:
                self.at, self.answered = at, at // self.batch.answer_size
                self._go_on()
                return
            whole = self.answered * self.batch.answer_size
            data = self.batch.answers[whole : self.at] + data
            self.in_order, self.seen[: self.answered] = False, b"\1" * self.answered
        super().data_received(data)
        if not (self.ready.done() and self.sent):
            return
        if self.batch.ready and not self.buffer and self.seen.find(0) in (self.answered, -1):
            self.in_order, self.at = True, self.answered * self.batch.answer_size  # whole reads again
        self._go_on()

    def take(self, stream_id: int, kind: int, body: bytes) -> None:
        n = (stream_id - 3) // 2
        if not kind & NEXT:
            return
        if not 0 <= n < self.sent or self.seen[n] or data_of(body) != self.batch.call.answer(n):
            self.fail(f"wrong answer on stream {stream_id}: {body[:200]!r}")
            return
        self.seen[n] = 1
        self.answered += 1

    def _go_on(self) -> None:
        self.moments.append(time.perf_counter())
        if self.answered >= self.batch.total:
            self.finish()
        else:
            self._send()

    def _send(self) -> None:
        end = min(self.batch.total, self.answered + self.window)
        if end > self.sent:
            self.transport.write(self.batch.requests(self.sent, end))
            self.sent = end


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def client_context(server: Contestant) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(server.secrets / "sonarCA.crt"))
    context.load_cert_chain(server.secrets / "device.crt", server.secrets / "privateKey.pem")
    return context


@contextlib.asynccontextmanager
async def connected(server: Contestant, lines: Sequence[Line], port: int = 0) -> AsyncIterator[None]:
    """All `lines` connected and greeted; closed when the block has ended."""
    loop, context = asyncio.get_running_loop(), client_context(server)
    begun: list[Line] = []
    try:
        for line in lines:
            await loop.create_connection(lambda line=line: line, "127.0.0.1", port or server.port, ssl=context)
            begun.append(line)
        async with asyncio.timeout(GREETED_WITHIN):
            for line in lines:
                await line.ready
        yield
    finally:
        for line in begun:
            line.finish()
            line.transport.close()
        if begun:
            await asyncio.wait([line.lost for line in begun], timeout=CLOSED_WITHIN)


async def timed(server: Contestant, lines: Sequence[Line], operations: int) -> Figures:
    """Let all `lines` do their work at once: the rate, and the server's CPU for each of the operations."""
    meter, started = CpuMeter(server.pid), time.perf_counter()
    async with asyncio.timeout(GIVEN_UP_AFTER):
        for line in lines:
            line.begin()
        for line in lines:
            await line.done
    elapsed, used = time.perf_counter() - started, meter.seconds()
    return {"rate": operations / elapsed, "cpu": used / operations * 1e6}


async def calls(server: Contestant, batch: Batch, window: int, sessions: int = 1) -> Figures:
    """All calls of the batch on each of `sessions` connections, with the latency where they go one by one."""
    claims = None if batch.call.route else CLAIMS
    callers = [Caller(batch, window, claims) for _ in range(sessions)]
    async with connected(server, callers, server.json_port if batch.call.json else server.port):
        figures = await timed(server, callers, batch.total * sessions)
    if window == 1 and sessions == 1:
        waits = [after - before for before, after in itertools.pairwise(callers[0].moments)]
        return {**figures, "p50": quantile(waits, 0.5) * 1e3}
    return figures
