"""Preferences as apps tell them, from JSON to values, and what may be written over what. Nothing here asks anybody.

Android   {"preferences": FILE, "name": KEY, "deleted": false, "time": 1718000000000, "value": V}
iOS       {"preferences": FILE, "name": KEY, "time": "1718000000000.123047", "value": V} or "deleted": "YES"
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from rsocket_broker.plugin_api import ApplicationError, Invalid
from rsocket_broker.plugin_api.lenient import flag, weight

MAX_FILES = 1000
"""Files of one app: real ones have a few dozen."""
MAX_NAME = 1000
"""Characters of a file's name or a key in a change that is kept."""
MAX_VALUE = 1024 * 1024
"""Bytes of memory that a value in such a change takes; apps are warned of preferences with a hundredth of that."""

File = dict[str, Any]
Files = dict[str, File]


class Change(NamedTuple):
    """A key has another value, or is gone. `key` None: the whole file was emptied. `time` in ms since 1970, or 0."""

    file: str
    key: str | None
    deleted: bool
    time: float
    value: Any

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return 200 + len(self.file) + len(self.key or "") + weight(self.value, MAX_VALUE)

    def shown(self, number: int) -> dict[str, Any]:
        """As JSON. `number` counts the changes of a session from 1."""
        return {"number": number, **self._asdict()}


def change(params: Mapping[str, Any]) -> Change:
    """Raises Invalid."""
    file, key = params.get("preferences"), params.get("name")
    if not isinstance(file, str) or not (key is None or isinstance(key, str)):
        raise Invalid("preferences and name: wanted texts.")
    if max(len(file), len(key or "")) > MAX_NAME:
        raise Invalid(f"preferences and name: wanted up to {MAX_NAME} characters.")
    gone = key is None or flag(params, "deleted")
    if not gone and weight(params.get("value"), MAX_VALUE) > MAX_VALUE:
        raise Invalid(f"value: more than {MAX_VALUE} bytes are not kept.")
    return Change(file, key, gone, _time(params.get("time")), None if gone else params.get("value"))


def _time(given: object) -> float:
    try:
        found = float(given) if isinstance(given, int | float | str) else 0.0
    except (ValueError, OverflowError):
        found = 0.0
    return found if math.isfinite(found) else 0.0


def files(answer: object) -> Files:
    """All files of an app. Raises ApplicationError."""
    if not isinstance(answer, dict) or len(answer) > MAX_FILES:
        raise ApplicationError("The app's answer is none that is understood: no files of preferences.")
    return {name: file(content) for name, content in answer.items()}


def file(answer: object) -> File:
    """The keys and values of one file. Raises ApplicationError."""
    if not isinstance(answer, dict):
        raise ApplicationError("The app's answer is none that is understood: no file of preferences.")
    return answer


def kind(value: object) -> str:
    """What Android calls the type of a value that it has told."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "whole number"
    if isinstance(value, float):
        return "number"
    return "text" if isinstance(value, str) else "object"


def check_android(name: str, content: File, key: str, value: object) -> None:
    """Whether an Android app can write a value: it keeps the type that a key has, and would make 0, false or "" of what
    does not fit. Raises Invalid, which says what would do."""
    if key not in content:
        raise Invalid(f'"{key[:100]}" is not in {name[:100]}: Android apps change keys that are there, and make none.')
    before, now = kind(content[key]), kind(value)
    fits = now == before or {before, now} == {"number", "whole number"}
    if not fits:
        raise Invalid(f'"{key[:100]}" of {name[:100]} is a {before}, and stays one: {now} is none.')


def same(wished: object, told: object) -> bool:
    """Whether an app tells the value that it was given; its floats have 32 bits."""
    if isinstance(wished, int | float) and isinstance(told, int | float) and not isinstance(wished, bool):
        return math.isclose(wished, told, rel_tol=1e-6, abs_tol=1e-12)
    return wished == told


class Difference(NamedTuple):
    """What has to be done to a file so that it is as another: values to set, keys to delete."""

    set: File
    delete: tuple[str, ...]


def difference(now: File, wished: File) -> Difference:
    """From one state of a file to another."""
    changed = {key: value for key, value in wished.items() if key not in now or not same(value, now[key])}
    return Difference(changed, tuple(key for key in now if key not in wished))
