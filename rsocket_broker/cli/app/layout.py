"""`rsocket-broker app layout`: what an app shows, by whichever of the two inspectors it has."""

import base64
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from rsocket_broker.admin import client as admin
from rsocket_broker.cli.app.shared import (
    ask,
    client_option,
    out_option,
    picture_option,
    show_rows,
    write_bytes,
    writing,
)
from rsocket_broker.cli.context import Context
from rsocket_broker.cli.render import cell, json_option, note, print_json
from rsocket_broker.errors import ApplicationError

GENERATIONS = ("ui-debugger", "Inspector")
"""The plugins that can be asked, the better one first."""


@click.group()
def layout() -> None:
    """What an app shows, as a tree of views, by the layout inspector that it has.

    The app's side is started by the first command and stopped after a minute without one: it costs the app a lot.

    \b
    Examples:
      rsocket-broker app layout tree
      rsocket-broker app layout find --text "Pay"
      rsocket-broker app layout snapshot --out screen.png
    """


@layout.command()
@client_option
@json_option
@click.pass_obj
def tree(obj: Context, client: str | None, as_json: bool) -> None:
    """The views, one a line, children below their parents.

    \b
    Example:
      rsocket-broker app layout tree
    """
    client, plugin = inspector(obj, client)
    found = ask(obj, client, plugin, "tree")
    if as_json:
        print_json(found)
        return
    for line in outline(found["root"]):
        click.echo(line)


@layout.command()
@click.option("--text", default="", help="A part of the text, or of what screen readers say; case does not matter.")
@click.option("--resource", default="", help="The developer's id.")
@click.option("--kind", default="", help="The class, with its package or without.")
@click.option("--exact", is_flag=True, help="The text is the whole text.")
@click.option("--hidden", is_flag=True, help="Views of pages that are not shown too.")
@client_option
@json_option
@click.pass_obj
def find(obj: Context, /, client: str | None, as_json: bool, **query: object) -> None:
    """The views that are so. Exits with 1 when there is none.

    \b
    Example:
      rsocket-broker app layout find --kind Button --text pay
    """
    client, plugin = inspector(obj, client)
    views = ask(obj, client, plugin, "find", query)["views"]
    if as_json:
        print_json(views)
    elif views:
        columns = ("id", "kind", "text", "resource", "label")
        rows = [[*(one[name] for name in columns), place(one["bounds"])] for one in views]
        show_rows(rows, [*(name.upper() for name in columns), "BOUNDS"])
    if not views:
        raise ApplicationError("The app shows no such view.")


@layout.command()
@click.option(
    "--form", type=click.Choice(["xml", "json"]), default="xml", show_default=True, help="JSON has all attributes."
)
@out_option
@client_option
@click.pass_obj
def dump(obj: Context, form: str, out: Path | None, client: str | None) -> None:
    """The whole tree as XML or JSON.

    \b
    Example:
      rsocket-broker app layout dump --form json --out screen.json
    """
    client, plugin = inspector(obj, client)
    found = ask(obj, client, plugin, "dump", {"form": form})
    with writing(out) as write:
        write(found["text"])


@layout.command()
@click.argument("view", metavar="[ID]", default="")
@picture_option
@client_option
@click.pass_obj
def snapshot(obj: Context, view: str, out: Path, client: str | None) -> None:
    """Write a picture (PNG) of one view, or of all that the app shows, into a file.

    \b
    Example:
      rsocket-broker app layout snapshot --out screen.png
    """
    client, plugin = inspector(obj, client)
    found = ask(obj, client, plugin, "snapshot", {"node_id": view})
    write_bytes(out, base64.b64decode(found["png"]))
    note(f"{out}: a picture of view {cell(found['id'])}.")


def inspector(obj: Context, client: str | None) -> tuple[str, str]:
    """The client that is meant, and which of its inspectors to ask. Raises ApplicationError."""
    if client is not None:
        plugins = admin.ask(obj.home, "clients.show", {"client": client})["plugins"]
        plugin = generation_of(plugins)
        if plugin is None:
            raise ApplicationError(f"{client} has no layout inspector: neither {' nor '.join(GENERATIONS)}.")
        return client, plugin
    return only_inspector(admin.ask(obj.home, "clients.list"))


def only_inspector(clients: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The one client of these that has an inspector, of whichever generation. Raises ApplicationError."""
    found = [(str(one["id"]), generation_of(one["plugins"])) for one in clients]
    able = [(client, plugin) for client, plugin in found if plugin is not None]
    if len(able) == 1:
        return able[0]
    if not able:
        raise ApplicationError(
            f"No connected client has a layout inspector: neither {' nor '.join(GENERATIONS)}. "
            "`rsocket-broker clients list` shows who is."
        )
    raise ApplicationError(
        f"{len(able)} clients have a layout inspector: {', '.join(client for client, _ in able[:10])}. "
        "Name one with --client."
    )


def generation_of(plugins: Collection[str]) -> str | None:
    """The inspector to ask of those that a client has."""
    return next((name for name in GENERATIONS if name in plugins), None)


def outline(root: dict[str, Any]) -> Iterator[str]:
    """The tree as lines."""
    waiting = [(0, root)]
    while waiting:
        depth, node = waiting.pop()
        parts = [str(node["kind"]).rpartition(".")[2] or "?", f"[{node['id']}]"]
        parts += [f"#{node['resource']}"] if node["resource"] else []
        parts += [f'"{node["text"]}"'] if node["text"] else []
        parts += ["(hidden)"] if not node["visible"] else []
        yield "  " * depth + cell(" ".join(parts))
        waiting.extend((depth + 1, child) for child in reversed(node["children"]))


def place(bounds: dict[str, float] | None) -> str:
    """A rectangle as people read it."""
    if bounds is None:
        return ""
    return f"{bounds['x']:g},{bounds['y']:g} {bounds['width']:g}x{bounds['height']:g}"
