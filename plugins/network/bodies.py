"""Bodies as people read them: without their compression, as text where they are text.

What an app tells may be compressed still (it listens below its HTTP library), or not any more while the header says so
(it listens above): so decompression is tried, and where it fails the bytes are taken as they are.
"""

import binascii
import re
import zlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

from rsocket_broker.plugins.network.messages import Body, Encoded, Headers, header

MAX_BODY = 16 * 1024 * 1024
"""Bytes of one body without its compression. A few kilobytes can stand for gigabytes: the rest is cut off."""
MAX_ENCODINGS = 3
"""Compressions of one body inside each other; more than one is rare."""

_CHARSET = re.compile(
    r"utf-?(?:8|16|32)(?:-?[lb]e)?|(?:us-)?ascii|iso-?8859-\d{1,2}|latin-?1|(?:windows-|cp)\d{3,5}|koi8-[rut]|gbk"
    r"|gb2312|gb18030|big5(?:-?hkscs)?|shift[_-]jis|sjis|euc-(?:jp|kr)|iso-2022-(?:jp|kr)|tis-620|macintosh",
    re.ASCII,
)
"""The charsets of bodies. Python knows more under such names, and some of those (punycode, idna) take hours for a few
megabytes; of names that it does not know it keeps each for ever."""

_BINARY = ("image/", "audio/", "video/", "font/", "application/octet-stream", "application/zip", "application/pdf")


class Read(NamedTuple):
    """A body, and what is to be said of it: "", or in words what it lacks."""

    data: bytes
    note: str


PIECE = 256 * 1024
"""Letters of base64 that are read in one go: a few milliseconds, in which no other thread of the broker runs."""


def joined(parts: Iterable[Body]) -> bytes:
    """All bytes of a body; of a part that is no base64, what stands before that."""
    return b"".join(part if isinstance(part, bytes) else _read(part) for part in parts)


def _read(part: Encoded) -> bytes:
    found, at = bytearray(), 0
    letters = bytearray()
    try:
        while at < len(part.text):
            letters += part.text[at : at + PIECE].translate(None, b" \t\r\n")
            at += PIECE
            whole = len(letters) if at >= len(part.text) else len(letters) // 4 * 4
            found += binascii.a2b_base64(letters[:whole], strict_mode=True)
            del letters[:whole]
    except binascii.Error:
        pass
    return bytes(found)


def decoded(data: bytes, headers: Headers) -> Read:
    """A body without its compression, as far as the headers name one that it really has."""
    names = [name.strip() for name in header(headers, "content-encoding").lower().split(",") if name.strip()]
    note = ""
    for name in reversed(names[:MAX_ENCODINGS]):
        try:
            found = _DECODERS.get(name, _as_it_is)(data)
        except _Failed:
            break  # the app has done it already
        data, note = found.data, found.note or note
    return Read(data, note)


class _Failed(Exception):
    """The bytes are not compressed so."""


def _as_it_is(data: bytes) -> Read:
    return Read(data, "")


def _inflate(window: int, *, whole: bool = False) -> Callable[[bytes], Read]:
    def inflate(data: bytes) -> Read:
        work = zlib.decompressobj(window)
        try:
            found = work.decompress(data, MAX_BODY)
        except zlib.error as error:
            raise _Failed from error
        if not work.eof and (whole or not found):
            raise _Failed
        return Read(found, _lacks(found, work.eof))

    return inflate


def _deflate(data: bytes) -> Read:
    """With a header and a checksum, as specified, or without, as some servers send it."""
    try:
        return _inflate(15)(data)
    except _Failed:
        return _inflate(-15, whole=True)(data)


def _brotli(data: bytes) -> Read:
    try:
        import brotli
    except ImportError:  # not built for this Python
        return Read(data, "compressed with brotli, which is not installed here")
    work = brotli.Decompressor()
    try:
        found = work.process(data, output_buffer_limit=MAX_BODY)
    except brotli.error as error:
        raise _Failed from error
    if not found and not work.is_finished():
        raise _Failed
    return Read(found[:MAX_BODY], _lacks(found, work.is_finished()))


def _lacks(found: bytes, finished: bool) -> str:
    if finished:
        return ""
    return f"cut off after {MAX_BODY} bytes" if len(found) >= MAX_BODY else "cut off by the app"


_DECODERS: dict[str, Callable[[bytes], Read]] = {
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
        return data.decode(charset if _CHARSET.fullmatch(charset) else "utf-8")
    except LookupError:
        pass
    except UnicodeError:
        return None
    try:
        return data.decode()
    except UnicodeError:
        return None
