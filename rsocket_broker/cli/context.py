"""What every command is handed: the home it works on, and what that home's config.toml sets for it."""

import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import click

from rsocket_broker.durations import parse_duration
from rsocket_broker.errors import ConfigurationError
from rsocket_broker.moments import parse_moment
from rsocket_broker.settings import Config, Wanted, check_table, read_config

CONFIG_FILE = "config.toml"
MEDIUMS = "mediums"
"""The table that belongs to no command but to the medium drivers."""
PLUGIN_COMMANDS = frozenset({"list", "new", "check"})
"""`[plugins.list]` sets options of the command; every other table below `[plugins]` belongs to that plugin."""


class WholeNumber(click.IntRange):
    name = "whole number"


class PortNumber(click.IntRange):
    """A port, or `off` for none."""

    name = "port"
    OFF = "off"
    WORDS = f"a port, 0 to 65535, nor {OFF}"

    def __init__(self) -> None:
        super().__init__(0, 65535)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == self.OFF:
            return self.OFF
        try:
            int(value)
        except ValueError:
            self.fail(f"{value!r} is neither {self.WORDS}.", param, ctx)
        return super().convert(value, param, ctx)


class UsualPort(PortNumber):
    """A port, `on` for the usual one, or `off` for none."""

    ON = "on"
    WORDS = f"a port, 0 to 65535, nor {ON} or {PortNumber.OFF}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self.ON if value == self.ON else super().convert(value, param, ctx)


class Duration(click.types.StringParamType):
    """A duration such as 90s, 10m, 1h or 2d, as a timedelta."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, timedelta):
            return value
        try:
            return parse_duration(value)
        except ConfigurationError as error:
            self.fail(error.public, param, ctx)


class Moment(click.types.StringParamType):
    """A date or a moment (ISO 8601; in UTC where it names no zone), as an aware datetime."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, datetime):
            return value
        try:
            return parse_moment(value)
        except ConfigurationError as error:
            self.fail(error.public, param, ctx)


class Number(click.FloatRange):
    name = "number"


class PathOrName(click.types.StringParamType):
    envvar_list_splitter = os.pathsep  # blanks, as click would have it, are part of many a path


def default_home() -> Path:
    """The home when nobody names one: the user data directory of the platform."""
    import platformdirs  # rarely needed: a home is usually named, or the broker is already running

    return Path(platformdirs.user_data_dir("rsocket-broker", appauthor=False))


@attrs.define(slots=True)
class Context:
    """`click.Context.obj` of every command (use `@click.pass_obj`).

    `home` is absolute; it may not exist yet. `debug` shows tracebacks of unexpected errors.
    """

    home: Path
    debug: bool = False
    _config: Config | None = attrs.field(default=None, init=False, repr=False)

    def use_home(self, path: str | Path) -> None:
        """Works on another home from now on: `--home` after the command is stronger than before it."""
        self.home = Path(path).expanduser().absolute()
        self._config = None

    @property
    def config(self) -> Config:
        """HOME/config.toml, read once; empty where there is none. Raises ConfigurationError naming line or key."""
        if self._config is None:
            self._config = read_config(self.home / CONFIG_FILE)
        return self._config

    def defaults(self, command: click.Command, path: tuple[str, ...]) -> dict[str, object]:
        """What config.toml sets for the command at `path`, under click's parameter names, every type checked."""
        below = command.commands if isinstance(command, click.Group) else {}
        table = {key: value for key, value in self.config.options(path).items() if key not in below}
        options = configurable(command)
        check_table(table, {key: wanted(option) for key, option in options.items()}, self.config.where(path))
        return {str(options[key].name): value for key, value in table.items()}

    def plugin_tables(self) -> dict[str, Mapping[str, object]]:
        """The tables `[plugins.ID]`, except those that set options of `rsocket-broker plugins`."""
        return {name: table for name, table in self._tables("plugins").items() if name not in PLUGIN_COMMANDS}

    def medium_tables(self) -> dict[str, Mapping[str, object]]:
        """The tables `[mediums.NAME]`."""
        return self._tables(MEDIUMS)

    def _tables(self, name: str) -> dict[str, Mapping[str, object]]:
        names = self.config.options((name,))
        self.config.check_names((name,), names)  # each must be a table
        return {key: self.config.options((name, key)) for key in names}


def configurable(command: click.Command) -> dict[str, click.Option]:
    """The options of a command that config.toml may set, under their long names without dashes."""
    found = {}
    for option in command.params:
        if isinstance(option, click.Option) and option.expose_value:
            longest = max((name for name in option.opts if name.startswith("--")), key=len, default="")
            found[longest.removeprefix("--")] = option
    return found


def wanted(option: click.Option) -> Wanted:
    """The TOML type that stands for an option's value."""
    if option.is_flag:
        return Wanted(bool, "true or false")
    kind = option.type
    if isinstance(kind, click.Choice):
        choices = tuple(str(choice) for choice in kind.choices)
        return Wanted(str, "one of " + ", ".join(f'"{choice}"' for choice in choices), choices=choices)
    if isinstance(kind, UsualPort):
        return Wanted(int, f'a whole number, "{UsualPort.ON}" or "{UsualPort.OFF}"', also=(UsualPort.ON, UsualPort.OFF))
    if isinstance(kind, PortNumber):
        return Wanted(int, f'a whole number or "{PortNumber.OFF}"', also=(PortNumber.OFF,))
    item: type = str
    name = "a string"
    if isinstance(kind, click.types.IntParamType):
        item, name = int, "a whole number"
    elif isinstance(kind, click.types.FloatParamType):
        item, name = float, "a number"
    if option.multiple:
        return Wanted(list, f"a list ({name} each)", item=item)
    return Wanted(item, name)
