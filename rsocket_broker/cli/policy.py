"""`rsocket-broker policy`: what is allowed, why, and what another policy would change."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import click

from rsocket_broker.admin.client import ask
from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.audit import Event, reading
from rsocket_broker.audit.audit import to_text
from rsocket_broker.audit.chain import content
from rsocket_broker.authority.inventory import Inventory
from rsocket_broker.cli.audit import When
from rsocket_broker.cli.context import Context, WholeNumber
from rsocket_broker.cli.render import facts as show_facts
from rsocket_broker.cli.render import json_option, note, print_json, table
from rsocket_broker.errors import ApplicationError, BrokerError
from rsocket_broker.identity import Principal
from rsocket_broker.policy.default import TEXT
from rsocket_broker.policy.policy import Explanation
from rsocket_broker.policy.rules import (
    AT,
    CHANNELS,
    KINDS,
    PROOFS,
    UNVERIFIED,
    Decision,
    Direction,
    Effect,
    Facts,
    Group,
    Layer,
    Rule,
)
from rsocket_broker.routing.access import always_open, facts_of, recorded
from rsocket_broker.routing.policy_files import Loaded, PolicyFiles
from rsocket_broker.state import STATE_FILE, State

REPLAYED = 10_000
"""Records that `replay` looks at unless told otherwise: some days of a busy broker."""

file_argument = click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="[FILE]"
)


@click.group()
def policy() -> None:
    """Who may call what.

    Rules stand in HOME/policy.toml; where there is none, a default holds. A running broker takes up changes by itself.

    \b
    Examples:
      rsocket-broker policy check
      rsocket-broker policy explain com.example.app wifi.set
      rsocket-broker policy replay ./new-policy.toml
    """


@policy.command()
@file_argument
@click.option("--show-default", is_flag=True, help="Print the policy that holds where HOME/policy.toml is missing.")
@json_option
@click.pass_obj
def check(obj: Context, /, file: Path | None, show_default: bool, as_json: bool) -> None:
    """Read the policy as `serve` would; a fault is named with its file, line and rule.

    With FILE, that stands in the place of HOME/policy.toml. Exits 1 when there is a fault.

    \b
    Examples:
      rsocket-broker policy check ./new-policy.toml
      rsocket-broker policy check --show-default > policy.toml
    """
    if show_default:
        click.echo(TEXT, nl=False)
        return
    running = status(obj)
    loaded = files_of(obj, running, file).read()
    described = [describe_layer(layer) for layer in loaded.policy.layers]
    same = None if running is None else [each["digest"] for each in running["layers"]] == digests(loaded)
    problem = None if running is None else running["problem"]
    if as_json:
        print_json({"layers": described, "in_force": same, "problem": problem})
        return
    table(([each[name] for name in each] for each in described), [name.upper() for name in described[0]])
    if file is None and same is False:
        note(f"The running broker has another policy{': ' + str(problem) if problem else '.'}")


@policy.command()
@click.argument("identity")
@click.argument("method", required=False, default="")
@click.option("--direction", type=click.Choice([each.value for each in Direction]), default="in", show_default=True)
@click.option("--channel", type=click.Choice(CHANNELS), help="How the client is connected.  [default: tls]")
@click.option("--kind", type=click.Choice(KINDS), help="The kind of its session.  [default: device]")
@click.option("--to", default="", metavar="APP[@DEVICE]", help="The other client, for --direction relay.")
@click.option("--proof", type=click.Choice(PROOFS), help="What its certificate was issued on.")
@click.option("--profile", metavar="NAME", help="The profile of its certificate.  [default: client]")
@click.option("--user", metavar="NAME", help="Who the session belongs to.")
@click.option(
    "--plugin",
    "groups",
    multiple=True,
    type=click.Choice([each.value for each in Group]),
    help="That the method's plugin was named by `serve --plugin`, or is announced by the app. Repeatable.",
)
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A policy in the place of HOME/policy.toml.",
)
@json_option
@click.pass_obj
def explain(obj: Context, /, identity: str, method: str, as_json: bool, **options: Any) -> None:
    """Say whether a client may call METHOD (plugin.method), which rule decides, and what would hold without it.

    IDENTITY is an app id, app_id@device_id, or the id of a live session (c1, c2, ...), whose kind, channel and
    announced plugins are then those that count. Options say it where no such client is connected, or otherwise.

    \b
    Examples:
      rsocket-broker policy explain com.example.app wifi.set --proof adb
      rsocket-broker policy explain c12 Network.getAll --direction out
      rsocket-broker policy explain com.example.app --direction relay --to com.example.other
    """
    direction = Direction(options["direction"])
    if direction is not Direction.RELAY and "." not in method:
        raise click.UsageError("METHOD must be plugin.method, unless --direction is relay.")
    running = status(obj)
    loaded = files_of(obj, running, options["file"]).read()
    calls = calls_of(obj, running, identity, method, options)
    if always_open(calls[0].facts):
        calls = [attrs.evolve(calls[0], always=True)]
    answers = [(call, loaded.policy.explain(call.facts)) for call in calls]
    deciding = next(
        (one for one in answers if not one[0].in_scope or one[1].decision.effect is not Effect.ALLOW), answers[0]
    )
    if as_json:
        print_json(describe_explanation(*deciding))
    else:
        show_explanation(*deciding)


@policy.command()
@file_argument
@click.option("--since", type=When(), metavar="WHEN", help="Only records from this date, or not older than 2h, 7d.")
@click.option("--limit", type=WholeNumber(min=1), default=REPLAYED, show_default=True, help="Records to look at.")
@json_option
@click.pass_obj
def replay(obj: Context, /, file: Path | None, since: Any, limit: int, as_json: bool) -> None:
    """Decide again the calls that the audit has, and show what would change.

    With FILE, that stands in the place of HOME/policy.toml; without, the files as they are now are used.

    \b
    Examples:
      rsocket-broker policy replay ./new-policy.toml --since 7d
    """
    loaded = files_of(obj, status(obj), file).read()
    found = replayed(obj, loaded, since, limit)
    if as_json:
        print_json(attrs.asdict(found))
        return
    if found.changes:
        names = ("was", "would_be", "client", "method", "times", "rule")
        table(([change[name] for name in names] for change in found.changes), [name.upper() for name in names])
    left = f" {found.left_out} records are left out: no rule had decided them." if found.left_out else ""
    note(f"{len(found.changes)} of {found.calls} different calls in {found.records} records would change.{left}")


@policy.command()
@json_option
@click.pass_obj
def reload(obj: Context, /, as_json: bool) -> None:
    """Let the running broker read its policy now, and not within the next seconds.

    Exits 1 when the files have a fault: the policy from before then stays in force.

    \b
    Example:
      rsocket-broker policy reload
    """
    described = ask(obj.home, "policy.reload")
    show_status(described, as_json)
    if described["problem"]:
        raise BrokerError(f"The policy from before stays in force: {described['problem']}")


@policy.command("status")
@json_option
@click.pass_obj
def status_(obj: Context, /, as_json: bool) -> None:
    """What policy the running broker enforces, since when, and what keeps a later one out.

    \b
    Example:
      rsocket-broker policy status
    """
    show_status(ask(obj.home, "policy.status"), as_json)


# --- what is asked about ---------------------------------------------------------------------------------------------


@attrs.frozen(slots=True)
class Call:
    """One call as rules see it. `session` is the node that makes it, where it is a live one."""

    facts: Facts
    session: str | None = None
    in_scope: bool = True
    always: bool = False
    """No rule is asked about it."""


def status(obj: Context) -> Mapping[str, Any] | None:
    """What the running broker says of its policy; None where none runs."""
    if not obj.home.is_dir() or RunFolder(obj.home).holder() is None:
        return None
    described: Mapping[str, Any] = ask(obj.home, "policy.status")
    return described


def files_of(obj: Context, running: Mapping[str, Any] | None, operator: Path | None) -> PolicyFiles:
    """The files that a broker on this home has, or would have: what it was started with counts where one runs."""
    from rsocket_broker.cli.doctor import serve_settings  # which reads the options of `serve`, and so knows it

    settings = serve_settings(obj)
    vendor, relay = settings.vendor_policy, settings.allow_relay
    if running is not None:
        sources = [Path(each["source"]) for each in running["layers"] if each["layer"] == "vendor"]
        vendor, relay = (sources[0] if sources else None), running["allow_relay"]
    return PolicyFiles(obj.home, vendor, relay, operator)


def calls_of(
    obj: Context, running: Mapping[str, Any] | None, identity: str, method: str, options: Mapping[str, Any]
) -> list[Call]:
    """The call, and for a child session the same for all above it. Options are stronger than what is known."""
    live: list[Mapping[str, Any]] = []
    if running is not None:
        about = {"client": identity, "direction": options["direction"], "method": method, "to": options["to"]}
        try:
            live = ask(obj.home, "policy.facts", about)
        except ApplicationError as error:
            if "means" in error.public:
                raise
    if live:
        found = [Call(facts_of(each), each["session"], each["in_scope"]) for each in live]
    else:
        found = [Call(known_facts(obj, identity, method, options))]
    return [attrs.evolve(call, facts=with_options(call.facts, options)) for call in found]


def known_facts(obj: Context, identity: str, method: str, options: Mapping[str, Any]) -> Facts:
    """Of a client that is not connected: what its newest certificate says, if it has one."""
    app, _, device = identity.partition(AT)
    principal, profile = certified(obj, app, device)
    direction = Direction(options["direction"])
    return Facts(
        app=app,
        device=device or (principal.device_id if principal else ""),
        proof=principal.proof.value if principal else "",
        profile=profile,
        method="" if direction is Direction.RELAY else method,
        direction=direction,
        to=options["to"],
    )


def certified(obj: Context, app: str, device: str) -> tuple[Principal | None, str]:
    """Whom the newest certificate of an app (on that device, if one is named) is for, and its profile."""
    if not (obj.home / STATE_FILE).exists():
        return None, "client"
    with State.open(obj.home / STATE_FILE) as state:
        records = Inventory(state).records(app)
    for record in reversed(records):
        principal = record.principal
        if principal is not None and principal.app_id == app and device in ("", principal.device_id):
            return principal, record.profile
    return None, "client"


def with_options(facts: Facts, options: Mapping[str, Any]) -> Facts:
    given = {
        name: options[name] for name in ("channel", "kind", "proof", "profile", "user") if options[name] is not None
    }
    if options["groups"]:
        given["groups"] = frozenset(Group(each) for each in options["groups"])
    if UNVERIFIED == options["kind"] != facts.kind:  # what a certificate says is not said of it
        given = {"proof": UNVERIFIED, "profile": "", "channel": "loopback", **given}
    return attrs.evolve(facts, **given)


# --- how it looks ----------------------------------------------------------------------------------------------------

SAYS = {Effect.ALLOW: "allowed", Effect.DENY: "denied", Effect.ASK: "left to the hook"}


def digests(loaded: Loaded) -> list[str]:
    return [layer.digest for layer in loaded.policy.layers]


def describe_layer(layer: Layer) -> dict[str, object]:
    return {"layer": layer.level.value, "rules": len(layer.rules), "digest": layer.digest, "source": layer.source}


def describe_rule(layer: Layer | None, rule: Rule | None) -> dict[str, object]:
    if layer is None or rule is None:
        return {"rule": None, "layer": None, "file": None, "line": None}
    return {"rule": rule.id, "layer": layer.level.value, "file": rule.origin.name, "line": rule.origin.line}


def describe_decision(decision: Decision) -> dict[str, object]:
    rule = describe_rule(decision.layer, decision.rule)
    return {"effect": decision.effect.value, **rule, "reason": decision.reason}


def describe_explanation(call: Call, explained: Explanation) -> dict[str, object]:
    fits = [{"effect": rule.effect.value, **describe_rule(layer, rule)} for layer, rule in explained.fits]
    decided, without = describe_decision(explained.decision), describe_decision(explained.without)
    if call.always:
        decided = without = describe_decision(Decision(Effect.ALLOW)) | {"reason": ALWAYS}
    elif not call.in_scope:
        decided = without = describe_decision(Decision(Effect.DENY)) | {"reason": OUT_OF_SCOPE}
    about = {**recorded(call.facts), "session": call.session}
    return {**decided, "without": without, "fits": fits, "call": about}


ALWAYS = "a client's own certificate and session are open to it whatever the rules say"
OUT_OF_SCOPE = "the scope that the session was made with does not reach so far"


def show_explanation(call: Call, explained: Explanation) -> None:
    described = {name: value for name, value in recorded(call.facts).items() if value}
    show_facts([*described.items(), *([("session", call.session)] if call.session else [])])
    click.echo()
    if call.always:
        click.echo(f"allowed: {ALWAYS}")
        return
    if not call.in_scope:
        click.echo(f"denied: {OUT_OF_SCOPE}")
        return
    click.echo(f"{SAYS[explained.decision.effect]}: {explained.decision.reason}")
    if explained.decision.rule is not None:
        click.echo(f"without it: {SAYS[explained.without.effect]}: {explained.without.reason}")
    for layer, rule in explained.fits[1:]:
        click.echo(f"also fits: {rule.effect.value}, {Decision(rule.effect, rule, layer).reason}")


def show_status(described: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(described)
        return
    layers: Sequence[Mapping[str, Any]] = described["layers"]
    table(
        ([each[name] for name in ("layer", "rules", "digest", "source")] for each in layers),
        ["LAYER", "RULES", "DIGEST", "SOURCE"],
    )
    note(f"In force since {described['since']}." + (f" Hook: {described['hook']}" if described["hook"] else ""))
    if described["problem"]:
        note(f"The files have changed since, and cannot be used: {described['problem']}")


# --- the audit, decided again ----------------------------------------------------------------------------------------


@attrs.frozen(slots=True)
class Replayed:
    """What would change. `calls` are different ones, `left_out` records that no rule had decided."""

    records: int
    calls: int
    left_out: int
    changes: list[dict[str, object]]


def replayed(obj: Context, loaded: Loaded, since: Any, limit: int) -> Replayed:
    """The recorded calls under another policy. Raises HomeError for a home without a database."""
    found: Counter[tuple[Facts, bool]] = Counter()
    left_out = 0
    entries = recorded_calls(obj, since, limit)
    for event, facts in entries:
        call = call_of(event, facts)
        if call is None:
            left_out += 1
        else:
            found[call] += times(facts)
    changes = []
    for (again, was), count in found.items():
        if was and always_open(again):
            continue
        decision = loaded.policy.decide(again)
        if decision.effect is not (Effect.ALLOW if was else Effect.DENY):
            changes.append(describe_change(again, was, decision, count))
    return Replayed(len(entries), len(found), left_out, changes)


def recorded_calls(obj: Context, since: Any, limit: int) -> list[tuple[str, Mapping[str, Any]]]:
    if not os.path.lexists(obj.home / STATE_FILE):
        raise BrokerError(f"{obj.home} has no record yet: no broker has run there.")
    wanted = reading.Wanted(
        (Event.CALL_ALLOWED.value, Event.CALL_REFUSED.value), "" if since is None else to_text(since)
    )
    with State.open(obj.home / STATE_FILE) as state:
        reading.prepare(state)
        return [(each.event, content(each).get("facts", {})) for each in reading.newest(state, wanted, limit)]


def call_of(event: str, facts: Mapping[str, Any]) -> tuple[Facts, bool] | None:
    """A recorded call and whether it was allowed; None for one that a scope has refused, or that is not whole."""
    try:
        call = facts_of(facts)
    except (KeyError, ValueError, TypeError):
        return None
    allowed = event == Event.CALL_ALLOWED.value
    by_scope = facts.get("rule") is None and "scope" in str(facts.get("reason"))
    return None if not allowed and by_scope else (call, allowed)


def times(facts: Mapping[str, Any]) -> int:
    count = facts.get("count", 1)
    return count if isinstance(count, int) else 1


def describe_change(facts: Facts, was: bool, decision: Decision, count: int) -> dict[str, object]:
    return {
        "was": "allow" if was else "deny",
        "would_be": decision.effect.value,
        "client": f"{facts.app}{AT}{facts.device or '-'} ({facts.proof})",
        "method": facts.method or f"relay to {facts.to}",
        "times": count,
        **describe_rule(decision.layer, decision.rule),
        "reason": decision.reason,
        "call": recorded(facts),
    }
