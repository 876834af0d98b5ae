"""Sessions that outlive their line, over real TLS: a line that is cut, and everybody who has no right to go on."""

import asyncio
import contextlib
import itertools
import random
import signal
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rsocket_broker import client
from rsocket_broker.authority import Authority
from rsocket_broker.client import Stage
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.state import STATE_FILE, State
from tests.conftest import SEED
from tests.end_to_end import wire
from tests.end_to_end.conftest import Connect, StartBroker
from tests.end_to_end.processes import BrokerProcess
from tests.end_to_end.test_session import Recorder, noted
from tests.end_to_end.wire import Line
from tests.foreign.sdk_folder import client_context, enrolled_folder
from tests.until import until

SETUP_RESUME, SETUP_LEASE, RESUME, RESUME_OK, LEASE = 0x80, 0x40, 0x0D, 0x0E, 0x02
REJECTED_RESUME, REJECTED = 0x4, 0x202
TOKEN = b"0123456789abcdef"


# ---- a line that can be cut ----------------------------------------------------------------------------------------


class Cable:
    """A TCP proxy in front of a port. `cut` ends both halves; `unplug` ends the client's half and leaves the other."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._writers: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._kept: list[asyncio.StreamWriter] = []
        self._pumps: set[asyncio.Task[None]] = set()
        self.refusing = False
        self.lines = 0
        self.bytes = 0
        self.cut_at: int | None = None
        """Cut when so many bytes have passed."""

    async def __aenter__(self) -> "Cable":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for writer in self._kept:
            writer.transport.abort()
        for pump in tuple(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        self.lines += 1
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers.append((writer, there_writer))
        for source, target in ((reader, there_writer), (there_reader, writer)):
            pump = asyncio.ensure_future(self._pump(source, target))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                if self.cut_at is not None and self.bytes + len(data) > self.cut_at:
                    data = data[: self.cut_at - self.bytes]
                    self.cut_at = None
                    target.write(data)
                    self.cut()
                    return
                self.bytes += len(data)
                target.write(data)
                await target.drain()
        target.transport.abort()

    def cut(self) -> None:
        writers, self._writers = self._writers, []
        for writer in itertools.chain(*writers):
            writer.transport.abort()

    def unplug(self) -> None:
        """The client's half is gone, and nobody tells the broker."""
        for pump in self._pumps:
            pump.cancel()
        writers, self._writers = self._writers, []
        for here, there in writers:
            here.transport.abort()
            self._kept.append(there)  # open, and silent


@pytest.fixture
async def cable(broker: BrokerProcess) -> AsyncIterator[Cable]:
    async with Cable(broker.secure_port) as cable:
        yield cable


class Diary:
    def __init__(self) -> None:
        self.stages: list[Stage] = []

    def __call__(self, progress: client.Progress) -> None:
        self.stages.append(progress.stage)


@pytest.mark.row("A-41", "D-4")
async def test_whatever_the_line_does_the_app_notices_nothing(
    app: Connect, app_id: str, cable: Cable, broker: BrokerProcess
) -> None:
    """Calls, events, a stream and a channel at once, while the line is cut after random numbers of bytes."""
    dice = random.Random(SEED)
    over = asyncio.Event()

    async def cutting() -> None:
        while not over.is_set():
            cable.cut_at = cable.bytes + dice.randrange(1, 40_000)
            await asyncio.sleep(0.03)
            cable.cut()
            await asyncio.sleep(0.05)

    async def calls(session: client.Session) -> list[object]:
        return [await session.request("echo.request", {"n": n, "pad": "x" * dice.randrange(2000)}) for n in range(300)]

    async def channel(session: client.Session) -> list[object]:
        async def values() -> AsyncIterator[object]:
            for n in range(3000):
                yield n

        return [value async for value in session.channel("echo.channel", values(), credit=20)]

    async def stream(session: client.Session) -> int:
        payloads = session.stream_payloads("echo.stream", client.Payload(b"500:1000"))
        return sum([len(one.data or b"") async for one in payloads])

    diary, plugin = Diary(), Recorder()
    async with app(secure_port=cable.port, plugins=[plugin], observer=diary) as session:
        await plugin.started.wait()
        cutter = asyncio.ensure_future(cutting())
        for n in range(50):
            assert session.send_event("Recorder", "noted", {"n": n})
        async with asyncio.timeout(40):
            answers, echoed, size = await asyncio.gather(calls(session), channel(session), stream(session))
        over.set()
        await cutter
        assert [answer["n"] for answer in answers] == list(range(300))  # type: ignore[index]
        assert echoed == list(range(3000))
        assert size == 500 * 1000
        assert await noted(session, app_id) == list(range(50))
        assert session.connections == 1
        assert len([one for one in broker.clients() if one["app_id"] == app_id]) == 1
    assert diary.stages.count(Stage.RESUMED) > 3
    assert Stage.LOST not in diary.stages[:-1]


@pytest.mark.row("A-41")
async def test_a_call_to_an_app_that_is_away_waits_for_it_and_the_list_says_so(
    app: Connect, app_id: str, cable: Cable, broker: BrokerProcess
) -> None:
    def mine() -> list[str]:
        return [one["state"] for one in broker.clients() if one["app_id"] == app_id]

    plugin = Recorder()
    async with app(secure_port=cable.port, plugins=[plugin]) as session:
        await plugin.started.wait()
        assert mine() == ["connected"]
        cable.refusing = True
        cable.cut()
        await until(lambda: not session.connected)
        assert await asyncio.to_thread(mine) == ["suspended"]
        call = asyncio.create_task(
            asyncio.to_thread(broker.command, "clients", "call", app_id, "Recorder", "reverse", '{"text": "abc"}')
        )
        waiting = asyncio.create_task(session.request("echo.request", [1]))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        cable.refusing = False
        assert await waiting == [1]
        done = await call
        assert (done.returncode, done.stderr) == (0, "")
        assert '"cba"' in done.stdout
        assert mine() == ["connected"]
        assert session.connections == 1


@pytest.mark.row("A-41")
async def test_an_app_comes_back_before_the_broker_has_noticed_its_loss(app: Connect, cable: Cable) -> None:
    diary = Diary()
    async with app(secure_port=cable.port, observer=diary) as session:
        stream = session.stream_payloads("echo.stream", client.Payload(b"2000:100"), credit=10)
        got = [await anext(stream) for _ in range(5)]
        cable.unplug()
        got += [one async for one in stream]
        assert len(got) == 2000
        assert diary.stages[-1] is Stage.RESUMED


@pytest.mark.row("A-41")
async def test_a_session_over_websocket_outlives_its_line_too(app: Connect, broker: BrokerProcess) -> None:
    async def values() -> AsyncIterator[object]:
        for n in range(1000):
            yield n

    diary = Diary()
    async with (
        Cable(int(broker.ports["ws_secure_port"])) as cable,
        app(websocket=f"wss://localhost:{cable.port}/rsocket", observer=diary) as session,
    ):
        got = []
        async for value in session.channel("echo.channel", values(), credit=20):
            got.append(value)
            if len(got) in {100, 400, 401, 999}:
                cable.cut()
        assert got == list(range(1000))
        assert session.connections == 1
    assert diary.stages.count(Stage.RESUMED) >= 2


async def test_a_broker_that_offers_no_resumption_is_served_without(
    start: StartBroker, app: Connect, app_id: str
) -> None:
    broker = start("--resume-seconds", "0")
    diary = Diary()
    ports = {"insecure_port": broker.insecure_port}
    async with Cable(broker.secure_port) as cable, app(secure_port=cable.port, observer=diary, **ports) as session:
        assert await session.request("echo.request", 1) == 1
        waiting = asyncio.create_task(session.request("echo.never"))
        await asyncio.sleep(0.05)
        cable.cut()
        with pytest.raises(client.ConnectionClosed):
            await waiting
        assert await session.request("echo.request", 2) == 2
        assert session.connections == 2
    assert Stage.INTERRUPTED not in diary.stages


@pytest.mark.row("A-41")
async def test_a_session_that_the_broker_has_given_up_is_followed_by_a_new_one(
    start: StartBroker, app: Connect, app_id: str
) -> None:
    broker = start("--resume-seconds", "1")
    diary = Diary()
    ports = {"insecure_port": broker.insecure_port}
    async with Cable(broker.secure_port) as cable, app(secure_port=cable.port, observer=diary, **ports) as session:
        waiting = asyncio.create_task(session.request("echo.never"))
        await until(lambda: cable.bytes)
        cable.refusing = True
        cable.cut()
        await until(lambda: not session.connected)
        await asyncio.to_thread(gone, broker, app_id)
        cable.refusing = False
        with pytest.raises(client.ConnectionClosed):
            await waiting
        assert await session.request("echo.request", 2) == 2
        assert session.connections == 2
    assert Stage.RESUMED not in diary.stages


def gone(broker: BrokerProcess, app_id: str) -> None:
    ends = time.monotonic() + 10
    while any(one["app_id"] == app_id for one in broker.clients()):
        assert time.monotonic() < ends


async def test_a_broker_that_was_killed_knows_nobody_and_all_begin_anew(start: StartBroker, app: Connect) -> None:
    broker = start()
    ports = {"insecure_port": broker.insecure_port, "secure_port": broker.secure_port}
    async with app(**ports) as session:
        broker.stop(signal.SIGKILL)
        await until(lambda: not session.connected)
        start(**ports)
        assert await session.request("echo.request", 1) == 1
        assert session.connections == 2


# ---- by hand -------------------------------------------------------------------------------------------------------


def setup(token: bytes | None = TOKEN, *, lease: bool = False) -> bytes:
    flags = (SETUP_RESUME if token is not None else 0) | (SETUP_LEASE if lease else 0)
    body = struct.pack(">HHII", 1, 0, 10_000, wire.NEVER_MS)
    body += b"" if token is None else struct.pack(">H", len(token)) + token
    body += bytes([len(wire.COMPOSITE)]) + wire.COMPOSITE + b"\x0atext/plain"
    return wire.frame(0, wire.SETUP, flags, body)


def resume(token: bytes = TOKEN, received: int = 0, available: int = 0) -> bytes:
    body = struct.pack(">HHH", 1, 0, len(token)) + token + struct.pack(">QQ", received, available)
    return wire.frame(0, RESUME, 0, body)


def ask(stream: int, data: bytes, route: str = "echo.request") -> bytes:
    return wire.request(wire.REQUEST_RESPONSE, stream, data, wire.routed(route))


def counted(*frames: bytes) -> int:
    return sum(len(frame) - 3 for frame in frames)


@pytest.fixture(scope="module")
def folder(broker: BrokerProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return enrolled_folder(tmp_path_factory.mktemp("resume") / "sonar", "org.example.resume", broker.insecure_port)


@pytest.fixture(scope="module")
def thief(broker: BrokerProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return enrolled_folder(tmp_path_factory.mktemp("thief") / "sonar", "org.example.thief", broker.insecure_port)


tokens = (b"token of test %05d" % n for n in itertools.count())


@attrs.define
class Hand:
    """A session opened by hand, whose line is lost after one answer. `asked` is that request."""

    broker: BrokerProcess
    folder: Path
    token: bytes = attrs.field(factory=lambda: next(tokens))
    asked: bytes = ask(1, b"hello")

    def line(self, folder: Path | None = None) -> Line:
        return Line.open(self.broker.secure_port, client_context(folder or self.folder))

    def open(self, *more: bytes) -> Line:
        line = self.line()
        line.send(setup(self.token), self.asked, *more)
        assert wire.payload_data(line.answer(1)) == b"hello"
        return line

    def refusal(self, frame: bytes, folder: Path | None = None) -> tuple[int, str]:
        with self.line(folder) as line:
            line.send(frame)
            (error,) = line.rest()
            return error.error


@pytest.fixture
def hand(broker: BrokerProcess, folder: Path) -> Hand:
    return Hand(broker, folder)


@pytest.mark.row("A-41")
def test_an_answer_that_was_not_received_comes_again_and_one_that_was_does_not(hand: Hand) -> None:
    second = ask(3, b"second")
    with hand.open(second) as line:
        answer = line.answer(3)
    with hand.line() as line:
        line.send(resume(hand.token, received=0))
        ok, first, again = line.next(), line.next(), line.next()
        assert ok == (0, RESUME_OK, 0, struct.pack(">Q", counted(hand.asked, second)))
        assert first is not None
        assert (first.stream, again) == (1, answer)
    with hand.line() as line:
        received = 2 * 6 + len(first.body) + len(answer.body)
        line.send(resume(hand.token, received=received), wire.keepalive())
        ok, alive = line.next(), line.next()
        assert ok is not None
        assert alive is not None
        assert (ok.kind, alive.kind) == (RESUME_OK, wire.KEEPALIVE)
        assert alive.body == struct.pack(">Q", counted(hand.asked, second)), "a keepalive carries the position"


@pytest.mark.row("A-43", "D-4")
def test_another_certificate_cannot_resume_it(hand: Hand, thief: Path) -> None:
    with hand.open():
        pass
    code, text = hand.refusal(resume(hand.token), thief)
    assert (code, text) == (REJECTED_RESUME, hand.refusal(resume(b"no such token at all"))[1]), "nothing is told"
    with hand.line() as line:
        line.send(resume(hand.token))
        ok = line.next()
        assert ok is not None
        assert ok.kind == RESUME_OK


@pytest.mark.row("A-41")
@pytest.mark.parametrize(
    ("received", "available"), [(1, 0), (10**6, 0), (2**63 - 1, 0), (0, 1_000_000)], ids=["amid", "more", "most", "gap"]
)
def test_positions_that_cannot_be_are_refused_and_the_session_lives(hand: Hand, received: int, available: int) -> None:
    with hand.open():
        pass
    code, text = hand.refusal(resume(hand.token, received, available))
    assert code == REJECTED_RESUME
    assert text
    with hand.line() as line:
        line.send(resume(hand.token))
        ok = line.next()
        assert ok is not None
        assert ok.kind == RESUME_OK


@pytest.mark.row("A-41", "A-31")
def test_what_exceeds_the_budget_cannot_be_had_again(start: StartBroker, tmp_path: Path) -> None:
    broker = start("--resume-bytes", "2000")
    hand = Hand(broker, enrolled_folder(tmp_path / "sonar", "org.example.budget", broker.insecure_port))
    with hand.open(*(ask(stream, bytes(500)) for stream in range(3, 23, 2))) as line:
        line.answer(21)
    code, text = hand.refusal(resume(hand.token))
    assert code == REJECTED_RESUME
    assert "kept no longer" in text


@pytest.mark.row("A-41")
def test_the_last_of_two_that_resume_has_the_session(hand: Hand) -> None:
    with hand.open() as first, hand.line() as second, hand.line() as third:
        for line in (second, third):
            line.send(resume(hand.token))
            ok = line.next()
            assert ok is not None
            assert ok.kind == RESUME_OK
        assert [frame.stream for frame in second.rest()] == [1]
        assert first.rest() == []
        third.send(ask(3, b"here"))
        assert wire.payload_data(third.answer(3)) == b"here"
        third.send(resume(hand.token))
        assert third.rest()[-1].error[0] == wire.CONNECTION_ERROR


@pytest.mark.row("A-41")
def test_a_token_in_use_opens_no_second_session_and_one_of_no_length_none_at_all(hand: Hand, thief: Path) -> None:
    with hand.open():
        for token, words in ((hand.token, "in use"), (b"short", "bytes"), (bytes(600), "bytes")):
            code, text = hand.refusal(setup(token))
            assert code == wire.REJECTED_SETUP
            assert words in text
        assert hand.refusal(setup(b""))[0] == wire.INVALID_SETUP
        other = Hand(hand.broker, thief, hand.token)
        with other.open():  # another's token is another token
            pass


@pytest.mark.row("A-41")
def test_a_session_that_was_closed_cannot_be_resumed(hand: Hand) -> None:
    with hand.open() as line:
        line.send(wire.frame(0, wire.ERROR, 0, struct.pack(">I", 0x102)))
        line.rest()
    assert hand.refusal(resume(hand.token))[0] == REJECTED_RESUME
    with hand.open() as line:
        connected = [one for one in hand.broker.clients() if one["state"] == "connected"]
        (mine,) = [one for one in connected if one["app_id"] == "org.example.resume"]
        assert hand.broker.command("clients", "kick", mine["id"]).returncode == 0
        assert line.rest()[-1].kind == wire.ERROR
    assert hand.refusal(resume(hand.token))[0] == REJECTED_RESUME


@pytest.mark.row("A-31", "A-41")
def test_sessions_that_are_away_do_not_shut_out_their_own_client(hand: Hand) -> None:
    for _ in range(40):  # eight more than one identity may have
        with Hand(hand.broker, hand.folder).open():
            pass
    mine = [one for one in hand.broker.clients() if one["app_id"] == "org.example.resume"]
    assert len(mine) == 32
    with hand.open() as line:
        line.send(ask(3, b"served"))
        assert wire.payload_data(line.answer(3)) == b"served"


@pytest.mark.row("A-41")
def test_a_broker_that_stops_does_not_wait_for_those_who_are_away(start: StartBroker, tmp_path: Path) -> None:
    broker = start()
    hand = Hand(broker, enrolled_folder(tmp_path / "sonar", "org.example.stop", broker.insecure_port))
    with hand.open(ask(3, b"", "echo.never"), ask(5, b"100:100", "echo.stream")):
        pass
    began = time.monotonic()
    assert broker.stop() == 0
    assert time.monotonic() - began < 2, "it has no answers to wait for"


def test_neither_port_without_certificates_resumes_anything(broker: BrokerProcess) -> None:
    for frame, code in ((resume(), REJECTED_RESUME), (setup(), wire.REJECTED_SETUP)):
        with Line.open(broker.insecure_port) as line:
            line.send(frame)
            assert line.rest()[-1].error[0] == code


# ---- renewal -------------------------------------------------------------------------------------------------------


@attrs.frozen
class Issued:
    path: Path
    serial: int


@pytest.fixture
def issue(tmp_path: Path, start: StartBroker) -> Iterator[tuple[BrokerProcess, Callable[..., Issued]]]:
    """A broker, and `issue(name, renews=None)`: a certificate of its authority for one and the same client."""
    broker = start()
    with State.open(broker.home / STATE_FILE) as state:
        authority = Authority.open(broker.home, state, create=False)
        principal = Principal("org.example.renewed", "device", Proof.OPERATOR)

        def one(name: str, renews: int | None = None) -> Issued:
            key = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, principal.app_id)])
            request = x509.CertificateSigningRequestBuilder(subject).sign(key, hashes.SHA256())
            checked = authority.check_request(request.public_bytes(serialization.Encoding.PEM))
            issued = authority.issue(checked, principal, renews=renews)
            folder = tmp_path / name
            folder.mkdir()
            (folder / "privateKey.pem").write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
            )
            (folder / "device.crt").write_bytes(issued.certificate_pem)
            (folder / "sonarCA.crt").write_bytes(authority.trust_pem)
            return Issued(folder, issued.serial)

        yield broker, one


@pytest.mark.row("A-43", "D-4")
def test_a_renewed_certificate_resumes_it_and_one_that_was_only_issued_to_the_same_client_does_not(
    issue: tuple[BrokerProcess, Callable[..., Issued]],
) -> None:
    broker, make = issue
    first, stranger = make("first"), make("stranger")
    second = make("second", renews=first.serial)
    third = make("third", renews=second.serial)
    hand = Hand(broker, first.path)
    with hand.open():
        pass
    assert hand.refusal(resume(hand.token), stranger.path)[0] == REJECTED_RESUME
    for folder in (third.path, third.path):
        with hand.line(folder) as line:
            line.send(resume(hand.token))
            ok = line.next()
            assert ok is not None
            assert ok.kind == RESUME_OK
    (shown,) = broker.clients()
    assert shown["serial"] == f"{third.serial:x}"
    assert hand.refusal(resume(hand.token), first.path)[0] == REJECTED_RESUME, "the newest certificate counts"


# ---- leases --------------------------------------------------------------------------------------------------------


@pytest.mark.row("A-44")
def test_a_client_with_leases_is_held_to_them_and_one_without_is_not(start: StartBroker, tmp_path: Path) -> None:
    broker = start("--lease-requests", "3")
    folder = enrolled_folder(tmp_path / "sonar", "org.example.lease", broker.insecure_port)
    asks = [ask(stream, b"x") for stream in range(1, 13, 2)]
    with Line.open(broker.secure_port, client_context(folder)) as line:
        line.send(setup(None, lease=True), *asks)
        lease = line.next()
        assert lease is not None
        assert (lease.kind, struct.unpack(">II", lease.body)[1]) == (LEASE, 3)
        answers = {one.stream: one for one in (line.next() for _ in asks) if one is not None}
    assert [answers[stream].kind for stream in (1, 3, 5)] == [wire.PAYLOAD] * 3
    assert [answers[stream].error[0] for stream in (7, 9, 11)] == [REJECTED] * 3
    with Line.open(broker.secure_port, client_context(folder)) as line:
        line.send(setup(None), *asks)
        assert {line.answer(stream).kind for stream in range(1, 13, 2)} == {wire.PAYLOAD}


@pytest.mark.row("A-44")
async def test_our_client_keeps_to_its_lease_and_holds_the_broker_to_one(
    app: Connect, broker: BrokerProcess, app_id: str
) -> None:
    plugin = Recorder()
    async with app(plugins=[plugin], lease=client.Lease(requests=5, seconds=0.2)) as session:
        await plugin.started.wait()
        assert await session.request("echo.request", 1) == 1
        for _ in range(3):
            done = await asyncio.to_thread(
                broker.command, "clients", "call", app_id, "Recorder", "reverse", '{"text": "abc"}'
            )
            assert (done.returncode, done.stderr) == (0, "")
        for n in range(20):
            await session.send("Recorder.events", {"n": n})  # each waits for its turn, where it must
