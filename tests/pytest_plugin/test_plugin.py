"""The plugin as pytest loads it: a test run of its own, in a process of its own."""

import json
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.end_to_end.processes import clean_environment
from tests.pytest_plugin.conftest import FREE, shop_command

CONFTEST = """
    import subprocess

    import pytest


    @pytest.fixture(scope="session")
    def launch_app(broker, tmp_path_factory):
        command = [{command}]
        ports = {{"INSECURE": str(broker.ports.insecure_port), "SECURE": str(broker.ports.secure_port)}}
        with subprocess.Popen([ports.get(word, word) for word in command], stdout=subprocess.DEVNULL) as process:
            yield
            process.terminate()
"""
TESTS = """
    import pytest


    def test_it_works(app, network):
        app.call("Shop", "buy", {"item": "cup"})
        network.wait(method="POST", url="/cart", status="2xx")


    def test_it_fails(app):
        app.call("Shop", "buy", {"item": "tea"})
        assert app.call("Shop", "buy", {"item": "moon"}) == {"done": True}


    @pytest.mark.parametrize(
        "name",
        ["databases", "preferences", "navigation", "crashes", "leaks", "layout", "images", "logs"],
    )
    def test_there_is_a_fixture(request, name):
        assert request.getfixturevalue(name)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Somebody's tests."""
    words = [word.replace("-1", "INSECURE").replace("-2", "SECURE") for word in shop_command(tmp_path / "shop", -1, -2)]
    command = ", ".join(map(repr, words))
    (tmp_path / "conftest.py").write_text(dedent(CONFTEST).format(command=command))
    (tmp_path / "test_shop.py").write_text(dedent(TESTS))
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nrsocket_serve = {FREE}\n")
    return tmp_path


def run(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:asyncio", *options]
    return subprocess.run(
        command, cwd=project, capture_output=True, text=True, timeout=50, check=False, env=clean_environment()
    )


def test_a_failed_test_shows_what_the_app_said_and_keeps_it(project: Path) -> None:
    done = run(project, "--junitxml=report.xml", "-q")
    assert "1 failed, 9 passed" in done.stdout, done.stdout + done.stderr
    sections = re.search(r"-+ network -+\n(.*?)\n-*=", done.stdout, re.DOTALL)
    assert sections is not None
    assert sections[1].splitlines()[:2] == [
        "201 POST https://api.shop.example/v1/cart",
        "404 POST https://api.shop.example/v1/cart",
    ]
    (path,) = (project / "rsocket-artifacts").iterdir()
    assert path.name == "test_shop.py-test_it_fails.har"
    entries = json.loads(path.read_text())["log"]["entries"]
    assert [entry["response"]["status"] for entry in entries] == [201, 404]
    assert path.name in (project / "report.xml").read_text()
    assert (project / ".pytest_cache" / "d" / "rsocket-broker" / "home").is_dir(), "so that apps stay enrolled"


def test_an_app_that_never_comes_is_named_with_what_to_look_at(project: Path) -> None:
    options = ["-k", "works", "--rsocket-app", "org.example.nobody", "--rsocket-timeout", "0.5"]
    done = run(project, *options, "--rsocket-home", str(project / "home"), "-q")
    assert re.search(
        r"org\.example\.nobody has not connected within 0\.5 s\. The broker enrols on port \d+", done.stdout
    )
    assert (project / "home" / "ca").is_dir()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--rsocket-serve", "--secure-prot 0"],
            "rsocket_serve, the options of `rsocket-broker serve`: No such option",
        ),
        (["--rsocket-timeout", "soon"], "rsocket_timeout must be a number of seconds, not 'soon'"),
    ],
)
def test_a_mistake_in_the_options_is_named(project: Path, options: list[str], words: str) -> None:
    done = run(project, "-k", "works", "-q", *options)
    assert words in done.stdout, done.stdout


def test_the_options_are_listed(project: Path) -> None:
    said = run(project, "--help").stdout
    for name in ("home", "serve", "app", "timeout", "artifacts"):
        assert f"--rsocket-{name}" in said
        assert f"rsocket_{name}" in said


def test_who_asks_for_none_of_it_pays_for_none_of_it() -> None:
    code = "import sys; import rsocket_broker.pytest_plugin.plugin; assert 'rsocket_broker.broker' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
