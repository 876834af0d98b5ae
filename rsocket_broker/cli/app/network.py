"""`rsocket-broker app network`: what an app asks of its servers."""

import click

from rsocket_broker.cli.app.shared import ask, client_option, show_rows
from rsocket_broker.cli.context import Context
from rsocket_broker.cli.render import json_option, print_json

PLUGIN = "Network"


@click.group()
def network() -> None:
    """The HTTP traffic of an app, as its network plugin tells it.

    \b
    Example:
      rsocket-broker app network list
    """


@network.command("list")
@client_option
@json_option
@click.pass_obj
def list_(obj: Context, client: str | None, as_json: bool) -> None:
    """The newest exchanges of an app.

    \b
    Example:
      rsocket-broker app network list --json
    """
    found = ask(obj, client, PLUGIN, "list")
    if as_json:
        print_json(found)
        return
    columns = ("number", "method", "status", "state", "duration", "response_bytes", "url")
    show_rows(([row[name] for name in columns] for row in found["exchanges"]), [name.upper() for name in columns])
