"""The two directions of re-framing, held against the library that does all of it by itself, only slower."""

import os
import random
import struct
from collections.abc import Callable, Iterator

import pytest
from websockets.frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, Close, CloseCode, Frame, Opcode
from websockets.protocol import CLIENT, SERVER, Protocol

from rsocket_broker.transports.websocket_frames import MAX_MESSAGE, Framing
from tests.transports.recording import framed

LIMIT = 70_000


def server(limit: int = LIMIT) -> Framing:
    return Framing(Protocol(SERVER, max_size=limit), limit)


def client(limit: int = LIMIT) -> Framing:
    return Framing(Protocol(CLIENT, max_size=limit), limit)


def sent(opcode: Opcode, data: bytes = b"", *, fin: bool = True, mask: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=mask)


def binary(data: bytes, *, fin: bool = True) -> bytes:
    return sent(BINARY, data, fin=fin)


def frames(data: bytes, side: object = CLIENT) -> list[Frame]:
    """What the library of the other side reads."""
    reader = Protocol(side, max_size=None)  # type: ignore[arg-type]
    reader.receive_data(data)
    assert reader.parser_exc is None
    return [event for event in reader.events_received() if isinstance(event, Frame)]


def fed(framing: Framing, data: bytes, size: int | None = None) -> bytes:
    step = size or max(1, len(data))
    return b"".join(framing.receive(memoryview(data)[start : start + step]) for start in range(0, len(data), step))


@pytest.mark.parametrize("size", [0, 1, 5, 125, 126, 127, 0xFFFF, 0x1_0000])
@pytest.mark.parametrize("step", [None, 1, 3, 4096])
def test_messages_of_every_length_form_become_frames_behind_their_length(size: int, step: int | None) -> None:
    if step == 1 and size > 200:
        step = 1000
    payload = os.urandom(size)
    framing = server()
    assert fed(framing, binary(payload) + binary(b"next"), step) == framed(payload, b"next")
    assert not framing.irregular
    assert fed(client(), sent(BINARY, payload, mask=False), step) == framed(payload)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 0xFFFF, 0x1_0000])
@pytest.mark.parametrize(("make", "reads"), [(server, CLIENT), (client, SERVER)])
def test_frames_become_messages(size: int, make: Callable[[], Framing], reads: object) -> None:
    payload = os.urandom(size)
    told = frames(make().send([framed(payload), framed(b"next")]), reads)
    assert [(frame.opcode, frame.fin, bytes(frame.data)) for frame in told] == [
        (BINARY, True, payload),
        (BINARY, True, b"next"),
    ]


def test_each_message_of_a_client_has_a_mask_of_its_own() -> None:
    message = client().send([framed(bytes(8), bytes(8))])
    half = len(message) // 2
    assert message[2:6] != message[half + 2 : half + 6]


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_an_rsocket_frame_in_pieces_waits_for_its_end(step: int) -> None:
    framing, stream = server(), framed(b"first", b"", b"second")
    written = b""
    for start in range(0, len(stream), step):
        written += framing.send([stream[start : start + step]])
    assert framing.unsent == 0
    assert [bytes(frame.data) for frame in frames(written)] == [b"first", b"", b"second"]
    assert framing.send([framed(b"part")[:5]]) == b""
    assert framing.unsent == 5


def test_fragments_are_put_together_and_pings_between_them_answered() -> None:
    framing = server()
    stream = binary(b"one ", fin=False) + sent(PING, b"there?") + sent(CONT, b"two", fin=False) + sent(CONT)
    assert fed(framing, stream + binary(b"whole")) == framed(b"one two", b"whole")
    (pong,) = frames(framing.replies(pongs=True))
    assert (pong.opcode, bytes(pong.data)) == (PONG, b"there?")
    assert fed(framing, binary(b"", fin=False) + sent(CONT, b"three"), 1) == framed(b"three")


def test_of_many_pings_the_last_is_answered_or_none() -> None:
    framing = server()
    framing.receive(b"".join(sent(PING, b"%d" % number) for number in range(100)))
    (pong,) = frames(framing.replies(pongs=True))
    assert bytes(pong.data) == b"99"
    framing.receive(sent(PING, b"once more") + sent(PONG, b"unasked"))
    assert framing.irregular
    assert framing.replies(pongs=False) == b""
    assert not framing.irregular


def broken(data: bytes, framing: Framing | None = None, step: int | None = None) -> tuple[bytes, int, str]:
    """What came up before the end, the close code that goes out, and what is told."""
    framing = framing or server()
    stream = fed(framing, data, step)
    assert framing.broken
    close = Close.parse(frames(framing.replies(pongs=True))[-1].data)
    assert framing.receive(binary(b"more")) == b"", "what follows is not looked at"
    return stream, close.code, framing.broken


@pytest.mark.parametrize("step", [None, 1])
def test_a_peer_that_breaks_the_rules_is_told_which(step: int | None) -> None:
    good = binary(b"good")
    violations: list[tuple[bytes, int]] = [
        (sent(TEXT, b"words"), CloseCode.UNSUPPORTED_DATA),
        (sent(TEXT, b"wor", fin=False), CloseCode.UNSUPPORTED_DATA),
        (sent(BINARY, b"bare", mask=False), CloseCode.PROTOCOL_ERROR),
        (sent(CONT, b"of nothing"), CloseCode.PROTOCOL_ERROR),
        (binary(b"one", fin=False) + binary(b"two"), CloseCode.PROTOCOL_ERROR),
        (bytes((0xC2, 0x80)) + bytes(4), CloseCode.PROTOCOL_ERROR),
        (bytes((0x83, 0x80)) + bytes(4), CloseCode.PROTOCOL_ERROR),
        (bytes((0x09, 0x80)) + bytes(4), CloseCode.PROTOCOL_ERROR),
        (bytes((0x89, 0xFE, 0, 126)) + bytes(130), CloseCode.PROTOCOL_ERROR),
        (sent(CLOSE, b"\x03"), CloseCode.PROTOCOL_ERROR),
        (sent(CLOSE, b"\x03\xe8\xff"), CloseCode.INVALID_DATA),
    ]
    for data, code in violations:
        stream, said, why = broken(good + data + good, step=step)
        assert (stream, said) == (framed(b"good"), code), why


@pytest.mark.row("A-31")
def test_a_message_beyond_the_limit_is_refused_at_its_header() -> None:
    for header in (struct.pack("!BBQ", 0x82, 0xFF, LIMIT + 1), struct.pack("!BBQ", 0x82, 0xFF, 2**63)):
        stream, code, _ = broken(binary(bytes(LIMIT)) + header + bytes(4))
        assert (stream, code) == (framed(bytes(LIMIT)), CloseCode.MESSAGE_TOO_BIG)
    parts = (
        binary(bytes(LIMIT // 2), fin=False) + sent(CONT, bytes(LIMIT // 2), fin=False) + sent(CONT, b"x", fin=False)
    )
    assert broken(parts)[:2] == (b"", CloseCode.MESSAGE_TOO_BIG)
    assert MAX_MESSAGE == 2**24 - 1


def test_a_goodbye_of_the_peer_is_returned_once() -> None:
    framing = server()
    assert fed(framing, binary(b"last") + sent(CLOSE, b"\x03\xe9") + binary(b"late")) == framed(b"last")
    assert framing.finished and framing.broken is None
    (close,) = frames(framing.replies(pongs=True))
    assert Close.parse(close.data).code == CloseCode.GOING_AWAY
    assert framing.goodbye() == b""


def test_our_own_goodbye_is_said_once_and_the_answer_is_the_end() -> None:
    framing = server()
    (close,) = frames(framing.goodbye())
    assert Close.parse(close.data).code == CloseCode.NORMAL_CLOSURE
    assert framing.goodbye() == b""
    assert fed(framing, binary(b"crossed") + sent(CLOSE, b"\x03\xe8")) == framed(b"crossed")
    assert framing.finished


def mixture(draw: random.Random) -> Iterator[bytes]:
    """Frames of every sort, most of them whole messages, sometimes with a byte changed."""
    in_fragments = False
    for _ in range(draw.randrange(1, 12)):
        data = draw.randbytes(draw.choice([0, 1, 5, 125, 126, 200, 0xFFFF] if draw.random() < 0.3 else [0, 1, 5, 30]))
        kind = draw.choice(["whole"] * 6 + ["part", "part", "ping", "pong", "close", "text"])
        if kind == "part":
            fin = draw.random() < 0.5
            frame = sent(CONT if in_fragments else BINARY, data, fin=fin)
            in_fragments = not fin
        elif kind in ("ping", "pong", "close"):
            body = b"" if kind == "close" else data[:100]
            frame = sent({"ping": PING, "pong": PONG, "close": CLOSE}[kind], body)
        else:
            whole = draw.choice([LIMIT, LIMIT + 1]) if draw.random() < 0.03 else 0
            frame = sent(TEXT, b"a") if kind == "text" and draw.random() < 0.2 else binary(data or bytes(whole))
        if draw.random() < 0.05:
            place = draw.randrange(min(len(frame), 14))
            frame = frame[:place] + draw.randbytes(1) + frame[place + 1 :]
        yield frame


def by_the_library(data: bytes) -> tuple[list[bytes], bool, bool]:
    """The messages, whether the peer said goodbye, and whether it broke the rules, as the library alone sees it."""
    protocol, messages, parts = Protocol(SERVER, max_size=LIMIT), [], bytearray()
    protocol.receive_data(data)
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if event.opcode is TEXT:
            return messages, False, True
        if event.opcode is CLOSE:
            return messages, True, protocol.parser_exc is not None
        if event.opcode in (BINARY, CONT):
            parts += event.data
            if event.fin:
                messages.append(bytes(parts))
                parts.clear()
    if "incomplete fragmented message" in str(protocol.parser_exc):
        return messages, True, False  # a goodbye in the middle of a message, which the library counts as a fault
    return messages, False, protocol.parser_exc is not None


@pytest.mark.long
def test_any_bytes_are_understood_as_the_library_understands_them(portion: Callable[[int], list[int]]) -> None:
    for case in portion(3000):
        draw = random.Random(case)
        data = b"".join(mixture(draw))
        messages, finished, wrong = by_the_library(data)
        framing = server()
        step = draw.choice([len(data), 1, 2, 7, 1000]) if len(data) < 5000 else draw.choice([len(data), 999, 65_536])
        stream = fed(framing, data, step)
        assert stream == framed(*messages), case
        if framing.broken and not wrong:  # seen at a header whose frame the library first reads to its end
            messages, finished, wrong = by_the_library(data + bytes(2 * LIMIT))
        assert (framing.finished, framing.broken is not None) == (finished, wrong), case
