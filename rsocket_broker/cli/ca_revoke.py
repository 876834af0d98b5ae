"""`rsocket-broker ca revoke`, `unblock`, `blocks`, `crl`: by the broker that runs on the home, or on the home alone."""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from cryptography import x509

from rsocket_broker.admin.client import ask
from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.authority import Authority
from rsocket_broker.authority.crl import to_der, to_pem
from rsocket_broker.authority.revocation import By, parse_serial
from rsocket_broker.cli import render
from rsocket_broker.cli.ca_shared import check_made, opened, passphrase_option, read_passphrase, write_public
from rsocket_broker.cli.context import Context, Moment
from rsocket_broker.errors import AuthorityError

PATIENCE_S = 120.0
"""For a revocation that ends ten thousand sessions on a machine that is busy: a few seconds usually."""

client_option = click.option("--client", metavar="CLIENT", help="APP_ID@DEVICE_ID, APP_ID where it is on one device.")
app_option = click.option("--app", metavar="ID", help="An app, on every device.")
device_option = click.option("--device", metavar="ID", help="A device, with every app on it.")


class SerialNumber(click.types.StringParamType):
    """Digits in hex, as `ca list` prints them."""

    name = "serial number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            parse_serial(value)
        except AuthorityError as error:
            self.fail(error.public, param, ctx)
        return value


@click.command()
@click.argument("serial", type=SerialNumber(), required=False)
@click.option(
    "--client",
    metavar="CLIENT",
    help="All certificates of a client: APP_ID@DEVICE_ID, APP_ID where it is on one device, or the id of its session.",
)
@app_option
@device_option
@click.option(
    "--all-before", type=Moment(), metavar="DATE", help="Whatever was issued to clients before DATE (ISO 8601, UTC)."
)
@click.option(
    "--reason",
    default="",
    metavar="TEXT",
    help="Why: for the log, the audit, and who is refused. key-compromise, affiliation-changed, superseded, "
    "cessation-of-operation and privilege-withdrawn stand in the CRL too.",
)
@render.json_option
@click.pass_obj
def revoke(
    context: Context,
    serial: str | None,
    client: str | None,
    app: str | None,
    device: str | None,
    all_before: datetime | None,
    reason: str,
    as_json: bool,
) -> None:
    """Withdraw certificates, and end at once whatever is done with them.

    The next TLS handshake with one of them is refused, and sessions are closed with all below them; when the receipt
    is printed, nothing more is written to them. --client, --app and --device also block new certificates until
    `ca unblock`. With SERIAL only that certificate is withdrawn, and its app may enrol again.

    Without a broker on the home the same is written down for its next start.

    \b
    Examples:
      rsocket-broker ca revoke --client com.example.app@emulator-5554 --reason "stolen phone"
      rsocket-broker ca revoke 3f2a90c1 --reason key-compromise
      rsocket-broker ca revoke --all-before 2026-03-01 --json
    """
    before = None if all_before is None else all_before.isoformat()
    by, value = one_of(serial=serial, client=client, app=app, device=device, all_before=before)
    with broker_or_home(context.home) as authority:
        if authority is None:
            about = {"by": by.value, "value": value, "reason": reason}
            receipt = ask(context.home, "ca.revoke", about, patience=PATIENCE_S)
        else:
            receipt = revoke_alone(authority, by, value, reason)
    if as_json:
        render.print_json(receipt)
    else:
        show_receipt(receipt)
    if receipt["problem"]:
        raise AuthorityError(receipt["problem"])


@click.command()
@client_option
@app_option
@device_option
@render.json_option
@click.pass_obj
def unblock(context: Context, client: str | None, app: str | None, device: str | None, as_json: bool) -> None:
    """Let whom `ca revoke` has blocked have certificates again. What was revoked stays revoked.

    \b
    Example:
      rsocket-broker ca unblock --app com.example.app
    """
    by, value = one_of(client=client, app=app, device=device)
    with broker_or_home(context.home) as authority:
        if authority is None:
            block = ask(context.home, "ca.unblock", {"by": by.value, "value": value})
        else:
            block = row_of(authority.revocations.unblock(authority.revocations.selector(by, value)))
    if as_json:
        render.print_json(block)
    else:
        render.note(f"{name_of(block)} may have certificates again. It was blocked on {day(block['since'])}.")


@click.command()
@render.json_option
@click.pass_obj
def blocks(context: Context, as_json: bool) -> None:
    """Who gets no certificate, since when, and why.

    \b
    Example:
      rsocket-broker ca blocks
    """
    with opened(context.home) as authority:
        rows = [row_of(block) for block in authority.revocations.blocks()]
    if as_json:
        render.print_json(rows)
    elif rows:
        columns = ("by", "app_id", "device_id", "since", "reason")
        render.table(([row[name] for name in columns] for row in rows), [name.upper() for name in columns])
    else:
        render.note("Nobody is blocked.")


@click.command()
@click.option("--out", type=click.Path(allow_dash=True, path_type=Path), default="-", metavar="FILE", show_default=True)
@click.option("--der", is_flag=True, help="DER in the place of PEM: one list, that of the newest generation of the CA.")
@passphrase_option
@click.pass_obj
def crl(context: Context, out: Path, der: bool, passphrase_file: Path | None) -> None:
    """Write the lists of revoked certificates (CRL), for other programs that verify our clients.

    One list of each generation of the CA whose clients are let in, good for seven days. The broker's HTTP port has the
    same at /crl (PEM) and /crl.der.

    \b
    Examples:
      rsocket-broker ca crl --out revoked.pem
      curl http://localhost:8090/crl.der | openssl crl -inform DER -noout -text
    """
    check_made(context.home)
    if RunFolder(context.home).holder() is not None:
        pem = ask(context.home, "ca.crl")["pem"].encode("ascii")
    else:
        with opened(context.home, read_passphrase(passphrase_file)) as authority:
            pem = to_pem(authority.revocation_lists())
    write_public(out, to_der(x509.load_pem_x509_crl(pem)) if der else pem)


def one_of(**given: str | None) -> tuple[By, str]:
    """The selector that was given, which must be one. Raises click.UsageError."""
    named = [(By(name), value) for name, value in given.items() if value is not None]
    if len(named) == 1:
        return named[0]
    names = " or ".join(filter(None, [", ".join(map(flag, list(given)[:-1])), flag(list(given)[-1])]))
    raise click.UsageError(f"Give one of {names}." if not named else f"Give only one of {names}.")


def flag(name: str) -> str:
    return "SERIAL" if name == "serial" else f"--{name.replace('_', '-')}"


@contextlib.contextmanager
def broker_or_home(home: Path) -> Iterator[Authority | None]:
    """None where a broker runs, which is to be asked; else the home's authority, and no broker starts meanwhile."""
    check_made(home)
    folder = RunFolder(home)
    if folder.holder() is not None:
        yield None
        return
    folder.acquire()
    try:
        with opened(home) as authority:
            yield authority
    finally:
        folder.release()


def revoke_alone(authority: Authority, by: By, value: str, reason: str) -> dict[str, Any]:
    """The receipt of a revocation on a home without a broker: nobody is connected."""
    from rsocket_broker.lifecycle.revocation import Receipt  # with most of a broker behind it

    done = authority.revocations.revoke(authority.revocations.selector(by, value), reason)
    return Receipt.of(done).describe()


def row_of(block: Any) -> dict[str, Any]:
    from rsocket_broker.lifecycle.revocation_verbs import describe_block

    return describe_block(block)


def show_receipt(receipt: dict[str, Any]) -> None:
    """What was done, on stdout; what is to be thought of, on stderr."""
    pairs: list[tuple[str, object]] = [
        ("revoked", receipt["whom"]),
        ("reason", receipt["reason"]),
        ("certificates", receipt["certificates"]),
        ("blocked", receipt["blocks"]),
        ("sessions ended", receipt["sessions"]),
        ("sessions below them", receipt["descendants"]),
        ("streams ended", receipt["streams"]),
        ("resumable sessions forgotten", receipt["resumptions"]),
        ("enrolments dropped", receipt["enrolments"]),
        ("at", receipt["revoked"]),
    ]
    if receipt["last_frame_ms"] is not None:
        pairs.append(("in the database after", f"{receipt['in_database_ms']:.1f} ms"))
        pairs.append(("last frame written after", f"{receipt['last_frame_ms']:.1f} ms"))
        pairs.append(("last line closed after", f"{receipt['last_line_ms']:.1f} ms"))
        pairs.append(("TLS and CRL renewed after", f"{receipt['in_contexts_ms']:.1f} ms"))
    render.facts(pairs)
    if not receipt["certificates"]:
        before = receipt["revoked_before"]
        render.note(
            f"Already revoked before: {before}." if before else "No certificate that is still good is named by it."
        )
    for serial in receipt["successors"]:
        render.note(f"{serial} was issued to renew it, and stays good. To end both: ca revoke --client.")


def name_of(block: dict[str, Any]) -> str:
    names = (block["app_id"], block["device_id"])
    return (
        f"{block['by']} {'@'.join(name or '' for name in names) if block['by'] == 'client' else names[0] or names[1]}"
    )


def day(moment: str) -> str:
    return f"{datetime.fromisoformat(moment):%Y-%m-%d}"
