"""`rsocket-broker app navigation`: where an app is, and going elsewhere."""

from typing import Any

import click

from rsocket_broker.cli.app.shared import after_option, ask, client_option, json_value, moment, pick_any, show_rows
from rsocket_broker.cli.context import Context, Number
from rsocket_broker.cli.render import cell, json_option, note, print_json

PLUGIN = "Navigation"
GRACE_S = 30.0
"""Longer than a device takes to open a link, on top of the time that the app has to say that it is there."""
HEADERS = ("NUMBER", "TIME", "URI", "SCREEN")


@click.group()
def navigation() -> None:
    """The screens of an app, as it tells of them, and driving it by deep links through its device.

    \b
    Examples:
      rsocket-broker app navigation current
      rsocket-broker app navigation open shop://cart
    """


@navigation.command()
@client_option
@json_option
@click.pass_obj
def current(obj: Context, client: str | None, as_json: bool) -> None:
    """Where the app is.

    \b
    Example:
      rsocket-broker app navigation current
    """
    found = ask(obj, pick_any(obj, PLUGIN, client), PLUGIN, "current")
    if as_json:
        print_json(found)
    elif found["visit"] is None:
        note("The app has told of no screen yet.")
    else:
        click.echo(f"{cell(found['visit']['uri'])}  {cell(found['visit']['screen'])}")


@navigation.command()
@after_option
@client_option
@json_option
@click.pass_obj
def history(obj: Context, after: int, client: str | None, as_json: bool) -> None:
    """The screens that the app has shown, oldest first.

    \b
    Example:
      rsocket-broker app navigation history --json
    """
    found = ask(obj, pick_any(obj, PLUGIN, client), PLUGIN, "history", {"after": after})
    if as_json:
        print_json(found)
    else:
        show_rows([row(visit) for visit in found["visits"]], HEADERS)


@navigation.command("open")
@click.argument("uri")
@click.option(
    "--value",
    "values",
    multiple=True,
    metavar="NAME=VALUE",
    help="Fill {NAME} in the link. May be given several times.",
)
@click.option("--expect", default="", metavar="URI", help="What the app tells of, where that is another URI or screen.")
@click.option(
    "--timeout",
    type=Number(min=0, max=600),
    default=10.0,
    show_default=True,
    metavar="S",
    help="Seconds that the app has to say that it is there; 0 does not wait.",
)
@client_option
@json_option
@click.pass_obj
def open_(
    obj: Context, uri: str, values: tuple[str, ...], expect: str, timeout: float, client: str | None, as_json: bool
) -> None:
    """Open a deep link in the app through its device, and wait until the app says that it is there.

    URI may be a template: {id} must be given, {?src} may be left out, {#n} is a number, {!on} a boolean.

    \b
    Examples:
      rsocket-broker app navigation open shop://cart
      rsocket-broker app navigation open 'shop://item/{#id}' --value id=3 --expect org.example.ItemActivity
    """
    params = {"uri": uri, "values": pairs(values), "expect": expect, "timeout": timeout}
    found = ask(obj, pick_any(obj, PLUGIN, client), PLUGIN, "open", params, patience=timeout + GRACE_S)
    if as_json:
        print_json(found)
    elif found["visit"] is None:
        note(f"Opened {cell(found['opened'])}.")
    else:
        show_rows([row(found["visit"])], HEADERS)


def pairs(values: tuple[str, ...]) -> dict[str, object]:
    """NAME=VALUE options as JSON. Raises BadParameter."""
    found: dict[str, object] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE.", param_hint="--value")
        found[name] = json_value(value)
    return found


def row(visit: dict[str, Any]) -> list[object]:
    """One visit as a table has it."""
    return [visit["number"], moment(visit["time"]), visit["uri"], visit["screen"]]
