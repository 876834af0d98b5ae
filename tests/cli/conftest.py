"""Brokers in processes of their own for the commands that talk to one."""

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from rsocket_broker.cli.main import run
from tests.end_to_end.processes import BrokerProcess, start_broker

Start = Callable[..., BrokerProcess]


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
