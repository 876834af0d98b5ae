"""`rsocket-broker plugins`: what is loaded, a new one to begin with, and a try without serving."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from rsocket_broker.admin.client import ask
from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.admin.verbs import describe_plugin
from rsocket_broker.cli.context import Context
from rsocket_broker.cli.render import facts, json_option, note, print_json, table
from rsocket_broker.cli.scaffold import Scaffold
from rsocket_broker.errors import BrokerError
from rsocket_broker.routing.registry import Registry, load_plugins
from rsocket_broker.spelling import nearest


@click.group()
def plugins() -> None:
    """The Python handlers that apps talk to.

    \b
    Examples:
      rsocket-broker plugins new Network
      rsocket-broker plugins check network/network_plugin.py
      rsocket-broker serve --plugin network/network_plugin.py
    """


@plugins.command("list")
@json_option
@click.pass_obj
def list_(obj: Context, as_json: bool) -> None:
    """What the running broker has loaded, or, where none runs, what it would load.

    \b
    Example:
      rsocket-broker plugins list
    """
    found = loaded(obj)
    if as_json:
        print_json(found)
    else:
        table(
            ([one["id"], stood(one), one["methods"], one["events"], one["origin"]] for one in found),
            ["ID", "STATE", "METHODS", "EVENTS", "ORIGIN"],
        )


def stood(plugin: Mapping[str, Any]) -> str:
    """How a plugin does, in a word or two; "" where no broker runs."""
    state = str(plugin.get("state", ""))
    if plugin.get("retry_after") is not None:
        state += f", again in {plugin['retry_after']:g} s"
    if plugin.get("restarts"):
        state += f", restarted {plugin['restarts']} x"
    return state


@plugins.command()
@click.argument("name", metavar="NAME")
@json_option
@click.pass_obj
def schema(obj: Context, name: str, as_json: bool) -> None:
    """What the plugin NAME answers to: its methods and events, with the types of what they take and give.

    With --json it is JSON Schema (draft 2020-12), made of the annotations in the plugin's code.

    \b
    Examples:
      rsocket-broker plugins schema Network
      rsocket-broker plugins schema Network --json
    """
    found = schema_of_plugin(obj, name)
    if as_json:
        print_json(found)
        return
    from rsocket_broker.plugin_api.stubs import outline_of

    table(outline_of(found), ["ROUTE", "KIND", "TAKES", "GIVES"])


@plugins.command()
@click.argument("name", metavar="NAME")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="FILE", help="The module to write."
)
@click.pass_obj
def stubs(obj: Context, name: str, out: Path) -> None:
    """Write a typed Python client of the plugin NAME, over a session of rsocket_broker.client.

    \b
    Example:
      rsocket-broker plugins stubs Network --out network_client.py
    """
    from rsocket_broker.plugin_api.stubs import stubs_of

    text = stubs_of(schema_of_plugin(obj, name))
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BrokerError(f"{out} cannot be written: {error.strerror}.") from error
    note(f"Wrote {out}.")


def schema_of_plugin(obj: Context, name: str) -> Mapping[str, Any]:
    """From the running broker, or, where none runs, of what would be loaded. Raises BrokerError."""
    if obj.home.is_dir() and RunFolder(obj.home).holder() is not None:
        answer: Mapping[str, Any] = ask(obj.home, "plugins.schema", {"plugin": name})
        return answer
    from rsocket_broker.plugin_api.schema import schema_of

    found = {one.id: one for one in load_plugins(obj.home / "plugins", settings=obj.plugin_tables())}
    if name not in found:
        raise BrokerError(f'There is no plugin "{name}". {nearest(name, found)}')
    return schema_of(found[name].plugin)


def loaded(obj: Context) -> list[Mapping[str, Any]]:
    if obj.home.is_dir() and RunFolder(obj.home).holder() is not None:
        answer: list[Mapping[str, Any]] = ask(obj.home, "plugins.list")
        return answer
    settings = obj.plugin_tables()
    return [describe_plugin(plugin) for plugin in load_plugins(obj.home / "plugins", settings=settings)]


@plugins.command()
@click.argument("name")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder for the two files.  [default: one named after the plugin]",
)
def new(name: str, into: Path | None) -> None:
    """Write a plugin called NAME, and a test for it that passes as it is.

    \b
    Example:
      rsocket-broker plugins new Network
    """
    scaffold = Scaffold.named(name)
    plugin, test = scaffold.write(into or Path(scaffold.module.removesuffix("_plugin")))
    note(f"Wrote {plugin} and {test}. Next:")
    note(f"  python -m pytest {test}")
    note(f"  rsocket-broker serve --plugin {plugin}")


@plugins.command()
@click.argument("plugin", metavar="PATH-OR-NAME")
@json_option
@click.pass_obj
def check(obj: Context, plugin: str, as_json: bool) -> None:
    """Load a plugin without serving; a fault is named with its file and line.

    Its settings in config.toml, [plugins.ID], are checked as well.

    \b
    Example:
      rsocket-broker plugins check ./network_plugin.py
    """
    registry = Registry(obj.plugin_tables())
    registry.add(plugin)
    found = [describe_plugin(each) for each in registry.plugins.values()]
    registry.add_entry_points()  # what every broker loads: an id that is taken there would stop its start
    if as_json:
        print_json(found)
        return
    for described in found:
        facts([(name, described[name]) for name in ("id", "methods", "events", "origin")])
