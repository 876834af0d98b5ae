"""`rsocket-broker clients record` and `replay`: a session in a file, and a file as a session."""

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import click

from rsocket_broker import jsontext
from rsocket_broker.admin.client import follow
from rsocket_broker.cli.context import Context, Number
from rsocket_broker.cli.render import cell, note
from rsocket_broker.errors import HomeError
from rsocket_broker.files import new_file

TELL_S = 0.5
"""Seconds between two words on how far a recording has come."""


class Writing:
    """Lines into a file, and how many, on stderr: over and over on a terminal, at the end elsewhere."""

    def __init__(self, begin: Callable[[], BinaryIO]) -> None:
        """`begin` opens the file, when there is something to write."""
        self._begin = begin
        self._file: BinaryIO | None = None
        self._told = 0.0
        self.messages = self.size = self.left_out = 0

    def take(self, item: dict[str, Any]) -> None:
        if self._file is None:
            self._file = self._begin()
        self.size += self._file.write(jsontext.dump(item) + b"\n")
        self._file.flush()  # whatever ends this process, what was said is in the file
        self.messages += "kind" in item
        self.left_out += item.get("dropped", 0)
        if sys.stderr.isatty() and time.monotonic() - self._told >= TELL_S:
            self._told = time.monotonic()
            click.echo(f"\r{self.words()}", nl=False, err=True)

    def words(self) -> str:
        missing = f", {self.left_out} left out since they came too fast" if self.left_out else ""
        return f"{self.messages} messages, {self.size} bytes{missing}"


@click.command()
@click.argument("client", metavar="CLIENT")
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@click.pass_obj
def record(obj: Context, client: str, file: Path) -> None:
    """Write down what a client and the plugins say to each other, until it leaves or Ctrl-C. See `replay`.

    FILE must not exist; only you can read it, for it holds everything that the app says: passwords, tokens, what its
    user types. That a recording was begun stands in the audit log.

    \b
    Example:
      rsocket-broker clients record com.example.app checkout.jsonl
    """
    try:
        with contextlib.ExitStack() as stack:
            writing = Writing(lambda: stack.enter_context(new_file(file)))
            with contextlib.suppress(KeyboardInterrupt):
                follow(obj.home, "clients.record", {"client": client}, writing.take)
    except FileExistsError as error:
        raise HomeError(f"{file} exists already. Name another file, or take it away first.") from error
    except OSError as error:
        raise HomeError(f"{file} cannot be written: {error.strerror}.") from error
    start = "\r" if sys.stderr.isatty() else ""  # over the words that are there already
    note(f"{start}{writing.words()} in {file}")


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--speed", type=Number(min=0), default=1.0, show_default=True, metavar="N", help="Times as fast; 0 is at once."
)
@click.option("--once", is_flag=True, help="Leave when everything is said, rather than stay for calls until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs: one object a line.")
@click.pass_obj
def replay(obj: Context, file: Path, speed: float, once: bool, as_json: bool) -> None:
    """Be the app of a recording: the plugins of the running broker are served as if it were connected, with no device.

    What the app told comes again at the same pace; what it answered it answers again to the same questions. It has
    proved nothing this time, so `clients list` shows it as unverified, and of the policy's rules those for
    kind = "unverified" are about it.

    \b
    Examples:
      rsocket-broker clients replay checkout.jsonl
      rsocket-broker clients replay checkout.jsonl --speed 0 --once
    """
    params = {"path": str(file.absolute()), "speed": speed, "stay": not once}
    with contextlib.suppress(KeyboardInterrupt):
        follow(obj.home, "clients.replay", params, lambda item: tell(item, as_json, once))


def tell(item: dict[str, Any], as_json: bool, once: bool) -> None:
    if as_json:
        click.echo(json.dumps(item))
    elif item["event"] == "connected":
        click.echo(f"{cell(item['client'])} is {cell(item['app'])} of the recording, {item['messages']} messages")
    elif item["event"] == "over":
        click.echo("everything is said" if once else "everything is said; it stays for calls until Ctrl-C")
    else:
        click.echo(f"the session has ended: {cell(item['why'])}")
