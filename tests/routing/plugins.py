"""Plugins of tests whose clients come over memory transports."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from rsocket_broker.errors import ApplicationError
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import App, Plugin, event, method


class Echo(Plugin):
    id = "echo"

    @method("request")
    def request(self, app: App, payload: Payload) -> Payload:
        return payload

    @method("never", deadline=None)
    async def never(self, app: App, payload: Payload) -> Payload:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.append(app.id)
        return payload

    @method("stream")
    async def stream(self, app: App, count: int) -> AsyncIterator[int]:
        try:
            for number in range(count):
                made.append(number)
                yield number
        finally:
            cancelled.append("stream")

    @method("channel")
    async def channel(self, app: App, incoming: AsyncIterator[Payload]) -> AsyncIterator[Payload]:
        async for payload in incoming:
            yield payload


cancelled: list[str] = []


made: list[int] = []


class Network(Plugin):
    """Calls its app, and is called by it."""

    id = "Network"

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.hooks: list[str] = []

    async def on_connect(self, app: App) -> None:
        app.state.all = await app.call("getAll")
        self.hooks.append(f"+{app.identity.app_id}")

    async def on_disconnect(self, app: App) -> None:
        self.hooks.append(f"-{app.identity.app_id}")

    @event("newRequest")
    async def new_request(self, app: App, params: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        self.events.append(params)

    @event("count")
    def count(self, app: App, n: int) -> None:
        self.events.append(n)

    @method("har")
    async def har(self, app: App) -> Any:
        return {"all": app.state.all, "more": await app.call("getMore", {"n": 1})}

    @method("add")
    def add(self, app: App, a: int, b: int) -> dict[str, int]:
        return {"sum": a + b}

    @method("crash")
    def crash(self, app: App) -> None:
        raise ZeroDivisionError("secret")


ANSWERS = {"Network.getAll": {"success": [1]}, "Network.getMore": {"success": None}}


class Mixed(Plugin):
    """Handlers of every shape, whose answers and errors are known."""

    id = "Mixed"

    def __init__(self) -> None:
        self.seen: list[object] = []

    @method("add")
    def add(self, app: App, a: int, b: int = 0) -> dict[str, int]:
        return {"sum": a + b}

    @method("later")
    async def later(self, app: App, a: int) -> int:
        return a

    @method("whole")
    def whole(self, app: App, params: dict[str, Any]) -> Any:
        return params

    @method("nothing")
    def nothing(self, app: App) -> None: ...

    @method("raw")
    def raw(self, app: App, data: bytes) -> bytes | None:
        return None if data == b"{}" else data

    @method("with-metadata")
    def with_metadata(self, app: App, payload: Payload) -> Payload:
        return Payload(payload.data, b"of mine")

    @method("text")
    def text(self, app: App) -> bytes:
        return b"no JSON at all"

    @method("odd")
    def odd(self, app: App) -> Any:
        return {"a": object()}

    @method("crash")
    def crash(self, app: App, a: int = 0) -> None:
        raise KeyError("secret")

    @method("refuse")
    def refuse(self, app: App) -> None:
        raise ApplicationError("in words meant for you")

    @method("cancel")
    def cancel(self, app: App) -> None:
        raise asyncio.CancelledError

    @event("note")
    def note(self, app: App, n: int) -> None:
        self.seen.append(n)
        if n == 13:
            raise KeyError("secret")

    @event("slow-note")
    async def slow_note(self, app: App, n: int) -> None:
        await asyncio.sleep(0)
        self.seen.append(n)
