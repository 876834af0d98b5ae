"""A plugin that is sent large messages."""

from collections.abc import AsyncIterator
from typing import Any

import attrs

from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import App, Plugin, event, method
from rsocket_broker.routing.aside import LARGE
from tests.routing.line import Line

LONG = "x" * (LARGE + 10)


MANY = [{"n": n, "text": "é" * 20} for n in range(8000)]


@attrs.frozen
class Row:
    n: int
    text: str = ""


class Big(Plugin):
    id = "big"

    def __init__(self) -> None:
        self.seen: list[object] = []

    @event("note")
    def note(self, app: App, n: int, text: str = "") -> None:
        self.seen.append((n, len(text)))

    @event("raw")
    def raw(self, app: App, data: bytes) -> None:
        self.seen.append(("raw", len(data)))

    @method("count")
    def count(self, app: App, rows: list[Row]) -> dict[str, int]:
        return {"rows": len(rows), "sum": sum(row.n for row in rows)}

    @method("whole")
    async def whole(self, app: App, params: dict[str, Any]) -> dict[str, Any]:
        return params

    @method("echo")
    def echo(self, app: App, payload: Payload) -> Payload:
        return payload

    @method("each")
    async def each(self, app: App, rows: list[Row]) -> AsyncIterator[int]:
        for row in rows[:3]:
            yield row.n

    @method("fetch")
    async def fetch(self, app: App) -> int:
        return len(await app.call("rows"))


def plugin_of(line: Line) -> Big:
    plugin = line.endpoint.router.hosts["big"].plugin
    assert isinstance(plugin, Big)
    return plugin


def jobs(line: Line) -> int:
    return line.endpoint.router.aside.done
