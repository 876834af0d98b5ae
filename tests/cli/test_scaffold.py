import subprocess
import sys
from pathlib import Path

import pytest

from rsocket_broker.cli.scaffold import Scaffold
from rsocket_broker.errors import ConfigurationError


@pytest.mark.parametrize(
    ("name", "cls", "module"),
    [
        ("Network", "Network", "network_plugin"),
        ("crash-reporter", "CrashReporter", "crash_reporter_plugin"),
        ("uiDebugger2", "UiDebugger2", "ui_debugger2_plugin"),
        ("x", "X", "x_plugin"),
        ("json", "Json", "json_plugin"),
        ("class", "Class", "class_plugin"),
    ],
)
def test_a_name_makes_a_class_and_a_file(name: str, cls: str, module: str) -> None:
    assert Scaffold.named(name) == Scaffold(name, cls, module)


@pytest.mark.parametrize("name", ["", "1st", "a b", "../evil", "a/b", 'a"b', "é", "a" * 65, "-a", "a-", "a\n"])
def test_a_name_that_makes_neither_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="makes no plugin name"):
        Scaffold.named(name)


@pytest.mark.parametrize("name", ["Network", "crash-reporter", "json"])
def test_the_written_test_passes_as_it_is(tmp_path: Path, name: str) -> None:
    Scaffold.named(name).write(tmp_path / "made")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "made"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_what_is_written_is_clean_python(tmp_path: Path) -> None:
    paths = Scaffold.named("Network").write(tmp_path)
    for path in paths:
        compile(path.read_text(encoding="utf-8"), str(path), "exec")
        assert all(len(line) <= 120 for line in path.read_text(encoding="utf-8").splitlines())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    plugin, _ = Scaffold.named("Network").write(tmp_path)
    plugin.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="exists already"):
        Scaffold.named("Network").write(tmp_path)
    assert plugin.read_text(encoding="utf-8") == "mine"
