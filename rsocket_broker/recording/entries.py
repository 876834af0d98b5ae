"""A recording as text: one JSON object a line, the first of which says whose session it was.

    {"recording": 1, "made": TIME, "app": …, "app_id": …, "device": …, "device_id": …, "os": …, "sdk_version": N,
     "plugins": […], "background": […]}
    {"at": SECONDS, "direction": "in", "kind": "event", "plugin": P, "method": M, "content": PARAMS}
    {"at": SECONDS, "direction": "in", "kind": "answer", …, "content": {"params": …, "success": VALUE}}
    {"at": SECONDS, "direction": "in", "kind": "error", …, "content": {"params": …, "error": TEXT}}
    {"dropped": N}

`in` is what the app said. Further kinds and keys may stand in a line, and mean nothing to who does not know them.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import attrs

from rsocket_broker.errors import Invalid
from rsocket_broker.jsontext import JsonError, dump, parse_object
from rsocket_broker.moments import timestamp

VERSION: Final = 1
MAX_LINE: Final = 96 * 1024 * 1024
"""Bytes of one line: the largest message that a session takes, and what escaping adds to it."""
MAX_NAMES: Final = 1000
"""Plugins of an app, as many as a session takes."""

_TEXTS: Final = ("app", "app_id", "device", "device_id", "os")


@attrs.frozen(slots=True, kw_only=True)
class Header:
    """Whose session it was. `made` is aware; the rest is as the app said it, and `app_id` as its identity did."""

    made: datetime
    app: str
    app_id: str
    device: str
    device_id: str
    os: str
    sdk_version: int
    plugins: tuple[str, ...]
    background: tuple[str, ...]

    def line(self) -> bytes:
        """The first line, without its end."""
        told = attrs.asdict(self) | {"made": timestamp(self.made)}
        return dump({"recording": VERSION, **told, "plugins": list(self.plugins), "background": list(self.background)})


@attrs.frozen(slots=True)
class Written:
    """A value as JSON text: one that takes long to write, and was written where nobody waits for it."""

    text: bytes


@attrs.frozen(slots=True)
class Entry:
    """One message. `at` in seconds since the recording began; `incoming` says that the app said it."""

    at: float
    incoming: bool
    kind: str
    plugin: str
    method: str
    content: Any


def read_header(line: bytes) -> Header:
    """From the first line. Raises Invalid for what is no recording, or one of another version."""
    found = _object(line, 1)
    version = found.get("recording")
    if version != VERSION:
        said = f"version {version}" if isinstance(version, int) else "no recording of a session"
        raise Invalid(f"line 1: this is {said}; version {VERSION} can be read")
    try:
        made = datetime.fromisoformat(str(found["made"]))
        texts: dict[str, Any] = {name: _text(found, name) for name in _TEXTS}
        level = found["sdk_version"]
        plugins, background = (_names(found, name) for name in ("plugins", "background"))
    except (KeyError, ValueError) as error:
        raise Invalid(f"line 1: {error} is missing, or not what it should be") from error
    if not isinstance(level, int) or isinstance(level, bool) or made.tzinfo is None:
        raise Invalid("line 1: sdk_version or made is not what it should be")
    return Header(made=made, sdk_version=level, plugins=plugins, background=background, **texts)


def read_entry(line: bytes, number: int) -> Entry | None:
    """From line `number`; None for one that holds no message. Raises Invalid."""
    found = _object(line, number)
    if "kind" not in found:
        return None
    at, content = found.get("at"), found.get("content")
    if not isinstance(at, int | float) or isinstance(at, bool) or at < 0:
        raise Invalid(f"line {number}: at must be the seconds since the beginning")
    try:
        plugin, method, kind = (_text(found, name) for name in ("plugin", "method", "kind"))
    except ValueError as error:
        raise Invalid(f"line {number}: {error} must be text") from error
    return Entry(float(at), found.get("direction") == "in", kind, plugin, method, content)


def entry_line(at: float, message: Mapping[str, object], content: object) -> bytes:
    """One line, without its end, from what an observer of a session is told. Raises JsonError.

    The last value of `content`, if that is an object, may be `Written`.
    """
    written = None
    if isinstance(content, dict) and content:
        name, last = next(reversed(content.items()))
        if isinstance(last, Written):
            content, written = {**content, name: None}, last.text
    line = dump(
        {
            "at": round(at, 6),
            **{name: message[name] for name in ("direction", "kind", "plugin", "method")},
            "content": content,
        }
    )
    return line if written is None else b"%b%b}}" % (line.removesuffix(b"null}}"), written)


def _object(line: bytes, number: int) -> dict[str, object]:
    try:
        return parse_object(line)
    except JsonError as error:
        raise Invalid(f"line {number} is {error}") from error


def _text(found: Mapping[str, object], name: str) -> str:
    value = found.get(name, "")
    if not isinstance(value, str):
        raise ValueError(name)
    return value


def _names(found: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = found[name]
    if not isinstance(value, list) or len(value) > MAX_NAMES or not all(isinstance(each, str) for each in value):
        raise ValueError(name)
    return tuple(value)
