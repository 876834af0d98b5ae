"""`rsocket-broker app logs`: what the device's own log says of an app."""

from typing import Any

import click

from rsocket_broker.cli.app.shared import ask, client_option, follow, moment, pick_any, show_line
from rsocket_broker.cli.context import Context, WholeNumber
from rsocket_broker.cli.render import cell, json_option, print_json
from rsocket_broker.plugin_api.device import LEVELS

PLUGIN = "DeviceLogs"

level_option = click.option(
    "--level", type=click.Choice(LEVELS), default=LEVELS[0], show_default=True, help="The least serious one."
)
tag_option = click.option(
    "--tag", "tags", multiple=True, metavar="TAG", help="Only this one. May be given several times."
)
contains_option = click.option("--contains", default="", metavar="TEXT", help="Only messages that hold this.")
whole_option = click.option(
    "--whole-device", is_flag=True, help="Of all apps, and of the system; the broker's settings must allow it."
)


@click.group()
def logs() -> None:
    """The log of the device that an app runs on: of Android devices on adb, and of simulators on this Mac.

    \b
    Examples:
      rsocket-broker app logs follow --level warn
      rsocket-broker app logs recent --limit 50 --json
    """


@logs.command("follow")
@level_option
@tag_option
@contains_option
@whole_option
@client_option
@json_option
@click.pass_obj
def follow_(
    obj: Context,
    level: str,
    tags: tuple[str, ...],
    contains: str,
    whole_device: bool,
    client: str | None,
    as_json: bool,
) -> None:
    """What the app's processes log from now on, until Ctrl-C.

    \b
    Example:
      rsocket-broker app logs follow --tag ActivityManager --whole-device
    """
    params = {"level": level, "tags": list(tags), "contains": contains, "whole_device": whole_device}
    follow(obj, pick_any(obj, PLUGIN, client), PLUGIN, "follow", params, show_line if as_json else show_entry)


@logs.command()
@click.option(
    "--limit",
    type=WholeNumber(min=1, max=5000),
    default=200,
    show_default=True,
    metavar="N",
    help="The newest N entries.",
)
@level_option
@tag_option
@contains_option
@whole_option
@client_option
@json_option
@click.pass_obj
def recent(
    obj: Context,
    limit: int,
    level: str,
    tags: tuple[str, ...],
    contains: str,
    whole_device: bool,
    client: str | None,
    as_json: bool,
) -> None:
    """The newest entries that the device still has, oldest first.

    \b
    Example:
      rsocket-broker app logs recent --level error
    """
    params = {"limit": limit, "level": level, "tags": list(tags), "contains": contains, "whole_device": whole_device}
    found = ask(obj, pick_any(obj, PLUGIN, client), PLUGIN, "recent", params)
    if as_json:
        print_json(found)
        return
    for entry in found["lines"]:
        show_entry(entry)


def show_entry(entry: dict[str, Any]) -> None:
    """One entry a line; its time in UTC."""
    at = moment(entry["time"] * 1000, "%H:%M:%S.%f")[:-3]
    shown = f"{at}  {entry['pid']:>6}  {entry['level']:<7}"
    click.echo(f"{shown}  {cell(entry['tag'])}: {cell(entry['message'])}")
