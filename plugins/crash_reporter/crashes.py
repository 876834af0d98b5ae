"""What a crash is, read from each of its sources, and when two tellings of it are one. Nothing here asks a clock.

crash-report   {"name": "java.lang.IllegalStateException: boom", "reason": "boom", "callstack": "a.b.C.d(C.java:1)…"}
logcat         entries of level fatal, or of level error by AndroidRuntime; those within 50 ms are one crash
"""

import hashlib
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

from rsocket_broker.plugin_api import LogLine
from rsocket_broker.plugin_api.lenient import number, text

MAX_NAME = 1000
"""Characters of a crash's name and of its reason."""
MAX_STACK = 64 * 1024
"""Characters of a call stack: several hundred frames, of all threads of most apps."""
JOINED = 0.05
"""Seconds between two entries of a log that belong to one crash."""
FRAMES = 5
"""Calls at the top that tell one crash from another: the rest is how the app came there."""
TOP = 16 * 1024
"""Characters of a call stack in which those are looked for: a hundred calls. Text without any takes a while to read."""
RUNTIME: Final = "AndroidRuntime"

# Texts, which `re` compiles when they are first used: most brokers never see a crash. No two parts of one that follow
# each other take the same characters without a bound, so that no text of an app's takes long.
_TRACE: Final = r"[ \t]*(?:at |\.\.\. \d+ more|#\d+ )"
_JAVA_FRAME: Final = r"(?m)^[ \t]{0,20}(?:at )?([\w$./<>-]{1,300})\([^()\n]{0,300}\)"
_NATIVE_FRAME: Final = r"#\d{1,4} {1,4}pc {1,4}[0-9a-f]{1,16} {1,8}(\S{1,300})(?: \(([^)+\n]{1,300}))?"
_KIND: Final = r"(?:^|\s)((?:[\w$]{1,100}\.){0,20}[\w$]{0,100}(?:Exception|Error|Throwable|SIG[A-Z]{2,6}))\b"
_PROCESS: Final = (
    r"Process: ([\w.:]{1,255}), PID",
    r">>> ([\w.:]{1,255}) <<<",
    r"pid \d{1,9} \(([\w.:]{1,255})\)",
)


class Crash(NamedTuple):
    """One crash. `time` in milliseconds since 1970; `source` is `app`, `sdk`, `logcat` or `report`.

    `process` is the name of the process as its system writes it, "" where it does not say.
    """

    time: float
    name: str
    reason: str
    callstack: str
    source: str
    process: str = ""
    pid: int = 0

    @property
    def signature(self) -> str:
        """The same for the same crash, whoever tells of it: its kind and the calls at its top, digested. Takes up to
        some milliseconds."""
        top = self.callstack[:TOP]
        whole = f"{self.name}\n{top}"
        frames = [found[1] for found in islice(re.finditer(_JAVA_FRAME, top), FRAMES)]
        if not frames:
            frames = [f"{found[1]} {found[2] or ''}" for found in islice(re.finditer(_NATIVE_FRAME, whole), FRAMES)]
        kind = re.search(_KIND, whole)
        told = [kind[1] if kind else "", *frames] if kind or frames else [re.sub(r"[0-9]+", "", self.name)]
        return hashlib.sha256("\n".join(told).encode("utf-8", "replace")).hexdigest()[:12]

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return 200 + len(self.name) + len(self.reason) + len(self.callstack)


def from_app(params: Mapping[str, Any], now: float) -> Crash:
    """A `crash-report`. Raises Invalid."""
    return Crash(
        number(params, "date") or now,
        text(params, "name", MAX_NAME) or "The app gives no name.",
        text(params, "reason", MAX_NAME),
        text(params, "callstack", MAX_STACK),
        "app",
    )


def from_sdk(said: str, stack: str, now: float) -> Crash:
    """An error that the app's SDK reports outside any request."""
    return Crash(now, said[:MAX_NAME], said[:MAX_NAME], stack[:MAX_STACK], "sdk")


def is_crash(line: LogLine) -> bool:
    """Whether an entry of a log belongs to a crash."""
    return line.level == "fatal" or (line.level == "error" and line.tag == RUNTIME)


class Joiner:
    """Entries of a device's log in, crashes out."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._size = 0
        self._first: LogLine | None = None
        self._last = 0.0

    def take(self, line: LogLine) -> Crash | None:
        """One entry in its order: the crash that ends before it, if any."""
        if not is_crash(line):
            return None
        before = self.flush() if self._first is not None and line.time - self._last >= JOINED else None
        if self._first is None:
            self._first = line
        self._last = line.time
        if self._size < MAX_STACK:
            self._lines.append(line.message)
            self._size += len(line.message) + 1
        return before

    def flush(self) -> Crash | None:
        """The crash that was being told, when nothing came for a while."""
        first, lines = self._first, self._lines
        self._first, self._lines, self._size = None, [], 0
        if first is None:
            return None
        whole = "\n".join(lines)[:MAX_STACK]
        reasons = [line for line in lines if line.strip() and not re.match(_TRACE, line)]
        process = next((found[1] for pattern in _PROCESS if (found := re.search(pattern, whole))), "")
        reason = reasons[-1].strip() if reasons else ""
        return Crash(first.time * 1000, lines[0][:MAX_NAME], reason[:MAX_NAME], whole, "logcat", process, first.pid)
