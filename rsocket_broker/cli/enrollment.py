"""`rsocket-broker enrollment`: who may enrol, from when to when, and with what."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from rsocket_broker.admin.client import ask
from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.audit import Audit
from rsocket_broker.cli.approvals import approvals
from rsocket_broker.cli.context import Context, Duration, WholeNumber
from rsocket_broker.cli.pairing import pair
from rsocket_broker.cli.render import cell, facts, json_option, note, print_json, table
from rsocket_broker.durations import show_duration
from rsocket_broker.enrollment.grants import MAX_USES, Grants
from rsocket_broker.enrollment.window import MAX_USES as MAX_WINDOW
from rsocket_broker.errors import HomeError
from rsocket_broker.files import write_private
from rsocket_broker.state import STATE_FILE, State

COLUMNS = ("id", "app_id", "device", "state", "used", "uses", "ends")


@click.group()
def enrollment() -> None:
    """Who may enrol: the window of `serve --enrollment window`, the grants of `serve --enrollment token`.

    \b
    Examples:
      rsocket-broker enrollment open --for 10m --uses 5
      rsocket-broker enrollment grant --app com.example.app --for 1h
      rsocket-broker enrollment approvals list
      rsocket-broker enrollment status
    """


@enrollment.command("open")
@click.option(
    "--for",
    "duration",
    type=Duration(),
    required=True,
    metavar="TIME",
    help="How long, such as 90s, 10m, 1h.",
)
@click.option(
    "--uses",
    type=WholeNumber(1, MAX_WINDOW),
    metavar="N",
    help="Close with the N-th certificate.  [default: as many as come in that time]",
)
@json_option
@click.pass_obj
def open_(obj: Context, duration: timedelta, uses: int | None, as_json: bool) -> None:
    """Open the port for enrolment for a time, in the place of a window that is open already.

    It closes by itself; whoever is connected then finishes, and sessions are not touched. A restart closes it too.

    \b
    Example:
      rsocket-broker enrollment open --for 10m --uses 1
    """
    params: dict[str, object] = {"seconds": duration.total_seconds()}
    found = ask(obj.home, "enrollment.open", params if uses is None else {**params, "uses": uses})
    if as_json:
        print_json(found)
    else:
        bound = "" if uses is None else f", for {uses} certificate{'s' if uses > 1 else ''}"
        note(f"Enrolment is open on port {shown_ports(found)} for {show_duration(duration)}{bound}.")


@enrollment.command()
@json_option
@click.pass_obj
def close(obj: Context, as_json: bool) -> None:
    """Close the window now. Enrolments that are under way finish; sessions are not touched.

    \b
    Example:
      rsocket-broker enrollment close
    """
    found = ask(obj.home, "enrollment.close")
    if as_json:
        print_json(found)
    else:
        note("Enrolment is closed." if found["changed"] else "No window was open.")


@enrollment.command()
@json_option
@click.pass_obj
def status(obj: Context, as_json: bool) -> None:
    """How apps come to their certificates at the moment.

    \b
    Example:
      rsocket-broker enrollment status
    """
    found = ask(obj.home, "enrollment.status")
    if as_json:
        print_json(found)
    else:
        facts(describe(found))


def shown_ports(found: dict[str, Any]) -> str:
    """Where apps enrol, from `enrollment.status`."""
    plain, web = found["insecure_port"], found["ws_insecure_port"]
    words = ([str(plain)] if plain else []) + ([f"{web} (WebSocket)"] if web else [])
    return " and ".join(words) or "closed"


def describe(found: dict[str, Any]) -> list[tuple[str, object]]:
    """`enrollment.status` as people read it."""
    window = found["window"]
    lines: list[tuple[str, object]] = [("mode", found["mode"]), ("port", shown_ports(found))]
    if window is not None:
        bound = window["issued"] if window["uses"] is None else f"{window['issued']} of {window['uses']}"
        left = show_duration(timedelta(seconds=window["seconds_left"]))
        lines += [("closes in", left), ("certificates", bound), ("under way", window["under_way"])]
    return lines


@enrollment.command()
@click.option("--app", "app_id", required=True, metavar="APP_ID", help="The app that may enrol with it.")
@click.option(
    "--device",
    metavar="DEVICE",
    help="The only device on which it may: its id in `clients list` or `ca list`, its adb serial number, or this "
    "machine's name.  [default: any]",
)
@click.option(
    "--for",
    "duration",
    type=Duration(),
    default="1h",
    show_default=True,
    metavar="TIME",
    help="How long it is good, such as 30m, 1h, 2d.",
)
@click.option(
    "--uses",
    type=WholeNumber(1, MAX_USES),
    default=1,
    show_default=True,
    metavar="N",
    help="How many certificates it is good for.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the token there, with mode 0600, instead of printing it.",
)
@json_option
@click.pass_obj
def grant(
    obj: Context, app_id: str, device: str | None, duration: timedelta, uses: int, out: Path | None, as_json: bool
) -> None:
    """Make a token that lets one app enrol, and print it. It is shown only now: what is kept does not tell it.

    Hand it to the app: `token=` in the Python SDK, or `rsocket-broker enroll --token-file`. A proof of it goes into the
    request for a certificate, never the token. It is used up by the certificate.

    \b
    Examples:
      rsocket-broker enrollment grant --app com.example.app --out ./token
      rsocket-broker enrollment grant --app com.example.app --device emulator-5554 --for 1d
    """
    if device == "":  # a variable of a script that is not set must not widen the grant to every device
        raise click.BadParameter("it is empty. Name a device, or leave --device out for any.", param_hint="'--device'")
    with _state(obj, create=True) as state:
        grants, now = _grants(obj, state), datetime.now(UTC)
        made, token = grants.make(app_id, now=now, life=duration, uses=uses, device=device or "")
        if out is not None:
            try:
                write_private(out, f"{token}\n".encode())
            except HomeError:
                grants.withdraw(made.id, now)  # nobody has its token
                raise
    shown = {} if out is not None else {"token": token}
    if as_json:
        print_json({**made.describe(made.made), **shown})
    else:
        for text in shown.values():
            click.echo(text)
        bound = "once" if uses == 1 else f"{uses} times"
        note(f"Grant {made.id}: good {bound}, for {show_duration(duration)}. The token is not shown again.")
    _warn_of_mode(obj)


@enrollment.command()
@json_option
@click.pass_obj
def grants(obj: Context, as_json: bool) -> None:
    """The grants there are, without their tokens, until 30 days after their end.

    \b
    Example:
      rsocket-broker enrollment grants
    """
    now = datetime.now(UTC)
    with _state(obj) as state:
        found = [each.describe(now) for each in _grants(obj, state).list()]
    if as_json:
        print_json(found)
    elif not found:
        note("There are no grants. Make one with: rsocket-broker enrollment grant --app APP_ID")
    else:
        table(([each[name] for name in COLUMNS] for each in found), [name.upper() for name in COLUMNS])


@enrollment.command()
@click.argument("id", metavar="ID")
@click.pass_obj
def withdraw(obj: Context, id: str) -> None:  # noqa: A002  what the column of `grants` is called
    """Make a grant worth nothing from now on. Certificates that it was used for stay good.

    \b
    Example:
      rsocket-broker enrollment withdraw 3fb2a1c09d4e
    """
    with _state(obj) as state:
        withdrawn = _grants(obj, state).withdraw(id, datetime.now(UTC))
    note(f"Withdrew the grant {cell(withdrawn.id)} of {cell(withdrawn.app_id)}.")


def _state(obj: Context, *, create: bool = False) -> State:
    """The database, also while a broker runs: it looks there at each enrolment. Raises HomeError for no home."""
    if not create and not (obj.home / STATE_FILE).exists():
        raise HomeError(f"{obj.home} is no home yet. Make it with: rsocket-broker serve")
    return State.open(obj.home / STATE_FILE)


def _grants(obj: Context, state: State) -> Grants:
    return Grants(obj.home, state, Audit(state))


def _warn_of_mode(obj: Context) -> None:
    """A token that nobody asks for is no lock: say so where a broker runs that lets in whoever comes."""
    if RunFolder(obj.home).ports() is None:
        return
    mode = ask(obj.home, "enrollment.status")["mode"]
    if mode != "token":
        note(f"Warning: the broker runs with --enrollment {mode}, and asks for no token, but for uploads (medium 2).")


enrollment.add_command(pair)
enrollment.add_command(approvals)
