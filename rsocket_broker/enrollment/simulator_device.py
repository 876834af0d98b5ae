"""An iOS simulator as plugins see it, by Xcode's `simctl`. Every command is a list of arguments; there is no shell."""

import json
import re
import shutil
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Final

from rsocket_broker.enrollment.command import MAX_SAID, TIMEOUT_S, CommandFailed, run, started, words
from rsocket_broker.errors import ApplicationError, Invalid
from rsocket_broker.plugin_api.device import Device, LogLine, at_least, check_link

MAX_OUTPUT = 32 * 1024 * 1024
"""Bytes read of one command: a picture of the largest iPad's screen."""
MAX_LINE = 256 * 1024
"""Bytes of one log entry as JSON."""

_BUNDLE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_LEVELS: Final = {"debug": "debug", "info": "info", "default": "info", "error": "error", "fault": "fatal"}
_TIME: Final = "%Y-%m-%d %H:%M:%S.%f%z"


class SimulatorDevice(Device):
    """The simulator with this UDID, on this Mac."""

    def __init__(self, udid: str) -> None:
        self._udid = udid

    @property
    def serial(self) -> str:
        return self._udid

    async def open_link(self, uri: str, app_id: str) -> None:
        """The system chooses the app by the link's scheme: `simctl` cannot be told one."""
        await self._simctl(["openurl", self._udid, check_link(uri)])

    async def log(self, since: float | None = None, level: str = "unknown") -> AsyncGenerator[LogLine, None]:
        """What the simulator remembers is asked for first, and then what comes: what comes in between is not seen."""
        wanted = at_least(level)
        if since is not None:
            show = ["spawn", self._udid, "log", "show", "--style", "ndjson", "--info", "--debug"]
            show += ["--start", f"@{max(0, int(since))}"]
            async with aclosing(self._lines(show)) as lines:
                async for line in lines:
                    entry = parse(line)
                    if entry is not None and entry.time >= since and entry.level in wanted:
                        yield entry
        follow = ["spawn", self._udid, "log", "stream", "--style", "ndjson", "--level", "debug"]
        async with aclosing(self._lines(follow)) as lines:
            async for line in lines:
                if (entry := parse(line)) is not None and entry.level in wanted:
                    yield entry

    async def pids(self, app_id: str) -> frozenset[int]:
        if _BUNDLE.fullmatch(app_id) is None:
            raise Invalid("The client's id is not a name that an iOS app can have.")
        listed = await self._simctl(["spawn", self._udid, "launchctl", "list"])
        return processes(listed.decode("utf-8", "replace"), app_id)

    async def screenshot(self) -> bytes:
        return await self._simctl(["io", self._udid, "screenshot", "--type=png", "-"])

    async def _simctl(self, arguments: Sequence[str]) -> bytes:
        """Raises ApplicationError with what the tool says."""
        try:
            return (await run(_xcrun(), ["simctl", *arguments], TIMEOUT_S, MAX_OUTPUT)).stdout
        except CommandFailed as error:
            raise ApplicationError(f"The simulator {self._udid} did not do it: {error.public}") from error

    async def _lines(self, arguments: Sequence[str]) -> AsyncGenerator[bytes, None]:
        async with started(_xcrun(), ["simctl", *arguments], MAX_LINE) as child:
            assert child.stdout is not None
            while True:
                try:
                    line = await child.stdout.readline()
                except ValueError:  # an entry longer than MAX_LINE: it is passed over
                    continue
                if not line:
                    break
                yield line
            if await child.wait() != 0:
                assert child.stderr is not None
                said = words(await child.stderr.read(MAX_SAID)) or "no reason given"
                raise ApplicationError(f"The log of the simulator {self._udid} cannot be read: {said}")


def _xcrun() -> str:
    """Raises ApplicationError where there is no Xcode."""
    program = shutil.which("xcrun")
    if program is None:
        raise ApplicationError("A simulator is reached with Xcode's tools, and there is no xcrun here: install Xcode.")
    return program


def processes(listed: str, bundle: str) -> frozenset[int]:
    """The processes of an app in what `launchctl list` prints: pid, status, label; `-` where it does not run."""
    found = set()
    for row in listed.splitlines():
        pid, _, label = row.partition("\t")
        label = label.rpartition("\t")[2]
        name = label.removeprefix("UIKitApplication:").partition("[")[0]
        if label.startswith("UIKitApplication:") and name == bundle and pid.isdecimal():
            found.add(int(pid))
    return frozenset(found)


def parse(line: bytes) -> LogLine | None:
    """One entry of `log --style ndjson`; None for anything else that it prints."""
    try:
        entry = json.loads(line)
        time = datetime.strptime(entry["timestamp"], _TIME).timestamp()
        pid, tid = int(entry["processID"]), int(entry.get("threadID") or 0)
        message = str(entry.get("eventMessage") or "")
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    level = _LEVELS.get(str(entry.get("messageType") or "default").lower(), "unknown")
    tag = entry.get("subsystem") or str(entry.get("processImagePath") or "").rpartition("/")[2]
    return LogLine(time, pid, tid, level, str(tag), message)
