"""Finds plugins and loads them: the entry-point group `rsocket_broker.plugins`, HOME/plugins/, `--plugin`.

What is loaded may be a Plugin class, an instance, or a function without parameters that makes one. In a module it is
what the name `plugin` stands for; where there is no such name, every Plugin class or instance that the module makes.
A plugin that cannot be loaded is a ConfigurationError with file and line: a broker does not start with half of them.
"""

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TypeGuard

import attrs

from rsocket_broker.errors import BrokerError, ConfigurationError
from rsocket_broker.files import check_owned
from rsocket_broker.plugin_api.configuration import apply_settings
from rsocket_broker.plugin_api.handlers import Routes
from rsocket_broker.plugin_api.inspection import read_plugin
from rsocket_broker.plugin_api.plugin import Plugin

GROUP = "rsocket_broker.plugins"

RESERVED = frozenset({"identity", "sessions"})
"""Ids of plugins that are parts of every broker: another one under such a name would take its routes."""

BUILT_IN = "built in"
"""How a plugin was found that was not looked for."""

_BUNDLED = "rsocket_broker.plugins."

_AMBIGUOUS = ("plugins", "certs")
"""Folders of our own checkout: imported by these names they would be second copies of modules."""


@attrs.frozen(slots=True, eq=False)
class LoadedPlugin:
    """A plugin ready to serve. `origin` is the file it was written in, `via` how it was found.

    `named` says whether `--plugin` names it, be it that it was found in another way before.
    """

    id: str
    plugin: Plugin
    routes: Routes
    origin: str
    via: str
    named: bool = False
    make: Callable[[], Plugin] | None = None
    """Another instance, with its settings; None for a plugin that came as an instance. Raises what its author's code
    raises, or ConfigurationError."""


class Registry:
    """The plugins of one broker, in the order in which they were found. `settings` are the tables `[plugins.ID]`."""

    def __init__(self, settings: Mapping[str, Mapping[str, object]] | None = None) -> None:
        self._settings = settings or {}
        self._by_id: dict[str, LoadedPlugin] = {}
        self._naming = False

    @property
    def plugins(self) -> Mapping[str, LoadedPlugin]:
        return dict(self._by_id)

    def add_entry_points(self) -> None:
        """Load what installed packages offer."""
        for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
            self._add_entry_point(entry)

    def add_directory(self, directory: Path) -> None:
        """Load every module and package in HOME/plugins/. Names with a leading dot or underscore are passed over.

        Raises HomeError, and loads nothing, when another user could change what is there: it would run as us.
        """
        if not os.path.lexists(directory):
            return
        check_owned(directory.parent)
        _check_tree(directory)
        for path in sorted(directory.iterdir()):
            if path.name.startswith((".", "_")):
                continue
            if path.suffix == ".py" or (path / "__init__.py").is_file():
                self.add_path(path)

    def add(self, path_or_name: str) -> None:
        """Load what `--plugin` names: a file or folder, an entry point, or a module that can be imported."""
        self._naming = True
        try:
            self._add_named(path_or_name)
        finally:
            self._naming = False

    def _add_named(self, path_or_name: str) -> None:
        path = Path(path_or_name)
        if path.exists() and (path.suffix == ".py" or path.is_dir()):
            self.add_path(path)
            return
        if path.suffix == ".py" or len(path.parts) > 1:
            raise ConfigurationError(f"There is no plugin at {path}.")
        for entry in importlib.metadata.entry_points(group=GROUP, name=path_or_name):
            self._add_entry_point(entry)
            return
        self._add_module(path_or_name)

    def add_path(self, path: Path) -> None:
        """Load a module or a package by its path."""
        source = path / "__init__.py" if path.is_dir() else path
        if not source.is_file():
            raise ConfigurationError(f"{path} is no plugin: it is a folder without an __init__.py.")
        here = path.resolve()
        origins = [(loaded, Path(loaded.origin).resolve()) for loaded in self._by_id.values()]
        found = [loaded for loaded, origin in origins if here in (origin, origin.parent)]
        if found:  # the same module or package, found in another way
            for loaded in found:
                self._found_again(loaded)
            return
        module = _load_file(source.resolve(), package=path.is_dir())
        self._add_from(module, str(source), str(source))

    def add_plugin(self, plugin: object, via: str, maker: object = None) -> None:
        """Load one plugin: a class, an instance, or what makes one (`maker`, of an instance that it has made already).

        Raises ConfigurationError.
        """
        maker = plugin if maker is None else maker
        instance = _instance(plugin, via)
        origin = _origin(instance, via)
        routes = read_plugin(instance)
        held = self._by_id.get(instance.id)
        if held is not None:
            if held.origin == origin and type(held.plugin) is type(instance):
                self._found_again(held)
                return
            if _is_bundled(instance) and not _is_bundled(held.plugin):
                return
        if held is not None and (_is_bundled(instance) or not _is_bundled(held.plugin)):
            raise ConfigurationError(f'Two plugins have the id "{instance.id}": {held.origin} and {origin}.')
        table = self._settings.get(instance.id)
        apply_settings(instance, table)
        make = None if maker is None or isinstance(maker, Plugin) else partial(_again, maker, via, table)
        self._by_id[instance.id] = LoadedPlugin(instance.id, instance, routes, origin, via, self._naming, make)

    def _found_again(self, loaded: LoadedPlugin) -> None:
        if self._naming:
            self._by_id[loaded.id] = attrs.evolve(loaded, named=True)

    def _add_found(self, plugin: object, via: str) -> None:
        instance = _instance(plugin, via)
        if instance.id in RESERVED:
            where = _origin(instance, via)
            raise ConfigurationError(f'{where}: the id "{instance.id}" is the broker\'s own. Choose another one.')
        self.add_plugin(instance, via, plugin)

    def check_settings(self) -> None:
        """Raises ConfigurationError when the config has a table for a plugin that is not here."""
        for name in self._settings:
            if name not in self._by_id:
                known = ", ".join(sorted(self._by_id)) or "none"
                raise ConfigurationError(f"[plugins.{name}]: there is no such plugin. Loaded: {known}.")

    def _add_entry_point(self, entry: importlib.metadata.EntryPoint) -> None:
        via = f"entry point {entry.name}"
        try:
            plugin = entry.load()
        except BrokerError:
            raise
        except (Exception, SystemExit) as error:
            raise _load_error(f"{via} ({entry.value})", None, error) from error
        self._add_found(plugin, via)

    def _add_module(self, name: str) -> None:
        if name.partition(".")[0] in _AMBIGUOUS:
            raise ConfigurationError(f'Give "{name}" as a path, or as rsocket_broker.{name}.')
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            found = None
        if found is None:
            names = sorted(entry.name for entry in importlib.metadata.entry_points(group=GROUP))
            raise ConfigurationError(
                f'There is no plugin "{name}": it is no file, no module, and none of {", ".join(names) or "none"}.'
            )
        try:
            module = importlib.import_module(name)
        except BrokerError:
            raise
        except (Exception, SystemExit) as error:
            raise _load_error(name, found.origin, error) from error
        self._add_from(module, name, name)

    def _add_from(self, module: ModuleType, via: str, where: str) -> None:
        found = list(_plugins_of(module))
        if not found:
            nameless = next((value for value in vars(module).values() if _is_plugin_of(module, value)), None)
            if nameless is not None:
                raise ConfigurationError(
                    f'{where}: {nameless.__name__} has no id. Give it one, such as id = "Network".'
                )
            raise ConfigurationError(f"{where} has no plugin: no name `plugin`, and no class made from Plugin.")
        for plugin in found:
            self._add_found(plugin, via)


def built_in(plugin: Plugin) -> LoadedPlugin:
    """A plugin that is a part of the broker: made by it, with what it needs, and in every broker."""
    return LoadedPlugin(plugin.id, plugin, read_plugin(plugin), _origin(plugin, BUILT_IN), BUILT_IN)


def load_plugins(
    directory: Path | None = None,
    named: Iterable[str] = (),
    settings: Mapping[str, Mapping[str, object]] | None = None,
) -> list[LoadedPlugin]:
    """All plugins of a broker: installed ones, those in `directory`, and `named` ones. Raises ConfigurationError."""
    registry = Registry(settings)
    registry.add_entry_points()
    if directory is not None:
        registry.add_directory(directory)
    for name in named:
        registry.add(name)
    registry.check_settings()
    return list(registry.plugins.values())


def _check_tree(path: Path) -> None:
    """What nobody can import by its name is let be. So are Python's own caches, whose modes are those of the umask:
    they lie in a home that is closed to others."""
    if path.name.startswith(".") or path.name == "__pycache__":
        return
    check_owned(path)
    if path.is_dir():
        for inner in sorted(path.iterdir()):
            _check_tree(inner)


def _load_file(source: Path, *, package: bool) -> ModuleType:
    """Import a file under a name that nothing else has, and that no `import` statement leads to by accident."""
    digest = hashlib.sha256(str(source).encode()).hexdigest()[:12]
    stem = source.parent.name if package else source.stem
    name = f"rsocket_broker_plugin_{stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    places = [str(source.parent)] if package else None
    spec = importlib.util.spec_from_file_location(name, source, submodule_search_locations=places)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{source} is not a Python module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: annotations and pickles look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, BrokerError) or not isinstance(error, Exception | SystemExit):
            raise
        raise _load_error(str(source), str(source), error) from error
    return module


def _load_error(what: str, source: str | None, error: BaseException) -> ConfigurationError:
    """The line at fault: in the plugin's own file where it is there, else the last one."""
    text = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    if isinstance(error, SyntaxError) and error.filename:
        return ConfigurationError(f"{error.filename}, line {error.lineno}: {text}")
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if source is not None and frame.filename == source]
    place = (own or list(frames))[-1:]
    if not place or place[0].filename.startswith("<"):
        return ConfigurationError(f"The plugin {what} cannot be loaded: {text}")
    return ConfigurationError(f"{place[0].filename}, line {place[0].lineno}: {text}")


def _plugins_of(module: ModuleType) -> Iterator[object]:
    named = getattr(module, "plugin", None)
    if named is not None and not isinstance(named, ModuleType):
        yield named
        return
    instances = [value for value in vars(module).values() if isinstance(value, Plugin)]
    yield from instances
    for value in vars(module).values():
        if not _is_plugin_of(module, value):
            continue
        is_base = not isinstance(getattr(value, "id", None), str)  # a class without an id is for others to build on
        if not is_base and not any(type(instance) is value for instance in instances):
            yield value


def _is_bundled(plugin: Plugin) -> bool:
    """Whether it comes with the broker: such a plugin gives way to another one of its id."""
    return type(plugin).__module__.startswith(_BUNDLED)


def _is_plugin_of(module: ModuleType, value: object) -> TypeGuard[type[Plugin]]:
    """Whether `value` is a Plugin class that was written in `module`."""
    return isinstance(value, type) and issubclass(value, Plugin) and value.__module__ == module.__name__


def _again(maker: object, via: str, table: Mapping[str, object] | None) -> Plugin:
    """One more of a plugin that was loaded before."""
    instance = _instance(maker, via)
    apply_settings(instance, table)
    return instance


def _instance(plugin: object, via: str) -> Plugin:
    made = plugin
    if not isinstance(plugin, Plugin) and callable(plugin):
        try:
            made = plugin()
        except BrokerError:
            raise
        except (Exception, SystemExit) as error:
            code = getattr(plugin, "__code__", getattr(getattr(plugin, "__init__", None), "__code__", None))
            raise _load_error(via, code.co_filename if code else None, error) from error
    if not isinstance(made, Plugin):
        raise ConfigurationError(f"{via}: `plugin` must be a Plugin class, an instance, or a function that makes one.")
    return made


def _origin(plugin: Plugin, via: str) -> str:
    mounted = getattr(plugin, "where", None)
    if callable(mounted):
        return str(mounted()).rpartition(":")[0] or via
    try:
        return inspect.getsourcefile(type(plugin)) or via
    except TypeError:
        return via
