"""A corpus of hostile peers: what each sends, and what must come of it.

A case is a table row, so that the same corpus runs against any server. It sends `chunks` one after the other, for as
long as the server takes them; between them, the server's memory is looked at. Whatever the case, another client is
served at once when it is over, and the server's process is still there.
"""

import enum
import itertools
import random
import struct
from collections.abc import Callable, Iterable, Iterator

import attrs

from tests.conformance import wire

SEED = 20
MIB = 1 << 20
MESSAGE = 64 * MIB
"""The largest message that the broker takes."""
FLOOD = 3 * MESSAGE
"""What a flood sends if it is let."""
SMALL_FLOOD = 64 * MIB
"""The same where nothing at all is to be kept."""


class Fate(enum.Enum):
    """What becomes of the connection of a hostile peer."""

    CUT = "the server closes it"
    SERVED = "the server goes on with it"
    EITHER = "either"


@attrs.frozen(kw_only=True)
class Case:
    """One hostile peer. `joined`: it begins with a good SETUP, and `chunks` come after that."""

    rule: str
    chunks: Callable[[], Iterable[bytes]]
    fate: Fate = Fate.EITHER
    joined: bool = True
    reads: bool = True
    """Whether it reads what comes back."""
    routes: bool = True
    """Whether it is for servers that serve requests only."""
    growth: int = 2 * MESSAGE + 32 * MIB
    """What it may have the server use, at its height, in bytes: less than it sends, where it sends much."""


def _fragments(stream: int, size: int, *, begin: bool = True) -> Iterator[bytes]:
    if begin:
        yield wire.frame(stream, wire.REQUEST_RESPONSE, wire.FOLLOWS, b"begin")
    piece = wire.payload(stream, bytes(MIB), follows=True)
    for _ in range(size // MIB):
        yield piece


def _fragments_of_many(streams: int, size: int) -> Iterator[bytes]:
    for stream in range(1, 2 * streams, 2):
        yield wire.frame(stream, wire.REQUEST_RESPONSE, wire.FOLLOWS, b"begin")
    part = bytes(size // streams // 8)
    for _ in range(8):
        for stream in range(1, 2 * streams, 2):
            yield wire.payload(stream, part, follows=True)


def _metadata_fragments(size: int) -> Iterator[bytes]:
    piece = bytes(MIB)
    yield wire.frame(1, wire.REQUEST_FNF, wire.FOLLOWS | wire.METADATA, len(piece).to_bytes(3, "big") + piece)
    for _ in range(size // MIB):
        yield wire.payload(1, b"", piece, follows=True)


def _random(count: int, size: int) -> Iterator[bytes]:
    chance = random.Random(SEED)
    for _ in range(count):
        yield chance.randbytes(chance.randrange(1, size))


def _random_frames(count: int) -> Iterator[bytes]:
    chance = random.Random(SEED + 1)
    for _ in range(count):
        stream = chance.choice((0, 1, 2, 3, 5, 0x7FFFFFFF, 0x80000001))
        yield wire.frame(stream, chance.randrange(64), chance.randrange(1024), chance.randbytes(chance.randrange(60)))


def _batches(frames: Iterable[bytes], size: int = 1000) -> Iterator[bytes]:
    """Frames joined into chunks: one write each would be slow."""
    source = iter(frames)
    while batch := list(itertools.islice(source, size)):
        yield b"".join(batch)


def _beyond_credit() -> Iterator[bytes]:
    yield wire.request(wire.REQUEST_CHANNEL, 1, b"", wire.routed("probe.wait"), n=1)
    yield wire.request(wire.REQUEST_CHANNEL, 3, b"", wire.routed("echo.channel"), n=1)
    piece = wire.payload(3, bytes(64 * 1024))
    yield from (piece * 16 for _ in range(FLOOD // MIB))


def _open_streams(kind: int, route: str, count: int) -> Iterator[bytes]:
    n = 1 if kind in wire.WITH_CREDIT else None
    metadata = wire.routed(route)
    return _batches(wire.request(kind, stream, b"1", metadata, n=n) for stream in range(1, 2 * count, 2))


def _channels_full(count: int) -> Iterator[bytes]:
    """Each is given megabytes within its credit, and none asks for what comes back."""
    data = bytes(MIB)
    for stream in range(1, 2 * count, 2):
        yield wire.request(wire.REQUEST_CHANNEL, stream, b"", wire.routed("echo.channel"), n=1)
        yield wire.payload(stream, data) + wire.payload(stream, data)


def _composite(entries: int) -> bytes:
    return wire.request(wire.REQUEST_RESPONSE, 1, b"", b"\x85\x00\x00\x00" * entries)


def _tags(count: int) -> bytes:
    content = b"\x01x" * count
    metadata = b"\x85\x00\x00\x00\xfe" + len(content).to_bytes(3, "big") + content
    return wire.request(wire.REQUEST_RESPONSE, 1, b"", metadata)


def _short(kind: int) -> bytes:
    """A frame of that type that ends before its fixed fields do."""
    return wire.frame(0 if kind in (wire.LEASE, wire.KEEPALIVE, wire.RESUME_OK) else 1, kind, wire.METADATA, b"\x01")


CORPUS: dict[str, Case] = {
    # ---- before SETUP
    "request first": Case(
        rule="Connection Establishment: nothing is served before SETUP",
        chunks=lambda: [wire.echo(1)],
        joined=False,
        fate=Fate.CUT,
        routes=False,
    ),
    "half a megabyte of requests first": Case(
        rule="and no amount of them is kept",
        chunks=lambda: [wire.echo(1, bytes(1000)) * 500],
        joined=False,
        fate=Fate.CUT,
        routes=False,
    ),
    "noise first": Case(
        rule="bytes that are no frames at all",
        chunks=lambda: _random(20, 20_000),
        joined=False,
        routes=False,
    ),
    "HTTP first": Case(
        rule="a browser that has lost its way",
        chunks=lambda: [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + bytes(5_000_000)],
        joined=False,
        fate=Fate.CUT,
        routes=False,
    ),
    "a frame of no bytes first": Case(
        rule="Framing Format: a frame has a header of six bytes at least",
        chunks=lambda: [bytes(12)],
        joined=False,
        fate=Fate.CUT,
        routes=False,
    ),
    "an endless first frame": Case(
        rule="16 MiB are announced as a SETUP: whatever comes, it is no SETUP",
        chunks=lambda: [b"\xff\xff\xff" + wire.setup()[3:], *[bytes(MIB)] * 16],
        joined=False,
        fate=Fate.CUT,
        routes=False,
    ),
    # ---- the connection
    "a second SETUP": Case(
        rule="Handling the Unexpected: ignored, however often",
        chunks=lambda: [wire.setup() * 1000],
        fate=Fate.SERVED,
        routes=False,
    ),
    "frames too short for a header": Case(
        rule="Framing Format: there is no way to go on behind one",
        chunks=lambda: [b"\x00\x00\x02\x00\x00"],
        fate=Fate.CUT,
        routes=False,
    ),
    "noise behind SETUP": Case(rule="bytes that are no frames", chunks=lambda: _random(20, 20_000), routes=False),
    "random frames": Case(
        rule="lengths that are right, and nothing else: every type, any flags, any stream",
        chunks=lambda: _batches(_random_frames(4000), 100),
        routes=False,
    ),
    **{
        f"a {name} that ends too early": Case(
            rule="fixed fields that are not there: the connection is ended, or the frame passed over",
            chunks=lambda kind=kind: [_short(kind)],  # type: ignore[misc]
            routes=False,
        )
        for name, kind in {
            "LEASE": wire.LEASE,
            "KEEPALIVE": wire.KEEPALIVE,
            "REQUEST_STREAM": wire.REQUEST_STREAM,
            "REQUEST_CHANNEL": wire.REQUEST_CHANNEL,
            "REQUEST_N": wire.REQUEST_N,
            "ERROR": wire.ERROR,
            "RESUME_OK": wire.RESUME_OK,
            "EXT": wire.EXT,
        }.items()
    },
    "keepalives without an end": Case(
        rule="KEEPALIVE Frame: each is answered, and answers that are not read are not kept without bound",
        chunks=lambda: [wire.keepalive(bytes(64 * 1024)) * 16] * (FLOOD // MIB),
        reads=False,
        routes=False,
    ),
    "metadata pushes without an end": Case(
        rule="METADATA_PUSH Frame: what nobody handles is not kept",
        chunks=lambda: [wire.frame(0, wire.METADATA_PUSH, wire.METADATA, b"\xff" * 65536) * 16] * (SMALL_FLOOD // MIB),
        growth=SMALL_FLOOD // 2,
        routes=False,
    ),
    "errors without an end": Case(
        rule="Handling the Unexpected: errors for streams that do not exist",
        chunks=lambda: _batches(wire.error(stream, 0x201, bytes(4000)) for stream in range(1, 10_000)),
        growth=SMALL_FLOOD // 2,
        fate=Fate.SERVED,
        routes=False,
    ),
    "cancels without an end": Case(
        rule="Handling the Unexpected: nothing is remembered for them",
        chunks=lambda: _batches(wire.cancel(stream) for stream in range(1, 100_000)),
        fate=Fate.SERVED,
        routes=False,
    ),
    # ---- fragments
    "endless fragments": Case(
        rule="Handling the Unexpected: reassembly must assume an infinite stream: it is given up, not kept",
        chunks=lambda: _fragments(1, FLOOD),
    ),
    "endless fragments of metadata": Case(rule="the same for metadata", chunks=lambda: _metadata_fragments(FLOOD)),
    "endless fragments on many streams": Case(
        rule="parallel streams do not multiply what is kept", chunks=lambda: _fragments_of_many(200, FLOOD)
    ),
    "endless fragments of nothing": Case(
        rule="a thousand messages that never end and have no bytes yet",
        chunks=lambda: _batches(
            frame
            for stream in range(1, 6001, 2)
            for frame in (wire.frame(stream, wire.REQUEST_RESPONSE, wire.FOLLOWS), wire.payload(stream, follows=True))
        ),
    ),
    "fragments on nobody's stream": Case(
        rule="Handling the Unexpected: PAYLOAD on an unknown stream is ignored, with F too",
        chunks=lambda: _fragments(77, SMALL_FLOOD, begin=False),
        growth=SMALL_FLOOD // 2,
        fate=Fate.SERVED,
    ),
    # ---- ids and credit
    "one id again and again": Case(
        rule="Handling the Unexpected: a request on an id in use is ignored",
        chunks=lambda: [wire.request(wire.REQUEST_RESPONSE, 1, b"", wire.routed("echo.never")) * 5000],
        fate=Fate.SERVED,
    ),
    "ids of the server": Case(
        rule="Stream Identifiers: even ids are not the client's to give",
        chunks=lambda: _batches(
            wire.request(wire.REQUEST_RESPONSE, stream, b"", wire.routed("echo.request"))
            for stream in range(2, 2000, 2)
        ),
    ),
    "ids with the reserved bit": Case(
        rule="Frame Header Format: an id has 31 bits",
        chunks=lambda: [wire.request(wire.REQUEST_RESPONSE, 0x80000001, b"", wire.routed("echo.request")) * 100],
    ),
    "credit without an end": Case(
        rule="Reactive Streams Semantics: a hundred times 2^31 - 1 is still only endless",
        chunks=lambda: [
            wire.request(wire.REQUEST_STREAM, 1, b"5:1", wire.routed("echo.stream"), n=1),
            wire.request_n(1, wire.MAX_31) * 100,
        ],
        fate=Fate.SERVED,
    ),
    "credit of nothing": Case(
        rule="REQUEST_N Frame: the value must be more than 0",
        chunks=lambda: [
            wire.request(wire.REQUEST_STREAM, 1, b"5:1", wire.routed("echo.stream"), n=0),
            wire.request(wire.REQUEST_STREAM, 3, b"5:1", wire.routed("echo.stream"), n=1),
            wire.request_n(3, 0) * 100,
        ],
        fate=Fate.SERVED,
    ),
    "payloads beyond credit": Case(
        rule="Reactive Streams Semantics: a requester that sends what nobody asked for does not fill memory",
        chunks=_beyond_credit,
    ),
    # ---- work
    "requests that are never answered": Case(
        rule="a client may have only so many of them",
        chunks=lambda: _open_streams(wire.REQUEST_RESPONSE, "echo.never", 20_000),
    ),
    "streams that are never drained": Case(
        rule="so many streams, each waiting for credit",
        chunks=lambda: _open_streams(wire.REQUEST_STREAM, "probe.flow", 5000),
    ),
    "channels that are full": Case(
        rule="payloads within credit, for answers that nobody asks for: those that wait to be handled and those that "
        "wait to be sent have a bound each",
        chunks=lambda: _channels_full(160),
        growth=4 * MESSAGE + 32 * MIB,
    ),
    "large requests that are never answered": Case(
        rule="a request that is being served is held, and only so much of that",
        chunks=lambda: (
            wire.request(wire.REQUEST_RESPONSE, stream, bytes(MIB), wire.routed("echo.never"))
            for stream in range(1, 2 * FLOOD // MIB, 2)
        ),
    ),
    "a reader that never reads": Case(
        rule="answers are made no faster than they are taken",
        chunks=lambda: [
            wire.request(wire.REQUEST_STREAM, 1, b"100000:65536", wire.routed("echo.stream"), n=wire.MAX_31)
        ],
        reads=False,
    ),
    "millions of metadata entries": Case(
        rule="Composite Metadata: any number of entries, in one message, in one frame: the search for a route among "
        "them ends before anybody else has to wait for it",
        chunks=lambda: [_composite(4_000_000)],
        fate=Fate.SERVED,
    ),
    "millions of routing tags": Case(
        rule="Routing: the same for tags",
        chunks=lambda: [_tags(8_000_000)],
        fate=Fate.SERVED,
    ),
    "the largest credit for an endless stream": Case(
        rule="one client's stream does not keep others waiting",
        chunks=lambda: [wire.request(wire.REQUEST_STREAM, 1, b"", wire.routed("probe.flow"), n=wire.MAX_31)],
        reads=False,
    ),
    "a number where there is none": Case(
        rule="requests whose data are not what they should be",
        chunks=lambda: [
            wire.request(wire.REQUEST_RESPONSE, 1, b"NaN", wire.routed("echo.slow")),
            wire.request(wire.REQUEST_STREAM, 3, b"-1:-1", wire.routed("echo.stream"), n=1),
            wire.request(wire.REQUEST_STREAM, 5, b"", wire.routed("echo.stream"), n=1),
            struct.pack(">BHIH", 0, 6, 7, wire.REQUEST_RESPONSE << 10),
        ],
        fate=Fate.SERVED,
    ),
}
