import asyncio
import json
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker.client import connect
from rsocket_broker.errors import ApplicationError, Rejected
from tests.cli.conftest import Said, Start, say
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


SHAKY = """
import asyncio
from rsocket_broker.plugin_api import App, Plugin, Restart, method

class Shaky(Plugin):
    id = "Shaky"
    restart = Restart(failures=1, first=300.0)

    @method("fail")
    def fail(self, app: App) -> None:
        raise KeyError("a secret")

    @method("add")
    def add(self, app: App, a: int, b: int = 1) -> int:
        return a + b

    @method("each")
    async def each(self, app: App, count: int):
        for n in range(count):
            yield n
"""


@pytest.mark.row("D-13", "A-56")
async def test_a_generated_client_works_and_the_state_of_a_plugin_is_shown(start: Start, tmp_path: Path) -> None:
    path, out = tmp_path / "shaky.py", tmp_path / "shaky_client.py"
    path.write_text(SHAKY)
    broker = start("--plugin", str(path))

    async def told(*arguments: str) -> Said:
        return await asyncio.to_thread(say, broker, *arguments)

    schema = json.loads((await told("plugins", "schema", "Shaky", "--json")).stdout)
    assert schema["methods"]["add"]["parameters"]["properties"]["b"] == {"type": "integer", "default": 1}
    assert "a: int, b?: int" in (await told("plugins", "schema", "Shaky")).stdout
    missing = await told("plugins", "schema", "Shakey")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert 'no plugin "Shakey". Did you mean "Shaky"?' in missing.stderr
    assert (await told("plugins", "stubs", "Shaky", "--out", str(out))).returncode == 0
    made: dict[str, Any] = {}
    exec(out.read_text(), made)

    options = {"insecure_port": broker.ports["insecure_port"], "secure_port": broker.ports["secure_port"]}
    async with connect(app_id="org.example.caller", app="Caller", directory=tmp_path / "app", **options) as session:
        shaky = made["ShakyClient"](session)
        assert (await shaky.add(2, 3), await shaky.add(2)) == (5, 3)
        async with aclosing(shaky.each(3)) as numbers:
            assert [n async for n in numbers] == [0, 1, 2]
        with pytest.raises(ApplicationError, match=r"internal error in Shaky\.fail"):
            await shaky.fail()
        with pytest.raises(Rejected, match='The plugin "Shaky" is down after failures, and is tried again in'):
            while True:
                await shaky.add(1)
        assert (await session.request("echo.fired"))["count"] == 0
    shown = await told("plugins", "list")
    assert "down, again in " in shown.stdout
    (found,) = [one for one in json.loads((await told("plugins", "list", "--json")).stdout) if one["id"] == "Shaky"]
    assert found["last_error"].startswith("Shaky.fail: KeyError at ")
    assert "a secret" not in shown.stdout + str(found)
    symptoms = (await told("doctor", "--json")).stdout
    assert any(
        one["what"] == "plugin Shaky" and "is down after failures" in one["detail"] for one in json.loads(symptoms)
    )
