"""`rsocket-broker listeners`: the switch of each port of the broker that runs."""

from typing import Any

import click

from rsocket_broker.admin.client import ask
from rsocket_broker.cli.context import Context
from rsocket_broker.cli.render import json_option, note, print_json, table

name_argument = click.argument("name", metavar="NAME")


@click.group()
def listeners() -> None:
    """The ports of the broker that runs: what is open, and a switch for each.

    NAME is insecure (enrolment), secure (sessions), ws_insecure and ws_secure (the same over WebSocket), http or
    browser. A closed port refuses every connection; whoever is connected stays. After a restart all are as `serve`
    says.

    \b
    Examples:
      rsocket-broker listeners list
      rsocket-broker listeners close ws_secure
      rsocket-broker listeners open ws_secure
    """


@listeners.command("list")
@json_option
@click.pass_obj
def list_(obj: Context, as_json: bool) -> None:
    """Every port: whether it is open, its number, and how many are connected through it.

    \b
    Example:
      rsocket-broker listeners list
    """
    found: list[dict[str, Any]] = ask(obj.home, "listeners.list")
    if as_json:
        print_json(found)
    else:
        columns = ("name", "open", "port", "connections")
        table(([each[name] for name in columns] for each in found), [name.upper() for name in columns])


@listeners.command("open")
@name_argument
@json_option
@click.pass_obj
def open_(obj: Context, name: str, as_json: bool) -> None:
    """Open a port again, on the number that it had.

    \b
    Example:
      rsocket-broker listeners open secure
    """
    found = ask(obj.home, "listeners.open", {"name": name})
    if as_json:
        print_json(found)
    else:
        word = "is open" if found["changed"] else "was open already"
        note(f"The listener {found['name']} {word}, on port {found['port']}.")


@listeners.command()
@name_argument
@json_option
@click.pass_obj
def close(obj: Context, name: str, as_json: bool) -> None:
    """Close a port: the system refuses whoever connects. Whoever is connected stays.

    The admin line, which this command uses, has no switch.

    \b
    Example:
      rsocket-broker listeners close http
    """
    found = ask(obj.home, "listeners.close", {"name": name})
    if as_json:
        print_json(found)
        return
    note(f"The listener {found['name']} {'is closed' if found['changed'] else 'was closed already'}.")
    if found["warning"]:
        note(f"Warning: {found['warning']}")
