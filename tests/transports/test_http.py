"""The HTTP endpoint over real sockets; what WebSockets do on it is in test_websocket.py."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
from websockets.asyncio.client import connect

from rsocket_broker.errors import SetupRefused
from rsocket_broker.transports.base import Channel, Peer, TextTransport
from rsocket_broker.transports.http import HEADERS, MessageSocket, Site, Socket, loopback_hosts
from rsocket_broker.transports.http_request import MAX_HEAD, Refusal, Request
from rsocket_broker.transports.listener import Listener
from rsocket_broker.transports.tcp import listen_tcp
from tests.transports.recording import PATIENCE, Echo, Guests

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (
    b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: " + KEY + b"\r\n"
)


@attrs.frozen
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@attrs.frozen
class Place:
    """A site that listens."""

    site: Site
    listener: Listener
    guests: Guests

    @property
    def host(self) -> str:
        return f"localhost:{self.listener.port}"

    async def send(self, request: bytes) -> Answer:
        """These very bytes, and what comes back until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listener.port)
        writer.write(request)
        async with asyncio.timeout(PATIENCE):
            received = await reader.read()
        writer.close()
        return parsed(received)

    async def ask(self, line: str = "GET /page", *headers: str, host: str | None = None) -> Answer:
        lines = [f"{line} HTTP/1.1", f"Host: {host or self.host}", *headers, "", ""]
        return await self.send("\r\n".join(lines).encode())


def parsed(received: bytes) -> Answer:
    head, _, body = received.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    pairs = [field.split(": ", 1) for field in fields]
    return Answer(int(line.split(" ")[1]), {name.lower(): value for name, value in pairs}, body)


async def in_time(content: bytes | None) -> tuple[str, bytes]:
    """A page that leaves room for others. None: one that fails after all."""
    await asyncio.sleep(0.01)
    if content is None:
        raise RuntimeError("secret")
    return "text/plain", content


@contextlib.asynccontextmanager
async def place(*, timeout: float = PATIENCE, max_waiting: int = 64, loopback: bool = True) -> AsyncIterator[Place]:
    def broken() -> tuple[str, bytes]:
        raise RuntimeError("secret")

    guests = Guests(Echo)
    site = Site(
        {
            "/page": lambda: ("text/plain", b"content"),
            "/broken": broken,
            "/slow": lambda: in_time(b"content"),
            "/late": lambda: in_time(None),
        },
        {"/rsocket": Socket(guests, 1000)},
        loopback=loopback,
        timeout=timeout,
        max_waiting=max_waiting,
    )
    listener = await listen_tcp("localhost", 0, site.greet)
    site.port = listener.port
    try:
        yield Place(site, listener, guests)
    finally:
        listener.abort()
        await listener.wait_closed()


async def test_a_page_is_served_once_per_connection() -> None:
    async with place() as here:
        answer = await here.ask()
        assert (answer.status, answer.body) == (200, b"content")
        assert answer.headers["content-type"] == "text/plain"
        assert answer.headers["content-length"] == "7"
        for name, value in HEADERS:
            assert answer.headers[name.lower()] == value
        assert "server" not in answer.headers and "access-control-allow-origin" not in answer.headers
        twice = f"GET /page HTTP/1.1\r\nHost: {here.host}\r\n\r\n".encode() * 2
        assert (await here.send(twice)).body == b"content"
        assert (await here.send(twice[: len(twice) // 2] + b"\0garbage" * 1000)).body == b"content"


async def test_a_page_may_take_its_time(caplog: pytest.LogCaptureFixture) -> None:
    async with place(timeout=0.005) as here:
        answer = await here.ask("GET /slow")
        assert (answer.status, answer.body) == (200, b"content")
        assert (await here.ask("HEAD /slow")).body == b""
        late = await here.ask("GET /late")
        assert (late.status, b"secret" in late.body) == (500, False)
        assert "/late could not be made" in caplog.text


async def test_who_has_asked_may_finish_sending() -> None:
    async with place() as here:
        for path in (b"/page", b"/slow"):
            reader, writer = await asyncio.open_connection("127.0.0.1", here.listener.port)
            writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: " + here.host.encode() + b"\r\n\r\n")
            writer.write_eof()
            async with asyncio.timeout(PATIENCE):
                assert (await reader.read()).endswith(b"content")
            writer.close()


async def test_who_leaves_before_a_page_is_made_is_forgotten() -> None:
    async with place() as here:
        _, writer = await asyncio.open_connection("127.0.0.1", here.listener.port)
        writer.write(f"GET /slow HTTP/1.1\r\nHost: {here.host}\r\n\r\n".encode())
        await writer.drain()
        writer.transport.abort()
        async with asyncio.timeout(PATIENCE):
            while here.listener.counters.accepted == 0 or here.listener.open:
                await asyncio.sleep(0.001)


async def test_head_is_get_without_the_content() -> None:
    async with place() as here:
        answer = await here.ask("HEAD /page?fresh")
        assert (answer.status, answer.headers["content-length"], answer.body) == (200, "7", b"")
        assert (await here.ask("HEAD /nothing")).body == b""


@pytest.mark.row("A-58")
async def test_everything_else_is_refused_in_plain_words(caplog: pytest.LogCaptureFixture) -> None:
    async with place() as here:
        answer = await here.ask("GET /nothing")
        assert (answer.status, answer.body) == (
            404,
            b"There is nothing at this path. There is: /broken, /late, /page, /rsocket, /slow.\n",
        )
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        posted = await here.ask("POST /page")
        assert (posted.status, posted.headers["allow"]) == (405, "GET, HEAD")
        assert (await here.ask("POST /nothing")).status == 404
        assert (await here.ask("POST /page", "Content-Length: 3")).status == 400
        assert (await here.send(b"GET /page HTTP/1.1\r\n\r\n")).status == 400
        assert (await here.ask("GET /page", f"Host: {here.host}")).status == 400
        assert (await here.send(b"\x00\x00\x10\x00\x00\x00\x00\x04\r\n\r\n")).status == 400
        assert (await here.send(b"x" * (MAX_HEAD + 1))).status == 431
        broken = await here.ask("GET /broken")
        assert broken.status == 500
        assert b"secret" not in broken.body
        assert "RuntimeError: secret" in caplog.text


@pytest.mark.row("M-9")
async def test_only_requests_to_loopback_itself_are_served() -> None:
    """A site whose name was rebound to 127.0.0.1 still gives its own name, or another port."""
    async with place() as here:
        port = here.listener.port
        for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", f"LocalHost:{port}"):
            assert (await here.ask(host=host)).status == 200
        others = ["localhost", "evil.example", f"evil.example:{port}", f"localhost.evil.example:{port}"]
        others += [f"localhost:{port}.evil.example", f"localhost:{port + 1}", f"127.1:{port}", f"localhost.:{port}"]
        for host in others:
            assert (await here.ask(host=host)).status == 403, host
            assert (await here.ask("GET /rsocket", *UPGRADE.decode().split("\r\n")[:-1], host=host)).status == 403


def test_the_number_of_the_usual_port_may_be_left_out() -> None:
    assert "localhost" in loopback_hosts(80)
    assert "localhost" not in loopback_hosts(8080)


async def test_before_its_own_number_is_known_nobody_is_served() -> None:
    async with place() as here:
        here.site.port = None
        assert (await here.ask()).status == 403


@pytest.mark.row("M-9")
@pytest.mark.parametrize("line", ["GET /page", "GET /rsocket"])
async def test_pages_of_other_sites_are_refused(line: str) -> None:
    async with place() as here:
        port = here.listener.port
        upgrade = UPGRADE.decode().split("\r\n")[:-1] if "rsocket" in line else []
        for origin in ("null", "http://evil.example", f"https://localhost:{port}", "http://localhost", "http://[::1]"):
            assert (await here.ask(line, f"Origin: {origin}", *upgrade)).status == 403, origin
        twice = (f"Origin: http://localhost:{port}", f"Origin: http://localhost:{port}")
        assert (await here.ask(line, *twice, *upgrade)).status == 400
        assert here.guests.all == []
        for told in ("cross-site", "same-site"):
            assert (await here.ask(line, f"Sec-Fetch-Site: {told}", *upgrade)).status == 403, "an image, a script"
        assert here.guests.all == []
        for own in (f"Origin: http://127.0.0.1:{port}", "Sec-Fetch-Site: none", "Sec-Fetch-Site: same-origin"):
            assert (await here.ask("GET /page", own)).status == 200


@pytest.mark.row("M-9")
async def test_over_tls_a_page_must_be_of_the_same_site() -> None:
    async with place(loopback=False) as here:
        assert (await here.ask(host="broker.example:1")).status == 200
        assert (await here.ask("GET /page", "Origin: https://broker.example:1", host="Broker.example:1")).status == 200
        for origin in ("http://broker.example:1", "https://evil.example", "https://broker.example"):
            assert (await here.ask("GET /page", f"Origin: {origin}", host="broker.example:1")).status == 403
        assert (await here.send(b"GET /page HTTP/1.1\r\nHost:\r\n\r\n")).status == 400


async def test_a_websocket_path_asks_for_an_upgrade() -> None:
    async with place() as here:
        for line, *headers in (
            ["GET /rsocket"],
            ["GET /rsocket", "Upgrade: h2c", "Connection: Upgrade"],
            ["HEAD /rsocket", "Upgrade: websocket", "Connection: Upgrade"],
            ["GET /rsocket", "Upgrade: websocket"],
        ):
            answer = await here.ask(line, *headers)
            assert answer.status == 426, (line, headers)
            assert answer.headers["upgrade"] == "websocket"
            assert answer.headers["connection"] == "Upgrade"
        assert here.guests.all == []


async def test_an_upgrade_that_is_not_whole_is_refused() -> None:
    async with place() as here:
        whole = UPGRADE.decode().strip().split("\r\n")
        for left_out in (2, 3):
            answer = await here.ask("GET /rsocket", *whole[:left_out], *whole[left_out + 1 :])
            assert answer.status == 400
        old = [line.replace("13", "8") for line in whole]
        answer = await here.ask("GET /rsocket", *old)
        assert (answer.status, answer.headers["sec-websocket-version"]) == (400, "13")
        bad_key = [line.replace(KEY.decode(), "c2hvcnQ=") for line in whole]
        assert (await here.ask("GET /rsocket", *bad_key)).status == 400
        start = f"GET /rsocket HTTP/1.1\r\nHost: {here.host}\r\n".encode() + UPGRADE + b"\r\n"
        assert (await here.send(start + b"\x82\x00")).status == 400, "a client waits for the answer"
        assert (await here.send(start.replace(b"1.1", b"1.0", 1))).status == 505
        assert here.guests.all == []


@pytest.mark.row("A-32")
async def test_who_asks_nothing_is_told_so_and_dropped() -> None:
    async with place(timeout=0.05) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.listener.port)
        writer.write(b"GET /page HTTP/1.1\r\n")
        async with asyncio.timeout(PATIENCE):
            answer = parsed(await reader.read())
        assert answer.status == 408
        writer.close()


@pytest.mark.row("A-32")
async def test_who_drips_a_header_at_a_time_is_dropped_all_the_same() -> None:
    async with place(timeout=0.2) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.listener.port)
        ended = asyncio.ensure_future(reader.read())
        async with asyncio.timeout(PATIENCE):
            while not ended.done():
                writer.write(b"a: b\r\n")
                await asyncio.wait([ended], timeout=0.02)
        assert b" 408 " in ended.result()
        writer.close()


@pytest.mark.row("A-32")
async def test_a_crowd_that_asks_nothing_shuts_nobody_out() -> None:
    async with place(max_waiting=4) as here:
        crowd = [await asyncio.open_connection("127.0.0.1", here.listener.port) for _ in range(9)]
        assert (await here.ask()).status == 200
        async with asyncio.timeout(PATIENCE):
            for reader, _ in crowd[:5]:
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
        for _, writer in crowd:
            writer.close()


async def test_who_leaves_before_asking_is_forgotten() -> None:
    async with place() as here:
        _, writer = await asyncio.open_connection("127.0.0.1", here.listener.port)
        writer.write(b"GET /pa")
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            while here.listener.counters.accepted == 0 or here.listener.open:
                await asyncio.sleep(0.01)
        writer.close()


# ---- messages, and ports where every refusal is the same -----------------------------------------------------------


class Mirror:
    """Takes messages and sends them back."""

    def __init__(self) -> None:
        self.transport: TextTransport

    def transport_ready(self, transport: TextTransport) -> None:
        self.transport = transport

    def heard(self, size: int) -> None: ...

    def message_received(self, text: bytes) -> None:
        self.transport.send(text)

    def eof_received(self) -> None:
        self.transport.close(1000, "")

    def writing_paused(self) -> None: ...

    def writing_resumed(self) -> None: ...

    def transport_lost(self, error: Exception | None) -> None: ...


class Doorman:
    """Remembers who came, and turns away whose query says so."""

    def __init__(self) -> None:
        self.came: list[tuple[Peer, Request]] = []

    def welcome(self, peer: Peer, request: Request) -> Mirror:
        self.came.append((peer, request))
        if "stranger" in request.query:
            raise SetupRefused("You are a stranger.")
        return Mirror()


@contextlib.asynccontextmanager
async def message_place(**options: Any) -> AsyncIterator[tuple[Place, Doorman]]:
    doorman = Doorman()
    site = Site({}, {}, messages=MessageSocket(doorman.welcome, 1000), refusal=401, **options)
    listener = await listen_tcp("localhost", 0, site.greet)
    try:
        yield Place(site, listener, Guests()), doorman
    finally:
        listener.close()
        listener.abort()


@pytest.mark.parametrize("target", ["/?a=b", "/sonar?a=b", "/x/y/z", "/?", "/?csr=YQ=="])
async def test_messages_are_taken_at_any_path(target: str) -> None:
    async with message_place(check=nothing) as (here, doorman), connect(f"ws://{here.host}{target}") as line:
        await line.send("äöü")
        assert await line.recv() == "äöü"
        peer, request = doorman.came[0]
        assert (request.path, request.query) == (target.partition("?")[0], target.partition("?")[2])
        assert peer.channel is Channel.WS


async def test_a_query_without_a_path_is_taken() -> None:
    async with message_place(check=nothing) as (here, doorman):
        reader, writer = await asyncio.open_connection("127.0.0.1", here.listener.port)
        writer.write(b"GET ?os=iOS HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"\r\n")
        async with asyncio.timeout(PATIENCE):
            assert (await reader.readline()).startswith(b"HTTP/1.1 101")
        assert doorman.came[0][1].query == "os=iOS"
        writer.close()


async def test_an_address_of_8_kib_is_taken_and_one_of_64_kib_refused() -> None:
    async with message_place(check=nothing) as (here, doorman):
        async with connect(f"ws://{here.host}/?csr={'x' * 8192}"):
            assert len(doorman.came[0][1].query) == 8192 + 4
        assert (await here.ask(f"GET /?csr={'x' * 65536}")).status == 401


@pytest.mark.parametrize(
    ("line", "headers"),
    [
        ("GET /?stranger", [UPGRADE.decode().rstrip()]),
        ("GET /?a=b", []),
        ("POST /?a=b", [UPGRADE.decode().rstrip()]),
        ("GET /?a=b", ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 12"]),
        ("GET /?a=b", ["Upgrade: websocket", "Content-Length: 3"]),
        ("GET nowhere", []),
        ("GET /?elsewhere", [UPGRADE.decode().rstrip()]),
    ],
)
async def test_every_refusal_is_the_one_that_clients_know(line: str, headers: list[str]) -> None:
    async with message_place(check=only_from_here) as (here, _):
        answer = await here.ask(line, *headers)
        assert answer.status == 401
        assert not {"upgrade", "allow", "sec-websocket-version"} & set(answer.headers)
        assert answer.body


@pytest.mark.parametrize("start", [b"\x16\x03\x01", b"\0\0\x40\0\0\0\0\4"])
async def test_other_protocols_are_refused_at_their_first_bytes(start: bytes) -> None:
    async with message_place(check=nothing, timeout=PATIENCE) as (here, _):
        assert (await here.send(start)).status == 401


async def test_who_only_tries_the_port_is_not_remarked_on(caplog: pytest.LogCaptureFixture) -> None:
    async with message_place(check=nothing, timeout=0.05) as (here, doorman):
        for linger in (False, True):
            reader, writer = await asyncio.open_connection("127.0.0.1", here.listener.port)
            if not linger:
                writer.close()
            async with asyncio.timeout(PATIENCE):
                assert await reader.read() == b""
            writer.close()
        assert not doorman.came
    assert not caplog.records


def nothing(request: Request) -> None: ...


def only_from_here(request: Request) -> None:
    if request.query == "elsewhere":
        raise Refusal(403, "You are from elsewhere.")
