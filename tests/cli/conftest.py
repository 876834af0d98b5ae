"""Homes for the commands that need no broker, and brokers in processes of their own for those that talk to one."""

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from rsocket_broker.cli.main import run
from tests.end_to_end.processes import BrokerProcess, start_broker

Start = Callable[..., BrokerProcess]
Ca = Callable[..., tuple[int, str, str]]


@attrs.frozen
class Said:
    """What one command has said, and how it ended."""

    returncode: int
    stdout: str
    stderr: str


def say(where: Path | BrokerProcess, *arguments: str) -> Said:
    """`rsocket-broker ARGUMENTS` on a home, in this process, which is much faster than in one of its own."""
    home = where if isinstance(where, Path) else where.home
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = run(["--home", str(home), *arguments])
    return Said(code, out.getvalue(), errors.getvalue())


@pytest.fixture(scope="session")
def made_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a CA; to be copied, not to be changed."""
    home = tmp_path_factory.mktemp("ca") / "home"
    assert run(["--home", str(home), "ca", "init"]) == 0
    return home


@pytest.fixture
def home(made_home: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made_home, tmp_path / "home")


@pytest.fixture
def ca(home: Path, capfd: pytest.CaptureFixture[str]) -> Ca:
    """Runs `rsocket-broker ca …` on the test's home: exit code, stdout, stderr."""
    capfd.readouterr()

    def call(*arguments: str | Path, home: Path = home) -> tuple[int, str, str]:
        code = run(["--home", str(home), "ca", *map(str, arguments)])
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(*options)`: `serve` on HOME `tmp_path/home` and free ports, without adb; ended after the test."""
    running: list[BrokerProcess] = []

    def begin(*options: str, home: Path = tmp_path / "home", **ports: int) -> BrokerProcess:
        running.append(start_broker(home, *options, **ports))
        return running[-1]

    yield begin
    for broker in running:
        broker.stop()
