"""`rsocket-broker app preferences`: what an app keeps in its preferences."""

import json
from pathlib import Path
from typing import Any

import click

from rsocket_broker import jsontext
from rsocket_broker.cli.app.shared import (
    ask,
    client_option,
    follow,
    json_value,
    out_option,
    show_line,
    show_rows,
    writing,
)
from rsocket_broker.cli.context import Context
from rsocket_broker.cli.render import cell, json_option, note, print_json

PLUGIN = "Preferences"
RESTORE_S = 3600.0
"""Seconds for putting a snapshot back: each key that differs is a question of its own to the app."""
MAX_SNAPSHOT = 64 * 1024 * 1024
"""Bytes of a snapshot's file: more than an app can have told."""

file_option = click.option(
    "--file", metavar="NAME", default="", help="Its name in `list`.  [default: the one that has the key]"
)


@click.group()
def preferences() -> None:
    """The preferences of an app: Android's shared preferences, iOS's user defaults.

    \b
    Examples:
      rsocket-broker app preferences get
      rsocket-broker app preferences set dark_mode true
      rsocket-broker app preferences snapshot --out before.json
    """


@preferences.command("list")
@client_option
@json_option
@click.pass_obj
def list_(obj: Context, client: str | None, as_json: bool) -> None:
    """The files that the app has.

    \b
    Example:
      rsocket-broker app preferences list
    """
    found = ask(obj, client, PLUGIN, "files")["files"]
    if as_json:
        print_json(found)
    else:
        show_rows(([one["name"], one["keys"]] for one in found), ["FILE", "KEYS"])


@preferences.command()
@click.argument("key", default="", metavar="[KEY]")
@file_option
@client_option
@json_option
@click.pass_obj
def get(obj: Context, key: str, file: str, client: str | None, as_json: bool) -> None:
    """The value of KEY; or all keys and values, of one file or of all.

    \b
    Example:
      rsocket-broker app preferences get dark_mode
    """
    found = ask(obj, client, PLUGIN, "get", {"key": key, "file": file})
    if as_json:
        print_json(found)
    elif key:
        show_line(found["value"])
    else:
        files = found.get("files") or {file: found.get("values", {})}
        rows = ([name, one, as_json_text(value)] for name, content in files.items() for one, value in content.items())
        show_rows(rows, ["FILE", "KEY", "VALUE"])


def as_json_text(value: object) -> str:
    """A value so that its type can be seen."""
    return json.dumps(value, ensure_ascii=False)


@preferences.command("set")
@click.argument("key")
@click.argument("value", metavar="JSON-OR-TEXT")
@click.option("--text", is_flag=True, help="The value is text, also where it looks like JSON.")
@file_option
@client_option
@json_option
@click.pass_obj
def set_(obj: Context, key: str, value: str, text: bool, file: str, client: str | None, as_json: bool) -> None:
    """Give KEY another value. true, 5 and 0.5 are what they look like; what is no JSON is text.

    An Android app changes keys that are there, and each keeps its type. An iOS app takes any JSON and new keys.

    \b
    Examples:
      rsocket-broker app preferences set dark_mode true
      rsocket-broker app preferences set pin 0000 --text
    """
    about = {"key": key, "file": file, "value": value if text else json_value(value)}
    found = ask(obj, client, PLUGIN, "set", about)
    if as_json:
        print_json(found)
    else:
        was = "" if found["before"] is None else f" It was {cell(as_json_text(found['before']))}."
        note(f"{cell(key)} of {cell(found['file'])} is {cell(as_json_text(found['value']))} now.{was}")


@preferences.command()
@click.argument("key")
@file_option
@client_option
@json_option
@click.pass_obj
def delete(obj: Context, key: str, file: str, client: str | None, as_json: bool) -> None:
    """Take KEY out. In an Android app only the app itself can put it back.

    \b
    Example:
      rsocket-broker app preferences delete last_user
    """
    found = ask(obj, client, PLUGIN, "delete", {"key": key, "file": file})
    if as_json:
        print_json(found)
    else:
        note(f"{cell(key)} of {cell(found['file'])} is gone; it was {cell(as_json_text(found['before']))}.")


@preferences.command("follow")
@client_option
@json_option
@click.pass_obj
def follow_(obj: Context, client: str | None, as_json: bool) -> None:
    """Each change as it comes, until the app leaves or Ctrl-C.

    \b
    Example:
      rsocket-broker app preferences follow
    """
    follow(obj, client, PLUGIN, "follow", {}, show_line if as_json else show_change)


def show_change(change: dict[str, Any]) -> None:
    """A line for people."""
    if change["key"] is None:
        click.echo(f"{cell(change['file'])} was emptied")
    elif change["deleted"]:
        click.echo(f"{cell(change['file'])}  {cell(change['key'])} is gone")
    else:
        click.echo(f"{cell(change['file'])}  {cell(change['key'])} = {cell(as_json_text(change['value']))}")


@preferences.command()
@out_option
@client_option
@click.pass_obj
def snapshot(obj: Context, out: Path | None, client: str | None) -> None:
    """All preferences as JSON, for `restore`. Only you can read FILE: preferences often hold tokens.

    \b
    Example:
      rsocket-broker app preferences snapshot --out before.json
    """
    found = ask(obj, client, PLUGIN, "snapshot")
    with writing(out) as write:
        write(json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    if out is not None:
        note(f"Wrote {sum(map(len, found['preferences'].values()))} keys into {out}.")


@preferences.command()
@click.argument("file", metavar="FILE", type=click.File("rb"))
@click.option("--keep-new", is_flag=True, help="Let keys be that the snapshot does not have.")
@client_option
@json_option
@click.pass_obj
def restore(obj: Context, file: Any, keep_new: bool, client: str | None, as_json: bool) -> None:
    """Put preferences back to what `snapshot` wrote into FILE. Exits 1 where the app would not do all of it.

    \b
    Example:
      rsocket-broker app preferences restore before.json
    """
    about = {"preferences": wanted(file.read(MAX_SNAPSHOT)), "delete": not keep_new}
    found = ask(obj, client, PLUGIN, "restore", about, patience=RESTORE_S)
    if as_json:
        print_json(found)
    else:
        note(f"{len(found['set'])} keys were set, {len(found['deleted'])} deleted.")
        for one in found["failed"]:
            note(f"{cell(one['file'])} {cell(one['key'])}: {cell(one['reason'])}")
    if found["failed"]:
        click.get_current_context().exit(1)


def wanted(data: bytes) -> object:
    """The preferences in a snapshot's file. Raises click.BadParameter for a file that is none."""
    try:
        found = jsontext.parse_object(data).get("preferences")
    except jsontext.JsonError as error:
        raise click.BadParameter(f"it is {error}.", param_hint="FILE") from error
    if not isinstance(found, dict) or not all(isinstance(content, dict) for content in found.values()):
        raise click.BadParameter("it is no snapshot: it has no preferences.", param_hint="FILE")
    return found
