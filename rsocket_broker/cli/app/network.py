"""`rsocket-broker app network`: what an app asks of its servers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from rsocket_broker.cli.app.shared import (
    after_option,
    ask,
    client_option,
    follow,
    moment,
    out_option,
    safe,
    show_line,
    show_rows,
    writing,
)
from rsocket_broker.cli.context import Context, WholeNumber
from rsocket_broker.cli.render import cell, facts, json_option, note, print_json

PLUGIN = "Network"
EXPORT_S = 120.0
"""Seconds for an export, which decompresses all bodies."""

MAX_DIGITS = 18
"""Of an exchange's number: no more fit into the 64 bits of JSON's integers."""
COLUMNS = ("number", "time", "method", "status", "duration", "bytes", "url")
"""Of `list`. Short, so that an address has room on a terminal of 80 characters. Bytes are those of the response."""
Function = TypeVar("Function", bound=Callable[..., Any])

secrets_option = click.option(
    "--with-secrets", is_flag=True, help="Show Authorization, cookies, tokens, passwords, which are replaced otherwise."
)


def filters(function: Function) -> Function:
    """The options that say which exchanges are meant."""
    for option in (
        click.option("--status", metavar="STATUS", default="", help="200, 2xx, 400-499, open, or several with commas."),
        click.option("--url", metavar="PART", default="", help="A part of the URL; with * a pattern of all of it."),
        click.option("--method", metavar="METHOD", default="", help="GET, POST, …"),
    ):
        function = option(function)
    return function


@click.group()
def network() -> None:
    """The HTTP traffic of an app, as its network plugin tells it.

    An app tells of requests that it sends while it is connected, and of a few hundred before. The newest 2000 are kept
    for as long as it stays. Times are by its own clock, in UTC; durations are in milliseconds.

    \b
    Examples:
      rsocket-broker app network follow
      rsocket-broker app network har --out traffic.har
      rsocket-broker app network mock set /v1/cart --status 500
    """


@network.command("list")
@filters
@after_option
@click.option(
    "--limit", type=WholeNumber(min=1), default=100, show_default=True, metavar="N", help="The newest N exchanges."
)
@secrets_option
@client_option
@json_option
@click.pass_obj
def list_(obj: Context, /, client: str | None, limit: int, with_secrets: bool, as_json: bool, **which: Any) -> None:
    """The newest exchanges, oldest first. A number names one for `show` and `curl`.

    \b
    Example:
      rsocket-broker app network list --url /v1/ --status 4xx,5xx
    """
    found = ask(obj, client, PLUGIN, "list", {**which, "limit": limit, "secrets": with_secrets})
    if as_json:
        print_json(found)
        return
    if not found["exchanges"]:
        note("No exchange fits." if any(which.values()) else "The app has told of no exchange yet.")
    else:
        show_rows((row(one) for one in found["exchanges"]), [name.upper() for name in COLUMNS])
    if found["fitting"] > len(found["exchanges"]):
        note(f"{found['fitting'] - len(found['exchanges'])} older ones fit too: use --limit.")
    if found["dropped"]:
        note(f"{found['dropped']} older ones were dropped to make room.")


def row(exchange: dict[str, Any]) -> list[object]:
    """One exchange as a line of a table."""
    status = exchange["status"] if exchange["status"] is not None else exchange["state"]
    mocked = " (mock)" if exchange["mock"] else ""
    duration = None if exchange["duration"] is None else round(exchange["duration"])
    size = exchange["response_bytes"] if exchange["status"] is not None else None
    about = (
        moment(exchange["time"], "%H:%M:%S"),
        exchange["method"],
        f"{status}{mocked}",
        duration,
        size,
        exchange["url"],
    )
    return [exchange["number"], *about]


@network.command()
@click.argument("exchange", metavar="NUMBER")
@secrets_option
@client_option
@json_option
@click.pass_obj
def show(obj: Context, exchange: str, client: str | None, with_secrets: bool, as_json: bool) -> None:
    """All of one exchange: headers and bodies. NUMBER is that of `list`.

    \b
    Example:
      rsocket-broker app network show 17
    """
    found = ask(obj, client, PLUGIN, "show", {"id": named(exchange), "secrets": with_secrets})
    if as_json:
        print_json(found)
        return
    for name in ("request", "response"):
        if name in found:
            show_message(name, found[name])
    facts([("time", f"{found['time']} ms"), ("state", found["_state"])])


def named(exchange: str) -> int | str:
    """What was typed: a number is one of `list`, although ids of iOS apps are digits too."""
    return int(exchange) if exchange.isdecimal() and len(exchange) <= MAX_DIGITS else exchange


def show_message(name: str, message: dict[str, Any]) -> None:
    """A request or a response, as HTTP writes them, near enough."""
    first = (message.get("method"), message.get("url"), message.get("status"), message.get("statusText"))
    click.echo(f"{name}  {' '.join(cell(part) for part in first if part not in (None, ''))}")
    for header in message["headers"]:
        click.echo(f"  {cell(header['name'])}: {cell(header['value'])}")
    body = message.get("postData") or message.get("content") or {}
    if body.get("text"):
        encoded = body.get("encoding") or body.get("_encoding")
        click.echo(f"\n{safe(body['text'])}" + (f"\n({encoded})" if encoded else ""))
    if body.get("comment"):
        note(cell(body["comment"]))
    click.echo()


@network.command()
@filters
@after_option
@out_option
@secrets_option
@client_option
@click.pass_obj
def har(obj: Context, /, client: str | None, out: Path | None, with_secrets: bool, **which: Any) -> None:
    """The traffic as HAR 1.2, which the network tools of browsers load.

    Secrets are replaced: headers, cookies, parameters, form fields and JSON keys whose names tell that they are some.

    \b
    Example:
      rsocket-broker app network har --client com.example.app --out traffic.har
    """
    found = ask(obj, client, PLUGIN, "har", {**which, "secrets": with_secrets}, patience=EXPORT_S)
    with writing(out) as write:
        write(json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    if out is not None:
        note(f"Wrote {len(found['log']['entries'])} exchanges into {out}.")
    if "comment" in found["log"]:
        about = cell(found["log"]["comment"])
        note(f"{about[:1].upper()}{about[1:]}.")


@network.command()
@click.argument("exchange", metavar="NUMBER")
@secrets_option
@client_option
@click.pass_obj
def curl(obj: Context, exchange: str, client: str | None, with_secrets: bool) -> None:
    """A request as a curl command that sends it again. NUMBER is that of `list`.

    \b
    Example:
      rsocket-broker app network curl 17 --with-secrets
    """
    click.echo(safe(ask(obj, client, PLUGIN, "curl", {"id": named(exchange), "secrets": with_secrets})))


@network.command("follow")
@filters
@click.option("--known", is_flag=True, help="First those that are there already.")
@secrets_option
@client_option
@json_option
@click.pass_obj
def follow_(obj: Context, /, client: str | None, known: bool, with_secrets: bool, as_json: bool, **which: str) -> None:
    """Each exchange when its response is there, until the app leaves or Ctrl-C. With --json requests too.

    \b
    Example:
      rsocket-broker app network follow --url /v1/ --json
    """
    about = {**which, "known": known, "secrets": with_secrets}
    follow(obj, client, PLUGIN, "follow", about, show_line if as_json else show_item)


def show_item(item: dict[str, Any]) -> None:
    """A line for people."""
    if "dropped" in item:
        note(f"{item['dropped']} were left out: they came faster than they could be shown.")
    elif item["event"] != "request":
        number, at, method, status, duration, size, url = (cell(value) for value in row(item["exchange"]))
        click.echo(f"{number:>5}  {at}  {method:<7} {status:<10} {duration:>6} ms {size:>9} bytes  {url}")


@network.command()
@client_option
@json_option
@click.pass_obj
def statistics(obj: Context, client: str | None, as_json: bool) -> None:
    """How much the app asks, how fast it is answered, and by whom.

    OPEN are those without an answer; SENT and RECEIVED are the bytes of bodies.

    \b
    Example:
      rsocket-broker app network statistics
    """
    found = ask(obj, client, PLUGIN, "statistics")
    if as_json:
        print_json(found)
        return
    names = ("exchanges", "unanswered", "median", "p95", "slowest", "request_bytes", "response_bytes")
    rows = [("all", found), *((host["host"] or "unknown", host) for host in found["hosts"])]
    headers = ["HOST", "COUNT", "OPEN", "MEDIAN", "P95", "SLOWEST", "SENT", "RECEIVED", "STATUSES"]
    show_rows(([host, *(one[name] for name in names), _statuses(one)] for host, one in rows), headers)


def _statuses(figures: dict[str, Any]) -> str:
    return ", ".join(f"{count} {status}" for status, count in figures["statuses"].items())


@network.command()
@client_option
@click.pass_obj
def clear(obj: Context, client: str | None) -> None:
    """Forget what was recorded of an app.

    \b
    Example:
      rsocket-broker app network clear --client com.example.app
    """
    note(f"Forgot {ask(obj, client, PLUGIN, 'clear')['cleared']} exchanges.")


@network.group()
def mock() -> None:
    """Answers that the app gives itself, in place of its server (Android, where the app was built for it).

    They last until they are cleared or the broker ends; an app that comes back is sent them again.

    \b
    Example:
      rsocket-broker app network mock set /v1/cart --body '{"items": []}'
    """


@mock.command("set")
@click.argument("url", metavar="PART")
@click.option("--method", default="GET", show_default=True, metavar="METHOD", help="The request's method.")
@click.option("--status", type=WholeNumber(100, 599), default=200, show_default=True, help="The answer's status.")
@click.option("--body", default="", metavar="TEXT", help="The answer's body; apps serve text only.")
@click.option("--body-file", type=click.File(encoding="utf-8"), metavar="FILE", help="The same, from a file.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header; repeatable.")
@click.option("--off", is_flag=True, help="Keep it, and let the app not know of it.")
@client_option
@json_option
@click.pass_obj
def set_(obj: Context, /, url: str, client: str | None, as_json: bool, **about: Any) -> None:
    """Answer requests whose URL contains PART. There are no wildcards; one for the same PART and method is replaced.

    \b
    Example:
      rsocket-broker app network mock set /v1/cart --status 500 --header 'Retry-After: 5'
    """
    body = about["body"] if about["body_file"] is None else about["body_file"].read()
    params = {"url": url, "method": about["method"], "status": about["status"], "body": body}
    params |= {"headers": dict(map(_header, about["headers"])), "enabled": not about["off"]}
    show_mocks(ask(obj, client, PLUGIN, "mock", params), as_json)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.BadParameter(f'"{text}" is no header: write NAME: VALUE.', param_hint="--header")
    return name.strip(), value.strip()


@mock.command("list")
@client_option
@json_option
@click.pass_obj
def list_mocks(obj: Context, client: str | None, as_json: bool) -> None:
    """The routes that a client has.

    \b
    Example:
      rsocket-broker app network mock list
    """
    show_mocks(ask(obj, client, PLUGIN, "mocks"), as_json)


@mock.command("clear")
@click.argument("url", metavar="[PART]", default="")
@click.option("--method", default="", metavar="METHOD", help="Only that for this method.")
@client_option
@json_option
@click.pass_obj
def clear_mocks(obj: Context, url: str, method: str, client: str | None, as_json: bool) -> None:
    """Take out the routes for PART, or all of them: the app asks its server again.

    \b
    Example:
      rsocket-broker app network mock clear
    """
    show_mocks(ask(obj, client, PLUGIN, "unmock", {"url": url, "method": method}), as_json)


def show_mocks(found: dict[str, Any], as_json: bool) -> None:
    """The routes of a client, and which of them get into each other's way."""
    if as_json:
        print_json(found)
        return
    for words in found["overlapping"]:
        note(f"Warning: {cell(words)}.")
    if not found["mocks"]:
        note("The client has no mock routes.")
        return
    rows = ([one["method"], one["url"], one["status"], one["enabled"], len(one["body"])] for one in found["mocks"])
    show_rows(rows, ["METHOD", "URL", "STATUS", "ON", "BODY"])
