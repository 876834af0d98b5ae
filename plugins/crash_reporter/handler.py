"""The plugin `CrashReporter`: crashes of apps by everybody who tells of them, each once."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import attrs

from rsocket_broker.plugin_api import App, ApplicationError, Invalid, Plugin, Principal, event, method
from rsocket_broker.plugin_api.history import History
from rsocket_broker.plugins.crash_reporter import crashes
from rsocket_broker.plugins.crash_reporter.crashes import Crash

if TYPE_CHECKING:
    from rsocket_broker.plugins.crash_reporter.watch import Watcher

KEPT, KEPT_BYTES = 200, 2 * 1024 * 1024
"""Crashes of one app that are kept, and their bytes."""
CLIENTS = 256
"""Clients whose crashes are kept after they have left: a crash is asked for when its app is gone."""
SAME = 10_000.0
"""Milliseconds within which two sources that tell of the same crash tell of one."""
MAX_SETTLE = 60.0
"""Seconds that `none` may wait for late tellers."""


@attrs.frozen
class Settings:
    """`[plugins.CrashReporter]`."""

    logcat: bool = True
    """Whether the log of an app's device is read for its crashes."""
    reports: str = ""
    """Folder with the crash reports of this Mac; "" for none. Usually ~/Library/Logs/DiagnosticReports."""


class Kept(NamedTuple):
    """A crash that is kept, and its signature: to make that anew for each that is compared takes seconds."""

    crash: Crash
    signature: str


class CrashLog:
    """The crashes of one client, over all its sessions."""

    def __init__(self) -> None:
        self.history = History[Kept](KEPT, KEPT_BYTES)
        self.watcher: Watcher | None = None
        self.sessions = 0
        """How many of the client's sessions there are now."""

    def add(self, crash: Crash) -> None:
        """Keeps a crash, unless another source has just told of it."""
        told = Kept(crash, crash.signature)
        known = [one for _, one in self.history.items() if one.signature == told.signature]
        if any(one.crash.source != crash.source and abs(crash.time - one.crash.time) <= SAME for one in known):
            return
        self.history.add(told, crash.size)


class CrashReporter(Plugin):
    """Serves apps with and without the SDK's own plugin: the device tells of their crashes too."""

    id = "CrashReporter"
    needs_app = False
    settings: Settings

    def __init__(self) -> None:
        self._logs: dict[Principal, CrashLog] = {}

    # --- what is told ------------------------------------------------------------------------------------------------

    def on_connect(self, app: App) -> None:
        log = self._log(app)
        log.sessions += 1
        if log.watcher is not None and log.watcher.running:
            log.watcher.keep()
        else:
            log.watcher = self._watch(app, log)

    def on_disconnect(self, app: App) -> None:
        log = self._log(app)
        log.sessions -= 1
        if log.sessions <= 0 and log.watcher is not None:
            log.watcher.leave()

    @event("crash-report")
    def crash_report(self, app: App, params: dict[str, Any]) -> None:
        self._log(app).add(crashes.from_app(params, _now()))

    def on_app_error(self, app: App, text: str, stack: str) -> None:
        self._log(app).add(crashes.from_sdk(text, stack, _now()))

    def _watch(self, app: App, log: CrashLog) -> "Watcher | None":
        """What looks on for this client, if anything can."""
        from rsocket_broker.plugins.crash_reporter.watch import LogWatch, Watcher, watch_reports  # not at every start

        if app.os == "Android" and self.settings.logcat:
            logs = LogWatch(log.add)
            return Watcher(self.spawn(logs.run(app)), logs)
        if app.os == "iOS" and self.settings.reports:
            folder = Path(self.settings.reports).expanduser()
            return Watcher(self.spawn(watch_reports(folder, app, log.add, _now)), None)
        return None

    def _log(self, app: App) -> CrashLog:
        principal = app.identity.principal
        log = self._logs.pop(principal, None)
        if log is None:
            log = CrashLog()
            for old in [key for key, one in self._logs.items() if one.sessions <= 0][: len(self._logs) - CLIENTS + 1]:
                del self._logs[old]
        self._logs[principal] = log  # the newest last
        return log

    # --- what is asked -----------------------------------------------------------------------------------------------

    @method("list")
    async def crashes(self, app: App, after: int = 0, client: str = "") -> dict[str, object]:
        """The crashes with a number above `after`, oldest first; `newest` is the number to go on from.

        `problem` says why the device's log is not read; "" when it is, or nothing is to be read.
        """
        log = self._log(await app.reach(client, "list"))
        return {
            "crashes": [shown(number, told) for number, told in log.history.items(after)],
            "newest": log.history.newest,
            "dropped": log.history.dropped,
            "problem": log.watcher.problem if log.watcher is not None else "",
        }

    @method("follow")
    async def follow(self, app: App, after: int = 0, client: str = "") -> AsyncIterator[dict[str, object]]:
        """Crashes with a number above `after`, and each one as it comes."""
        history = self._log(await app.reach(client, "follow")).history
        async for number, told in history.follow(after):
            yield shown(number, told)

    @method("wait", deadline=None)
    async def wait(self, app: App, after: int = 0, timeout: float = 10.0, client: str = "") -> dict[str, object]:
        """The first crash with a number above `after`. Raises Canceled when there is none within `timeout` seconds."""
        history = self._log(await app.reach(client, "wait")).history
        return shown(*await history.wait(lambda told: True, after, timeout, "crash"))

    @method("none", deadline=None)
    async def none(self, app: App, after: int = 0, settle: float = 0.0, client: str = "") -> dict[str, object]:
        """Raises ApplicationError, naming them, when there are crashes with a number above `after`.

        `settle` seconds are waited for those who tell late: a device's log is a second behind.
        """
        if not 0 <= settle <= MAX_SETTLE:
            raise Invalid(f"settle: wanted 0 to {MAX_SETTLE:g} seconds.")
        history = self._log(await app.reach(client, "none")).history
        if settle and not history.items(after):
            await asyncio.sleep(settle)
        found = history.items(after)
        if found:
            named = "; ".join(f"{told.crash.name} ({told.crash.reason})" for _, told in found[:5])
            raise ApplicationError(f"{len(found)} {_CRASHES[len(found) > 1]}: {named}")
        return {"newest": history.newest}


_CRASHES: Final = ("crash", "crashes")


def shown(number: int, told: Kept) -> dict[str, object]:
    """A crash as JSON."""
    return {"number": number, **told.crash._asdict(), "signature": told.signature}


def _now() -> float:
    """Milliseconds since 1970."""
    return time.time() * 1000
