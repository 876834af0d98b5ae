"""The plain endpoint on a real connection: what an app that is nobody yet may do, and what it may not."""

import asyncio
import contextlib
import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from rsocket_broker.connection import Connection
from rsocket_broker.credentials import CA_FILE, CERTIFICATE_FILE, KEY_FILE, Credentials
from rsocket_broker.enrollment.endpoint import PlainEndpoint
from rsocket_broker.errors import ApplicationError, ConnectionClosed
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.events import SetupReceived
from rsocket_broker.protocol.frames import Setup
from rsocket_broker.protocol.limits import PLAIN
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.transports.memory import memory_pair
from tests.enrollment.workshop import DesktopApp, Workshop
from tests.until import until

FLIPPER = {"os": "Linux", "device": "bench", "device_id": "unknown", "app": "Demo", "sdk_version": 4, "medium": 1}


class Nobody:
    """A client that serves nothing."""

    def setup(self, connection: Connection, setup: SetupReceived) -> None: ...

    def request_response(self, payload: Payload) -> Payload:
        return Payload(b"")

    def fire_and_forget(self, payload: Payload) -> None: ...

    def request_stream(self, payload: Payload) -> Iterator[Payload]:
        return iter(())

    async def request_channel(self, payload: Payload, incoming: AsyncIterator[Payload]) -> AsyncIterator[Payload]:
        return
        yield

    def metadata_push(self, metadata: bytes) -> None: ...

    def closed(self, error: ConnectionClosed) -> None: ...


Dial = Callable[[object], Connection]


@pytest.fixture
async def dial(workshop: Workshop) -> AsyncIterator[Dial]:
    """Opens a connection to a plain endpoint with the given SETUP data (JSON)."""
    opened: list[Connection] = []

    def connect(claims: object) -> Connection:
        now = asyncio.get_running_loop().time()
        setup = Setup(metadata_mime="text/plain", data_mime="text/plain", data=json.dumps(claims).encode())
        client = Connection(Protocol.client(setup, PLAIN, now), Nobody())
        server = Connection(Protocol.server(PLAIN, now), PlainEndpoint(workshop.enroller))
        memory_pair(client, server)
        opened.extend((client, server))
        return client

    yield connect
    for connection in opened:
        connection.abort()
        await connection.wait_closed()


async def ask(connection: Connection, message: bytes | dict[str, object]) -> dict[str, object]:
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    answer = await connection.request_response(Payload(data), timeout=10)
    return dict(json.loads(bytes(answer.data or b"")))


async def refused(connection: Connection, message: bytes | dict[str, object]) -> str:
    with pytest.raises(ApplicationError) as caught:
        await ask(connection, message)
    return caught.value.public


@pytest.mark.row("F-7", "F-30")
async def test_an_app_asks_in_plain_and_then_opens_its_secure_line(
    workshop: Workshop, app: DesktopApp, dial: Dial
) -> None:
    with pytest.raises(FileNotFoundError):
        secure_line(app.folder, workshop.authority.serving().web)
    answer = await ask(dial(FLIPPER), app.message())
    held = Credentials.load(app.folder)
    subject = secure_line(app.folder, workshop.authority.serving().web)
    identity = workshop.authority.identify(subject)
    assert answer == {"deviceId": identity.device_id}
    assert identity.app_id == "org.example.demo"
    assert held.trust_pem == workshop.authority.trust_pem


def secure_line(folder: Path, server: Credentials) -> bytes:
    """The client's certificate (DER) as the server sees it after a handshake in which each verified the other."""
    client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_side.load_verify_locations(folder / CA_FILE)
    client_side.load_cert_chain(folder / CERTIFICATE_FILE, folder / KEY_FILE)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.verify_mode = ssl.CERT_REQUIRED
    server_side.load_verify_locations(cadata=server.trust_pem.decode())
    pem = folder.parent / "server.pem"
    pem.write_bytes(server.key_pem + server.chain_pem)
    server_side.load_cert_chain(pem)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server, server_hostname="localhost")
    served = server_side.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for end in (client, served):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    certificate = served.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


@pytest.mark.row("F-25")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"os": None}, "The field os is missing"),
        ({"os": "BeOS"}, "The field os of the SETUP data is BeOS, not one of"),
        ({"device": ""}, "The field device is missing"),
        ({"app": 7}, "The field app of the SETUP data must be text"),
        ({"sdk_version": "x"}, "The field sdk_version of the SETUP data must be a whole number"),
    ],
)
async def test_a_setup_at_fault_is_refused_by_field_and_nothing_is_served(
    workshop: Workshop, app: DesktopApp, dial: Dial, change: dict[str, object], words: str
) -> None:
    connection = dial({**FLIPPER, **change})
    with pytest.raises(ConnectionClosed) as caught:
        await ask(connection, app.message())
    assert words in caught.value.public
    assert workshop.issued("org.example.demo") == 0


@pytest.mark.row("A-13")
async def test_a_refusal_reaches_the_app_with_step_and_remedy_and_the_line_stays_open(
    app: DesktopApp, dial: Dial
) -> None:
    connection = dial(FLIPPER)
    assert (await refused(connection, app.message(medium=77))).startswith(
        "medium: no driver offers medium 77 (unknown to this broker). "
        "On offer here: 1 (file-system access): filesystem, physical_ios, simulator"
    )
    assert (await refused(connection, app.message(destination="/etc"))).startswith("proof: ")
    assert (await ask(connection, app.message()))["deviceId"]


@pytest.mark.row("A-01")
@pytest.mark.parametrize(
    "message",
    [
        {"method": "execute", "params": {"api": "echo", "method": "request"}},
        {"method": "getPlugins"},
        {"id": 1, "method": "init", "params": {"plugin": "echo"}},
        {"method": "refreshPlugins"},
        b"not JSON at all",
        b"",
    ],
)
async def test_whatever_is_not_enrolment_is_refused(dial: Dial, message: bytes | dict[str, object]) -> None:
    assert "This port only signs certificates" in await refused(dial(FLIPPER), message)


@pytest.mark.row("A-01")
async def test_a_route_to_a_plugin_leads_nowhere(dial: Dial) -> None:
    connection = dial(FLIPPER)
    routed = Payload(b'{"x": 1}', b"\xfe\x00\x00\x0d\x0cecho.request")
    with pytest.raises(ApplicationError, match="This port only signs certificates"):
        await connection.request_response(routed, timeout=10)


@pytest.mark.row("A-01")
async def test_streams_and_channels_are_refused(dial: Dial) -> None:
    connection = dial(FLIPPER)

    async def outgoing() -> AsyncIterator[Payload]:
        yield Payload(b"one")

    for stream in (
        connection.request_stream(Payload(b"5:5")),
        connection.request_channel(Payload(b""), outgoing()),
    ):
        with pytest.raises(ApplicationError, match=r"is not served here\. This port only signs"):
            await anext(stream)


async def test_a_metadata_push_means_nothing(app: DesktopApp, dial: Dial) -> None:
    connection = dial(FLIPPER)
    connection.metadata_push(b"anything")
    assert (await ask(connection, app.message()))["deviceId"]


async def test_an_old_sdk_asks_by_fire_and_forget(
    workshop: Workshop, app: DesktopApp, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        dial(FLIPPER).fire_and_forget(Payload(app.message()))
        await until(lambda: "enrolled org.example.demo@" in caplog.text)
    assert Credentials.load(app.folder).trust_pem == workshop.authority.trust_pem


@pytest.mark.row("A-13")
async def test_the_log_tells_what_an_old_sdk_cannot_hear(
    app: DesktopApp, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    dial(FLIPPER).fire_and_forget(Payload(app.message(medium=77)))
    await until(lambda: "refused to enrol Demo on bench (memory): medium: no driver offers medium 77" in caplog.text)


async def test_an_acknowledgement_is_logged_and_needs_no_answer(dial: Dial, caplog: pytest.LogCaptureFixture) -> None:
    acknowledgement = json.dumps({"method": "signCertificateAck", "hasRequiredFiles": False}).encode()
    dial(FLIPPER).fire_and_forget(Payload(acknowledgement))
    await until(lambda: "Demo on bench does not find its certificates" in caplog.text)


async def test_two_connections_do_not_share_their_claims(workshop: Workshop, app: DesktopApp, dial: Dial) -> None:
    one, two = dial(FLIPPER), dial({**FLIPPER, "os": "iOS"})
    assert "no driver of medium 1 serves this destination on iOS" in await refused(two, app.message())
    assert (await ask(one, app.message()))["deviceId"]
    assert workshop.issued("org.example.demo") == 1
