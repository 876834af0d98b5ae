"""What a trace tells of one frame: its numbers, and of its metadata what is no secret. `trace.py` makes lines of it.

Metadata is read whole or not at all, and what does not look like a MIME type is never told: half a token must not pass
for the name of something.
"""

import json
import re
import struct
from collections.abc import Callable, Iterator
from typing import Final

import attrs

from rsocket_broker.errors import Invalid
from rsocket_broker.jsontext import JsonError, parse_object
from rsocket_broker.protocol.codes import (
    COMPLETE,
    CONNECTION_CLOSE,
    FOLLOWS,
    IGNORE,
    LEASE,
    MAX_31,
    METADATA,
    NEXT,
    RESPOND,
    RESUME,
    ErrorCode,
    FrameType,
)
from rsocket_broker.protocol.frames import HEADER
from rsocket_broker.protocol.metadata import (
    ACCEPTED_MIMES,
    AUTHENTICATION,
    COMPOSITE,
    DATA_MIME,
    ROUTING,
    WELL_KNOWN,
    Entry,
    parse_composite,
    parse_mimes,
    parse_tags,
)

KEPT: Final = 16 * 1024
"""Bytes of a frame that are looked at, whatever its size: more than the metadata of any client that we know."""
TEXT: Final = 200
"""Characters of a route or an error text that a line shows."""
MANY: Final = 16
"""Metadata entries, tags, MIME types or claims of one frame that a line shows."""
TRACEPARENT: Final = "traceparent"
ZIPKIN: Final = WELL_KNOWN[0x7D]
HARMLESS: Final = frozenset({"app", "app_id", "device", "device_id", "medium", "os", "sdk_version"})
"""The claims of a SETUP that are shown with their values."""

_MIME: Final = re.compile(r"[A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+")
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*", re.DOTALL)
_AUTH: Final = {0x80: "simple", 0x81: "bearer"}
_ZIPKIN_IDS: Final = 0x80
_ZIPKIN_LONG: Final = 0x08

_NUMBER: Final = struct.Struct("!I")
_POSITION: Final = struct.Struct("!Q")
_VERSION: Final = struct.Struct("!HH")
_TIMES: Final = struct.Struct("!II")
_SHORT: Final = struct.Struct("!H")
_BYTE: Final = struct.Struct("!B")
_LENGTH: Final = struct.Struct("!BH")

_FLAGS: Final = (
    (IGNORE, "IGNORE"),
    (METADATA, "METADATA"),
    (FOLLOWS, "FOLLOWS"),
    (COMPLETE, "COMPLETE"),
    (NEXT, "NEXT"),
)
_FLAGS_OF: Final[dict[int, tuple[tuple[int, str], ...]]] = {
    FrameType.SETUP: (*_FLAGS[:2], (RESUME, "RESUME"), (LEASE, "LEASE")),
    FrameType.KEEPALIVE: (_FLAGS[0], (RESPOND, "RESPOND")),
}


class Short(Exception):
    """The frame ends before what is wanted of it."""


@attrs.define(slots=True)
class Frame:
    """`kept` is the beginning of the frame, of `length` bytes in all. `mime` is the type of its metadata."""

    kept: bytes
    length: int
    flags: int
    stream_id: int
    mime: str
    at: int = HEADER

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        """The next numbers. Raises struct.error when the frame ends before them."""
        found = layout.unpack_from(self.kept, self.at)
        self.at += layout.size
        return found

    def skip(self, size: int) -> bytes:
        """The next bytes, as far as they were kept. Raises Short when the frame ends before them."""
        begin, self.at = self.at, self.at + size
        if self.at > self.length:
            raise Short
        return self.kept[begin : self.at]

    @property
    def rest(self) -> int:
        """Bytes that are left."""
        return self.length - self.at


def describe(kind: int, frame: Frame) -> list[str]:
    """Name, stream, flags, size and what follows from them, as far as the frame can be read."""
    words = [
        _name(kind),
        f"stream={frame.stream_id}",
        f"flags={_flag_names(kind, frame.flags)}",
        f"size={frame.length}",
    ]
    try:
        words.extend(_WORDS.get(kind, _nothing)(frame))  # what was read before it turns out malformed is told
    except (struct.error, Invalid, Short):
        cut = frame.length > KEPT or (kind not in _FLAGS_OF and frame.flags & FOLLOWS)
        words.append("..." if cut else "malformed")
    return words


def _name(kind: int) -> str:
    try:
        return FrameType(kind).name
    except ValueError:
        return f"TYPE_{kind:#04x}"


def _flag_names(kind: int, flags: int) -> str:
    known = _FLAGS_OF.get(kind, _FLAGS)
    names = [name for bit, name in known if flags & bit]
    rest = flags & ~sum(bit for bit, _ in known)
    return "|".join([*names, f"{rest:#x}"] if rest else names) or "-"


def _quoted(text: str) -> str:
    """As a JSON string of ASCII, cut short."""
    return json.dumps(text if len(text) <= TEXT else text[:TEXT] + "...")


# ---- frame by frame: what follows the header, as words ---------------------------------------------------------------


def _nothing(frame: Frame) -> Iterator[str]:
    yield f"data={frame.rest}"


def _payload(frame: Frame) -> Iterator[str]:
    if frame.flags & METADATA:
        high, low = frame.take(_LENGTH)
        size = high << 16 | low
        yield f"metadata={size}"
        metadata = frame.skip(size)
        yield f"data={frame.rest}"
        if len(metadata) == size:
            yield from _metadata(metadata, frame.mime)
    else:
        yield f"data={frame.rest}"


def _with_credit(frame: Frame) -> Iterator[str]:
    yield f"n={frame.take(_NUMBER)[0] & MAX_31}"
    yield from _payload(frame)


def _request_n(frame: Frame) -> Iterator[str]:
    yield f"n={frame.take(_NUMBER)[0] & MAX_31}"


def _error(frame: Frame) -> Iterator[str]:
    """What failed on a stream is an app's own words; what ends a connection is an engine's, and says why."""
    code = frame.take(_NUMBER)[0]
    yield f"code={_CODES.get(code, f'{code:#x}')}"
    if frame.stream_id:
        yield f"text={frame.rest}"
    else:
        yield f"text={_quoted(frame.skip(frame.rest)[: 4 * TEXT].decode('utf-8', 'replace'))}"


def _setup(frame: Frame) -> Iterator[str]:
    major, minor = frame.take(_VERSION)
    keepalive, lifetime = frame.take(_TIMES)
    yield f"version={major}.{minor} keepalive={keepalive}ms lifetime={lifetime}ms"
    if frame.flags & RESUME:
        yield _token(frame)
    frame.mime = _setup_mime(frame)
    yield f"metadata-mime={_shown(frame.mime)}"
    yield f"data-mime={_shown(_setup_mime(frame))}"
    yield from _payload(frame)
    if frame.rest:
        yield from _claims(frame.skip(frame.rest))


def _setup_mime(frame: Frame) -> str:
    return frame.skip(frame.take(_BYTE)[0]).decode("ascii", "replace")


def _shown(mime: str) -> str:
    """What does not look like a type may be part of something else, in a frame that is damaged."""
    return mime if _MIME.fullmatch(mime) else f"other:{len(mime)}"


def _token(frame: Frame) -> str:
    size = frame.take(_SHORT)[0]
    frame.skip(size)
    return f"token=hidden:{size}"


def _claims(data: bytes) -> Iterator[str]:
    """The names of what a client says of itself; the values of what everybody may know."""
    try:
        claims = parse_object(data)
    except JsonError:
        return
    shown = []
    for name, value in list(claims.items())[:MANY]:
        harmless = name in HARMLESS and isinstance(value, str | int)
        shown.append(f"{_quoted(name)}:{_quoted(str(value))}" if harmless else _quoted(name))
    yield f"claims={{{','.join(shown)}}}"


def _keepalive(frame: Frame) -> Iterator[str]:
    yield f"position={frame.take(_POSITION)[0]}"
    yield f"data={frame.rest}"


def _lease(frame: Frame) -> Iterator[str]:
    ttl, n = frame.take(_TIMES)
    yield f"ttl={ttl}ms n={n}"
    if frame.flags & METADATA:
        yield f"metadata={frame.rest}"


def _resume(frame: Frame) -> Iterator[str]:
    major, minor = frame.take(_VERSION)
    yield f"version={major}.{minor}"
    yield _token(frame)
    yield f"server-position={frame.take(_POSITION)[0]}"
    yield f"client-position={frame.take(_POSITION)[0]}"


def _resume_ok(frame: Frame) -> Iterator[str]:
    yield f"client-position={frame.take(_POSITION)[0]}"


def _metadata_push(frame: Frame) -> Iterator[str]:
    size = frame.rest
    yield f"metadata={size}"
    if size <= KEPT - HEADER:
        yield from _metadata(frame.skip(size), frame.mime)


def _ext(frame: Frame) -> Iterator[str]:
    yield f"extended-type={frame.take(_NUMBER)[0]:#x}"
    yield f"data={frame.rest}"


_CODES: Final = {int(code): code.name for code in ErrorCode} | {CONNECTION_CLOSE: "CONNECTION_CLOSE"}
_WORDS: Final[dict[int, Callable[[Frame], Iterator[str]]]] = {
    FrameType.SETUP: _setup,
    FrameType.LEASE: _lease,
    FrameType.KEEPALIVE: _keepalive,
    FrameType.REQUEST_RESPONSE: _payload,
    FrameType.REQUEST_FNF: _payload,
    FrameType.REQUEST_STREAM: _with_credit,
    FrameType.REQUEST_CHANNEL: _with_credit,
    FrameType.REQUEST_N: _request_n,
    FrameType.CANCEL: lambda frame: iter(()),
    FrameType.PAYLOAD: _payload,
    FrameType.ERROR: _error,
    FrameType.METADATA_PUSH: _metadata_push,
    FrameType.RESUME: _resume,
    FrameType.RESUME_OK: _resume_ok,
    FrameType.EXT: _ext,
}


# ---- metadata --------------------------------------------------------------------------------------------------------


def _metadata(metadata: bytes, mime: str) -> Iterator[str]:
    """Nothing is told before all of it was read well: half a token must not pass for the name of a type."""
    if mime == COMPOSITE:
        entries = parse_composite(metadata)
        yield from map(_entry, entries[:MANY])
        if len(entries) > MANY:
            yield "..."
    elif mime == ROUTING:
        yield _routes(metadata)


def _entry(entry: Entry) -> str:
    """One piece of metadata. A type that does not look like one may be part of something else: its size is enough."""
    name, content = entry.mime.name, entry.content
    decode = _CONTENTS.get(name)
    if decode is not None:
        return decode(content)
    if entry.mime.id is not None and not name:
        return f"mime-{entry.mime.id:#04x}={len(content)}"
    return f"{name}={len(content)}" if _MIME.fullmatch(name) or name == "tracestate" else f"other={len(content)}"


def _routes(content: bytes) -> str:
    return "route=" + ",".join(map(_quoted, parse_tags(content)[:MANY]))


def _mimes(label: str) -> Callable[[bytes], str]:
    def words(content: bytes) -> str:
        return f"{label}={','.join(_shown(mime.name) for mime in parse_mimes(content)[:MANY])}"

    return words


def _auth(content: bytes) -> str:
    return f"auth={_AUTH.get(content[0], 'custom') if content else 'none'}:hidden:{len(content)}"


def _traceparent(content: bytes) -> str:
    found = _TRACEPARENT.fullmatch(content)
    return f"trace={found[1].decode()}" if found else f"traceparent={len(content)}"


def _zipkin(content: bytes) -> str:
    size = 16 if content and content[0] & _ZIPKIN_LONG else 8
    if not content or not content[0] & _ZIPKIN_IDS or len(content) < 1 + size:
        return f"zipkin={len(content)}"
    return f"trace={content[1 : 1 + size].hex()}"


_CONTENTS: Final[dict[str, Callable[[bytes], str]]] = {
    ROUTING: _routes,
    DATA_MIME: _mimes("mime"),
    ACCEPTED_MIMES: _mimes("accepts"),
    AUTHENTICATION: _auth,
    TRACEPARENT: _traceparent,
    ZIPKIN: _zipkin,
}
