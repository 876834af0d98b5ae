"""What the commands below `rsocket-broker app` share: which client, asking its plugins, and showing what they say."""

import contextlib
import json
import re
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import click

from rsocket_broker import jsontext
from rsocket_broker.admin import client as admin
from rsocket_broker.cli.context import Context, WholeNumber
from rsocket_broker.cli.render import cell, table
from rsocket_broker.errors import ApplicationError, HomeError
from rsocket_broker.files import new_file
from rsocket_broker.observability.logs import UNSAFE

PATIENCE_S = 40.0
"""Longer than a plugin's handler may take, 30 seconds, so that its own word on a late answer is heard."""

client_option = click.option(
    "--client",
    metavar="CLIENT",
    help="A session's id, or APP_ID[@DEVICE_ID].  [default: the one client that has the plugin]",
)

after_option = click.option(
    "--after", type=WholeNumber(min=0), default=0, metavar="N", help="Only those with a higher number."
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
    raise ApplicationError(f"{len(found)} clients have the plugin {plugin}: {_names(found)}. Name one with --client.")


def pick_any(obj: Context, plugin: str, client: str | None = None) -> str:
    """As `pick`, for a plugin that serves apps without a side of it too: the one app where there is only one."""
    if client is not None:
        return client
    apps = [one for one in admin.ask(obj.home, "clients.list") if not one["parent"]]
    found = [one for one in apps if plugin in one["plugins"]] or apps
    if len(found) == 1:
        return str(found[0]["id"])
    if not found:
        raise ApplicationError("No app is connected. `rsocket-broker clients list` shows who is.")
    raise ApplicationError(f"{len(found)} apps are connected: {_names(found)}. Name one with --client.")


def _names(found: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{cell(one['id'])} ({cell(one['app_id'])})" for one in found[:10])


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
    *,
    whole: bool = False,
) -> None:
    """Calls `show` with each value that a plugin's method streams, until it ends or Ctrl-C, which is an end like any
    other unless the `whole` is wanted."""
    about = {"client": pick(obj, plugin, client), "plugin": plugin, "method": method, "params": dict(params or {})}
    with contextlib.nullcontext() if whole else contextlib.suppress(KeyboardInterrupt):
        admin.follow(obj.home, "app.follow", about, show)


def safe(text: str) -> str:
    """Text of an app's for stdout: as it is in a file or a pipe, without what acts on a terminal on one."""
    return _SAFE.sub(_escaped, text) if sys.stdout.isatty() else text


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match.group()):04x}"


_SAFE = re.compile(rf"(?![\t\n\r])(?:{UNSAFE.pattern})")


@contextlib.contextmanager
def writing(path: Path | None) -> Iterator[Callable[[str], object]]:
    """Where text goes: stdout, or a file that only its owner may read, which is there once all has been written.

    Raises HomeError for a file that cannot be written.
    """
    if path is None:
        yield lambda text: click.echo(safe(text), nl=False)
        return
    with _whole(path) as file:
        yield lambda text: file.write(text.encode("utf-8", "surrogatepass"))


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file that only its owner may read. Raises HomeError."""
    with _whole(path) as file:
        file.write(data)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        with new_file(part) as file:
            yield file
        part.rename(path)
    except OSError as error:
        raise HomeError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        part.unlink(missing_ok=True)


out_option = click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write into this file, which only you can read, and not to the terminal.",
)

picture_option = click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where it is written; only you can read it.",
)


def moment(milliseconds: float, pattern: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A time in ms since 1970 as people read it, in UTC; "-" for one that no calendar has, as apps may give."""
    try:
        return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):{pattern}}"
    except (ValueError, OverflowError, OSError):
        return "-"


def show_line(value: object) -> None:
    """One value as JSON on a line of its own, at once."""
    click.echo(UNSAFE.sub(_escaped, json.dumps(value, ensure_ascii=False)))
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
        drawn.add_column(Text(cell(header)), overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell(value)) for value in row))
    Console().print(drawn)


def json_value(text: str) -> object:
    """A value that was typed: JSON where it is JSON, else the text itself."""
    try:
        return jsontext.parse(text.encode("utf-8", "surrogateescape"))
    except jsontext.JsonError:
        return text
