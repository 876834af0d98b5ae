"""A revocation on a broker that runs: what ends, what goes on, and that nothing is written afterwards."""

import asyncio
import contextlib
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rsocket_broker.admin.client import admin_line
from rsocket_broker.authority import Authority
from rsocket_broker.authority.revocation import By, Selector
from rsocket_broker.broker import Broker
from rsocket_broker.errors import AuthorityError, EnrollmentRefused
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.lifecycle.revocation import Revoker
from rsocket_broker.protocol.codes import MAX_31
from rsocket_broker.sessions.tree import NodeKind, Wish
from rsocket_broker.state import STATE_FILE, State
from rsocket_broker.transports.base import Channel
from rsocket_broker.transports.tls_line import TlsLine
from tests.end_to_end.wire import (
    CANCEL,
    CONNECTION_ERROR,
    ERROR,
    REJECTED_SETUP,
    REQUEST_CHANNEL,
    REQUEST_RESPONSE,
    REQUEST_STREAM,
    keepalive,
    request,
    routed,
    setup,
)
from tests.lifecycle.holders import TLS, Wire, authority_of, enrol, resumable_setup, resume, running

CANCELED = 0x203
version = pytest.mark.parametrize("version", TLS)


@pytest.fixture(scope="module")
def made_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("made") / "home"
    with State.open(home / STATE_FILE) as state:
        Authority.open(home, state)
    return home


@pytest.fixture
async def broker(made_home: Path, tmp_path: Path) -> AsyncIterator[Broker]:
    async with running(shutil.copytree(made_home, tmp_path / "home")) as one:
        yield one


def revoker_of(broker: Broker) -> Revoker:
    assert broker._revoker is not None
    return broker._revoker


@pytest.mark.row("A-20", "A-21", "D-3", "M-12")
@version
async def test_who_is_revoked_goes_at_once_and_nobody_else(broker: Broker, tmp_path: Path, version: str) -> None:
    gone, kept = await enrol(broker, tmp_path, device_id="d1"), await enrol(broker, tmp_path, device_id="d2")
    assert gone.serial != kept.serial
    one = await asyncio.to_thread(gone.connect, gone.context(version))
    other = await asyncio.to_thread(kept.connect, kept.context(version))
    receipt = await revoker_of(broker).revoke(Selector.serial(gone.serial), "lost")
    assert (receipt.certificates, receipt.sessions, receipt.blocks, receipt.problem) == (1, 1, (), None)
    with one, other:
        (end,) = await asyncio.to_thread(one.frames)
        assert end.error == (CONNECTION_ERROR, "This session has ended: its certificate was revoked (lost).")
        other.send(keepalive(b"still there?"))
        assert (await asyncio.to_thread(other.next)) is not None
    with pytest.raises((ssl.SSLError, ConnectionRefusedError), match=r"(?i)revoked|closed"):
        await asyncio.to_thread(gone.connect, gone.context(version))
    (await asyncio.to_thread(kept.connect, kept.context(version))).socket.close()


@pytest.mark.row("A-20")
@version
async def test_a_ticket_of_before_lets_nobody_in(broker: Broker, tmp_path: Path, version: str) -> None:
    def come(context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession]:
        raw = socket.create_connection(("127.0.0.1", broker.ports.secure_port or 0), 10)
        with context.wrap_socket(raw, server_hostname="localhost", session=session) as tls:
            line = Wire(tls)
            line.send(setup(), keepalive(b"?"))
            assert line.next() is not None
            assert tls.session is not None
            return bool(tls.session_reused), tls.session

    holder = await enrol(broker, tmp_path)
    context = holder.context(version)
    _, session = await asyncio.to_thread(come, context, None)
    reused, session = await asyncio.to_thread(come, context, session)
    assert reused, "or this test shows nothing"
    await revoker_of(broker).revoke(Selector.serial(holder.serial))
    with pytest.raises(ssl.SSLError, match=r"(?i)revoked"):
        await asyncio.to_thread(come, context, session)


@pytest.mark.row("A-21", "D-3")
async def test_each_open_stream_ends_with_an_error_of_its_own(broker: Broker, tmp_path: Path) -> None:
    holder = await enrol(broker, tmp_path)
    line = await asyncio.to_thread(holder.connect)
    with line:
        line.send(
            request(REQUEST_RESPONSE, 1, b"", routed("echo.never")),
            request(REQUEST_STREAM, 3, b"1000:10", routed("echo.stream"), n=2),
            request(REQUEST_CHANNEL, 5, b"first", routed("echo.channel"), n=MAX_31),
        )
        (session,) = broker.sessions
        while session.connection.streams_open < 3:
            await asyncio.sleep(0.005)
        asked = asyncio.ensure_future(session.to_app.call("Some", "method"))
        while session.connection.streams_open < 4:
            await asyncio.sleep(0.005)
        receipt = await revoker_of(broker).revoke(Selector.app("org.example.app"), "lost")
        assert (receipt.streams, receipt.blocks) == (4, ("app org.example.app",))
        frames = await asyncio.to_thread(line.frames)
        ends = {frame.stream: frame for frame in frames if frame.kind in (ERROR, CANCEL)}
        assert {stream: ends[stream].error[0] for stream in (0, 1, 3, 5)} == {
            0: CONNECTION_ERROR,
            1: CANCELED,
            3: CANCELED,
            5: CANCELED,
        }
        assert all("revoked (lost)" in ends[stream].error[1] for stream in (0, 1, 3, 5))
        assert ends[2].kind == CANCEL, "a requester has no other word for it"
        assert frames[-1].stream == 0
        with pytest.raises(Exception, match=r"revoked \(lost\)"):
            await asked


@pytest.mark.row("A-21", "D-3")
@pytest.mark.parametrize("reads", [True, False], ids=["reads", "does not read"])
async def test_nothing_is_written_after_the_receipt(broker: Broker, tmp_path: Path, reads: bool) -> None:
    """What arrives after the receipt is what lay in the client's own kernel at that moment, to the byte."""
    holder = await enrol(broker, tmp_path)
    line = await asyncio.to_thread(lambda: holder.connect(slow=True))
    with line:
        line.send(request(REQUEST_STREAM, 1, b"1000000:10000", routed("echo.stream"), n=MAX_31))
        (session,) = broker.sessions
        while session.connection.bytes_out < 1 << 20:
            if reads:
                await asyncio.to_thread(socket.socket.recv, line.socket, 1 << 16)
            else:
                await asyncio.sleep(0.005)
        written = session.connection.bytes_out
        receipt = await revoker_of(broker).revoke(Selector.serial(holder.serial))
        arrived = line.arrived()
        assert session.connection._transport is None or session.connection._transport.queued == 0
        assert receipt.last_frame is not None and receipt.last_frame < 1
        assert await asyncio.to_thread(line.drain) == arrived
        assert arrived < written, "it did not get all that was waiting for it"


@pytest.mark.row("A-20")
@version
async def test_a_handshake_under_way_at_that_moment_becomes_no_session(
    broker: Broker, tmp_path: Path, version: str
) -> None:
    """The context that it was begun with knows of no revocation; the SETUP asks the database."""
    holder = await enrol(broker, tmp_path)

    def more(raw: socket.socket) -> bytes:
        received = raw.recv(1 << 16)
        assert received, "the broker has closed the line"
        return received

    def hello() -> tuple[socket.socket, TlsLine]:
        """As far as the client's last flight, which is not sent."""
        raw = socket.create_connection(("127.0.0.1", holder.port), 10)
        line = TlsLine(holder.context(version), server_side=False, server_name="localhost")
        line.handshake(b"")
        raw.sendall(line.outgoing.read())
        while not line.handshake(more(raw)) and not line.outgoing.pending:
            pass
        return raw, line

    def finish(raw: socket.socket, line: TlsLine) -> tuple[int, str]:
        raw.sendall(line.outgoing.read())
        while version == "TLS 1.2" and not line.handshake(more(raw)):
            pass
        line.object.write(setup() + keepalive(b"?"))
        raw.sendall(line.outgoing.read())
        plain = b""
        while len(plain) < 9 or len(plain) < 3 + int.from_bytes(plain[:3]):
            line.incoming.write(more(raw))
            with contextlib.suppress(ssl.SSLWantReadError):
                plain += line.object.read(1 << 16)
        assert plain[7] >> 2 == ERROR
        return int.from_bytes(plain[9:13]), plain[13 : 3 + int.from_bytes(plain[:3])].decode()

    raw, line = await asyncio.to_thread(hello)
    receipt = await revoker_of(broker).revoke(Selector.serial(holder.serial))
    assert receipt.sessions == 0
    with raw:
        code, text = await asyncio.to_thread(finish, raw, line)
    assert code == REJECTED_SETUP and "revoked by whoever runs this broker" in text
    assert len(broker.sessions) == 0


@pytest.mark.row("A-20")
async def test_a_line_that_has_not_said_hello_is_cut(broker: Broker, tmp_path: Path) -> None:
    holder = await enrol(broker, tmp_path)

    def open_line() -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", holder.port), 10)
        return holder.context("TLS 1.2").wrap_socket(raw, server_hostname="localhost")

    tls = await asyncio.to_thread(open_line)
    with tls:
        await revoker_of(broker).revoke(Selector.serial(holder.serial))
        with pytest.raises((ConnectionResetError, ssl.SSLEOFError, AssertionError)):
            assert await asyncio.to_thread(tls.recv, 100)


@pytest.mark.row("D-3", "D-4")
@pytest.mark.parametrize("away", [False, True], ids=["connected", "suspended"])
async def test_a_session_of_the_revoked_is_not_resumed(broker: Broker, tmp_path: Path, away: bool) -> None:
    holder = await enrol(broker, tmp_path)
    token = b"a token of sixteen"
    line = await asyncio.to_thread(lambda: holder.connect(first=resumable_setup(token)))
    (session,) = broker.sessions
    assert session.connection.resumable
    if away:
        line.socket.close()
        while not session.suspended:
            await asyncio.sleep(0.005)
    receipt = await revoker_of(broker).revoke(Selector.serial(holder.serial))
    assert receipt.resumptions == 1 and session not in list(broker.sessions)
    with pytest.raises((ssl.SSLError, ConnectionError), match=r"(?i)revoked"):
        await asyncio.to_thread(lambda: holder.connect(first=resume(token)))
    line.socket.close()


@pytest.mark.row("A-21", "D-3")
async def test_sessions_below_go_with_it_children_first(broker: Broker, tmp_path: Path) -> None:
    holder = await enrol(broker, tmp_path)
    with await asyncio.to_thread(holder.connect):
        (session,) = broker.sessions
        assert broker._endpoint is not None
        children = broker._endpoint.children
        wish = Wish(kind=NodeKind.WEB, channel=Channel.WS, expires=datetime.now(UTC) + timedelta(hours=1))
        child, token = await children.login(session.node.id, wish)
        grandchild, _ = await children.login(child.id, wish)
        receipt = await revoker_of(broker).revoke(Selector.device("d1"))
        assert (receipt.sessions, receipt.descendants) == (1, 2)
        assert children.tree.get(child.id) is None and children.tree.get(grandchild.id) is None
        assert token


@pytest.mark.row("D-3", "A-19")
async def test_exchanges_under_way_are_dropped_and_their_asker_is_told(broker: Broker, tmp_path: Path) -> None:
    assert broker._enroller is not None
    pending, begun = broker._enroller.pending, asyncio.Event()
    waiting = asyncio.get_running_loop().create_future()

    async def exchange(app_id: str, device_id: str | None, serial: int | None) -> None:
        with pending.track(app_id) as mine:
            if device_id is not None:
                mine.principal = Principal(app_id, device_id, Proof.ADB)
            mine.serial = serial
            begun.set()
            await asyncio.shield(waiting)

    holder = await enrol(broker, tmp_path, "org.example.issued", "d9")
    tasks = [
        asyncio.create_task(exchange(*each))
        for each in (
            ("org.example.app", None, None),
            ("org.example.app", "d1", None),
            ("org.example.other", "d1", None),
            ("org.example.issued", "d9", holder.serial),
        )
    ]
    await begun.wait()
    revoker = revoker_of(broker)
    assert (await revoker.revoke(Selector.client("org.example.app", "d1"), "stolen")).enrolments == 1
    assert (await revoker.revoke(Selector.device("d1"))).enrolments == 1
    assert (await revoker.revoke(Selector.app("org.example.app"))).enrolments == 1
    assert (await revoker.revoke(Selector.serial(holder.serial))).enrolments == 1
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, EnrollmentRefused) for each in found)
    assert "stolen" in str(found[1]) and "ca unblock --client org.example.app@d1" in str(found[1])
    assert "revoked at once" in str(found[3])
    waiting.cancel()


@pytest.mark.row("D-3")
async def test_whom_an_operator_names_may_be_the_id_of_a_session(broker: Broker, tmp_path: Path) -> None:
    holder = await enrol(broker, tmp_path)
    with await asyncio.to_thread(holder.connect):
        (session,) = broker.sessions
        revoker = revoker_of(broker)
        assert revoker.named(By.CLIENT, session.id) == Selector.client("org.example.app", "d1")
        assert revoker.named(By.CLIENT, "org.example.app") == Selector.client("org.example.app", "d1")
        with pytest.raises(AuthorityError, match="ever issued"):
            revoker.named(By.CLIENT, "c999")


@pytest.mark.row("A-52", "D-3")
async def test_by_the_admin_line_and_within_its_time(broker: Broker, tmp_path: Path) -> None:
    holder = await enrol(broker, tmp_path)
    async with admin_line(tmp_path / "home") as admin:
        with await asyncio.to_thread(holder.connect):
            receipt = await admin.call("ca.revoke", {"by": "client", "value": "org.example.app@d1", "reason": "lost"})
        assert (receipt["sessions"], receipt["certificates"], receipt["whom"]) == (1, 1, "client org.example.app@d1")
        assert receipt["last_frame_ms"] < 1000
        assert [block["reason"] for block in await admin.call("ca.blocks")] == ["lost"]
        await admin.call("ca.unblock", {"by": "client", "value": "org.example.app@d1"})
        assert await admin.call("ca.blocks") == []


async def test_many_at_once_are_all_done(broker: Broker, tmp_path: Path) -> None:
    holders = [await enrol(broker, tmp_path, device_id=f"d{number}") for number in range(8)]
    lines = await asyncio.gather(*(asyncio.to_thread(each.connect) for each in holders))
    revoker = revoker_of(broker)
    receipts = await asyncio.gather(*(revoker.revoke(Selector.serial(each.serial)) for each in holders))
    assert [receipt.sessions for receipt in receipts] == [1] * 8
    assert len(broker.sessions) == 0
    crl = authority_of(broker).revocation_lists()[0]
    assert {each.serial_number for each in crl} == {each.serial for each in holders}
    for line in lines:
        line.socket.close()
