"""The processes of the latency measure: one that feels the delay, and two kinds that make it.

    python prober.py probe SERVER SECONDS     calls at a steady pace; prints [[due, delay], ...] in seconds
    python prober.py storm SERVER COUNT       on a line of stdin connects all at once; prints [begin, end]
    python prober.py idle SERVER COUNT        on a line of stdin connects so many that do nothing; prints how many
    python prober.py callers SERVER COUNT     so many sessions that call all the time; prints how many answers came
    python prober.py streams SERVER COUNT     draws so many streams without end; prints how many items came
    python prober.py giants SERVER BYTES      events of that size, one of each shape; prints how long each took
    python prober.py flood SERVER RATE        so many events a second from one app; prints how many were handled
    python prober.py misuse SERVER RATE       so many calls a second of a bad plugin; prints how many it got rid of

SERVER is JSON. Each prints `ready` first. Those that make delay hold their sessions until stdin ends. Times are of the
monotonic clock, which is the same for all processes.
"""

import asyncio
import json
import os
import select
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from load import CLAIMS, Line, client_context, connected
from servers import Contestant
from sessions import idle_sockets, open_session
from wire import (
    ERROR,
    FIRST,
    FOLLOWS,
    GREETING,
    GREETING_ID,
    HEADER,
    NEXT,
    PAYLOAD,
    REQUEST_FNF,
    REQUEST_N,
    REQUEST_RESPONSE,
    REQUEST_STREAM,
    cut,
    data_of,
    frame,
    request,
    sized,
)

PACE = 1000
"""Calls a second of the session that is measured."""
GENTLE = 10
"""Makers of delay are that much nicer than the server and the probe: with fewer cores than processes, what is to be
measured is the server, and not for how long the scheduler lets a generator run."""
CREDIT = 256
FRAGMENT = 1 << 20
"""Bytes of one frame of a large message."""
MISUSE_TURN = 0.5
"""Seconds for each of the ways in which a plugin is made to misbehave."""
ITEM = b"x" * 64


def announce() -> None:
    print("ready", flush=True)


class Probe:
    """One session with a call every millisecond, from a loop that does nothing else.

    A delay is counted from the moment at which its call was due: one that had to wait for an earlier one to be sent
    has waited too.
    """

    def __init__(self, server: Contestant) -> None:
        self.line = open_session(server, client_context(server))
        self.line.setblocking(False)
        self.buffer = bytearray()
        self.due: list[float] = []
        self.found: list[tuple[float, float]] = []

    def run(self, seconds: float) -> None:
        begin, total = time.perf_counter(), int(seconds * PACE)
        while len(self.found) < total:
            now = time.perf_counter()
            wait = begin + len(self.due) / PACE - now if len(self.due) < total else 1.0
            if wait <= 0:
                self._send(now + wait)
            elif self.line.pending() or select.select([self.line], [], [], wait)[0]:
                self._receive()
            assert now - begin < seconds + 30, f"{total - len(self.found)} calls have no answer"

    def _send(self, due: float) -> None:
        n = len(self.due)
        self.due.append(due)
        self.line.sendall(request(2 * n + 3, REQUEST_RESPONSE, "bench.echo", b"%d" % (FIRST + n)))

    def _receive(self) -> None:
        try:
            data = self.line.recv(65536)
        except ssl.SSLWantReadError:
            return
        assert data, "the server closed the session that is measured"
        self.buffer += data
        for body in cut(self.buffer):
            n = (HEADER.unpack_from(body)[0] - 3) // 2
            assert data_of(body) == b"%d" % (FIRST + n), body
            self.found.append((self.due[n], time.perf_counter() - self.due[n]))


def probe(server: Contestant, seconds: float) -> None:
    one = Probe(server)
    announce()
    one.run(seconds)
    print(json.dumps(one.found), flush=True)


def idle(server: Contestant, count: float) -> None:
    announce()
    sys.stdin.readline()
    with idle_sockets(server, int(count)):
        print(int(count), flush=True)
        sys.stdin.read()


async def storm(server: Contestant, count: float) -> None:
    loop, context = asyncio.get_running_loop(), client_context(server)
    lines = [Line(GREETING) for _ in range(int(count))]
    announce()
    await loop.run_in_executor(None, sys.stdin.readline)
    begin = time.perf_counter()
    await asyncio.gather(
        *(loop.create_connection(lambda line=line: line, "127.0.0.1", server.port, ssl=context) for line in lines)
    )
    for line in lines:
        await line.ready
    print(json.dumps([begin, time.perf_counter()]), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    for line in lines:
        line.finish()
        line.transport.close()


class Endless(Line):
    """Draws one stream for ever, every byte compared with what it must be."""

    expected = sized(HEADER.pack(3, 0x0A << 10 | 0x20) + ITEM)
    pattern = expected * 8192
    at = granted = 0

    def begin(self) -> None:
        self.granted = CREDIT
        self.transport.write(request(3, REQUEST_STREAM, "bench.items", b'{"count":1000000000}', CREDIT))

    def data_received(self, data: bytes) -> None:
        if not self.granted:
            super().data_received(data)
            return
        offset = self.at % len(self.expected)
        if self.pattern[offset : offset + len(data)] != data:
            self.fail(f"wrong items: {data[:200]!r}")
        self.at += len(data)
        left = self.granted - self.at // len(self.expected)
        if left <= CREDIT // 2:
            self.granted += CREDIT - left
            self.transport.write(frame(3, REQUEST_N, (CREDIT - left).to_bytes(4, "big")))


async def streams(server: Contestant, count: float) -> None:
    lines = [Endless(GREETING) for _ in range(int(count))]
    async with connected(server, lines):
        for line in lines:
            line.begin()
        announce()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        for line in lines:
            assert not line.done.done() or line.done.exception() is None, line.done
    print(sum(line.at for line in lines) // len(Endless.expected), flush=True)


class Patient(Line):
    """Calls, and calls again a moment after the answer has come."""

    PAUSE = 0.05
    """Seconds: two hundred of these ask a few thousand calls a second, and leave a small machine room for others."""
    answered = 0
    at_work = True

    def begin(self) -> None:
        self.transport.write(request(2 * self.answered + 3, REQUEST_RESPONSE, "bench.echo", b"%d" % FIRST))

    def take(self, stream_id: int, kind: int, body: bytes) -> None:
        assert data_of(body) == b"%d" % FIRST, body
        self.answered += 1
        if self.at_work:
            asyncio.get_running_loop().call_later(self.PAUSE, self.begin)


async def callers(server: Contestant, count: float) -> None:
    lines = [Patient(GREETING) for _ in range(int(count))]
    async with connected(server, lines):
        for line in lines:
            line.begin()
        announce()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        for line in lines:
            line.at_work = False
            assert not line.done.done(), line.done
    print(sum(line.answered for line in lines), flush=True)


class App(Line):
    """A Flipper app that sends events, and asks how many were handled."""

    def __init__(self) -> None:
        super().__init__(GREETING, CLAIMS)
        self.next_id = 3
        self.waiting: asyncio.Future[bytes] | None = None

    def stream_id(self) -> int:
        self.next_id += 2
        return self.next_id

    def take(self, stream_id: int, kind: int, body: bytes) -> None:
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(data_of(body))

    async def ask(self, route: str, data: bytes = b"{}") -> bytes:
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request(self.stream_id(), REQUEST_RESPONSE, route, data))
        return await self.waiting

    async def handled(self, count: int) -> None:
        while json.loads(await self.ask("bench.noted"))["count"] < count:
            await asyncio.sleep(0.02)

    async def send(self, data: bytes) -> None:
        """A message in fragments, as fast as it is taken."""
        stream_id, kind = self.stream_id(), REQUEST_FNF
        for at in range(0, len(data), FRAGMENT):
            last = at + FRAGMENT >= len(data)
            flags = (0 if kind == REQUEST_FNF else NEXT) | (0 if last else FOLLOWS)
            self.transport.write(frame(stream_id, kind, data[at : at + FRAGMENT], flags))
            kind = PAYLOAD
            while self.transport.get_write_buffer_size() > 2 * FRAGMENT:
                await asyncio.sleep(0.001)


def swallow(params: bytes) -> bytes:
    return b'{"method":"execute","params":{"api":"bench","method":"swallow","params":' + params + b"}}"


def giants_of(size: int) -> dict[str, bytes]:
    """Events of one size, by what fills them."""
    row = b'{"id":12345,"url":"https://example.org/a","headers":{"a":"b","c":"d"},"body":"' + b"x" * 90 + b'"}'
    fill = {
        "one text": b'{"data":"' + b"A" * size + b'"}',
        "escapes": b'{"data":"' + b'\\n<x>\\"' * (size // 8) + b'"}',
        "rows": b'{"rows":[' + b",".join([row] * (size // len(row))) + b"]}",
        "numbers": b'{"n":[' + b",".join([b"1234567"] * (size // 8)) + b"]}",
        "names": b'{"n":{' + b",".join(b'"key%d":"%b"' % (n, b"v" * 90) for n in range(size // 105)) + b"}}",
    }
    return {name: swallow(params) for name, params in fill.items()}


async def giants(server: Contestant, size: float) -> None:
    line, took = App(), {}
    messages = giants_of(int(size))
    async with connected(server, [line], server.json_port):
        announce()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        for n, (name, message) in enumerate(messages.items(), 1):
            begin = time.perf_counter()
            await line.send(message)
            await line.handled(n)
            took[name] = [begin, time.perf_counter()]
        print(json.dumps(took), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def until_stdin_ends(step: Callable[[], Any], pause: float) -> None:
    over = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    due = time.perf_counter()
    while not over.done():
        step()
        due += pause
        await asyncio.sleep(max(0.0, due - time.perf_counter()))


async def flood(server: Contestant, rate: float) -> None:
    line, sent = App(), 0
    text = b'{"method":"execute","params":{"api":"bench","method":"note","params":{"n":1}}}'
    burst = max(1, int(rate / 200))

    def step() -> None:
        nonlocal sent
        line.transport.write(b"".join(frame(line.stream_id(), REQUEST_FNF, text) for _ in range(burst)))
        sent += burst

    async with connected(server, [line], server.json_port):
        announce()
        await until_stdin_ends(step, 1 / 200)
        await line.handled(sent)
    print(sent, flush=True)


class Misuser(App):
    refused = 0

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        for body in cut(self.buffer):
            stream_id, kind = HEADER.unpack_from(body)
            if stream_id == GREETING_ID:
                self._finish(self.ready)
            elif stream_id == 0 and kind >> 10 == ERROR:
                self.fail(f"the server ends the session: {body[10:300]!r}")
            else:
                self.refused += kind >> 10 == ERROR


async def misuse(server: Contestant, rate: float) -> None:
    line = Misuser()  # one only: a second one of the same app would take its place
    routes, number = ("bad.leak", "bad.hang", "bad.crash"), 0

    def step() -> None:
        nonlocal number
        number += 1
        route = routes[int(number / rate / MISUSE_TURN) % len(routes)]
        line.transport.write(request(line.stream_id(), REQUEST_RESPONSE, route, b"{}"))

    async with connected(server, [line]):
        announce()
        await until_stdin_ends(step, 1 / rate)
        assert not line.done.done(), line.done
    print(line.refused, flush=True)


def main() -> None:
    role, told, amount = sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3])
    told["secrets"] = Path(told["secrets"])
    server = Contestant(**told)
    if role == "probe":
        probe(server, amount)
        return
    os.nice(GENTLE)
    if role == "idle":
        idle(server, amount)
        return
    roles: dict[str, Callable[[Contestant, float], Any]] = {
        "storm": storm,
        "streams": streams,
        "callers": callers,
        "giants": giants,
        "flood": flood,
        "misuse": misuse,
    }
    asyncio.run(roles[role](server, amount))


if __name__ == "__main__":
    main()
