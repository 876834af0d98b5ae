"""The broker's part in the scenario: the plugin `interop`, loaded by `serve --plugin`.

Clients ask it for what echo does not offer, and by `interop.drive` to turn round: it then calls, streams from, sends
and pushes to the client that asked, whose answers it puts together for the table in scenario.toml.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

import attrs

from rsocket_broker.plugin_api import App, ApplicationError, Canceled, Payload, Plugin, RequestFailed, event, method

CREDIT = 128
"""What the broker asks for when it takes a stream."""
IMPATIENT = 0.2
PATIENT = 3.0
"""Seconds for something to be noticed that happens at once or never."""
LARGE = 17_000_000
FRAGMENTED = 200_000


@attrs.define(eq=False)
class Memory:
    """What happened to one client so far."""

    heard: dict[str, Any] = attrs.Factory(dict)
    changed: asyncio.Condition = attrs.Factory(asyncio.Condition)

    async def note(self, name: str, what: Any) -> None:
        async with self.changed:
            self.heard[name] = what
            self.changed.notify_all()

    async def wait(self, name: str) -> Any:
        async with self.changed:
            await self.changed.wait_for(lambda: name in self.heard)
        return self.heard.pop(name)


class Interop(Plugin):
    id = "interop"

    def on_connect(self, app: App) -> None:
        app.state = Memory()

    # --- for steps that the client takes -----------------------------------------------------------------------------

    @event("fired")
    async def fired(self, app: App, payload: Payload) -> None:
        await app.state.note("fired", len(payload.data or b""))

    @event("pushed")
    async def pushed(self, app: App, payload: Payload) -> None:
        await app.state.note("pushed", len(payload.data or b""))

    @method("heard", deadline=PATIENT)
    async def heard(self, app: App, name: str) -> Any:
        """What was noted under `name`, as soon as it is."""
        return await app.state.wait(name)

    @method("never", deadline=None)
    async def never(self, app: App) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await app.state.note("never", True)

    @method("numbers")
    async def numbers(self, app: App) -> AsyncIterator[int]:
        try:
            number = 0
            while True:
                number += 1
                yield number
        finally:
            await app.state.note("numbers", True)

    @method("count")
    async def count(self, app: App, last: int, size: int) -> AsyncIterator[Payload]:
        """The numbers from 1 to `last`, each filled up with spaces to `size` bytes."""
        for number in range(1, last + 1):
            yield Payload(str(number).encode().ljust(size), None)

    @method("chat")
    async def chat(self, app: App, incoming: AsyncIterator[Payload]) -> AsyncIterator[int]:
        async for number in self.numbers(app):
            yield number

    @method("once")
    async def once(self, app: App, incoming: AsyncIterator[Payload]) -> AsyncIterator[Payload]:
        async for payload in incoming:
            yield payload
            raise ApplicationError("No more than one.")

    @method("listen")
    async def listen(self, app: App, incoming: AsyncIterator[Payload]) -> int:
        try:
            return sum([1 async for _ in incoming])
        except ApplicationError as error:
            await app.state.note("listen", error.public)
            raise

    # --- for steps that the broker takes -----------------------------------------------------------------------------

    @method("drive")
    async def drive(self, app: App, step: str) -> Mapping[str, object]:
        return await STEPS[step](app)


async def response(app: App) -> Mapping[str, object]:
    return {"sum": await app.call("add", {"a": 1, "b": 2})}


async def response_error(app: App) -> Mapping[str, object]:
    return await failing(app.call("fail"))


async def response_fragments(app: App) -> Mapping[str, object]:
    text = "".join(chr(ord("a") + index % 26) for index in range(FRAGMENTED - 2))  # and two quotes
    answer = await app.call("same", text)
    return {"size": len(answer) + 2, "same": answer == text}


async def response_large(app: App) -> Mapping[str, object]:
    return {"size": await app.call("size", "x" * (LARGE - 2))}


async def response_cancel(app: App) -> Mapping[str, object]:
    try:
        await app.call("never", timeout=IMPATIENT)
    except Canceled:
        return {"canceled": await heard(app, "never")}
    return {"canceled": False}


async def fire(app: App) -> Mapping[str, object]:
    await app.send("fired", {})
    return {"heard": await heard(app, "fired")}


async def push(app: App) -> Mapping[str, object]:
    await app.push("pushed")
    return {"heard": await heard(app, "pushed")}


async def stream(app: App) -> Mapping[str, object]:
    values = [value async for value in app.stream("count", 300)]
    return {"received": len(values), "in_order": values == list(range(1, 301))}


async def stream_credit(app: App) -> Mapping[str, object]:
    received = 0
    async with aclosing(app.stream("numbers")) as values:
        async for _ in values:
            received += 1
            if received == 5:
                break
    canceled = await heard(app, "numbers")
    return {"received": received, "within_credit": await app.call("made") <= received + CREDIT, "canceled": canceled}


async def stream_error(app: App) -> Mapping[str, object]:
    return await failing_after(app.stream("fails", 3))


async def channel(app: App) -> Mapping[str, object]:
    values = [value async for value in app.channel("double", numbers(100))]
    return {"received": len(values), "right": values == list(range(2, 201, 2))}


async def channel_error(app: App) -> Mapping[str, object]:
    return await failing_after(app.channel("once", numbers(3)))


async def heard(app: App, name: str) -> object:
    """Asks the client whether it has noticed something; it answers when it has."""
    return await app.call("heard", name, timeout=PATIENT)


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(1, count + 1):
        yield number


async def failing(call: Awaitable[object]) -> dict[str, object]:
    try:
        return {"answer": await call}
    except RequestFailed as error:
        return {"code": int(error.code), "text": error.public}


async def failing_after(values: AsyncIterator[object]) -> Mapping[str, object]:
    received = 0

    async def take() -> None:
        nonlocal received
        async for _ in values:
            received += 1

    ended = await failing(take())
    return {"received": received, **ended}


STEPS: Mapping[str, Callable[[App], Awaitable[Mapping[str, object]]]] = {
    "app-response": response,
    "app-response-error": response_error,
    "app-response-fragments": response_fragments,
    "app-response-large": response_large,
    "app-response-cancel": response_cancel,
    "app-fire": fire,
    "app-push": push,
    "app-stream": stream,
    "app-stream-credit": stream_credit,
    "app-stream-error": stream_error,
    "app-channel": channel,
    "app-channel-error": channel_error,
}

plugin = Interop()
