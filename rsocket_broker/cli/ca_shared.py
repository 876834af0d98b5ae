"""What the commands on the authority have in common: opening it, its passphrase, and PEM that comes in and goes out."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from rsocket_broker import files
from rsocket_broker.authority import Authority
from rsocket_broker.authority.home import CaHome
from rsocket_broker.errors import AuthorityError, ConfigurationError
from rsocket_broker.state import STATE_FILE, State

PUBLIC_FILE = 0o644


def passphrase_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--passphrase-file",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="File (mode 0600) with the passphrase of the CA's key.",
    )(command)


@contextlib.contextmanager
def opened(home: Path, passphrase: bytes | None = None) -> Iterator[Authority]:
    """The authority of a home that has one; nothing is made. Raises AuthorityError naming `ca init` otherwise."""
    check_made(home)
    with State.open(home / STATE_FILE) as state:
        yield Authority.open(home, state, passphrase=passphrase, create=False)


def check_made(home: Path) -> None:
    """Raises AuthorityError for a home without an authority."""
    if not CaHome(home).generations():
        raise AuthorityError(f"There is no certificate authority in {home}. Make one: rsocket-broker ca init")


def read_passphrase(path: Path | None) -> bytes | None:
    """The passphrase in a file that only its owner may read, without the line end."""
    if path is None:
        return None
    passphrase = files.read_private(path).rstrip(b"\r\n")
    if not passphrase:
        raise ConfigurationError(f"{path} holds no passphrase.")
    return passphrase


def read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(read_input(path))[0]
    except ValueError as error:
        raise AuthorityError(f"{source(path)} does not hold a PEM certificate.") from error


def read_input(path: Path) -> bytes:
    """A file's content, or stdin's for `-`; bounded, since a request or a certificate is small."""
    with click.open_file(str(path), "rb") as file:
        content: bytes = file.read(files.DEFAULT_LIMIT + 1)
    if len(content) > files.DEFAULT_LIMIT:
        raise AuthorityError(f"{source(path)} is larger than {files.DEFAULT_LIMIT} bytes: no request or certificate.")
    return content


def source(path: Path) -> str:
    return "Standard input" if str(path) == "-" else str(path)


def write_public(path: Path, pem: bytes) -> None:
    if str(path) == "-":
        click.echo(pem, nl=False)
    else:
        files.write_private(path, pem, PUBLIC_FILE)


def sha256(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()
