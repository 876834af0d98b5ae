"""`rsocket-broker ca …`: the certificate authority of a home. Every command works on the home alone, whether or not
a broker runs there."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from cryptography import x509

from rsocket_broker import credentials, files
from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.authority import Authority, CheckedRequest, Finding, Record, Status
from rsocket_broker.authority.home import CaHome, certificate_pem
from rsocket_broker.authority.keys import key_fingerprint, key_kind
from rsocket_broker.authority.profiles import BROKER, CLIENT, CLIENT_PROFILES
from rsocket_broker.cli import render
from rsocket_broker.cli.ca_import import import_ca
from rsocket_broker.cli.ca_keys import begin_in_key_ring, passphrase
from rsocket_broker.cli.ca_revoke import blocks, crl, revoke, unblock
from rsocket_broker.cli.ca_rotate import rotate
from rsocket_broker.cli.ca_shared import (
    PUBLIC_FILE,
    check_made,
    opened,
    passphrase_option,
    read_certificate,
    read_input,
    read_passphrase,
    sha256,
    write_public,
)
from rsocket_broker.cli.context import Context
from rsocket_broker.credentials import SigningRequest, make_signing_request
from rsocket_broker.enrollment.containers import NO_RENEWAL, Containers
from rsocket_broker.errors import AuthorityError, HomeError
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.moments import timestamp
from rsocket_broker.state import STATE_FILE, State

FILE_ACCESS = 1
"""The exchange medium that a client's folder is filled through; its configuration file names it."""


def cross_pem(home: Path, authority: Authority) -> bytes:
    cross = authority.cross_certificate()
    if cross is None:
        raise AuthorityError(
            "There is no cross-certificate: there is one from `ca rotate switch` to `ca rotate finish`."
        )
    return certificate_pem(cross)


def crl_pointer(home: Path, authority: Authority) -> bytes:
    """Where outsiders find the list of revoked certificates."""
    from rsocket_broker.lifecycle.revocation_verbs import PEM_PATH  # brings half a broker along

    ports = RunFolder(home).ports()
    if ports is None or ports.http_port is None:
        return b"rsocket-broker ca crl    (no broker with an HTTP port runs: serve --http-port)\n"
    return f"http://localhost:{ports.http_port}{PEM_PATH}\n".encode()


PARTS: Mapping[str, Callable[[Path, Authority], bytes]] = {
    "trust": lambda _, authority: authority.trust_pem,
    "ca": lambda _, authority: certificate_pem(authority.certificate),
    "chain": lambda _, authority: b"".join(map(certificate_pem, authority.chain)),
    "cross": cross_pem,
    "crl": crl_pointer,
}
"""What can be exported by name: public, each of it."""


@click.group()
def ca() -> None:
    """The certificate authority: make it, look at it, issue by hand. All of it works with and without a broker.

    \b
    Examples:
      rsocket-broker ca show
      rsocket-broker ca list --app org.example.app --json
      rsocket-broker ca issue --app-id org.example.tool --out ./tool
    """


for command in (passphrase, revoke, unblock, blocks, crl):
    ca.add_command(command)
ca.add_command(import_ca)
ca.add_command(rotate)


@ca.command()
@passphrase_option
@click.option(
    "--keyring",
    is_flag=True,
    help="Keep the passphrase in the key ring of the operating system; one is made up unless --passphrase-file has it.",
)
@click.pass_obj
def init(context: Context, passphrase_file: Path | None, keyring: bool) -> None:
    """Make the certificate authority of this home, unless there is one.

    `serve` does the same at its first start. With --passphrase-file the CA's key is kept encrypted, and every later
    `serve` and `ca issue` needs that file. With --keyring the home remembers where its passphrase is, and none of them
    needs an option.

    \b
    Examples:
      rsocket-broker ca init --passphrase-file ./passphrase
      rsocket-broker ca init --keyring
    """
    given = read_passphrase(passphrase_file)
    existed = bool(CaHome(context.home).generations())
    with State.open(context.home / STATE_FILE) as state:
        if keyring:
            begin_in_key_ring(context.home, given)
        authority = Authority.open(context.home, state, passphrase=given)
        fingerprint = sha256(authority.certificate)
    verb = "already has" if existed else "now has"
    click.echo(f"{context.home} {verb} a certificate authority, SHA-256 {fingerprint}")


@ca.command()
@render.json_option
@click.pass_obj
def show(context: Context, as_json: bool) -> None:
    """Show the authority: its certificate, its key, how much it has issued.

    \b
    Example:
      rsocket-broker ca show --json
    """
    with opened(context.home) as authority:
        described = describe(context.home, authority)
    if as_json:
        render.print_json(described)
    else:
        render.facts((name.replace("_", " "), value) for name, value in described.items())


@ca.command("list")
@click.option("--app", metavar="ID", help="Only the certificates of this app.")
@render.json_option
@click.pass_obj
def list_certificates(context: Context, app: str | None, as_json: bool) -> None:
    """List every certificate that was issued, in order.

    RENEWAL says when one that lies in an app's container is replaced there at the latest, and by whom: by the app over
    its session, or by a driver; or what is in the way.

    \b
    Example:
      rsocket-broker ca list --app org.example.app
    """
    now = datetime.now(UTC)
    with opened(context.home) as authority, State.open(context.home / STATE_FILE) as state:
        records = authority.certificates(app)
        kept = {each.leaf.serial: each.describe() for each in Containers(state).all()}
        trusted = authority.rotation.trusted
        rows = [row_of(record, now, trusted) | dict(kept.get(record.serial, NO_RENEWAL)) for record in records]
    if as_json:
        render.print_json(rows)
        return
    columns = ("serial", "profile", "app_id", "device_id", "proof", "status", "not_after")
    if rows:
        lines = ([*(row[name] for name in columns), renewal_of(row)] for row in rows)
        render.table(lines, [*(name.upper() for name in columns), "RENEWAL"])
    else:
        render.note("No certificate was issued to that app. `rsocket-broker ca list` shows all.")


@ca.command()
@click.argument("csr", required=False, type=click.Path(allow_dash=True, path_type=Path))
@click.option("--app-id", metavar="ID", help="The app to issue for. Without CSR a key is made for it.")
@click.option("--device-id", default="", metavar="ID", help="The device that the app is on, if one matters.")
@click.option("--profile", type=click.Choice(CLIENT_PROFILES), default=CLIENT, show_default=True)
@click.option(
    "--out",
    type=click.Path(allow_dash=True, path_type=Path),
    metavar="PATH",
    help="With CSR: the certificate's file, - for stdout [default: -]. Without: a folder for key and certificates.",
)
@passphrase_option
@click.pass_obj
def issue(
    context: Context,
    csr: Path | None,
    app_id: str | None,
    device_id: str,
    profile: str,
    out: Path | None,
    passphrase_file: Path | None,
) -> None:
    """Issue a client certificate by hand; the operator is the proof.

    \b
    Examples:
      rsocket-broker ca issue app.csr --out device.crt           for a request (PEM; - reads stdin)
      rsocket-broker ca issue --app-id org.example.app --out D   makes a key, and a folder as apps keep it
    """
    if csr is None and (app_id is None or out is None or str(out) == "-"):
        raise click.UsageError("Give a CSR file, or both --app-id ID and --out DIR.")
    with opened(context.home, read_passphrase(passphrase_file)) as authority:
        if csr is not None:
            issue_for_request(authority, csr, app_id, device_id, profile, out or Path("-"))
        elif app_id is not None and out is not None:
            issue_folder(authority, Principal(app_id, device_id, Proof.OPERATOR), profile, out)


@ca.command()
@click.argument("file", required=False, type=click.Path(allow_dash=True, path_type=Path))
@passphrase_option
@render.json_option
@click.pass_obj
def verify(context: Context, file: Path | None, passphrase_file: Path | None, as_json: bool) -> None:
    """Check the whole home, or, with FILE, one certificate (PEM; - reads stdin). Exit 1 if anything is wrong.

    \b
    Examples:
      rsocket-broker ca verify
      rsocket-broker ca verify ./tool/device.crt
    """
    if file is None:
        if not (context.home / STATE_FILE).exists():
            check_made(context.home)
        findings = Authority.verify_home(context.home, passphrase=read_passphrase(passphrase_file))
    else:
        certificate = read_certificate(file)
        with opened(context.home) as authority:
            findings = authority.verify_certificate(certificate)
    report(findings, as_json)


@ca.command()
@click.option(
    "--what",
    type=click.Choice(list(PARTS)),
    default="trust",
    show_default=True,
    help="trust: what clients are to trust, one certificate or, in a rotation, several. ca: the CA that signs now. "
    "chain: that and the certificates above it. cross: the certificate by the former CA for the new one. crl: where "
    "the list of revoked certificates is.",
)
@click.option("--serial", metavar="HEX", help="A certificate from `ca list` instead.")
@click.option("--out", type=click.Path(allow_dash=True, path_type=Path), default="-", metavar="FILE", show_default=True)
@click.pass_obj
def export(context: Context, what: str, serial: str | None, out: Path) -> None:
    """Write public parts of the authority as PEM: what clients are to trust, unless --what or --serial says otherwise.

    \b
    Examples:
      rsocket-broker ca export --out ca.crt
      rsocket-broker ca export --what chain
    """
    with opened(context.home) as authority:
        content = PARTS[what](context.home, authority) if serial is None else find_certificate(authority, serial)
    write_public(out, content)


def issue_for_request(
    authority: Authority, csr: Path, app_id: str | None, device_id: str, profile: str, out: Path
) -> None:
    """Sign the request in a file, for the app that its common name says, or for --app-id where that is longer."""
    request = authority.check_request(read_input(csr))
    principal = Principal(app_id or app_of(request), device_id, Proof.OPERATOR)
    issued = authority.issue(request, principal, profile)
    write_public(out, issued.certificate_pem)
    render.note(f"Issued {issued.serial:x} to {principal}, valid until {issued.not_after:%Y-%m-%d %H:%M} UTC.")


def app_of(request: CheckedRequest) -> str:
    if request.common_name == credentials.FALLBACK_COMMON_NAME:
        raise click.UsageError(
            f"The request is for {request.common_name}, which stands for a longer id: give --app-id."
        )
    return request.common_name


def issue_folder(authority: Authority, principal: Principal, profile: str, folder: Path) -> None:
    """Make a key and a certificate for it, and put them into a folder in the layout that clients load."""
    if (folder / credentials.KEY_FILE).exists():
        raise HomeError(f"{folder} holds a {credentials.KEY_FILE} already. Choose another folder, or move it away.")
    made = make_request(principal.app_id)
    files.ensure_private_directory(folder)
    issued = authority.issue(authority.check_request(made.csr_pem), principal, profile)
    made.save(folder)
    config = {"deviceId": principal.device_id, "medium": FILE_ACCESS}
    files.write_private(folder / credentials.CONFIG_FILE, json.dumps(config).encode())
    files.write_private(folder / credentials.CA_FILE, authority.trust_pem, PUBLIC_FILE)
    files.write_private(folder / credentials.CERTIFICATE_FILE, issued.certificate_pem, PUBLIC_FILE)
    click.echo(f"Issued {issued.serial:x} to {principal}, valid until {issued.not_after:%Y-%m-%d %H:%M} UTC: {folder}")


def make_request(app_id: str) -> SigningRequest:
    try:
        return make_signing_request(app_id)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", param_hint="--app-id") from error


def describe(home: Path, authority: Authority) -> dict[str, object]:
    """What `show` says, in this order. `trusted` are the generations that are accepted, the newest first, each with
    the fingerprint of its certificate."""
    trusted = authority.rotation.trusted
    certificate, records = authority.certificate, authority.certificates()
    server = [record for record in records if record.profile == BROKER]
    return {
        "home": str(home),
        "generation": authority.generation,
        "subject": certificate.subject.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "fingerprint": sha256(certificate),
        "key": key_kind(certificate.public_key()),
        "key_fingerprint": key_fingerprint(certificate.public_key()),
        "key_encrypted": authority.key_is_encrypted,
        "imported": authority.is_imported,
        "anchor": authority.chain[-1].subject.rfc4514_string(),
        "not_before": timestamp(certificate.not_valid_before_utc),
        "not_after": timestamp(certificate.not_valid_after_utc),
        "phase": authority.phase.value,
        "trusted": [f"{number} ({sha256(each)})" for number, each in zip(trusted, authority.trusted(), strict=True)],
        "server_not_after": timestamp(server[-1].not_after) if server else None,
        "issued_to_clients": sum(record.principal is not None for record in records),
    }


def row_of(record: Record, now: datetime, trusted: Collection[int]) -> dict[str, object]:
    """One certificate as `list` shows it: serial and fingerprints in hex, dates in ISO 8601."""
    principal = record.principal
    return {
        "serial": record.serial_hex,
        "fingerprint": record.fingerprint,
        "generation": record.generation,
        "profile": record.profile,
        "subject": record.subject,
        "app_id": principal.app_id if principal else None,
        "device_id": principal.device_id if principal else None,
        "proof": principal.proof.value if principal else None,
        "key_fingerprint": record.key_fingerprint,
        "issued": timestamp(record.issued),
        "not_before": timestamp(record.not_before),
        "not_after": timestamp(record.not_after),
        "status": status_of(record, now, trusted),
        "revoked": None if record.revoked is None else timestamp(record.revoked),
        "reason": record.reason,
        "renews": None if record.renews is None else f"{record.renews:x}",
    }


def renewal_of(row: Mapping[str, object]) -> str:
    """When and by whom a certificate is renewed, in few words."""
    if row["renewal_problem"] is not None:
        return str(row["renewal_problem"])
    return "" if row["renewal_due"] is None else f"{str(row['renewal_due'])[:10]} by {row['renewal_by']}"


def status_of(record: Record, now: datetime, trusted: Collection[int]) -> str:
    """What became of a certificate; `dropped` is one of a generation that is accepted no more."""
    if record.status is Status.ACTIVE and record.generation not in trusted:
        return "dropped"
    ended = record.status is Status.ACTIVE and now > record.not_after
    return "ended" if ended else str(record.status.value)


def report(findings: Sequence[Finding], as_json: bool) -> None:
    """Show what was checked; raises AuthorityError, hence exit 1, when something is wrong."""
    if as_json:
        render.print_json([{"what": each.what, "problem": each.problem} for each in findings])
    else:
        render.table(((each.what, each.problem or "ok") for each in findings), ("WHAT", "RESULT"))
    wrong = sum(each.problem is not None for each in findings)
    if wrong:
        raise AuthorityError(f"{wrong} of {len(findings)} checks failed; each says what to do.")


def find_certificate(authority: Authority, serial: str) -> bytes:
    try:
        record = authority.record(int(serial, 16))
    except ValueError as error:
        raise click.BadParameter(f"{serial!r} is not a number in hex.", param_hint="--serial") from error
    if record is None:
        raise AuthorityError(f"No certificate {serial} was ever issued here. See: rsocket-broker ca list")
    return certificate_pem(x509.load_der_x509_certificate(record.certificate))
