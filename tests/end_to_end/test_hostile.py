"""Hostile input on both ports of a live broker: refused, memory stays bounded, and the next client is served."""

import contextlib
import json
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from tests.conftest import SEED
from tests.end_to_end import wire
from tests.end_to_end.processes import BrokerProcess
from tests.end_to_end.wire import Line
from tests.foreign.sdk_folder import EnrollmentFailed, claims, client_context, enrol, enrolled_folder, make_folder

APP_ID = "org.example.hostile"
MIB = 1024 * 1024
GROWTH = 48 * MIB
"""What one attack may leave behind, or have in use at its height beyond the limits of one connection: Python's
allocator keeps freed memory, and pages that were touched once stay in the count."""
ONE_MESSAGE = 64 * MIB
"""The largest message that a client with a certificate may send."""


@attrs.define
class Attack:
    """Opens connections to one of the ports. `may_keep`: bytes that the broker may have more in use afterwards."""

    open: Callable[[], Line]
    may_keep: int = GROWTH


@pytest.fixture(scope="module")
def folder(broker: BrokerProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return enrolled_folder(tmp_path_factory.mktemp("hostile") / "sonar", APP_ID, broker.insecure_port)


@pytest.fixture(params=["plain", "secure"])
def attack(request: pytest.FixtureRequest, broker: BrokerProcess, folder: Path) -> Iterator[Attack]:
    """After the attack, the broker must be as it was, and serve."""

    def open_line() -> Line:
        if request.param == "plain":
            return Line.open(broker.insecure_port, timeout=20)
        return Line.open(broker.secure_port, client_context(folder), timeout=20)

    is_served(broker, folder)
    before = broker.rss()
    one = Attack(open_line)
    yield one
    is_served(broker, folder)
    assert broker.rss() - before < one.may_keep
    assert "Traceback" not in broker.log.read_text()


def is_served(broker: BrokerProcess, folder: Path) -> None:
    """A client that behaves is served on both ports, at once."""
    started = time.monotonic()
    with Line.open(broker.insecure_port) as line:
        line.send(wire.setup(claims(APP_ID)), wire.keepalive())
        answer = line.next()
        assert answer is not None
        assert answer.kind == wire.KEEPALIVE
    with Line.open(broker.secure_port, client_context(folder)) as line:
        line.send(
            wire.setup(mime=wire.COMPOSITE),
            wire.request(wire.REQUEST_RESPONSE, 1, b"alive", wire.routed("echo.request")),
        )
        assert wire.payload_data(line.answer(1)) == b"alive"
    assert time.monotonic() - started < 5


def everything_sent(line: Line, data: bytes) -> None:
    """Sends until all is gone or the other side has had enough."""
    with contextlib.suppress(ConnectionError, OSError):
        line.send(data)


def ends(line: Line) -> list[wire.Frame]:
    """The broker closes the connection; what it said before."""
    with contextlib.suppress(ConnectionError):
        return line.rest()
    return []


@pytest.mark.row("A-31", "A-35")
def test_random_bytes(attack: Attack) -> None:
    chance = random.Random(SEED)
    for _ in range(20):
        with attack.open() as line:
            everything_sent(line, chance.randbytes(chance.randrange(1, 20_000)))
            with contextlib.suppress(OSError):
                line.socket.shutdown(socket.SHUT_WR)
            ends(line)


def test_random_bytes_behind_a_good_setup(attack: Attack) -> None:
    chance = random.Random(SEED + 1)
    for _ in range(20):
        with attack.open() as line:
            everything_sent(line, wire.setup(claims(APP_ID)) + chance.randbytes(chance.randrange(1, 20_000)))
            with contextlib.suppress(OSError):
                line.socket.shutdown(socket.SHUT_WR)
            ends(line)


def test_random_frames_behind_a_good_setup(attack: Attack) -> None:
    """Frames whose lengths are right and nothing else: every type, any flags, any stream."""
    chance = random.Random(SEED + 2)
    for _ in range(20):
        frames = [
            wire.frame(
                chance.choice([0, 1, 2, 3, 0x7FFFFFFF]),
                chance.randrange(64),
                chance.randrange(1024),
                chance.randbytes(chance.randrange(40)),
            )
            for _ in range(200)
        ]
        with attack.open() as line:
            everything_sent(line, wire.setup(claims(APP_ID)) + b"".join(frames))
            with contextlib.suppress(OSError):
                line.socket.shutdown(socket.SHUT_WR)
            ends(line)


@pytest.mark.parametrize("cut", [1, 2, 3, 8, 20, 60])
def test_a_frame_that_is_cut_short(attack: Attack, cut: int) -> None:
    with attack.open() as line:
        line.send(wire.setup(claims(APP_ID))[:cut])
        line.socket.shutdown(socket.SHUT_WR)
        ends(line)


@pytest.mark.row("A-31")
def test_an_oversized_first_frame(attack: Attack) -> None:
    """16 MiB are announced as a SETUP: a stranger is cut off at the length, and a client does not get far either."""
    with attack.open() as line:
        everything_sent(line, b"\xff\xff\xff" + wire.setup(claims(APP_ID))[3:] + bytes(16 * MIB))
        frames = ends(line)
    assert all(one.kind == wire.ERROR and one.stream == 0 for one in frames)


@pytest.mark.row("A-31")
def test_endless_fragments(attack: Attack, broker: BrokerProcess) -> None:
    """One request that never ends. It is given up, and nothing of it is kept."""
    before = broker.rss()
    piece = wire.frame(1, wire.PAYLOAD, wire.FOLLOWS | wire.NEXT, bytes(512 * 1024))
    highest = 0
    with attack.open() as line:
        line.send(wire.setup(claims(APP_ID)))
        line.send(wire.frame(1, wire.REQUEST_RESPONSE, wire.FOLLOWS, b"begin"))
        with contextlib.suppress(ConnectionError, OSError):
            for number in range(400):  # 200 MiB, three times what anyone may send
                line.send(piece)
                if number % 20 == 0:
                    highest = max(highest, broker.rss() - before)
    assert highest < ONE_MESSAGE + GROWTH


@pytest.mark.row("A-31")
def test_endless_fragments_on_many_streams(attack: Attack, broker: BrokerProcess) -> None:
    """A hundred requests that never end share one budget, and when their connection has gone they are forgotten.

    Round after round: what is forgotten late, or not at all, adds up.
    """
    before = broker.rss()
    piece = bytes(256 * 1024)
    highest = 0
    for _ in range(5):
        with attack.open() as line, contextlib.suppress(ConnectionError, OSError):
            line.send(wire.setup(claims(APP_ID)))
            for turn in range(7):
                for stream in range(1, 201, 2):
                    if turn == 0:
                        line.send(wire.frame(stream, wire.REQUEST_RESPONSE, wire.FOLLOWS, piece))
                    else:
                        line.send(wire.frame(stream, wire.PAYLOAD, wire.FOLLOWS | wire.NEXT, piece))
                highest = max(highest, broker.rss() - before)
    attack.may_keep = 2 * ONE_MESSAGE + GROWTH  # the C library keeps what was freed in small pieces
    assert highest < attack.may_keep


@pytest.mark.row("A-32")
def test_half_open_connections_by_the_hundred(broker: BrokerProcess, folder: Path) -> None:
    """They connect to both ports and say nothing, or half a word."""
    is_served(broker, folder)
    before, files = broker.rss(), broker.open_files()
    held = []
    for number in range(300):
        port = broker.insecure_port if number % 2 else broker.secure_port
        raw = socket.create_connection(("127.0.0.1", port), 5)
        if number % 3 == 0:
            raw.sendall(b"\x16\x03\x01\x02" if number % 2 == 0 else b"\x00\x00")
        held.append(raw)
    is_served(broker, folder)
    assert broker.rss() - before < GROWTH
    for raw in held:
        raw.close()
    deadline = time.monotonic() + 5
    while broker.open_files() > files + 10 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert broker.open_files() <= files + 10


@pytest.mark.row("A-32")
def test_strangers_who_stay_shut_nobody_out(broker: BrokerProcess, folder: Path) -> None:
    """They say that they will be heard of again in 24 days, which the specification allows them."""
    is_served(broker, folder)
    before, files = broker.rss(), broker.open_files()
    with contextlib.ExitStack() as held:
        for _ in range(600):
            line = held.enter_context(Line.open(broker.insecure_port))
            line.send(wire.setup(claims(APP_ID), keepalive_ms=wire.NEVER_MS))
        is_served(broker, folder)
        assert broker.open_files() - files < 300
        assert broker.rss() - before < GROWTH


@pytest.mark.row("F-26")
@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b'"signCertificate"',
        b"{",
        b"\xff\xfe{}",
        b'{"method": 7}',
        b'{"method": "signCertificate"}',
        b'{"method": "signCertificate", "csr": 7, "destination": "/tmp"}',
        b'{"method": "signCertificate", "csr": {"a": 1}, "destination": []}',
        b'{"method": "signCertificate", "csr": "", "destination": ""}',
        b'{"method": "signCertificate", "csr": "x", "destination": "/tmp", "medium": "one"}',
        b'{"method": "signCertificate", "csr": "x", "destination": "/tmp", "medium": NaN}',
        b'{"method": "signCertificate", "csr": "x", "destination": "/tmp", "timestamp": 1e999}',
        b'{"method": "signCertificate", "csr": "x", "destination": "/tmp", "logs": {"a": 1}}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 100_000,
    ],
    ids=lambda message: message[:40].decode("latin-1"),
)
def test_json_of_the_wrong_types_on_the_plain_port(broker: BrokerProcess, folder: Path, message: bytes) -> None:
    with Line.open(broker.insecure_port) as line:
        line.send(wire.setup(claims(APP_ID, device_id="unknown")), wire.request(wire.REQUEST_RESPONSE, 1, message))
        answer = line.answer(1)
        assert answer.kind == wire.ERROR
        line.send(wire.keepalive())
        assert line.answer(0).kind == wire.KEEPALIVE  # the connection outlives a request that makes no sense
    assert "Traceback" not in broker.log.read_text()


@pytest.mark.row("M-7", "F-26")
@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"{}",
        b'{"method": null}',
        b'{"method": "execute"}',
        b'{"method": "execute", "params": 7}',
        b'{"method": "execute", "params": {"api": 7, "method": {}, "params": []}}',
        b'{"method": "execute", "params": {"api": "Recorder", "method": "noted", "params": 7}}',
        b'{"method": "refreshPlugins", "params": [[[[]]]]}',
        b'{"id": {}, "success": 1}',
        b'{"error": 7}',
        b'{"error": {"a": 1e999}}',
        b'{"error": {"a": "\\ud800"}}',
        b'{"method": "execute", "params": {"api": "\\ud800", "method": "m"}}',
        b"[" * 100_000,
        *(b'{"error": ' + b"[" * depth + b"]" * depth + b"}" for depth in range(940, 1000, 4)),
    ],
    ids=lambda message: message[:40].decode("latin-1"),
)
def test_json_of_the_wrong_types_on_the_secure_port(broker: BrokerProcess, folder: Path, message: bytes) -> None:
    with Line.open(broker.secure_port, client_context(folder)) as line:
        line.send(wire.setup(claims(APP_ID), wire.COMPOSITE), wire.request(wire.REQUEST_FNF, 1, message))
        line.send(wire.request(wire.REQUEST_FNF, 3, message, wire.routed("Recorder.events")))
        line.send(wire.request(wire.REQUEST_RESPONSE, 7, message))
        line.send(wire.request(wire.REQUEST_RESPONSE, 5, b"alive", wire.routed("echo.request")))
        assert wire.payload_data(line.answer(5)) == b"alive"
    assert "Traceback" not in broker.log.read_text()


def test_half_a_character_in_a_name_is_listed(broker: BrokerProcess, folder: Path) -> None:
    """JSON can carry it and UTF-8 cannot: one such client must not hide all the others from the operator."""
    with Line.open(broker.secure_port, client_context(folder)) as line:
        line.send(wire.setup(claims(APP_ID, app="Demo \ud800"), wire.COMPOSITE), wire.keepalive())
        line.answer(0)
        assert [client["app"] for client in broker.clients()] == ["Demo \ud800"]
    assert "Traceback" not in broker.log.read_text()


@pytest.mark.row("A-31")
def test_sixteen_megabytes_for_a_stranger(broker: BrokerProcess, folder: Path) -> None:
    before = broker.rss()
    message = json.dumps({"method": "signCertificate", "csr": "x" * (16 * MIB - 200)}).encode()
    with Line.open(broker.insecure_port, timeout=20) as line:
        everything_sent(line, wire.setup(claims(APP_ID)) + wire.request(wire.REQUEST_RESPONSE, 1, message))
        frames = ends(line)
    assert all(one.kind == wire.ERROR for one in frames)
    assert broker.rss() - before < GROWTH
    is_served(broker, folder)


@pytest.mark.row("A-31")
def test_sixteen_megabytes_from_a_client_are_served(broker: BrokerProcess, folder: Path) -> None:
    """With a certificate, that is a large message and no attack; and it is not kept afterwards."""
    data = random.Random(SEED).randbytes(16 * MIB - 1000)
    before = broker.rss()
    for _ in range(3):
        with Line.open(broker.secure_port, client_context(folder), timeout=30) as line:
            line.send(
                wire.setup(mime=wire.COMPOSITE),
                wire.request(wire.REQUEST_RESPONSE, 1, data, wire.routed("echo.request")),
            )
            assert wire.payload_data(line.answer(1)) == data
    assert broker.rss() - before < 3 * ONE_MESSAGE
    is_served(broker, folder)


def test_a_reader_that_never_reads(broker: BrokerProcess, folder: Path) -> None:
    """It asks for more than it takes: the broker stops producing instead of keeping it all."""
    before = broker.rss()
    with Line.open(broker.secure_port, client_context(folder)) as line:
        line.send(wire.setup(mime=wire.COMPOSITE))
        asked = wire.request(
            wire.REQUEST_STREAM, 1, b"1000000:65536", wire.routed("echo.stream"), n=0x7FFFFFFF
        )  # 64 GiB
        line.send(asked)
        time.sleep(1)
        assert broker.rss() - before < GROWTH
        is_served(broker, folder)


def test_a_flood_of_requests_that_are_never_answered(broker: BrokerProcess, folder: Path) -> None:
    before = broker.rss()
    with Line.open(broker.secure_port, client_context(folder)) as line:
        line.send(wire.setup(mime=wire.COMPOSITE))
        streams = range(1, 20_001, 2)
        line.send(*(wire.request(wire.REQUEST_RESPONSE, stream, b"", wire.routed("echo.never")) for stream in streams))
        line.send(wire.keepalive())
        kinds = []
        while (one := line.next()) is not None and one.kind != wire.KEEPALIVE:
            kinds.append(one.kind)
        assert wire.ERROR in kinds  # those above the limit are refused at once
        is_served(broker, folder)
        assert broker.rss() - before < GROWTH
    is_served(broker, folder)


@pytest.mark.row("A-31")
@pytest.mark.parametrize("kind", [wire.REQUEST_RESPONSE, wire.REQUEST_CHANNEL], ids=["response", "channel"])
def test_much_that_is_never_done_with(broker: BrokerProcess, folder: Path, kind: int) -> None:
    """Megabytes in each of many requests whose handlers do not end, or in channels whose answers nobody asks for."""
    is_served(broker, folder)
    before = broker.rss()
    data = b"x" * (2 * MIB)
    highest = 0
    with Line.open(broker.secure_port, client_context(folder), timeout=30) as line:
        line.send(wire.setup(mime=wire.COMPOSITE))
        for stream in range(1, 401, 2):
            if kind == wire.REQUEST_RESPONSE:
                line.send(wire.request(kind, stream, data, wire.routed("echo.never")))
            else:
                line.send(wire.request(kind, stream, b"", wire.routed("echo.channel"), n=1))
                line.send(wire.frame(stream, wire.PAYLOAD, wire.NEXT | wire.COMPLETE * (stream % 4 == 1), data))
            if stream % 20 == 1:
                highest = max(highest, broker.rss() - before)
        line.send(wire.keepalive())
        line.answer(0)
        highest = max(highest, broker.rss() - before)
    assert highest < 4 * ONE_MESSAGE
    is_served(broker, folder)


@pytest.mark.row("A-03", "F-15")
@pytest.mark.parametrize(
    "destination",
    [
        "",
        ".",
        "..",
        "/",
        "/etc",
        "/tmp",
        "relative/path",
        "/proc/self/root",
        "a\0b",
        "/tmp/'; touch /tmp/x; '",
        "x" * 5000,
    ],
    ids=lambda destination: destination[:20].replace("\0", "NUL") or "empty",
)
def test_hostile_destinations(broker: BrokerProcess, tmp_path: Path, destination: str) -> None:
    path = make_folder(tmp_path / "sonar", APP_ID)
    with pytest.raises(EnrollmentFailed):
        enrol(path, APP_ID, broker.insecure_port, destination=destination)
    assert sorted(one.name for one in path.iterdir()) == ["app.csr", "privateKey.pem"]


def test_a_setup_with_every_length_wrong(attack: Attack) -> None:
    for length in (0, 1, 127, 128, 255):
        body = struct.pack(">HHII", 1, 0, 10_000, 30_000) + bytes([length]) + b"text/plain" + b"\x0atext/plain{}"
        with attack.open() as line:
            everything_sent(line, wire.frame(0, wire.SETUP, 0, body))
            line.socket.shutdown(socket.SHUT_WR)
            ends(line)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xff",
        b"[" * 100_000,
        b'{"success": 7}',
        b'{"success": {"plugins": 7}}',
        b'{"success": {"plugins": [1, null, {}, ["a"]]}}',
        b'{"success": {"plugins": {"a": 1}}}',
        b'{"success": {"plugins": ["a"]}, "error": {"message": "both"}}',
        b'{"error": 7}',
        b'{"error": {"message": {"a": 1}, "name": [], "stacktrace": 0}}',
        json.dumps({"success": {"plugins": [f"plugin {number}" for number in range(200_000)]}}).encode(),
        json.dumps({"success": {"plugins": ["Recorder", "x" * 1_000_000, "\x1b[2J", ""]}}).encode(),
    ],
    ids=lambda answer: answer[:40].decode("latin-1"),
)
def test_an_app_that_answers_nonsense(broker: BrokerProcess, folder: Path, answer: bytes) -> None:
    """It says that it speaks Flipper's protocol, and then answers every request of the broker with this."""
    before = broker.rss()
    with Line.open(broker.secure_port, client_context(folder)) as line:
        line.send(wire.setup(claims(APP_ID), wire.COMPOSITE))
        asked = line.next()
        assert asked is not None
        assert asked.kind == wire.REQUEST_RESPONSE
        assert json.loads(asked.body)["method"] == "getPlugins"
        line.send(wire.frame(asked.stream, wire.PAYLOAD, wire.NEXT | wire.COMPLETE, answer))
        line.send(wire.request(wire.REQUEST_RESPONSE, 1, b"alive", wire.routed("echo.request")))
        while (one := line.next()) is not None and one.stream != 1:
            if one.kind == wire.REQUEST_RESPONSE:
                line.send(wire.frame(one.stream, wire.PAYLOAD, wire.NEXT | wire.COMPLETE, answer))
        assert one is not None
        assert wire.payload_data(one) == b"alive"
        shown = broker.command("clients", "list")
        assert shown.returncode == 0, shown.stderr
        assert "\x1b" not in shown.stdout
    is_served(broker, folder)
    assert broker.rss() - before < GROWTH
    assert "Traceback" not in broker.log.read_text()


def test_a_flood_of_events(broker: BrokerProcess, folder: Path) -> None:
    """Faster than anyone handles them: nothing piles up, and others are served meanwhile."""
    before = broker.rss()
    event = wire.setup(claims(APP_ID), wire.COMPOSITE)
    data = b"x" * 1000
    with Line.open(broker.secure_port, client_context(folder), timeout=30) as line:
        line.send(event)
        for start in range(1, 100_000, 2000):
            streams = range(start, start + 2000, 2)
            line.send(*(wire.request(wire.REQUEST_FNF, stream, data, wire.routed("echo.fire")) for stream in streams))
            if start == 40_001:
                is_served(broker, folder)
        line.send(wire.request(wire.REQUEST_RESPONSE, 200_001, b"alive", wire.routed("echo.request")))
        assert wire.payload_data(line.answer(200_001)) == b"alive"
    assert broker.rss() - before < GROWTH


def test_a_client_that_asks_and_leaves_a_hundred_times(broker: BrokerProcess, folder: Path) -> None:
    before, files = broker.rss(), broker.open_files()
    for _ in range(100):
        with Line.open(broker.secure_port, client_context(folder)) as line:
            line.send(wire.setup(mime=wire.COMPOSITE))
            for stream in range(1, 21, 2):
                line.send(wire.request(wire.REQUEST_RESPONSE, stream, b"", wire.routed("echo.never")))
            line.send(wire.request(wire.REQUEST_STREAM, 21, b"1000:1000", wire.routed("echo.stream"), n=5))
    is_served(broker, folder)
    deadline = time.monotonic() + 5
    while broker.open_files() > files + 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert broker.open_files() <= files + 5
    assert broker.rss() - before < GROWTH
    assert "Traceback" not in broker.log.read_text()
