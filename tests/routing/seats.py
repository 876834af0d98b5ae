"""Seats at plugins that behave badly, or greet their apps, without a line."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

from rsocket_broker.errors import ApplicationError, ConnectionClosed, Rejected
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import App, Plugin, event, method
from rsocket_broker.plugin_api.testing import FakeApp, fake_identity
from rsocket_broker.routing.greeting import State
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.seat import Seat
from rsocket_broker.routing.tasks import Tasks
from tests.routing.line import loaded

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


def seat_at(plugin: Plugin, tasks: Tasks | None = None, **answers: object) -> Seat:
    host = PluginHost(loaded(plugin)[0], Tasks())
    app = FakeApp(1, fake_identity(), answers, {})
    app.state.event = asyncio.Event()
    return Seat(host, app, tasks or Tasks())


def host_of(seat: Seat) -> PluginHost:
    return seat.host


def ready_seat(plugin: Plugin) -> Seat:
    seat = seat_at(plugin)
    seat.connect()
    assert seat.state is State.CONNECTED
    return seat


async def ask(seat: Seat, name: str, how: str = "") -> Payload:
    answer = seat.answers.to(name)(Payload(f'{{"how": "{how}"}}'.encode(), None))
    return await answer if isinstance(answer, Awaitable) else answer


async def read(seat: Seat, name: str, how: str = "") -> list[Any]:
    values = seat.streams.stream(name, Payload(f'{{"how": "{how}"}}'.encode(), None))
    if isinstance(values, AsyncIterator):
        return [value.data async for value in values]
    return [value if isinstance(value, bytes) else value.data for value in values]
