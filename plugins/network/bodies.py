"""Bodies as people read them: without their compression, as text where they are text.

What an app tells may be compressed still (it listens below its HTTP library), or not any more while the header says so
(it listens above): so decompression is tried, and where it fails the bytes are taken as they are.
"""

import zlib
from collections.abc import Callable
from typing import NamedTuple

from rsocket_broker.plugins.network.messages import Headers, header

MAX_BODY = 16 * 1024 * 1024
"""Bytes of one body without its compression. A few kilobytes can stand for gigabytes: the rest is cut off."""
MAX_ENCODINGS = 3
"""Compressions of one body inside each other; more than one is rare."""

_BINARY = ("image/", "audio/", "video/", "font/", "application/octet-stream", "application/zip", "application/pdf")


class Body(NamedTuple):
    """A body, and what is to be said of it: "", or in words what it lacks."""

    data: bytes
    note: str


def decoded(data: bytes, headers: Headers) -> Body:
    """A body without its compression, as far as the headers name one that it really has."""
    names = [name.strip() for name in header(headers, "content-encoding").lower().split(",") if name.strip()]
    note = ""
    for name in reversed(names[:MAX_ENCODINGS]):
        try:
            found = _DECODERS.get(name, _as_it_is)(data)
        except _Failed:
            break  # the app has done it already
        data, note = found.data, found.note or note
    return Body(data, note)


class _Failed(Exception):
    """The bytes are not compressed so."""


def _as_it_is(data: bytes) -> Body:
    return Body(data, "")


def _inflate(window: int, *, whole: bool = False) -> Callable[[bytes], Body]:
    def inflate(data: bytes) -> Body:
        work = zlib.decompressobj(window)
        try:
            found = work.decompress(data, MAX_BODY)
        except zlib.error as error:
            raise _Failed from error
        if not work.eof and (whole or not found):
            raise _Failed
        return Body(found, _lacks(found, work.eof))

    return inflate


def _deflate(data: bytes) -> Body:
    """With a header and a checksum, as specified, or without, as some servers send it."""
    try:
        return _inflate(15)(data)
    except _Failed:
        return _inflate(-15, whole=True)(data)


def _brotli(data: bytes) -> Body:
    try:
        import brotli
    except ImportError:  # not built for this Python
        return Body(data, "compressed with brotli, which is not installed here")
    work = brotli.Decompressor()
    try:
        found = work.process(data, output_buffer_limit=MAX_BODY)
    except brotli.error as error:
        raise _Failed from error
    if not found and not work.is_finished():
        raise _Failed
    return Body(found[:MAX_BODY], _lacks(found, work.is_finished()))


def _lacks(found: bytes, finished: bool) -> str:
    if finished:
        return ""
    return f"cut off after {MAX_BODY} bytes" if len(found) >= MAX_BODY else "cut off by the app"


_DECODERS: dict[str, Callable[[bytes], Body]] = {
    "gzip": _inflate(31),
    "x-gzip": _inflate(31),
    "deflate": _deflate,
    "br": _brotli,
    "identity": _as_it_is,
}


def as_text(data: bytes, content_type: str) -> str | None:
    """Text by the charset of its type, UTF-8 where that names none; None for what is no text."""
    kind, _, rest = content_type.lower().partition(";")
    if kind.strip().startswith(_BINARY) or b"\0" in data[:1024]:
        return None
    charset = rest.partition("charset=")[2].partition(";")[0].strip(" \"'")
    try:
        return data.decode(charset or "utf-8")
    except LookupError:
        pass
    except UnicodeError:
        return None
    try:
        return data.decode()
    except UnicodeError:
        return None
