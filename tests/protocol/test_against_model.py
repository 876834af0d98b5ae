"""Random sequences, legal and illegal: the engine does what the slow and obvious model does, however bytes are cut."""

import itertools
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsocket_broker.errors import ProtocolViolation
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.codes import Interaction
from rsocket_broker.protocol.events import (
    AnswersReceived,
    CancelReceived,
    ConnectionEnded,
    ErrorReceived,
    Event,
    MetadataPushReceived,
    PayloadReceived,
    RequestNReceived,
    RequestReceived,
)
from rsocket_broker.protocol.limits import Limits
from rsocket_broker.protocol.protocol import Protocol
from tests.playbook import IGNORE, C, F, Frame, M, N, Playbook, u32, wire, with_metadata
from tests.protocol import model as m
from tests.protocol.model import Illegal, Incoming, Model

LIMITS = Limits(frame=1800, message=1800, streams=3)
"""Small enough that random sequences run into them."""


def encoded(frame: Incoming) -> bytes:
    """The frame on the wire; a broken one ends where its first number, or its metadata, is not yet whole."""
    body = b""
    if frame.kind in (m.STREAM, m.CHANNEL, m.REQUEST_N):
        body = u32(frame.n)
    elif frame.kind == m.ERROR:
        body = u32(frame.code)
    elif frame.kind == m.KEEPALIVE:
        body = bytes(8)
    flags = frame.flags
    if frame.metadata is not None:
        flags |= M
        body += b"\x00\xff\xff" if frame.broken else with_metadata(frame.metadata, frame.data)
    elif frame.broken:
        body = body[:2]
    elif frame.kind not in (m.REQUEST_N, m.CANCEL):
        body += frame.data
    return wire(frame.kind, frame.stream_id, body, flags)


WITH_METADATA = {m.RESPONSE, m.FIRE, m.STREAM, m.CHANNEL, m.PAYLOAD}
BREAKABLE = {m.STREAM, m.CHANNEL, m.REQUEST_N, m.ERROR, m.KEEPALIVE}
REQUESTS = [m.RESPONSE, m.FIRE, m.STREAM, m.CHANNEL, m.CHANNEL]
ON_STREAMS = [m.PAYLOAD, m.PAYLOAD, m.PAYLOAD, m.PAYLOAD, m.REQUEST_N, m.CANCEL, m.ERROR, m.RESPONSE, m.CHANNEL]
ON_ZERO = [m.KEEPALIVE, m.KEEPALIVE, m.METADATA_PUSH, m.SETUP, m.RESUME_OK, m.ERROR, 0x3F, 0x2A]
FLAGS = [0, N, N, N, C, N | C, F, N | F, N | F, C | F, N | C | F]
DATA = [b"", b"a", b"bcd", b"x" * 900]
NUMBERS = [1, 1, 1, 2, 3, 2**31 - 1]


def incoming(dice: Random, live: list[int]) -> Incoming:
    """A frame of the peer: mostly one that means something to a stream that is open, sometimes sheer nonsense."""
    where = dice.random()
    if where < 0.7 and live:
        kind, sid = dice.choice(ON_STREAMS), dice.choice(live)
    elif where < 0.95:
        kind, sid = dice.choice(REQUESTS), dice.randrange(1, 12)
    else:
        kind, sid = dice.choice(ON_ZERO), 0 if dice.random() < 0.8 else dice.randrange(12)
    if dice.random() < 0.03:
        sid = dice.randrange(12)
    may_be_ignored = kind == m.SETUP or dice.random() < (0.7 if kind > m.RESUME_OK else 0.1)
    flags = (0 if kind in (m.SETUP, m.RESUME_OK) else dice.choice(FLAGS)) | (IGNORE if may_be_ignored else 0)
    metadata = dice.choice([None, None, b"", b"meta"]) if kind in WITH_METADATA else None
    broken = dice.random() < 0.01 and (metadata is not None or kind in BREAKABLE)
    return Incoming(
        kind,
        sid,
        flags,
        n=0 if dice.random() < 0.05 else dice.choice(NUMBERS),
        code=m.INVALID if sid else dice.choice([m.CONNECTION_CLOSE, m.CONNECTION_CLOSE, m.CONNECTION_ERROR, 0x3]),
        metadata=metadata,
        data=b"" if kind == m.KEEPALIVE and broken else dice.choice(DATA),
        broken=broken,
    )


def both(real: Callable[[], object], obvious: Callable[[], object]) -> None:
    """Either both do it, or both say that it is not allowed."""
    try:
        obvious()
    except Illegal:
        with pytest.raises(ProtocolViolation):
            real()
    else:
        real()


def wish(dice: Random, protocol: Protocol, model: Model) -> str:
    """What an application does, done to both."""
    sid = dice.choice([*model.streams, *model.streams, 5, 6])
    n, data, complete = dice.choice(NUMBERS), dice.choice(DATA), dice.random() < 0.3
    kind = dice.choice(["ask", "answer", "answer", "answer", "fail", "grant", "grant", "cancel"])
    if kind == "ask":
        if not model.leaving and not model.over:
            interaction = Interaction(dice.choice(REQUESTS))
            last = complete and interaction is Interaction.REQUEST_CHANNEL
            counted = n if interaction in (Interaction.REQUEST_STREAM, Interaction.REQUEST_CHANNEL) else 0
            given = protocol.request(interaction, data, None, counted, complete=last)
            model.ask(given, int(interaction), counted, data, last)
    elif kind == "answer":
        has_next = not complete or dice.random() < 0.5
        content = data if has_next else b""
        both(
            lambda: protocol.send_payload(sid, content, None, next=has_next, complete=complete),
            lambda: model.answer(sid, content, has_next, complete),
        )
    elif kind == "fail":
        if dice.random() < 0.4:
            both(lambda: protocol.send_error(sid, 0x201, ""), lambda: model.fail(sid, 0x201))
    elif kind == "grant":
        both(lambda: protocol.send_request_n(sid, n), lambda: model.grant(sid, n))
    elif dice.random() < 0.4:
        both(lambda: protocol.send_cancel(sid), lambda: model.cancel(sid))
    return f"{kind} on {sid}"


def plain(event: Event) -> tuple[object, ...]:
    """An event as the model writes it."""
    match event:
        case RequestReceived(sid, interaction, data, metadata, n, complete):
            return "request", sid, int(interaction), data, metadata, n, complete
        case PayloadReceived(sid, data, metadata, has_next, complete):
            return "payload", sid, data, metadata, has_next, complete
        case RequestNReceived(sid, n):
            return "request-n", sid, n
        case CancelReceived(sid):
            return "cancel", sid
        case ErrorReceived(sid, code, _):
            return "error", sid, code
        case MetadataPushReceived(metadata):
            return "push", metadata
        case ConnectionEnded(code, _, by_peer):
            return "end", code, by_peer
    raise AssertionError(event)


def written(frame: Frame) -> tuple[object, ...]:
    """A frame that went out as the model writes it."""
    kind, sid, flags, body = frame
    if kind in (m.RESPONSE, m.FIRE):
        return "request", kind, sid, 0, body, bool(flags & C)
    if kind in (m.STREAM, m.CHANNEL):
        return "request", kind, sid, int.from_bytes(body[:4], "big"), body[4:], bool(flags & C)
    if kind == m.PAYLOAD:
        return "payload", sid, body, bool(flags & N), bool(flags & C)
    if kind == m.ERROR:
        return "error", sid, frame.error_code
    if kind == m.REQUEST_N:
        return "request-n", sid, int.from_bytes(body, "big")
    if kind == m.CANCEL:
        return "cancel", sid
    assert kind == m.KEEPALIVE and not flags and not sid
    return "keepalive", body[8:]


@pytest.mark.row("A-35", "A-37")
@settings(max_examples=600, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 60), is_server=st.booleans())
def test_the_engine_does_what_the_model_does(seed: int, length: int, is_server: bool) -> None:
    """A failure shrinks to the first step that differs; `seed` and `length` bring it back."""
    dice = Random(seed)
    play = Playbook.server(LIMITS) if is_server else Playbook.client(LIMITS)
    model = Model(is_server, LIMITS.streams, LIMITS.message)
    for _ in range(length):
        step: object
        if dice.random() < 0.6:
            step = frames = [incoming(dice, list(model.streams)) for _ in range(dice.choice([1, 1, 1, 2, 5]))]
            for frame in frames:
                model.hear(frame)
            feed(play, b"".join(map(encoded, frames)), [dice.randrange(1000) for _ in range(dice.randrange(4))])
        else:
            step = wish(dice, play.protocol, model)
        assert [plain(event) for event in play.events()] == model.happened, step
        assert [written(frame) for frame in play.sent()] == model.sent, step
        assert play.protocol.closed == model.over
        assert play.protocol.streams == len(model.streams)
        assert all(play.protocol.credit(sid) == one.credit for sid, one in model.streams.items() if one.begun)
        assert all(play.protocol.granted(sid) == one.granted for sid, one in model.streams.items() if one.counts())
        model.happened.clear()
        model.sent.clear()


def feed(play: Playbook, data: bytes, cut_at: list[int]) -> None:
    places = sorted({min(place, len(data)) for place in cut_at} | {0, len(data)})
    for begin, end in itertools.pairwise(places):
        play >> data[begin:end]


HARMLESS = {m.FIRE, m.STREAM, m.CHANNEL, m.PAYLOAD, m.REQUEST_N, m.KEEPALIVE, m.METADATA_PUSH}
"""What can stand between requests and change no answer, whether it is read before the answer is given or after."""


def answering(play: Playbook, data: bytes) -> None:
    for event in play.protocol.receive_data(data, play.now):
        if isinstance(event, RequestReceived) and event.interaction is Interaction.REQUEST_RESPONSE:
            play.protocol.send_payload(event.stream_id, event.data, event.metadata, complete=True)


@pytest.mark.row("A-37")
@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 60), cut_at=st.lists(st.integers(0, 2000), max_size=8))
def test_the_fast_lane_answers_what_the_long_way_would(seed: int, length: int, cut_at: list[int]) -> None:
    """The same bytes to a server with a fast lane and, frame by frame, to one without: the same on every stream."""
    dice = Random(seed)
    between = (incoming(dice, [3, 5]) for _ in range(length))
    frames = [frame for frame in between if frame.kind in HARMLESS and not frame.broken and dice.random() < 0.5]
    for at in range(length):
        frames.insert(dice.randrange(len(frames) + 1) if dice.random() < 0.1 else len(frames), request(2 * at + 101))
    roomy = Limits(frame=1800, message=1800)
    quick, slow = Playbook.server(roomy), Playbook.server(roomy)
    quick.protocol.answer_at_once = lambda stream_id, data, metadata: Payload(data, metadata)
    wired = list(map(encoded, frames))
    for one in wired:
        answering(slow, one)
    data = b"".join(wired)
    for begin, end in itertools.pairwise(sorted({min(place, len(data)) for place in cut_at} | {0, len(data)})):
        answering(quick, data[begin:end])
    assert by_stream(quick) == by_stream(slow)
    assert quick.protocol.streams == slow.protocol.streams
    assert quick.protocol.frames_in == slow.protocol.frames_in == len(frames) + 1


@pytest.mark.row("A-37")
@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 60), cut_at=st.lists(st.integers(0, 2000), max_size=8))
def test_answers_in_runs_are_what_each_of_them_would_be(seed: int, length: int, cut_at: list[int]) -> None:
    """The same bytes to two servers with requests of their own, one of which takes plain answers in runs."""
    dice = Random(seed)
    quick, slow = Playbook.server(LIMITS), Playbook.server(LIMITS)
    quick.protocol.answers_in_runs = True
    asked = [one for _ in range(length) for one in {play.protocol.ask(b"q") for play in (quick, slow)}]
    frames = [Incoming(m.PAYLOAD, one, N | C, data=dice.choice(DATA)) for one in asked]
    for _ in range(dice.randrange(6)):
        frames.insert(dice.randrange(len(frames) + 1), incoming(dice, asked))
    wired = list(map(encoded, frames))
    for one in wired:
        slow >> one
    data = b"".join(wired)
    for begin, end in itertools.pairwise(sorted({min(place, len(data)) for place in cut_at} | {0, len(data)})):
        quick >> data[begin:end]
    assert [one for event in quick.events() for one in singly(event)] == slow.events()
    assert quick.sent() == slow.sent()
    assert quick.protocol.streams == slow.protocol.streams
    assert quick.protocol._own_streams == slow.protocol._own_streams
    assert quick.protocol.frames_in == slow.protocol.frames_in


def singly(event: Event) -> list[Event]:
    if not isinstance(event, AnswersReceived):
        return [event]
    return [PayloadReceived(stream_id, data, None, True, True) for stream_id, data in event.answers]


def request(stream_id: int) -> Incoming:
    return Incoming(m.RESPONSE, stream_id, data=b"q", metadata=b"route" if stream_id % 3 else None)


def by_stream(play: Playbook) -> dict[int, list[Frame]]:
    found: dict[int, list[Frame]] = {}
    for frame in play.sent():
        found.setdefault(frame.stream_id, []).append(frame)
    return found
