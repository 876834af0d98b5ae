"""A device of the test's own, for plugins under test."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from rsocket_broker.plugin_api import Device, LogLine
from rsocket_broker.plugin_api.device import check_link


class PaperDevice(Device):
    """Notes the links that it opens; its log is what the test puts into `lines`, and ends where that holds None."""

    def __init__(self, *lines: LogLine | None, running: frozenset[int] = frozenset()) -> None:
        self.opened: list[tuple[str, str]] = []
        self.lines: asyncio.Queue[LogLine | None] = asyncio.Queue()
        for line in lines:
            self.lines.put_nowait(line)
        self.running = running
        self.readers = 0
        self.on_open: Callable[[str], object] = lambda uri: None

    @property
    def serial(self) -> str:
        return "paper"

    async def open_link(self, uri: str, app_id: str) -> None:
        self.opened.append((check_link(uri), app_id))
        self.on_open(uri)

    async def log(self, since: float | None = None, level: str = "unknown") -> AsyncGenerator[LogLine, None]:
        self.readers += 1
        try:
            while (line := await self.lines.get()) is not None:
                yield line
        finally:
            self.readers -= 1

    async def pids(self, app_id: str) -> frozenset[int]:
        return self.running

    async def screenshot(self) -> bytes:
        return b"\x89PNG\r\n\x1a\n"


def line(message: str, *, time: float = 1000.0, pid: int = 77, level: str = "info", tag: str = "App") -> LogLine:
    return LogLine(time, pid, pid, level, tag, message)
