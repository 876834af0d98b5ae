"""What `doctor` looks at: every check gives findings, goes on after a fault, and changes nothing.

A check that needs the running broker asks it; one that needs a device gives it a time limit.
"""

import asyncio
import contextlib
import enum
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs

from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.authority import Authority
from rsocket_broker.authority.ends import Foreseen
from rsocket_broker.broker import load_mediums
from rsocket_broker.enrollment.command import CommandFailed
from rsocket_broker.enrollment.devices import DeviceRegistry
from rsocket_broker.enrollment.exchange import CLOCK_TOLERANCE
from rsocket_broker.enrollment.forwards import READY
from rsocket_broker.enrollment.journal import Journal
from rsocket_broker.enrollment.mediums.adb_shell import AdbAbsent, AdbProblem, AdbServer, server_address
from rsocket_broker.enrollment.modes import PORTS
from rsocket_broker.enrollment.simulators import booted
from rsocket_broker.errors import BrokerError
from rsocket_broker.moments import utc_now
from rsocket_broker.routing.policy_files import PolicyFiles
from rsocket_broker.settings import LOCALHOST, Settings
from rsocket_broker.state import STATE_FILE, State
from rsocket_broker.transports.binding import Options, bind_tcp

STATE_REMEDIES = {
    "unauthorized": "Allow USB debugging on its screen.",
    "authorizing": "Allow USB debugging on its screen.",
    "offline": "Plug it in again, or run `adb reconnect offline`.",
}


LATELY = timedelta(hours=1)
"""How old a warning may be. Whoever asks has just tried something, or was told of it a moment ago."""


class Level(enum.Enum):
    """OK; WARNING: works, or mends itself, but should be known; PROBLEM: does not work until somebody mends it."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@attrs.frozen(slots=True)
class Symptom:
    """One thing that was looked at. `detail` says how it is, and for all but OK what to do."""

    what: str
    level: Level
    detail: str = ""


def ok(what: str, detail: str = "") -> Symptom:
    return Symptom(what, Level.OK, detail)


def warning(what: str, detail: str) -> Symptom:
    return Symptom(what, Level.WARNING, detail)


def problem(what: str, detail: str) -> Symptom:
    return Symptom(what, Level.PROBLEM, detail)


def guarded(what: str, check: Callable[[], Iterable[Symptom]]) -> list[Symptom]:
    """The findings of a check; a BrokerError that ends it is the last of them, unless it has been found already."""
    found: list[Symptom] = []
    try:
        found.extend(check())  # extend keeps what came before the error
    except BrokerError as error:
        if all(each.detail != error.public for each in found):
            found.append(problem(what, error.public))
    return found


def check_home(home: Path, now: datetime) -> Iterator[Symptom]:
    """Modes, keys, certificates and database of a home that has been started once."""
    if not home.exists() or not (home / STATE_FILE).exists():
        ground = next(path for path in (home, *home.parents) if path.exists())
        if os.access(ground, os.W_OK | os.X_OK):
            yield ok("home", f"{home} is new: the first `rsocket-broker serve` makes it")
        else:
            yield problem("home", f"{home} cannot be made: this user may not write in {ground}. Use another --home.")
        return
    for finding in Authority.verify_home(home):
        yield problem(finding.what, finding.problem) if finding.problem else ok(finding.what)
    with State.open(home / STATE_FILE) as state:
        authority = Authority.open(home, state, clock=lambda: now, create=False)
        yield from check_clock_by(authority.certificate.not_valid_before_utc, now)
        yield from check_ends(authority.foreseen())
        yield from check_journal(Journal(state))


def check_clock_by(begin: datetime, now: datetime) -> Iterator[Symptom]:
    """This machine's clock against the first day of the CA's certificate."""
    if now < begin:
        yield problem(
            "clock",
            f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC, but the CA was made after that, on {begin:%Y-%m-%d}. "
            "Set the clock.",
        )


def check_ends(ends: Iterable[Foreseen]) -> Iterator[Symptom]:
    """What the operator has to renew, since nobody else can."""
    for each in ends:
        yield problem("CA near its end", each.text) if each.urgent else warning("CA too old for some", each.text)


def check_journal(journal: Journal) -> Iterator[Symptom]:
    pending = journal.pending()
    for entry in pending:
        yield warning(
            "deployment",
            f"to {entry.container.principal}, begun {entry.started:%Y-%m-%d %H:%M} UTC, is half-done. Start the broker"
            f"{' and attach the device' if entry.container.medium == 'adb' else ''}: it is then settled by itself.",
        )
    if not pending:
        yield ok("deployments", "none is half-done")


def check_mediums(settings: Settings) -> Iterator[Symptom]:
    """Whether each driver can be made; nothing that they would note is kept."""
    with tempfile.TemporaryDirectory() as folder, State.open(Path(folder) / STATE_FILE) as state:
        mediums = load_mediums(settings, DeviceRegistry(state))
    for name, reason in mediums.broken.items():
        yield problem(f"medium driver {name}", reason)
    if not mediums.broken:
        yield ok("medium drivers", ", ".join(sorted(mediums.offered)))


def check_run_folder(folder: RunFolder) -> Iterator[Symptom]:
    """Whether a broker runs, and what one that was killed has left."""
    holder = folder.holder()
    if holder is not None:
        yield ok("broker", f"runs here (pid {holder})")
        return
    leftovers = folder.leftovers()
    if leftovers:
        names = ", ".join(path.name for path in leftovers)
        yield warning(
            "broker",
            f"the last one was killed and left {names} in {folder.path}. The next `rsocket-broker serve` clears it.",
        )
    else:
        yield ok("broker", "none runs here")


async def check_ports(settings: Settings) -> AsyncIterator[Symptom]:
    """Whether `serve` could listen where it is told to; for a home on which no broker runs."""
    listen = settings.listen
    for what, host, port, options in (
        ("insecure port", listen.plain_host, listen.insecure_port, Options("--insecure-host", "--insecure-port")),
        ("secure port", listen.host, listen.secure_port, Options("--host", "--secure-port")),
        (
            "WebSocket insecure port",
            listen.plain_host,
            listen.ws_insecure_port,
            Options("--insecure-host", "--ws-insecure-port"),
        ),
        ("WebSocket port", listen.host, listen.ws_secure_port, Options("--host", "--ws-secure-port")),
        ("HTTP port", LOCALHOST, listen.http_port, Options("--http-port", "--http-port")),
        ("browser port", LOCALHOST, listen.browser_port, Options("--browser-port", "--browser-port")),
    ):
        if port is None:
            yield ok(what, "switched off")
            continue
        try:
            bound = await bind_tcp(host, port, options=options)
        except BrokerError as error:
            yield problem(what, error.public)
            continue
        for one in bound:
            one.close()
        yield ok(what, f"{port} is free" if port else "any free one")


def check_policy(settings: Settings) -> Iterator[Symptom]:
    """Whether the files of the policy can be read as they are now."""
    policy = PolicyFiles(settings.home, settings.vendor_policy, settings.allow_relay).read().policy
    sources = ", ".join(layer.source for layer in policy.layers)
    yield ok("policy", f"{len(list(policy.rules))} rules from {sources}")


def check_plugins_running(status: dict[str, Any]) -> Iterator[Symptom]:
    """Plugins of the running broker that are down, were restarted, or have held everybody up."""
    for one in status.get("plugins", ()):
        if one["retry_after"] is not None or one["state"] != "up":
            when = "is being started" if one["retry_after"] is None else f"is tried again in {one['retry_after']:g} s"
            yield problem(f"plugin {one['id']}", f"it is down after failures ({one['last_error']}), and {when}.")
        elif one["restarts"]:
            text = f"it was restarted {one['restarts']} times; what failed last: {one['last_error']}."
            yield warning(f"plugin {one['id']}", text)
        if one["blocked"]:
            yield warning(
                f"plugin {one['id']}",
                f"it has held everybody up {one['blocked']} times. The log names the lines: they want await, or "
                "asyncio.to_thread.",
            )


def check_policy_in_force(status: dict[str, Any]) -> Iterator[Symptom]:
    """What keeps the running broker from taking up the files as they are now."""
    if status["policy"]["problem"]:
        since = status["policy"]["since"]
        yield problem(
            "policy in force",
            f"it is that of {since}, since the files have a fault by now: {status['policy']['problem']} Mend that, and "
            "the broker takes them up by itself.",
        )


def check_running(status: dict[str, Any]) -> Iterator[Symptom]:
    """What the broker that runs says of itself. A port that somebody has closed is no fault, but should be known."""
    ports = status["ports"]
    named = {
        "enrolment": "insecure_port",
        "sessions": "secure_port",
        "enrolment over WebSocket": "ws_insecure_port",
        "WebSocket": "ws_secure_port",
        "HTTP": "http_port",
        "browsers": "browser_port",
    }
    opened = ", ".join(f"{what} on {ports[key]}" for what, key in named.items() if ports[key])
    yield ok("ports", f"{opened or 'all are closed'}; {ports['host']}")
    mode = status["enrollment"]["mode"]
    closed = [each["name"] for each in status["listeners"] if each["port"] and not each["open"]]
    told = [f"{name} (by window)" if name in PORTS and mode == "window" else name for name in closed]
    if [name for name in told if name in closed]:
        yield warning("listeners", f"closed: {', '.join(told)}. Open one with: rsocket-broker listeners open NAME")
    elif told:
        yield ok("listeners", f"closed: {', '.join(told)}")
    yield ok("enrolment", f"mode {mode}")
    for device in status["adb"]["devices"]:
        what = f"device {device['serial']}"
        yield problem(what, f"{device['problem']}.") if device["problem"] else ok(what, "its ports are forwarded")


def check_silence(status: Mapping[str, Any]) -> Iterator[Symptom]:
    """A device is there, its ports lead here, and yet nobody comes: the app cannot, or does not try."""
    ready = [each["serial"] for each in status["adb"]["devices"] if not each["problem"]]
    if ready and not status["sessions"] and not status["warnings"]:
        yield warning(
            "apps",
            f"{', '.join(ready)} can reach this broker, and no app has come so far. An app needs the permission "
            "INTERNET, cleartext traffic to localhost (its network security configuration) and its SDK started, which "
            "release builds seldom do. Start the app again: it looks for the broker when it starts.",
        )


def check_warnings(warnings: Iterable[Mapping[str, Any]], now: datetime) -> Iterator[Symptom]:
    """What the broker has warned of lately, in its own words. What is long over is no matter for a diagnosis."""
    told = [each for each in warnings if now - datetime.fromisoformat(each["last"]) <= LATELY]
    for each in told:
        moment = datetime.fromisoformat(each["last"])
        times = f", {each['times']} times" if each["times"] > 1 else ""
        yield warning(f"at {moment:%H:%M:%S} UTC{times}", each["text"])
    if not told:
        yield ok("warnings", f"none in the last {LATELY.total_seconds() / 60:.0f} minutes")


async def check_adb(
    setting: str, now: Callable[[], datetime] = utc_now, *, on_loopback: bool = False
) -> AsyncIterator[Symptom]:
    """The adb server, the devices that it sees, their clocks, and where their apps look for us. No server is a fault
    only where one was named."""
    address = server_address(setting)
    if address is None:
        yield ok("adb", "switched off")
        return
    server = AdbServer(address)
    try:
        devices = await server.devices()
    except AdbAbsent as error:
        text = error.public if setting != "auto" else f"{error.public} Only apps on Android devices need it."
        yield problem("adb", text) if setting != "auto" else warning("adb", text)
        return
    except AdbProblem as error:
        yield problem("adb", f"{error.public}. Run: adb kill-server && adb start-server")
        return
    yield ok("adb", f"the server at {address[0]}:{address[1]} sees {len(devices)} devices")
    looked_at = (
        check_clock(server, device.serial, now) if device.state == READY else check_state(device.serial, device.state)
        for device in devices
    )
    for symptom in await asyncio.gather(*looked_at):
        yield symptom
    if on_loopback:
        ready = [device.serial for device in devices if device.state == READY]
        for found in await asyncio.gather(*(check_host(server, serial) for serial in ready)):
            if found is not None:
                yield found


async def check_state(serial: str, state: str) -> Symptom:
    remedy = STATE_REMEDIES.get(state, "Check `adb devices`.")
    return problem(f"device {serial}", f"it is {state}. {remedy}")


async def check_host(server: AdbServer, serial: str) -> Symptom | None:
    """A device whose apps dial another address of this machine than loopback, which the reverse forwards lead to."""
    with contextlib.suppress(AdbProblem):
        maker = await server.run(serial, ["getprop", "ro.product.manufacturer"])
        if maker.text.strip().lower() == "genymotion":
            return warning(
                f"device {serial}",
                "it is a Genymotion device, whose apps dial this machine's address in the virtual network and not "
                "localhost. If they do not come: rsocket-broker serve --host 0.0.0.0 --insecure-host 0.0.0.0",
            )
    return None


async def check_clock(server: AdbServer, serial: str, now: Callable[[], datetime]) -> Symptom:
    """A device whose clock is far off finds every certificate too new or too old."""
    what = f"device {serial}"
    try:
        answer = await server.run(serial, ["date", "+%s"])
    except AdbProblem as error:
        return problem(what, f"{error.public}. Check that it is unlocked and answers `adb shell date`.")
    text = answer.text
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        return ok(what)
    theirs, ours = datetime.fromtimestamp(int(text), UTC), now()
    if abs(theirs - ours) <= CLOCK_TOLERANCE:
        return ok(what, "its clock agrees with ours")
    return problem(
        what, f"its clock says {theirs:%Y-%m-%d %H:%M} UTC, ours {ours:%Y-%m-%d %H:%M} UTC. Set the one that is wrong."
    )


async def check_simulators() -> AsyncIterator[Symptom]:
    """The iOS simulators that run, where there is an Xcode."""
    try:
        found = await booted()
    except CommandFailed as error:
        yield warning("simulators", f"{error.public} Run: xcode-select --install")
        return
    if found is not None:
        names = ", ".join(f"{one.name} ({one.runtime}, {one.udid})" for one in found)
        yield ok("simulators", names or "none is booted")
