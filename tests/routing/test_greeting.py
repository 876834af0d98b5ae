"""Nothing of a plugin is served before its greeting, and nothing after its farewell."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from rsocket_broker.errors import ApplicationError, Canceled
from rsocket_broker.plugin_api import App, Plugin
from rsocket_broker.routing.greeting import State
from rsocket_broker.routing.tasks import Tasks
from tests.routing.line import until
from tests.routing.seats import Greeter, ask, host_of, read, ready_seat, seat_at


async def test_nothing_is_handled_before_on_connect_is_done() -> None:
    plugin, let_go = Greeter(), asyncio.Event()

    async def who(params: object) -> str:
        await let_go.wait()
        return "friend"

    seat = seat_at(plugin, who=who)
    seat.events.event("event", {}, 0)
    seat.connect()
    seat.connect()
    assert not seat.ready
    request = asyncio.ensure_future(ask(seat, "ask"))
    stream = asyncio.ensure_future(read(seat, "stream"))
    seat.events.event("event", {}, 0)
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


class Plain(Greeter):
    """Greets by a plain function; `end` is what that does last."""

    def __init__(self, end: Callable[[], Awaitable[None] | None]) -> None:
        super().__init__()
        self.end = end

    def on_connect(self, app: App) -> Awaitable[None] | None:  # type: ignore[override]
        self.log.append("hello")
        return self.end()


async def test_a_plain_greeting_is_over_at_once() -> None:
    seat = seat_at(plugin := Plain(lambda: None))
    seat.connect()
    assert seat.ready and plugin.log == ["hello"]
    seat.connect()
    assert plugin.log == ["hello"]


async def test_a_plain_greeting_may_leave_something_to_wait_for() -> None:
    let_go = asyncio.Event()

    async def rest() -> None:
        await let_go.wait()

    seat = seat_at(plugin := Plain(rest))
    seat.connect()
    request = asyncio.ensure_future(ask(seat, "ask"))
    await asyncio.sleep(0)
    assert plugin.log == ["hello"] and not seat.ready
    let_go.set()
    assert (await request).data == b'"answer"'


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ApplicationError("not you"), "not you"),
        (ZeroDivisionError(), "internal error in greeter.on_connect"),
        (SystemExit(), "internal error in greeter.on_connect"),
    ],
    ids=["refusal", "bug", "exit"],
)
async def test_a_plain_greeting_that_fails_is_a_refusal(error: BaseException, text: str) -> None:
    def end() -> None:
        raise error

    seat = seat_at(Plain(end))
    seat.connect()
    with pytest.raises(ApplicationError, match=text):
        await ask(seat, "ask")
    assert seat.state is State.FAILED


@pytest.mark.parametrize(
    ("who", "text"), [("stranger", "strangers are not served"), ("bug", "internal error in greeter.on_connect")]
)
async def test_a_plugin_whose_greeting_fails_does_not_serve_that_app(who: str, text: str) -> None:
    plugin = Greeter()
    seat = seat_at(plugin, who=who)
    seat.connect()
    seat.events.event("event", {}, 0)
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
