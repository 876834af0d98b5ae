"""What a line tells of a frame, and what it never does."""

import struct

import pytest

from rsocket_broker.protocol import frames
from rsocket_broker.protocol.codes import FrameType
from rsocket_broker.protocol.frames import Setup, joined
from rsocket_broker.protocol.metadata import (
    ACCEPTED_MIMES,
    AUTHENTICATION,
    COMPOSITE,
    DATA_MIME,
    ROUTING,
    Entry,
    Mime,
    build_composite,
    build_mimes,
    build_tags,
    route,
)
from rsocket_broker.protocol.trace import FrameTrace
from rsocket_broker.protocol.trace_words import HARMLESS

SECRET = b"hunter2-hunter2-hunter2"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01".encode()


def frame(kind: int, stream_id: int, body: bytes, flags: int = 0) -> bytes:
    return frames.frame(stream_id, kind << 10 | flags, body)


def composite(*entries: tuple[str, bytes]) -> bytes:
    return build_composite(Entry(Mime.of(name), content) for name, content in entries)


def opened(metadata_mime: str = COMPOSITE) -> FrameTrace:
    trace = FrameTrace()
    trace.received(frames.setup(Setup(metadata_mime=metadata_mime)))
    return trace


def request(metadata: bytes, data: bytes = b"12345") -> bytes:
    return frame(FrameType.REQUEST_RESPONSE, 1, joined(metadata, data), 0x100)


@pytest.mark.row("A-53")
@pytest.mark.parametrize(
    ("sent", "line"),
    [
        (
            frame(FrameType.REQUEST_RESPONSE, 1, joined(route("echo.request"), b"12345"), 0x100),
            'REQUEST_RESPONSE stream=1 flags=METADATA size=31 metadata=17 data=5 route="echo.request"',
        ),
        (frame(FrameType.REQUEST_FNF, 3, b"abc"), "REQUEST_FNF stream=3 flags=- size=9 data=3"),
        (
            frame(FrameType.REQUEST_STREAM, 5, struct.pack("!I", 128) + b"abc", 0x80),
            "REQUEST_STREAM stream=5 flags=FOLLOWS size=13 n=128 data=3",
        ),
        (
            frame(FrameType.REQUEST_CHANNEL, 7, struct.pack("!I", 0x8000_0001), 0x40),
            "REQUEST_CHANNEL stream=7 flags=COMPLETE size=10 n=1 data=0",
        ),
        (frames.request_n(5, 64), "REQUEST_N stream=5 flags=- size=10 n=64"),
        (frames.cancel(5), "CANCEL stream=5 flags=- size=6"),
        (frame(FrameType.PAYLOAD, 5, b"xy", 0x60), "PAYLOAD stream=5 flags=COMPLETE|NEXT size=8 data=2"),
        (frames.error(5, 0x201, "private words", 99), "ERROR stream=5 flags=- size=23 code=APPLICATION_ERROR text=13"),
        (
            frames.error(0, 0x102, "bye\n\x1b[2J", 99),
            'ERROR stream=0 flags=- size=18 code=CONNECTION_CLOSE text="bye\\n\\u001b[2J"',
        ),
        (frames.error(5, 0x999, "", 99), "ERROR stream=5 flags=- size=10 code=0x999 text=0"),
        (frames.keepalive(b"", respond=True), "KEEPALIVE stream=0 flags=RESPOND size=14 position=0 data=0"),
        (
            frame(FrameType.LEASE, 0, struct.pack("!II", 5000, 100)),
            "LEASE stream=0 flags=- size=14 ttl=5000ms n=100",
        ),
        (
            frame(FrameType.RESUME, 0, struct.pack("!HHH", 1, 0, 23) + SECRET + struct.pack("!QQ", 7, 9)),
            "RESUME stream=0 flags=- size=51 version=1.0 token=hidden:23 server-position=7 client-position=9",
        ),
        (
            frame(FrameType.RESUME_OK, 0, struct.pack("!Q", 11)),
            "RESUME_OK stream=0 flags=- size=14 client-position=11",
        ),
        (
            frame(FrameType.METADATA_PUSH, 0, route("a.b"), 0x100),
            'METADATA_PUSH stream=0 flags=METADATA size=14 metadata=8 route="a.b"',
        ),
        (
            frame(FrameType.EXT, 1, struct.pack("!I", 0xABC) + b"x", 0x200),
            "EXT stream=1 flags=IGNORE size=11 extended-type=0xabc data=1",
        ),
        (frame(0x1F, 1, b"xyz", 0x01), "TYPE_0x1f stream=1 flags=0x1 size=9 data=3"),
        (b"\x00\x00\x02ab", "nonsense size=2"),
        (b"\x00\x00\x00", "nonsense size=0"),
        (frame(FrameType.REQUEST_N, 1, b"ab"), "REQUEST_N stream=1 flags=- size=8 malformed"),
        (request(route("a.b"))[:-1].replace(b"\x00\x00\x16", b"\x00\x00\x15", 1), None),
    ],
)
def test_a_frame_as_a_line(sent: bytes, line: str | None) -> None:
    trace = opened()
    lines = trace.received(sent)
    assert len(lines) == 1
    assert line is None or lines == [line]
    assert opened().sent(sent) == lines


def test_a_setup_tells_names_and_what_everybody_may_know() -> None:
    data = b'{"os":"Android","app":"Tele\\u202e","csr":"-----BEGIN hunter2-hunter2-hunter2","x":{"y":1}}'
    body = struct.pack("!HHII", 1, 0, 500, 1000) + struct.pack("!H", len(SECRET)) + SECRET
    body += b"\x0atext/plain\x10application/json" + joined(SECRET, data)
    (line,) = FrameTrace().received(frame(FrameType.SETUP, 0, body, 0x1C0))
    assert line == (
        f"SETUP stream=0 flags=METADATA|RESUME|LEASE size={6 + len(body)} version=1.0 keepalive=500ms lifetime=1000ms "
        f"token=hidden:23 metadata-mime=text/plain data-mime=application/json metadata=23 data={len(data)} "
        'claims={"os":"Android","app":"Tele\\u202e","csr","x"}'
    )
    assert "csr" not in HARMLESS


def test_what_metadata_tells() -> None:
    metadata = composite(
        (ROUTING, build_tags(("client:c1", "a.b"))),
        (DATA_MIME, build_mimes([Mime.of("application/cbor")])),
        (ACCEPTED_MIMES, build_mimes([Mime.of("text/css"), Mime.of("x/y")])),
        (AUTHENTICATION, b"\x81" + SECRET),
        (AUTHENTICATION, b"\x04mine" + SECRET),
        ("traceparent", PARENT),
        ("tracestate", SECRET),
        ("message/x.rsocket.tracing-zipkin.v0", b"\x88" + bytes.fromhex(TRACE_ID) + bytes(8)),
        ("message/x.rsocket.tracing-zipkin.v0", b"\x20"),
        ("application/json", SECRET),
        ("hunter2-hunter2-hunter2", b"1"),
    )
    (line,) = opened().received(request(metadata))
    assert line.endswith(
        f'route="client:c1","a.b" mime=application/cbor accepts=text/css,x/y auth=bearer:hidden:24 '
        f"auth=custom:hidden:28 trace={TRACE_ID} tracestate=23 trace={TRACE_ID} zipkin=1 application/json=23 other=1"
    )


@pytest.mark.parametrize("mime", ["text/plain", ""])
def test_metadata_of_another_type_is_a_size(mime: str) -> None:
    (line,) = opened(mime).received(request(route("a.b")))
    assert line == "REQUEST_RESPONSE stream=1 flags=METADATA size=22 metadata=8 data=5"


def test_routing_metadata_needs_no_composite() -> None:
    (line,) = opened(ROUTING).received(request(build_tags(["a.b"])))
    assert line.endswith('route="a.b"')


def test_damaged_metadata_tells_nothing() -> None:
    (line,) = opened().received(request(b"\x16" + SECRET))
    assert line == "REQUEST_RESPONSE stream=1 flags=METADATA size=38 metadata=24 data=5 malformed"


def test_the_beginning_of_a_message_in_pieces_is_not_called_damaged() -> None:
    long = composite((ROUTING, build_tags(["a.b"])), ("text/plain", b"x" * 50))
    (line,) = opened().received(frame(FrameType.REQUEST_FNF, 1, joined(long[:30], b""), 0x180))
    assert line == "REQUEST_FNF stream=1 flags=METADATA|FOLLOWS size=39 metadata=30 data=0 ..."
