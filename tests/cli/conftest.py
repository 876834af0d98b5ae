"""Brokers in processes of their own for the commands that talk to one."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.processes import BrokerProcess, start_broker

Start = Callable[..., BrokerProcess]


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
