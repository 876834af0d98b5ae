"""The examples are run as their headers say, or they are not examples."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.processes import BrokerProcess, start_broker

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
HEADERS = {path.name: path.read_text(encoding="utf-8").split('"""')[1] for path in EXAMPLES}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker with the plugin of the first example."""
    running = start_broker(tmp_path / "home", "--plugin", str(ROOT / "examples" / "01_plugin.py"))
    yield running
    assert running.stop() == 0, running.log.read_text()


def test_there_are_five() -> None:
    names = ["01_plugin.py", "02_app.py", "03_test_app.py", "04_android_app.py", "05_test_shop.py"]
    assert [path.name for path in EXAMPLES] == names


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_each_says_how_to_run_it(path: Path) -> None:
    assert "Run it" in HEADERS[path.name]
    assert f"examples/{path.name}" in HEADERS[path.name]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_each_uses_what_everybody_may_use(path: Path) -> None:
    ours = [line for line in path.read_text().splitlines() if "rsocket_broker" in line and "import" in line.split()[:3]]
    allowed = ("from rsocket_broker.plugin_api import", "from rsocket_broker import client")
    assert all(line.startswith(allowed) for line in ours), ours


@pytest.mark.row("F-36", "M-7")
def test_the_app_works_with_the_plugin(broker: BrokerProcess, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "02_app.py"), "--once", "--directory", str(tmp_path / "app")]
    command += ["--insecure-port", str(broker.insecure_port), "--secure-port", str(broker.secure_port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    connected, average, changed, history, refused = done.stdout.splitlines()
    assert connected.startswith("connected as host-")
    assert average in ("average: {'celsius': 18.5}", "average: {'celsius': 19}", "average: {'celsius': 19.0}")
    assert changed == "set: {'before': 19.0, 'now': 21}" or changed == "set: {'before': 19.0, 'now': 21.0}"
    assert history == "history: [18.5, 19.5]"
    assert refused.startswith("refused: 99")


def test_the_plugin_can_be_checked_without_a_broker(tmp_path: Path) -> None:
    plugin = ROOT / "examples" / "01_plugin.py"
    command = [
        sys.executable,
        "-m",
        "rsocket_broker",
        "--home",
        str(tmp_path / "home"),
        "plugins",
        "check",
        str(plugin),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert "Thermostat" in done.stdout


def test_emulated_apps_are_there_to_look_at(broker: BrokerProcess, tmp_path: Path) -> None:
    """With the SDK of 2022 and later; the test of example 5 runs it with the one before."""
    ports = [str(broker.ports[name]) for name in ("ws_insecure_port", "ws_secure_port")]
    command = [sys.executable, str(ROOT / "examples" / "04_android_app.py"), "--quiet"]
    command += ["--insecure-port", ports[0], "--secure-port", ports[1], "--directory"]
    phones = [str(tmp_path / "android")], [str(tmp_path / "ios"), "--ios"]
    apps = [subprocess.Popen([*command, *phone], stdout=subprocess.PIPE, text=True) for phone in phones]
    try:
        for app in apps:
            assert app.stdout is not None
            assert app.stdout.readline() == "connected: org.example.shop\n"
        clients = broker.clients()
        assert sorted(client["os"] for client in clients) == ["MacOS", "iOS"]
        for client in clients:
            done = broker.command("clients", "call", client["id"], "Shop", "buy", '{"item": "pot"}')
            assert json.loads(done.stdout) == {"done": True}, done.stderr
    finally:
        for app in apps:
            app.terminate()
            app.communicate()


def test_an_app_is_driven_from_pytest() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(ROOT / "examples" / "03_test_app.py"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_an_app_is_tested_with_the_pytest_plugin() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(ROOT / "examples" / "05_test_shop.py"),
    ]
    command += ["--rsocket-serve", "--insecure-port 0 --secure-port 0 --adb off"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_the_tutorial_for_testers_does_what_it_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "tutorial" / "test-an-app.md").read_text(encoding="utf-8")
    (settings,) = re.findall(r"```ini\n(.*?)```", page, re.DOTALL)
    conftest, *tests = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "pytest.ini").write_text(settings)
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_shop.py").write_text("\n\n".join(tests))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"], capture_output=True, text=True, timeout=50, cwd=tmp_path, check=False
    )
    assert "1 failed, 3 passed" in done.stdout, done.stdout + done.stderr
    shown = re.search(r"-+ network -+\n(.*?)\n-*=", done.stdout, re.DOTALL)
    assert shown is not None
    assert "404 POST https://api.shop.example/v1/cart" in shown[1]
    assert "test_shop.py-test_the_moon_is_for_sale.har" in shown[1]
