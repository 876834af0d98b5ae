"""The head of an HTTP/1.1 request, read strictly: what two readers could understand differently is refused.

RFC 9112 allows a server much leniency (bare line feeds, folded lines, absolute targets). No client of ours needs it.
"""

import re
from collections.abc import Mapping

import attrs

MAX_HEAD = 16 * 1024
"""Bytes of a request's line and headers: browsers send 2 KiB at most to a server that has set no cookies."""

ASK_FOR_UPGRADE = (("Connection", "Upgrade"), ("Upgrade", "websocket"))
"""Headers of an answer with status 426 (RFC 9110 15.5.22)."""

END = b"\r\n\r\n"
TLS_HANDSHAKE = b"\x16"
"""What a connection of https:// begins with (RFC 8446 5.1). Who is told so at once need not wait and guess."""

RSOCKET = b"\0"
"""What no request begins with, and every frame of RSocket on a stream that is shorter than 64 KiB."""

_LINE = re.compile(rb"([!-~]{1,32}) ([/?][!-~]*) HTTP/1\.[01]")
"""Of an address without a path some clients send the query alone."""
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


class Refusal(Exception):
    """A request that is not served. `status` is an HTTP status code, `text` a sentence for whoever asked."""

    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text
        self.headers = headers


@attrs.frozen(slots=True)
class Request:
    """What was asked. `query` is what follows the first "?" behind `path`; names in `headers` are lower case; `head`
    is as it came."""

    method: str
    path: str
    headers: Mapping[str, tuple[str, ...]]
    head: bytes = attrs.field(repr=False)
    query: str = attrs.field(default="", repr=False)

    def one(self, name: str) -> str | None:
        """The only value of a header, None where it is absent. Raises Refusal when it came more than once."""
        values = self.headers.get(name, ())
        if len(values) > 1:
            raise Refusal(400, f"There is more than one {name} header.")
        return values[0] if values else None

    def words(self, name: str) -> set[str]:
        """The words of a header that lists them, in lower case."""
        return {word.strip().lower() for value in self.headers.get(name, ()) for word in value.split(",")}


class HeadReader:
    """Takes bytes as they come and tells when the head is complete."""

    def __init__(self) -> None:
        self._received = bytearray()

    @property
    def received(self) -> int:
        """Bytes that have come."""
        return len(self._received)

    def feed(self, data: bytes | memoryview) -> tuple[Request, bytes] | None:
        """The request and what came behind it, once its head is complete; None until then.

        Raises Refusal for a head that is too long or malformed. The reader is of no use after either.
        """
        searched = max(0, len(self._received) - len(END) + 1)
        self._received += data
        if self._received[:1] == TLS_HANDSHAKE:
            raise Refusal(400, "This is TLS, and plain HTTP is spoken here: begin the address with http://.")
        if self._received[:1] == RSOCKET:
            raise Refusal(400, "This is RSocket or another protocol, and HTTP is spoken here: it has another port.")
        found = self._received.find(END, searched)
        if found < 0 and len(self._received) <= MAX_HEAD:
            return None
        if not 0 <= found <= MAX_HEAD - len(END):
            raise Refusal(431, f"The request's headers are longer than {MAX_HEAD} bytes.")
        size = found + len(END)
        return parse_head(bytes(self._received[:size])), bytes(self._received[size:])


def parse_head(head: bytes) -> Request:
    """A complete head, blank line included. Raises Refusal when it is malformed, or announces a body."""
    line, *fields = head.removesuffix(END).split(b"\r\n")
    matched = _LINE.fullmatch(line)
    if matched is None:
        raise Refusal(400, "This is not a request line of HTTP/1.1.")
    headers: dict[str, list[str]] = {}
    for field in fields:
        name, value = _field(field)
        headers.setdefault(name, []).append(value)
    if "transfer-encoding" in headers or set(headers.get("content-length", ())) - {"0"}:
        raise Refusal(400, "A request to this port has no body.")
    method, target = matched[1].decode(), matched[2].decode()
    path, _, query = target.partition("?")
    return Request(method, path, {name: tuple(values) for name, values in headers.items()}, head, query)


def _field(field: bytes) -> tuple[str, str]:
    name, colon, value = field.partition(b":")
    if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise Refusal(400, "A header is malformed.")
    return name.decode().lower(), value.strip(b" \t").decode("latin-1")
