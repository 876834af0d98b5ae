"""Those in between: a proxy that records what passes and when, and a server that pretends to be the broker."""

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM


class RecordingProxy:
    """Passes bytes on to `target` (a port on this machine) and keeps all of them.

    `journal` may be shared by several proxies: it holds (name, what) in the order of events, `what` being "connect",
    "up" (the first bytes from the client), "down" (the first bytes to it) and "close".
    """

    def __init__(self, name: str, target: int, journal: list[tuple[str, str]]) -> None:
        self.name = name
        self.target = target
        self.journal = journal
        self.up = bytearray()
        self.down = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """Ends all that passes now; new connections are taken."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.journal.append((self.name, "connect"))
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._copy(reader, far_writer, "up", self.up))
                both.create_task(self._copy(far_reader, writer, "down", self.down))
        except* ConnectionError:
            pass
        finally:
            self.journal.append((self.name, "close"))
            for end in (writer, far_writer):
                end.close()
                with contextlib.suppress(ConnectionError):
                    await end.wait_closed()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str, kept: bytearray
    ) -> None:
        first = True
        while data := await reader.read(65536):
            if first:
                self.journal.append((self.name, direction))
                first = False
            kept += data
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


class ThrowawayAuthority:
    """A certificate authority that nobody deployed, and a server certificate for localhost from it."""

    def __init__(self, folder: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "SonarCA")])
        self.certificate = self.issue(self.name, self.key.public_key(), authority=True)
        server_key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        localhost = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        leaf = self.issue(localhost, server_key.public_key(), names=names)
        folder.mkdir(parents=True, exist_ok=True)
        self.ca_file = folder / "ca.crt"
        self.chain_file = folder / "server.crt"
        self.key_file = folder / "server.key"
        self.ca_file.write_bytes(self.certificate.public_bytes(PEM))
        self.chain_file.write_bytes(leaf.public_bytes(PEM) + self.certificate.public_bytes(PEM))
        self.key_file.write_bytes(
            server_key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )

    def issue(
        self,
        subject: x509.Name,
        public_key: ec.EllipticCurvePublicKey,
        *,
        authority: bool = False,
        names: list[x509.GeneralName] | None = None,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        start, end = now - datetime.timedelta(hours=1), now + datetime.timedelta(days=1)
        builder = x509.CertificateBuilder(self.name, subject, public_key, x509.random_serial_number(), start, end)
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def server_context(self) -> ssl.SSLContext:
        """Takes any client, and asks none for a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain_file, self.key_file)
        return context

    def client_context(self, folder: Path, trusting: Path | None = None) -> ssl.SSLContext:
        """A client with a certificate of this authority, that trusts the server of `trusting` (default: ours)."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "org.example.stranger")])
        pair = folder / "stranger.pem"
        pair.write_bytes(
            self.issue(name, key.public_key()).public_bytes(PEM)
            + key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        context = ssl.create_default_context(cafile=trusting or self.ca_file)
        context.load_cert_chain(pair)
        return context


class Impostor:
    """A TLS server on a port of its own with a certificate for localhost from a CA that nobody deployed."""

    def __init__(self, authority: ThrowawayAuthority) -> None:
        self.application_bytes = bytearray()
        self.connections = 0
        self.handshakes = 0
        self._context = authority.server_context()

    async def listen(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await writer.start_tls(self._context)
            self.handshakes += 1  # under TLS 1.3 our side may finish before the client has refused us
            while data := await reader.read(65536):
                self.application_bytes += data
        except (OSError, ssl.SSLError):
            pass
        finally:
            writer.close()
