"""What the commands below `rsocket-broker app` share: which client, asking its plugins, and showing what they say."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from rsocket_broker import jsontext
from rsocket_broker.admin import client as admin
from rsocket_broker.cli.context import Context
from rsocket_broker.cli.render import cell, table
from rsocket_broker.errors import ApplicationError
from rsocket_broker.observability.logs import UNSAFE

PATIENCE_S = 40.0
"""Longer than a plugin's handler may take, 30 seconds, so that its own word on a late answer is heard."""

client_option = click.option(
    "--client",
    metavar="CLIENT",
    help="A session's id, or APP_ID[@DEVICE_ID].  [default: the one client that has the plugin]",
)


def pick(obj: Context, plugin: str, client: str | None = None) -> str:
    """The client that is meant: `client` itself, or the one that has `plugin`. Raises ApplicationError."""
    if client is not None:
        return client
    found = [one for one in admin.ask(obj.home, "clients.list") if plugin in one["plugins"]]
    if len(found) == 1:
        return str(found[0]["id"])
    if not found:
        raise ApplicationError(
            f"No connected client has the plugin {plugin}. `rsocket-broker clients list` shows who is."
        )
    names = ", ".join(f"{cell(one['id'])} ({cell(one['app_id'])})" for one in found[:10])
    raise ApplicationError(f"{len(found)} clients have the plugin {plugin}: {names}. Name one with --client.")


def ask(
    obj: Context,
    client: str | None,
    plugin: str,
    method: str,
    params: Mapping[str, object] | None = None,
    *,
    patience: float = PATIENCE_S,
) -> Any:
    """What a plugin's method answers about a client, as JSON. Raises BrokerError in words for the user."""
    about = {"client": pick(obj, plugin, client), "plugin": plugin, "method": method, "params": dict(params or {})}
    return admin.ask(obj.home, "app.call", about, patience=patience)


def follow(
    obj: Context,
    client: str | None,
    plugin: str,
    method: str,
    params: Mapping[str, object] | None,
    show: Callable[[Any], object],
) -> None:
    """Calls `show` with each value that a plugin's method streams, until it ends or Ctrl-C."""
    about = {"client": pick(obj, plugin, client), "plugin": plugin, "method": method, "params": dict(params or {})}
    with contextlib.suppress(KeyboardInterrupt):
        admin.follow(obj.home, "app.follow", about, show)


def show_line(value: object) -> None:
    """One value as JSON on a line of its own, at once."""
    text = json.dumps(value, ensure_ascii=False)
    click.echo(UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", text))
    sys.stdout.flush()


def show_rows(rows: Iterable[Sequence[object]], headers: Sequence[str]) -> None:
    """A table: drawn on a terminal, aligned text elsewhere. Nothing in it can move the cursor."""
    if not sys.stdout.isatty():
        table(rows, headers)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for header in headers:
        drawn.add_column(header, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell(value)) for value in row))
    Console().print(drawn)


def json_value(text: str) -> object:
    """A value that was typed: JSON where it is JSON, else the text itself."""
    try:
        return jsontext.parse(text.encode("utf-8", "surrogateescape"))
    except jsontext.JsonError:
        return text
