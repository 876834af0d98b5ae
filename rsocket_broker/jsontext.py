"""JSON as peers send it: parsed strictly, failing with one error whatever is wrong with the bytes."""

import json
import math
from typing import NoReturn


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


_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_ascii_encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def parse(data: bytes | bytearray | memoryview) -> object:
    r"""The value that `data` (UTF-8 JSON text) stands for.

    Text may hold halves of characters (`"\ud83d"`), as apps send where they cut a text: `dump` can write them again.
    Raises JsonError for bad UTF-8, bad syntax, NaN or Infinity, and nesting too deep to follow (RFC 8259, 9).
    """
    try:
        return _decoder.decode(str(data, "utf-8"))
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


def parse_object(data: bytes | bytearray | memoryview) -> dict[str, object]:
    """Like `parse`, for text that must be one JSON object. Raises JsonError otherwise."""
    value = parse(data)
    if not isinstance(value, dict):
        raise JsonError("not a JSON object")
    return value


def dump(value: object) -> bytes:
    """`value` as compact UTF-8 JSON. Raises JsonError when it cannot be expressed (NaN, cycles, foreign types)."""
    try:
        text = _encoder.encode(value)
        try:
            return text.encode()
        except UnicodeEncodeError:  # half a character has no UTF-8 form, but it can be written as it came: escaped
            return _ascii_encoder.encode(value).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise JsonError(f"cannot be written as JSON: {error}") from error
