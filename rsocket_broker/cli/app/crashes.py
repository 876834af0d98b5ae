"""`rsocket-broker app crashes`: what became of an app that is gone."""

from typing import Any

import click

from rsocket_broker.cli.app.shared import (
    after_option,
    ask,
    client_option,
    follow,
    moment,
    pick_any,
    safe,
    show_line,
    show_rows,
)
from rsocket_broker.cli.context import Context, Number
from rsocket_broker.cli.render import cell, json_option, note, print_json

PLUGIN = "CrashReporter"
PATIENCE_S = 100.0
"""Longer than `none` may settle, 60 seconds."""


@click.group()
def crashes() -> None:
    """Crashes of an app: as itself, its SDK, its device's log, or the crash reports of this Mac tell of them.

    The crashes of a client are kept over its sessions: it must have come back to be asked about.

    \b
    Examples:
      rsocket-broker app crashes list
      rsocket-broker app crashes follow --client com.example.shop
      rsocket-broker app crashes none --settle 2
    """


@crashes.command("list")
@after_option
@client_option
@json_option
@click.pass_obj
def list_(obj: Context, after: int, client: str | None, as_json: bool) -> None:
    """The crashes that are known, oldest first.

    \b
    Example:
      rsocket-broker app crashes list --json
    """
    found = ask(obj, pick_any(obj, PLUGIN, client), PLUGIN, "list", {"after": after})
    if as_json:
        print_json(found)
        return
    if found["problem"]:
        note(f"The device's log is not read: {found['problem']}")
    if not found["crashes"]:
        note("There is no crash.")
        return
    rows = [[one["number"], moment(one["time"]), one["source"], one["name"], one["reason"]] for one in found["crashes"]]
    show_rows(rows, ["NUMBER", "TIME", "SOURCE", "NAME", "REASON"])


@crashes.command("follow")
@after_option
@client_option
@json_option
@click.pass_obj
def follow_(obj: Context, after: int, client: str | None, as_json: bool) -> None:
    """Each crash with its call stack as it comes, until Ctrl-C. Those that are known come first.

    \b
    Example:
      rsocket-broker app crashes follow
    """
    params = {"after": after}
    follow(obj, pick_any(obj, PLUGIN, client), PLUGIN, "follow", params, show_line if as_json else show_crash)


@crashes.command("none")
@click.option("--settle", type=Number(min=0, max=60), default=0.0, metavar="S", help="Seconds for those who tell late.")
@after_option
@client_option
@click.pass_obj
def none(obj: Context, settle: float, after: int, client: str | None) -> None:
    """Exit with 1, naming them, when there are crashes.

    \b
    Example:
      rsocket-broker app crashes none --settle 2
    """
    params = {"after": after, "settle": settle}
    ask(obj, pick_any(obj, PLUGIN, client), PLUGIN, "none", params, patience=PATIENCE_S)
    note("There is no crash.")


def show_crash(crash: dict[str, Any]) -> None:
    """One crash in full."""
    click.echo(f"{crash['number']}  {moment(crash['time'])}  {crash['source']}  {cell(crash['name'])}")
    if crash["reason"] and crash["reason"] != crash["name"]:
        click.echo(f"  {cell(crash['reason'])}")
    for line in crash["callstack"].splitlines():
        click.echo(safe(f"    {line.strip()}"))
