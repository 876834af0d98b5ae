"""What an app says of its databases, from JSON to Python's types. Nothing here asks anybody.

    {"type": "null"}                              None
    {"type": "integer", "value": 5}               5, of up to 64 bits
    {"type": "float" | "double", "value": 0.5}    0.5
    {"type": "string", "value": "x"}              "x"
    {"type": "boolean", "value": true}            True
    {"type": "blob", "value": "text"}             {"text": "text"}: what the app makes of the bytes, not the bytes

The bytes themselves come by SQL, `hex(column)`; they are `{"hex": "00FF"}` then.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rsocket_broker.plugin_api import ApplicationError

Value = None | bool | int | float | str | dict[str, str]
Row = list[Value]

MAX_DATABASES = 1000
MAX_TABLES = 10_000
"""Databases of an app and tables of a database: real apps have a few dozen and a few hundred."""

_NOT_UNDERSTOOD = "The app's answer is none that is understood"


class Database(NamedTuple):
    """One database, as the app listed it just now: `id` is good until it lists them again."""

    id: int | str
    name: str
    tables: tuple[str, ...]

    def shown(self) -> dict[str, Any]:
        return {"id": str(self.id), "name": self.name, "tables": list(self.tables)}


def databases(answer: object) -> list[Database]:
    """The answer to databaseList. Raises ApplicationError."""
    listed = _list(answer, "list of databases")
    if len(listed) > MAX_DATABASES:
        raise ApplicationError(f"The app lists more than {MAX_DATABASES} databases.")
    return [_database(each) for each in listed]


def _database(each: object) -> Database:
    fields = _object(each, "database")
    number, name, tables = fields.get("id"), fields.get("name"), fields.get("tables") or []
    if not isinstance(number, int | str) or isinstance(number, bool) or not isinstance(name, str):
        raise ApplicationError(f"{_NOT_UNDERSTOOD}: a database without id or name.")
    found = _list(tables, "list of tables")
    return Database(number, name, tuple(str(table) for table in found[:MAX_TABLES]))


def rows(columns: object, values: object, width: int | None = None) -> tuple[list[str], list[Row]]:
    """Columns and rows of an answer, with so many columns where there are rows. Raises ApplicationError."""
    names = [str(name) for name in _list([] if columns is None else columns, "list of columns")]
    found = []
    for line in _list([] if values is None else values, "list of rows"):
        row = [value(each) for each in _list(line, "row")]
        if len(row) != len(names):
            raise ApplicationError(f"{_NOT_UNDERSTOOD}: a row of {len(row)} values under {len(names)} columns.")
        found.append(row)
    if found and width not in (None, len(names)):
        raise ApplicationError(f"{_NOT_UNDERSTOOD}: {len(names)} columns, where {width} were asked for.")
    return names, found


def value(given: object) -> Value:
    """One value. Raises ApplicationError."""
    if given is None or isinstance(given, bool | int | float | str):
        return given  # a driver of an app's own
    fields = _object(given, "value")
    kind, content = fields.get("type"), fields.get("value")
    if kind == "null" or content is None:
        return None
    reader = _READERS.get(str(kind))
    if reader is None:
        raise ApplicationError(f"{_NOT_UNDERSTOOD}: a value of an unknown type.")
    try:
        found: Value = reader(content)
    except (TypeError, LookupError, ValueError, OverflowError) as error:
        raise ApplicationError(f"{_NOT_UNDERSTOOD}: a value that is no {kind}.") from error
    return found


def _whole(content: Any) -> int | float:
    """Some drivers call every number an integer."""
    if isinstance(content, float) and not content.is_integer():
        return content
    return int(content)


def _broken(content: Any) -> float:
    """JSON has no place for what is no number, or without an end."""
    found = float(content)
    if not math.isfinite(found):
        raise ValueError
    return found


def _yes_or_no(content: Any) -> bool:
    if isinstance(content, str):
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[content.lower()]
    return bool(content)


def _text(content: Any) -> str:
    if isinstance(content, dict | list):
        raise TypeError
    return str(content)


def _number(content: Any) -> int | float:
    return content if isinstance(content, int | float) else _broken(content)


_READERS: Mapping[str, Any] = {
    "integer": _whole,
    "float": _broken,
    "double": _broken,
    "number": _number,
    "string": _text,
    "boolean": _yes_or_no,
    "blob": lambda content: {"text": _text(content)},
}


def named(columns: Sequence[str], found: Sequence[Row]) -> list[dict[str, Value]]:
    """Rows as objects, where each column has a name of its own."""
    return [dict(zip(columns, row, strict=True)) for row in found]


def whole_number(given: object) -> int | None:
    """A count in an answer; None for none."""
    if isinstance(given, str) and given.removeprefix("-").isdecimal() and len(given) <= 20:
        return int(given)
    return given if isinstance(given, int) and not isinstance(given, bool) else None


def fields_of(answer: object) -> Mapping[str, Any]:
    """An answer that must be an object. Raises ApplicationError."""
    return _object(answer, "object")


def _list(given: object, what: str) -> list[Any]:
    if not isinstance(given, list):
        raise ApplicationError(f"{_NOT_UNDERSTOOD}: no {what}.")
    return given


def _object(given: object, what: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ApplicationError(f"{_NOT_UNDERSTOOD}: no {what}.")
    return given
