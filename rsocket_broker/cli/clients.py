"""`rsocket-broker clients`: who is connected, and talking to them, through the broker that runs."""

from collections.abc import Sequence
from typing import Any

import click

from rsocket_broker import jsontext
from rsocket_broker.admin.client import ask
from rsocket_broker.cli.clients_record import record, replay
from rsocket_broker.cli.clients_tail import tail
from rsocket_broker.cli.context import Context, Number
from rsocket_broker.cli.render import cell, facts, json_option, note, print_json, table
from rsocket_broker.sessions.tree import outline

GRACE_S = 5.0
"""Longer than the app has for its answer, so that the broker's word on a late one is heard."""

client_argument = click.argument("client", metavar="CLIENT")


@click.group()
def clients() -> None:
    """Live sessions: who is connected, and talking to them.

    CLIENT is a session's id, or APP_ID[@DEVICE_ID] that matches one session.

    \b
    Examples:
      rsocket-broker clients list
      rsocket-broker clients call com.example.app Network getAll
      rsocket-broker clients tail com.example.app@device-1
    """


@clients.command("list")
@json_option
@click.pass_obj
def list_(obj: Context, as_json: bool) -> None:
    """Who is connected. Below a client stand the sessions that it has let in, if they are connected.

    \b
    Example:
      rsocket-broker clients list --json
    """
    found: list[dict[str, Any]] = ask(obj.home, "clients.list")
    if as_json:
        print_json(found)
    elif not found:
        note("No client is connected.")
    else:
        columns = ("id", "app", "app_id", "device", "device_id", "proof", "transport", "state", "plugins", "since")
        table(([row[name] for name in columns] for row in as_tree(found)), [name.upper() for name in columns])


def as_tree(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The clients, children below their parents with their ids further to the right."""
    by_node = {client["node"]: client for client in found}
    order = outline({client["node"]: client["parent"] for client in found})
    return [{**by_node[node], "id": "  " * depth + cell(by_node[node]["id"])} for depth, node in order]


@clients.command()
@client_argument
@json_option
@click.pass_obj
def show(obj: Context, client: str, as_json: bool) -> None:
    """All that is known about one client.

    Its counters begin with its session. Who stalls whom: stalled_seconds is how long this client kept us from writing,
    since it read too slowly or was away (fed_too_fast_by: who fed it then), held_seconds how long it was not read from
    for the sake of slower clients (held_for: which). bytes_waiting are ready for it, streams_waiting wait until it asks
    for more.

    \b
    Example:
      rsocket-broker clients show com.example.app
    """
    found: dict[str, Any] = ask(obj.home, "clients.show", {"client": client})
    if as_json:
        print_json(found)
    else:
        facts(found.items())


@clients.command()
@client_argument
@click.argument("plugin")
@click.argument("method")
@click.argument("params", metavar="[JSON]", default="{}")
@click.option(
    "--timeout",
    type=Number(min=0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Seconds that the app has for its answer.",
)
@click.pass_obj
def call(obj: Context, client: str, plugin: str, method: str, params: str, timeout: float) -> None:
    """Call METHOD of an app's PLUGIN with JSON parameters, and print the answer as JSON.

    The plugin is initialised in the app first where it is needed. Exits 1 with the app's own words if it answers
    with an error.

    \b
    Example:
      rsocket-broker clients call com.example.app Databases executeSql '{"value": "SELECT 1"}'
    """
    try:
        value = jsontext.parse(params.encode())
    except jsontext.JsonError as error:
        raise click.BadParameter(f"{error}.", param_hint="JSON") from error
    about = {"client": client, "plugin": plugin, "method": method, "params": value, "timeout": timeout}
    print_json(ask(obj.home, "clients.call", about, patience=timeout + GRACE_S))


@clients.command()
@client_argument
@click.option("--reason", default="closed by the operator", show_default=True, help="What the client is told.")
@click.pass_obj
def kick(obj: Context, client: str, reason: str) -> None:
    """Close a client's session. Its certificate stays good, so most clients come back.

    \b
    Example:
      rsocket-broker clients kick com.example.app --reason "test is over"
    """
    found = ask(obj.home, "clients.kick", {"client": client, "reason": reason})
    note(f"Closed the session {cell(found['id'])} of {cell(found['app_id'])}.")


for command in (tail, record, replay):
    clients.add_command(command)
