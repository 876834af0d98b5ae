"""`rsocket-broker enrollment pair`: shows a code, and asks whether an app that came with it shows the same digits."""

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import click

from rsocket_broker.admin.client import AdminLine, admin_line
from rsocket_broker.cli.context import Context, Duration
from rsocket_broker.cli.prompt import Lines
from rsocket_broker.cli.render import cell, note
from rsocket_broker.durations import show_duration
from rsocket_broker.errors import BrokerError, RequestFailed
from rsocket_broker.jsontext import dump


@click.command()
@click.option("--app", "app_id", metavar="APP_ID", help="The only app that may come with it.  [default: any]")
@click.option(
    "--for",
    "duration",
    type=Duration(),
    default="5m",
    show_default=True,
    metavar="TIME",
    help="How long the code is good, up to 1h.",
)
@click.option(
    "--host",
    metavar="HOST",
    help="Under which name or address the app reaches this broker.  [default: as `serve` was told]",
)
@click.option("--json", "as_json", is_flag=True, help="Print each event as a line of JSON, and read y or n from stdin.")
@click.pass_obj
def pair(obj: Context, app_id: str | None, duration: timedelta, host: str | None, as_json: bool) -> None:
    """Show a code with which one app is paired, for release builds and devices that cannot be looked into.

    Scan the QR code with the app, or give the text below it to its SDK. Both sides then show the same digits; say yes
    here and there only if they are the same. The code is good for one app, and while this command runs.

    \b
    Examples:
      rsocket-broker enrollment pair
      rsocket-broker enrollment pair --app com.example.app --for 2m --host broker.example
    """
    params: dict[str, object] = {"seconds": duration.total_seconds()}
    params |= {name: value for name, value in {"app_id": app_id, "host": host}.items() if value}
    with contextlib.suppress(KeyboardInterrupt):
        if asyncio.run(_follow(obj, params, Desk(as_json=as_json))):
            return
        raise BrokerError("nobody was paired.")
    raise BrokerError("nobody was paired: the code is closed.")


async def _follow(obj: Context, params: Mapping[str, object], desk: "Desk") -> bool:
    """Whether an app was paired."""
    async with admin_line(obj.home) as line, contextlib.aclosing(line.stream("pairing.open", params)) as events:
        asking: asyncio.Task[None] | None = None
        async for event in events:
            desk.show(event)
            if event["event"] == "compare":
                asking = asyncio.create_task(desk.ask(line, event))
            elif event["event"] in ("failed", "enrolled") and asking is not None:
                asking.cancel()
    return desk.paired


class Desk:
    """The terminal that an operator sits at."""

    def __init__(self, *, as_json: bool) -> None:
        self.paired = False
        self._as_json = as_json
        self._code = ""
        self._lines: Lines | None = None

    def show(self, event: Mapping[str, Any]) -> None:
        self.paired = self.paired or event["event"] == "enrolled"
        self._code = event.get("code", self._code)
        if self._as_json:
            click.echo(dump(dict(event)))
            return
        if event["event"] == "open":
            show_code(event["text"], event["seconds"])
        elif (text := _TEXTS.get(event["event"])) is not None:
            note(text.format(**{name: cell(value) for name, value in event.items()}))

    async def ask(self, line: AdminLine, event: Mapping[str, Any]) -> None:
        """Asks about one app, and tells the broker what was said."""
        self._lines = self._lines or Lines()
        if self._as_json:
            yes = (await self._lines.ask("")).lower() in ("y", "yes")
        else:
            yes = await self._lines.agrees(f"Do both show {event['digits']}?")
        verb = "pairing.confirm" if yes else "pairing.deny"
        with contextlib.suppress(RequestFailed):  # it is over already, as the next event tells
            await line.call(verb, {"code": self._code, "number": event["number"]})


_TEXTS = {
    "warning": "Warning: {text}",
    "compare": "{app_id} on {device} ({os}, from {peer}) has come with the code.",
    "app_confirmed": "The app's side has said yes.",
    "failed": "It came to nothing: {reason}",
    "enrolled": "Paired {app_id}, device id {device_id}.",
    "closed": "The code is closed: {reason}.",
}
"""What a person reads of each event."""


def show_code(text: str, seconds: float) -> None:
    """The QR code where there is a terminal to see it in, and the text in any case."""
    if sys.stdout.isatty():
        import segno  # loaded by this command alone

        segno.make(text, error="l", micro=False).terminal(compact=True, border=2)
    click.echo(text)
    good = show_duration(timedelta(seconds=seconds))
    note(f"Scan it with the app, or give it the text. It is good for one app, for {good}.")
