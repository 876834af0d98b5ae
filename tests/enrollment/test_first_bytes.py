import logging
import ssl
from collections.abc import Callable

import pytest

from rsocket_broker.enrollment.first_bytes import FirstBytes
from rsocket_broker.quiet_log import QuietLog
from rsocket_broker.transports.base import Channel, Peer, Transport

SETUP = bytes.fromhex("00002a00000000040000010000")


class Recorder:
    """The receiver behind: what reached it, in order."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def transport_ready(self, transport: Transport) -> None:
        self.calls.append("ready")

    def data_received(self, data: bytes | memoryview) -> None:
        self.calls.append(bytes(data))

    def eof_received(self) -> None:
        self.calls.append("eof")

    def writing_paused(self) -> None:
        self.calls.append("paused")

    def writing_resumed(self) -> None:
        self.calls.append("resumed")

    def transport_lost(self, error: Exception | None) -> None:
        self.calls.append(error)


class Line:
    """A transport that only remembers whether it was closed."""

    peer = Peer("192.0.2.1:5", Channel.TCP)
    queued = 0
    closed = False

    def close(self) -> None:
        self.closed = True

    def write(self, chunks: list[bytes]) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abort(self) -> None: ...


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def behind() -> Recorder:
    return Recorder()


@pytest.fixture
def first(line: Line, behind: Recorder) -> FirstBytes:
    made = FirstBytes(behind, QuietLog(logging.getLogger("test")), 8088)
    made.transport_ready(line)
    return made


def whole(first: FirstBytes, data: bytes) -> None:
    first.data_received(memoryview(data))


def byte_by_byte(first: FirstBytes, data: bytes) -> None:
    for at in range(len(data)):
        first.data_received(data[at : at + 1])


FEEDS = pytest.mark.parametrize("feed", [whole, byte_by_byte])
Feed = Callable[[FirstBytes, bytes], None]


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    line = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        line.do_handshake()
    return outgoing.read()


@FEEDS
def test_rsocket_passes_unchanged(first: FirstBytes, behind: Recorder, line: Line, feed: Feed) -> None:
    feed(first, SETUP)
    first.writing_paused()
    first.writing_resumed()
    first.eof_received()
    first.transport_lost(None)
    assert behind.calls[0] == "ready"
    assert b"".join(call for call in behind.calls if isinstance(call, bytes)) == SETUP
    assert behind.calls[-4:] == ["paused", "resumed", "eof", None]
    assert not line.closed


@pytest.mark.row("F-8")
@FEEDS
def test_tls_is_told_where_to_go(
    first: FirstBytes, behind: Recorder, line: Line, feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    feed(first, client_hello())
    first.eof_received()
    assert line.closed
    assert "192.0.2.1:5 spoke TLS to the plain port" in caplog.text
    assert "8088" in caplog.text
    assert behind.calls == ["ready"]


@pytest.mark.row("M-9")
@FEEDS
@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.0\r\n", b"OPTIONS * HTTP/1.1\r\n"])
def test_http_goes_no_further(
    first: FirstBytes, behind: Recorder, line: Line, feed: Feed, request_line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    feed(first, request_line + b"Host: localhost\r\n\r\n" + SETUP)
    assert line.closed
    assert "spoke HTTP" in caplog.text
    assert behind.calls == ["ready"]


def test_a_few_bytes_and_the_end_are_handed_on(first: FirstBytes, behind: Recorder) -> None:
    first.data_received(b"\x00\x00")
    first.eof_received()
    assert behind.calls == ["ready", b"\x00\x00", "eof"]


def test_an_end_without_bytes_is_handed_on(first: FirstBytes, behind: Recorder) -> None:
    first.eof_received()
    assert behind.calls == ["ready", "eof"]


def test_the_log_is_not_filled_by_strangers(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    log = QuietLog(logging.getLogger("test"))
    hello = client_hello()
    for _ in range(100):
        first = FirstBytes(Recorder(), log, None)
        first.transport_ready(line)
        first.data_received(hello)
    assert 1 <= len(caplog.records) <= 10
