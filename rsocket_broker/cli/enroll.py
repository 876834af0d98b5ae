"""`rsocket-broker enroll`: acts as an app of this machine and obtains a certificate."""

import asyncio
from pathlib import Path

import click

from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.cli.context import Context, WholeNumber
from rsocket_broker.cli.render import facts, print_json
from rsocket_broker.client.enroll import enroll as obtain
from rsocket_broker.client.folder import Enrolled
from rsocket_broker.errors import BrokerError, ConnectionClosed
from rsocket_broker.settings import INSECURE_PORT, LOCALHOST


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
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_obj
def enroll(
    obj: Context,
    app_id: str,
    into: Path | None,
    app: str | None,
    device: str | None,
    host: str,
    insecure_port: int | None,
    as_json: bool,
) -> None:
    """Obtain a certificate for APP_ID on this machine, as a desktop app does.

    The broker must run on this machine, as the same user: it proves the request by reading it from the folder. What
    an earlier enrolment left in the folder is replaced.

    \b
    Examples:
      rsocket-broker enroll com.example.app
      rsocket-broker enroll com.example.app --into ~/.example --app "Example App"
    """
    port = insecure_port or running_port(obj.home, host)
    folder = (into or Path(app_id)).absolute()
    try:
        found = asyncio.run(
            obtain(app_id=app_id, app=app or app_id, directory=folder, host=host, insecure_port=port, device=device)
        )
    except (OSError, ConnectionClosed) as error:
        reason = error.public if isinstance(error, ConnectionClosed) else error.strerror or "no answer in time"
        raise BrokerError(
            f"no broker answers at {host} port {port}: {reason}.\nStart one there with: rsocket-broker serve"
        ) from error
    show(app_id, folder, found, as_json)


def running_port(home: Path, host: str) -> int:
    """The port of the broker that runs on the home, where it is that one's host we are to ask."""
    ports = RunFolder(home).ports() if host == LOCALHOST and home.is_dir() else None
    return ports.insecure_port if ports is not None and ports.insecure_port else INSECURE_PORT


def show(app_id: str, folder: Path, found: Enrolled, as_json: bool) -> None:
    described = {"app_id": app_id, "device_id": found.device_id, "directory": str(folder)}
    if as_json:
        print_json(described)
    else:
        facts([("enrolled", app_id), ("device id", found.device_id), ("files in", folder)])
