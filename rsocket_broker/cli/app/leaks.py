"""`rsocket-broker app leaks`: what LeakCanary finds in an app."""

import click

from rsocket_broker.cli.app.shared import after_option, ask, client_option, show_rows
from rsocket_broker.cli.context import Context, Number
from rsocket_broker.cli.render import json_option, note, print_json

PLUGIN = "LeakCanary"
GRACE_S = 30.0
"""Seconds for the answer, on top of the time to settle."""


@click.group()
def leaks() -> None:
    """Memory leaks of an Android app, as its LeakCanary tells of them.

    \b
    Examples:
      rsocket-broker app leaks list
      rsocket-broker app leaks gate --settle 10 --allow "com.vendor."
    """


@leaks.command("list")
@after_option
@client_option
@json_option
@click.pass_obj
def list_(obj: Context, after: int, client: str | None, as_json: bool) -> None:
    """The leaks that were found in this session of the app, oldest first. --json has their paths and texts.

    \b
    Example:
      rsocket-broker app leaks list --json
    """
    found = ask(obj, client, PLUGIN, "list", {"after": after, "details": as_json})
    if as_json:
        print_json(found)
    elif not found["leaks"]:
        note("There is no leak.")
    else:
        rows = [[one["number"], one["title"], one["retained"], len(one["path"])] for one in found["leaks"]]
        show_rows(rows, ["NUMBER", "TITLE", "RETAINED", "PATH"])


@leaks.command()
@click.option(
    "--allow", multiple=True, metavar="TEXT", help="Let leaks through whose title holds this. May be repeated."
)
@click.option(
    "--settle",
    type=Number(min=0, max=300),
    default=0.0,
    metavar="S",
    help="Seconds to wait for LeakCanary before looking.",
)
@after_option
@client_option
@click.pass_obj
def gate(obj: Context, allow: tuple[str, ...], settle: float, after: int, client: str | None) -> None:
    """Exit with 1, naming them, when there are leaks that are not allowed.

    \b
    Example:
      rsocket-broker app leaks gate --settle 10
    """
    params = {"allow": list(allow), "settle": settle, "after": after}
    found = ask(obj, client, PLUGIN, "gate", params, patience=settle + GRACE_S)
    note(f"There is no leak that is not allowed ({found['allowed']} that are).")
