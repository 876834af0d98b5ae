"""The plugin under measure: the jobs that the reference servers do, as an author of a plugin would write them."""

import asyncio
from collections.abc import Iterator

import attrs

from rsocket_broker.plugin_api import App, Payload, Plugin, event, method

ITEM = Payload(b"x" * 64, None)
FIRST = 1_000_000


@attrs.define
class Noted:
    count: int = 0
    sum: int = 0


class Bench(Plugin):
    id = "bench"

    def on_connect(self, app: App) -> None:
        app.state = Noted()

    @method("echo")
    def echo(self, app: App, payload: Payload) -> Payload:
        return Payload(payload.data, None)

    @method("add")
    def add(self, app: App, a: int, b: int) -> dict[str, int]:
        return {"sum": a + b}

    @event("note")
    def note(self, app: App, n: int) -> None:
        app.state.count += 1
        app.state.sum += n

    @method("noted")
    def noted(self, app: App) -> dict[str, int]:
        return {"count": app.state.count, "sum": app.state.sum}

    @event("swallow")
    def swallow(self, app: App, params: dict[str, object]) -> None:
        app.state.count += 1

    @method("items")
    def items(self, app: App, count: int) -> Iterator[Payload]:
        for _ in range(count):
            yield ITEM

    @method("numbers")
    def numbers(self, app: App, count: int) -> Iterator[dict[str, int]]:
        for n in range(FIRST, FIRST + count):
            yield {"n": n}

    @method("drive", deadline=None)
    async def drive(self, app: App, count: int, window: int) -> dict[str, int]:
        """Calls the app `count` times, `window` at a time, and says what came of it."""
        numbers = iter(range(FIRST, FIRST + count))

        async def caller() -> int:
            total = 0
            for n in numbers:
                answer = await app.call("double", {"n": n})
                total += answer["n"]
            return total

        return {"calls": count, "sum": sum(await asyncio.gather(*(caller() for _ in range(window))))}


plugin = Bench
