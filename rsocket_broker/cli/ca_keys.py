"""`rsocket-broker ca passphrase …`: how the CA's keys are kept."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import click

from rsocket_broker import files
from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.audit import Audit, Event
from rsocket_broker.authority import Authority
from rsocket_broker.authority.home import CaHome
from rsocket_broker.authority.passphrase import Protection, begin_with_key_ring, expose, protect, protection
from rsocket_broker.cli import render
from rsocket_broker.cli.ca_shared import check_made, passphrase_option, read_passphrase
from rsocket_broker.cli.context import Context
from rsocket_broker.errors import AuthorityError, HomeError
from rsocket_broker.state import STATE_FILE, State

keyring_option = click.option(
    "--keyring",
    is_flag=True,
    help="Keep it in the key ring of the operating system, and let the home remember that.",
)


@click.group()
def passphrase() -> None:
    """The passphrase of the CA's keys: in a file that you name, or in the operating system's key ring.

    A change is for the keys of all generations, at one moment: a kill leaves the old passphrase or the new one. A
    broker that runs on the home must be stopped for it.

    \b
    Examples:
      rsocket-broker ca passphrase set --keyring
      rsocket-broker ca passphrase change --passphrase-file old --new-passphrase-file new
      rsocket-broker ca passphrase status
    """


@passphrase.command("set")
@passphrase_option
@keyring_option
@click.pass_obj
def set_passphrase(context: Context, passphrase_file: Path | None, keyring: bool) -> None:
    """Encrypt keys that are in the clear, with the passphrase in a file, or with one that the key ring keeps.

    \b
    Examples:
      rsocket-broker ca passphrase set --passphrase-file ./passphrase
      rsocket-broker ca passphrase set --keyring
    """
    if passphrase_file is None and not keyring:
        raise click.UsageError("Give --passphrase-file FILE, --keyring, or both.")
    new = read_passphrase(passphrase_file)
    with changing(context.home, "set") as home:
        if any(home.encrypted().values()):
            raise AuthorityError("A passphrase is set already. Change it: rsocket-broker ca passphrase change")
        tell(protect(home, None, new, ring=keyring))


@passphrase.command()
@passphrase_option
@click.option(
    "--new-passphrase-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File (mode 0600) with the new passphrase.",
)
@keyring_option
@click.pass_obj
def change(context: Context, passphrase_file: Path | None, new_passphrase_file: Path | None, keyring: bool) -> None:
    """Encrypt the keys with another passphrase, or move it into the key ring or out of it.

    The old one comes from --passphrase-file, or from the key ring that the home remembers.

    \b
    Examples:
      rsocket-broker ca passphrase change --passphrase-file old --new-passphrase-file new
      rsocket-broker ca passphrase change --passphrase-file old --keyring
    """
    if new_passphrase_file is None and not keyring:
        raise click.UsageError("Give --new-passphrase-file FILE, --keyring, or both.")
    old, new = read_passphrase(passphrase_file), read_passphrase(new_passphrase_file)
    with changing(context.home, "change") as home:
        if not any(home.encrypted().values()):
            raise AuthorityError("No passphrase is set. Set one: rsocket-broker ca passphrase set")
        tell(protect(home, old, new, ring=keyring))


@passphrase.command()
@passphrase_option
@click.pass_obj
def remove(context: Context, passphrase_file: Path | None) -> None:
    """Write the keys in the clear: whoever reads the files of the home then has them.

    \b
    Example:
      rsocket-broker ca passphrase remove --passphrase-file ./passphrase
    """
    old = read_passphrase(passphrase_file)
    with changing(context.home, "remove") as home:
        tell(expose(home, old))


@passphrase.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.pass_obj
def save(context: Context, file: Path) -> None:
    """Write the passphrase from the key ring into a new file of mode 0600, to be kept elsewhere: a backup needs it.

    \b
    Example:
      rsocket-broker ca passphrase save ./passphrase
    """
    check_made(context.home)
    kept = CaHome(context.home).recalled()
    if kept is None:
        raise AuthorityError("This home has no passphrase in the key ring. See: rsocket-broker ca passphrase status")
    if os.path.lexists(file):
        raise HomeError(f"{file} exists. Choose another name, or move it away.")
    files.write_private(file, kept + b"\n")
    click.echo(f"The passphrase is in {file}. Keep it where neither the home nor its backup is.")


@passphrase.command()
@render.json_option
@click.pass_obj
def status(context: Context, as_json: bool) -> None:
    """Say whether each generation's key is encrypted, and where the passphrase is.

    \b
    Example:
      rsocket-broker ca passphrase status --json
    """
    check_made(context.home)
    found = protection(CaHome(context.home))
    if as_json:
        entry = found.entry
        render.print_json(
            {
                "generations": [{"generation": number, "encrypted": done} for number, done in found.encrypted.items()],
                "key_ring": {"service": entry.service, "account": entry.account} if entry else None,
            }
        )
    else:
        tell(found)


def begin_in_key_ring(home: Path, given: bytes | None) -> None:
    """For `ca init --keyring`. Raises AuthorityError where there is a CA already."""
    ca = CaHome(home)
    with files.locked(home):
        if ca.generations():
            raise AuthorityError(
                f"{home} has a certificate authority already. Set its passphrase: "
                "rsocket-broker ca passphrase set --keyring"
            )
        begin_with_key_ring(ca, given)


@contextlib.contextmanager
def changing(path: Path, what: str) -> Iterator[CaHome]:
    """The home while nobody else works on it; the change is recorded at the end."""
    check_made(path)
    with State.open(path / STATE_FILE) as state:
        audit = Audit(state)
        Authority.open(path, state, create=False, audit=audit)  # puts a generation in place that a kill left beside it
        with files.locked(path):
            refuse_running(path)
            home = CaHome(path)
            home.settle()
            yield home
            with state.transaction() as database:
                audit.write(database, Event.KEY, what=f"passphrase {what}", key_ring=home.note() is not None)


def refuse_running(path: Path) -> None:
    """Raises HomeError while a broker runs: it has the old passphrase in memory, and would use it."""
    pid = RunFolder(path).holder()
    if pid is not None:
        raise HomeError(f"A broker (pid {pid}) runs on {path}, with the passphrase in memory. Stop it first.")


def tell(found: Protection) -> None:
    for number, encrypted in found.encrypted.items():
        click.echo(f"CA key, generation {number}: {'encrypted' if encrypted else 'in the clear'}")
    if found.entry is not None:
        click.echo(f"Passphrase: in this user's key ring, entry {found.entry.account} of {found.entry.service}")
        render.note("Keep a copy elsewhere, or a backup is worth nothing: rsocket-broker ca passphrase save FILE")
    elif found.complete:
        click.echo("Passphrase: in a file of yours; name it with --passphrase-file")
