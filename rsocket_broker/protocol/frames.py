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
from rsocket_broker.protocol.events import ResumeReceived, SetupReceived
from rsocket_broker.protocol.limits import MAX_FRAME
from rsocket_broker.protocol.starts import HEADER as HEADER
from rsocket_broker.protocol.starts import PREFIX as PREFIX
from rsocket_broker.protocol.starts import pack_start as pack_start
from rsocket_broker.protocol.starts import read_start as read_start

LARGEST_MIME: Final = 255
LARGEST_INTERVAL: Final = MAX_31
LARGEST_TOKEN: Final = 0xFFFF

Octets = bytes | bytearray
"""What may be sent. What is received is always bytes."""

_NUMBER: Final = struct.Struct("!I")
_LENGTH: Final = struct.Struct("!BH")
_SETUP: Final = struct.Struct("!HHII")
_SHORT: Final = struct.Struct("!H")
_POSITION: Final = struct.Struct("!Q")
_POSITIONS: Final = struct.Struct("!QQ")
_VERSION: Final = struct.Struct("!HH")
_LEASE: Final = struct.Struct("!II")
_MAX_63: Final = (1 << 63) - 1


def frame(stream_id: int, kind: int, body: Octets) -> bytes:
    """One frame; `kind` is the type shifted up, with the flags."""
    size = HEADER + len(body)
    return pack_start(size >> 16, size & 0xFFFF, stream_id, kind) + body


def start(size: int, stream_id: int, kind: int) -> bytes:
    """The nine bytes in front of a body, for a frame of `size` bytes."""
    return pack_start(size >> 16, size & 0xFFFF, stream_id, kind)


def _mime(value: str) -> bytes:
    text = value.encode("ascii")
    return bytes((len(text),)) + text


def _is_mime(_: object, field: "attrs.Attribute[str]", value: str) -> None:
    if not value.isascii() or len(value) > LARGEST_MIME:
        raise ValueError(f"{field.name} is ASCII text of at most {LARGEST_MIME} characters")


def _is_interval(_: object, field: "attrs.Attribute[int]", value: int) -> None:
    if not 0 < value <= LARGEST_INTERVAL:
        raise ValueError(f"{field.name} is between 1 and {LARGEST_INTERVAL} ms")


def _is_token(_: object, field: "attrs.Attribute[bytes | None]", value: bytes | None) -> None:
    if value is not None and not 0 < len(value) <= LARGEST_TOKEN:
        raise ValueError(f"{field.name} has 1 to {LARGEST_TOKEN} bytes")


@attrs.frozen(slots=True, kw_only=True)
class Setup:
    """What a client says first. Times in milliseconds; MIME types as text, for the whole connection.

    `lease`: each side asks only as much as the other lets it. `resume_token`: bytes that nobody can guess, never used
    before, with which the connection can be resumed; None for one that ends with its line.
    """

    keepalive_ms: int = attrs.field(default=20_000, validator=_is_interval)
    lifetime_ms: int = attrs.field(default=90_000, validator=_is_interval)
    metadata_mime: str = attrs.field(default="message/x.rsocket.composite-metadata.v0", validator=_is_mime)
    data_mime: str = attrs.field(default="application/json", validator=_is_mime)
    data: bytes = attrs.field(default=b"", repr=False)
    metadata: bytes | None = attrs.field(default=None, repr=False)
    lease: bool = False
    resume_token: bytes | None = attrs.field(default=None, repr=False, validator=_is_token)


def setup(value: Setup) -> bytes:
    """SETUP. Raises ValueError when it does not fit into one frame."""
    body = _SETUP.pack(MAJOR_VERSION, MINOR_VERSION, value.keepalive_ms, value.lifetime_ms)
    flags = (0 if value.metadata is None else METADATA) | (LEASE if value.lease else 0)
    if value.resume_token is not None:
        flags |= RESUME
        body += _token(value.resume_token)
    body += _mime(value.metadata_mime) + _mime(value.data_mime) + joined(value.metadata, value.data)
    if HEADER + len(body) > MAX_FRAME:
        raise ValueError("the setup payload does not fit into one frame, and a SETUP cannot be fragmented")
    return frame(0, FrameType.SETUP << TYPE_SHIFT | flags, body)


def _token(token: bytes) -> bytes:
    return _SHORT.pack(len(token)) + token


def resume(token: bytes, received: int, available: int) -> bytes:
    """RESUME: we have received everything before one position, and can send again all from the other on."""
    body = _VERSION.pack(MAJOR_VERSION, MINOR_VERSION) + _token(token) + _POSITIONS.pack(received, available)
    return frame(0, FrameType.RESUME << TYPE_SHIFT, body)


def resume_ok(received: int) -> bytes:
    return frame(0, FrameType.RESUME_OK << TYPE_SHIFT, _POSITION.pack(received))


def lease(ttl_ms: int, number: int) -> bytes:
    """LEASE: the peer may send `number` requests within `ttl_ms`."""
    return frame(0, FrameType.LEASE << TYPE_SHIFT, _LEASE.pack(ttl_ms, number))


def keepalive(data: bytes, *, respond: bool, position: int = 0) -> bytes:
    """KEEPALIVE. `position` is how far we have received; 0 where resumption is not in use."""
    kind = FrameType.KEEPALIVE << TYPE_SHIFT | (RESPOND if respond else 0)
    return frame(0, kind, _POSITION.pack(position) + data)


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


def read_keepalive(buffer: bytes, begin: int, end: int) -> tuple[int, bytes]:
    """The position of a KEEPALIVE, and its data, which an answer gives back."""
    if begin + _POSITION.size > end:
        raise ProtocolViolation("a KEEPALIVE frame ends inside its position")
    return read_position(buffer, begin, end), buffer[begin + _POSITION.size : end]


def read_position(buffer: bytes, begin: int, end: int) -> int:
    """The position of a RESUME_OK: 63 bits, the reserved one ignored."""
    if begin + _POSITION.size > end:
        raise ProtocolViolation("a RESUME_OK frame ends inside its position")
    position: int = _POSITION.unpack_from(buffer, begin)[0]
    return position & _MAX_63


def read_lease(buffer: bytes, begin: int, end: int) -> tuple[int, int]:
    """Time to live in ms and number of requests; 0 for either means: no request at all."""
    if begin + _LEASE.size > end:
        raise ProtocolViolation("a LEASE frame ends inside its numbers")
    ttl_ms, number = _LEASE.unpack_from(buffer, begin)
    return ttl_ms & MAX_31, number & MAX_31


def read_resume(buffer: bytes, begin: int, end: int) -> ResumeReceived:
    """Raises ProtocolViolation: REJECTED_RESUME for another major version, CONNECTION_ERROR for what cannot be read."""
    try:
        major, _minor = _VERSION.unpack_from(buffer[begin:end])
        token, at = _read_token(buffer, begin + _VERSION.size, end)
        received, available = _POSITIONS.unpack_from(buffer[at:end])
    except struct.error as problem:
        raise ProtocolViolation("the RESUME frame is too short") from problem
    if major != MAJOR_VERSION:
        raise ProtocolViolation(f"version {major} of RSocket is not served, only 1.0", ErrorCode.REJECTED_RESUME)
    return ResumeReceived(token, received & _MAX_63, available & _MAX_63)


def _read_token(buffer: bytes, at: int, end: int) -> tuple[bytes, int]:
    """A token, and where it ends. Raises struct.error when it does not fit."""
    after = at + _SHORT.size + _SHORT.unpack_from(buffer[at:end])[0]
    if after > end:
        raise struct.error("a token longer than its frame")
    return buffer[at + _SHORT.size : after], after


def read_setup(buffer: bytes, begin: int, end: int, flags: int) -> SetupReceived:
    """A SETUP that this engine can serve.

    Raises ProtocolViolation: UNSUPPORTED_SETUP for another major version, INVALID_SETUP for what cannot be read.
    """
    try:
        major, _minor, interval, lifetime = _SETUP.unpack_from(buffer[begin:end])
    except struct.error as problem:
        raise _invalid("ends before its first MIME type") from problem
    if major != MAJOR_VERSION:
        raise ProtocolViolation(f"version {major} of RSocket is not served, only 1.0", ErrorCode.UNSUPPORTED_SETUP)
    if not 0 < interval <= LARGEST_INTERVAL or not 0 < lifetime <= LARGEST_INTERVAL:
        raise _invalid("has a keepalive interval or lifetime of 0 or of more than 31 bits")
    token, at = None, begin + _SETUP.size
    if flags & RESUME:
        token, at = _read_setup_token(buffer, at, end)
    metadata_mime, at = _read_mime(buffer, at, end)
    data_mime, at = _read_mime(buffer, at, end)
    metadata, data = _setup_payload(buffer, at, end, flags)
    return SetupReceived(interval, lifetime, metadata_mime, data_mime, data, metadata, bool(flags & LEASE), token)


def _read_setup_token(buffer: bytes, at: int, end: int) -> tuple[bytes, int]:
    try:
        token, after = _read_token(buffer, at, end)
    except struct.error as problem:
        raise _invalid("ends inside its resume token") from problem
    if not token:
        raise _invalid("has an empty resume token")
    return token, after


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
