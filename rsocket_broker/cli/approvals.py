"""`rsocket-broker enrollment approvals`: requests that wait for somebody to say yes to that very key."""

import sys
from datetime import timedelta
from typing import Any

import click

from rsocket_broker.admin.client import ask
from rsocket_broker.cli.context import Context
from rsocket_broker.cli.render import cell, json_option, note, print_json, table
from rsocket_broker.durations import show_duration

COLUMNS = ("id", "app_id", "device", "os", "peer", "medium", "state")


@click.group()
def approvals() -> None:
    """Requests of apps that nothing here can look into, and that have no token: they wait for you.

    What an app says of itself (its name, device and system) is not proven. Compare the fingerprint with what the app or
    its log shows, and approve nothing that you do not expect.

    \b
    Examples:
      rsocket-broker enrollment approvals list
      rsocket-broker enrollment approvals approve 5c1f09aa37e2b4d8
      rsocket-broker enrollment approvals refuse 5c1f09aa37e2b4d8
    """


@approvals.command("list")
@json_option
@click.pass_obj
def list_(obj: Context, as_json: bool) -> None:
    """The requests that wait, and those that were decided in the last 10 minutes.

    \b
    Example:
      rsocket-broker enrollment approvals list
    """
    found: list[dict[str, Any]] = ask(obj.home, "approvals.list")
    if as_json:
        print_json(found)
    elif not found:
        note("Nobody waits.")
    else:
        table(([each[name] for name in COLUMNS] for each in found), [name.upper() for name in COLUMNS])


@approvals.command()
@click.argument("id", metavar="ID")
@click.option(
    "--show-qr",
    is_flag=True,
    help="Show the key for the app's camera, for an iOS device that gets its certificates sealed.",
)
@json_option
@click.pass_obj
def approve(obj: Context, id: str, show_qr: bool, as_json: bool) -> None:  # noqa: A002  as the column is called
    """Let the request with this fingerprint be signed. Its first 16 digits are enough.

    It is used up by the certificate, and holds for 10 minutes.

    \b
    Examples:
      rsocket-broker enrollment approvals approve 5c1f09aa37e2b4d8
      rsocket-broker enrollment approvals approve 5c1f09aa37e2b4d8 --show-qr
    """
    found: dict[str, Any] = ask(obj.home, "approvals.approve", {"id": id, "show_key": show_qr})
    if as_json:
        print_json(found)
        return
    note(f"Approved {cell(found['app_id'])} from {cell(found['peer'])}.")
    if found["key"] is not None:
        show_key(found["key"])
    elif show_qr:
        note("That app needs no key.")
    if not found["on_the_line"]:
        left = show_duration(timedelta(seconds=found["seconds_left"]))
        note(f"It is not connected at the moment: it gets its certificate if it asks again within {left}.")


@approvals.command()
@click.argument("id", metavar="ID")
@json_option
@click.pass_obj
def refuse(obj: Context, id: str, as_json: bool) -> None:  # noqa: A002  as the column is called
    """Sign nothing for the request with this fingerprint. The app is told so.

    \b
    Example:
      rsocket-broker enrollment approvals refuse 5c1f09aa37e2b4d8
    """
    found: dict[str, Any] = ask(obj.home, "approvals.refuse", {"id": id})
    if as_json:
        print_json(found)
    else:
        note(f"Refused {cell(found['app_id'])} from {cell(found['peer'])}.")


def show_key(key: str) -> None:
    """The key as a QR code where there is a terminal to see it in, and as text.."""
    if sys.stdout.isatty():
        import segno  # loaded by the commands alone that show a code

        segno.make(key, error="m", micro=False).terminal(compact=True, border=2)
    click.echo(key)
    note("Scan it with the app. Whoever sees it can read the certificates on their way, so close it afterwards.")
