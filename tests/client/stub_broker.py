"""A broker in a few lines, in the test's own loop: signs whatever it is asked to, and does as it is told."""

import asyncio
import datetime
import ipaddress
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Self

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rsocket_broker.connection import Connection
from rsocket_broker.credentials import CA_FILE, CERTIFICATE_FILE, Credentials
from rsocket_broker.errors import ApplicationError, ConnectionClosed, SetupRefused
from rsocket_broker.jsontext import dump, parse_object
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.events import ResumeReceived, SetupReceived
from rsocket_broker.protocol.limits import PLAIN, SECURE, Limits
from rsocket_broker.protocol.metadata import first_tag
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.transports.listener import Listener
from rsocket_broker.transports.tcp import listen_tcp
from rsocket_broker.transports.tls import listen_tls
from rsocket_broker.transports.tls_contexts import ServerContexts

PEM = serialization.Encoding.PEM
HOUR = datetime.timedelta(hours=1)


class StubAuthority:
    """A certificate authority made for one test; `address` is what its server certificates hold beside localhost."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.address = address
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"stub {secrets.token_hex(4)}")])
        self.pem = self.issue(self.name, self.key.public_key(), authority=True)

    def issue(self, subject: x509.Name, public_key: object, *, authority: bool = False) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(
            self.name,
            subject,
            public_key,
            x509.random_serial_number(),
            now - HOUR,
            now + HOUR,  # type: ignore[arg-type]
        )
        builder = builder.add_extension(x509.BasicConstraints(authority, None), critical=True)
        if not authority:
            names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(self.address))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(PEM)

    def server_credentials(self) -> Credentials:
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self.issue(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), key.public_key())
        key_pem = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return Credentials(key_pem, leaf + self.pem, self.pem)

    def deploy(self, message: dict[str, object]) -> None:
        folder = Path(str(message["destination"]))
        request = x509.load_pem_x509_csr(str(message["csr"]).encode())
        for name, content in (
            (CA_FILE, self.pem),
            (CERTIFICATE_FILE, self.issue(request.subject, request.public_key())),
        ):
            (folder / name).write_bytes(content)
            (folder / name).chmod(0o644)


@attrs.define(eq=False)
class StubBroker:
    """Both ports. What came is in `asked` (plain), `told` (secure, one way), `setups` and `live` (secure)."""

    authority: StubAuthority = attrs.field(factory=StubAuthority)
    answer: Callable[[dict[str, object]], object] | None = None
    """What answers `signCertificate`; by default it deploys."""
    refuse_setup: str = ""
    """If set, the secure port refuses every SETUP with this text."""
    resumes: bool = False
    """Whether sessions on the secure port outlive their line."""
    sessions: dict[bytes, Connection] = attrs.field(factory=dict)
    """By their resume tokens."""
    asked: list[dict[str, object]] = attrs.field(factory=list)
    plain_setups: list[dict[str, object]] = attrs.field(factory=list)
    setups: list[dict[str, object]] = attrs.field(factory=list)
    told: list[dict[str, object]] = attrs.field(factory=list)
    live: list[Connection] = attrs.field(factory=list)
    all: list[Connection] = attrs.field(factory=list)
    under_way: asyncio.Event = attrs.field(factory=asyncio.Event)
    _listeners: list[Listener] = attrs.field(factory=list)
    insecure_port: int = 0
    secure_port: int = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def never(self) -> Payload:
        """A request that is under way until it is cancelled."""
        self.under_way.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.under_way.clear()
        raise AssertionError("unreachable")

    async def start(self, insecure_port: int = 0, secure_port: int = 0) -> None:
        contexts = ServerContexts(self.authority.server_credentials())
        plain = await listen_tcp("127.0.0.1", insecure_port, lambda: self._serve(_Plain(self), PLAIN))
        secure = await listen_tls("127.0.0.1", secure_port, lambda: self._serve(_Secure(self), SECURE), contexts.pick)
        self._listeners = [plain, secure]
        self.insecure_port, self.secure_port = plain.port, secure.port

    async def stop(self) -> None:
        for listener in self._listeners:
            listener.close()
        await self.cut()
        for listener in self._listeners:
            await listener.wait_closed()

    async def cut(self) -> None:
        """Ends all sessions without a word."""
        lines, self.live, self.all = self.all, [], []
        for line in lines:
            line.abort()
            await line.wait_closed()

    async def lose_lines(self) -> None:
        """Every line of the secure port is lost; sessions that can go on over others."""
        for line in self.live:
            line.drop_line()
        await asyncio.sleep(0)

    def _resume(self, door: Connection, event: ResumeReceived) -> None:
        if event.token not in self.sessions:
            raise SetupRefused("no such session")
        self.sessions[event.token].resume(door, event)

    def _serve(self, responder: "_Plain", limits: Limits) -> Connection:
        if self.resumes and limits is SECURE:
            limits = attrs.evolve(limits, resume_seconds=60.0)
        connection = Connection(Protocol.server(limits, time.monotonic()), responder, resumer=self._resume)
        self.all.append(connection)
        return connection


class _Plain:
    """Answers on the plain port."""

    def __init__(self, stub: StubBroker) -> None:
        self.stub = stub

    def setup(self, connection: Connection, setup: SetupReceived) -> None:
        self.stub.plain_setups.append(parse_object(setup.data))

    def request_response(self, payload: Payload) -> Payload | Awaitable[Payload]:
        message = json.loads(payload.data or b"")
        self.stub.asked.append(message)
        answer = {"deviceId": "stub-1"} if self.stub.answer is None else self.stub.answer(message)
        if self.stub.answer is None:
            self.stub.authority.deploy(message)
        return Payload(answer if isinstance(answer, bytes) else dump(answer))

    def fire_and_forget(self, payload: Payload) -> None:
        self.stub.asked.append(json.loads(payload.data or b""))

    async def request_stream(self, payload: Payload) -> AsyncIterator[Payload]:
        for number in range(int(payload.data or b"0")):
            yield Payload(b"%d" % number)

    async def request_channel(self, payload: Payload, incoming: AsyncIterator[Payload]) -> AsyncIterator[Payload]:
        yield payload
        async for one in incoming:
            yield one

    def metadata_push(self, metadata: bytes) -> None: ...

    def closed(self, error: ConnectionClosed) -> None: ...


class _Secure(_Plain):
    """Answers on the secure port: the route is echoed with the data."""

    def setup(self, connection: Connection, setup: SetupReceived) -> None:
        if self.stub.refuse_setup:
            raise SetupRefused(self.stub.refuse_setup)
        self.stub.setups.append(parse_object(setup.data))
        self.stub.live.append(connection)
        if setup.resume_token is not None:
            self.stub.sessions[setup.resume_token] = connection

    def request_response(self, payload: Payload) -> Payload | Awaitable[Payload]:
        route = first_tag(bytes(payload.metadata or b""))
        if route == "stub.error":
            raise ApplicationError("the stub says no")
        if route == "stub.bytes":
            return Payload(b"\x00\xff", payload.metadata)
        if route == "stub.nothing":
            return Payload(b"")
        if route == "stub.never":
            return self.stub.never()
        return Payload(dump([route, json.loads(payload.data or b"null")]))

    def fire_and_forget(self, payload: Payload) -> None:
        message = json.loads(payload.data or b"")
        route = first_tag(bytes(payload.metadata)) if payload.metadata else None
        self.stub.told.append(message if route is None else {"route": route, "value": message})

    def metadata_push(self, metadata: bytes) -> None:
        self.stub.told.append({"route": first_tag(metadata)})
