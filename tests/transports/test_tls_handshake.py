"""Handshakes as seen from outside: real sockets, and clients that are not ours."""

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from rsocket_broker.credentials import Credentials
from rsocket_broker.errors import ConfigurationError
from rsocket_broker.quiet_log import BURST
from rsocket_broker.transports import tls_handshake
from rsocket_broker.transports.base import Transport
from rsocket_broker.transports.client_hello import ClientHello
from rsocket_broker.transports.listener import Listener
from rsocket_broker.transports.tls import connect_tls, listen_tls
from rsocket_broker.transports.tls_contexts import ServerContexts, client_context
from tests.throwaway_ca import ThrowawayCa, leaf_der, shared_ca
from tests.transports.outsiders import Answer, ask, needs_openssl, openssl_client, pem_file, stranger_context
from tests.transports.recording import PATIENCE, Echo, Guests, Polite, Recorder
from tests.transports.test_client_hello import RSOCKET_SETUP, real_hello
from tests.until import until

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
Serve = Callable[..., contextlib.AbstractAsyncContextManager[tuple[Listener, Guests]]]


@contextlib.asynccontextmanager
async def serving(
    contexts: Callable[[ClientHello], ssl.SSLContext] | None = None, **options: float
) -> AsyncIterator[tuple[Listener, Guests]]:
    """An echo behind TLS; at the end nothing of it is left."""
    guests = Guests(Echo)
    pick = contexts or ServerContexts(shared_ca().server()).pick
    listener = await listen_tls("127.0.0.1", 0, guests, pick, **options)  # type: ignore[arg-type]
    try:
        yield listener, guests
    finally:
        listener.abort()
        await asyncio.wait_for(listener.wait_closed(), PATIENCE)


async def good_client(port: int) -> None:
    """Someone with a right certificate is served, or ConnectionError."""
    client = Polite()
    transport = await connect_tls("127.0.0.1", port, client_context(shared_ca().client()), client)
    transport.write([b"there?"])
    await client.received(b"there?")
    transport.close()
    await client.lost()


def bad_credentials(kind: str) -> Credentials | None:
    match kind:
        case "foreign":
            return ThrowawayCa("Another CA").client()
        case "foreign of the same name":
            return ThrowawayCa().client()
        case "expired":
            return shared_ca().client(ends=-0.5)
        case "not yet valid":
            return shared_ca().client(starts=1)
        case "server":
            return shared_ca().server()
    return None


REFUSALS = [
    ("none", TLS_1_2, "handshake_failure"),
    ("none", TLS_1_3, "certificate_required"),
    ("foreign", TLS_1_2, "unknown_ca"),
    ("foreign", TLS_1_3, "unknown_ca"),
    ("expired", TLS_1_2, "certificate_expired"),
    ("expired", TLS_1_3, "certificate_expired"),
    ("not yet valid", TLS_1_3, "bad_certificate"),
    ("server", TLS_1_3, "unsupported_certificate"),
]


@pytest.mark.row("F-4", "M-11")
@pytest.mark.parametrize(("kind", "newest", "alert"), REFUSALS)
async def test_a_refused_client_sees_an_alert(kind: str, newest: ssl.TLSVersion, alert: str, tmp_path: Path) -> None:
    context = stranger_context(shared_ca().trust_pem, bad_credentials(kind), tmp_path, newest=newest)
    async with serving() as (listener, guests):
        assert await asyncio.to_thread(ask, listener.port, context) == Answer(alert=alert)
        assert guests.all == [] and listener.counters.refused == 1
        expected = "certificate_required" if kind == "none" else alert
        assert listener.counters.reasons == {expected: 1} and listener.counters.handshake_seconds.count == 0
        await good_client(listener.port)
        assert listener.counters.handshake_seconds.count == 1
        assert 0 < listener.counters.handshake_seconds.total < 10


@pytest.mark.row("F-6")
@pytest.mark.parametrize(("kind", "alert"), [("foreign", None), ("expired", "certificate_expired")])
async def test_clients_of_unknown_authorities_can_be_cut_off_without_a_word(
    kind: str, alert: str | None, tmp_path: Path
) -> None:
    context = stranger_context(shared_ca().trust_pem, bad_credentials(kind), tmp_path, newest=TLS_1_2)
    async with serving(cut_strangers=True) as (listener, guests):
        answer = await asyncio.to_thread(ask, listener.port, context)
        assert (answer.alert, guests.all) == (alert, [])
        assert listener.counters.reasons == {alert or "unknown_ca": 1}
        await good_client(listener.port)


@pytest.mark.row("M-11")
async def test_a_ca_of_the_same_name_is_not_the_same_ca(tmp_path: Path) -> None:
    credentials = bad_credentials("foreign of the same name")
    context = stranger_context(shared_ca().trust_pem, credentials, tmp_path, newest=TLS_1_3)
    async with serving() as (listener, guests):
        assert (await asyncio.to_thread(ask, listener.port, context)).alert
        assert guests.all == []


@pytest.mark.row("M-11")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
async def test_versions_before_1_2_are_refused_with_an_alert(tmp_path: Path) -> None:
    context = stranger_context(shared_ca().trust_pem, shared_ca().client(), tmp_path, newest=ssl.TLSVersion.TLSv1_1)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with serving() as (listener, _):
        assert (await asyncio.to_thread(ask, listener.port, context)).alert == "protocol_version"


@pytest.mark.row("F-4", "M-11")
@pytest.mark.parametrize(
    ("newest", "alpn", "version"),
    [(TLS_1_2, (), "TLSv1.2"), (TLS_1_3, (), "TLSv1.3"), (TLS_1_3, ("rs",), "TLSv1.2"), (TLS_1_3, ("h2",), "TLSv1.3")],
)
async def test_a_good_client_is_served(
    newest: ssl.TLSVersion, alpn: tuple[str, ...], version: str, tmp_path: Path
) -> None:
    client = shared_ca().client()
    context = stranger_context(shared_ca().trust_pem, client, tmp_path, newest=newest, alpn=alpn)
    async with serving() as (listener, guests):
        assert await asyncio.to_thread(ask, listener.port, context) == Answer(b"there?", None, version)
        peer = guests.all[0].transport.peer
        assert (peer.tls_version, peer.certificate) == (version, leaf_der(client))
        assert peer.alpn == ("rs" if "rs" in alpn else None)


@needs_openssl
@pytest.mark.row("M-11")
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize(
    ("kind", "number"), [("none", {"-tls1_2": 40, "-tls1_3": 116}), ("foreign", 48), ("expired", 45)]
)
async def test_openssl_is_told_too(kind: str, number: int | dict[str, int], version: str, tmp_path: Path) -> None:
    credentials = bad_credentials(kind)
    pair = ["-cert", str(pem_file(credentials, tmp_path)), "-key", str(tmp_path / "client.pem")] if credentials else []
    async with serving() as (listener, _):
        printed = await asyncio.to_thread(openssl_client, listener.port, version, *pair)
    assert f"SSL alert number {number if isinstance(number, int) else number[version]}" in printed


@needs_openssl
async def test_renegotiation_is_refused(tmp_path: Path) -> None:
    pair = str(pem_file(shared_ca().client(), tmp_path))
    async with serving() as (listener, _):
        options = ("-tls1_2", "-cert", pair, "-key", pair)
        printed = await asyncio.to_thread(openssl_client, listener.port, *options, typed=b"R\n")
    assert "RENEGOTIATING" in printed and "no renegotiation" in printed


async def test_the_context_is_asked_for_each_socket_on_a_worker(tmp_path: Path) -> None:
    """After a change of trust the next handshake follows it, while the listener stays."""
    other = ThrowawayCa("The next CA")
    asked: list[tuple[ClientHello, str]] = []
    contexts = ServerContexts(shared_ca().server())

    def pick(hello: ClientHello) -> ssl.SSLContext:
        asked.append((hello, threading.current_thread().name))
        return contexts.pick(hello)

    async def may_enter(ca: ThrowawayCa) -> bool:
        context = stranger_context(ca.trust_pem, ca.client(), tmp_path, newest=TLS_1_3, alpn=["x"])
        return (await asyncio.to_thread(ask, listener.port, context)).data == b"there?"

    async with serving(pick) as (listener, _):
        assert (await may_enter(shared_ca()), await may_enter(other)) == (True, False)
        contexts = ServerContexts(other.server())
        assert (await may_enter(shared_ca()), await may_enter(other)) == (False, True)
    assert [hello.alpn for hello, _ in asked] == [("x",)] * 4
    assert all(name.startswith("tls-handshake") for _, name in asked)


async def test_a_context_that_cannot_be_had_ends_that_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    failures = [ConfigurationError("no credentials"), RuntimeError("a defect")]
    contexts = ServerContexts(shared_ca().server())

    def pick(hello: ClientHello) -> ssl.SSLContext:
        if failures:
            raise failures.pop()
        return contexts.pick(hello)

    async with serving(pick) as (listener, _):
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await good_client(listener.port)
        assert "on our side: no credentials" in caplog.text and "a defect" in caplog.text
        assert caplog.text.count("Traceback") == 1
        await good_client(listener.port)


async def test_a_receiver_that_fails_at_once_leaves_no_line_behind() -> None:
    class Faulty(Echo):
        def transport_ready(self, transport: Transport) -> None:
            raise RuntimeError("a defect")

    problems: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, problem: problems.append(problem))
    listener = await listen_tls("127.0.0.1", 0, Guests(Faulty), ServerContexts(shared_ca().server()).pick)
    with pytest.raises(ConnectionError):
        await good_client(listener.port)
    assert [str(problem["exception"]) for problem in problems] == ["a defect"]
    await until(lambda: listener.open == 0)
    listener.close()
    await listener.wait_closed()


@pytest.mark.row("A-32")
async def test_silent_and_slow_connections_delay_nobody() -> None:
    hello = real_hello()
    async with serving(handshake_timeout=10 * PATIENCE) as (listener, guests):
        silent = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(300)]
        for number, half_open in enumerate(silent):
            if number % 3 == 1:
                half_open.sendall(hello[:20])  # and the rest never
            elif number % 3 == 2:
                half_open.sendall(hello)  # and no answer to ours
        trickling = socket.create_connection(("127.0.0.1", listener.port))
        for byte in hello[:-1]:
            trickling.send(bytes([byte]))
        while listener.counters.accepted < 301:
            await asyncio.sleep(0.01)
        await asyncio.wait_for(good_client(listener.port), PATIENCE)
        assert listener.counters.timed_out == listener.counters.failed == 0, "those who are silent had to go first"
        assert len(guests.all) == 1 and listener.open >= 301
        for half_open in (*silent, trickling):
            half_open.close()


@pytest.mark.row("A-32")
@pytest.mark.parametrize("sent", [0, 30, 10_000], ids=["silent", "part of a hello", "hello and no more"])
async def test_a_handshake_has_a_deadline(sent: int) -> None:
    async with serving(handshake_timeout=0.2) as (listener, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(real_hello()[:sent])
        with contextlib.suppress(ConnectionResetError):
            await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        await until(lambda: listener.open == 0)
        assert listener.counters.timed_out == 1


@pytest.mark.row("A-32")
async def test_the_deadline_holds_while_a_worker_is_busy() -> None:
    contexts, release = ServerContexts(shared_ca().server()), threading.Event()

    def pick(hello: ClientHello) -> ssl.SSLContext:
        release.wait(PATIENCE)
        return contexts.pick(hello)

    async with serving(pick, handshake_timeout=0.1) as (listener, guests):
        with pytest.raises(ConnectionError):
            await good_client(listener.port)
        await until(lambda: listener.open == 0)
        release.set()
        await asyncio.sleep(0.05)
        assert guests.all == [] and listener.counters.timed_out == 1


@pytest.mark.row("A-32")
async def test_the_deadline_does_not_touch_a_session() -> None:
    async with serving(handshake_timeout=1.0) as (listener, _):
        client = Recorder()
        transport = await connect_tls("127.0.0.1", listener.port, client_context(shared_ca().client()), client)
        await asyncio.sleep(1.1)
        transport.write([b"still here"])
        await client.received(b"still here")
        transport.abort()
        await client.lost()


@pytest.mark.row("A-32")
async def test_when_handshakes_are_too_many_whoever_is_silent_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_handshake, "WORDLESS", 0.05)
    monkeypatch.setattr(tls_handshake, "LOOK_AGAIN", 0.01)
    async with serving(max_handshakes=3) as (listener, _):
        silent = []
        for number in range(3):
            silent.append(await asyncio.open_connection("127.0.0.1", listener.port))
            await until(lambda number=number: listener.open == number + 1)  # type: ignore[misc]
        await good_client(listener.port)
        assert listener.counters.displaced >= 1
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(silent[0][0].read(), PATIENCE) == b""
        for _, writer in silent:
            writer.close()


async def test_a_crowd_waits_and_nobody_of_it_is_refused() -> None:
    """More come at once than may be under way, with workers that take their time: all are served."""
    contexts = ServerContexts(shared_ca().server())

    def pick(hello: ClientHello) -> ssl.SSLContext:
        time.sleep(0.002)
        return contexts.pick(hello)

    async with serving(pick, max_handshakes=4) as (listener, guests):
        context = client_context(shared_ca().client())

        async def come() -> None:
            client = Polite()
            transport = await connect_tls("127.0.0.1", listener.port, context, client)
            transport.write([b"there?"])
            await client.received(b"there?")
            transport.close()
            await client.lost()

        await asyncio.gather(*(come() for _ in range(60)))
        assert len(guests.all) == listener.counters.handshakes == 60
        assert (listener.counters.displaced, listener.counters.turned_away, listener.counters.timed_out) == (0, 0, 0)


@pytest.mark.row("A-32")
async def test_those_who_come_and_go_leave_no_timers_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each who leaves lets the next one in, who makes the listener be held again: one timer does for all of them."""
    looks = 0
    make_room = tls_handshake.Reception._make_room

    def counted(reception: tls_handshake.Reception) -> None:
        nonlocal looks
        looks += 1
        make_room(reception)

    monkeypatch.setattr(tls_handshake.Reception, "_make_room", counted)
    async with serving(max_handshakes=2) as (listener, _):
        silent = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(2)]
        began = time.monotonic()
        for accepted in range(3, 50):
            silent.pop(0)[1].close()
            silent.append(await asyncio.open_connection("127.0.0.1", listener.port))
            await until(lambda accepted=accepted: listener.counters.accepted == accepted)  # type: ignore[misc]
        await asyncio.sleep(2 * tls_handshake.LOOK_AGAIN)
        assert 2 <= looks <= 2 + (time.monotonic() - began) / tls_handshake.LOOK_AGAIN
        for _, writer in silent:
            writer.close()


async def test_established_sessions_are_capped() -> None:
    async with serving(max_connections=1) as (listener, guests):
        first = Recorder()
        await connect_tls("127.0.0.1", listener.port, client_context(shared_ca().client()), first)
        await guests.number(1)
        with pytest.raises(ConnectionError):
            await good_client(listener.port)
        assert listener.counters.turned_away == 1
        first.transport.close()
        await first.lost()
        await guests.all[0].lost()
        await good_client(listener.port)


async def test_closing_ends_handshakes_and_keeps_sessions() -> None:
    async with serving() as (listener, guests):
        client = Recorder()
        await connect_tls("127.0.0.1", listener.port, client_context(shared_ca().client()), client)
        await guests.number(1)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        await until(lambda: listener.open == 2)
        listener.close()
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        writer.close()
        client.transport.write([b"still here"])
        await client.received(b"still here")
        client.transport.close()
        await asyncio.wait_for(listener.wait_closed(), PATIENCE)


GARBAGE = {
    "zeros": bytes(100),
    "random": bytes(range(255, 0, -1)) * 40,
    "oversized": b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(20_000),
    "endless hello": b"\x16\x03\x01\x00\x04\x01\x00\x40\x00" + b"\x16\x03\x01\x00\x01\x00" * 20_000,
    "broken hello": b"\x16\x03\x01\x00\x0a\x01\x00\x00\x06\x03\x03abcd",
    "hello, then garbage": real_hello() + bytes(100_000),
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "rsocket": RSOCKET_SETUP,
}


@pytest.mark.row("F-4")
@pytest.mark.parametrize("kind", GARBAGE)
async def test_what_is_no_tls_is_closed_without_effect(kind: str) -> None:
    asked: list[ClientHello] = []
    contexts = ServerContexts(shared_ca().server())

    def pick(hello: ClientHello) -> ssl.SSLContext:
        asked.append(hello)
        return contexts.pick(hello)

    async with serving(pick) as (listener, guests):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(GARBAGE[kind])
        with contextlib.suppress(ConnectionResetError):
            await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        await until(lambda: listener.open == 0)
        assert listener.counters.refused == 1 and guests.all == []
        assert len(asked) == ("hello" in kind and kind != "endless hello")
        await good_client(listener.port)


@pytest.mark.parametrize(
    ("data", "says"),
    [(RSOCKET_SETUP, "plain RSocket is served on port 8089"), (GARBAGE["http"], "speaks HTTP on a port for RSocket")],
)
async def test_mixed_up_ports_get_a_helpful_line_that_cannot_flood(
    data: bytes, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(plain_port=8089) as (listener, _):
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(data)
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
            writer.close()
    lines = [record.getMessage() for record in caplog.records if says in record.getMessage()]
    assert 1 <= len(lines) <= BURST
    assert "127.0.0.1:" in lines[0]


@pytest.mark.parametrize("sent", [b"", real_hello()[:40]], ids=["nothing", "a little"])
async def test_a_bare_connect_and_close_is_unremarked(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """iOS tries the port so before each connect."""
    caplog.set_level(logging.INFO)
    async with serving() as (listener, _):
        for _ in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(sent)
            writer.close()
            await writer.wait_closed()
        await until(lambda: listener.counters.accepted == 5 and listener.open == 0)
        assert listener.counters.refused == listener.counters.timed_out == 0
    assert [record for record in caplog.records if record.name.startswith("rsocket_broker")] == []


async def test_a_refusal_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    context = stranger_context(shared_ca().trust_pem, bad_credentials("expired"), tmp_path, newest=TLS_1_3)
    async with serving() as (listener, _):
        await asyncio.to_thread(ask, listener.port, context)
    assert "certificate has expired" in caplog.text


async def test_what_is_sent_right_behind_the_handshake_is_not_lost(tmp_path: Path) -> None:
    """A client sends its SETUP in the same packet as the end of its handshake."""
    context = stranger_context(shared_ca().trust_pem, shared_ca().client(), tmp_path, newest=TLS_1_3)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    line = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    async with serving() as (listener, guests):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        with pytest.raises(ssl.SSLWantReadError):
            line.do_handshake()
        writer.write(outgoing.read())
        while True:
            incoming.write(await reader.read(100_000))
            with contextlib.suppress(ssl.SSLWantReadError):
                line.do_handshake()
                break
        line.write(b"early")
        writer.write(outgoing.read())
        guest = await guests.number(1)
        await guest.received(b"early")
        writer.close()


class Hurried:
    """A client of TLS 1.3 that says more, or all that it has, while the workers are busy with others."""

    def __init__(self, tmp_path: Path) -> None:
        context = stranger_context(shared_ca().trust_pem, shared_ca().client(), tmp_path, newest=TLS_1_3)
        self._contexts = ServerContexts(shared_ca().server())
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.line = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self.release = threading.Event()
        self._picked = 0
        self._writers: list[asyncio.StreamWriter] = []

    def pick(self, hello: ClientHello) -> ssl.SSLContext:
        """The context for the one who comes first. All others keep a worker busy until the release."""
        self._picked += 1
        if self._picked > 1:
            self.release.wait(PATIENCE)
        return self._contexts.pick(hello)

    async def shake(self, port: int) -> asyncio.StreamWriter:
        """Until the client has done its part, and a worker has not: none is free."""
        reader, writer = await self._connect(port)
        with pytest.raises(ssl.SSLWantReadError):
            self.line.do_handshake()
        self.flush()
        while True:
            self._incoming.write(await reader.read(100_000))
            with contextlib.suppress(ssl.SSLWantReadError):
                self.line.do_handshake()
                break
        for _ in range(tls_handshake.WORKERS):
            (await self._connect(port))[1].write(real_hello())
        await until(lambda: self._picked > tls_handshake.WORKERS)
        self.flush()
        await asyncio.sleep(0.02)
        return writer

    async def _connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        self._writers.append(writer)
        return reader, writer

    def flush(self) -> None:
        self._writers[0].write(self._outgoing.read())

    def leave(self) -> None:
        self.release.set()
        for writer in self._writers:
            writer.close()


async def test_what_comes_while_a_worker_has_the_line_is_kept(tmp_path: Path) -> None:
    """Data, and the end of all: whoever has said everything may go."""
    hurried = Hurried(tmp_path)
    async with serving(hurried.pick) as (listener, guests):
        writer = await hurried.shake(listener.port)
        for word in (b"what ", b"I had ", b"to say"):
            hurried.line.write(word)
            hurried.flush()
            await asyncio.sleep(0.02)
        writer.write_eof()
        await asyncio.sleep(0.02)
        assert guests.all == []
        hurried.release.set()
        guest = await guests.number(1)
        await guest.received(b"what I had to say")
        await until(lambda: "eof" in guest.events)
        hurried.leave()


@pytest.mark.parametrize("sent", [b"", b"no TLS at all"], ids=["nothing", "garbage"])
async def test_whoever_leaves_while_a_worker_has_its_hello_is_let_go(sent: bytes) -> None:
    contexts, asked, release = ServerContexts(shared_ca().server()), threading.Event(), threading.Event()

    def pick(hello: ClientHello) -> ssl.SSLContext:
        asked.set()
        release.wait(PATIENCE)
        return contexts.pick(hello)

    async with serving(pick) as (listener, guests):
        _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(real_hello())
        assert await asyncio.to_thread(asked.wait, PATIENCE)
        writer.write(sent)
        writer.write_eof()
        await asyncio.sleep(0.02)
        release.set()
        await until(lambda: listener.counters.refused == bool(sent) and listener.open == 0)
        assert guests.all == [] and listener.counters.failed == listener.counters.timed_out == 0
        writer.close()


async def test_a_handshake_without_end_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_handshake, "MAX_ANSWER", 10)
    async with serving() as (listener, guests):
        with pytest.raises(ConnectionError):
            await good_client(listener.port)
        assert guests.all == [] and listener.counters.refused == 1
