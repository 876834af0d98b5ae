"""Clients that are not ours: Python's own TLS over a blocking socket, and `openssl s_client`."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest

from rsocket_broker.credentials import Credentials
from tests.transports.recording import PATIENCE

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


@attrs.frozen
class Answer:
    """What came of a connection: the echo, or the alert that ended it, or neither (a bare end)."""

    data: bytes = b""
    alert: str | None = None
    version: str | None = None


def stranger_context(
    trust_pem: bytes, credentials: Credentials | None, folder: Path, *, newest: ssl.TLSVersion, alpn: Sequence[str] = ()
) -> ssl.SSLContext:
    """A client context as anyone would make it, with these credentials or with none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=trust_pem.decode())
    context.maximum_version = newest
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if credentials is not None:
        context.load_cert_chain(pem_file(credentials, folder))
    return context


def pem_file(credentials: Credentials, folder: Path) -> Path:
    path = folder / "client.pem"
    path.write_bytes(credentials.chain_pem + credentials.key_pem)
    return path


def ask(port: int, context: ssl.SSLContext, question: bytes = b"there?") -> Answer:
    """Blocking: connects, asks, reads the answer. Run it in a thread."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as raw:
        try:
            with context.wrap_socket(raw, server_hostname="127.0.0.1", suppress_ragged_eofs=False) as line:
                line.sendall(question)
                return Answer(line.recv(1000), None, line.version())
        except ssl.SSLError as error:
            if "_ALERT_" in (error.reason or ""):
                return Answer(alert=error.reason.partition("_ALERT_")[2].lower())
            return Answer()


def openssl_client(port: int, *options: str, typed: bytes = b"") -> str:
    """Blocking: what `openssl s_client` prints, both streams."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(typed)
        process.stdin.flush()
        printed = process.stdout.read()  # until the server closes
        process.stdin.close()
    return printed.decode("utf-8", "replace")
