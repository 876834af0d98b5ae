import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Start
from tests.end_to_end.processes import run_command

PLUGIN = """
from rsocket_broker.plugin_api import App, Plugin, event, method

class Mine(Plugin):
    id = "Mine"

    @event("told")
    def told(self, app: App, params: dict) -> None: ...

    @method("ask")
    def ask(self, app: App) -> dict:
        return {}
"""


def test_without_a_broker_what_would_be_loaded_is_listed(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "plugins"
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text(PLUGIN)
    done = run_command(tmp_path / "home", "plugins", "list", "--json")
    found = {plugin["id"]: plugin for plugin in json.loads(done.stdout)}
    assert {"echo", "Network", "Databases", "Preferences", "Mine"} <= set(found)
    assert found["Mine"]["methods"] == ["ask"]
    assert found["Mine"]["events"] == ["told"]
    assert found["Mine"]["origin"] == str(folder / "mine.py")
    assert "request" in found["echo"]["methods"]
    table = run_command(tmp_path / "home", "plugins", "list").stdout
    assert "Mine" in table
    assert "ORIGIN" in table


def test_with_a_broker_what_it_has_loaded_is_listed(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    broker = start("--plugin", str(path))
    found = json.loads(broker.command("plugins", "list", "--json").stdout)
    via = {plugin["id"]: plugin["via"] for plugin in found}
    assert {"echo", "Network", "Mine", "identity", "sessions"} <= set(via)
    assert via["identity"] == via["sessions"] == "built in"


def test_a_new_plugin_is_checked_tested_and_served(start: Start, tmp_path: Path) -> None:
    into = tmp_path / "network"
    done = run_command(tmp_path / "home", "plugins", "new", "Network", "--into", str(into))
    assert done.returncode == 0
    assert "serve --plugin" in done.stderr
    checked = run_command(tmp_path / "home", "plugins", "check", str(into / "network_plugin.py"))
    assert checked.returncode == 0
    assert "Network" in checked.stdout
    tested = subprocess.run([sys.executable, "-m", "pytest", "-q", str(into)], capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout
    broker = start("--plugin", str(into / "network_plugin.py"))
    found = json.loads(broker.command("plugins", "list", "--json").stdout)
    (network,) = (plugin for plugin in found if plugin["id"] == "Network")  # in the place of the bundled one
    assert network["origin"] == str(into / "network_plugin.py")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import nothing_of_this_name\n", "mine.py, line 1"),
        ("def broken(:\n", "mine.py, line 1"),
        ("x = 1\n", "has no plugin"),
        (PLUGIN.replace("params: dict", "params: set"), "mine.py:"),
    ],
)
def test_a_fault_is_named_with_file_and_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    done = run_command(tmp_path / "home", "plugins", "check", str(path))
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    done = run_command(tmp_path / "home", "plugins", "check", "ecko")
    assert done.returncode == 1
    assert "ecko" in done.stderr


def test_settings_are_checked_with_the_plugin(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text("[plugins.Mine]\nsize = 1\n[plugins.list]\njson = true\n")
    (home / "config.toml").chmod(0o600)
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    done = run_command(home, "plugins", "check", str(path))
    assert done.returncode == 1
    assert "[plugins.Mine]" in done.stderr


def test_a_name_that_makes_no_plugin_is_refused(tmp_path: Path) -> None:
    done = run_command(tmp_path, "plugins", "new", "../evil")
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_an_id_that_a_bundled_plugin_has_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.replace('"Mine"', '"echo"'))
    done = run_command(tmp_path / "home", "plugins", "check", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert str(path) in done.stdout
    assert run_command(tmp_path / "home", "plugins", "check", "echo").returncode == 0


def test_a_plugin_without_an_id_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.replace('id = "Mine"', ""))
    done = run_command(tmp_path / "home", "plugins", "check", str(path))
    assert done.returncode == 1
    assert "Mine has no id." in done.stderr
