"""What parsed JSON takes in memory: thirty times its text, where that is made to be so.

`[[],[],…]` of a megabyte becomes a third of a million objects. Whoever keeps values until their turn counts that, and
not their text. All of these are bounds, found without a look at each object where there are many.
"""

from typing import Any, Final

from rsocket_broker.jsonpieces import WINDOW, Turn

CONTAINER: Final = 72
"""Bytes of an array or object that holds nothing, and of its place in another one."""
ITEM: Final = 84
"""Bytes of a place in an array, with a number or a short text in it."""
ENTRY: Final = 160
"""The same of an object, with a key of its own."""
WIDE: Final = 4
"""Bytes of each character of a text that has one beyond Latin script."""
WORST: Final = 32
"""Bytes in memory for each of a text, at most: seven make `{"":1},`."""
MANY: Final = 4096
"""Values that are counted one by one: less than a millisecond. Of more, the worst is thought."""


def of_value(value: object, size: int) -> int:
    """Of a value whose text has `size` bytes. What is no array or object takes what its text does."""
    waiting: list[Any] = [value] if type(value) in _CONTAINERS else []
    found, number = size, 0
    while waiting:
        one = waiting.pop()
        is_object = type(one) is dict
        number += 1 + len(one)
        if number > MANY:
            return size * WORST
        found += CONTAINER + len(one) * (ENTRY if is_object else ITEM)
        for each in one.values() if is_object else one:
            kind = type(each)
            if kind in _CONTAINERS:
                waiting.append(each)
            elif kind is str and not each.isascii():
                found += WIDE * len(each)
    return found


def of_text(text: bytes, turn: Turn) -> int:
    """Of what a text will be, `turn` being called now and then. What stands in strings is counted too."""
    found = 0
    for start in range(0, len(text), WINDOW):
        window = text[start : start + WINDOW]
        is_narrow = window.isascii() and b"\\u" not in window
        found += len(window) * (1 if is_narrow else WIDE)
        found += (window.count(b"[") + window.count(b"{")) * CONTAINER
        found += window.count(b",") * ITEM + window.count(b":") * ENTRY
        turn()
    return found


_CONTAINERS: Final = frozenset({dict, list})
