"""The load generator: raw frames, one connection, a fixed window of requests in flight, every answer checked."""

import asyncio
import ssl
import struct
import time
from pathlib import Path

import attrs

SETUP_MIMES = (b"message/x.rsocket.composite-metadata.v0", b"application/octet-stream")
REQUEST_RESPONSE = 0x04 << 10
PAYLOAD = 0x0A
METADATA = 0x100
HEADER = struct.Struct(">IH")


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + body


def setup_frame() -> bytes:
    mimes = b"".join(bytes([len(mime)]) + mime for mime in SETUP_MIMES)
    return frame(HEADER.pack(0, 0x01 << 10) + struct.pack(">HHII", 1, 0, 600_000, 0x7FFFFFFF) + mimes)


def routing(route: str) -> bytes:
    """Composite metadata with one routing entry (well-known MIME id 0x7E)."""
    tag = bytes([len(route)]) + route.encode()
    return bytes([0x80 | 0x7E]) + len(tag).to_bytes(3, "big") + tag


@attrs.frozen
class Call:
    """What is asked and what must come back."""

    route: str
    data: bytes
    answer: bytes

    def request(self, stream_id: int) -> bytes:
        metadata = routing(self.route)
        head = HEADER.pack(stream_id, REQUEST_RESPONSE | METADATA) + len(metadata).to_bytes(3, "big")
        return frame(head + metadata + self.data)


@attrs.frozen
class Outcome:
    """`rate` in operations a second, `cpu` in microseconds of server CPU per operation, `p50` in milliseconds."""

    rate: float
    cpu: float
    p50: float


class Generator(asyncio.Protocol):
    """Keeps `window` requests in flight until `total` answers have come back right."""

    def __init__(self, call: Call, window: int, total: int) -> None:
        self.call, self.window, self.total = call, window, total
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stream_id, self.answered, self.buffer = 1, 0, bytearray()
        self.sent_at: dict[int, float] = {}
        self.waits: list[float] = []
        self.template = call.request(0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(setup_frame() + b"".join(self.next_request() for _ in range(self.window)))

    def next_request(self) -> bytes:
        stream_id, self.stream_id = self.stream_id, self.stream_id + 2
        self.sent_at[stream_id] = time.perf_counter()
        return self.template[:3] + stream_id.to_bytes(4, "big") + self.template[7:]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        position, out = 0, []
        while len(self.buffer) - position >= 3:
            size = int.from_bytes(self.buffer[position : position + 3], "big")
            if len(self.buffer) - position < 3 + size:
                break
            if not self.check(bytes(self.buffer[position + 3 : position + 3 + size])):
                return
            position += 3 + size
            if self.answered + len(self.sent_at) < self.total:
                out.append(self.next_request())
        del self.buffer[:position]
        if self.answered >= self.total and not self.done.done():
            self.done.set_result(None)
        self.transport.write(b"".join(out))

    def check(self, body: bytes) -> bool:
        stream_id, kind = HEADER.unpack_from(body)
        skip = 9 + int.from_bytes(body[6:9], "big") if kind & METADATA else 6
        if kind >> 10 != PAYLOAD or body[skip:] != self.call.answer:
            self.done.set_exception(AssertionError(f"wrong answer on stream {stream_id}: {body[:200]!r}"))
            return False
        self.waits.append(time.perf_counter() - self.sent_at.pop(stream_id))
        self.answered += 1
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed the connection"))


def server_cpu(pid: int) -> float:
    """Seconds of CPU that a process has used, from /proc (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def client_context(credentials: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(credentials / "sonarCA.crt"))
    context.load_cert_chain(credentials / "device.crt", credentials / "privateKey.pem")
    return context


async def measure(port: int, pid: int, context: ssl.SSLContext, call: Call, window: int, total: int) -> Outcome:
    """One warm-up of a tenth, then `total` calls on a connection of their own."""
    loop = asyncio.get_running_loop()
    for amount in (max(window, total // 10), total):
        cpu, started = server_cpu(pid), time.perf_counter()
        transport, generator = await loop.create_connection(
            lambda amount=amount: Generator(call, window, amount), "127.0.0.1", port, ssl=context
        )
        await asyncio.wait_for(generator.done, 120)
        elapsed, used = time.perf_counter() - started, server_cpu(pid) - cpu
        transport.close()
    waits = sorted(generator.waits)
    return Outcome(total / elapsed, used / total * 1e6, waits[len(waits) // 2] * 1e3)
