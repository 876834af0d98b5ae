"""`rsocket-broker home …`: a whole home in one file, and back."""

import contextlib
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.audit import Audit, Event
from rsocket_broker.authority import Authority, Finding
from rsocket_broker.authority.home import CaHome
from rsocket_broker.backup import archive
from rsocket_broker.backup.check import Checked, check
from rsocket_broker.backup.restore import check_place, restore
from rsocket_broker.backup.take import Taken, take
from rsocket_broker.cli import render
from rsocket_broker.cli.ca_shared import read_passphrase
from rsocket_broker.cli.context import Context
from rsocket_broker.errors import BrokerError, ConfigurationError, HomeError
from rsocket_broker.moments import timestamp
from rsocket_broker.state import STATE_FILE, State

backup_file = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
decrypt_option = click.option(
    "--decrypt-with",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File (mode 0600) with the passphrase of an encrypted backup.",
)


@click.group()
def home() -> None:
    """Back up a whole home, verify a backup, put one in place.

    \b
    Examples:
      rsocket-broker home backup --out broker.backup
      rsocket-broker home verify broker.backup
      rsocket-broker --home ./again home restore broker.backup
    """


@home.command()
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The file to write; it must not exist.  [default: NAME-DATE.backup in this folder, after the home]",
)
@click.option(
    "--encrypt-with",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File (mode 0600) with a passphrase: the backup is encrypted with it (scrypt, AES-256-GCM).",
)
@render.json_option
@click.pass_obj
def backup(context: Context, out: Path | None, encrypt_with: Path | None, as_json: bool) -> None:
    """Write the whole home into one file of mode 0600, also while a broker runs, and read it again to verify it.

    The file holds the private key of the CA. That is encrypted only if the home keeps it so, or with --encrypt-with.
    What lives only as long as a broker runs (HOME/run) stays out.

    \b
    Example:
      rsocket-broker home backup --out broker.backup --encrypt-with ./passphrase
    """
    now = datetime.now(UTC)
    target = (out or Path(f"{context.home.name}-{now:%Y%m%dT%H%M%SZ}.backup")).expanduser().absolute()
    finish_changes(context.home)
    taken = take(context.home, target, now, read_passphrase(encrypt_with))
    with State.open(context.home / STATE_FILE) as state:
        audit = Audit(state)
        with state.transaction() as database:
            audit.write(database, Event.BACKED_UP, sha256=taken.sha256, encrypted=encrypt_with is not None)
    if as_json:
        render.print_json(described(taken, encrypt_with is not None))
    else:
        tell_taken(taken, encrypt_with is not None)
    tell_key(CaHome(context.home), encrypt_with is not None)


@home.command()
@backup_file
@decrypt_option
@render.json_option
def verify(file: Path, decrypt_with: Path | None, as_json: bool) -> None:
    """Read a whole backup and check it: every sum, the database, each key of the CA against its certificate.

    \b
    Example:
      rsocket-broker home verify broker.backup
    """
    with tempfile.TemporaryDirectory() as scratch:
        checked = check(file, passphrase_for(file, decrypt_with), Path(scratch))
    facts = {
        "made": timestamp(checked.manifest.made),
        "version": checked.manifest.version,
        "files": len(checked.manifest.entries),
        "bytes": sum(entry.size for entry in checked.manifest.entries),
        "encrypted": archive.needs_passphrase(file),
        "generations": sorted(checked.generations),
        "ca_keys_encrypted": all(checked.generations.values()),
    }
    if as_json:
        render.print_json(facts)
    else:
        render.facts((name.replace("_", " "), value) for name, value in facts.items())
        click.echo("The backup is whole and sound.")


@home.command("restore")
@backup_file
@decrypt_option
@click.pass_obj
def restore_home(context: Context, file: Path, decrypt_with: Path | None) -> None:
    """Make this home, which must be missing or empty, what it was when the backup was taken.

    Everything is verified before the home appears, which it does whole or not at all. Then what `ca verify`
    and `audit verify` look at is checked there; exits 1 when they find something.

    \b
    Example:
      rsocket-broker --home ./again home restore broker.backup
    """
    refuse_running(context.home)
    check_place(context.home)
    checked = restore(file, context.home, passphrase_for(file, decrypt_with))
    click.echo(f"Restored {context.home}: {len(checked.manifest.entries)} files of {when(checked)}.")
    tell_consequences(context.home, checked)
    judge(look(context.home))


def finish_changes(path: Path) -> None:
    """Have what a kill left undone finished first, where the home opens; it is backed up as it is where it does not."""
    if (path / STATE_FILE).exists():
        with contextlib.suppress(BrokerError), State.open(path / STATE_FILE) as state:
            Authority.open(path, state, create=False)


def refuse_running(path: Path) -> None:
    """Raises HomeError naming the broker that runs on this home."""
    pid = RunFolder(path).holder()
    if pid is not None:
        raise HomeError(f"A broker (pid {pid}) runs on {path}. Stop it, and move {path} away, or name another --home.")


def passphrase_for(file: Path, decrypt_with: Path | None) -> bytes | None:
    """Raises ConfigurationError for a passphrase that the backup has no use for: perhaps another file is meant."""
    if decrypt_with is not None and not archive.needs_passphrase(file):
        raise ConfigurationError(f"{file} is not encrypted, so it takes no --decrypt-with.")
    return read_passphrase(decrypt_with)


def described(taken: Taken, sealed: bool) -> dict[str, object]:
    return {
        "file": str(taken.path),
        "bytes": taken.size,
        "sha256": taken.sha256,
        "files": len(taken.manifest.entries),
        "encrypted": sealed,
        "left_out": list(taken.left_out),
    }


def tell_taken(taken: Taken, sealed: bool) -> None:
    click.echo(f"Wrote {taken.path}: {len(taken.manifest.entries)} files, {taken.size} bytes, read again and verified.")
    click.echo(f"SHA-256 {taken.sha256}")
    if taken.left_out:
        render.note(f"Left out, being neither files nor folders: {', '.join(taken.left_out)}.")


def tell_key(ca: CaHome, sealed: bool) -> None:
    """What whoever reads the file can do."""
    encrypted = all(ca.encrypted().values())
    if sealed:
        render.note("The backup is encrypted. Keep its passphrase apart from it: without it nothing can be restored.")
    elif encrypted:
        render.note("It holds the private key of the CA, encrypted with its passphrase, which is not in the backup.")
    else:
        render.note(
            "It holds the private key of the CA in the clear: whoever reads the file can become any client, and the "
            "broker. Keep it where nobody else can, or take one with --encrypt-with."
        )
    if encrypted and ca.note() is not None:
        render.note(
            "The CA's passphrase is in this user's key ring only. Keep a copy elsewhere, or the backup is lost with "
            "this machine: rsocket-broker ca passphrase save FILE"
        )


def when(checked: Checked) -> str:
    return f"{checked.manifest.made:%Y-%m-%d %H:%M:%S} UTC"


def tell_consequences(path: Path, checked: Checked) -> None:
    """What the backup cannot know."""
    render.note(
        f"Certificates that were issued after {when(checked)} are unknown here: their holders are refused, and enrol "
        "again."
    )
    render.note(
        "What was revoked, blocked or changed after that is not so here. Do it again before you start a broker."
    )
    render.note("No serial number is ever used twice: each is a random number of 159 bits.")
    if all(checked.generations.values()) and CaHome(path).note() is not None:
        render.note(
            "The passphrase of the CA's key is in the key ring of whoever made the home. On another machine, name the "
            "copy that you kept: rsocket-broker ca passphrase change --passphrase-file FILE --keyring"
        )


def look(path: Path) -> list[Finding]:
    """What `ca verify` finds, the audit among it, without what the next start of a broker mends by itself."""
    return [each for each in Authority.verify_home(path) if not each.mends_itself]


def judge(findings: Sequence[Finding]) -> None:
    render.table(((each.what, each.problem or "ok") for each in findings), ("WHAT", "RESULT"))
    wrong = sum(each.problem is not None for each in findings)
    if wrong:
        raise HomeError(f"The home is in place, but {wrong} of {len(findings)} checks found something to mend.")
