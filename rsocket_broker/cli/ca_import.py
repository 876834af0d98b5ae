"""`rsocket-broker ca import`: an operator's own CA in the place of one that is made here."""

from datetime import UTC, datetime
from pathlib import Path

import click

from rsocket_broker import files
from rsocket_broker.admin.client import ask
from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.audit import Audit, Event
from rsocket_broker.authority import Authority
from rsocket_broker.authority.home import CaHome
from rsocket_broker.authority.imported import cautions, reaches, read_issuer
from rsocket_broker.authority.inventory import Inventory
from rsocket_broker.authority.issue import Issuer
from rsocket_broker.cli import render
from rsocket_broker.cli.ca_shared import passphrase_option, read_passphrase, sha256
from rsocket_broker.cli.context import Context
from rsocket_broker.errors import AuthorityError
from rsocket_broker.moments import timestamp
from rsocket_broker.state import STATE_FILE, State

PREPARE_VERB = "rotate.import"
PATIENCE_S = 60.0
"""For the broker's answer: it makes a certificate and writes to the disk."""
NEXT = "Next: rsocket-broker ca rotate switch (`ca rotate status` says who has the new root already)."

existing = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("import")
@click.option("--certificate", type=existing, required=True, metavar="FILE", help="The CA's certificate, PEM.")
@click.option("--key", type=existing, required=True, metavar="FILE", help="Its private key, PEM, mode 0600.")
@click.option("--chain", type=existing, metavar="FILE", help="The certificates above it, the root included, PEM.")
@click.option(
    "--key-passphrase-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File (mode 0600) with the passphrase of the key file, if that is encrypted.",
)
@passphrase_option
@render.json_option
@click.pass_obj
def import_ca(
    context: Context,
    certificate: Path,
    key: Path,
    chain: Path | None,
    key_passphrase_file: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Take a CA of your own: one below your root, which stays offline, or a root.

    In a new home it is the CA from the beginning. In a home that has one it becomes the next generation: this prepares
    a rotation, as `ca rotate prepare` does. The key is copied into the home; --passphrase-file keeps it encrypted
    there. Says which kinds of clients cannot take such a chain.

    \b
    Example:
      rsocket-broker ca import --certificate ca.crt --key ca.key --chain root.crt
    """
    now = datetime.now(UTC)
    issuer = read_issuer(certificate, key, chain, read_passphrase(key_passphrase_file), now)
    home = context.home
    if not has_authority(home):
        generation = begin(home, issuer, read_passphrase(passphrase_file))
    elif RunFolder(home).holder() is not None:
        generation = prepare_running(home, certificate, key, chain, key_passphrase_file)
        with State.open(home / STATE_FILE) as state:
            record(state, generation, issuer)
    else:
        generation = prepare(home, issuer, read_passphrase(passphrase_file))
    tell(issuer, generation, now, as_json)
    if generation > 1:
        render.note(NEXT)


def has_authority(home: Path) -> bool:
    """Whether there is a CA, or was one: then its files are missing, and no other may take its place unasked."""
    if CaHome(home).generations():
        return True
    if not (home / STATE_FILE).exists():
        return False
    with State.open(home / STATE_FILE) as state:
        return bool(Inventory(state).roots())


def begin(home: Path, issuer: Issuer, passphrase: bytes | None) -> int:
    """The first generation of a home. Raises AuthorityError, HomeError."""
    with State.open(home / STATE_FILE) as state:
        with files.locked(home):
            ca = CaHome(home)
            ca.prepare()
            if ca.generations():
                raise AuthorityError(f"{home} has just been given a certificate authority. Run this again.")
            ca.add_generation(issuer, passphrase)
        authority = Authority.open(home, state, passphrase=passphrase)
        record(state, authority.generation, issuer)
        return authority.generation


def prepare(home: Path, issuer: Issuer, passphrase: bytes | None) -> int:
    """The next generation of a home on which no broker runs. Raises AuthorityError, HomeError."""
    with State.open(home / STATE_FILE) as state:
        rotation = Authority.open(home, state, passphrase=passphrase, hosts=None).prepare(issuer)
        assert rotation.next is not None
        record(state, rotation.next, issuer)
        return rotation.next


def prepare_running(home: Path, certificate: Path, key: Path, chain: Path | None, secret: Path | None) -> int:
    """The same by the broker that runs, which reads the files itself and brings its clients along."""
    paths = {"certificate": certificate, "key": key, "chain": chain, "key_passphrase_file": secret}
    given = {name: str(path.absolute()) for name, path in paths.items() if path is not None}
    answer = ask(home, PREPARE_VERB, {"import": given}, patience=PATIENCE_S)
    return int(answer["next"])


def record(state: State, generation: int, issuer: Issuer) -> None:
    audit = Audit(state)
    with state.transaction() as database:
        serial = f"{issuer.certificate.serial_number:x}"
        audit.write(database, Event.KEY, what="import", generation=generation, serial=serial)


def tell(issuer: Issuer, generation: int, now: datetime, as_json: bool) -> None:
    chain = [each.subject.rfc4514_string() for each in (issuer.certificate, *issuer.above)]
    reached = reaches(issuer, now)
    if as_json:
        render.print_json(
            {
                "generation": generation,
                "chain": chain,
                "fingerprint": sha256(issuer.certificate),
                "not_after": timestamp(issuer.certificate.not_valid_after_utc),
                "clients": [{"client": each.client, "served": each.served, "detail": each.detail} for each in reached],
                "cautions": cautions(issuer),
            }
        )
        return
    click.echo(f"Generation {generation} is {chain[0]}, SHA-256 {sha256(issuer.certificate)}")
    click.echo(f"Clients trust {chain[-1]}, SHA-256 {sha256(issuer.anchor)}")
    render.table(
        ((each.client, "yes" if each.served else "no", each.detail) for each in reached), ("CLIENTS", "SERVED", "WHY")
    )
    for caution in cautions(issuer):
        render.note(caution)
