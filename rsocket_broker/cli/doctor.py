"""`rsocket-broker doctor`: what is wrong here, and how to mend it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import click

from rsocket_broker.admin.client import ask
from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.cli import diagnosis
from rsocket_broker.cli.context import Context
from rsocket_broker.cli.diagnosis import Level, Symptom, guarded, ok, problem
from rsocket_broker.cli.main import ENVIRONMENT, check_tables, leaves, root, usage_text
from rsocket_broker.cli.render import print_json, table
from rsocket_broker.cli.serve import settings_of
from rsocket_broker.errors import BrokerError
from rsocket_broker.routing.registry import load_plugins
from rsocket_broker.settings import Settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_obj
def doctor(obj: Context, as_json: bool) -> None:
    """Say what is wrong here, and how to mend it. Changes nothing.

    Looks at the home, its certificates and settings, the ports, the plugins, adb and its devices, the clocks, and
    what a crash may have left. Each is ok, a warning (it works, or mends itself) or a problem. Exits 1 when there is a
    problem.

    \b
    Example:
      rsocket-broker doctor --json
    """
    symptoms = examine(obj)
    if as_json:
        print_json([{"what": each.what, "level": each.level.value, "detail": each.detail} for each in symptoms])
    else:
        table(((each.level.value, each.what, each.detail) for each in symptoms), ["", "WHAT", "DETAIL"])
    wrong = sum(each.level is Level.PROBLEM for each in symptoms)
    if wrong:
        raise BrokerError(f"{wrong} of {len(symptoms)} checks found something to mend.")


def examine(obj: Context) -> list[Symptom]:
    """All findings. A check that cannot be made since another one failed is left out."""
    symptoms = guarded("home", lambda: diagnosis.check_home(obj.home, datetime.now(UTC)))
    configured = guarded("config.toml", lambda: check_config(obj))
    folder = RunFolder(obj.home)
    symptoms += configured + guarded("broker", lambda: diagnosis.check_run_folder(folder))
    running = folder.holder() is not None
    if running:
        symptoms += guarded("broker", lambda: diagnosis.check_running(ask(obj.home, "status")))
    if configured[-1].level is Level.PROBLEM:
        return symptoms
    try:
        settings = serve_settings(obj)
    except (BrokerError, click.UsageError) as error:
        text = usage_text(error) if isinstance(error, click.UsageError) else error.public
        return [*symptoms, problem("settings", text)]
    symptoms += guarded("plugins", lambda: check_plugins(settings))
    symptoms += guarded("medium drivers", lambda: diagnosis.check_mediums(settings))
    return symptoms + asyncio.run(gathered(outside(settings, running)))


async def outside(settings: Settings, running: bool) -> AsyncIterator[Symptom]:
    """What is not in the home: the ports, adb and its devices."""
    if not running:
        async for symptom in diagnosis.check_ports(settings):
            yield symptom
    try:
        async for symptom in diagnosis.check_adb(settings.adb):
            yield symptom
    except BrokerError as error:
        yield problem("adb", error.public)


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
    command = root.get_command(click.Context(root), "serve")
    assert command is not None
    context = command.make_context(
        "serve",
        [],
        parent=click.Context(root, obj=obj, auto_envvar_prefix=ENVIRONMENT, info_name="rsocket-broker"),
    )
    options: dict[str, Any] = context.params
    return settings_of(obj, options)


def check_plugins(settings: Settings) -> Iterator[Symptom]:
    found = load_plugins(settings.home / "plugins", settings.plugins, settings.plugin_tables)
    yield ok("plugins", ", ".join(plugin.id for plugin in found))
