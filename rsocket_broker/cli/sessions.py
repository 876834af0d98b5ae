"""`rsocket-broker sessions`: the tree of sessions of the broker that runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from rsocket_broker.admin.client import ask
from rsocket_broker.cli.context import Context, Duration, Number
from rsocket_broker.cli.render import cell, facts, json_option, note, print_json, table
from rsocket_broker.sessions.login import AUDIENCES, HIGHEST_RATE, KINDS, LOWEST_RATE
from rsocket_broker.sessions.tree import outline

REVOKE_PATIENCE_S = 30.0
"""For the lines of ten thousand sessions to be cut."""


@click.group()
def sessions() -> None:
    """The tree of sessions: who let in whom, and ending it.

    SESSION is the id of a session or of its line, or APP_ID[@DEVICE_ID] that matches one session.

    \b
    Examples:
      rsocket-broker sessions list
      rsocket-broker sessions login com.example.app --name "test bench"
      rsocket-broker sessions revoke s-3f9c1b7a20d4
    """


@sessions.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that have ended in the last days.")
@json_option
@click.pass_obj
def list_(obj: Context, everything: bool, as_json: bool) -> None:
    """The sessions as a tree: below each the ones that it has made.

    LINE is the connection that a session has at the moment, as `clients list` shows it.

    \b
    Example:
      rsocket-broker sessions list --all
    """
    found: list[dict[str, Any]] = ask(obj.home, "sessions.list", {"all": everything})
    if as_json:
        print_json(found)
    elif not found:
        note("There is no session.")
    else:
        columns = ["SESSION", "KIND", "NAME", "USER", "CLIENT", "AUDIENCE", "LINE", "EXPIRES"]
        table(rows(found, everything=everything), [*columns, "ENDED"] if everything else columns)


def rows(found: Sequence[Mapping[str, Any]], *, everything: bool) -> list[list[object]]:
    """A row for each session, each below its parent and further to the right."""
    by_id = {each["id"]: each for each in found}
    lines: list[list[object]] = []
    for depth, session_id in outline({each["id"]: each["parent"] for each in found}):
        one = by_id[session_id]
        row: list[object] = ["  " * depth + cell(session_id)]
        row += [one[name] for name in ("kind", "name", "user", "client", "audience", "line", "expires")]
        lines.append(row + [_ended(one)] * everything)
    return lines


def _ended(one: Mapping[str, Any]) -> str | None:
    return None if one["ended"] is None else f"{one['ended']}: {one['reason']}"


@sessions.command()
@click.argument("session", required=False)
@click.option("--user", metavar="NAME", help="End all sessions of this user, and all below them.")
@json_option
@click.pass_obj
def revoke(obj: Context, session: str | None, user: str | None, as_json: bool) -> None:
    """End SESSION and all below it, at once, and print what was ended.

    Their tokens are refused from then on. A device's session may come back with its certificate; to end that too, use
    `ca revoke`.

    \b
    Examples:
      rsocket-broker sessions revoke s-3f9c1b7a20d4
      rsocket-broker sessions revoke --user anna
    """
    if (session is None) == (user is None):
        raise click.UsageError("Name a SESSION, or a user with --user.")
    about = {"id": session} if user is None else {"user": user}
    found: dict[str, Any] = ask(obj.home, "sessions.revoke", about, patience=REVOKE_PATIENCE_S)
    if as_json:
        print_json(found)
        return
    facts(
        (
            ("sessions ended", len(found["sessions"])),
            ("lines closed", found["lines"]),
            ("streams ended", found["streams"]),
            ("refused after", f"{found['refused_after_ms']} ms"),
            ("closed after", f"{found['closed_after_ms']} ms"),
        )
    )


@sessions.command()
@click.argument("session")
@click.option("--name", required=True, help="What the new session is called in lists.")
@click.option("--kind", type=click.Choice(KINDS), default="cli", show_default=True, help="What it is for.")
@click.option("--for", "life", type=Duration(), metavar="TIME", help="How long it may live, such as 1h.  [default: 8h]")
@click.option("--scope", multiple=True, metavar="PATTERN", help="What it may ask, such as Network.*; may be repeated.")
@click.option(
    "--rate",
    type=Number(min=LOWEST_RATE, max=HIGHEST_RATE),
    metavar="N",
    help="How many requests a second it may send.",
)
@click.option("--user", metavar="NAME", help="Whose session it is.")
@click.option(
    "--audience",
    type=click.Choice(tuple(AUDIENCES)),
    default="loopback",
    show_default=True,
    help="Where it may connect.",
)
@click.option("--device-id", metavar="ID", help="Where it runs, for lists.")
@click.option("--platform", metavar="NAME", help="On what it runs, for lists.")
@json_option
@click.pass_obj
def login(obj: Context, /, session: str, as_json: bool, **options: Any) -> None:
    """Make a session below SESSION, and print its token, this once.

    It can do no more than SESSION, and ends with it. The token goes into the SETUP of an RSocket connection as bearer
    authentication metadata.

    \b
    Example:
      rsocket-broker sessions login com.example.app --name bench --for 1h --scope 'Network.*'
    """
    found: dict[str, Any] = ask(obj.home, "sessions.login", {"parent": session, "wish": _wish(options)})
    if as_json:
        print_json(found)
        return
    scope = ", ".join(found["scope"])
    note(f"{found['id']} lives below {found['parent']} until {found['expires']}; it may ask: {cell(scope)}.")
    click.echo(found["token"])


def _wish(options: Mapping[str, Any]) -> dict[str, object]:
    life = options["life"]
    names = ("name", "kind", "rate", "user", "audience", "device_id", "platform")
    wish = {name: options[name] for name in names if options[name] is not None}
    wish |= {} if life is None else {"expires_in": life.total_seconds()}
    return wish | ({"scope": list(options["scope"])} if options["scope"] else {})
