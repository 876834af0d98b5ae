"""What a peer sends first: a TLS ClientHello read without answering it, or something that is no TLS at all.

The listener must know who offers what before it picks a TLS context (RFC 8446 4.1.2, RFC 5246 7.4.1.2 and 6.2.1).
Reading stops at the first byte that cannot belong to a ClientHello. Nothing here checks what OpenSSL checks later:
a hello that is well formed on the outside and nonsense within is reported with the parts that could be read.
"""

import struct

import attrs

MAX_HELLO = 16 * 1024
"""Bytes of a ClientHello message: OpenSSL's own limit is 128 KiB, real ones (post-quantum shares too) stay below 4."""
MAX_RECEIVED = 32 * 1024
"""Bytes kept while a hello is incomplete, record headers included: one may be cut into records of a few bytes."""

_HANDSHAKE_RECORD = 22
_RECORD_HEADER = 5
_MAX_RECORD = 16 * 1024
_CLIENT_HELLO = 1
_MESSAGE_HEADER = 4
_SERVER_NAME = 0
_ALPN = 16
_SUPPORTED_VERSIONS = 43
_TLS_MAJOR = 3
_OPENING = struct.Struct("!BBBHBBH")
"""Record header and message header: kind, version (2), length; kind, length (3)."""
_EXTENSION = struct.Struct("!HH")

_HTTP_METHODS = (
    b"GET ",
    b"POST ",
    b"PUT ",
    b"HEAD ",
    b"OPTIONS ",
    b"CONNECT ",
    b"DELETE ",
    b"PATCH ",
    b"TRACE ",
    b"PRI ",
)
_RSOCKET_OPENERS = (0x01, 0x0D)
"""SETUP and RESUME: the only frames that open an RSocket connection."""


class NotClientHello(Exception):
    """The bytes are not the start of a ClientHello, or of one larger than any that is real."""


@attrs.frozen(slots=True)
class ClientHello:
    """What a client offers. `versions` are TLS version numbers (0x0303 is TLS 1.2), grease values included."""

    server_name: str | None = None
    alpn: tuple[str, ...] = ()
    versions: tuple[int, ...] = ()


def looks_like_tls(data: bytes | memoryview) -> bool:
    """Does a connection that starts with `data` (3 bytes or more) speak TLS?"""
    return len(data) >= 3 and data[0] == _HANDSHAKE_RECORD and data[1] == _TLS_MAJOR and data[2] <= 4


def looks_like_http(data: bytes | memoryview) -> bool:
    """Does a connection that starts with `data` (8 bytes or more, for the longest method) speak HTTP?"""
    return bytes(data[:8]).startswith(_HTTP_METHODS)


def looks_like_rsocket(data: bytes | memoryview) -> bool:
    """Does a connection that starts with `data` (8 bytes or more) open RSocket: length, stream 0, SETUP or RESUME?"""
    return len(data) >= 8 and bytes(data[3:7]) == bytes(4) and data[7] >> 2 in _RSOCKET_OPENERS


class HelloReader:
    """Takes bytes as they come and tells when the ClientHello is complete. Keeps every byte, for the TLS engine."""

    def __init__(self) -> None:
        self.received = bytearray()
        self._message = bytearray()
        self._position = 0
        self._record_left = 0

    def feed(self, data: bytes | memoryview) -> ClientHello | None:
        """The hello once it is complete, else None: give more. What follows it in `data` is kept and not looked at.

        Raises NotClientHello as soon as no continuation could be one; the reader is of no use then.
        """
        first = not self.received
        self.received += data
        if first and (body := _at_once(data)) is not None:
            return _parse(body)
        end = min(len(self.received), MAX_RECEIVED)  # so that the verdict does not depend on how the bytes were cut
        while (wanted := self._wanted()) > 0 and self._position < end:
            if self._record_left:
                self._take_body(min(wanted, self._record_left, end - self._position))
            elif not self._take_header(end):
                break
        if wanted == 0:
            return _parse(bytes(self._message[_MESSAGE_HEADER:]))
        if end == MAX_RECEIVED:
            raise NotClientHello("a ClientHello in too many pieces")
        return None

    def _wanted(self) -> int:
        """Bytes of the message that are still to come, as far as is known."""
        if len(self._message) < _MESSAGE_HEADER:
            return _MESSAGE_HEADER - len(self._message)
        size = int.from_bytes(self._message[1:_MESSAGE_HEADER])
        if size > MAX_HELLO:
            raise NotClientHello("a ClientHello larger than any real one")
        return _MESSAGE_HEADER + size - len(self._message)

    def _take_header(self, end: int) -> bool:
        """Reads a record header if it is all there, after judging the part that is."""
        header = self.received[self._position : min(self._position + _RECORD_HEADER, end)]
        if header[0] != _HANDSHAKE_RECORD or (len(header) > 1 and header[1] != _TLS_MAJOR):
            raise NotClientHello("not a TLS handshake record")
        if len(header) < _RECORD_HEADER:
            return False
        self._record_left = int.from_bytes(header[3:])
        if not 0 < self._record_left <= _MAX_RECORD:
            raise NotClientHello("a TLS record of impossible length")
        self._position += _RECORD_HEADER
        return True

    def _take_body(self, size: int) -> None:
        piece = self.received[self._position : self._position + size]
        self._position += len(piece)
        self._record_left -= len(piece)
        self._message += piece
        if self._message[0] != _CLIENT_HELLO:
            raise NotClientHello("a TLS handshake that does not begin with a ClientHello")


def _at_once(data: bytes | memoryview) -> bytes | None:
    """The body of a hello that came in one piece and one record, as nearly all do. None for a closer look."""
    if len(data) < _RECORD_HEADER + _MESSAGE_HEADER:
        return None
    kind, major, _, record, message, high, low = _OPENING.unpack_from(data)
    size = high << 16 | low
    if (kind, major, message) != (_HANDSHAKE_RECORD, _TLS_MAJOR, _CLIENT_HELLO) or size > MAX_HELLO:
        return None
    begin, end = _OPENING.size, _OPENING.size + size
    if not _MESSAGE_HEADER + size <= record <= _MAX_RECORD or end > len(data):
        return None
    return bytes(data[begin:end])


class _Fields:
    """Reads length-prefixed fields; IndexError when one ends beyond the bytes that there are."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __bool__(self) -> bool:
        return self._position < len(self._data)

    def take(self, size: int) -> bytes:
        end = self._position + size
        if end > len(self._data):
            raise IndexError(end)
        piece = self._data[self._position : end]
        self._position = end
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, length_size: int) -> bytes:
        return self.take(self.number(length_size))


def _parse(body: bytes) -> ClientHello:
    """The offers in a complete hello; those after a field that does not add up are left out."""
    offers: dict[int, bytes] = {}
    try:
        at = 2 + 32  # version, random
        at += 1 + body[at]  # session id
        at += 2 + (body[at] << 8 | body[at + 1])  # cipher suites
        at += 1 + body[at]  # compression methods
        end = at + 2 + (body[at] << 8 | body[at + 1])
        at += 2
        while at + 4 <= end <= len(body):
            kind, size = _EXTENSION.unpack_from(body, at)
            at += 4 + size
            if at > end:
                break
            offers[kind] = body[at - size : at]
    except IndexError:
        pass
    return ClientHello(
        _server_name(offers[_SERVER_NAME]) if _SERVER_NAME in offers else None,
        _alpn(offers[_ALPN]) if _ALPN in offers else (),
        _versions(offers.get(_SUPPORTED_VERSIONS, b"")) or (int.from_bytes(body[:2]) if len(body) >= 2 else 0,),
    )


def _server_name(data: bytes) -> str | None:
    """RFC 6066 3: a list of one host name; an IP address is not allowed there."""
    try:
        names = _Fields(_Fields(data).vector(2))
        while names:
            kind, name = names.number(1), names.vector(2)
            if kind == 0:
                return name.decode("ascii")
    except (IndexError, UnicodeDecodeError):
        pass
    return None


def _alpn(data: bytes) -> tuple[str, ...]:
    """RFC 7301 3.1; protocol names are bytes, most of them ASCII."""
    found: list[str] = []
    try:
        names = _Fields(_Fields(data).vector(2))
        while names:
            found.append(names.vector(1).decode("latin-1"))
    except IndexError:
        pass
    return tuple(found)


def _versions(data: bytes) -> tuple[int, ...]:
    """RFC 8446 4.2.1."""
    end = min(1 + data[0], len(data)) if data else 0
    if end < 3 or end != 1 + data[0]:
        return ()
    return struct.unpack_from(f"!{(end - 1) // 2}H", data, 1)
