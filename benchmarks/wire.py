"""RSocket frames as bytes: what the generators send and expect, and all that the floor knows of the protocol."""

import json
import struct
from collections.abc import Mapping

SETUP, LEASE, KEEPALIVE, REQUEST_RESPONSE, REQUEST_FNF, REQUEST_STREAM = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
REQUEST_N, CANCEL, PAYLOAD, ERROR = 0x08, 0x09, 0x0A, 0x0B
METADATA, FOLLOWS, COMPLETE, NEXT = 0x100, 0x80, 0x40, 0x20
WHOLE = (PAYLOAD << 10) | NEXT | COMPLETE
ITEM = (PAYLOAD << 10) | NEXT
LAST = (PAYLOAD << 10) | COMPLETE

HEADER = struct.Struct(">IH")
SIZED_HEADER = struct.Struct(">BHIH")
"""The length in front of a frame (24 bits, as 8 and 16) and the header behind it, in one go."""

MIMES = (b"message/x.rsocket.composite-metadata.v0", b"application/octet-stream")
KEEPALIVE_MS = 600_000
LIFETIME_MS = 1_000_000_000
"""No keepalive is due within a round. Node's timers take no more than 31 bits."""

FIRST = 1_000_000
"""Numbers in messages begin here: seven digits each, so that all messages of a kind are equally long."""


def sized(body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + body


def frame(stream_id: int, kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    return sized(HEADER.pack(stream_id, (kind << 10) | flags) + body)


def setup(claims: Mapping[str, object] | None = None) -> bytes:
    """The SETUP of a client with composite metadata; `claims` as JSON are its data."""
    mimes = b"".join(bytes([len(mime)]) + mime for mime in MIMES)
    data = json.dumps(claims).encode() if claims else b""
    return frame(0, SETUP, struct.pack(">HHII", 1, 0, KEEPALIVE_MS, LIFETIME_MS) + mimes + data)


def routing(route: str) -> bytes:
    """Composite metadata with one routing entry (well-known MIME id 0x7E)."""
    tag = bytes([len(route)]) + route.encode()
    return bytes([0x80 | 0x7E]) + len(tag).to_bytes(3, "big") + tag


def request(stream_id: int, kind: int, route: str | None, data: bytes, credit: int | None = None) -> bytes:
    """A request frame; `credit` is the initial request-n of a stream."""
    head = b"" if credit is None else credit.to_bytes(4, "big")
    if route is None:
        return frame(stream_id, kind, head + data)
    metadata = routing(route)
    return frame(stream_id, kind, head + len(metadata).to_bytes(3, "big") + metadata + data, METADATA)


GREETING_ID = 1
GREETING = request(GREETING_ID, REQUEST_RESPONSE, "bench.echo", b"hello")
GREETING_ANSWER = frame(GREETING_ID, PAYLOAD, b"hello", NEXT | COMPLETE)
"""A call that every contestant answers on its port for opaque bytes, and the only answer to it."""


def cut(buffer: bytearray) -> list[bytes]:
    """Take the whole frames (without their lengths) out of the front of `buffer`."""
    frames, at, end = [], 0, len(buffer)
    while end - at >= 3:
        size = int.from_bytes(buffer[at : at + 3], "big")
        if end - at < 3 + size:
            break
        frames.append(bytes(buffer[at + 3 : at + 3 + size]))
        at += 3 + size
    del buffer[:at]
    return frames


def data_of(body: bytes) -> bytes:
    """The data of a PAYLOAD or request-response frame, behind whatever metadata it has."""
    flags = HEADER.unpack_from(body)[1]
    return body[9 + int.from_bytes(body[6:9], "big") :] if flags & METADATA else body[6:]
