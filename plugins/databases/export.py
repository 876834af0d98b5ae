"""Rows as text for a file: CSV, JSON, or JSON with a row to a line. Made piece by piece, from page after page."""

import json
from collections.abc import Sequence

from rsocket_broker.plugins.databases.values import Row, Value

FORMATS = ("csv", "json", "jsonl")


class Writer:
    """Writes one table: `begin`, `rows` for each page, `end`."""

    def __init__(self, kind: str, columns: Sequence[str]) -> None:
        """`kind` is one of FORMATS."""
        self._kind = kind
        self._columns = list(columns)
        self._first = True

    def begin(self) -> str:
        if self._kind == "csv":
            return _line(self._columns)
        return "[" if self._kind == "json" else ""

    def rows(self, found: Sequence[Row]) -> str:
        if self._kind == "csv":
            return "".join(_line(row) for row in found)
        lines = [json.dumps(dict(zip(self._columns, row, strict=True)), ensure_ascii=False) for row in found]
        if self._kind == "jsonl":
            return "".join(f"{line}\n" for line in lines)
        between = "\n" if self._first else ",\n"
        self._first = self._first and not lines
        return between + ",\n".join(lines) if lines else ""

    def end(self) -> str:
        return "\n]\n" if self._kind == "json" else ""


def _line(row: Sequence[Value]) -> str:
    """RFC 4180. Nothing at all is null, and a text without characters has its quotes."""
    return ",".join(map(_cell, row)) + "\r\n"


def _cell(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        value = f"X'{value['hex']}'" if "hex" in value else value.get("text", "")
    text = str(value)
    if not text or any(char in text for char in ',"\r\n') or text != text.strip():
        return '"' + text.replace('"', '""') + '"'
    return text
