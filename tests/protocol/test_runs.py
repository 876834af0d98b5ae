"""The fast lane: shortcuts are taken for what they are for, and for nothing else."""

from collections.abc import Callable

import pytest

from rsocket_broker.payload import Payload
from rsocket_broker.protocol import runs, starts
from rsocket_broker.protocol.codes import ErrorCode, FrameType, Interaction
from rsocket_broker.protocol.events import ConnectionEnded, RequestReceived
from rsocket_broker.protocol.limits import LIGHT, Limits
from rsocket_broker.protocol.runs import QUICK, Shortcut
from rsocket_broker.protocol.streams import ENOUGH_AT_ONCE, WORTH_A_COPY
from tests.playbook import IGNORE, C, F, M, N, Playbook, wire, with_metadata

CUTS = [starts.cut_in_python, *([] if starts._starts is None else [starts._starts.cut])]
"""The lane is the same whichever cuts the frames."""
ASK, FIRE = FrameType.REQUEST_RESPONSE, FrameType.REQUEST_FNF


def ask(stream_id: int, data: bytes, metadata: bytes | None = None, kind: FrameType = ASK) -> bytes:
    if metadata is None:
        return wire(kind, stream_id, data)
    return wire(kind, stream_id, with_metadata(metadata, data), M)


def answered(stream_id: int, data: bytes) -> bytes:
    return wire(FrameType.PAYLOAD, stream_id, data, N | C)


class Lane:
    """A server whose fast lane is open, and what went through it."""

    def __init__(self) -> None:
        self.play = Playbook.server()
        self.protocol = self.play.protocol
        self.seen: list[object] = []
        self.protocol.answer_at_once = self.general
        self.protocol.finish_answer = self.finish

    def general(self, stream_id: int, data: bytes, metadata: bytes | None) -> Payload:
        self.seen.append(("general", data, metadata))
        return Payload(b"general " + data)

    def finish(self, stream_id: int, found: object) -> Payload | None:
        self.seen.append(("finish", found))
        return found if isinstance(found, Payload) else None

    def noting(self, name: str) -> Shortcut:
        return lambda data: self.seen.append((name, data))

    def saying(self, name: bytes) -> Callable[[bytes], bytes]:
        return lambda data: name + b" " + data


@pytest.fixture(params=CUTS, ids=["python", "compiled"][: len(CUTS)])
def lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Lane:
    monkeypatch.setattr(runs, "cut", request.param)
    return Lane()


def test_each_request_takes_the_shortcut_of_its_metadata(lane: Lane) -> None:
    lane.protocol.shortcuts.calls = {b"one": lane.saying(b"1"), None: lane.saying(b"0"), b"": lane.saying(b"empty")}
    lane.play >> (
        ask(1, b"a", b"one")
        + ask(3, b"b", b"one")
        + ask(5, b"c")
        + ask(7, b"d", b"")
        + ask(9, b"e", b"one and more")
        + ask(11, b"f", b"on")
        + ask(13, b"g", b"one")
    )
    answers = [b"1 a", b"1 b", b"0 c", b"empty d", b"general e", b"general f", b"1 g"]
    for at, answer in enumerate(answers):
        lane.play << answered(2 * at + 1, answer)
    lane.play.quiet()
    assert lane.seen == [("general", b"e", b"one and more"), ("general", b"f", b"on")]
    assert lane.protocol.answered_at_once == 7
    assert lane.protocol.frames_in == 8
    assert lane.protocol.streams == 0


def test_metadata_that_reaches_beyond_its_frame_is_not_mistaken_for_that_of_the_one_before(lane: Lane) -> None:
    """The bytes are those of the metadata that the request before had, but they end in the frame behind."""
    lane.protocol.shortcuts.calls = {b"metadata": lane.saying(b"ok")}
    whole = ask(1, b"", b"metadata")
    short = wire(ASK, 3, with_metadata(b"metadata", b"")[:-4], M)
    lane.play >> whole + short + b"data" + bytes(100)
    lane.play << answered(1, b"ok ")
    lane.play.ends_with(ErrorCode.CONNECTION_ERROR, "metadata")


def test_a_shortcut_that_appears_in_a_run_is_taken_by_the_next_request_in_it(lane: Lane) -> None:
    def general(stream_id: int, data: bytes, metadata: bytes | None) -> Payload:
        lane.protocol.shortcuts.calls[metadata] = lane.saying(b"short")
        return Payload(b"long")

    lane.protocol.answer_at_once = general
    lane.play >> ask(1, b"", b"m") + ask(3, b"", b"m")
    lane.play << answered(1, b"long") << answered(3, b"short ")


def test_forgotten_shortcuts_are_not_taken_by_the_next_read(lane: Lane) -> None:
    lane.protocol.shortcuts.calls[b"m"] = lane.saying(b"short")
    lane.protocol.shortcuts.fires[b"m"] = lane.noting("fired")
    lane.play >> ask(1, b"", b"m") + ask(3, b"", b"m", FIRE)
    lane.protocol.shortcuts.clear()
    lane.play >> ask(5, b"", b"m") + ask(7, b"", b"m", FIRE)
    lane.play << answered(1, b"short ") << answered(5, b"general ")
    lane.play << RequestReceived(7, Interaction.FIRE_AND_FORGET, b"", b"m", 0, False)
    assert lane.seen == [("fired", b""), ("general", b"", b"m")]


@pytest.mark.parametrize("kind", [ASK, FIRE], ids=["calls", "events"])
def test_shortcuts_that_are_emptied_in_a_run_are_not_taken_by_the_next_request_in_it(
    lane: Lane, kind: FrameType
) -> None:
    def forgetting(data: bytes) -> bytes:
        lane.protocol.shortcuts.clear()
        lane.seen.append(("short", data))
        return b"short"

    lane.protocol.shortcuts.calls[b"m"] = lane.protocol.shortcuts.fires[b"m"] = forgetting
    lane.play >> ask(1, b"1", b"m", kind) + ask(3, b"2", b"m", kind) + ask(5, b"3", b"m", kind)
    if kind is ASK:
        lane.play << answered(1, b"short") << answered(3, b"general 2") << answered(5, b"general 3")
        assert lane.seen == [("short", b"1"), ("general", b"2", b"m"), ("general", b"3", b"m")]
    else:
        for stream_id, data in ((3, b"2"), (5, b"3")):
            lane.play << RequestReceived(stream_id, Interaction.FIRE_AND_FORGET, data, b"m", 0, False)
        assert lane.seen == [("short", b"1")]


@pytest.mark.parametrize("found", [Payload(b"p", b"m"), ValueError("no"), None], ids=["payload", "error", "nothing"])
def test_whatever_is_not_bytes_is_finished_by_the_owner(lane: Lane, found: object) -> None:
    lane.protocol.shortcuts.calls[None] = lambda data: found
    lane.play >> ask(1, b"")
    if isinstance(found, Payload):
        lane.play << wire(FrameType.PAYLOAD, 1, with_metadata(b"m", b"p"), M | N | C)
    lane.play.quiet()
    assert lane.seen == ([] if found is None else [("finish", found)] * (not isinstance(found, Payload)))


@pytest.mark.parametrize("size", [WORTH_A_COPY - 7, WORTH_A_COPY - 6, WORTH_A_COPY - 5, 100_000])
def test_answers_of_every_size(lane: Lane, size: int) -> None:
    lane.protocol.shortcuts.calls[None] = lambda data: bytes(size)
    lane.play >> ask(1, b"") + ask(3, b"")
    lane.play << answered(1, bytes(size)) << answered(3, bytes(size))
    assert lane.protocol.frames_out == 2


def test_calls_and_events_that_alternate_stay_in_one_run_and_in_order(lane: Lane) -> None:
    lane.protocol.shortcuts.calls[b"m"] = lambda data: (lane.seen.append(("call", data)), b"")[1]  # type: ignore[func-returns-value]
    lane.protocol.shortcuts.fires |= {b"m": lane.noting("fired"), None: lane.noting("bare")}
    lane.play >> ask(1, b"1", b"m") + ask(3, b"2", b"m", FIRE) + ask(5, b"3", None, FIRE) + ask(7, b"4", b"m")
    assert lane.seen == [("call", b"1"), ("fired", b"2"), ("bare", b"3"), ("call", b"4")]
    assert lane.protocol.answered_at_once == 4


def test_an_event_without_a_shortcut_ends_the_run_and_what_follows_waits_behind_it(lane: Lane) -> None:
    lane.protocol.shortcuts.fires[b"known"] = lane.noting("fired")
    lane.play >> ask(1, b"a", b"known", FIRE) + ask(3, b"b", b"unknown", FIRE) + ask(5, b"c", b"known", FIRE)
    assert lane.seen == [("fired", b"a")]
    for stream_id, data, metadata in ((3, b"b", b"unknown"), (5, b"c", b"known")):
        lane.play << RequestReceived(stream_id, Interaction.FIRE_AND_FORGET, data, metadata, 0, False)
    lane.play >> ask(7, b"d", b"known", FIRE)
    assert lane.seen == [("fired", b"a"), ("fired", b"d")]
    assert lane.protocol.frames_in == 5


@pytest.mark.parametrize("kind", [ASK, FIRE])
@pytest.mark.parametrize("flags", [F, IGNORE | M, C])
def test_a_frame_with_another_flag_goes_the_long_way(lane: Lane, kind: FrameType, flags: int) -> None:
    lane.protocol.shortcuts.calls[b"m"] = lane.saying(b"short")
    lane.protocol.shortcuts.fires[b"m"] = lane.noting("fired")
    lane.play >> wire(kind, 1, with_metadata(b"m", b""), flags)
    assert not lane.seen
    assert lane.protocol.frames_in == 2


@pytest.mark.parametrize("kind", [ASK, FIRE])
def test_what_is_meant_for_another_client_takes_no_shortcut(lane: Lane, kind: FrameType) -> None:
    lane.protocol.shortcuts.fires[b"mine"] = lane.noting("fired")
    lane.protocol.is_addressed = lambda buffer, begin, end: b"client:" in buffer[begin:end]
    lane.play >> ask(1, b"", b"mine", kind) + ask(3, b"", b"client:7", kind)
    assert len(lane.seen) == 1
    lane.play.sent()
    lane.play << RequestReceived(3, Interaction(kind), b"", b"client:7", 0, False)


@pytest.mark.parametrize("kind", [ASK, FIRE])
def test_a_closed_lane_is_not_used(lane: Lane, kind: FrameType) -> None:
    lane.protocol.shortcuts.calls[None] = lane.saying(b"short")
    lane.protocol.shortcuts.fires[None] = lane.noting("fired")
    lane.protocol.answer_at_once = None
    lane.play >> ask(1, b"", None, kind)
    lane.play << RequestReceived(1, Interaction(kind), b"", None, 0, False)


@pytest.mark.parametrize("kind", [ASK, FIRE])
def test_a_large_request_takes_no_shortcut(lane: Lane, kind: FrameType) -> None:
    lane.protocol.shortcuts.calls[None] = lane.saying(b"short")
    lane.protocol.shortcuts.fires[None] = lane.noting("fired")
    lane.play >> ask(1, b"", None, kind) + ask(3, bytes(QUICK), None, kind)
    lane.play.sent()
    lane.play << RequestReceived(3, Interaction(kind), bytes(QUICK), None, 0, False)


def test_a_heavy_request_takes_a_shortcut_and_nothing_else_of_the_lane(lane: Lane) -> None:
    lane.protocol.shortcuts.calls[b"m"] = lambda data: b"%d" % len(data)
    lane.play >> ask(1, bytes(LIGHT), b"m") + ask(3, bytes(LIGHT), b"other") + ask(5, b"", b"m")
    lane.play << answered(1, b"%d" % LIGHT)
    assert [event.stream_id for event in lane.play.events()] == [3, 5]  # type: ignore[union-attr]
    assert not lane.seen


def test_heavy_requests_that_are_answered_later_share_a_budget_in_the_lane_too() -> None:
    play = Playbook.server(Limits(serving=3 * LIGHT))
    waiting = object()
    play.protocol.answer_at_once = lambda stream_id, data, metadata: None
    play.protocol.finish_answer = lambda stream_id, found: (play.protocol.owe(stream_id), None)[1]
    play.protocol.shortcuts.calls[None] = lambda data: waiting
    play >> ask(1, bytes(LIGHT + 1)) + ask(3, b"light") + ask(5, bytes(LIGHT + 1)) + ask(7, bytes(LIGHT + 1))
    (refusal,) = play.sent()
    assert (refusal.stream_id, refusal.error_code) == (7, ErrorCode.REJECTED)
    assert play.protocol.streams == 3
    for stream_id in (1, 3, 5):
        play.protocol.send_payload(stream_id, b"", complete=True)
    play.sent()
    play >> ask(9, bytes(LIGHT + 1)) + ask(11, bytes(LIGHT + 1))
    assert play.protocol.streams == 2
    assert not play.sent()


@pytest.mark.row("A-36")
def test_a_shortcut_that_ends_the_connection_is_the_last_to_be_taken(lane: Lane) -> None:
    lane.protocol.shortcuts.fires[None] = lambda data: (lane.seen.append(data), lane.protocol.close("enough"))
    lane.play >> ask(1, b"1", None, FIRE) + ask(3, b"2", None, FIRE) + ask(5, b"3")
    assert lane.seen == [b"1"]
    assert [type(event) for event in lane.play.events()] == [ConnectionEnded]


def test_shortcuts_stop_when_enough_is_queued(lane: Lane) -> None:
    lane.protocol.shortcuts.calls[None] = lambda data: bytes(ENOUGH_AT_ONCE)
    lane.play >> ask(1, b"") + ask(3, b"")
    assert [event.stream_id for event in lane.play.events()] == [3]  # type: ignore[union-attr]
