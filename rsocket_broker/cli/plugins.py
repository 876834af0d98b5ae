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
from rsocket_broker.routing.registry import Registry, load_plugins


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
            ([plugin[name] for name in ("id", "methods", "events", "origin")] for plugin in found),
            ["ID", "METHODS", "EVENTS", "ORIGIN"],
        )


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
