"""The events of an app's network plugin, from JSON to values. Android's and iOS's shapes; nothing here keeps anything.

    newRequest        {"id", "timestamp", "method", "url", "headers": [{"key", "value"}], "data"}
    newResponse       {"id", "timestamp", "status", "reason", "headers", "data", "isMock", "totalChunks", "index"}
    partialResponse   the same for the part with index 0; the others have id, timestamp, totalChunks, index and data

Read as leniently as the SDKs write: what is absent, null or of another number type has a meaning. What has none is
Invalid, and the event is dropped: a missing id, data that is no base64, a header that is no pair.
"""

import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple

from rsocket_broker.plugin_api import Invalid
from rsocket_broker.plugin_api.lenient import identifier, items

MAX_HEADERS = 256
"""Headers of one message: servers refuse requests with a hundred."""
MAX_PARTS = 4096
"""Parts of one body: 4 GiB in the parts of 1 MiB that the Android SDK makes."""
MAX_METHOD = 32
"""Characters of an HTTP method that are kept."""

LARGE = 128 * 1024
"""Characters of base64 that are read at once, in a millisecond."""

_SPACE = b" \t\r\n"
_BLANKS = (b" ", b"\t", b"\r", b"\n")

Headers = tuple[tuple[str, str], ...]


class Encoded(NamedTuple):
    """A large body, in base64 still: to read it takes time, during which nobody else is served. `size` in bytes."""

    text: bytes
    size: int


Body = bytes | Encoded


class Request(NamedTuple):
    """What an app is about to ask a server. `time` in milliseconds since 1970 by the device's clock, 0 for unknown.

    `body` None: there is none, or the app does not show it.
    """

    key: str
    time: float
    method: str
    url: str
    headers: Headers
    body: Body | None


class Head(NamedTuple):
    """What stands before a response's body. `status` 0: the app gives none."""

    time: float
    status: int
    reason: str
    headers: Headers
    mock: bool


class Part(NamedTuple):
    """A response, or one of `total` parts of it, counted by `at` from 0. `head` comes with the first of them."""

    key: str
    head: Head | None
    at: int
    total: int
    body: Body | None


def request(params: Mapping[str, Any]) -> Request:
    """Raises Invalid."""
    return Request(
        identifier(params, "id"),
        number(params.get("timestamp"), "timestamp"),
        text(params.get("method"), "method")[:MAX_METHOD].upper() or "GET",
        text(params.get("url"), "url"),
        headers(params.get("headers")),
        body(params.get("data")),
    )


def response(params: Mapping[str, Any]) -> Part:
    """A whole response, or a part of one. Raises Invalid."""
    total = int(number(params.get("totalChunks"), "totalChunks")) or 1
    index = int(number(params.get("index"), "index"))
    if not 1 <= total <= MAX_PARTS or not 0 <= index < total:
        raise Invalid(f"part {index} of {total}: a body has 1 to {MAX_PARTS} parts, counted from 0.")
    head = None
    if index == 0:
        head = Head(
            number(params.get("timestamp"), "timestamp"),
            int(number(params.get("status"), "status")),
            text(params.get("reason"), "reason"),
            headers(params.get("headers")),
            params.get("isMock") in (True, 1),
        )
    return Part(identifier(params, "id"), head, index, total, body(params.get("data")))


def number(value: object, name: str) -> float:
    """A number, also one that is given as text; 0 for none. Raises Invalid."""
    if value is None:
        return 0
    if isinstance(value, int | float | str):
        try:
            found = float(value)
        except (ValueError, OverflowError):
            found = float("inf")
        if abs(found) < 2**53:
            return int(found) if found.is_integer() else found
    raise Invalid(f"{name}: wanted a number.")


def text(value: object, name: str) -> str:
    """Text; "" for none. Raises Invalid."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Invalid(f"{name}: wanted text.")
    return value


def headers(value: object) -> Headers:
    """Pairs of names and values, in their order. Raises Invalid."""
    return tuple(_header(each) for each in items(value, "headers", MAX_HEADERS))


def _header(each: object) -> tuple[str, str]:
    name = each.get("key") if isinstance(each, dict) else None
    value = each.get("value") if isinstance(each, dict) else None
    if not isinstance(name, str) or isinstance(value, dict | list):
        raise Invalid("headers: wanted objects with key and value.")
    return name, "" if value is None else str(value)


def body(value: object) -> Body | None:
    """Bytes from base64 of either platform: with line ends or without. None for no body. Raises Invalid."""
    if value is None:
        return None
    try:
        told = text(value, "data").encode("ascii")
        if len(told) > LARGE:
            letters = len(told) - sum(map(told.count, _BLANKS))
            return Encoded(told, letters * 3 // 4 - told[-8:].count(b"="))
        return binascii.a2b_base64(told.translate(None, _SPACE), strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid("data: wanted base64.") from error


def size(told: Body | None) -> int:
    """Bytes of a body."""
    return 0 if told is None else told.size if isinstance(told, Encoded) else len(told)


def header(headers: Headers, name: str) -> str:
    """The last value of a header, "" for none. `name` in lower case."""
    return next((value for key, value in reversed(headers) if key.lower() == name), "")
