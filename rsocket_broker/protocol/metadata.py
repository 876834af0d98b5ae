"""Composite metadata, routing tags and MIME ids (RSocket Extensions), as bytes in and values out.

What is parsed is built again byte for byte: an entry remembers whether its MIME type travelled as an id or spelled
out. Malformed metadata raises Invalid, whose text may be sent to the peer.

The extension says that the byte in front of a spelled-out MIME type is its length. Every engine in use (Java,
JavaScript, Python, Kotlin, Rust) writes the length less one, since no type is empty; so do we.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from rsocket_broker.errors import Invalid

COMPOSITE: Final = "message/x.rsocket.composite-metadata.v0"
ROUTING: Final = "message/x.rsocket.routing.v0"
AUTHENTICATION: Final = "message/x.rsocket.authentication.v0"
DATA_MIME: Final = "message/x.rsocket.mime-type.v0"
ACCEPTED_MIMES: Final = "message/x.rsocket.accept-mime-types.v0"

CLIENT: Final = "client:"
"""What a first tag begins with that is an address: the request is meant for another client, and for it are the tags
behind this one."""

WELL_KNOWN: Final[dict[int, str]] = {
    **dict(
        enumerate(
            (
                "application/avro",
                "application/cbor",
                "application/graphql",
                "application/gzip",
                "application/javascript",
                "application/json",
                "application/octet-stream",
                "application/pdf",
                "application/vnd.apache.thrift.binary",
                "application/vnd.google.protobuf",
                "application/xml",
                "application/zip",
                "audio/aac",
                "audio/mp3",
                "audio/mp4",
                "audio/mpeg3",
                "audio/mpeg",
                "audio/ogg",
                "audio/opus",
                "audio/vorbis",
                "image/bmp",
                "image/gif",
                "image/heic-sequence",
                "image/heic",
                "image/heif-sequence",
                "image/heif",
                "image/jpeg",
                "image/png",
                "image/tiff",
                "multipart/mixed",
                "text/css",
                "text/csv",
                "text/html",
                "text/plain",
                "text/xml",
                "video/H264",
                "video/H265",
                "video/VP8",
                "application/x-hessian",
                "application/x-java-object",
                "application/cloudevents+json",
                "application/x-capnp",
                "application/x-flatbuffers",
            )
        )
    ),
    0x7A: DATA_MIME,
    0x7B: ACCEPTED_MIMES,
    0x7C: AUTHENTICATION,
    0x7D: "message/x.rsocket.tracing-zipkin.v0",
    0x7E: ROUTING,
    0x7F: COMPOSITE,
}
IDS: Final = {name: number for number, name in WELL_KNOWN.items()}

MAX_PARTS: Final = 1024
"""Entries of composite metadata, tags and MIME types that are read: real clients send a handful, and one message could
hold millions of them, over which everybody else would wait for seconds."""

_BY_ID: Final = 0x80
_LONGEST_MIME: Final = 128
_LONGEST_CONTENT: Final = 0xFF_FFFF
_LONGEST_TAG: Final = 255
_ROUTING_ID: Final = _BY_ID | IDS[ROUTING]


class Mime(NamedTuple):
    """A MIME type as it travelled: `id` is None when it was spelled out; `name` is "" for an id without a name."""

    name: str
    id: int | None

    @classmethod
    def of(cls, name: str) -> "Mime":
        """The shortest form of `name`."""
        return cls(name, IDS.get(name))


class Entry(NamedTuple):
    """One piece of composite metadata."""

    mime: Mime
    content: bytes


def parse_composite(metadata: bytes) -> tuple[Entry, ...]:
    """The entries in their order. Raises Invalid when a length points outside the metadata, or there are too many."""
    return tuple(_entries(metadata))


def build_composite(entries: Iterable[Entry]) -> bytes:
    """The metadata that these entries make; for parsed entries, the bytes that they were parsed from."""
    return b"".join(_encoded(entry) for entry in entries)


def _entries(metadata: bytes) -> Iterator[Entry]:
    at, end = 0, len(metadata)
    for _ in range(MAX_PARTS):
        if at >= end:
            return
        mime, at = _read_mime(metadata, at)
        content = at + 3
        after = content + int.from_bytes(metadata[at:content], "big")
        if content > end or after > end:
            raise Invalid("composite metadata ends inside an entry")
        yield Entry(mime, metadata[content:after])
        at = after
    _check_all_read(at, end)


def _check_all_read(at: int, end: int) -> None:
    if at < end:
        raise Invalid(f"metadata has more than {MAX_PARTS} parts")


def _encoded(entry: Entry) -> bytes:
    if len(entry.content) > _LONGEST_CONTENT:
        raise Invalid(f"a metadata entry has at most {_LONGEST_CONTENT} bytes")
    return _encode_mime(entry.mime) + len(entry.content).to_bytes(3, "big") + entry.content


def _read_mime(buffer: bytes, at: int) -> tuple[Mime, int]:
    first = buffer[at]
    if first & _BY_ID:
        number = first & ~_BY_ID
        return Mime(WELL_KNOWN.get(number, ""), number), at + 1
    after = at + 2 + first
    if after > len(buffer):
        raise Invalid("metadata ends inside a MIME type")
    try:
        return Mime(buffer[at + 1 : after].decode("ascii"), None), after
    except UnicodeDecodeError as error:
        raise Invalid("a MIME type in the metadata is not ASCII") from error


def _encode_mime(mime: Mime) -> bytes:
    if mime.id is not None:
        return bytes((_BY_ID | mime.id,))
    text = mime.name.encode("ascii", "replace")
    if not 1 <= len(text) <= _LONGEST_MIME or not mime.name.isascii():
        raise Invalid(f"a MIME type is ASCII text of 1 to {_LONGEST_MIME} characters")
    return bytes((len(text) - 1,)) + text


def first_content(metadata: bytes, mime: str) -> bytes | None:
    """The content of the first entry of that type, or None. Raises Invalid for malformed metadata before it."""
    for entry in _entries(metadata):
        if entry.mime.name == mime:
            return entry.content
    return None


def parse_tags(content: bytes) -> tuple[str, ...]:
    """Routing tags in their order. Raises Invalid when one is cut short or is not UTF-8, or there are too many."""
    tags: list[str] = []
    at = 0
    while at < len(content) and len(tags) < MAX_PARTS:
        after = at + 1 + content[at]
        if after > len(content):
            raise Invalid("routing metadata ends inside a tag")
        tags.append(_tag(content[at + 1 : after]))
        at = after
    _check_all_read(at, len(content))
    return tuple(tags)


def build_tags(tags: Iterable[str]) -> bytes:
    """Routing metadata. Raises Invalid for a tag of more than 255 bytes."""
    parts = []
    for tag in tags:
        text = tag.encode()
        if len(text) > _LONGEST_TAG:
            raise Invalid(f"a routing tag has at most {_LONGEST_TAG} bytes")
        parts.append(bytes((len(text),)) + text)
    return b"".join(parts)


def first_tag(metadata: bytes) -> str | None:
    """The first routing tag of composite metadata, None when there is no routing entry or it is empty.

    Raises Invalid for malformed metadata. Fast where routing comes first, as nearly every client sends it.
    """
    if len(metadata) > 4 and metadata[0] == _ROUTING_ID:
        after = 5 + metadata[4]
        if after <= 4 + (metadata[1] << 16 | metadata[2] << 8 | metadata[3]) <= len(metadata):
            return _tag(metadata[5:after])
    tags = all_tags(metadata)
    return tags[0] if tags else None


def all_tags(metadata: bytes) -> tuple[str, ...]:
    """The routing tags of composite metadata, empty when there is no routing entry. Raises Invalid."""
    content = first_content(metadata, ROUTING)
    return parse_tags(content) if content else ()


def _tag(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise Invalid("a routing tag is not UTF-8 text") from error


def parse_mimes(content: bytes) -> tuple[Mime, ...]:
    """The types in per-stream MIME metadata: one for DATA_MIME, any number for ACCEPTED_MIMES."""
    found: list[Mime] = []
    at = 0
    while at < len(content) and len(found) < MAX_PARTS:
        mime, at = _read_mime(content, at)
        found.append(mime)
    _check_all_read(at, len(content))
    return tuple(found)


def build_mimes(mimes: Iterable[Mime]) -> bytes:
    return b"".join(_encode_mime(mime) for mime in mimes)


def route(*tags: str) -> bytes:
    """Composite metadata with a routing entry alone: what a plain routed call needs. Raises Invalid as `build_tags`."""
    return build_composite((Entry(Mime.of(ROUTING), build_tags(tags)),))
