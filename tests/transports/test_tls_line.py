"""The data path over memory: what arrives, how it is cut, and every way in which it ends."""

import gc
import ssl
import weakref
from collections.abc import Callable

import pytest

from rsocket_broker.errors import TlsRefused
from rsocket_broker.transports.base import Channel, Peer, Receiver
from rsocket_broker.transports.tls_contexts import client_context, server_context
from rsocket_broker.transports.tls_line import FEW, PLAINTEXT_SIZE, RECORD_SIZE, SLICE, TlsLine, TlsTransport
from tests.throwaway_ca import leaf_der, shared_ca
from tests.transports.recording import Recorder


class Wire:
    """The transport below: keeps what is sent, and is told nothing by itself."""

    def __init__(self) -> None:
        self.peer = Peer("wire", Channel.MEMORY)
        self.queued = 0
        self.receiver: Receiver
        self.sent = bytearray()
        self.calls: list[str] = []

    def write(self, chunks: list[bytes]) -> None:
        self.sent += b"".join(chunks)
        self.calls.append("write")

    def pause_reading(self) -> None:
        self.calls.append("pause_reading")

    def resume_reading(self) -> None:
        self.calls.append("resume_reading")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def take(self) -> bytes:
        sent, self.sent = bytes(self.sent), bytearray()
        return sent


class Bench:
    """A TlsTransport after its handshake, with the wire below it and OpenSSL as the client."""

    def __init__(self, newest: ssl.TLSVersion) -> None:
        self.credentials = shared_ca().client()
        self.client = TlsLine(client_context(self.credentials), server_side=False, server_name="localhost")
        self.context = server_context(shared_ca().server(), newest)
        self.context.options |= ssl.OP_NO_TICKET  # it remembers sessions by itself
        line = TlsLine(self.context, server_side=True)
        waiting, done = b"", False
        while not done:
            self.client.handshake(waiting)
            done = line.handshake(self.client.outgoing.read())
            waiting = line.outgoing.read()
        self.client.handshake(waiting)
        self.wire, self.user = Wire(), Recorder()
        self.left = 0
        self.transport = TlsTransport(self.wire, line, self.user, self._leave)
        self.transport.start()

    def _leave(self) -> None:
        self.left += 1

    def encrypted(self, data: bytes) -> bytes:
        view = memoryview(data)
        while view:
            view = view[self.client.object.write(view[:RECORD_SIZE]) :]
        return self.client.outgoing.read()

    def decrypted(self) -> bytes:
        """What the client can read of all that was sent to it."""
        self.client.incoming.write(self.wire.take())
        found = bytearray()
        try:
            while piece := self.client.object.read(RECORD_SIZE):
                found += piece
        except ssl.SSLWantReadError:
            pass
        return bytes(found)

    def receive(self, data: bytes) -> None:
        self.wire.receiver.data_received(memoryview(data))


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
async def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param)


SIZES = [1, RECORD_SIZE - 1, RECORD_SIZE, RECORD_SIZE + 1, SLICE, PLAINTEXT_SIZE, PLAINTEXT_SIZE * 3 + 17]


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def test_the_peer_is_known_before_its_first_byte(bench: Bench) -> None:
    assert bench.user.events == ["ready"]
    assert bench.transport.peer.certificate == leaf_der(bench.credentials)
    assert bench.transport.peer.channel is Channel.TLS
    assert bench.transport.peer.address == "wire"


@pytest.mark.parametrize("size", SIZES)
def test_what_is_received_is_whatever_was_sent(bench: Bench, size: int) -> None:
    bench.receive(bench.encrypted(pattern(size)))
    assert bench.user.data == pattern(size)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_written_goes_out_as_one_write(bench: Bench, size: int) -> None:
    """More than fits into OpenSSL's buffer goes out as it is filled."""
    data = pattern(size)
    bench.transport.write([data[: size // 2], data[size // 2 :]])
    assert len(bench.wire.calls) == 1 if size <= SLICE else len(bench.wire.calls) <= 2 + size // SLICE
    assert bench.decrypted() == data


@pytest.mark.parametrize("count", [2, FEW, FEW + 1, 200])
@pytest.mark.parametrize("size", [10, 5_000, 16_384, 16_393])
def test_many_chunks_are_written_in_portions(bench: Bench, count: int, size: int) -> None:
    """No portion is so large that its copy costs fresh pages of memory, and small chunks share their records."""
    data = pattern(count * size)
    bench.transport.write([data[at * size : (at + 1) * size] for at in range(count)])
    assert len(bench.wire.calls) <= 1 + len(data) // (SLICE - RECORD_SIZE)
    assert bench.decrypted() == data


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_records_may_come_in_pieces(bench: Bench, step: int) -> None:
    sent = bench.encrypted(b"one") + bench.encrypted(pattern(3000)) + bench.encrypted(b"two")
    for start in range(0, len(sent), step):
        bench.receive(sent[start : start + step])
    assert bench.user.data == b"one" + pattern(3000) + b"two"


def test_many_small_records_of_one_read_arrive_as_one(bench: Bench) -> None:
    calls: list[int] = []
    real = bench.user.data_received
    bench.user.data_received = lambda data: (calls.append(len(data)), real(data))[1]  # type: ignore[method-assign]
    bench.receive(b"".join(bench.encrypted(bytes([number])) for number in range(200)))
    assert calls == [200]
    assert bench.user.data == bytes(range(200))


def test_nothing_is_no_record(bench: Bench) -> None:
    bench.transport.write([b"", b""])
    assert bench.wire.calls == []


def test_a_farewell_behind_the_last_data_comes_after_it(bench: Bench) -> None:
    last = bench.encrypted(b"last words")
    with pytest.raises(ssl.SSLWantReadError):
        bench.client.object.unwrap()
    bench.receive(last + bench.client.outgoing.read())
    assert bench.user.data == b"last words"
    assert bench.user.events == ["ready", "data", "eof"]
    bench.wire.receiver.eof_received()
    assert bench.user.events == ["ready", "data", "eof"], "told once"


def test_after_the_farewell_of_a_peer_it_is_still_answered(bench: Bench) -> None:
    with pytest.raises(ssl.SSLWantReadError):
        bench.client.object.unwrap()
    bench.receive(bench.client.outgoing.read())
    bench.transport.write([b"answer"])
    assert "write" in bench.wire.calls and not bench.user.losses


def test_an_end_without_farewell_is_an_end(bench: Bench) -> None:
    """Many stacks never send close_notify; RSocket frames tell by themselves when they are cut short."""
    bench.receive(bench.encrypted(b"half a fra"))
    bench.wire.receiver.eof_received()
    assert bench.user.events == ["ready", "data", "eof"]


def test_a_close_says_farewell_first(bench: Bench) -> None:
    bench.transport.write([b"bye"])
    bench.transport.close()
    bench.transport.close()
    bench.transport.write([b"too late"])
    assert bench.wire.calls == ["write", "write", "close"]
    assert bench.decrypted() == b"bye"
    bench.client.object.unwrap()  # which wants more unless the farewell has come
    bench.wire.receiver.transport_lost(None)
    assert bench.user.losses == [None] and bench.left == 1


def test_a_close_while_data_is_under_way_is_a_close(bench: Bench) -> None:
    sent = bench.encrypted(pattern(50_000))
    bench.receive(sent[:20_000])
    bench.transport.close()
    assert bench.wire.calls == ["write", "close"]


def test_no_data_is_delivered_after_a_close_in_the_middle(bench: Bench) -> None:
    real = bench.user.data_received

    def close_at_once(data: bytes | memoryview) -> None:
        real(data)
        bench.transport.close()

    bench.user.data_received = close_at_once  # type: ignore[method-assign]
    bench.receive(bench.encrypted(pattern(PLAINTEXT_SIZE * 2)))
    assert 0 < len(bench.user.data) <= PLAINTEXT_SIZE


@pytest.mark.parametrize(
    "damage",
    [
        lambda sent: sent[:-1] + bytes([sent[-1] ^ 1]),
        lambda sent: b"\x17\x03\x03\xff\xff" + sent,
        lambda sent: b"GET /" + sent,
    ],
    ids=["bit flipped", "record too long", "no record"],
)
def test_damage_ends_the_line_with_an_alert(bench: Bench, damage: Callable[[bytes], bytes]) -> None:
    bench.receive(bench.encrypted(b"good") + damage(bench.encrypted(b"bad")))
    assert bench.user.data == b"good"
    assert bench.wire.calls == ["write", "close"]
    with pytest.raises(ssl.SSLError, match="ALERT"):
        bench.decrypted()
    bench.transport.write([b"anyone?"])
    bench.wire.receiver.transport_lost(None)
    (error,) = bench.user.losses
    assert isinstance(error, TlsRefused) and not error.by_peer


def test_a_write_that_tls_no_longer_takes_ends_the_line(bench: Bench) -> None:
    with pytest.raises(ssl.SSLWantReadError):
        bench.transport._object.unwrap()
    bench.transport.write([b"too late for OpenSSL"])
    assert bench.wire.calls == ["write", "close"]
    bench.wire.receiver.transport_lost(None)
    assert isinstance(bench.user.losses[0], TlsRefused)


def test_what_the_network_breaks_is_told_as_it_is(bench: Bench) -> None:
    error = ConnectionResetError("reset")
    bench.wire.receiver.transport_lost(error)
    assert bench.user.losses == [error]


def test_the_session_of_a_line_that_was_lost_may_be_resumed(bench: Bench) -> None:
    """OpenSSL forgets one that ends without a farewell, and those who lose their network are those who come again."""
    assert bench.context.session_stats()["number"]
    bench.transport.transport_lost(ConnectionResetError())
    before = bench.context.session_stats()["number"]
    line = weakref.ref(bench.transport)
    del bench.transport, bench.wire, bench.user
    gc.collect()
    assert line() is None
    assert bench.context.session_stats()["number"] == before


def test_back_pressure_is_passed_on_until_the_close(bench: Bench) -> None:
    bench.transport.pause_reading()
    bench.transport.resume_reading()
    assert bench.wire.calls == ["pause_reading", "resume_reading"]
    bench.wire.receiver.writing_paused()
    bench.wire.receiver.writing_resumed()
    bench.transport.abort()
    bench.wire.receiver.writing_paused()
    bench.wire.receiver.writing_resumed()
    assert bench.user.events == ["ready", "paused", "resumed"]
    bench.wire.queued = 77
    assert bench.transport.queued == 77


async def test_all_lines_of_a_loop_use_one_plaintext_buffer() -> None:
    one, other = Bench(ssl.TLSVersion.TLSv1_3), Bench(ssl.TLSVersion.TLSv1_2)
    assert one.transport._plaintext.obj is other.transport._plaintext.obj
