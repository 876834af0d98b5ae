"""An attached Android device as plugins see it. Every command is a list of arguments, quoted as one for its shell."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from rsocket_broker.enrollment import logcat
from rsocket_broker.enrollment.mediums import adb_stream
from rsocket_broker.enrollment.mediums.adb_container import PACKAGE
from rsocket_broker.enrollment.mediums.adb_shell import AdbProblem, AdbServer, Output
from rsocket_broker.errors import ApplicationError, Invalid
from rsocket_broker.plugin_api.device import Device, LogLine, at_least, check_link

MAX_PICTURE = 32 * 1024 * 1024
"""Bytes of a screenshot: a tablet's, of noise, in PNG."""
PICTURE_LIMIT = 20.0
"""Seconds for a screenshot over Wi-Fi."""
MAX_SAID = 300
"""Characters that are passed on of what a device says when it refuses."""
_PNG = b"\x89PNG\r\n\x1a\n"


class AndroidDevice(Device):
    """The device that the adb server calls `serial` now."""

    def __init__(self, server: AdbServer, serial: str) -> None:
        self._server = server
        self._serial = serial

    @property
    def serial(self) -> str:
        return self._serial

    async def open_link(self, uri: str, app_id: str) -> None:
        uri, package = check_link(uri), _package(app_id)
        said = await self._run(["am", "start", "-a", "android.intent.action.VIEW", "-d", uri, package])
        text = said.text
        # Before Android 9 `am` ends with 0 whatever happens.
        problem = next((line for line in text.splitlines() if line.strip().startswith("Error")), "")
        if problem or said.code != 0:
            raise ApplicationError(f"{self._serial} did not open the link: {_short(problem or text)}")

    async def log(self, since: float | None = None, level: str = "unknown") -> AsyncGenerator[LogLine, None]:
        wanted = at_least(level)
        clock = await self._clock()
        start = clock.now if since is None else since
        arguments = ["logcat", "-v", "threadtime"]
        if start > 0:
            arguments += ["-T", logcat.local_text(start, clock)]
        arguments.append(f"*:{logcat.priority(level)}")
        try:
            async with aclosing(adb_stream.lines(self._server.address, self._serial, arguments)) as lines:
                async for line in lines:
                    entry = logcat.parse(line, clock)
                    if entry is not None and entry.level in wanted:
                        yield entry
        except AdbProblem as problem:
            raise self._problem(problem) from problem

    async def pids(self, app_id: str) -> frozenset[int]:
        package = _package(app_id)
        said = await self._run(["ps", "-A", "-o", "PID,NAME"])
        if said.code != 0 or b"PID" not in said.output:  # before Android 8 it knows no options
            said = await self._run(["ps"])
        return processes(said.output.decode("utf-8", "replace"), package)

    async def screenshot(self) -> bytes:
        try:
            picture = await adb_stream.whole(
                self._server.address, self._serial, ["screencap", "-p"], MAX_PICTURE, PICTURE_LIMIT
            )
        except AdbProblem as problem:
            raise self._problem(problem) from problem
        if not picture.startswith(_PNG):
            raise ApplicationError(
                f"{self._serial} gave no picture: {_short(picture[:MAX_SAID].decode(errors='replace'))}"
            )
        return picture

    async def _clock(self) -> logcat.DeviceClock:
        said = await self._run(["date", logcat.CLOCK_FORMAT])
        clock = logcat.read_clock(said.output.decode("utf-8", "replace"))
        if clock is None:
            raise ApplicationError(f"{self._serial} does not tell the time: {_short(said.text)}")
        return clock

    async def _run(self, arguments: Sequence[str]) -> Output:
        try:
            return await self._server.run(self._serial, arguments)
        except AdbProblem as problem:
            raise self._problem(problem) from problem

    def _problem(self, problem: AdbProblem) -> ApplicationError:
        return ApplicationError(f"{self._serial}: {problem.public.removesuffix('.')}. Check that it is attached.")


def processes(table: str, package: str) -> frozenset[int]:
    """The processes of a package in what `ps` prints: its own, and those that it named `package:something`."""
    header, *rows = table.splitlines() or [""]
    names = header.split()
    if "PID" not in names:
        return frozenset()
    column = names.index("PID")
    found = set()
    for row in rows:
        cells = row.split()
        if len(cells) > column and cells[-1].partition(":")[0] == package and cells[column].isdecimal():
            found.add(int(cells[column]))
    return frozenset(found)


def _package(app_id: str) -> str:
    if PACKAGE.fullmatch(app_id) is None:
        raise Invalid("The client's id is not a name that an Android app can have.")
    return app_id


def _short(text: str) -> str:
    return " ".join(text.split())[:MAX_SAID] or "it gave no reason"
