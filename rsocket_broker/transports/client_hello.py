"""What a peer sends first: a TLS ClientHello read without answering it, or something that is no TLS at all.

The listener must know who offers what before it picks a TLS context (RFC 8446 4.1.2, RFC 5246 7.4.1.2 and 6.2.1).
Reading stops at the first byte that cannot belong to a ClientHello. Nothing here checks what OpenSSL checks later:
a hello that is well formed on the outside and nonsense within is reported with the parts that could be read.
"""

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
        self.received += data
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
    fields = _Fields(body)
    offers: dict[int, bytes] = {}
    version = 0
    try:
        version = fields.number(2)
        fields.take(32)  # random
        fields.vector(1)  # session id
        fields.vector(2)  # cipher suites
        fields.vector(1)  # compression methods
        extensions = _Fields(fields.vector(2)) if fields else fields
        while extensions:
            kind = extensions.number(2)
            offers[kind] = extensions.vector(2)
    except IndexError:
        pass
    return ClientHello(
        _server_name(offers.get(_SERVER_NAME, b"")),
        _alpn(offers.get(_ALPN, b"")),
        _versions(offers.get(_SUPPORTED_VERSIONS, b"")) or (version,),
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
    found: list[int] = []
    try:
        versions = _Fields(_Fields(data).vector(1))
        while versions:
            found.append(versions.number(2))
    except IndexError:
        pass
    return tuple(found)
