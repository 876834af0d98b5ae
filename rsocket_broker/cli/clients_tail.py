"""`rsocket-broker clients tail`: the messages of one client as they pass, a line each or summed up in a live table."""

import contextlib
import fnmatch
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs
import click

from rsocket_broker.admin.client import follow
from rsocket_broker.cli.context import Context, WholeNumber
from rsocket_broker.cli.render import cell, json_option, note

if TYPE_CHECKING:
    from rich.table import Table

KINDS = (
    *("event", "call", "answer", "error", "send", "init", "deinit", "refreshPlugins", "error report"),
    *("stream", "channel", "push"),
    *("request-response", "fire-and-forget", "request-stream", "request-channel", "metadata-push"),
)
"""What a message can be: of Flipper's JSON, of what a plugin asks an app by routes, and of what comes by routes."""
RATE_S = 5.0
"""Seconds over which a rate is taken: long enough to be read, short enough to follow what a tap on the screen does."""
MAX_ROWS = 200
"""Kinds of messages in the table; what comes beyond them is counted in one row. Apps name their methods themselves."""
REFRESH_HZ = 4
OTHERS = "all others"


@attrs.frozen(slots=True)
class Filter:
    """Which messages are shown. Patterns have `*` and `?`; an empty one fits all."""

    plugin: str = ""
    method: str = ""
    kinds: tuple[str, ...] = ()
    direction: str = ""
    at_least: int = 0

    def fits(self, item: dict[str, Any]) -> bool:
        """Messages whose size is not known are as good as empty."""
        return (
            (not self.plugin or fnmatch.fnmatchcase(item["plugin"], self.plugin))
            and (not self.method or fnmatch.fnmatchcase(item["method"], self.method))
            and (not self.kinds or item["kind"] in self.kinds)
            and (not self.direction or item["direction"] == self.direction)
            and (item["bytes"] or 0) >= self.at_least
        )


@attrs.define(slots=True)
class Row:
    """The messages of one kind so far."""

    count: int = 0
    size: int = 0
    last: float = 0.0
    lately: deque[float] = attrs.field(factory=deque)

    def add(self, size: int, now: float) -> None:
        self.count += 1
        self.size += size
        self.last = now
        self.lately.append(now)

    def rate(self, now: float) -> float:
        while self.lately and self.lately[0] <= now - RATE_S:
            self.lately.popleft()
        return len(self.lately) / RATE_S


class Tally:
    """Messages summed up by direction, kind, plugin and method. Time is passed in, as seconds since 1970."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], Row] = {}
        self.dropped = 0

    def add(self, item: dict[str, Any], now: float) -> None:
        if "dropped" in item:
            self.dropped += item["dropped"]
            return
        key = arrow(item), item["kind"], name(item)
        if key not in self.rows and len(self.rows) >= MAX_ROWS:
            key = "", "", OTHERS
        self.rows.setdefault(key, Row()).add(item["bytes"] or 0, now)

    def table(self, now: float) -> "Table":
        """What changed last stands first."""
        from rich.table import Table
        from rich.text import Text

        dropped = f"{self.dropped} messages came too fast to be counted" if self.dropped else None
        found = Table(caption=dropped, expand=False)
        for heading in ("", "KIND", "WHAT"):
            found.add_column(heading, justify="left", overflow="ellipsis", no_wrap=True)
        for heading in ("COUNT", "PER SECOND", "BYTES", "LAST"):
            found.add_column(heading, justify="right", no_wrap=True)
        for key, row in sorted(self.rows.items(), key=lambda each: -each[1].last):
            shown = [
                *key,
                str(row.count),
                f"{row.rate(now):.1f}",
                str(row.size),
                f"{datetime.fromtimestamp(row.last):%X}",
            ]
            found.add_row(*map(Text, shown))
        return found


@click.command()
@click.argument("client", metavar="CLIENT")
@click.option(
    "--plugin", default="", metavar="PATTERN", help="Only messages of these plugins, such as Network or Net*."
)
@click.option("--method", default="", metavar="PATTERN", help="Only these methods and events, such as 'new*'.")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    metavar="KIND",
    help="Only this kind, such as event, call, answer, error or request-response. Repeatable.",
)
@click.option("--direction", type=click.Choice(["in", "out"]), help="Only what the app sent (in), or was sent (out).")
@click.option(
    "--at-least", type=WholeNumber(min=0), default=0, metavar="BYTES", help="Only messages of this size and more."
)
@click.option("--lines", is_flag=True, help="A line for each message also on a terminal, in place of the table.")
@json_option
@click.pass_obj
def tail(
    obj: Context,
    client: str,
    plugin: str,
    method: str,
    kinds: tuple[str, ...],
    direction: str | None,
    at_least: int,
    lines: bool,
    as_json: bool,
) -> None:
    """Follow the messages of a client, until it leaves or Ctrl-C. Shows their size, never what they say.

    On a terminal they are summed up in a table that follows them: how many of each kind, how fast, how large.
    Elsewhere, and with --lines, each is a line: the time, <- for what the app sent or -> for what it was sent, the
    kind, PLUGIN.METHOD and the size.

    \b
    Examples:
      rsocket-broker clients tail com.example.app
      rsocket-broker clients tail com.example.app --plugin Network --direction in --lines
      rsocket-broker clients tail com.example.app --at-least 1000000 --json
    """
    wanted = Filter(plugin, method, kinds, direction or "", at_least)
    with contextlib.suppress(KeyboardInterrupt):
        if as_json or lines or not sys.stdout.isatty():
            follow_all(obj, client, wanted, lambda item: show_message(item, as_json))
        else:
            show_table(obj, client, wanted)


def follow_all(obj: Context, client: str, wanted: Filter, show: Callable[[dict[str, Any]], object]) -> None:
    def pass_on(item: dict[str, Any]) -> None:
        if "dropped" in item or wanted.fits(item):
            show(item)

    follow(obj.home, "clients.tail", {"client": client}, pass_on)


def show_table(obj: Context, client: str, wanted: Filter) -> None:
    from rich.live import Live

    tally = Tally()
    with Live(get_renderable=lambda: tally.table(time.time()), refresh_per_second=REFRESH_HZ):
        follow_all(obj, client, wanted, lambda item: tally.add(item, time.time()))


def show_message(item: dict[str, Any], as_json: bool) -> None:
    """One message a line, as soon as it is there."""
    if as_json:
        click.echo(json.dumps(item))
    elif "dropped" in item:
        note(f"{item['dropped']} messages were left out: they came faster than they could be shown.")
    else:
        size = "" if item["bytes"] is None else f"  {item['bytes']} bytes"
        click.echo(f"{datetime.now():%H:%M:%S}  {arrow(item)}  {item['kind']:<8}  {name(item)}{size}")


def arrow(item: dict[str, Any]) -> str:
    return "->" if item["direction"] == "out" else "<-"


def name(item: dict[str, Any]) -> str:
    return cell(".".join(part for part in (item["plugin"], item["method"]) if part))
