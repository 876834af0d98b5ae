"""The way in which browser apps wrote before js-flipper, taken off and put on again. Pure: texts in, texts out.

Such an app begins with {"app": A, "type": "connect", "plugins": [...]}, wraps each message as {"app": A, "payload":
{...}}, and reads nothing but {"payload": {...}}. Where it has named its plugins it need not know getPlugins, so that is
answered here; of those, none is started unasked.

Which way an app writes is known by its first message. Until that has come we have asked for its plugins already, in the
present way: an older one is asked again in its own, or answered for.
"""

import enum
import re
from typing import Final, NamedTuple

from rsocket_broker.jsontext import JsonError, dump, parse_bytes

MAX_ASKED: Final = 4
"""Questions kept until the first message: getPlugins, and getPlugins again when it was not answered in time."""
SHORT: Final = 256
"""Bytes of a question about plugins, which has a number and a method and nothing else."""

PARSED: Final = 64 * 1024
"""Bytes of an older app's message that is parsed here, where everybody waits: five million of them can be made to take
a second. From a longer one the wrapping is taken as such apps write it, and what is in it is left to whoever takes it;
a list of plugins has never been as long."""

_WRAPPED: Final = re.compile(rb'\{"app":"(?:[^"\\]|\\.){0,1024}+","payload":(?=\{)')
"""The beginning of a wrapped message, as JSON.stringify writes it."""

_LISTS: Final = ("getPlugins", "getBackgroundPlugins")
_REFRESH: Final = b'{"method":"refreshPlugins"}'


class Passed(NamedTuple):
    """What becomes of one message: texts for us to take in, and texts for the app."""

    inward: tuple[bytes, ...] = ()
    outward: tuple[bytes, ...] = ()


class _Way(enum.Enum):
    UNKNOWN = "unknown"
    PRESENT = "present"
    OLDER = "older"


class Framing:
    """One per connection."""

    def __init__(self) -> None:
        self._way = _Way.UNKNOWN
        self._asked: list[tuple[int, str, bytes]] = []
        """What was asked before the first message: number, method and text."""
        self._plugins: bytes | None = None
        """The list that an older app has named, as JSON."""

    def received(self, text: bytes) -> Passed:
        """A message of the app. What cannot be read is passed on as it came: whoever takes it says what is wrong."""
        if self._way is _Way.PRESENT:
            return Passed((text,))
        if len(text) > PARSED and self._way is _Way.OLDER:
            return Passed((_unwrapped(text),))
        if self._way is _Way.UNKNOWN and (len(text) > PARSED or b'"connect"' not in text):
            self._settle(_Way.PRESENT)
            return Passed((text,))
        message = _object(text)
        if message.get("type") == "connect" and isinstance(message.get("app"), str):
            return self._connect(message.get("plugins"))
        if self._way is _Way.UNKNOWN:
            self._settle(_Way.PRESENT)
            return Passed((text,))
        payload = message.get("payload")
        return Passed((dump(payload) if isinstance(payload, dict) else text,))

    def sent(self, text: bytes) -> Passed:
        """A message for the app."""
        if self._way is _Way.PRESENT:
            return Passed((), (text,))
        asked = _list_asked(text)
        if self._way is _Way.UNKNOWN:
            if asked is not None and len(self._asked) < MAX_ASKED:
                self._asked.append((*asked, text))
            return Passed((), (text,))
        if asked is not None and self._plugins is not None:
            return Passed((self._answer(*asked),))
        return Passed((), (_wrapped(text),))

    def _connect(self, plugins: object) -> Passed:
        began = self._way is _Way.UNKNOWN
        asked = self._asked
        self._settle(_Way.OLDER)
        self._plugins = dump(plugins) if isinstance(plugins, list) else None
        if not began:
            return Passed((_REFRESH,))
        if self._plugins is None:
            return Passed((), tuple(_wrapped(text) for _, _, text in asked))
        return Passed(tuple(self._answer(number, method) for number, method, _ in asked))

    def _settle(self, way: _Way) -> None:
        self._way, self._asked = way, []

    def _answer(self, number: int, method: str) -> bytes:
        plugins = self._plugins if method == _LISTS[0] and self._plugins is not None else b"[]"
        return b'{"id":%d,"success":{"plugins":%b}}' % (number, plugins)


def _wrapped(text: bytes) -> bytes:
    return b'{"payload":%b}' % text


def _unwrapped(text: bytes) -> bytes:
    """What is in a wrapped message; the message itself where it is not written as older apps write it. Where more than
    the payload follows, the rest is no JSON, and whoever takes it says so."""
    found = _WRAPPED.match(text)
    return text[found.end() : -1] if found is not None and text.endswith(b"}") else text


def _object(text: bytes) -> dict[str, object]:
    try:
        found = parse_bytes(text)
    except JsonError:
        return {}
    return found if isinstance(found, dict) else {}


def _list_asked(text: bytes) -> tuple[int, str] | None:
    """Number and method of a question for a list of plugins."""
    if len(text) > SHORT or b"Plugins" not in text:
        return None
    message = _object(text)
    number, method = message.get("id"), message.get("method")
    if isinstance(number, int) and isinstance(method, str) and method in _LISTS:
        return number, method
    return None
