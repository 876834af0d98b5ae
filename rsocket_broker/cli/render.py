"""How results look: tables and plain lines for people, JSON for programs. Nothing a peer sent can move the cursor."""

import json
import re
from collections.abc import Iterable, Sequence

import click

from rsocket_broker.observability.logs import UNSAFE, visible

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def print_json(value: object) -> None:
    """`value` on stdout as indented JSON, readable as it is and by a program."""
    lines = json.dumps(value, indent=2, ensure_ascii=False).split("\n")
    click.echo("\n".join(UNSAFE.sub(_json_escape, line) for line in lines))


def _json_escape(match: re.Match[str]) -> str:
    """Such a character can only stand inside a JSON string, where this means the same to every parser."""
    return f"\\u{ord(match.group()):04x}"


def table(rows: Iterable[Sequence[object]], headers: Sequence[str]) -> None:
    """Rows on stdout under their headers, in columns as wide as they need; None is shown as `-`. A peer may have named
    the columns: those of a query are as its app calls them."""
    lines = [tuple(map(visible, headers)), *(tuple(map(cell, row)) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    for line in lines:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def cell(value: object) -> str:
    """One value as people read it, on one line."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return visible(", ".join(map(str, value))) or "-"
    return visible(str(value))


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values on stdout, one pair a line, the values in one column."""
    shown = [(name, cell(value)) for name, value in pairs]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{name.ljust(width)}  {value}")


def note(text: str) -> None:
    """Lines for people on stderr, so that they never mix with a command's result."""
    click.echo("\n".join(visible(line) for line in text.split("\n")), err=True)
