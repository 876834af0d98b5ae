r"""JSON as peers send it: parsed strictly, failing with one error whatever is wrong with the bytes.

orjson does the work where it is installed; the standard library does it elsewhere, and wherever the two part ways:

    half a character ("\ud83d")         orjson refuses it                   kept, and written again as it came
    an integer of more than 64 bits     orjson reads a float                kept whole, up to Python's 4300 digits
    NaN, 1e999                          orjson writes null for NaN          refused, both ways
    nesting                             1024 levels, or Python's stack      refused beyond MAX_DEPTH
    arrays and objects in all           as memory allows                    refused beyond MAX_CONTAINERS
    keys, subclasses, named tuples      orjson refuses, or has views        as the standard library writes them
    enums and UUIDs                     the standard library refuses them   written by their value

So a plugin meets the same values either way, and the same errors in the same words. Only the spelling of a number may
differ in what is written (1e-07, 1e-7).
"""

import enum
import json
import math
import uuid
from array import array
from collections.abc import Callable
from itertools import accumulate
from re import compile as pattern
from typing import Any, Final, NoReturn

try:
    import orjson
except ImportError:  # not built for this Python
    orjson = None  # type: ignore[assignment]

MAX_DEPTH: Final = 500
"""Arrays and objects inside each other. What reads them by recursion, a handler perhaps, has Python's 1000 calls."""

MAX_CONTAINERS: Final = 1_000_000
"""Arrays and objects in one text. Each takes up to thirty times its bytes, and time of Python's collector besides: a
message full of empty ones took 2 GB, and everybody waited for seconds until it was read."""

_DIGITS: Final = 19
"""An integer of fewer digits fits into 64 bits, signed."""


class JsonError(ValueError):
    """The bytes are not JSON text. The message is safe to send back: it holds no part of the input."""


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    """1e999 is a number to JSON, but to us it would be the Infinity that JSON does not know."""
    value = float(text)
    if math.isinf(value):
        raise JsonError("a number in it is too large")
    return value


def _by_value(value: object) -> object:
    """What the standard library asks when it knows no JSON for something; these are what orjson knows besides."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, uuid.UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_by_value)
_ascii_encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_by_value)


# ---- the standard library's way ------------------------------------------------------------------------------------


def _slow_parse(data: bytes) -> object:
    outline = _outline(data) if len(data) > MAX_CONTAINERS else data
    try:
        value = _decoder.decode(str(data, "utf-8"))
    except UnicodeDecodeError as error:
        raise JsonError("not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise JsonError(f"not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise JsonError("nested too deeply") from error
    except JsonError:
        raise
    except ValueError as error:  # Python converts no number of more than 4300 digits
        raise JsonError("a number in it is too long") from error
    if _may_be_deep(outline) and _depth(outline) > MAX_DEPTH:
        raise JsonError("nested too deeply")
    return value


def _slow_dump(value: object) -> bytes:
    try:
        text = _encoder.encode(value)
        try:
            return text.encode()
        except UnicodeEncodeError:  # half a character has no UTF-8 form, but it can be written as it came: escaped
            return _ascii_encoder.encode(value).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        text = str(error)
    # Not from that error: where it came from inside an encoder helps nobody, and after too deep a value is endless.
    raise JsonError(f"cannot be written as JSON: {text}")


# ---- orjson's way --------------------------------------------------------------------------------------------------


def _fast_parse(data: bytes) -> object:
    size = len(data)
    outline = _outline(data) if size > MAX_CONTAINERS else data
    try:
        value: object = orjson.loads(data)
    except ValueError:
        return _slow_parse(data)  # which says what is wrong, or does not mind
    if size >= _DIGITS and data.translate(ZEROS).find(LONG) >= 0:
        return _slow_parse(data)
    if size > 2 * MAX_DEPTH and _may_be_deep(outline) and _depth(outline) > MAX_DEPTH:
        raise JsonError("nested too deeply")
    return value


def _fast_dump(value: object) -> bytes:
    try:
        data: bytes | None = orjson.dumps(value, None, OPTIONS)
    except TypeError:
        data = None
    if data is None or (data.find(b"null") >= 0 and not _is_finite(value)):
        return _slow_dump(value)
    return data


OPTIONS: Final = (
    0
    if orjson is None
    else orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
)
ZEROS: Final = bytes(ord("0") if chr(byte) in "0123456789" else 0 for byte in range(256))
LONG: Final = b"0" * _DIGITS
"""Where `data.translate(ZEROS).find(LONG)` finds nothing, no integer in JSON text has more than 64 bits."""


def _is_finite(value: object) -> bool:
    """Whether there is certainly no NaN or Infinity in what orjson has written: it writes null for them."""
    waiting: list[Any] = [value]
    while waiting:
        one = waiting.pop()
        kind = type(one)
        if kind is dict:
            waiting.extend(one.values())
        elif kind is list or kind is tuple:
            waiting.extend(one)
        elif kind is float:
            if not math.isfinite(one):
                return False
        elif one is not None and kind not in _PLAIN:
            return False  # an enum: what is its value?
    return True


_PLAIN: Final = frozenset({str, int, bool, uuid.UUID})


# ---- depth and width -------------------------------------------------------------------------------------------------


def _containers(data: bytes) -> int:
    """How many arrays and objects there may be at most: what stands in texts is counted too."""
    return data.count(b"[") + data.count(b"{")


def _outline(data: bytes) -> bytes:
    """JSON text as it is, or without the texts in it where many brackets may be theirs. Raises JsonError."""
    if _containers(data) <= MAX_CONTAINERS:
        return data
    bare = _TEXT.sub(b"", data)
    if _containers(bare) > MAX_CONTAINERS:
        raise JsonError("too many arrays and objects in it")
    return bare


def _may_be_deep(data: bytes) -> bool:
    return _containers(data) > MAX_DEPTH


def _depth(data: bytes) -> int:
    """How deeply valid JSON text is nested."""
    steps = data.translate(_STEPS, _NO_STEPS).replace(b'""', b"")
    if b'"' in steps or b"\\" in steps:  # a text holds a bracket, or an escape, behind which a quote ends nothing
        steps = _TEXT.sub(b"", data).translate(_STEPS, _NO_STEPS)
    return max(accumulate(array("b", steps)), default=0)


_UP, _DOWN = 1, 0xFF  # which is -1 to array("b")
_STEPS: Final = bytes(_UP if chr(byte) in "[{" else _DOWN if chr(byte) in "]}" else byte for byte in range(256))
_NO_STEPS: Final = bytes(byte for byte in range(256) if chr(byte) not in '[]{}"\\')
_TEXT: Final = pattern(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
"""A text. Nothing in it is tried twice: what could be would be remembered at each step, at a hundred bytes for each."""


explain = _slow_parse
"""As `parse_bytes`, by the standard library: which says what is wrong with the text, and where."""
depth = _depth

# ---- what everybody calls ------------------------------------------------------------------------------------------

parse_bytes: Callable[[bytes], object] = _slow_parse if orjson is None else _fast_parse
"""As `parse`, for bytes alone."""


def parse(data: bytes | bytearray | memoryview) -> object:
    r"""The value that `data` (UTF-8 JSON text) stands for.

    Text may hold halves of characters (`"\ud83d"`), as apps send where they cut a text: `dump` can write them again.
    Raises JsonError for bad UTF-8, bad syntax, NaN or Infinity, and nesting beyond MAX_DEPTH (RFC 8259, 9).
    """
    return parse_bytes(data if type(data) is bytes else bytes(data))


def parse_object(data: bytes | bytearray | memoryview) -> dict[str, object]:
    """Like `parse`, for text that must be one JSON object. Raises JsonError otherwise."""
    value = parse(data)
    if not isinstance(value, dict):
        raise JsonError("not a JSON object")
    return value


SHORT: Final = 2 * MAX_DEPTH
"""Bytes of JSON text that cannot be nested too deeply."""
skim: Callable[[bytes], object] = _slow_parse if orjson is None else orjson.loads
"""For text of up to SHORT bytes: gives and raises what `parse_bytes` does (any ValueError), but that a float may stand
for an integer of more than 64 bits, and that half a character is refused. For those who look at types, and then think
again."""


def _write(value: object, default: None, options: int) -> bytes:
    return _slow_dump(value)


write: Callable[[object, None, int], bytes] = _write if orjson is None else orjson.dumps
"""`write(value, None, OPTIONS)` is the other way: it gives what `dump` does where that has no `null` in it, and raises
TypeError or JsonError for what may be fit for `dump` all the same. For those who look at what they are given."""

dump: Callable[[object], bytes] = _slow_dump if orjson is None else _fast_dump
"""A value as compact UTF-8 JSON. Raises JsonError when it cannot be expressed (NaN, cycles, foreign types)."""
