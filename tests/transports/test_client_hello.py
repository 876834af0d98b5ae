import ssl

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rsocket_broker.transports.client_hello import (
    MAX_HELLO,
    MAX_RECEIVED,
    ClientHello,
    HelloReader,
    NotClientHello,
    looks_like_http,
    looks_like_rsocket,
    looks_like_tls,
)

RSOCKET_SETUP = bytes.fromhex("00003e 00000000 0400 00010000 00002710 7fffffff")


def real_hello(
    server_name: str | None = "broker.example",
    alpn: tuple[str, ...] = (),
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> bytes:
    """What OpenSSL sends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.maximum_version = newest
    if alpn:
        context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    line = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    with pytest.raises(ssl.SSLWantReadError):
        line.do_handshake()
    return outgoing.read()


def records(message: bytes, size: int) -> bytes:
    """A handshake message, cut into records of `size` bytes."""
    pieces = [message[start : start + size] for start in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2) + piece for piece in pieces)


def hello_message(body: bytes) -> bytes:
    return b"\x01" + len(body).to_bytes(3) + body


def body_with(extensions: bytes) -> bytes:
    return b"\x03\x03" + bytes(32) + b"\0" + b"\0\2\x13\x01" + b"\1\0" + len(extensions).to_bytes(2) + extensions


def verdict(data: bytes, step: int) -> tuple[ClientHello | str | None, int]:
    """What the reader says of `data` given in pieces of `step`, and how many bytes it keeps."""
    reader = HelloReader()
    for start in range(0, len(data), step):
        try:
            hello = reader.feed(data[start : start + step])
        except NotClientHello as error:
            return str(error), len(reader.received)
        if hello is not None:
            return hello, len(reader.received)
    return None, len(reader.received)


def test_a_real_hello_tells_its_offers() -> None:
    hello, _ = verdict(real_hello(alpn=("rs", "h2")), 1 << 20)
    assert isinstance(hello, ClientHello)
    assert hello.server_name == "broker.example"
    assert hello.alpn == ("rs", "h2")
    assert {0x0303, 0x0304} <= set(hello.versions)


def test_a_plain_hello_of_tls_1_2_offers_that_alone() -> None:
    hello, _ = verdict(real_hello(None, newest=ssl.TLSVersion.TLSv1_2), 1 << 20)
    assert hello == ClientHello(None, (), (0x0303,))


def test_an_ip_address_is_no_server_name() -> None:
    hello, _ = verdict(real_hello("127.0.0.1"), 1 << 20)
    assert isinstance(hello, ClientHello) and hello.server_name is None


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_a_hello_in_many_records_is_one_hello(size: int) -> None:
    whole = real_hello(alpn=("rs",))
    cut = records(whole[5:], size)
    assert verdict(cut, 1 << 20)[0] == verdict(whole, 1 << 20)[0]
    assert verdict(cut, 1)[0] == verdict(whole, 1 << 20)[0]


def test_every_byte_is_kept_for_the_engine() -> None:
    reader = HelloReader()
    sent = real_hello() + b"what follows"
    for byte in sent[:10]:
        assert reader.feed(bytes([byte])) is None
    assert reader.feed(memoryview(sent)[10:]) is not None
    assert reader.received == sent


@pytest.mark.parametrize("length", [1, 4, 5, 6, 9, 50])
def test_a_truncated_hello_waits_for_more(length: int) -> None:
    assert verdict(real_hello()[:length], 1 << 20)[0] is None


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        RSOCKET_SETUP,
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x02",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x05\x02",
        b"\x16\x03\x01\x00\x05\x01" + (MAX_HELLO + 1).to_bytes(3),
        b"\x16\x03\x01\x00\x02\x01\x00" + b"\x17\x03\x03\x00\x01\x00",
    ],
    ids=["zero", "http", "rsocket", "alert", "ssl2", "empty record", "huge record", "server hello", "huge", "mixed"],
)
def test_what_cannot_become_a_hello_is_said_at_once(data: bytes) -> None:
    with pytest.raises(NotClientHello):
        HelloReader().feed(data)


def test_a_hello_in_too_many_pieces_is_refused_when_the_bound_is_reached() -> None:
    endless = records(hello_message(bytes(MAX_HELLO)), 1)
    reader = HelloReader()
    with pytest.raises(NotClientHello, match="too many pieces"):
        for start in range(0, len(endless), 100):
            reader.feed(endless[start : start + 100])
    assert len(reader.received) < MAX_RECEIVED + 100


def test_the_largest_hello_is_taken() -> None:
    message = hello_message(bytes(MAX_HELLO))
    assert verdict(records(message, 16384), 4096)[0] == ClientHello(None, (), (0,))


@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        (b"", ClientHello(None, (), (0x0303,))),
        (b"\0\x10\0\5\0\3\2rs", ClientHello(None, ("rs",), (0x0303,))),
        (b"\0\x10\0\5\0\3\7rs", ClientHello(None, (), (0x0303,))),
        (b"\0\x10\0\x63\0\3\2rs", ClientHello(None, (), (0x0303,))),
        (b"\0\0\0\6\0\4\1\0\1x", ClientHello(None, (), (0x0303,))),
        (b"\0\0\0\6\0\4\0\0\1\xff", ClientHello(None, (), (0x0303,))),
        (b"\0\x2b\0\5\4\x7f\x1c\x03\x04", ClientHello(None, (), (0x7F1C, 0x0304))),
        (b"\0\x2b\0\2\4\x03", ClientHello(None, (), (0x0303,))),
    ],
    ids=["none", "alpn", "alpn too long", "beyond the end", "other name", "name not ascii", "versions", "cut versions"],
)
def test_offers_that_do_not_add_up_are_left_out(extensions: bytes, expected: ClientHello) -> None:
    assert verdict(records(hello_message(body_with(extensions)), 16384), 1 << 20)[0] == expected


@given(st.binary(max_size=300))
@example(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00")
def test_any_bytes_get_one_verdict_however_they_are_cut(data: bytes) -> None:
    whole, kept = verdict(data, len(data) or 1)
    assert verdict(data, 1)[0] == whole == verdict(data, 7)[0]
    assert kept <= len(data)


@given(st.binary(max_size=200), st.integers(1, 60), st.integers(0, 250))
def test_any_hello_gets_one_verdict_however_it_is_cut(extensions: bytes, size: int, cut: int) -> None:
    data = records(hello_message(body_with(extensions)), size)
    for sent in (data, data[:cut], data + b"more"):
        assert verdict(sent, 1)[0] == verdict(sent, len(sent) or 1)[0] == verdict(sent, 13)[0]
    assert isinstance(verdict(data, 1)[0], ClientHello)


@pytest.mark.row("F-8")
def test_the_three_kinds_of_opening_bytes_are_told_apart() -> None:
    judges = (looks_like_tls, looks_like_http, looks_like_rsocket)
    expected = {
        real_hello(): (True, False, False),
        b"POST /exchange HTTP/1.1\r\n": (False, True, False),
        b"CONNECT x:1 HTTP/1.1": (False, True, False),
        RSOCKET_SETUP: (False, False, True),
        b"\0\0\x20\0\0\0\0\x34": (False, False, True),
        b"\0\0\x20\0\0\0\1\x11": (False, False, False),
        b"SSH-2.0-x": (False, False, False),
        b"": (False, False, False),
        b"\x16\x03": (False, False, False),
    }
    for data, kinds in expected.items():
        assert tuple(judge(data) for judge in judges) == kinds, data
        assert tuple(judge(memoryview(data)) for judge in judges) == kinds, data
