"""`rsocket-broker app images`: what an Android app has in Fresco's caches."""

import base64
from pathlib import Path

import click

from rsocket_broker.cli.app.shared import ask, client_option, picture_option, show_rows, write_bytes
from rsocket_broker.cli.context import Context
from rsocket_broker.cli.render import cell, json_option, note, print_json

PLUGIN = "Fresco"


@click.group()
def images() -> None:
    """The images that an Android app holds in Fresco's caches.

    \b
    Examples:
      rsocket-broker app images list
      rsocket-broker app images get 17 --out cover.webp
    """


@images.command("list")
@click.option("--disk", is_flag=True, help="Those on the device's disk too.")
@client_option
@json_option
@click.pass_obj
def list_(obj: Context, disk: bool, client: str | None, as_json: bool) -> None:
    """The caches, their sizes in bytes, and the ids of the images in them.

    \b
    Example:
      rsocket-broker app images list --disk --json
    """
    found = ask(obj, client, PLUGIN, "levels", {"disk": disk})
    if as_json:
        print_json(found)
        return
    rows = [[one["name"], len(one["images"]), one["size"], one["room"], some(one["images"])] for one in found["levels"]]
    show_rows(rows, ["CACHE", "IMAGES", "BYTES", "ROOM", "IDS"])


@images.command()
@click.argument("image_id", metavar="ID")
@picture_option
@client_option
@click.pass_obj
def get(obj: Context, image_id: str, out: Path, client: str | None) -> None:
    """Write one image into a file. Bitmaps come as thumbnails.

    \b
    Example:
      rsocket-broker app images get 17 --out cover.webp
    """
    found = ask(obj, client, PLUGIN, "image", {"image_id": image_id})
    write_bytes(out, base64.b64decode(found["data"]))
    note(f"{out}: {cell(found['kind'])}, {found['width']}x{found['height']} in the app, from {cell(found['uri'])}.")


def some(ids: list[str]) -> str:
    """As many as fit on a line."""
    return ", ".join(ids[:20]) + (f" and {len(ids) - 20} more" if len(ids) > 20 else "")
