"""Frames as bytes (RSocket 1.0, "Framing" and "Frame Types"): writers of whole frames and readers of frame bodies.

A writer returns the frame with its 24-bit length in front, as every stream transport needs it. A reader is given
the buffer and the bounds of the body (what follows the six bytes of the frame header), so that nothing is copied
before it is known to be wanted. Readers raise ProtocolViolation with the code that the specification asks for.
"""

import struct
from typing import Final

import attrs

from rsocket_broker.errors import ProtocolViolation
from rsocket_broker.protocol.codes import (
    LEASE,
    MAJOR_VERSION,
    MAX_31,
    METADATA,
    MINOR_VERSION,
    RESPOND,
    RESUME,
    TYPE_SHIFT,
    ErrorCode,
    FrameType,
)
from rsocket_broker.protocol.events import SetupReceived
from rsocket_broker.protocol.limits import MAX_FRAME

PREFIX: Final = 3
"""Bytes of the length field in front of each frame."""
HEADER: Final = 6
"""Bytes of stream id, type and flags, which start each frame."""
LARGEST_MIME: Final = 255
LARGEST_INTERVAL: Final = MAX_31

Octets = bytes | bytearray
"""What may be sent. What is received is always bytes."""

_START: Final = struct.Struct("!BHIH")
_NUMBER: Final = struct.Struct("!I")
_LENGTH: Final = struct.Struct("!BH")
_SETUP: Final = struct.Struct("!HHII")
_POSITION: Final = bytes(8)
"""The resume position of a KEEPALIVE: all zeros where resumption is not in use."""

read_start = _START.unpack_from
"""(buffer, offset) -> length high, length low, stream id, type and flags. Needs nine bytes."""


pack_start = _START.pack
"""length high, length low, stream id, type and flags -> the nine bytes in front of a body."""


def frame(stream_id: int, kind: int, body: Octets) -> bytes:
    """One frame; `kind` is the type shifted up, with the flags."""
    size = HEADER + len(body)
    return _START.pack(size >> 16, size & 0xFFFF, stream_id, kind) + body


def start(size: int, stream_id: int, kind: int) -> bytes:
    """The nine bytes in front of a body, for a frame of `size` bytes."""
    return _START.pack(size >> 16, size & 0xFFFF, stream_id, kind)


def _mime(value: str) -> bytes:
    text = value.encode("ascii")
    return bytes((len(text),)) + text


def _is_mime(_: object, field: "attrs.Attribute[str]", value: str) -> None:
    if not value.isascii() or len(value) > LARGEST_MIME:
        raise ValueError(f"{field.name} is ASCII text of at most {LARGEST_MIME} characters")


def _is_interval(_: object, field: "attrs.Attribute[int]", value: int) -> None:
    if not 0 < value <= LARGEST_INTERVAL:
        raise ValueError(f"{field.name} is between 1 and {LARGEST_INTERVAL} ms")


@attrs.frozen(slots=True, kw_only=True)
class Setup:
    """What a client says first. Times in milliseconds; MIME types as text, for the whole connection."""

    keepalive_ms: int = attrs.field(default=20_000, validator=_is_interval)
    lifetime_ms: int = attrs.field(default=90_000, validator=_is_interval)
    metadata_mime: str = attrs.field(default="message/x.rsocket.composite-metadata.v0", validator=_is_mime)
    data_mime: str = attrs.field(default="application/json", validator=_is_mime)
    data: bytes = attrs.field(default=b"", repr=False)
    metadata: bytes | None = attrs.field(default=None, repr=False)


def setup(value: Setup) -> bytes:
    """SETUP without resumption and without leases. Raises ValueError when it does not fit into one frame."""
    fixed = _SETUP.pack(MAJOR_VERSION, MINOR_VERSION, value.keepalive_ms, value.lifetime_ms)
    body = fixed + _mime(value.metadata_mime) + _mime(value.data_mime) + joined(value.metadata, value.data)
    flags = 0 if value.metadata is None else METADATA
    if HEADER + len(body) > MAX_FRAME:
        raise ValueError("the setup payload does not fit into one frame, and a SETUP cannot be fragmented")
    return frame(0, FrameType.SETUP << TYPE_SHIFT | flags, body)


def keepalive(data: bytes, *, respond: bool) -> bytes:
    return frame(0, FrameType.KEEPALIVE << TYPE_SHIFT | (RESPOND if respond else 0), _POSITION + data)


def request_n(stream_id: int, n: int) -> bytes:
    return frame(stream_id, FrameType.REQUEST_N << TYPE_SHIFT, _NUMBER.pack(n))


def cancel(stream_id: int) -> bytes:
    return frame(stream_id, FrameType.CANCEL << TYPE_SHIFT, b"")


def error(stream_id: int, code: int, text: str, limit: int) -> bytes:
    """ERROR with at most `limit` bytes of text, never cut inside a character."""
    shown = text.encode("utf-8", "replace")
    if len(shown) > limit:
        shown = shown[:limit].decode("utf-8", "ignore").encode()
    return frame(stream_id, FrameType.ERROR << TYPE_SHIFT, _NUMBER.pack(code) + shown)


def metadata_push(metadata: Octets) -> bytes:
    return frame(0, FrameType.METADATA_PUSH << TYPE_SHIFT | METADATA, metadata)


def number(value: int) -> bytes:
    """The initial request-n in front of the payload of a stream or channel request."""
    return _NUMBER.pack(value)


def joined(metadata: Octets | None, data: Octets) -> Octets:
    """Metadata (with its length, unless absent) and data, as they stand in frames that may carry both."""
    if metadata is None:
        return data
    size = len(metadata)
    return _LENGTH.pack(size >> 16, size & 0xFFFF) + metadata + data


def split(buffer: bytes, begin: int, end: int) -> tuple[bytes, bytes]:
    """Metadata and data of a body whose M flag is set. Raises ProtocolViolation when the length does not fit."""
    body = begin + PREFIX
    if body > end:
        raise ProtocolViolation("a frame ends inside its metadata length")
    high, low = _LENGTH.unpack_from(buffer, begin)
    data = body + (high << 16 | low)
    if data > end:
        raise ProtocolViolation("metadata is longer than its frame")
    return buffer[body:data], buffer[data:end]


def read_number(buffer: bytes, begin: int, end: int) -> int:
    """A request-n: 31 bits, the reserved one ignored. 0 is returned as it is: who asks decides what that means."""
    if begin + 4 > end:
        raise ProtocolViolation("a frame ends inside its request-n")
    value: int = _NUMBER.unpack_from(buffer, begin)[0]
    return value & MAX_31


def read_error(buffer: bytes, begin: int, end: int, limit: int) -> tuple[int, str]:
    """Code and text; at most `limit` bytes of the text are kept, and bytes that are not UTF-8 are replaced."""
    if begin + 4 > end:
        raise ProtocolViolation("an ERROR frame ends inside its code")
    code: int = _NUMBER.unpack_from(buffer, begin)[0]
    return code, buffer[begin + 4 : min(end, begin + 4 + limit)].decode("utf-8", "replace")


def read_keepalive(buffer: bytes, begin: int, end: int) -> bytes:
    """The data of a KEEPALIVE, which an answer gives back."""
    if begin + len(_POSITION) > end:
        raise ProtocolViolation("a KEEPALIVE frame ends inside its position")
    return buffer[begin + len(_POSITION) : end]


def read_setup(buffer: bytes, begin: int, end: int, flags: int) -> SetupReceived:
    """A SETUP that this engine can serve.

    Raises ProtocolViolation: UNSUPPORTED_SETUP for another major version or a lease, REJECTED_SETUP for resumption
    (the specification wants that code where a server cannot resume), INVALID_SETUP for what cannot be read.
    """
    try:
        major, _minor, interval, lifetime = _SETUP.unpack_from(buffer[begin:end])
    except struct.error as problem:
        raise _invalid("ends before its first MIME type") from problem
    if major != MAJOR_VERSION:
        raise ProtocolViolation(f"version {major} of RSocket is not served, only 1.0", ErrorCode.UNSUPPORTED_SETUP)
    if flags & RESUME:
        raise ProtocolViolation("resumption is not supported", ErrorCode.REJECTED_SETUP)
    if flags & LEASE:
        raise ProtocolViolation("leases are not supported", ErrorCode.UNSUPPORTED_SETUP)
    if not 0 < interval <= LARGEST_INTERVAL or not 0 < lifetime <= LARGEST_INTERVAL:
        raise _invalid("has a keepalive interval or lifetime of 0 or of more than 31 bits")
    metadata_mime, at = _read_mime(buffer, begin + _SETUP.size, end)
    data_mime, at = _read_mime(buffer, at, end)
    metadata, data = _setup_payload(buffer, at, end, flags)
    return SetupReceived(interval, lifetime, metadata_mime, data_mime, data, metadata)


def _read_mime(buffer: bytes, at: int, end: int) -> tuple[str, int]:
    if at >= end or at + 1 + buffer[at] > end:
        raise _invalid("ends inside a MIME type")
    after = at + 1 + buffer[at]
    try:
        return buffer[at + 1 : after].decode("ascii"), after
    except UnicodeDecodeError as problem:
        raise _invalid("has a MIME type that is not ASCII") from problem


def _setup_payload(buffer: bytes, at: int, end: int, flags: int) -> tuple[bytes | None, bytes]:
    if not flags & METADATA:
        return None, buffer[at:end]
    try:
        return split(buffer, at, end)
    except ProtocolViolation as problem:
        raise _invalid("has metadata that does not fit") from problem


def _invalid(what: str) -> ProtocolViolation:
    return ProtocolViolation(f"the SETUP frame {what}", ErrorCode.INVALID_SETUP)
