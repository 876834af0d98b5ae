"""A broker in this process, and certified clients of it that are made of wire: what the tests of this package share."""

import asyncio
import contextlib
import fcntl
import socket
import ssl
import struct
import termios
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs

from rsocket_broker.authority import Authority
from rsocket_broker.broker import Broker
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.settings import ListenSettings, Settings
from tests.end_to_end.wire import COMPOSITE, ERROR, SETUP, Frame, Line, frame, keepalive, setup

TLS = {"TLS 1.3": ((), ssl.TLSVersion.TLSv1_3), "TLS 1.2": (("rs",), ssl.TLSVersion.TLSv1_2)}
RESUME, RESUME_ENABLED = 0x0D, 0x80
PATIENCE = 10.0
SMALL_WINDOW = 16 * 1024
"""Bytes that a slow reader's kernel takes for it, about."""


@contextlib.asynccontextmanager
async def running(home: Path, **changes: Any) -> AsyncIterator[Broker]:
    """A broker with the echo plugin, on ports of its own."""
    listen = ListenSettings(insecure_port=0, secure_port=0, http_port=0)
    broker = Broker(Settings(home=home, **({"listen": listen, "adb": "off", "plugins": ("echo",)} | changes)))
    try:
        await broker.start()
        yield broker
    finally:
        await broker.stop()


def authority_of(broker: Broker) -> Authority:
    assert broker._authority is not None
    return broker._authority


@attrs.frozen
class Holder:
    """Who holds a certificate: its serial number, and TLS contexts with it."""

    serial: int
    port: int
    principal: Principal
    pem: Path
    trust: Path

    def context(self, version: str = "TLS 1.3") -> ssl.SSLContext:
        alpn, newest = TLS[version]
        context = ssl.create_default_context(cafile=str(self.trust))
        context.load_cert_chain(self.pem)
        context.maximum_version = newest
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    def connect(
        self, context: ssl.SSLContext | None = None, *, slow: bool = False, first: bytes | None = None
    ) -> "Wire":
        """Blocking: a line on which SETUP, or `first` in its place, was accepted. Raises what the broker's refusal
        becomes."""
        raw = socket.socket()
        if slow:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
        raw.settimeout(PATIENCE)
        raw.connect(("127.0.0.1", self.port))
        line: socket.socket = raw
        try:
            line = (context or self.context()).wrap_socket(raw, server_hostname="localhost")
            wire = Wire(line, PATIENCE)
            wire.send(first or setup(mime=COMPOSITE), keepalive(b"?"))
            answer = wire.next()
            if answer is None or (answer.stream == 0 and answer.kind == ERROR):
                raise ConnectionRefusedError("closed" if answer is None else answer.error[1])
        except BaseException:
            line.close()
            raise
        return wire


def resumable_setup(token: bytes) -> bytes:
    """A SETUP that asks for resumption."""
    mimes = bytes([len(COMPOSITE)]) + COMPOSITE + b"\x0atext/plain"
    body = struct.pack(">HHII", 1, 0, 10_000, 60_000) + struct.pack(">H", len(token)) + token + mimes
    return frame(0, SETUP, RESUME_ENABLED, body)


def resume(token: bytes) -> bytes:
    """A RESUME of a client that has heard nothing and lost nothing."""
    return frame(0, RESUME, 0, struct.pack(">HHH", 1, 0, len(token)) + token + bytes(16))


class Wire(Line):
    """A line whose bytes can be counted below TLS."""

    def arrived(self) -> int:
        """Bytes that have come and that nobody has read, as they are on the wire."""
        return int(struct.unpack("i", fcntl.ioctl(self.socket.fileno(), termios.FIONREAD, bytes(4)))[0])

    def drain(self) -> int:
        """All bytes until the connection ends, past TLS; how many there were."""
        count = 0
        with contextlib.suppress(ConnectionResetError):
            while data := socket.socket.recv(self.socket, 1 << 20):
                count += len(data)
        return count

    def frames(self) -> list[Frame]:
        """All frames until the connection ends."""
        return self.rest()


async def enrol(broker: Broker, folder: Path, app_id: str = "org.example.app", device_id: str = "d1") -> Holder:
    """A new client of its own key."""
    authority, principal = authority_of(broker), Principal(app_id, device_id, Proof.ADB)
    made = make_signing_request(app_id)
    issued = await asyncio.to_thread(authority.issue, authority.check_request(made.csr_pem), principal)
    folder.mkdir(parents=True, exist_ok=True)
    pem, trust = folder / f"{issued.serial:x}.pem", folder / "ca.pem"
    pem.write_bytes(issued.certificate_pem + made.key_pem)
    trust.write_bytes(authority.trust_pem)
    return Holder(issued.serial, broker.ports.secure_port or 0, principal, pem, trust)
