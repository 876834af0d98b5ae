"""How plugins are found, and what is said of those that cannot be loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from rsocket_broker.errors import ConfigurationError, HomeError
from rsocket_broker.plugin_api import App, Plugin, method
from rsocket_broker.routing.registry import RESERVED, Registry, built_in, load_plugins

GOOD = """\
from rsocket_broker.plugin_api import App, Plugin, method


class Counter(Plugin):
    id = "{id}"

    @method("add")
    def add(self, app: App, a: int) -> int:
        return a + 1
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_bundled_plugins_are_found_by_their_entry_point() -> None:
    (echo,) = [plugin for plugin in load_plugins() if plugin.id == "echo"]
    assert echo.via == "entry point echo"
    assert Path(echo.origin).name == "handler.py"
    names = {handler.name for handler in echo.routes.handlers()}
    assert {"request", "error", "never", "slow", "stream", "stream-error", "channel", "fire"} <= names


class Part(Plugin):
    id = "part"

    def __init__(self, word: str) -> None:
        self.word = word

    @method("word")
    def said(self, app: App) -> str:
        return self.word


def test_a_part_of_the_broker_is_a_plugin_that_was_not_looked_for() -> None:
    part = Part("hello")
    loaded = built_in(part)
    assert (loaded.id, loaded.via, loaded.plugin) == ("part", "built in", part)
    assert Path(loaded.origin).name == "test_registry.py"
    assert [handler.route for handler in loaded.routes.handlers()] == ["part.word"]


@pytest.mark.row("A-55")
@pytest.mark.parametrize("plugin_id", sorted(RESERVED))
def test_nobody_takes_the_place_of_a_part_of_the_broker(tmp_path: Path, plugin_id: str) -> None:
    registry = Registry()
    with pytest.raises(ConfigurationError, match="the broker's own"):
        registry.add_path(write(tmp_path / "mine.py", GOOD.format(id=plugin_id)))
    assert registry.plugins == {}


def test_a_folder_of_modules_and_packages(tmp_path: Path) -> None:
    write(tmp_path / "one.py", GOOD.format(id="one"))
    write(tmp_path / "two" / "__init__.py", "from .inner import Counter\n\nplugin = Counter()\n")
    write(tmp_path / "two" / "inner.py", GOOD.format(id="two"))
    write(tmp_path / "_helper.py", "raise SystemExit('never imported')\n")
    write(tmp_path / "notes.txt", "not a plugin")
    (tmp_path / "empty").mkdir()
    registry = Registry()
    registry.add_directory(tmp_path)
    registry.add_directory(tmp_path / "absent")
    assert list(registry.plugins) == ["one", "two"]
    assert registry.plugins["two"].origin == str(tmp_path / "two" / "inner.py")


@pytest.mark.row("A-27")
def test_what_the_option_names_is_known_however_it_was_found_first(tmp_path: Path) -> None:
    one = write(tmp_path / "one.py", GOOD.format(id="one"))
    write(tmp_path / "two.py", GOOD.format(id="two"))
    registry = Registry()
    registry.add_entry_points()
    registry.add_directory(tmp_path)
    assert [plugin.id for plugin in registry.plugins.values() if plugin.named] == []
    registry.add(str(one))
    registry.add("echo")
    assert sorted(plugin.id for plugin in registry.plugins.values() if plugin.named) == ["echo", "one"]


@pytest.mark.row("F-11", "A-55")
@pytest.mark.parametrize("open_to_all", ["", "plugins", "plugins/one.py", "plugins/two", "plugins/two/inner.py"])
def test_nothing_is_loaded_that_another_user_could_change(tmp_path: Path, open_to_all: str) -> None:
    tmp_path.chmod(0o700)
    one = write(tmp_path / "plugins" / "one.py", f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    write(tmp_path / "plugins" / "two" / "__init__.py", "")
    write(tmp_path / "plugins" / "two" / "inner.py", "")
    (tmp_path / open_to_all).chmod(0o777)
    with pytest.raises(HomeError, match="Run: chmod"):
        load_plugins(one.parent)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["plugins", "plugins/one.py"])
def test_no_link_is_followed_to_a_plugin(tmp_path: Path, name: str) -> None:
    away = write(tmp_path / "away" / "one.py", GOOD.format(id="one"))
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    link = home / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(away if name.endswith(".py") else away.parent)
    with pytest.raises(HomeError, match="symbolic link"):
        load_plugins(home / "plugins")


def test_the_same_file_found_twice_is_one_plugin(tmp_path: Path) -> None:
    path = write(tmp_path / "one.py", GOOD.format(id="one"))
    loaded = load_plugins(tmp_path, [str(path), str(path), "echo", "rsocket_broker.plugins.echo"])
    assert sorted(plugin.id for plugin in loaded if plugin.named) == ["echo", "one"]


def test_a_bundled_plugin_gives_way_to_another_of_its_id(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", GOOD.format(id="Network"))
    for directory, named in ((tmp_path, []), (None, [str(path)])):
        (found,) = [plugin for plugin in load_plugins(directory, named) if plugin.id == "Network"]
        assert found.origin == str(path)
    registry = Registry()
    registry.add_path(path)
    registry.add_entry_points()
    assert registry.plugins["Network"].origin == str(path)
    other = write(tmp_path / "other.py", GOOD.format(id="Network"))
    with pytest.raises(ConfigurationError, match="Two plugins"):
        registry.add_path(other)


def test_our_own_folder_given_as_a_path_is_the_plugin_that_is_installed() -> None:
    registry = Registry()
    registry.add_entry_points()
    folder = Path(registry.plugins["echo"].origin).parent
    registry.add(str(folder))
    assert len(registry.plugins) == len(load_plugins())


def test_two_with_one_id_are_refused_by_both_their_files(tmp_path: Path) -> None:
    first = write(tmp_path / "a.py", GOOD.format(id="same"))
    second = write(tmp_path / "b.py", GOOD.format(id="same"))
    with pytest.raises(ConfigurationError) as caught:
        load_plugins(tmp_path)
    assert caught.value.public == f'Two plugins have the id "same": {first} and {second}.'


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("import os\nx = 1 / 0\n", 2, "ZeroDivisionError: division by zero"),
        ("def broken(:\n", 1, "SyntaxError: invalid syntax"),
        ("\n\nimport not_there_at_all\n", 3, "No module named 'not_there_at_all'"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        (
            "from rsocket_broker.plugin_api import Plugin\nclass P(Plugin):\n    id = 'p'\n"
            "    def __init__(self):\n        raise OSError('no disk')\n",
            5,
            "OSError: no disk",
        ),
        ("import json\njson.loads('{')\n", 2, "JSONDecodeError"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_named_with_file_and_line(
    text: str, line: int, words: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "bad.py", text)
    with pytest.raises(ConfigurationError) as caught:
        Registry().add(str(path))
    assert caught.value.public.startswith(f"{path}, line {line}: ")
    assert words in caught.value.public
    assert "\n" not in caught.value.public
    left = [module for module in sys.modules.values() if getattr(module, "__file__", None) == str(path)]
    assert not left or "class P" in text  # the module was whole, and only its plugin could not be made


def test_a_misspelt_handler_is_named_with_file_and_line(tmp_path: Path) -> None:
    text = GOOD.format(id="p") + "\n    def on_conect(self, app):\n        pass\n"
    path = write(tmp_path / "bad.py", text)
    with pytest.raises(ConfigurationError) as caught:
        Registry().add(str(path))
    assert caught.value.public.startswith(f"{path}:11: Counter.on_conect")


@pytest.mark.parametrize(
    ("text", "words"),
    [("x = 1\n", "has no plugin"), ("plugin = 5\n", "`plugin` must be a Plugin class")],
)
def test_a_module_without_a_plugin_says_so(text: str, words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "none.py", text)
    with pytest.raises(ConfigurationError, match=words):
        Registry().add(str(path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", 'There is no plugin "nowhere"'),
        ("nowhere.at_all", 'There is no plugin "nowhere.at_all"'),
        ("nowhere/x.py", "There is no plugin at nowhere/x.py"),
        ("x.py", "There is no plugin at x.py"),
        ("plugins.echo", "as rsocket_broker.plugins.echo"),
    ],
)
def test_a_name_that_leads_nowhere(name: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Registry().add(name)


def test_settings_reach_their_plugin_and_no_other(tmp_path: Path) -> None:
    text = "import attrs\n" + GOOD.format(id="one")
    text += (
        "\n\n@attrs.frozen\nclass Settings:\n    depth: int = 3\n\n\nCounter.__annotations__ = {'settings': Settings}\n"
    )
    path = write(tmp_path / "one.py", text)
    (loaded,) = [one for one in load_plugins(None, [str(path)], {"one": {"depth": 5}}) if one.id == "one"]
    assert loaded.plugin.settings.depth == 5  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match=r"\[plugins.onne\]: there is no such plugin. Loaded: .*, one"):
        load_plugins(None, [str(path)], {"onne": {}})


def test_a_mounted_router_is_found_like_any_plugin(tmp_path: Path) -> None:
    text = (
        "from rsocket.routing.request_router import RequestRouter\n"
        "from rsocket_broker.plugin_api.mount import mount\n"
        "router = RequestRouter()\n"
        "plugin = mount(router, 'legacy')\n"
    )
    registry = Registry()
    registry.add_directory(write(tmp_path / "legacy.py", text).parent)
    assert list(registry.plugins) == ["legacy"]


def test_loading_bare_plugins_never_happens() -> None:
    """A second copy of a bundled plugin would have a second `Plugin` state, and nobody would find it."""
    code = "import sys; from rsocket_broker.routing.registry import load_plugins; load_plugins(); "
    code += "print([name for name in sys.modules if name.split('.')[0] == 'plugins'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
