"""RSocket frames by hand, from the specification and not from our engine: what a stranger would send.

A stream of frames: 3 bytes of length, 4 of stream id, 6 bits of type, 10 of flags, then the body.
"""

import json
import socket
import ssl
import struct
from typing import NamedTuple

SETUP, KEEPALIVE, REQUEST_RESPONSE, REQUEST_FNF, REQUEST_STREAM = 0x01, 0x03, 0x04, 0x05, 0x06
REQUEST_CHANNEL, REQUEST_N, CANCEL, PAYLOAD, ERROR, METADATA_PUSH = 0x07, 0x08, 0x09, 0x0A, 0x0B, 0x0C
METADATA, FOLLOWS, RESPOND, COMPLETE, NEXT = 0x100, 0x80, 0x80, 0x40, 0x20

INVALID_SETUP, REJECTED_SETUP, CONNECTION_ERROR, APPLICATION_ERROR = 0x1, 0x3, 0x101, 0x201

NEVER_MS = 0x7FFFFFFF
COMPOSITE = b"message/x.rsocket.composite-metadata.v0"


class Frame(NamedTuple):
    stream: int
    kind: int
    flags: int
    body: bytes

    @property
    def error(self) -> tuple[int, str]:
        """(code, text) of an ERROR frame."""
        assert self.kind == ERROR, self
        return struct.unpack(">I", self.body[:4])[0], self.body[4:].decode()


def frame(stream: int, kind: int, flags: int = 0, body: bytes = b"") -> bytes:
    content = struct.pack(">IH", stream, kind << 10 | flags) + body
    return len(content).to_bytes(3, "big") + content


def setup(claims: object = None, mime: bytes = b"text/plain", *, keepalive_ms: int = 10_000) -> bytes:
    """A SETUP as Flipper's mobile SDK sends it; `claims` is written as JSON, bytes as they are, None as nothing.

    `mime` is that of the metadata: COMPOSITE for a client that routes its requests.
    """
    data = b"" if claims is None else claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    mimes = bytes([len(mime)]) + mime + b"\x0atext/plain"
    return frame(0, SETUP, 0, struct.pack(">HHII", 1, 0, keepalive_ms, NEVER_MS) + mimes + data)


def routed(route: str) -> bytes:
    """Composite metadata with one routing entry (its well-known id is 0x7E)."""
    tag = bytes([len(route)]) + route.encode()
    return b"\xfe" + len(tag).to_bytes(3, "big") + tag


def request(kind: int, stream: int, data: bytes, metadata: bytes | None = None, *, n: int | None = None) -> bytes:
    head = b"" if n is None else struct.pack(">I", n)
    if metadata is None:
        return frame(stream, kind, 0, head + data)
    return frame(stream, kind, METADATA, head + len(metadata).to_bytes(3, "big") + metadata + data)


def keepalive(data: bytes = b"") -> bytes:
    return frame(0, KEEPALIVE, RESPOND, bytes(8) + data)


def payload_data(answer: Frame) -> bytes:
    assert answer.kind == PAYLOAD, answer
    if not answer.flags & METADATA:
        return answer.body
    length = int.from_bytes(answer.body[:3], "big")
    return answer.body[3 + length :]


class Line:
    """A blocking connection that speaks frames. Everything received is kept in `received`."""

    def __init__(self, raw: socket.socket, timeout: float = 10.0) -> None:
        self.socket = raw
        self.socket.settimeout(timeout)
        self.received = bytearray()
        self._read = 0

    @classmethod
    def open(cls, port: int, context: ssl.SSLContext | None = None, timeout: float = 10.0) -> "Line":
        raw: socket.socket = socket.create_connection(("127.0.0.1", port), timeout)
        if context is not None:
            try:
                raw = context.wrap_socket(raw, server_hostname="localhost")
            except BaseException:
                raw.close()
                raise
        return cls(raw, timeout)

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(frames))

    def next(self) -> Frame | None:
        """The next frame, or None when the other side has closed the connection."""
        head = self._take(3)
        if head is None:
            return None
        content = self._take(int.from_bytes(head, "big"))
        if content is None:
            return None
        stream, word = struct.unpack(">IH", content[:6])
        return Frame(stream, word >> 10, word & 0x3FF, content[6:])

    def rest(self) -> list[Frame]:
        """All frames until the other side closes."""
        found = []
        while (one := self.next()) is not None:
            found.append(one)
        return found

    def answer(self, stream: int) -> Frame:
        """The next frame of one stream, passing over those of others."""
        while (one := self.next()) is not None:
            if one.stream == stream:
                return one
        raise AssertionError(f"the connection ended without an answer on stream {stream}")

    def _take(self, count: int) -> bytes | None:
        while len(self.received) - self._read < count:
            try:
                data = self.socket.recv(65536)
            except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
                data = b""
            if not data:
                return None
            self.received += data
        piece = bytes(self.received[self._read : self._read + count])
        self._read += count
        return piece
