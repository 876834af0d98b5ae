"""Looking on while a device may tell of crashes: its log, or the folder in which a Mac puts its reports.

A crash takes the app's session with it, so whoever looks on stays a while after the session has ended.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

from rsocket_broker.plugin_api import App, Device, RequestFailed
from rsocket_broker.plugins.crash_reporter import reports
from rsocket_broker.plugins.crash_reporter.crashes import Crash, Joiner, is_crash

log = logging.getLogger(__name__)

LINGER = 10.0
"""Seconds that the log is still read after the session's end: Android writes a crash report within one or two."""
AGAIN = 5.0
"""Seconds before a device that could not be reached is tried again."""
QUIET = 0.2
"""Seconds without an entry after which a crash has been told in full."""
POLL = 2.0
"""Seconds between two looks into the folder of reports: they are written seconds after a crash."""

Found = Callable[[Crash], None]


class LogWatch:
    """Reads one device's log for the crashes of one app."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self.problem = "The device has not been looked for yet."
        """Why nothing is seen, "" while the log is read."""
        self.pids: frozenset[int] = frozenset()

    async def run(self, app: App) -> None:
        """Until cancelled, through whatever absences of the device."""
        while True:
            try:
                await self._read(await app.device_access(), app.identity.app_id)
                self.problem = "The device's log has ended."
            except RequestFailed as error:
                self.problem = error.public
            await asyncio.sleep(AGAIN)

    async def _read(self, device: Device, app_id: str) -> None:
        joiner, loop = Joiner(), asyncio.get_running_loop()
        later: asyncio.TimerHandle | None = None
        self.pids = await _pids(device, app_id)

        def tell(crash: Crash | None) -> None:
            if crash is not None and self._is_of(crash, app_id):
                self._found(crash)

        async with aclosing(device.log(level="error")) as lines:
            self.problem = ""
            try:
                async for line in lines:
                    if not is_crash(line):
                        continue
                    tell(joiner.take(line))
                    if later is not None:
                        later.cancel()
                    later = loop.call_later(QUIET, lambda: tell(joiner.flush()))
            finally:
                if later is not None:
                    later.cancel()
                tell(joiner.flush())

    def _is_of(self, crash: Crash, app_id: str) -> bool:
        """By the name of the process; where the log does not say it, by its number."""
        if crash.process:
            return crash.process.partition(":")[0] == app_id
        return crash.pid in self.pids


async def _pids(device: Device, app_id: str) -> frozenset[int]:
    try:
        return await device.pids(app_id)
    except RequestFailed:
        return frozenset()


async def watch_reports(folder: Path, app: App, found: Found, now: Callable[[], float]) -> None:
    """Tells of reports about this app that are written from now on, until cancelled. `now` in ms."""
    known = await asyncio.to_thread(reports.new_files, folder, {})
    while True:
        await asyncio.sleep(POLL)
        fresh = await asyncio.to_thread(reports.new_files, folder, known)
        known.update(fresh)
        for name in sorted(fresh):
            content = await asyncio.to_thread(reports.content_of, folder / name)
            report = reports.read_report(name, content, now()) if content else None
            if report is None:
                log.info("the crash report %r could not be read", name)
            elif report.udid == app.identity.device_id.upper() and report.bundle in ("", app.identity.app_id):
                found(report.crash)


class Watcher:
    """The background work for one client, which outlives its session by LINGER seconds."""

    def __init__(self, work: asyncio.Task[None], log_watch: LogWatch | None) -> None:
        self._work = work
        self._log = log_watch
        self._end: asyncio.TimerHandle | None = None

    @property
    def running(self) -> bool:
        """Whether it looks on."""
        return not self._work.done()

    @property
    def problem(self) -> str:
        """Why nothing is seen; "" while all is in order."""
        return self._log.problem if self._log is not None else ""

    def keep(self) -> None:
        """The client is back."""
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def leave(self, linger: float = LINGER) -> None:
        """The client has gone: stop in a while."""
        self.keep()
        self._end = asyncio.get_running_loop().call_later(linger, self._work.cancel)

    async def stop(self) -> None:
        """At once."""
        self.keep()
        self._work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._work
