"""What newcomers to each port meet."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rsocket_broker.connection import Connection
from rsocket_broker.enrollment.first_bytes import FirstBytes
from rsocket_broker.listening.lines import MAX_STRANGERS, RSOCKET_PATH, Lines, Served
from rsocket_broker.protocol.relay import Relaying
from rsocket_broker.quota import House
from rsocket_broker.settings import Settings


class Nobody:
    """Who answers, where no question comes. The policy lets requests be passed on, or not."""

    def __init__(self, relays: bool = False) -> None:
        self.access = SimpleNamespace(policy=SimpleNamespace(relays=relays))
        self.house = House()

    def responder(self) -> Any:
        return self

    resume = None
    session = None
    nonces = None

    def closed(self, error: object) -> None:
        """Whoever asks hears nothing."""


def lines(home: Path, *, relays: bool = False, **changes: Any) -> Lines:
    nobody: Any = Nobody(relays)
    return Lines(Settings(home=home, **changes), Served(enroller=nobody, endpoint=nobody))


async def test_each_port_has_its_own_kind_of_newcomer(tmp_path: Path) -> None:
    made = lines(tmp_path)
    assert isinstance(made.secure(), Connection)
    assert isinstance(made.plain(None), FirstBytes)
    assert isinstance(made.admin({}, None), Connection)
    assert list(made.web().sockets) == list(made.http().sockets) == [RSOCKET_PATH]
    assert made.web().port is None


async def test_certified_lines_alone_may_be_resumed(tmp_path: Path) -> None:
    made = lines(tmp_path, resume_seconds=7)
    assert made._secure_limits.resume_seconds == 7
    assert made._secure_limits.frame > made.http().sockets[RSOCKET_PATH].limit


@pytest.mark.parametrize("relay", [True, False])
async def test_requests_are_passed_on_only_where_that_is_allowed(tmp_path: Path, relay: bool) -> None:
    connection: Any = lines(tmp_path, relays=relay).secure()
    assert isinstance(connection._protocol, Relaying) is relay


async def test_farewells_reach_every_line_that_lives(tmp_path: Path) -> None:
    made = lines(tmp_path)
    connections: list[Any] = [made.secure(), made.admin({}, None)]
    receiver = made.plain(1)
    await made.drain(0.1)
    await made.close("over", 0.1)
    await made.end_admin("over", 0.1)
    await made.dismiss_strangers("over", 0.1)
    assert receiver is not None
    await asyncio.gather(*(connection.wait_closed() for connection in connections))


async def test_who_shows_no_token_gives_way_to_others(tmp_path: Path) -> None:
    made = lines(tmp_path)
    first, *_ = [made._child_line() for _ in range(MAX_STRANGERS)]
    assert first.closing is None
    last = made._child_line()
    assert first.closing is not None
    assert last.closing is None
    await last.close()
    made._child_line()
    assert len(made._strangers) == MAX_STRANGERS
