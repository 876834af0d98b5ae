"""Frames as lines for people: bytes of one connection in, one line for each frame out. Never what a payload says.

    REQUEST_RESPONSE stream=1 flags=METADATA size=62 metadata=17 data=36 route="echo.request"

`size` is the frame's length as it travels, without the three bytes in front of it; all sizes are in bytes. Of
metadata the routes, MIME types and trace ids are told. Tokens, credentials and every other content are told by their
size alone, and the claims in a SETUP by their names, with the values of those that `clients list` shows too.

A line holds nothing but visible ASCII: what a peer chose is written as JSON strings.
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
    FLAGS_MASK,
    FOLLOWS,
    IGNORE,
    LEASE,
    MAX_31,
    METADATA,
    NEXT,
    RESPOND,
    RESUME,
    TYPE_SHIFT,
    ErrorCode,
    FrameType,
)
from rsocket_broker.protocol.frames import HEADER, PREFIX
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
UNFINISHED: Final = 4096
"""Streams on which a message may be in pieces at a time: as many as a peer may have open. Beyond them, metadata of
payloads is told by its size, since what looks like its beginning may be a piece from its middle."""

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
_WITH_PAYLOAD: Final = frozenset(
    {
        FrameType.REQUEST_RESPONSE,
        FrameType.REQUEST_FNF,
        FrameType.REQUEST_STREAM,
        FrameType.REQUEST_CHANNEL,
        FrameType.PAYLOAD,
    }
)


class FrameTrace:
    """The frames of one connection, both ways. Takes any bytes, whole or in pieces, and raises nothing."""

    def __init__(self) -> None:
        self.metadata_mime = ""
        """As the SETUP said; to be set for a connection that was resumed, and has none."""
        self._in = _Direction()
        self._out = _Direction()

    def received(self, data: bytes | memoryview) -> list[str]:
        """One line for each frame that these bytes complete."""
        return [self._line(self._in, *piece) for piece in self._in.cut(data)]

    def sent(self, data: bytes | memoryview) -> list[str]:
        """As `received`, for the other direction."""
        return [self._line(self._out, *piece) for piece in self._out.cut(data)]

    def _line(self, direction: "_Direction", length: int, kept: bytes) -> str:
        if length < HEADER:
            return f"nonsense size={length}"
        stream_id = _NUMBER.unpack_from(kept)[0] & MAX_31
        kind, flags = kept[4] >> TYPE_SHIFT - 8, _SHORT.unpack_from(kept, 4)[0] & FLAGS_MASK
        begins = direction.begins(kind, flags, stream_id)
        frame = _Frame(kept, length, flags, stream_id, self.metadata_mime if begins else "")
        words = [_name(kind), f"stream={stream_id}", f"flags={_flag_names(kind, flags)}", f"size={length}"]
        try:
            words.extend(_WORDS.get(kind, _nothing)(frame))  # what was read before it turns out malformed is told
        except (struct.error, Invalid, _Short):
            words.append("malformed" if length <= KEPT else "...")
        if kind == FrameType.SETUP:
            self.metadata_mime = frame.mime
        return " ".join(words)


class _Short(Exception):
    """The frame ends before what is wanted of it."""


class _Direction:
    """The bytes of one direction, cut into frames of which only the beginning is kept."""

    def __init__(self) -> None:
        self._start = bytearray()
        self._kept = bytearray()
        self._length = 0
        self._left = 0
        self._unfinished: set[int] = set()
        self._lost_count = False

    def cut(self, data: bytes | memoryview) -> Iterator[tuple[int, bytes]]:
        """(length, its first bytes) of each frame that `data` completes."""
        view = memoryview(data)
        while view or (len(self._start) == PREFIX and not self._left):
            if len(self._start) < PREFIX:
                missing = PREFIX - len(self._start)
                self._start += view[:missing]
                view = view[missing:]
                if len(self._start) < PREFIX:
                    return
                self._length = self._left = int.from_bytes(self._start, "big")
            piece = view[: self._left]
            self._kept += piece[: max(0, KEPT - len(self._kept))]
            self._left -= len(piece)
            view = view[len(piece) :]
            if self._left:
                return
            yield self._length, bytes(self._kept)
            self._start.clear()
            self._kept.clear()

    def begins(self, kind: int, flags: int, stream_id: int) -> bool:
        """Whether a frame is the beginning of its message, as against a further fragment."""
        if kind == FrameType.CANCEL or kind == FrameType.ERROR:
            self._unfinished.discard(stream_id)
        if kind not in _WITH_PAYLOAD:
            return True
        goes_on = kind == FrameType.PAYLOAD and (self._lost_count or stream_id in self._unfinished)
        if not flags & FOLLOWS:
            self._unfinished.discard(stream_id)
        elif len(self._unfinished) < UNFINISHED:
            self._unfinished.add(stream_id)
        else:
            self._lost_count = True
        return not goes_on


@attrs.define(slots=True)
class _Frame:
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
        """The next bytes, as far as they were kept. Raises _Short when the frame ends before them."""
        begin, self.at = self.at, self.at + size
        if self.at > self.length:
            raise _Short
        return self.kept[begin : self.at]

    @property
    def rest(self) -> int:
        """Bytes that are left."""
        return self.length - self.at


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


def _nothing(frame: _Frame) -> Iterator[str]:
    yield f"data={frame.rest}"


def _payload(frame: _Frame) -> Iterator[str]:
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


def _with_credit(frame: _Frame) -> Iterator[str]:
    yield f"n={frame.take(_NUMBER)[0] & MAX_31}"
    yield from _payload(frame)


def _request_n(frame: _Frame) -> Iterator[str]:
    yield f"n={frame.take(_NUMBER)[0] & MAX_31}"


def _error(frame: _Frame) -> Iterator[str]:
    """What failed on a stream is an app's own words; what ends a connection is an engine's, and says why."""
    code = frame.take(_NUMBER)[0]
    yield f"code={_CODES.get(code, f'{code:#x}')}"
    if frame.stream_id:
        yield f"text={frame.rest}"
    else:
        yield f"text={_quoted(frame.skip(frame.rest)[: 4 * TEXT].decode('utf-8', 'replace'))}"


def _setup(frame: _Frame) -> Iterator[str]:
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


def _setup_mime(frame: _Frame) -> str:
    return frame.skip(frame.take(_BYTE)[0]).decode("ascii", "replace")


def _shown(mime: str) -> str:
    """What does not look like a type may be part of something else, in a frame that is damaged."""
    return mime if _MIME.fullmatch(mime) else f"other:{len(mime)}"


def _token(frame: _Frame) -> str:
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


def _keepalive(frame: _Frame) -> Iterator[str]:
    yield f"position={frame.take(_POSITION)[0]}"
    yield f"data={frame.rest}"


def _lease(frame: _Frame) -> Iterator[str]:
    ttl, n = frame.take(_TIMES)
    yield f"ttl={ttl}ms n={n}"
    if frame.flags & METADATA:
        yield f"metadata={frame.rest}"


def _resume(frame: _Frame) -> Iterator[str]:
    major, minor = frame.take(_VERSION)
    yield f"version={major}.{minor}"
    yield _token(frame)
    yield f"server-position={frame.take(_POSITION)[0]}"
    yield f"client-position={frame.take(_POSITION)[0]}"


def _resume_ok(frame: _Frame) -> Iterator[str]:
    yield f"client-position={frame.take(_POSITION)[0]}"


def _metadata_push(frame: _Frame) -> Iterator[str]:
    size = frame.rest
    yield f"metadata={size}"
    if size <= KEPT - HEADER:
        yield from _metadata(frame.skip(size), frame.mime)


def _ext(frame: _Frame) -> Iterator[str]:
    yield f"extended-type={frame.take(_NUMBER)[0]:#x}"
    yield f"data={frame.rest}"


_CODES: Final = {int(code): code.name for code in ErrorCode} | {CONNECTION_CLOSE: "CONNECTION_CLOSE"}
_WORDS: Final[dict[int, Callable[[_Frame], Iterator[str]]]] = {
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
