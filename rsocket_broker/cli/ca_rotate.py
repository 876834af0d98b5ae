"""`rsocket-broker ca rotate …`: from one generation of the authority to the next, step by step or all at once.

A broker that runs takes the steps itself and brings its clients along; without one they are taken on the home alone.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from rsocket_broker import spelling
from rsocket_broker.admin.client import ask, follow
from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.authority import Authority
from rsocket_broker.authority.rotation import Phase, Step
from rsocket_broker.cli import render
from rsocket_broker.cli.ca_shared import check_made, opened, passphrase_option, read_passphrase
from rsocket_broker.cli.context import Context, Number
from rsocket_broker.errors import AuthorityError
from rsocket_broker.lifecycle.standing import describe, named
from rsocket_broker.state import STATE_FILE, State

STATUS_S = 60.0
"""Seconds for an answer that reads the whole inventory."""
MAX_NAMED = 10
"""Clients that a line names before it says how many more there are; --json names all."""

Event = Mapping[str, Any]

without_option = click.option(
    "--without",
    metavar="CLIENT",
    multiple=True,
    help="Give up this client, APP[@DEVICE]; repeat for more. It must enrol again.",
)


@click.group(invoke_without_command=True)
@click.option("--auto", is_flag=True, help="Walk through all the steps, and wait for the clients in between.")
@click.option(
    "--patience",
    type=Number(min=0),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="With --auto: how long to wait for clients before it stops.",
)
@passphrase_option
@click.pass_context
def rotate(click_context: click.Context, auto: bool, patience: float, passphrase_file: Path | None) -> None:
    """Replace the CA by a new one, with a new key, while every client goes on being served.

    `prepare` makes the new generation and makes it known; `switch` lets it sign; `finish` drops the old one, and is
    refused while a client holds nothing but certificates of it. `rollback` takes one step back. A broker that runs on
    the home does it and brings its clients along.

    \b
    Examples:
      rsocket-broker ca rotate --auto
      rsocket-broker ca rotate status
    """
    if click_context.invoked_subcommand is not None:
        if auto:
            raise click.UsageError("--auto takes all the steps by itself: leave the step out.")
        return
    if not auto:
        raise click.UsageError("Name a step (prepare, switch, finish, rollback, status), or give --auto.")
    context: Context = click_context.obj
    show = Show()
    try:
        if runs(context.home):
            follow(context.home, "rotate.auto", {"patience": patience}, show)
        else:
            with alone(context.home, passphrase_file) as authority:
                walk_alone(authority, show)
    except KeyboardInterrupt:
        raise AuthorityError(
            "stopped. What was done stays, and nobody is refused for it. Go on: rsocket-broker ca rotate --auto"
            " (or take it back: rsocket-broker ca rotate rollback)"
        ) from None
    show.check_finished()


@rotate.command()
@render.json_option
@click.pass_obj
def status(context: Context, as_json: bool) -> None:
    """Say which generation signs, which are accepted, and who holds only certificates of the old one.

    \b
    Example:
      rsocket-broker ca rotate status --json
    """
    if runs(context.home):
        found: dict[str, Any] = ask(context.home, "rotate.status", patience=STATUS_S)
    else:
        with opened(context.home) as authority:
            found = describe(authority)
    if as_json:
        render.print_json(found)
    else:
        render.facts(status_facts(found))


@rotate.command()
@passphrase_option
@click.pass_obj
def prepare(context: Context, passphrase_file: Path | None) -> None:
    """Make the next generation, have the current one certify it, and make it known to the clients.

    \b
    Example:
      rsocket-broker ca rotate prepare
    """
    take(context.home, Step.PREPARE, passphrase_file)


@rotate.command()
@passphrase_option
@click.pass_obj
def switch(context: Context, passphrase_file: Path | None) -> None:
    """Let the new generation sign; what the old one signed stays good. Clients get new certificates.

    \b
    Example:
      rsocket-broker ca rotate switch
    """
    take(context.home, Step.SWITCH, passphrase_file)


@rotate.command()
@without_option
@passphrase_option
@click.pass_obj
def finish(context: Context, without: tuple[str, ...], passphrase_file: Path | None) -> None:
    """Drop the old generation, and destroy its key. Refused while clients hold only certificates of it.

    \b
    Examples:
      rsocket-broker ca rotate finish
      rsocket-broker ca rotate finish --without org.example.app@tablet-7
    """
    take(context.home, Step.FINISH, passphrase_file, without)


@rotate.command()
@without_option
@passphrase_option
@click.pass_obj
def rollback(context: Context, without: tuple[str, ...], passphrase_file: Path | None) -> None:
    """Take one step back: after `switch` the old generation signs again, after `prepare` the new one is dropped.

    \b
    Example:
      rsocket-broker ca rotate rollback
    """
    take(context.home, Step.ROLLBACK, passphrase_file, without)


def take(home: Path, step: Step, passphrase_file: Path | None, without: tuple[str, ...] = ()) -> None:
    """One step, by the broker that runs or on the home alone."""
    show = Show()
    if runs(home):
        params = {"without": list(without)} if without else {}
        follow(home, f"rotate.{step.value}", params, show)
        return
    with alone(home, passphrase_file) as authority:
        step_alone(authority, step, without, show)


def runs(home: Path) -> bool:
    check_made(home)
    return RunFolder(home).holder() is not None


@contextlib.contextmanager
def alone(home: Path, passphrase_file: Path | None) -> Iterator[Authority]:
    """The authority of a home on which no broker can start meanwhile. Raises HomeError when one runs."""
    folder = RunFolder(home)
    folder.acquire()
    try:
        with State.open(home / STATE_FILE) as state:
            yield Authority.open(home, state, hosts=None, passphrase=read_passphrase(passphrase_file))
    finally:
        folder.release()


def step_alone(authority: Authority, step: Step, without: tuple[str, ...], show: Callable[[Event], object]) -> None:
    match step:
        case Step.PREPARE:
            authority.prepare()
        case Step.SWITCH:
            authority.switch()
        case Step.FINISH | Step.ROLLBACK:
            dropped = authority.rotation.dropped_by(step)
            holders = [] if dropped is None else authority.holders(dropped)
            given_up = named(holders, without)
            if step is Step.FINISH:
                authority.finish(given_up)
            else:
                authority.rollback(given_up)
    show({"event": "phase", "step": step.value, **describe(authority)})


def walk_alone(authority: Authority, show: Callable[[Event], object]) -> None:
    """As far as it goes without a broker, which alone can bring clients along."""
    if authority.phase is Phase.STEADY:
        step_alone(authority, Step.PREPARE, (), show)
    if authority.phase is Phase.PREPARED:
        step_alone(authority, Step.SWITCH, (), show)
    rotation = authority.rotation
    if rotation.previous is not None and not authority.holders(rotation.previous):
        step_alone(authority, Step.FINISH, (), show)


class Show:
    """Shows the events of a rotation as they come: what counts on stdout, progress on a terminal."""

    def __init__(self) -> None:
        self.last: Event = {}
        """The last event that said in which phase the home is."""
        self._left: Event | None = None
        self._terminal = sys.stderr.isatty()

    def __call__(self, event: Event) -> None:
        match event["event"]:
            case "phase":
                self.last, self._left = event, None
                click.echo(phase_line(event))
            case "round":
                self._round(event)
            case "left":
                self._left = event
                self._wait(event)

    def check_finished(self) -> None:
        """Raises AuthorityError, which says how to go on, unless the walk has come to its end."""
        if self.last.get("phase") == Phase.STEADY.value:
            return
        clients = list(self._left["clients"]) if self._left else [each["client"] for each in self.last.get("left", ())]
        raise AuthorityError(
            f"{counted(len(clients), 'client')} {'holds' if len(clients) == 1 else 'hold'} only certificates of "
            f"generation {self.last.get('previous')}: {listed(clients)}. They are served as before, and brought along "
            "when they come. Go on with `rsocket-broker ca rotate --auto`, or give up those who never will: "
            "rsocket-broker ca rotate finish --without CLIENT"
        )

    def _round(self, event: Event) -> None:
        text = round_line(event["parts"])
        if event["over"]:
            self._clear()
            click.echo(f"clients   {text}")
            for part in event["parts"]:
                for fault in part["faults"]:
                    render.note(f"  failed: {render.cell(fault)}")
        else:
            self._progress(f"clients   {text}")

    def _wait(self, event: Event) -> None:
        if self._terminal:
            self._progress(f"waiting   for {counted(event['count'], 'client')}")
        elif event["count"]:
            click.echo(f"waiting   for {counted(event['count'], 'client')}: {listed(event['clients'])}")

    def _progress(self, text: str) -> None:
        if self._terminal:
            click.echo(f"\r\x1b[K{text}", nl=False, err=True)

    def _clear(self) -> None:
        self._progress("")


def phase_line(event: Event) -> str:
    """What has just been done."""
    current, following, previous = event["generation"], event["next"], event["previous"]
    match event["phase"], event["step"]:
        case ("prepared", "rollback"):
            return f"took back generation {current} signs again; generation {following} is still accepted"
        case ("prepared", None):
            return f"under way generation {current} signs; generation {following} is prepared"
        case ("prepared", _):
            return f"prepared  generation {following} is made and certified by generation {current}, which still signs"
        case ("switched", None):
            return f"under way generation {current} signs; generation {previous} is still accepted"
        case ("switched", _):
            return f"switched  generation {current} signs now; generation {previous} is still accepted"
        case ("steady", "rollback"):
            return f"took back generation {current} is alone again; the key of the other is destroyed"
        case _:
            return f"finished  generation {current} is alone; the key of the one before is destroyed"


def round_line(parts: list[Event]) -> str:
    said = [
        f"{part['what']}: " + ", ".join(f"{part[name]} {name}" for name in ("done", "later", "failed") if part[name])
        for part in parts
        if part["done"] or part["later"] or part["failed"]
    ]
    return "; ".join(said) or "all of them have what they need"


def status_facts(found: Event) -> list[tuple[str, object]]:
    clients = [each["client"] for each in found["left"]]
    facts: list[tuple[str, object]] = [
        ("phase", found["phase"]),
        ("since", found["since"]),
        ("generation that signs", found["generation"]),
        ("accepted beside it", found["next"] or found["previous"]),
    ]
    if found["phase"] != Phase.STEADY.value:
        facts.append(("clients with the old one only", f"{len(clients)}{': ' if clients else ''}{listed(clients)}"))
    if "bundle" in found:
        bundle, sessions = found["bundle"], found["sessions"]
        facts.append(("containers with the CAs of now", f"{bundle['have']} of {bundle['known']}"))
        live = ", ".join(f"{number}: {sessions[number]}" for number in sorted(sessions))
        facts.append(("sessions by generation", live))
        facts.append(("last round", round_line(found["round"]["parts"]) if found["round"]["parts"] else None))
    return facts


def listed(names: list[str]) -> str:
    return render.cell(spelling.listed(names, MAX_NAMED)) if names else ""


def counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
