"""Bytes by hand, from the specification and not from our engine, and a connection that a test can wait on.

The builders of plain frames are those of the end-to-end tests; here is what only a judge sends: every flag, every
type, wrong lengths.
"""

import json
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable

from tests.end_to_end.wire import (
    APPLICATION_ERROR,
    CANCEL,
    COMPLETE,
    COMPOSITE,
    CONNECTION_ERROR,
    ERROR,
    FOLLOWS,
    INVALID_SETUP,
    KEEPALIVE,
    METADATA,
    METADATA_PUSH,
    NEXT,
    PAYLOAD,
    REJECTED_SETUP,
    REQUEST_CHANNEL,
    REQUEST_FNF,
    REQUEST_N,
    REQUEST_RESPONSE,
    REQUEST_STREAM,
    RESPOND,
    SETUP,
    Frame,
    frame,
    keepalive,
    payload_data,
    request,
    routed,
)

__all__ = [
    "APPLICATION_ERROR",
    "CANCEL",
    "COMPLETE",
    "COMPOSITE",
    "CONNECTION_ERROR",
    "ERROR",
    "FOLLOWS",
    "INVALID_SETUP",
    "KEEPALIVE",
    "METADATA",
    "METADATA_PUSH",
    "NEXT",
    "PAYLOAD",
    "REJECTED_SETUP",
    "REQUEST_CHANNEL",
    "REQUEST_FNF",
    "REQUEST_N",
    "REQUEST_RESPONSE",
    "REQUEST_STREAM",
    "RESPOND",
    "SETUP",
    "Frame",
    "frame",
    "keepalive",
    "payload_data",
    "request",
    "routed",
]

RESERVED, LEASE, RESUME, RESUME_OK, EXT = 0x00, 0x02, 0x0D, 0x0E, 0x3F
IGNORE, RESUME_ENABLE, LEASE_ENABLE = 0x200, 0x80, 0x40
UNSUPPORTED_SETUP, REJECTED_RESUME, CONNECTION_CLOSE = 0x2, 0x4, 0x102
REJECTED, CANCELED, INVALID = 0x202, 0x203, 0x204
SETUP_CODES = {INVALID_SETUP, UNSUPPORTED_SETUP, REJECTED_SETUP}
STREAM_CODES = {APPLICATION_ERROR, REJECTED, CANCELED, INVALID}
MAX_31 = 0x7FFFFFFF
MAX_FRAME = 0xFFFFFF

REQUESTS = (REQUEST_RESPONSE, REQUEST_FNF, REQUEST_STREAM, REQUEST_CHANNEL)
WITH_CREDIT = (REQUEST_STREAM, REQUEST_CHANNEL)
KNOWN = {*range(SETUP, RESUME_OK + 1), EXT}

LONG_MS = 60_000
"""Keepalive interval and lifetime of a connection whose liveness is not the point."""


def setup(
    *,
    stream: int = 0,
    flags: int = 0,
    version: tuple[int, int] = (1, 0),
    keepalive_ms: int = LONG_MS,
    lifetime_ms: int = LONG_MS,
    token: bytes | None = None,
    metadata_mime: bytes = COMPOSITE,
    data_mime: bytes = b"application/octet-stream",
    metadata: bytes | None = None,
    data: bytes = b"",
) -> bytes:
    """A SETUP frame. With a `token` or `metadata` the flag that announces it is set."""
    body = struct.pack(">HHII", *version, keepalive_ms, lifetime_ms)
    if token is not None:
        flags |= RESUME_ENABLE
        body += struct.pack(">H", len(token)) + token
    for mime in (metadata_mime, data_mime):
        body += bytes([len(mime)]) + mime
    if metadata is not None:
        flags |= METADATA
        body += len(metadata).to_bytes(3, "big") + metadata
    return frame(stream, SETUP, flags, body + data)


def resume(token: bytes, received: int, available: int, *, stream: int = 0, version: tuple[int, int] = (1, 0)) -> bytes:
    """A RESUME frame: the last position received from the server, the first that the client still has."""
    body = struct.pack(">HHH", *version, len(token)) + token + struct.pack(">QQ", received, available)
    return frame(stream, RESUME, 0, body)


def lease(ttl_ms: int, requests: int, *, metadata: bytes = b"") -> bytes:
    return frame(0, LEASE, METADATA if metadata else 0, struct.pack(">II", ttl_ms, requests) + metadata)


def request_n(stream: int, n: int) -> bytes:
    return frame(stream, REQUEST_N, 0, struct.pack(">I", n))


def cancel(stream: int) -> bytes:
    return frame(stream, CANCEL)


def error(stream: int, code: int, text: bytes = b"by the test") -> bytes:
    return frame(stream, ERROR, 0, struct.pack(">I", code) + text)


def payload(
    stream: int, data: bytes = b"", metadata: bytes | None = None, *, flags: int = NEXT, follows: bool = False
) -> bytes:
    """A PAYLOAD; `flags` are its N and C."""
    flags |= FOLLOWS if follows else 0
    if metadata is None:
        return frame(stream, PAYLOAD, flags, data)
    return frame(stream, PAYLOAD, flags | METADATA, len(metadata).to_bytes(3, "big") + metadata + data)


def echo(stream: int, data: bytes = b"ping") -> bytes:
    """A request-response whose answer is `data`."""
    return request(REQUEST_RESPONSE, stream, data, routed("echo.request"))


def payload_metadata(answer: Frame) -> bytes | None:
    """The metadata of a PAYLOAD or request-response, None without the M flag."""
    if not answer.flags & METADATA:
        return None
    length = int.from_bytes(answer.body[:3], "big")
    return answer.body[3 : 3 + length]


def request_data(one: Frame) -> bytes:
    """The data of a REQUEST_RESPONSE or REQUEST_FNF."""
    if not one.flags & METADATA:
        return one.body
    return one.body[3 + int.from_bytes(one.body[:3], "big") :]


def number(one: Frame) -> int:
    """The request-n of a REQUEST_N frame, or the initial one of a stream or channel request."""
    found: int = struct.unpack(">I", one.body[:4])[0]
    return found


def code(one: Frame) -> int:
    """The code of an ERROR frame."""
    return one.error[0]


CONNECT_WITHIN = 10.0
"""Seconds for a connection and its TLS handshake, which the machine's other work may hold up."""


class Silence(AssertionError):
    """Something was due and did not come in time."""


class StillOpen(AssertionError):
    """The connection was to be closed and was not."""


class Peer:
    """A blocking connection that speaks frames. `wait` is how long the other side may take for anything, in seconds;
    `linger` how long it may take to send what it should not."""

    def __init__(self, raw: socket.socket, wait: float, linger: float) -> None:
        self.socket = raw
        self.wait = wait
        self.linger = linger
        self._buffer = bytearray()
        self._marks = 0
        self._ended = False

    @classmethod
    def connect(cls, host: str, port: int, context: ssl.SSLContext | None, wait: float, linger: float) -> "Peer":
        raw: socket.socket = socket.create_connection((host, port), CONNECT_WITHIN)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            try:
                raw = context.wrap_socket(raw, server_hostname="localhost")
            except BaseException:
                raw.close()
                raise
        return cls(raw, wait, linger)

    def close(self) -> None:
        self.socket.close()

    def send(self, *frames: bytes) -> None:
        """Raises ConnectionError when the other side has closed."""
        self.socket.settimeout(self.wait)
        self.socket.sendall(b"".join(frames))

    def try_to_send(self, *frames: bytes) -> bool:
        """False when the other side has had enough, or does not read."""
        try:
            self.send(*frames)
        except OSError:
            return False
        return True

    def next(self, within: float | None = None) -> Frame | None:
        """The next frame; None when the other side has closed. Raises Silence when nothing comes in time."""
        deadline = time.monotonic() + (self.wait if within is None else within)
        while (one := self._frame()) is None:
            if not self._fill(deadline):
                return None
        return one

    def expect(self, kind: int, stream: int) -> Frame:
        """The next frame, which must be of that type and stream."""
        one = self.next()
        assert one is not None, f"the connection was closed; a frame of type {kind:#x} was due on stream {stream}"
        assert (one.kind, one.stream) == (kind, stream), f"type {kind:#x} on stream {stream} was due, not {shown(one)}"
        return one

    def on_stream(self, stream: int) -> Frame:
        """The next frame of one stream, passing over those of others."""
        while True:
            one = self.next()
            assert one is not None, f"the connection was closed; a frame was due on stream {stream}"
            if one.stream == stream:
                return one

    def message(self, stream: int) -> tuple[bytes, bytes | None, int]:
        """The next payload of a stream, put together from its fragments: data, metadata, flags of the last frame."""
        data, metadata = bytearray(), None
        while True:
            one = self.on_stream(stream)
            assert one.kind == PAYLOAD, f"a payload was due on stream {stream}, not {shown(one)}"
            part = payload_metadata(one)
            if part is not None:
                metadata = (metadata or b"") + part
            data += payload_data(one)
            if not one.flags & FOLLOWS:
                return bytes(data), metadata, one.flags

    def settle(self) -> list[Frame]:
        """What has come once the other side has dealt with everything sent so far: up to the answer to a KEEPALIVE,
        and what comes in `linger` seconds after it."""
        self._marks += 1
        mark = f"settle {self._marks}".encode()
        self.send(keepalive(mark))
        found: list[Frame] = []
        while True:
            one = self.next()
            assert one is not None, f"the connection was closed; before that came {[shown(each) for each in found]}"
            if one.kind == KEEPALIVE and one.body[8:] == mark:
                break
            found.append(one)
        return found + self.leftover()

    def leftover(self, within: float | None = None) -> list[Frame]:
        """What comes in `linger` seconds."""
        deadline = time.monotonic() + (self.linger if within is None else within)
        found = []
        try:
            while (one := self.next(max(deadline - time.monotonic(), 0))) is not None:
                found.append(one)
        except Silence:
            pass
        return found

    def is_served(self, stream: int = 0x1001) -> None:
        """The connection still works: a request is answered."""
        self.send(echo(stream, b"alive"))
        one = self.on_stream(stream)
        assert one.kind == PAYLOAD, f"the connection was to go on, but a request got {shown(one)}"
        assert payload_data(one) == b"alive"

    def ends(self) -> list[Frame]:
        """The other side closes; what it said before. Raises StillOpen when it does not close in time."""
        deadline = time.monotonic() + self.wait
        found: list[Frame] = []
        while True:
            try:
                one = self.next(max(deadline - time.monotonic(), 0))
            except Silence:
                raise StillOpen(
                    f"still open after {self.wait:g} s; it said {[shown(each) for each in found]}"
                ) from None
            if one is None:
                return found
            found.append(one)

    def refusal(self) -> Frame:
        """The other side says no with one ERROR on stream 0 and closes."""
        found = self.ends()
        assert len(found) == 1, f"one ERROR and the end were due, not {[shown(one) for one in found]}"
        assert (found[0].kind, found[0].stream) == (ERROR, 0), f"an ERROR was due, not {shown(found[0])}"
        return found[0]

    def _frame(self) -> Frame | None:
        """Takes a whole frame out of what has come."""
        if len(self._buffer) < 3:
            return None
        length = int.from_bytes(self._buffer[:3], "big")
        if len(self._buffer) < 3 + length:
            return None
        assert length >= 6, f"a frame of {length} bytes has no header"
        content = bytes(self._buffer[3 : 3 + length])
        del self._buffer[: 3 + length]
        stream, word = struct.unpack(">IH", content[:6])
        return Frame(stream, word >> 10, word & 0x3FF, content[6:])

    def _fill(self, deadline: float) -> bool:
        """More bytes; False at the end of the connection. Raises Silence."""
        if self._ended:
            return False
        self.socket.settimeout(max(deadline - time.monotonic(), 0.0005))
        try:
            data = self.socket.recv(1 << 18)
        except TimeoutError:
            raise Silence("nothing came in time") from None
        except OSError:  # a reset, or TLS that ends without a word: closed is closed
            data = b""
        self._buffer += data
        self._ended = not data
        return not self._ended


def shown(one: Frame) -> str:
    """A frame for a message of failure."""
    said = f" {one.error[0]:#x} {one.error[1]!r}" if one.kind == ERROR and len(one.body) >= 4 else ""
    return f"(stream {one.stream}, type {one.kind:#x}, flags {one.flags:#x}, {len(one.body)} bytes{said})"


def of_stream(frames: Iterable[Frame], stream: int) -> list[Frame]:
    return [one for one in frames if one.stream == stream]


def until(condition: Callable[[], bool], wait: float) -> bool:
    """Whether it comes true within `wait` seconds, looked at every 10 ms."""
    deadline = time.monotonic() + wait
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def parsed(one: Frame) -> object:
    """The JSON in the data of a PAYLOAD."""
    return json.loads(payload_data(one))
