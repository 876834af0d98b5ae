"""A line of messages: numbers, limits, silence, and the end. The transport is a recorder that does as it is told."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker import jsontext, messages, pressure
from rsocket_broker.claims import Claims
from rsocket_broker.errors import ApplicationError, ConnectionClosed, Rejected, SetupRefused
from rsocket_broker.messages import (
    NORMAL,
    PING_AFTER,
    POLICY,
    SEARCHED,
    SERVICE_RESTART,
    SILENCE,
    MessageLine,
    number_of,
)
from rsocket_broker.payload import ErrorCode, Payload
from rsocket_broker.protocol.limits import SECURE, Limits
from rsocket_broker.quota import FULL, STEP, Holding, House, Kind
from rsocket_broker.transports.base import Channel, Peer

PEER = Peer("127.0.0.1:40112", Channel.WSS, b"certificate")
SMALL = attrs.evolve(SECURE, streams=2, outgoing=100)


class Letters:
    """A transport of messages that keeps what it is given."""

    def __init__(self) -> None:
        self.peer = PEER
        self.sent: list[bytes] = []
        self.events: list[object] = []
        self.queued = 0
        self.receiver: MessageLine

    def send(self, text: bytes) -> None:
        self.sent.append(text)

    def count_in(self, holding: Holding) -> None:
        """Nothing comes in pieces."""

    def ping(self) -> None:
        self.events.append("ping")

    def pause_reading(self) -> None:
        self.events.append("pause")

    def resume_reading(self) -> None:
        self.events.append("resume")

    def close(self, code: int, reason: str) -> None:
        self.events.append((code, reason))
        asyncio.get_running_loop().call_soon(self.receiver.transport_lost, None)

    def abort(self) -> None:
        self.events.append("abort")
        asyncio.get_running_loop().call_soon(self.receiver.transport_lost, None)


class Steward:
    """Keeps what it is told."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.refusal = refusal
        self.claims: list[Claims] = []
        self.taken: list[bytes] = []
        self.ended: list[ConnectionClosed] = []
        self.work: Awaitable[None] | None = None
        self.failure: BaseException | None = None

    def setup(self, connection: MessageLine, setup: Claims) -> None:
        self.claims.append(setup)
        if self.refusal is not None:
            raise self.refusal

    def fire_and_forget(self, payload: Payload) -> Awaitable[None] | None:
        self.taken.append(bytes(payload.data or b""))
        if self.failure is not None:
            raise self.failure
        return self.work

    def closed(self, error: ConnectionClosed) -> None:
        self.ended.append(error)


class Clock:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def line(steward: Steward, letters: Letters, limits: Limits = SECURE, **options: Any) -> MessageLine:
    made = MessageLine(steward, limits, **options)
    letters.receiver = made
    made.open(PEER, Claims(app="Demo"))
    made.transport_ready(letters)
    return made


# ---- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b'{"id":7,"success":{}}',
        b'{"success":{"id":3},"id":7}',
        b' {\n "id" : 7 }\n',
        b'{"success":null,"id":7,"length":3}',
        b'{"success":1,"id":7.0,"length":3}',
        b'{"error":{"message":"\\"id\\":8}"},"id": 7 }',
    ],
)
def test_an_answer_has_a_number(text: bytes) -> None:
    assert number_of(text) == 7


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"no json",
        b'"id"',
        b'{"id":"7","success":{}}',
        b'{"id":true,"success":{}}',
        b'{"id":7.5,"success":{}}',
        b'{"success":{"id":7}}',
        b'{"error":{"id":7}}',
        b'{"params":{"api":"Network","id":7},"method":"execute"}',
        b'{"method":"execute","params":{"api":"Network","method":"newRequest","params":{"id":7}}}',
    ],
)
def test_anything_else_has_none(text: bytes) -> None:
    assert number_of(text) is None


def test_a_long_answer_is_found_by_its_first_or_last_member_without_a_look_at_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(messages, "parse_bytes", None)
    filler = b'{"id":1,"text":"' + b"x" * SEARCHED + b'"}'
    assert number_of(b'{"id":7,"success":' + filler + b"}") == 7
    assert number_of(b'{"success":' + filler + b',"id":7}') == 7
    assert number_of(b'{"success":' + filler + b',"id":7,"more":1}') is None
    assert number_of(b'{"method":"execute","params":' + filler + b"}") is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | st.sampled_from(['"id":7}', "id", '\\"']),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "a", 'x,"id']), inner, max_size=3)
    ),
    max_leaves=10,
)


@pytest.mark.parametrize("text", [b" " * 50_000_000, b"{" + b" " * 50_000_000, b'{"id":5' + b" " * 50_000_000])
def test_blanks_without_end_hold_nobody_up(text: bytes) -> None:
    blank = messages._FIRST.match(text)  # in time that the length of the message does not enter
    assert blank is None
    assert number_of(text) is None
    assert number_of(b'{\n    "id" : 5 ,\n"success":{} }') == 5


@given(st.dictionaries(st.sampled_from(["id", "success", 'x,"id', "a"]), json_values, max_size=4))
def test_it_is_the_number_that_a_parser_finds(message: dict[str, Any]) -> None:
    number = message.get("id")
    expected = number if isinstance(number, int) and not isinstance(number, bool) else None
    assert number_of(jsontext.dump(message)) == expected


# ---- asking ---------------------------------------------------------------------------------------------------------


async def test_answers_find_their_questions_by_number() -> None:
    steward, letters = Steward(), Letters()
    made = line(steward, letters)
    first = asyncio.ensure_future(made.request_response(Payload(b'{"id":0,"method":"a"}', None), 5))
    second = asyncio.ensure_future(made.request_response(Payload(b'{"id":1,"method":"b"}', None), 5))
    await asyncio.sleep(0)
    made.message_received(b'{"id":9,"success":"of an older line"}')
    made.message_received(b'{"id":1,"success":2}')
    made.message_received(b'{"success":1,"id":0}')
    assert (await second).data == b'{"id":1,"success":2}'
    assert (await first).data == b'{"success":1,"id":0}'
    assert letters.sent == [b'{"id":0,"method":"a"}', b'{"id":1,"method":"b"}']
    assert not steward.taken
    assert made.streams_open == 0
    await made.close()


async def test_a_question_that_is_never_answered_ends_in_time_and_costs_nothing_else() -> None:
    made = line(Steward(), Letters())
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        await made.request_response(Payload(b'{"id":3,"method":"a"}', None), 0.01)
    made.message_received(b'{"id":3,"success":"too late"}')
    assert made.closing is None
    assert made.streams_open == 0
    await made.close()


async def test_questions_are_bounded_and_need_a_number_of_their_own() -> None:
    made = line(Steward(), Letters(), SMALL)
    made.ask(b'{"id":1,"method":"a"}', None, None)
    with pytest.raises(ApplicationError, match="number"):
        made.ask(b'{"id":1,"method":"a"}', None, None)
    with pytest.raises(ApplicationError, match="number"):
        made.ask(b'{"method":"a"}', None, None)
    with pytest.raises(ApplicationError, match="nothing else"):
        made.ask(b'{"id":5}', b"route", None)
    _, answer = made.ask(b'{"id":2,"method":"a"}', None, None, about="this")
    assert made.asked() == [(answer, "this")]
    with pytest.raises(Rejected, match="2 answers"):
        made.ask(b'{"id":3,"method":"a"}', None, None)
    made.unask(-1)
    made.unask(2)
    made.ask(b'{"id":3,"method":"a"}', None, None)
    await made.close()


async def test_what_messages_cannot_say_is_refused_in_words() -> None:
    made = line(Steward(), Letters())
    calls = (
        lambda: made.request_stream(Payload(b"{}", None)),
        lambda: made.request_channel(Payload(b"{}", None), None),  # type: ignore[arg-type]
        lambda: made.metadata_push(b"x"),
        lambda: made.fire_and_forget(Payload(b"{}", b"route")),
    )
    for call in calls:
        with pytest.raises(ApplicationError, match="nothing else"):
            call()
    await made.close()


async def test_a_peer_that_does_not_read_is_sent_no_more_than_may_wait() -> None:
    letters = Letters()
    made = line(Steward(), letters, SMALL)
    letters.queued = 101
    made.writing_paused()
    assert letters.events == ["pause"]
    assert not made.may_ask
    with pytest.raises(Rejected, match="does not read"):
        made.fire_and_forget(Payload(b"{}", None))
    waiting = asyncio.ensure_future(made.drain())
    with pytest.raises(TimeoutError):
        await made.wait_to_ask(0.01)
    letters.queued = 0
    made.writing_resumed()
    await waiting
    assert letters.events == ["pause", "resume"]
    made.fire_and_forget(Payload(b"{}", None))
    with pytest.raises(Rejected, match="bytes"):
        made.fire_and_forget(Payload(bytes(SMALL.message + 1), None))
    await made.close()


# ---- messages of the peer -------------------------------------------------------------------------------------------


async def test_messages_go_to_the_responder_in_order_or_to_its_shortcut() -> None:
    steward = Steward()
    made = line(steward, Letters())
    made.message_received(b'{"method":"refreshPlugins"}')
    taken: list[bytes] = []
    made.shortcuts.fires[None] = taken.append
    made.message_received(b'{"method":"execute","params":{}}')
    assert steward.taken == [b'{"method":"refreshPlugins"}']
    assert taken == [b'{"method":"execute","params":{}}']
    assert made.requests_served == made.frames_in == 2
    await made.close()


async def test_a_failure_with_one_message_is_logged_and_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    steward = Steward()
    made = line(steward, Letters())
    steward.failure = Rejected("told already")
    made.message_received(b"1")
    assert not caplog.records
    steward.failure = ZeroDivisionError("a bug")
    made.message_received(b"2")
    assert "a bug" in caplog.text

    async def late() -> None:
        raise ZeroDivisionError("a late bug")

    steward.failure, steward.work = None, late()
    made.message_received(b"3")
    await made.drain_requests(5)
    assert "a late bug" in caplog.text
    assert made.closing is None
    made.message_received(b"4")
    assert steward.taken == [b"1", b"2", b"3"]
    await made.close()


# ---- who comes, and the end -----------------------------------------------------------------------------------------


async def test_who_is_refused_is_heard_of_once_and_sent_nothing() -> None:
    steward = Steward(SetupRefused("The field app is missing."))
    made = MessageLine(steward)
    with pytest.raises(SetupRefused):
        made.open(PEER, Claims())
    assert [(each.public, each.code) for each in steward.ended] == [
        ("The field app is missing.", ErrorCode.REJECTED_SETUP)
    ]
    assert (await made.wait_closed()).public == "The field app is missing."


async def test_what_is_sent_before_the_line_is_ready_goes_first() -> None:
    letters = Letters()
    made = MessageLine(Steward())
    letters.receiver = made
    made.open(PEER, Claims())
    made.fire_and_forget(Payload(b"1", None))
    assert made.bytes_waiting == 1
    made.transport_ready(letters)
    made.fire_and_forget(Payload(b"2", None))
    assert letters.sent == [b"1", b"2"]
    assert made.certificate == b"certificate"
    await made.close()


async def test_a_line_that_ends_before_it_is_ready_is_cut() -> None:
    letters = Letters()
    made = MessageLine(Steward())
    letters.receiver = made
    made.open(PEER, Claims())
    await made.close("not now")
    made.transport_ready(letters)
    assert letters.events == ["abort"]


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (lambda made: made.close("the broker stops"), (SERVICE_RESTART, "the broker stops")),
        (lambda made: made.close("replaced", ErrorCode.CONNECTION_ERROR), (NORMAL, "replaced")),
    ],
)
async def test_the_close_code_says_whether_to_come_back(end: Any, told: tuple[int, str]) -> None:
    steward, letters = Steward(), Letters()
    made = line(steward, letters)
    _, answer = made.ask(b'{"id":1}', None, None)
    lost: list[object] = []
    made.when_lost(lost.append)
    await end(made)
    assert letters.events == [told]
    assert [each.public for each in steward.ended] == [told[1]]
    with pytest.raises(ConnectionClosed, match=told[1]):
        await answer
    with pytest.raises(ConnectionClosed):
        made.fire_and_forget(Payload(b"{}", None))
    with pytest.raises(ConnectionClosed):
        await made.drain()
    assert lost == [made]
    assert made.certificate is None


async def test_who_is_expelled_gets_nothing_more_and_nothing_more_of_it_is_taken() -> None:
    steward, letters = Steward(), Letters()
    made = line(steward, letters)
    made.ask(b'{"id":1}', None, None)
    assert made.expel("its certificate was revoked") == 1
    assert letters.events == [(POLICY, "its certificate was revoked")]
    made.message_received(b"{}")
    assert not steward.taken
    await made.wait_closed()


async def test_a_peer_that_does_not_say_goodbye_is_cut_after_the_grace() -> None:
    letters = Letters()
    made = line(Steward(), letters)
    letters.close = lambda code, reason: letters.events.append(code)  # type: ignore[method-assign]
    await made.close("over", grace=0.01)
    assert letters.events == [SERVICE_RESTART, "abort"]


async def test_a_peer_that_says_goodbye_has_left_at_once() -> None:
    steward, letters = Steward(), Letters()
    made = line(steward, letters)
    made.eof_received()
    assert [each.public for each in steward.ended] == ["the client has said goodbye"]
    made.transport_lost(OSError("later"))
    assert len(steward.ended) == 1


# ---- silence --------------------------------------------------------------------------------------------------------


class Alarm:
    """The loop's `call_later`, rung by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
        self.clock = clock
        self.delay = 0.0
        self.action: Any = None
        self.set_off = asyncio.get_running_loop().call_later
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", self.call_later)

    def call_later(self, delay: float, action: Any, *arguments: Any) -> asyncio.TimerHandle:
        self.delay, self.action = delay, action
        return self.set_off(1000, lambda: None)

    def ring(self, late: float = 0.0) -> None:
        self.clock.now += self.delay + late
        self.action()


async def test_a_silent_client_is_asked_for_a_sign_of_life_and_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, letters, steward = Clock(), Letters(), Steward()
    alarm = Alarm(monkeypatch, clock)
    made = line(steward, letters, clock=clock)
    assert alarm.delay == PING_AFTER
    clock.now += 10
    made.heard(3)
    clock.now -= 10
    alarm.ring()
    assert not letters.events  # it was heard 20 s ago
    alarm.ring()
    alarm.ring()
    assert letters.events == ["ping", "ping"]
    assert made.silence < SILENCE
    alarm.ring()
    assert letters.events[2:] == [(NORMAL, "nothing was heard of it for 90 s")]
    assert len(steward.ended) == 1
    assert made.bytes_in == 3
    await made.wait_closed()


async def test_a_client_is_read_before_it_is_judged_by_a_loop_that_was_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, letters = Clock(), Letters()
    alarm = Alarm(monkeypatch, clock)
    made = line(Steward(), letters, clock=clock)
    alarm.ring(late=SILENCE)
    assert not letters.events
    assert alarm.delay < 1
    made.heard(2)
    alarm.ring()
    assert not letters.events
    await made.close()


async def test_a_client_that_takes_what_it_is_sent_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, letters = Clock(), Letters()
    alarm = Alarm(monkeypatch, clock)
    made = line(Steward(), letters, clock=clock)
    letters.queued = 1000
    made.writing_paused()
    for _ in range(5):
        letters.queued -= 1
        alarm.ring()
    assert made.closing is None
    for _ in range(4):
        alarm.ring()
    assert made.closing is not None
    await made.wait_closed()


@pytest.mark.row("M-15", "A-38")
async def test_a_line_waits_for_room_and_ends_when_there_is_none_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pressure, "ROOM_PAUSE", 0.01)
    house = House(4 * STEP)
    letters, other = Letters(), Holding(house.of("a"))
    made = line(Steward(), letters, holding=Holding(house.of("a")))
    other.note(Kind.FRAGMENTS, 4 * STEP)
    assert made.holding.take(Kind.MESSAGE, STEP)
    assert letters.events == ["pause"]
    other.note(Kind.FRAGMENTS, 0)
    assert letters.events == ["pause", "resume"]
    other.note(Kind.FRAGMENTS, 4 * STEP)
    made.holding.take(Kind.MESSAGE, 2 * STEP)
    await made.wait_closed()
    assert letters.events[-1] == (1012, FULL)
    assert house.of("a").used == 4 * STEP


@pytest.mark.row("M-15")
async def test_what_the_client_does_not_take_counts() -> None:
    house = House(4 * STEP)
    letters = Letters()
    made = line(Steward(), letters, holding=Holding(house.of("a")))
    letters.queued = 3 * STEP
    made.fire_and_forget(Payload(b"x", None))
    assert house.by_kind[Kind.OUTGOING] == 3 * STEP
    with pytest.raises(Rejected, match=FULL):
        made.fire_and_forget(Payload(bytes(2 * STEP), None))
    letters.queued = 0
    made.writing_resumed()
    assert house.used == 0
    made.abort()
    await made.wait_closed()


@pytest.mark.row("M-15")
async def test_what_an_idle_client_has_taken_is_not_counted_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, letters, house = Clock(), Letters(), House(10 * STEP)
    alarm = Alarm(monkeypatch, clock)
    made = line(Steward(), letters, clock=clock, holding=Holding(house.of("a")))
    letters.queued = 3 * STEP
    made.fire_and_forget(Payload(b"{}", None))
    assert house.used == 3 * STEP
    letters.queued = 0
    alarm.ring()
    assert house.used == 0
    await made.close()
