"""HAR 1.2 as a check, written from the specification (http://www.softwareishard.com/blog/har-12-spec/).

A field is (kind, required). A kind is a type, a list of one kind, a table of fields, or a function that looks at the
value. Fields of one's own begin with an underscore; every object may have a comment.
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any


def _time(value: Any) -> bool:
    return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None


def _span(value: Any) -> bool:
    """Milliseconds of a phase that every exchange has."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _size(value: Any) -> bool:
    """Bytes, or -1 for unknown; milliseconds of a phase that need not be there are written so too."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= -1


def _uri(value: Any) -> bool:
    """RFC 3986, near enough: a scheme, and no character that a URI does not have."""
    return (
        isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[!#$%&-;=?-Z\[\]_a-z~]+", value) is not None
    )


Kind = type | Callable[[Any], bool] | list[Any] | dict[str, Any]

PAIR: Kind = {"name": (str, True), "value": (str, True)}
COOKIE: Kind = {
    "name": (str, True),
    "value": (str, True),
    "path": (str, False),
    "domain": (str, False),
    "expires": (_time, False),
    "httpOnly": (bool, False),
    "secure": (bool, False),
}
POSTED: Kind = {"mimeType": (str, True), "params": ([PAIR], False), "text": (str, False)}
CONTENT: Kind = {
    "size": (_span, True),
    "compression": (_size, False),
    "mimeType": (str, True),
    "text": (str, False),
    "encoding": (str, False),
}
_MESSAGE = {
    "httpVersion": (str, True),
    "cookies": ([COOKIE], True),
    "headers": ([PAIR], True),
    "headersSize": (_size, True),
    "bodySize": (_size, True),
}
REQUEST: Kind = {
    "method": (str, True),
    "url": (_uri, True),
    "queryString": ([PAIR], True),
    "postData": (POSTED, False),
    **_MESSAGE,
}
RESPONSE: Kind = {
    "status": (int, True),
    "statusText": (str, True),
    "content": (CONTENT, True),
    "redirectURL": (str, True),
    **_MESSAGE,
}
TIMINGS: Kind = {
    **dict.fromkeys(("blocked", "dns", "connect", "ssl"), (_size, False)),
    **dict.fromkeys(("send", "wait", "receive"), (_span, True)),
}
ENTRY: Kind = {
    "pageref": (str, False),
    "startedDateTime": (_time, True),
    "time": (_span, True),
    "request": (REQUEST, True),
    "response": (RESPONSE, True),
    "cache": ({}, True),
    "timings": (TIMINGS, True),
    "serverIPAddress": (str, False),
    "connection": (str, False),
}
CREATOR: Kind = {"name": (str, True), "version": (str, True)}
HAR: Kind = {
    "log": (
        {
            "version": (lambda value: value == "1.2", True),
            "creator": (CREATOR, True),
            "browser": (CREATOR, False),
            "pages": ([dict], False),
            "entries": ([ENTRY], True),
        },
        True,
    )
}


def check(value: Any, kind: Kind = HAR, path: str = "har") -> None:
    """Raises AssertionError with the path of the first thing that is no HAR 1.2."""
    if isinstance(kind, list):
        assert isinstance(value, list), f"{path} is no list"
        for index, one in enumerate(value):
            check(one, kind[0], f"{path}[{index}]")
    elif isinstance(kind, dict):
        assert isinstance(value, dict), f"{path} is no object"
        _check_fields(value, kind, path)
    elif isinstance(kind, type):
        assert isinstance(value, kind) and isinstance(value, bool) is (kind is bool), f"{path} is no {kind.__name__}"
    else:
        assert kind(value), f"{path} is wrong: {value!r}"


def _check_fields(value: dict[str, Any], kind: dict[str, Any], path: str) -> None:
    for name, (wanted, required) in kind.items():
        assert name in value or not required, f"{path}.{name} is missing"
        if name in value:
            check(value[name], wanted, f"{path}.{name}")
    for name in value.keys() - kind.keys():
        assert name.startswith("_") or name == "comment", f"{path}.{name} is no field of the format"
