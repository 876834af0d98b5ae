"""The iOS simulators that run on this Mac, by Xcode's `simctl`: their names, for people."""

import json
import re
import shutil
from typing import Final, NamedTuple

from rsocket_broker.enrollment.command import run

MAX_LISTED: Final = 100
MAX_NAME: Final = 128
_UDID: Final = re.compile(r"[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}", re.ASCII)


class Simulator(NamedTuple):
    """One that is booted. `runtime` as Xcode writes it: `iOS 17.5`."""

    udid: str
    name: str
    runtime: str


async def booted() -> list[Simulator] | None:
    """Those that run now; None where there is no Xcode to ask. Raises CommandFailed with what Xcode says."""
    program = shutil.which("xcrun")
    if program is None:
        return None
    listed = await run(program, ["simctl", "list", "devices", "booted", "--json"])
    return parse(listed.stdout)


def parse(listed: bytes) -> list[Simulator]:
    """What `simctl list devices --json` prints; whatever is not of its form is passed over."""
    try:
        devices = json.loads(listed)["devices"]
        runtimes = list(devices.items())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
    found: list[Simulator] = []
    for runtime, ones in runtimes:
        for one in ones if isinstance(ones, list) else []:
            if not isinstance(one, dict) or one.get("state") != "Booted":
                continue
            udid, name = str(one.get("udid")).upper(), str(one.get("name"))[:MAX_NAME]
            if _UDID.fullmatch(udid) and name.isprintable():
                found.append(Simulator(udid, name, _runtime(str(runtime))))
    return found[:MAX_LISTED]


def _runtime(identifier: str) -> str:
    """`com.apple.CoreSimulator.SimRuntime.iOS-17-5` as people write it."""
    system, _, version = identifier.rpartition(".")[2].partition("-")
    return f"{system} {version.replace('-', '.')}".strip()[:40]
