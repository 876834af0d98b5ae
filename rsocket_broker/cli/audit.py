"""`rsocket-broker audit …`: the record of what was done and refused. Works on the home alone, broker or not."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from rsocket_broker.audit import Event, exported, reading
from rsocket_broker.audit.audit import to_text
from rsocket_broker.audit.chain import Entry, Head, Mark, Verdict, content
from rsocket_broker.audit.reading import Wanted
from rsocket_broker.cli import render
from rsocket_broker.cli.context import Context, WholeNumber
from rsocket_broker.durations import parse_duration
from rsocket_broker.errors import ConfigurationError, HomeError
from rsocket_broker.files import PRIVATE_FILE
from rsocket_broker.identity import NO_DEVICE
from rsocket_broker.moments import parse_moment, utc_now
from rsocket_broker.state import STATE_FILE, State

POLL_S = 0.5
"""Between two looks at the database with --follow: what is noted is there after a quarter of a second."""
FIRST, WHOLE = ("app_id", "device_id"), "client"
"""Facts that have a column of their own: a client in parts, or in one."""
EMPTY: tuple[object, ...] = (None, "", [])
"""What a fact says that says nothing; only --json shows it."""


class When(click.types.StringParamType):
    """A date and time (ISO 8601; in UTC where it names no zone), or how long ago: 10m, 2h, 7d."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, datetime):
            return value
        with contextlib.suppress(ConfigurationError):
            return utc_now() - parse_duration(value)
        try:
            return parse_moment(value)
        except ConfigurationError:
            self.fail(f'"{value}" is neither a date (2026-03-01 or 2026-03-01T12:00Z) nor an age (10m, 2h, 7d).')


class MarkType(click.types.StringParamType):
    """BOOK:NUMBER:HASH, as `audit verify` prints it."""

    name = "mark"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return value if isinstance(value, Mark) else Mark.parse(value)
        except ValueError:
            self.fail(f'"{value}" is no BOOK:NUMBER:HASH, as `rsocket-broker audit verify` prints it.')


@click.group()
def audit() -> None:
    """The record of what was done and refused here. All of it works with and without a broker.

    Each record holds the hash of the one before it, so what is changed, dropped or moved afterwards shows.

    \b
    Examples:
      rsocket-broker audit list --event call-refused --since 1h
      rsocket-broker audit verify
      rsocket-broker audit export --out audit.jsonl
    """


@audit.command("list")
@click.option(
    "--event",
    "events",
    multiple=True,
    type=click.Choice([event.value for event in Event]),
    metavar="KIND",
    help="Only records of this kind (repeatable): " + ", ".join(event.value for event in Event) + ".",
)
@click.option("--since", type=When(), metavar="WHEN", help="Not before this: a date, or an age as 10m, 2h or 7d.")
@click.option("--client", metavar="ID", help="Only records about this client: APP_ID[@DEVICE_ID].")
@click.option(
    "--limit", type=WholeNumber(min=1), default=50, show_default=True, metavar="N", help="The newest N records."
)
@click.option("--follow", is_flag=True, help="Go on with each new record, until Ctrl-C.")
@render.json_option
@click.pass_obj
def list_(
    context: Context,
    events: tuple[str, ...],
    since: datetime | None,
    client: str | None,
    limit: int,
    follow: bool,
    as_json: bool,
) -> None:
    """Show the newest records, the last one at the end. With --follow and --json: one JSON object a line.

    \b
    Examples:
      rsocket-broker audit list --client com.example.app --limit 10
      rsocket-broker audit list --event revoke --event rotate --json
    """
    wanted = wanted_of(events, since, client)
    with opened(context.home) as state:
        seen = reading.ends(state) if follow else {}
        found = reading.newest(state, wanted, limit)
        if follow:
            with contextlib.suppress(KeyboardInterrupt):
                follow_records(state, wanted, found, seen, show_line if not as_json else print_line)
        elif as_json:
            render.print_json([described(each) for each in found])
        elif found:
            render.table([row_of(each) for each in found], ["TIME", "EVENT", "CLIENT", "FACTS"])
        else:
            render.note("There is no such record.")


@audit.command()
@click.argument("file", required=False, type=click.Path(allow_dash=True, path_type=Path))
@click.option(
    "--mark",
    "marks",
    multiple=True,
    type=MarkType(),
    metavar="BOOK:NUMBER:HASH",
    help="A mark that was printed before and kept elsewhere (repeatable): must still be true.",
)
@render.json_option
@click.pass_obj
def verify(context: Context, file: Path | None, marks: tuple[Mark, ...], as_json: bool) -> None:
    """Check the whole record of this home, or, with FILE, one that was exported (- reads stdin).

    Names the first record of each book that was changed, dropped or moved, and then exits 1. Prints a mark for each
    book. Who can write the database can also write it anew as a whole: keep a mark elsewhere, and give it here later.

    \b
    Examples:
      rsocket-broker audit verify
      rsocket-broker audit verify audit.jsonl
    """
    if file is None:
        with opened(context.home) as state:
            verdict = reading.verify(state, marks)
    else:
        with read_lines(file) as lines:
            verdict = exported.verify_lines(lines, marks)
    tell(verdict, as_json)
    if verdict.faults:
        raise click.exceptions.Exit(1)


@audit.command()
@click.option("--out", type=click.Path(allow_dash=True, path_type=Path), default="-", metavar="FILE", show_default=True)
@click.pass_obj
def export(context: Context, out: Path) -> None:
    """Write the whole record as lines of JSON. `audit verify FILE` checks them anywhere, without this home.

    \b
    Example:
      rsocket-broker audit export --out audit.jsonl
    """
    with opened(context.home) as state:
        lines = (exported.line_of(item) + "\n" for item in reading.everything(state))
        if str(out) == "-":
            for line in lines:
                click.echo(line, nl=False)
        else:
            write_lines(out, lines)


@contextlib.contextmanager
def opened(home: Path) -> Iterator[State]:
    """The home's database. Raises HomeError where there is none."""
    if not (home / STATE_FILE).exists():
        raise HomeError(f"{home} holds no record yet: nothing was done there. Make a home: rsocket-broker ca init")
    with State.open(home / STATE_FILE) as state:
        reading.prepare(state)
        yield state


def wanted_of(events: tuple[str, ...], since: datetime | None, client: str | None) -> Wanted:
    app_id, at, device_id = (client or "").partition("@")
    device = ("" if device_id == NO_DEVICE else device_id) if at else None
    return Wanted(events, to_text(since) if since else "", app_id or None, device)


def follow_records(
    state: State, wanted: Wanted, found: list[Entry], seen: dict[Any, int], show: Callable[[Entry], None]
) -> None:
    """Show what is there and then what comes. Ends by an exception."""
    while True:
        for each in found:
            show(each)
        sys.stdout.flush()
        time.sleep(POLL_S)
        found = reading.later(state, wanted, seen)


def described(entry: Entry) -> dict[str, Any]:
    """A record as JSON."""
    return {**content(entry), "hash": entry.hash}


def row_of(entry: Entry) -> list[str]:
    facts = content(entry).get("facts") or {}
    client = "@".join(str(facts[name]) for name in FIRST if facts.get(name)) or str(facts.get(WHOLE, ""))
    apart = (*FIRST, WHOLE)
    others = (
        f"{name}={value_text(value)}" for name, value in facts.items() if name not in apart and value not in EMPTY
    )
    return [entry.time, entry.event, client, "  ".join(others)]


def value_text(value: object) -> str:
    return ",".join(map(value_text, value)) if isinstance(value, list) else render.cell(value)


def show_line(entry: Entry) -> None:
    click.echo("  ".join(render.cell(value) for value in row_of(entry)))


def print_line(entry: Entry) -> None:
    click.echo(json.dumps(described(entry)))


def tell(verdict: Verdict, as_json: bool) -> None:
    """What was found out: a line for each book."""
    faults = {fault.book: fault for fault in verdict.faults}
    if as_json:
        render.print_json(
            {
                "sound": not faults,
                "books": [book_json(head) for head in verdict.heads],
                "faults": [
                    {"book": each.book.value, "number": each.number, "reason": each.reason} for each in verdict.faults
                ],
            }
        )
        return
    for head in verdict.heads:
        if head.book not in faults:
            count = head.count - head.base
            trimmed = f", from {head.base + 1} on" if head.base else ""
            click.echo(f"ok    {head.book.value}: {count} records{trimmed}; mark {mark_of(head)}")
    for fault in verdict.faults:
        click.echo(f"FAIL  {fault}")


def book_json(head: Head) -> dict[str, object]:
    return {
        "book": head.book.value,
        "records": head.count - head.base,
        "trimmed": head.base,
        "mark": str(mark_of(head)),
    }


def mark_of(head: Head) -> Mark:
    return Mark(head.book, head.count, head.hash)


@contextlib.contextmanager
def read_lines(file: Path) -> Iterator[Iterable[str]]:
    """The lines of a file or of stdin; bytes that are no text stay what they were, and so are found out."""
    source = sys.stdin.fileno() if str(file) == "-" else file
    try:
        with open(source, encoding="utf-8", errors="surrogateescape", newline="\n", closefd=source is file) as lines:
            yield lines
    except OSError as error:
        raise HomeError(f"{file} cannot be read: {error.strerror}.") from error


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Lines into a file; a new one has mode 0600, for they name apps, devices and methods."""
    count = 0
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as out:
            for count, line in enumerate(lines, 1):  # noqa: B007  (how many there were)
                out.write(line)
    except OSError as error:
        raise HomeError(f"{path} cannot be written: {error.strerror}.") from error
    render.note(f"Wrote {count} lines to {path}. Check them anywhere with: rsocket-broker audit verify {path}")
