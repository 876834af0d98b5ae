"""What the Python references share: mutual TLS with the certificates of one folder, and telling where they listen."""

import asyncio
import json
import ssl
from pathlib import Path


def server_context(home: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home / "server.crt", home / "server.key")
    context.load_verify_locations(home / "trust.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def announce(server: asyncio.Server, **more: int) -> None:
    """Say on stdout where this contestant listens."""
    print(json.dumps({"port": server.sockets[0].getsockname()[1], **more}), flush=True)
