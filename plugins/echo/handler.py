"""One route for each thing that a client should be able to cope with. README.md lists them."""

import asyncio
from collections.abc import AsyncIterator, Iterator

from rsocket_broker.plugin_api import App, ApplicationError, Invalid, Payload, Plugin, event, method

MAX_COUNT = 10_000_000
"""Payloads of one stream: hours of it at full speed, and still a number that comes to an end."""
MAX_SIZE = 16 * 1024 * 1024 - 1
"""Bytes of one payload of a stream: the largest message that Flipper's SDKs can take."""
MAX_MILLISECONDS = 3_600_000
"""The longest that `echo.slow` waits: an hour is slower than any client is patient."""


class Echo(Plugin):
    """Gives back what it gets. `fired` counts the payloads that came by `echo.fire`, from all clients."""

    id = "echo"
    concurrency = 4096  # its slow routes only sleep, and are what tests of many waiting requests are made of

    def __init__(self) -> None:
        self.fired = 0

    @method("request")
    def request(self, app: App, payload: Payload) -> Payload:
        return payload

    @method("error")
    def error(self, app: App, payload: Payload) -> Payload:
        raise ApplicationError("echo.error always fails.")

    @method("never", deadline=None)
    async def never(self, app: App, payload: Payload) -> Payload:
        await asyncio.get_running_loop().create_future()  # until the caller cancels
        return payload

    @method("slow", deadline=None)
    async def slow(self, app: App, payload: Payload) -> Payload:
        milliseconds = _number(payload.data, "the data must be milliseconds,", MAX_MILLISECONDS)
        await asyncio.sleep(milliseconds / 1000)
        return payload

    @method("stream")
    def stream(self, app: App, plan: bytes) -> Iterator[Payload]:
        count, size = _plan(plan)
        return _payloads(count, size)

    @method("stream-error")
    def stream_error(self, app: App, plan: bytes) -> Iterator[Payload]:
        count, size = _plan(plan)
        return _payloads(count, size, fail=True)

    @method("channel")
    async def channel(self, app: App, incoming: AsyncIterator[Payload]) -> AsyncIterator[Payload]:
        async for payload in incoming:
            yield payload

    @event("fire")
    def fire(self, app: App, payload: Payload) -> None:
        self.fired += 1

    @method("fired")
    def count_fired(self, app: App) -> dict[str, int]:
        return {"count": self.fired}


def _number(data: bytes | bytearray | None, problem: str, highest: int) -> int:
    text = bytes(data or b"")
    if not text.isdigit() or len(text) > len(str(highest)) or int(text) > highest:
        raise Invalid(f"{problem} as decimal text from 0 to {highest}.")
    return int(text)


def _plan(plan: bytes) -> tuple[int, int]:
    count, colon, size = plan.partition(b":")
    if not colon:
        raise Invalid("The data must be COUNT:SIZE, such as 3:1024.")
    return _number(count, "COUNT must be given", MAX_COUNT), _number(size, "SIZE must be given", MAX_SIZE)


def _payloads(count: int, size: int, *, fail: bool = False) -> Iterator[Payload]:
    data = bytes(size)
    for _ in range(count):
        yield Payload(data, None)
    if fail:
        raise ApplicationError(f"echo.stream-error fails after {count} payloads.")
