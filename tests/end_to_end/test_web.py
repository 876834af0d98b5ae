"""Sessions over WebSocket beside a certificate, and the HTTP port of this machine: what they carry, and whom not."""

import asyncio
import contextlib
import json
import random
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import attrs
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import BINARY, CONT, PING, Frame

from rsocket_broker import client
from rsocket_broker.connection import Connection
from rsocket_broker.errors import TlsRefused
from rsocket_broker.protocol.limits import SECURE
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.transports.http import MAX_WAITING, Site, Socket
from rsocket_broker.transports.tcp import listen_tcp
from tests.conftest import SEED
from tests.end_to_end import wire
from tests.end_to_end.conftest import RECORDER, Connect
from tests.end_to_end.meddlers import RecordingProxy, ThrowawayAuthority
from tests.end_to_end.processes import BrokerProcess, start_broker
from tests.end_to_end.test_hostile import GROWTH
from tests.end_to_end.test_session import Recorder
from tests.foreign.sdk_folder import client_context, enrolled_folder
from tests.transports.outsiders import needs_openssl
from tests.transports.test_http import UPGRADE
from tests.two_sides import Side

REFUSED = "A token is needed here, as bearer authentication in the metadata of SETUP: ask for one with sessions.login."


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    home = tmp_path_factory.mktemp("web") / "home"
    running = start_broker(home, "--plugin", "echo", "--plugin", str(RECORDER), "--http-port", "0")
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.fixture(scope="module")
def folder(broker: BrokerProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return enrolled_folder(tmp_path_factory.mktemp("stranger") / "sonar", "org.example.web", broker.insecure_port)


def web(broker: BrokerProcess, scheme: str = "wss", path: str = "/rsocket") -> str:
    return f"{scheme}://localhost:{broker.ports['ws_secure_port' if scheme == 'wss' else 'http_port']}{path}"


async def frames(line: ClientConnection) -> AsyncIterator[wire.Frame]:
    async for message in line:
        assert isinstance(message, bytes)
        stream, word = int.from_bytes(message[:4]), int.from_bytes(message[4:6])
        yield wire.Frame(stream, word >> 10, word & 0x3FF, message[6:])


async def send(line: ClientConnection, frame: bytes) -> None:
    """One frame as one message: its length is left out."""
    await line.send(frame[3:])


@pytest.mark.row("A-37", "M-11")
async def test_a_whole_session_over_websocket(app: Connect, app_id: str, broker: BrokerProcess) -> None:
    async def numbers() -> AsyncIterator[object]:
        for number in range(5):
            yield number

    plugin = Recorder()
    async with app(websocket=web(broker), secure_port=9, plugins=[plugin]) as session:
        assert await session.request("echo.request", {"hello": [None]}) == {"hello": [None]}
        answers = [one.data async for one in session.stream_payloads("echo.stream", client.Payload(b"300:10"))]
        assert [len(answer or b"") for answer in answers] == [10] * 300
        assert [one async for one in session.channel("echo.channel", numbers())] == list(range(5))
        large = bytes(20 * 1024 * 1024)  # more than one frame, and so more than one message
        assert (await session.request_payload("echo.request", client.Payload(large))).data == large
        with pytest.raises(client.ApplicationError):
            await session.request("echo.error")
        await asyncio.wait_for(plugin.started.wait(), 10)
        (shown,) = [one for one in await asyncio.to_thread(broker.clients) if one["app_id"] == app_id]
        assert shown["transport"] == "wss"
        call = ("clients", "call", app_id, "Recorder", "reverse", '{"text": "abc"}')
        done = await asyncio.to_thread(broker.command, *call)
        assert json.loads(done.stdout) == {"text": "cba"}


async def test_a_library_of_others_holds_a_session_message_by_message(broker: BrokerProcess, folder: Path) -> None:
    async with connect(web(broker), ssl=client_context(folder)) as line:
        assert line.transport.get_extra_info("ssl_object").version() == "TLSv1.2"
        await send(line, wire.setup(mime=wire.COMPOSITE))
        await send(line, wire.request(wire.REQUEST_RESPONSE, 1, b"[1]", wire.routed("echo.request")))
        answer = await anext(frames(line))
        assert (answer.stream, wire.payload_data(answer)) == (1, b"[1]")


@needs_openssl
@pytest.mark.row("F-1")
@pytest.mark.parametrize("wanted", ["-tls1_2", "-no_ssl3"])
def test_the_web_port_sends_two_certificates_and_speaks_no_tls_1_3(
    broker: BrokerProcess, folder: Path, wanted: str
) -> None:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{broker.ports['ws_secure_port']}", "-showcerts", wanted]
    command += ["-cert", str(folder / "device.crt"), "-key", str(folder / "privateKey.pem"), "-alpn", "h2,http/1.1"]
    done = subprocess.run(command, capture_output=True, text=True, input="", timeout=10, check=False)
    assert done.stdout.count("-----BEGIN CERTIFICATE-----") == 2
    assert "Protocol  : TLSv1.2" in done.stdout
    assert "ALPN protocol: http/1.1" in done.stdout


@needs_openssl
def test_tls_1_3_alone_is_refused_at_the_web_port(broker: BrokerProcess) -> None:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{broker.ports['ws_secure_port']}", "-tls1_3"]
    done = subprocess.run(command, capture_output=True, text=True, input="", timeout=10, check=False)
    assert "protocol version" in done.stderr


@pytest.mark.row("M-1", "M-11")
async def test_without_a_certificate_of_ours_the_web_port_says_nothing(
    app: Connect, broker: BrokerProcess, folder: Path, tmp_path: Path
) -> None:
    bare = ssl.create_default_context(cafile=folder / "sonarCA.crt")
    foreign = ThrowawayAuthority(tmp_path).client_context(tmp_path, folder / "sonarCA.crt")
    for context in (bare, foreign):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with connect(web(broker), ssl=context):
                pass


async def test_no_pages_are_at_the_web_port(broker: BrokerProcess, folder: Path) -> None:
    """Whoever says nothing of itself is refused by the one status that Flipper's SDKs understand."""
    for path in ("/", "/metrics", "/rsocket/", "/exchange"):
        with pytest.raises(InvalidStatus, match="401"):
            async with connect(web(broker, path=path), ssl=client_context(folder)):
                pass


@pytest.mark.row("M-9")
async def test_a_web_page_of_another_site_opens_no_session(broker: BrokerProcess, folder: Path) -> None:
    """Even where the browser has a certificate to show."""
    own = web(broker).replace("wss", "https").removesuffix("/rsocket")
    for scheme, origins in (("wss", ["https://evil.example", "null", own.replace("https", "http")]), ("ws", [own])):
        context = client_context(folder) if scheme == "wss" else None
        for origin in origins:
            with pytest.raises(InvalidStatus, match="401" if scheme == "wss" else "403"):
                async with connect(web(broker, scheme), ssl=context, origin=origin):  # type: ignore[arg-type]
                    pass
    async with connect(web(broker), ssl=client_context(folder), origin=own):  # type: ignore[arg-type]
        pass


@pytest.mark.row("M-1", "A-36")
async def test_the_http_port_opens_no_session_without_a_certificate(broker: BrokerProcess) -> None:
    async with connect(web(broker, "ws")) as line:
        await send(line, wire.setup(mime=wire.COMPOSITE))
        await send(line, wire.request(wire.REQUEST_RESPONSE, 1, b"1", wire.routed("echo.request")))
        received = [frame async for frame in frames(line)]
    assert [frame.error for frame in received] == [(wire.REJECTED_SETUP, REFUSED)]


async def test_our_own_client_hears_so_too(app: Connect, broker: BrokerProcess) -> None:
    with pytest.raises(client.SetupRefused, match=REFUSED):
        async with app(websocket=web(broker, "ws")):
            pass


async def test_a_port_that_takes_no_websocket_is_an_error_in_words(app: Connect, broker: BrokerProcess) -> None:
    with pytest.raises(TimeoutError, match="it says 401"):
        async with app(websocket=web(broker, path="/elsewhere"), timeout=1):
            pass
    with contextlib.suppress(TlsRefused), pytest.raises(TimeoutError):
        async with app(websocket=f"wss://localhost:{broker.insecure_port}", timeout=1):
            pass


@pytest.mark.row("A-31")
async def test_strangers_on_the_http_port_have_small_messages(broker: BrokerProcess) -> None:
    async with connect(web(broker, "ws")) as line:
        await line.send(bytes(1024 * 1024 + 1))
        with pytest.raises(ConnectionClosedError):
            await line.recv()
    assert line.close_code == 1009


@pytest.mark.row("A-35")
async def test_a_request_before_setup_is_refused(broker: BrokerProcess, folder: Path) -> None:
    async with connect(web(broker), ssl=client_context(folder)) as line:
        await send(line, wire.request(wire.REQUEST_RESPONSE, 1, b"1", wire.routed("echo.request")))
        (answer,) = [frame async for frame in frames(line)]
    assert answer.error[0] == wire.INVALID_SETUP


def test_curl_gets_plain_words(broker: BrokerProcess) -> None:
    address = f"http://localhost:{broker.ports['http_port']}"
    done = subprocess.run(["curl", "-s", f"{address}/rsocket"], capture_output=True, text=True, timeout=10, check=False)
    assert done.stdout == "This path is for RSocket over WebSocket.\n"
    rebound = ["curl", "-s", "-H", "Host: evil.example", f"{address}/rsocket"]
    done = subprocess.run(rebound, capture_output=True, text=True, timeout=10, check=False)
    assert done.stdout == "The Host must be localhost, 127.0.0.1 or [::1], with the number of this port.\n"


def test_a_port_can_be_switched_off(tmp_path: Path) -> None:
    running = start_broker(tmp_path / "home", "--ws-secure-port", "off")
    try:
        assert running.ports["ws_secure_port"] is None
        assert running.ports["http_port"] is None
        assert "ws-secure-port" not in running.ready
    finally:
        assert running.stop() == 0


# --- who does harm ---------------------------------------------------------------------------------------------------


@pytest.mark.row("A-32")
async def test_an_upgrade_and_then_silence_ends_at_the_deadline_of_setup() -> None:
    impatient = attrs.evolve(SECURE, setup_deadline=0.1)
    made: list[Connection] = []

    def receiver() -> Connection:
        made.append(Connection(Protocol.server(impatient, time.monotonic()), Side()))
        return made[-1]

    site = Site({}, {"/rsocket": Socket(receiver, impatient.frame)}, loopback=True)
    listener = await listen_tcp("localhost", 0, site.greet)
    site.port = listener.port
    async with asyncio.timeout(10), connect(f"ws://localhost:{listener.port}/rsocket") as line:
        (answer,) = [frame async for frame in frames(line)]
        assert answer.error[0] == wire.INVALID_SETUP
    assert line.close_code == 1000
    listener.abort()
    await listener.wait_closed()


def raw(broker: BrokerProcess, folder: Path, scheme: str) -> socket.socket:
    """A line on which WebSocket is agreed on, and whose bytes are ours."""
    port = int(broker.ports["ws_secure_port" if scheme == "wss" else "http_port"])
    line: socket.socket = socket.create_connection(("127.0.0.1", port), 10)
    if scheme == "wss":
        line = client_context(folder).wrap_socket(line, server_hostname="localhost")
    line.sendall(f"GET /rsocket HTTP/1.1\r\nHost: localhost:{port}\r\n".encode() + UPGRADE + b"\r\n")
    received = b""
    while b"\r\n\r\n" not in received:
        received += line.recv(4096)
    assert b" 101 " in received
    return line


def pings_unread(line: socket.socket) -> None:
    ping = Frame(PING, bytes(125)).serialize(mask=True) * 4000
    for _ in range(100):
        line.sendall(ping)


def fragments_of_nothing(line: socket.socket) -> None:
    line.sendall(Frame(BINARY, b"", fin=False).serialize(mask=True))
    nothing = Frame(CONT, b"", fin=False).serialize(mask=True) * 20_000
    for _ in range(20):
        line.sendall(nothing)


def fragments_without_end(line: socket.socket) -> None:
    line.sendall(Frame(BINARY, b"", fin=False).serialize(mask=True))
    more = Frame(CONT, bytes(4000), fin=False).serialize(mask=True) * 16
    while True:
        line.sendall(more)


def a_promise_of_more_than_there_is(line: socket.socket) -> None:
    line.sendall(struct.pack("!BBQ", 0x82, 0xFF, 2**62) + bytes(4))
    while True:
        line.sendall(bytes(65_536))


def garbage(line: socket.socket) -> None:
    draw = random.Random(SEED)
    while True:
        line.sendall(draw.randbytes(65_536))


@pytest.mark.row("A-31")
@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize(
    "attack",
    [pings_unread, fragments_of_nothing, fragments_without_end, a_promise_of_more_than_there_is, garbage],
)
def test_an_attack_costs_its_own_line_only(
    attack: Callable[[socket.socket], None], scheme: str, broker: BrokerProcess, folder: Path
) -> None:
    before = broker.rss()
    with raw(broker, folder, scheme) as line:
        line.settimeout(2)
        with contextlib.suppress(OSError):  # the broker has had enough, or reads no more
            attack(line)
        with raw(broker, folder, scheme) as other:
            other.sendall(Frame(PING, b"still there?").serialize(mask=True))
            assert other.recv(100) == b"\x8a\x0cstill there?"
        assert broker.rss() - before < GROWTH
    assert "Traceback" not in broker.log.read_text()


@pytest.mark.row("A-32")
def test_a_crowd_that_asks_nothing_shuts_nobody_out_of_the_http_port(broker: BrokerProcess, folder: Path) -> None:
    port = int(broker.ports["http_port"])
    with contextlib.ExitStack() as crowd:
        for _ in range(MAX_WAITING + 10):
            crowd.enter_context(socket.create_connection(("127.0.0.1", port), 10))
        with raw(broker, folder, "ws") as line:
            line.sendall(Frame(PING, b"hello").serialize(mask=True))
            assert line.recv(100) == b"\x8a\x05hello"


@pytest.mark.row("A-41")
async def test_a_session_goes_on_over_a_new_websocket(app: Connect, app_id: str, broker: BrokerProcess) -> None:
    async with (
        RecordingProxy("web", int(broker.ports["ws_secure_port"]), []) as between,
        app(websocket=f"wss://localhost:{between.port}") as session,
    ):
        stream = session.stream_payloads("echo.stream", client.Payload(b"3000:1000"), credit=16)
        answers = [await anext(stream) for _ in range(100)]
        slow = asyncio.create_task(session.request_payload("echo.slow", client.Payload(b"300")))
        await between.cut()
        answers += [answer async for answer in stream]
        assert len(answers) == 3000
        await slow
        (shown,) = [one for one in await asyncio.to_thread(broker.clients) if one["app_id"] == app_id]
        assert shown["transport"] == "wss"
        assert session.connections == 1
