"""Reading what apps send as leniently as their SDKs write and read it.

On Android an absent key and null are the same, and numbers may come as text; on iOS a boolean may be 1 or "YES". What
makes no sense at all is Invalid, and the event that it came with is dropped.
"""

import binascii
import math
from collections.abc import Mapping
from typing import Any, Final

from rsocket_broker.errors import Invalid

_TRUE: Final = frozenset({"true", "yes", "1"})
_FALSE: Final = frozenset({"false", "no", "0", ""})

_HUGE: Final = 2**127

Fields = Mapping[str, Any]


def text(fields: Fields, key: str, most: int) -> str:
    """Text, cut to `most` characters; "" for none. A number or a boolean is written out. Raises Invalid."""
    value = fields.get(key)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) or _is_whole(value):
        return str(value)[:most]
    if not isinstance(value, str):
        raise Invalid(f"{key}: wanted text.")
    return value[:most]


def identifier(fields: Fields, key: str, most: int = 128) -> str:
    """An id as text, whichever of text and whole number it came as. Raises Invalid for none."""
    value = fields.get(key)
    found = str(value) if _is_whole(value) else value
    if not isinstance(found, str) or not 0 < len(found) <= most:
        raise Invalid(f"{key}: wanted text of up to {most} characters or a whole number.")
    return found


def number(fields: Fields, key: str) -> float | None:
    """A finite number, also one that came as text; None for none. Whole ones come as int. Raises Invalid."""
    value = fields.get(key)
    if value is None:
        return None
    if _is_whole(value):
        return int(value)
    if isinstance(value, float | str) and len(str(value)) <= 64:
        try:
            found = float(value)
        except ValueError:
            found = math.nan
        if math.isfinite(found):
            return int(found) if found.is_integer() else found
    raise Invalid(f"{key}: wanted a number.")


def _is_whole(value: object) -> bool:
    """Not one of thousands of digits, which nobody means and which costs something to write out."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _HUGE


def flag(fields: Fields, key: str) -> bool:
    """A boolean, also as 0 and 1 and as text; False for none. Raises Invalid."""
    value = fields.get(key)
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    raise Invalid(f"{key}: wanted true or false.")


def fields(value: object, what: str) -> dict[str, Any]:
    """A JSON object; an empty one for none. Raises Invalid."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid(f"{what}: wanted an object.")
    return value


def items(value: object, what: str, most: int) -> list[Any]:
    """A JSON array of at most `most` values; an empty one for none. Raises Invalid."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise Invalid(f"{what}: wanted a list.")
    if len(value) > most:
        raise Invalid(f"{what}: {len(value)} are more than {most}.")
    return value


def octets(value: object, what: str) -> bytes:
    """Bytes from base64 with line ends of any platform, or none; b"" for nothing. Raises Invalid."""
    if value is None:
        return b""
    if not isinstance(value, str):
        raise Invalid(f"{what}: wanted base64.")
    try:
        return binascii.a2b_base64(value)
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"{what}: wanted base64.") from error


_CHARACTER: Final = 4
"""Bytes of each character of a text that has one beyond ASCII, at most."""
_ENTRY: Final = 100
"""Bytes of one entry of an object, its key's text and its value apart."""
_SINGLE: Final = 60
"""Bytes that a text, a number, a list or an object takes before there is anything in it."""


def weight(value: object, most: int) -> int:
    """About how many bytes a JSON value takes in memory: thirty times its text, where it is made of empty lists. Of one
    that takes more than `most` all is not looked at: then the answer is more than `most`, and no more than that."""
    waiting, found = [value], 0
    while waiting and found <= most:
        one = waiting.pop()
        found += _SINGLE
        if isinstance(one, str):
            found += len(one) if one.isascii() else _CHARACTER * len(one)
        elif isinstance(one, dict):
            found += _ENTRY * len(one)
            if found <= most:
                waiting.extend(one)
                waiting.extend(one.values())
        elif isinstance(one, list):
            found += 8 * len(one)
            if found <= most:
                waiting.extend(one)
    return found
