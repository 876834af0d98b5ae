"""`rsocket-broker doctor`: what is wrong here, and how to mend it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import click

from rsocket_broker.admin.client import ask
from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.cli import diagnosis, exposure, production
from rsocket_broker.cli.context import Context
from rsocket_broker.cli.diagnosis import Level, Symptom, guarded, ok, problem
from rsocket_broker.cli.main import ENVIRONMENT, check_tables, leaves, root, usage_text
from rsocket_broker.cli.production import Judgement
from rsocket_broker.cli.render import json_option, print_json, table
from rsocket_broker.cli.serve import settings_of
from rsocket_broker.errors import BrokerError
from rsocket_broker.routing.registry import LoadedPlugin, load_plugins
from rsocket_broker.settings import Settings, is_loopback


@click.command()
@click.option(
    "--production",
    "for_production",
    is_flag=True,
    help="Judge whether this home and its settings are fit for production: each finding is ok, a should or a must.",
)
@json_option
@click.pass_obj
def doctor(obj: Context, for_production: bool, as_json: bool) -> None:
    """Say what is wrong here, and how to mend it. Changes nothing.

    Looks at the home, its certificates and settings, the ports, the plugins, adb and its devices, the clocks, what
    a crash may have left, and what a running broker has warned of in the last hour. Each is ok, a warning (it works, or
    mends itself) or a problem. Exits 1 when there is a problem.

    With --production it asks more: how long certificates and keys last and how they are kept, what is open to whom,
    whether the policy is yours, whether the clock can be right. It exits 1 when a must is open.

    \b
    Examples:
      rsocket-broker doctor --json
      rsocket-broker doctor --production
    """
    if for_production:
        tell_judgements(judged(obj), as_json)
    else:
        tell_symptoms(examine(obj), as_json)


def tell_symptoms(symptoms: list[Symptom], as_json: bool) -> None:
    """Raises BrokerError, hence exit 1, when there is a problem."""
    if as_json:
        print_json([{"what": each.what, "level": each.level.value, "detail": each.detail} for each in symptoms])
    else:
        table(((each.level.value, each.what, each.detail) for each in symptoms), ["", "WHAT", "DETAIL"])
    wrong = sum(each.level is Level.PROBLEM for each in symptoms)
    if wrong:
        raise BrokerError(f"{wrong} of {len(symptoms)} checks found something to mend.")


def tell_judgements(judgements: list[Judgement], as_json: bool) -> None:
    """Raises BrokerError, hence exit 1, when a must is open."""
    if as_json:
        print_json([{"what": each.what, "level": each.level.value, "detail": each.detail} for each in judgements])
    else:
        table(((each.level.value, each.what, each.detail) for each in judgements), ["", "WHAT", "DETAIL"])
    open_musts = sum(each.level is production.Level.MUST for each in judgements)
    if open_musts:
        raise BrokerError(f"{open_musts} of {len(judgements)} must be mended before this is fit for production.")


def judged(obj: Context) -> list[Judgement]:
    """All judgements. What cannot be judged, since something before it does not work, is a must of its own."""
    now = datetime.now(UTC)
    try:
        settings, passphrase_file = serve_settings(obj), serve_option(obj, "passphrase_file")
    except (BrokerError, click.UsageError) as error:
        text = usage_text(error) if isinstance(error, click.UsageError) else error.public
        return [production.must("settings", f"{text} See: rsocket-broker doctor")]
    found = weighed("home", lambda: production.judge_home(obj.home, now, passphrase_file))
    status: Mapping[str, Any] | None = None
    try:
        status = running_status(obj)
    except BrokerError as error:
        found.append(production.must("broker", error.public))
    found += weighed("enrolment", lambda: exposure.judge_enrollment(settings, status))
    found += weighed("ports", lambda: exposure.judge_ports(settings, status))
    found += weighed("policy", lambda: exposure.judge_policy(settings, status))
    found += weighed("plugins", lambda: exposure.judge_plugins(loaded_plugins(settings)))
    return found


def weighed(what: str, judge: Callable[[], Iterable[Judgement]]) -> list[Judgement]:
    """The judgements of a check; a BrokerError that ends it is the last of them."""
    found: list[Judgement] = []
    try:
        found.extend(judge())
    except BrokerError as error:
        found.append(production.must(what, error.public))
    return found


def running_status(obj: Context) -> Mapping[str, Any] | None:
    """What a broker on this home says of itself; None where none runs."""
    if RunFolder(obj.home).holder() is None:
        return None
    status: Mapping[str, Any] = ask(obj.home, "status")
    return status


def examine(obj: Context) -> list[Symptom]:
    """All findings. A check that cannot be made since another one failed is left out."""
    symptoms = guarded("home", lambda: diagnosis.check_home(obj.home, datetime.now(UTC)))
    configured = guarded("config.toml", lambda: check_config(obj))
    folder = RunFolder(obj.home)
    symptoms += configured + guarded("broker", lambda: diagnosis.check_run_folder(folder))
    running = folder.holder() is not None
    if running:
        symptoms += guarded("broker", lambda: check_status(ask(obj.home, "status")))
    if configured[-1].level is Level.PROBLEM:
        return symptoms
    try:
        settings = serve_settings(obj)
    except (BrokerError, click.UsageError) as error:
        text = usage_text(error) if isinstance(error, click.UsageError) else error.public
        return [*symptoms, problem("settings", text)]
    symptoms += guarded("plugins", lambda: check_plugins(settings))
    symptoms += guarded("policy", lambda: diagnosis.check_policy(settings))
    symptoms += guarded("medium drivers", lambda: diagnosis.check_mediums(settings))
    return symptoms + asyncio.run(gathered(outside(settings, running)))


def check_status(status: dict[str, Any]) -> Iterator[Symptom]:
    """What the broker that runs says of itself."""
    yield from diagnosis.check_running(status)
    yield from diagnosis.check_policy_in_force(status)
    yield from diagnosis.check_plugins_running(status)
    yield from diagnosis.check_silence(status)
    yield from diagnosis.check_warnings(status["warnings"], datetime.now(UTC))


async def outside(settings: Settings, running: bool) -> AsyncIterator[Symptom]:
    """What is not in the home: the ports, adb and its devices."""
    if not running:
        async for symptom in diagnosis.check_ports(settings):
            yield symptom
    try:
        async for symptom in diagnosis.check_adb(settings.adb, on_loopback=is_loopback(settings.listen.host)):
            yield symptom
    except BrokerError as error:
        yield problem("adb", error.public)
    async for symptom in diagnosis.check_simulators():
        yield symptom


async def gathered(symptoms: AsyncIterator[Symptom]) -> list[Symptom]:
    return [symptom async for symptom in symptoms]


def check_config(obj: Context) -> Iterator[Symptom]:
    """Every table of config.toml, also those of commands that nobody has run yet."""
    check_tables(obj)
    for path, command in leaves():
        obj.defaults(command, path)
    obj.plugin_tables()
    obj.medium_tables()
    yield ok("config.toml", "" if obj.config.tables else "sets nothing")


def serve_settings(obj: Context) -> Settings:
    """What `serve` would work with: its defaults, config.toml and the environment."""
    return settings_of(obj, serve_options(obj))


def serve_option(obj: Context, name: str) -> Any:
    return serve_options(obj)[name]


def serve_options(obj: Context) -> dict[str, Any]:
    command = root.get_command(click.Context(root), "serve")
    assert command is not None
    context = command.make_context(
        "serve",
        [],
        parent=click.Context(root, obj=obj, auto_envvar_prefix=ENVIRONMENT, info_name="rsocket-broker"),
    )
    options: dict[str, Any] = context.params
    return options


def check_plugins(settings: Settings) -> Iterator[Symptom]:
    yield ok("plugins", ", ".join(plugin.id for plugin in loaded_plugins(settings)))


def loaded_plugins(settings: Settings) -> list[LoadedPlugin]:
    return load_plugins(settings.home / "plugins", settings.plugins, settings.plugin_tables)
