"""`rsocket-broker enroll`: acts as an app of this machine and obtains a certificate."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.cli.context import Context, WholeNumber
from rsocket_broker.cli.prompt import Lines
from rsocket_broker.cli.render import facts, json_option, note, print_json
from rsocket_broker.client.enroll import Upload
from rsocket_broker.client.enroll import enroll as obtain
from rsocket_broker.client.folder import Enrolled
from rsocket_broker.client.pairing import Pairing
from rsocket_broker.errors import BrokerError, ConfigurationError, ConnectionClosed
from rsocket_broker.files import read_private
from rsocket_broker.grant_tokens import MAX_TEXT
from rsocket_broker.settings import INSECURE_PORT, LOCALHOST

FILES, UPLOAD, PAIRING = "files", "upload", "pairing"
MEDIUMS = (FILES, UPLOAD, PAIRING)
"""The ways to a certificate."""

MAX_CODE = 1024
"""Characters of a line that is read from a person or a script."""


@click.command(short_help="Obtain a certificate for this machine, as an app does.")
@click.argument("app_id", metavar="APP_ID")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder for the key and the certificates, made with mode 0700.  [default: ./APP_ID]",
)
@click.option("--app", metavar="NAME", help="The app's name for people.  [default: APP_ID]")
@click.option("--device", metavar="NAME", help="The device's name for people.  [default: this host's name]")
@click.option("--host", default=LOCALHOST, show_default=True, metavar="HOST", help="Where the broker is.")
@click.option(
    "--insecure-port",
    type=WholeNumber(1, 65535),
    metavar="PORT",
    help=f"The broker's port for enrolment.  [default: that of the broker running on the home, else {INSECURE_PORT}]",
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="The token of a grant, for a broker that enrols by token; a file that only you can read, or - for stdin.",
)
@click.option(
    "--medium",
    type=click.Choice(MEDIUMS),
    default=FILES,
    show_default=True,
    help="How the certificate gets here: the broker puts it into the folder; or it is fetched, once a token or the "
    "broker's operator has vouched for this request; or sent, once you have seen the same digits here and there.",
)
@click.option(
    "--code-file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="For pairing, the text that `enrollment pair` shows: in a file that only you can read, or - for the first "
    "line of stdin.  [default: asked for]",
)
@click.option(
    "--anchor",
    metavar="SHA256",
    help="For upload without a token, the fingerprint that `ca show` prints at the broker: no other authority is "
    "trusted then.",
)
@json_option
@click.pass_obj
def enroll(
    obj: Context,
    app_id: str,
    into: Path | None,
    app: str | None,
    device: str | None,
    host: str,
    insecure_port: int | None,
    token_file: Path | None,
    medium: str,
    code_file: Path | None,
    anchor: str | None,
    as_json: bool,
) -> None:
    """Obtain a certificate for APP_ID on this machine, as a desktop app does.

    With files the broker must run on this machine, as the same user: it proves the request by reading it from the
    folder. With upload and pairing it may be anywhere. For pairing its operator runs `enrollment pair`, whose text says
    where it is. What an earlier enrolment left in the folder is replaced.

    \b
    Examples:
      rsocket-broker enroll com.example.app
      rsocket-broker enroll com.example.app --into ~/.example --app "Example App"
      rsocket-broker enroll com.example.app --token-file ./token
      rsocket-broker enroll com.example.app --medium pairing
      rsocket-broker enroll com.example.app --medium upload --host broker.example
    """
    if anchor is not None and medium != UPLOAD:
        raise click.UsageError("--anchor is for --medium upload.")
    check_medium(
        medium, code_file, {"--host": host != LOCALHOST, "--insecure-port": insecure_port, "--token-file": token_file}
    )
    port = INSECURE_PORT if medium == PAIRING else insecure_port or running_port(obj.home, host)
    folder = (into or Path(app_id)).absolute()
    if medium == PAIRING:
        asking = pairing(app_id, folder, app or app_id, device, code_file)
    else:
        asking = obtain(
            app_id=app_id,
            app=app or app_id,
            directory=folder,
            host=host,
            insecure_port=port,
            device=device,
            token=read_token(token_file),
            upload=Upload(anchor=anchor) if medium == UPLOAD else None,
            tell=note if medium == UPLOAD else lambda step: None,
        )
    try:
        found = asyncio.run(asking)
    except (OSError, ConnectionClosed) as error:
        reason = error.public if isinstance(error, ConnectionClosed) else error.strerror or "no answer in time"
        if medium == PAIRING:
            raise BrokerError(
                f"no broker answers where the code leads to: {reason}.\n"
                "Is `rsocket-broker enrollment pair` still running there, and is the port for enrolment open to here?"
            ) from error
        raise BrokerError(
            f"no broker answers at {host} port {port}: {reason}.\n"
            "Start one there with: rsocket-broker serve. One that enrols by window must have it open."
        ) from error
    show(app_id, folder, found, as_json)


def read_token(path: Path | None) -> str | None:
    """The token in a file, or on stdin. Raises HomeError for a file that others can read, ConfigurationError for one
    that holds no token."""
    if path is None:
        return None
    data = sys.stdin.buffer.read(MAX_TEXT + 2) if str(path) == "-" else read_private(path, MAX_TEXT + 2)
    token = data.decode("ascii", "replace").strip()
    if not token or len(token) > MAX_TEXT or not token.isprintable():
        raise ConfigurationError(f"{'stdin' if str(path) == '-' else path} holds no token.")
    return token


def check_medium(medium: str, code_file: Path | None, given: Mapping[str, object]) -> None:
    """Raises click.UsageError for options that mean nothing with the medium; `given` are those that pairing has no use
    for."""
    if medium != PAIRING and code_file is not None:
        raise click.UsageError("--code-file is for --medium pairing.")
    for name, value in given.items():
        if medium == PAIRING and value:
            raise click.UsageError(f"{name} means nothing with --medium pairing: the code says where the broker is.")


async def pairing(app_id: str, folder: Path, app: str, device: str | None, code_file: Path | None) -> Enrolled:
    """Pairs with the broker that the code leads to. Raises ConfigurationError where there is nobody to ask for it."""
    lines = Lines()
    if code_file is not None and str(code_file) != "-":
        code = read_private(code_file, MAX_CODE).decode("ascii", "replace").strip()
    elif code_file is None and not sys.stdin.isatty():
        raise ConfigurationError("pairing needs a code: use --code-file, with - for the first line of stdin.")
    else:
        code = await lines.ask("" if code_file else "The text below the QR code: ")
    return await obtain(
        app_id=app_id,
        app=app,
        directory=folder,
        device=device,
        pairing=Pairing(code, lambda digits: lines.agrees(f"Do both show {digits}?")),
        tell=note,
    )


def running_port(home: Path, host: str) -> int:
    """The port of the broker that runs on the home, where it is that one's host we are to ask.

    Raises BrokerError where that port is closed.
    """
    ports = RunFolder(home).ports() if host == LOCALHOST and home.is_dir() else None
    if ports is None:
        return INSECURE_PORT
    if ports.insecure_port is None:
        raise BrokerError(
            f"the broker of {home} has closed its port for enrolment.\n"
            "Open it with: rsocket-broker enrollment open --for 10m (or: rsocket-broker listeners open insecure)"
        )
    return ports.insecure_port


def show(app_id: str, folder: Path, found: Enrolled, as_json: bool) -> None:
    described = {"app_id": app_id, "device_id": found.device_id, "directory": str(folder)}
    if as_json:
        print_json(described)
    else:
        facts([("enrolled", app_id), ("device id", found.device_id), ("files in", folder)])
