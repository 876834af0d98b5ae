"""Flipper's JSON protocol, both ways, as functions from bytes to values and back. Nothing here sends or waits.

To the app: {"id": N, "method": M, "params": {...}}, M one of getPlugins, getBackgroundPlugins, init, deinit, execute,
isMethodSupported. The id is a number, and only there when an answer is wanted.
From the app: an answer {"success": ...} or {"error": ...}; a message {"method": "execute" | "refreshPlugins", ...}; a
report {"error": ...} that belongs to no request.
"""

import functools
import itertools
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import attrs

from rsocket_broker.errors import ApplicationError, Invalid, RequestFailed
from rsocket_broker.jsontext import LONG, SHORT, ZEROS, JsonError, dump, parse, parse_object, skim
from rsocket_broker.payload import Payload

BACKGROUND_LEVEL = 4
"""The `sdk_version` from which an SDK knows getBackgroundPlugins and leaves it to us to start those plugins."""
SUPPORT_LEVEL = 2
"""The `sdk_version` from which an SDK knows isMethodSupported."""

MAX_PLUGINS = 1000
MAX_NAME = 128
"""Plugins of one app, and characters of an id: real apps have a dozen, with ids of up to 30."""
MAX_TEXT = 1000
"""Characters of an app's error text that are passed on; what is longer is a stack trace."""
MAX_STACK = 64 * 1024
"""Characters of a stack trace that are passed on: five hundred frames with long names."""
NOT_JSON: Final = "{} answers in bytes that are not JSON: ask by route."


class AppFailure(ApplicationError):
    """The app answered with an error. `name` is its kind, such as `ConnectionNotFound`, or ""."""

    def __init__(self, text: str, name: str = "") -> None:
        super().__init__(text)
        self.name = name


@attrs.frozen(slots=True)
class Execute:
    """The app pushes an event to a plugin, or calls one of its methods."""

    plugin: str
    method: str
    params: Any


@attrs.frozen(slots=True)
class RefreshPlugins:
    """The set of the app's plugins has changed."""


@attrs.frozen(slots=True)
class ErrorReport:
    """Something failed in the app, outside any request. `stack` is "" where it does not say."""

    text: str
    stack: str = ""


@attrs.frozen(slots=True)
class Ignored:
    """An answer that nobody waits for: over RSocket, answers come back on their own stream."""


Message = Execute | RefreshPlugins | ErrorReport | Ignored


def numbers() -> Iterator[int]:
    """The ids for the requests of one session: unique in it, and all that they have to be."""
    return itertools.count()


def request(method: str, params: object = None, number: int | None = None) -> bytes:
    """A message to the app; with a `number` when it is to be answered. Raises JsonError for parameters not JSON."""
    message: dict[str, object] = {} if number is None else {"id": number}
    message["method"] = method
    if params is not None:
        message["params"] = params
    return dump(message)


def execute(plugin: str, method: str, params: object, number: int | None = None) -> bytes:
    """A call of a plugin's method. Receivers read `params` without looking, so there always are some."""
    if number is None:
        return execute_text(plugin, method, dump(params))
    return b'{"id":%d,%b%b}}' % (number, around(plugin, method), dump(params))


def execute_text(plugin: str, method: str, params: bytes, number: int | None = None) -> bytes:
    """The same for parameters that are JSON text already."""
    before = around(plugin, method)
    return b"{%b%b}}" % (before, params) if number is None else b'{"id":%d,%b%b}}' % (number, before, params)


@functools.lru_cache(maxsize=1024)
def around(plugin: str, method: str) -> bytes:
    """What stands before the parameters; a plugin calls a few methods, over and over."""
    return b'"method":"execute","params":{"api":%b,"method":%b,"params":' % (dump(plugin), dump(method))


def answer(data: bytes | bytearray | None) -> Any:
    """The value of an app's answer, found by its key: null, false and 0 are values too.

    Raises AppFailure when the app answers with an error, ApplicationError when it is no answer at all.
    """
    if type(data) is bytes and len(data) <= SHORT and data.translate(ZEROS).find(LONG) < 0:
        try:
            message: Any = skim(data)
            if "error" not in message:
                return message["success"]
        except (ValueError, TypeError, KeyError):
            pass  # it is looked at again, and thoroughly
    try:
        message = parse_object(data or b"")
    except JsonError as error:
        raise ApplicationError(f"The app's answer is {error}.") from error
    return answer_of(message)


def answer_of(message: object) -> Any:
    """The same for an answer that is parsed already."""
    if not isinstance(message, dict):
        raise ApplicationError("The app's answer is not a JSON object.")
    if "error" in message:
        raise failure(message["error"])
    try:
        return message["success"]
    except KeyError:
        raise ApplicationError("The app's answer has neither success nor error.") from None


def failure(error: object) -> AppFailure:
    """What an app's error object says. Most have a message, some a reason, a few are another shape altogether."""
    name = ""
    text: object = error
    if isinstance(error, dict):
        found = error.get("name")
        name = found[:MAX_NAME] if isinstance(found, str) else ""
        text = next((error[key] for key in ("message", "reason", "error") if error.get(key)), error)
    if not isinstance(text, str):
        text = _as_text(text)
    made = AppFailure(text[:MAX_TEXT] or name or "The app failed and did not say how.", name)
    code = error.get("code") if isinstance(error, dict) else None
    made.app_code = code if type(code) is int else None
    return made


def _stack(error: object) -> str:
    found = error.get("stacktrace") if isinstance(error, dict) else None
    return found[:MAX_STACK] if isinstance(found, str) else ""


def _as_text(error: object) -> str:
    """An error of another shape, as JSON; "" when it is nested deeper than can be written."""
    try:
        return dump(error).decode()
    except JsonError:
        return ""


def plugin_names(value: object) -> list[str]:
    """The ids in the answer to getPlugins or getBackgroundPlugins, each once. Raises ApplicationError."""
    listed = value.get("plugins") if isinstance(value, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_PLUGINS:
        raise ApplicationError("The app's list of plugins is not a list, or too long.")
    if not all(isinstance(name, str) and 0 < len(name) <= MAX_NAME for name in listed):
        raise ApplicationError("The app's list of plugins holds something that is not a plugin id.")
    return list(dict.fromkeys(listed))


def is_supported(value: object) -> bool:
    """The answer to isMethodSupported. Raises ApplicationError when it is none."""
    supported = value.get("isSupported") if isinstance(value, dict) else None
    if type(supported) is not bool:
        raise ApplicationError("The app's answer to isMethodSupported has no isSupported.")
    return supported


def one_way(data: bytes | bytearray | None) -> Message:
    """What the app sent by fire-and-forget. Raises Invalid for what is no message."""
    message = _object(data)
    return Ignored() if _is_number(message.get("id")) else _message(message)


def asked(data: bytes | bytearray | None) -> Message:
    """What the app sent by request-response, where an id says nothing more than that it wants an answer."""
    return _message(_object(data))


def parameters_begin(data: bytes) -> int:
    """Where the text of the inner parameters begins, in a message as apps write it; in any other, anywhere."""
    return data.find(_PARAMS, data.find(_PARAMS) + len(_PARAMS)) + len(_PARAMS)


def number_ends(data: bytes) -> int:
    """Where the number ends with which a question begins, as apps write it: the place of the comma, 0 where there is
    none, negative where it is no whole number."""
    if not data.startswith(_ID):
        return 0
    comma = data.find(b",")
    number = data[len(_ID) : comma]
    return comma if number.isdigit() and (number == b"0" or not number.startswith(b"0")) else -1


def envelope(text: bytes) -> tuple[str, str] | None:
    """Plugin and method, where `text`, any JSON value and `}}` make an event with that value as its parameters.

    None where they do not, or where the event would say anything more.
    """
    try:
        message: Any = parse_object(text + b"null}}")
        inner = message.pop("params")
        plugin, method = inner.pop("api"), inner.pop("method")
    except (JsonError, KeyError, TypeError, AttributeError):
        return None
    said_all = message == {"method": "execute"} and inner == {"params": None}
    return (plugin, method) if said_all and isinstance(plugin, str) and isinstance(method, str) else None


class Parted(NamedTuple):
    """An execute whose parameters are still text. `numbered`: it has an id, as answers do."""

    plugin: str
    method: str
    params: bytes
    numbered: bool


def parted(data: bytes) -> Parted | None:
    """A long execute by its two ends: its parameters stand between them, in the order in which SDKs write the rest.

    None where the ends do not look so, or hold an escape, by which one key can look like another. If the parameters
    are JSON by themselves, then the message is what it says; if they are not, the message is to be parsed whole.
    """
    edge = data[:EDGE]
    begin = _PARAMS_KEY.match(edge, edge.find(_KEY, edge.find(_KEY) + len(_KEY)))
    end = _CLOSING.search(data[-EDGE:])
    if begin is None or end is None:
        return None
    head, tail = data[: begin.end()], end[0]
    if b"\\" in head:
        return None
    try:
        message: Any = parse_object(head + b"null" + tail)
        inner = message["params"]
        plugin, method, execute, empty = inner["api"], inner["method"], message["method"], inner["params"]
    except (JsonError, KeyError, TypeError):
        return None
    if execute != "execute" or empty is not None or not isinstance(plugin, str) or not isinstance(method, str):
        return None
    return Parted(plugin, method, data[len(head) : len(data) - len(tail)], _is_number(message.get("id")))


def message_of(value: object) -> Message:
    """What an app tells us, by its value. Raises Invalid for what is no message."""
    if not isinstance(value, dict):
        raise Invalid("The message is not a JSON object.")
    return _message(value)


def one_way_of(value: object) -> Message:
    """The same for what came by fire-and-forget, where a number makes it an answer."""
    if isinstance(value, dict) and _is_number(value.get("id")):
        return Ignored()
    return message_of(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


EDGE: Final = 4096
"""Bytes at each end of a long message in which all but its parameters stands: names of up to 128 characters."""
_KEY: Final = b'"params"'
_PARAMS_KEY: Final = re.compile(rb'"params"\s*:\s*')
_MEMBERS: Final = rb'(?:\s*,\s*"(?:api|method|id)"\s*:\s*(?:"[^"\\]*"|\d+))*\s*\}'
_CLOSING: Final = re.compile(_MEMBERS + _MEMBERS + rb"\s*\Z")
_PARAMS = b'"params":'
_ID = b'{"id":'


def success(value: object) -> bytes:
    """Our answer to an app. Raises JsonError."""
    return dump({"success": value})


def success_in(value: bytes) -> bytes:
    """The same for a value that is JSON text already, and known to be valid."""
    return b'{"success":' + value + b"}"


def success_of(plugin: str, method: str, answer: Payload) -> bytes:
    """The same for what a handler has given. Raises Invalid when it has made that itself, and it is no JSON."""
    try:
        return success(parse(answer.data) if answer.data else {})
    except JsonError:
        raise Invalid(NOT_JSON.format(f"{plugin}.{method}")) from None


def refused(error: RequestFailed) -> bytes:
    """Our answer to an app whose request failed."""
    return dump({"error": {"message": error.public, "name": type(error).__name__}})


def _object(data: bytes | bytearray | None) -> dict[str, object]:
    try:
        return parse_object(data or b"")
    except JsonError as error:
        raise Invalid(f"The message is {error}.") from error


def _message(message: dict[str, object]) -> Message:
    method = message.get("method")
    if method == "execute":
        return _execute(message.get("params"))
    if method == "refreshPlugins":
        return RefreshPlugins()
    if "method" in message:
        raise Invalid("The message's method is none that an app may ask for.")
    if "error" in message:
        return ErrorReport(failure(message["error"]).public, _stack(message["error"]))
    if "success" in message:
        return Ignored()
    raise Invalid("The message has neither a method nor an error.")


def _execute(params: object) -> Execute:
    if not isinstance(params, dict):
        raise Invalid("The params of execute are not an object.")
    plugin, method = params.get("api"), params.get("method")
    if not isinstance(plugin, str) or not isinstance(method, str):
        raise Invalid("The params of execute have no api and method.")
    inner = params.get("params")
    return Execute(plugin, method, {} if inner is None else inner)
