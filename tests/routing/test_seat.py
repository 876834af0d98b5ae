"""Whatever a handler does stays its own affair."""

import asyncio
import functools
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

import pytest

from rsocket_broker.errors import ApplicationError, Canceled, ConnectionClosed, Invalid, Rejected, RequestFailed
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import App, Plugin, Proof, event, method
from rsocket_broker.plugin_api.testing import FakeApp, fake_identity
from rsocket_broker.routing.event_queue import MAX_BYTES
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.seat import UNVERIFIED_EVENTS, Seat, State
from rsocket_broker.routing.tasks import Tasks
from tests.routing.line import loaded, until

EMPTY = Payload(b"", None)


class Trouble(Plugin):
    """Handlers that behave badly in every way that they can."""

    id = "trouble"
    concurrency = 2

    def __init__(self) -> None:
        self.seen: list[object] = []

    @method("plain")
    def plain(self, app: App, how: str) -> object:
        return fail(how)

    @method("coroutine")
    async def coroutine(self, app: App, how: str) -> object:
        await asyncio.sleep(0)
        return fail(how)

    @method("generator")
    def generator(self, app: App, how: str) -> Iterator[object]:
        yield 1
        yield fail(how)

    @method("async-generator")
    async def async_generator(self, app: App, how: str) -> AsyncIterator[object]:
        yield 1
        yield fail(how)

    @method("late", deadline=0.01)
    async def late(self, app: App) -> None:
        await asyncio.sleep(60)

    @method("late-stream", deadline=0.01)
    async def late_stream(self, app: App) -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(60)

    @method("own-timeout")
    async def own_timeout(self, app: App) -> None:
        raise TimeoutError("of its own")

    @method("wait", deadline=None)
    async def wait(self, app: App) -> str:
        await app.state.event.wait()
        return "done"

    @method("numbers")
    def numbers(self, app: App) -> Iterator[int]:
        yield from range(3)

    @event("event")
    def on_event(self, app: App, how: str) -> None:
        self.seen.append(how)
        fail(how)

    @event("slow-event", deadline=0.02)
    async def slow_event(self, app: App, how: str) -> None:
        self.seen.append(how)
        if how == "hang":
            await asyncio.sleep(60)
        fail(how)


def fail(how: str) -> object:
    errors: dict[str, BaseException] = {
        "meant": ApplicationError("in words meant for you"),
        "rejected": Rejected("later"),
        "bug": ZeroDivisionError("secret"),
        "exit": SystemExit(3),
        "cancel": asyncio.CancelledError(),
        "closed": ConnectionClosed("secret"),
        "stop": StopIteration(),
    }
    if how in errors:
        raise errors[how]
    return {object()} if how == "unfit" else how


class Crowded(Trouble):
    id = "crowded"
    concurrency = 8


def seat_at(plugin: Plugin, tasks: Tasks | None = None, **answers: object) -> Seat:
    host = PluginHost(loaded(plugin)[0], Tasks())
    app = FakeApp(1, fake_identity(), answers, {})
    app.state.event = asyncio.Event()
    return Seat(host, app, tasks or Tasks())


def host_of(seat: Seat) -> PluginHost:
    return seat._host


def ready_seat(plugin: Plugin) -> Seat:
    seat = seat_at(plugin)
    seat.connect()
    assert seat.state is State.CONNECTED
    return seat


async def ask(seat: Seat, name: str, how: str = "") -> Payload:
    answer = seat.answers(name)(Payload(f'{{"how": "{how}"}}'.encode(), None))
    return await answer if isinstance(answer, Awaitable) else answer


async def read(seat: Seat, name: str, how: str = "") -> list[Any]:
    values = seat.streams(name, Payload(f'{{"how": "{how}"}}'.encode(), None))
    if isinstance(values, AsyncIterator):
        return [value.data async for value in values]
    return [value if isinstance(value, bytes) else value.data for value in values]


@pytest.mark.row("A-56")
@pytest.mark.parametrize("name", ["plain", "coroutine"])
@pytest.mark.parametrize("how", ["bug", "exit", "closed", "unfit", "stop"])
async def test_what_goes_wrong_stays_here(name: str, how: str, caplog: pytest.LogCaptureFixture) -> None:
    seat = ready_seat(Trouble())
    with pytest.raises(ApplicationError) as caught:
        await ask(seat, name, how)
    assert caught.value.public == f"internal error in trouble.{name}"
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is not None
    assert host_of(seat).gate.held == 0


@pytest.mark.parametrize("name", ["plain", "coroutine"])
async def test_words_meant_for_the_caller_go_out_and_are_not_logged(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    seat = ready_seat(Trouble())
    for how, kind, text in [
        ("meant", ApplicationError, "in words meant for you"),
        ("rejected", Rejected, "later"),
    ]:
        with pytest.raises(kind, match=text):
            await ask(seat, name, how)
    assert not caplog.records


@pytest.mark.parametrize("name", ["plain", "coroutine"])
async def test_a_handler_that_cancels_itself_is_answered_for(name: str) -> None:
    with pytest.raises(RequestFailed):
        await ask(ready_seat(Trouble()), name, "cancel")


@pytest.mark.parametrize("name", ["generator", "async-generator"])
@pytest.mark.parametrize("how", ["bug", "exit", "unfit"])
async def test_a_stream_that_fails_frees_its_place(name: str, how: str, caplog: pytest.LogCaptureFixture) -> None:
    seat = ready_seat(Trouble())
    with pytest.raises(ApplicationError, match=rf"internal error in trouble\.{name}"):
        await read(seat, name, how)
    with pytest.raises(ApplicationError, match="in words meant for you"):
        await read(seat, name, "meant")
    assert host_of(seat).gate.held == 0
    assert len(caplog.records) == 1


async def test_a_deadline_stops_the_handler_and_says_so() -> None:
    seat = ready_seat(Trouble())
    with pytest.raises(Canceled) as caught:
        await ask(seat, "late")
    assert caught.value.public == "trouble.late was stopped: it took longer than its deadline of 0.01 s."
    with pytest.raises(Canceled, match=r"trouble.late-stream was stopped"):
        await read(seat, "late-stream")
    with pytest.raises(ApplicationError, match="internal error"):
        await ask(seat, "own-timeout")
    assert host_of(seat).gate.held == 0


async def test_places_are_limited_and_plain_handlers_need_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsocket_broker.routing.gate.MAX_WAIT", 0.02)
    seat = ready_seat(Trouble())
    waiting = [asyncio.ensure_future(ask(seat, "wait")) for _ in range(2)]
    await until(lambda: host_of(seat).gate.held == 2)
    with pytest.raises(Rejected, match='The plugin "trouble" was busy for'):
        await ask(seat, "wait")
    with pytest.raises(Rejected, match='The plugin "trouble" is busy'):
        await read(seat, "numbers")
    assert (await ask(seat, "plain", "fine")).data == b'"fine"'
    seat.app.state.event.set()
    assert [payload.data for payload in await asyncio.gather(*waiting)] == [b'"done"'] * 2
    assert await read(seat, "numbers") == [b"0", b"1", b"2"]


@pytest.mark.row("A-30", "M-9")
async def test_clients_that_have_proved_nothing_share_places_and_leave_some() -> None:
    host = PluginHost(loaded(Crowded())[0], Tasks())
    nobody = fake_identity(proof=Proof.UNVERIFIED)
    crowd = [Seat(host, FakeApp(number, nobody, {}, {}), Tasks()) for number in range(Crowded.concurrency)]
    seat = Seat(host, FakeApp(99, fake_identity(), {}, {}), Tasks())
    waiting = []
    for each in (*crowd, seat):
        each.app.state.event = asyncio.Event()
        each.connect()
        waiting.append(asyncio.ensure_future(ask(each, "wait")))
    await until(lambda: host.gate.waiting == 1)
    await until(lambda: "wait" in seat.running.values() and host.gate.held == Crowded.concurrency)
    assert host.gate._held[seat.app.id] == 1, "the certified one has its place, whatever the others do"
    for each in (*crowd, seat):
        each.app.state.event.set()
    assert [payload.data for payload in await asyncio.gather(*waiting)] == [b'"done"'] * len(waiting)
    assert host.gate.held == 0


async def test_fewer_events_wait_for_who_has_proved_nothing() -> None:
    host = PluginHost(loaded(Trouble())[0], Tasks())
    for proof, most in ((Proof.ADB, MAX_BYTES), (Proof.UNVERIFIED, UNVERIFIED_EVENTS)):
        seat = Seat(host, FakeApp(1, fake_identity(proof=proof), {}, {}), Tasks())
        assert seat._events._most == most


async def test_a_stream_left_early_or_never_begun_frees_its_place() -> None:
    seat = ready_seat(Trouble())
    seat.streams("numbers", EMPTY)
    values = seat.streams("numbers", EMPTY)
    assert isinstance(values, Iterator)
    assert next(values) == b"0"
    assert host_of(seat).gate.held == 1
    values.close()  # type: ignore[attr-defined]
    assert host_of(seat).gate.held == 0


async def test_plain_events_are_handled_at_once_and_trouble_with_one_is_over_with_it() -> None:
    plugin = Trouble()
    seat = ready_seat(plugin)
    for how in ("a", "bug", "meant", "exit", "b"):
        seat.event("event", {"how": how}, 10)
    assert plugin.seen == ["a", "bug", "meant", "exit", "b"]
    with pytest.raises(Invalid):
        seat.event("absent", {}, 0)


async def test_events_keep_their_order_across_kinds_and_trouble() -> None:
    plugin = Trouble()
    seat = ready_seat(plugin)
    order = ["a", "bug", "exit", "cancel", "hang", "meant", "z"]
    for number, how in enumerate(order):
        seat.event("event" if number % 2 else "slow-event", {"how": how}, 10)
    seat.fire("event", Payload(b'{"how": "last"}', None))
    assert plugin.seen == []  # one of them waits, so all behind it do
    await until(lambda: plugin.seen == [*order, "last"])
    assert host_of(seat).gate.held == 0


class Greeter(Plugin):
    id = "greeter"

    def __init__(self) -> None:
        self.log: list[str] = []

    async def on_connect(self, app: App) -> None:
        answer = await app.call("who")
        self.log.append(f"hello {answer}")
        if answer == "stranger":
            raise ApplicationError("strangers are not served")
        if answer == "bug":
            raise ZeroDivisionError

    async def on_disconnect(self, app: App) -> None:
        self.log.append("bye")

    @method("ask")
    def ask(self, app: App) -> str:
        self.log.append("asked")
        return "answer"

    @method("stream")
    def stream(self, app: App) -> Iterator[int]:
        yield from range(2)

    @event("event")
    def on_event(self, app: App) -> None:
        self.log.append("event")


async def test_nothing_is_handled_before_on_connect_is_done() -> None:
    plugin, let_go = Greeter(), asyncio.Event()

    async def who(params: object) -> str:
        await let_go.wait()
        return "friend"

    seat = seat_at(plugin, who=who)
    seat.event("event", {}, 0)
    seat.connect()
    seat.connect()
    assert not seat.ready
    request = asyncio.ensure_future(ask(seat, "ask"))
    stream = asyncio.ensure_future(read(seat, "stream"))
    seat.event("event", {}, 0)
    await asyncio.sleep(0.01)
    assert plugin.log == []
    let_go.set()
    assert (await request).data == b'"answer"'
    assert await stream == [b"0", b"1"]
    assert seat.ready
    await until(lambda: sorted(plugin.log) == ["asked", "event", "event", "hello friend"])
    assert plugin.log[0] == "hello friend"
    seat.close()
    seat.close()
    await host_of(seat).tasks.wait(1.0)
    assert plugin.log[-1] == "bye"
    assert plugin.log.count("bye") == 1


@pytest.mark.parametrize(
    ("who", "text"), [("stranger", "strangers are not served"), ("bug", "internal error in greeter.on_connect")]
)
async def test_a_plugin_whose_greeting_fails_does_not_serve_that_app(who: str, text: str) -> None:
    plugin = Greeter()
    seat = seat_at(plugin, who=who)
    seat.connect()
    seat.event("event", {}, 0)
    with pytest.raises(ApplicationError, match=text):
        await ask(seat, "ask")
    with pytest.raises(ApplicationError, match=text):
        await read(seat, "stream")
    assert seat.state is State.FAILED
    seat.close()
    await host_of(seat).tasks.wait(1.0)
    assert plugin.log == [f"hello {who}"]


async def test_a_session_that_ends_during_the_greeting_leaves_nobody_waiting() -> None:
    plugin, tasks = Greeter(), Tasks()

    async def who(params: object) -> None:
        await asyncio.sleep(60)

    seat = seat_at(plugin, tasks, who=who)
    seat.connect()
    request = asyncio.ensure_future(ask(seat, "ask"))
    await asyncio.sleep(0)
    seat.close()
    tasks.cancel()
    with pytest.raises(Canceled):
        await request
    await host_of(seat).tasks.wait(1.0)
    assert plugin.log == []


async def test_a_farewell_that_hangs_is_stopped_with_the_broker(caplog: pytest.LogCaptureFixture) -> None:
    class Clinging(Plugin):
        id = "clinging"

        async def on_disconnect(self, app: App) -> None:
            await asyncio.sleep(60)

    seat = ready_seat(Clinging())
    seat.close()
    async with asyncio.timeout(5):
        await host_of(seat).tasks.wait(0.01)


async def test_a_handler_whose_decorator_makes_a_task_of_it() -> None:
    def as_task(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*arguments: Any) -> Any:
            return asyncio.ensure_future(function(*arguments))

        return wrapper

    class Decorated(Plugin):
        id = "decorated"

        @method("name")
        @as_task
        async def name(self, app: App) -> str:
            await asyncio.sleep(0)
            return app.id

    assert (await ask(ready_seat(Decorated()), "name")).data == b'"test1"'


async def test_a_raw_answer_costs_no_task_and_few_calls() -> None:
    class Echo(Plugin):
        id = "echo"

        @method("request")
        def request(self, app: App, payload: Payload) -> Payload:
            return payload

    answer = ready_seat(Echo()).answers("request")
    calls: list[str] = []

    def count(frame: Any, what: str, argument: object) -> None:
        if what == "call":
            calls.append(frame.f_code.co_name)

    payload = Payload(b"x", b"y")
    sys.setprofile(count)
    try:
        result = answer(payload)
    finally:
        sys.setprofile(None)
    assert result is payload
    assert calls == ["answer", "request"]


async def test_an_event_that_is_dropped_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        seat = ready_seat(Trouble())
        seat.event("event", {"how": 5}, 1)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "trouble.event: how: wanted str, got int" in caplog.messages[0]
