"""What `doctor --production` asks of what the broker shows to the outside: ports, enrolment, policy, plugins."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsocket_broker.cli.production import Judgement, is_open_to_others, must, ok, should
from rsocket_broker.enrollment.modes import Mode
from rsocket_broker.policy.default import SOURCE as DEFAULT
from rsocket_broker.policy.rules import Direction, Effect, Rule
from rsocket_broker.routing.policy_files import PolicyFiles
from rsocket_broker.routing.registry import LoadedPlugin
from rsocket_broker.settings import Settings, is_loopback

Status = Mapping[str, Any]
"""What a broker that runs says of itself."""


def judge_enrollment(settings: Settings, status: Status | None) -> Iterator[Judgement]:
    """The plain port, where strangers ask for certificates."""
    what = "enrolment"
    mode = settings.mode if status is None or not status.get("enrollment") else Mode(status["enrollment"]["mode"])
    where = settings.listen.plain_host
    if mode is Mode.OPEN:
        text = f"anyone who reaches the port on {where} may enrol. "
        yield must(what, text + 'Set enrollment = "window" or "token" below [serve] in config.toml.')
    elif is_loopback(where):
        yield ok(what, f"by {mode.value}, on {where}")
    elif mode is Mode.TOKEN:
        yield ok(what, f"by token, on {where}")
    else:
        text = f"whoever is first on the network while the window is open enrols, on {where}. "
        yield should(what, text + 'Set enrollment = "token", or take insecure-host out of config.toml.')
    if status is not None and status.get("enrollment", {}).get("window"):
        yield should("window", "it is open now. Close it when you are done: rsocket-broker enrollment close")


def judge_ports(settings: Settings, status: Status | None) -> Iterator[Judgement]:
    """What listens where: by the settings, or, where a broker runs, what it says."""
    listen = settings.listen
    ports = {"host": listen.host, "http_port": listen.http_port, "browser_port": listen.browser_port}
    if status is not None:
        ports = status["ports"]
    if ports["http_port"] is None:
        yield ok("HTTP port", "closed")
    else:
        yield should(
            "HTTP port",
            "every user of this machine can read the metrics and knock at /rsocket. Where nothing needs it, set "
            'http-port = "off" below [serve].',
        )
    if ports["browser_port"] is None:
        yield ok("browser port", "closed")
    else:
        yield must(
            "browser port",
            "every program of this machine, and every page of localhost, may open a session there without proving "
            'anything. Set browser-port = "off" below [serve].',
        )
    reach = "this machine alone" if is_loopback(str(ports["host"])) else f"whoever reaches {ports['host']}"
    yield ok("session ports", f"for {reach}, with a client certificate")
    if settings.adb == "off":
        yield ok("adb", "off")
    else:
        yield should(
            "adb",
            "whoever may use the adb server can attach a device of their own making and enrol. Where no Android app "
            'enrols here, set adb = "off" below [serve].',
        )
    if settings.trace_frames:
        yield should("frames", "frames are traced into the log. Take trace-frames out of config.toml.")


def judge_policy(settings: Settings, status: Status | None) -> Iterator[Judgement]:
    """Who may call what. Raises BrokerError for a policy that does not load."""
    in_force = (status or {}).get("policy") or {}
    if in_force.get("problem"):
        yield must("policy in force", f"the broker goes on with the one before: {in_force['problem']}")
    files = PolicyFiles(settings.home, settings.vendor_policy, settings.allow_relay)
    loaded = files.read().policy
    _, operator, _ = files.paths
    if not os.path.lexists(operator) or DEFAULT in (layer["source"] for layer in in_force.get("layers", ())):
        yield must(
            "policy",
            f"the built-in default is in use. Write {operator} with the methods that each app needs "
            "(rsocket-broker policy check shows what is in force).",
        )
        return
    rules = [rule for layer in loaded.layers for rule in layer.rules]
    wide = [rule for rule in rules if is_wide(rule)]
    for rule in wide:
        yield must("policy", f'rule "{rule.id}" ({rule.origin}) lets anyone call anything. Name apps or methods in it.')
    if not wide:
        layers = ", ".join(layer.level.value for layer in loaded.layers)
        yield ok("policy", f"layers: {layers}; rules: {len(rules)}; what none of them allows is denied")
    yield judge_vendor(settings.vendor_policy)


def judge_vendor(path: Path | None) -> Judgement:
    """The layer that stands above the operator's, if its file really does."""
    what = "vendor's layer"
    if path is None:
        return ok(what, "none: the operator's policy is the highest")
    if os.geteuid() != 0 and path.stat().st_uid == os.geteuid():
        return should(
            what, f"the broker's own user may change {path}. Run as root: chown root {path} && chmod 644 {path}"
        )
    return ok(what, f"{path} stands above the operator's")


def is_wide(rule: Rule) -> bool:
    """Whether a rule allows requests of every client to every method."""
    inward = not rule.direction or Direction.IN in rule.direction or Direction.RELAY in rule.direction
    named = (rule.app, rule.device, rule.profile, rule.user, rule.method, rule.plugin, rule.to)
    chosen = any(not all_fit(patterns) for patterns in named)
    return rule.effect is Effect.ALLOW and inward and not chosen


def all_fit(condition: object) -> bool:
    """Whether a condition holds for every name: it is empty, or a lone star is among its patterns."""
    if not condition:
        return True
    return isinstance(condition, tuple) and any(getattr(each, "text", None) == "*" for each in condition)


def judge_plugins(plugins: Sequence[LoadedPlugin]) -> Iterator[Judgement]:
    """Whoever may change a plugin's file runs code as the broker."""
    loose = [(each.id, path) for each in plugins if (path := writable_part(Path(each.origin))) is not None]
    for name, path in loose:
        yield must(f"plugin {name}", f"other users may change {path}, and so run code here. Run: chmod go-w {path}")
    if not loose:
        yield ok("plugins", f"{len(plugins)}, none of which other users may change")


def writable_part(path: Path) -> Path | None:
    """The first of a file and the folders above it that users other than this one and root may change."""
    if not path.is_absolute() or not path.exists():
        return None
    real = path.resolve()
    for part in (real, *real.parents):
        if is_open_to_others(part) or part.stat().st_uid not in (0, os.geteuid()):
            return part
    return None
