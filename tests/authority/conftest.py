"""A clock that tests move, key pairs made once, and a home with an authority that each test gets a copy of."""

import functools
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rsocket_broker.authority import Authority, CheckedRequest
from rsocket_broker.authority.keys import SigningKey, make_key
from rsocket_broker.authority.requests import check_request
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.state import State

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **time: float) -> None:
        self.now += timedelta(**time)


@functools.cache
def some_key(kind: str = "rsa-2048", number: int = 0) -> SigningKey:
    """A key pair, made once in a run since RSA takes a tenth of a second."""
    return make_key(kind)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def made_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("authority") / "home"
    with State.open(home / "state.db") as state:
        Authority.open(home, state, clock=Clock())
    return home


@pytest.fixture
def home(made_home: Path, tmp_path: Path) -> Path:
    """A home whose authority was made at START."""
    return shutil.copytree(made_home, tmp_path / "home")


@pytest.fixture
def state(home: Path) -> Iterator[State]:
    with State.open(home / "state.db") as opened:
        yield opened


@pytest.fixture
def authority(home: Path, state: State, clock: Clock) -> Authority:
    return Authority.open(home, state, clock=clock)


@pytest.fixture
def principal() -> Principal:
    return Principal("org.example.app", "device-1", Proof.ADB)


@pytest.fixture
def request_of_app() -> CheckedRequest:
    return check_request(make_signing_request("org.example.app").csr_pem)
