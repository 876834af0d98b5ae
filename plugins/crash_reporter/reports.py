"""Crash reports that a Mac writes for the apps of its simulators: `.ips` (JSON) and `.crash` (text).

    ~/Library/Logs/DiagnosticReports/Shop-2024-06-10-080000.ips

Reading text is pure; looking into the folder is at the end, and blocks: call it on a thread.
"""

import json
import os
import re
import stat
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from rsocket_broker.plugins.crash_reporter.crashes import MAX_NAME, MAX_STACK, Crash

MAX_FILE = 4 * 1024 * 1024
"""Bytes of one report: those of apps with a hundred threads have one."""
MAX_FILES = 2000
"""Files of a folder that are looked at: macOS keeps a few dozen."""
SUFFIXES: Final = (".ips", ".crash")

_UDID: Final = re.compile(r"/Devices/([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})/")
_FIELD: Final = re.compile(r"^([A-Za-z/ ]{1,40}):[ \t]+(.+)$", re.MULTILINE)


class Report(NamedTuple):
    """A crash of a simulator's app. `udid` and `bundle` are "" where the report does not say."""

    crash: Crash
    udid: str
    bundle: str


def read_report(name: str, content: str, now: float) -> Report | None:
    """The report in a file of this name; None where it is none. `now` in ms stands for a date that cannot be read."""
    try:
        return _ips(content, now) if name.endswith(".ips") else _text(content, now)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _ips(content: str, now: float) -> Report:
    """Two JSON objects, one behind the other: a line with the app's names, and the report."""
    head, _, rest = content.partition("\n")
    about, body = json.loads(head), json.loads(rest)
    path, exception = str(body["procPath"]), body.get("exception") or {}
    kind, signal = str(exception.get("type") or ""), str(exception.get("signal") or "")
    name = " ".join(part for part in (kind, f"({signal})" if signal else "") if part) or "Crash"
    return _report(
        name,
        _reason(body),
        path,
        str(body.get("captureTime") or ""),
        str(about.get("bundleID") or ""),
        _ips_stack(body),
        int(body.get("pid") or 0),
        now,
    )


def _reason(body: Mapping[str, Any]) -> str:
    """What the app itself said, else how it was ended."""
    said = (body.get("asi") or {}).values()
    lines = [str(line) for value in said if isinstance(value, list) for line in value]
    ended = body.get("termination") or {}
    return "; ".join(lines) or str(ended.get("indicator") or "")


def _ips_stack(body: Mapping[str, Any]) -> str:
    """The calls of the thread that failed, one a line."""
    images = body.get("usedImages") or []
    threads = body.get("threads") or []
    at = body.get("faultingThread", 0)
    frames = threads[at].get("frames", []) if isinstance(at, int) and 0 <= at < len(threads) else []
    lines = []
    for place, frame in enumerate(frames[:500]):
        index = frame.get("imageIndex", -1)
        image = images[index].get("name", "?") if isinstance(index, int) and 0 <= index < len(images) else "?"
        lines.append(f"#{place:02d} pc {int(frame.get('imageOffset') or 0):x} {image} ({frame.get('symbol') or '?'})")
    return "\n".join(lines)


def _text(content: str, now: float) -> Report:
    fields: dict[str, str] = {}
    for key, value in _FIELD.findall(content[:MAX_STACK]):
        fields.setdefault(key.strip(), value.strip())
    return _report(
        fields["Exception Type"],
        fields.get("Termination Reason", ""),
        fields["Path"],
        fields.get("Date/Time", ""),
        fields.get("Identifier", ""),
        content,
        0,
        now,
    )


def _report(name: str, reason: str, path: str, date: str, bundle: str, stack: str, pid: int, now: float) -> Report:
    found = _UDID.search(path)
    crash = Crash(_time(date, now), name[:MAX_NAME], reason[:MAX_NAME], stack[:MAX_STACK], "report", path[-255:], pid)
    return Report(crash, found[1].upper() if found else "", bundle)


def _time(date: str, now: float) -> float:
    for form in ("%Y-%m-%d %H:%M:%S.%f %z", "%Y-%m-%d %H:%M:%S %z"):
        try:
            return datetime.strptime(date, form).timestamp() * 1000
        except ValueError:
            continue
    return now


def new_files(folder: Path, known: Mapping[str, float]) -> dict[str, float]:
    """Names and times of change of the reports in a folder that are not in `known`; none where it cannot be read."""
    found: dict[str, float] = {}
    try:
        with os.scandir(folder) as entries:
            for _, entry in zip(range(MAX_FILES), entries, strict=False):
                if entry.name.endswith(SUFFIXES) and entry.is_file(follow_symlinks=False):
                    changed = entry.stat(follow_symlinks=False).st_mtime
                    if known.get(entry.name) != changed:
                        found[entry.name] = changed
    except OSError:
        return found
    return found


def content_of(path: Path) -> str:
    """The text of a report; "" where it is no plain file, too large or gone. A link is not followed."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    with os.fdopen(handle, "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_FILE:
            return ""
        return file.read(MAX_FILE).decode("utf-8", "replace")
