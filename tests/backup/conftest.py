"""A home with a little of everything, made once and copied for each test."""

import shutil
from pathlib import Path

import pytest

from rsocket_broker.authority import Authority
from rsocket_broker.authority.requests import check_request
from rsocket_broker.backup import sealing
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.state import State
from tests.authority.conftest import START, Clock

PASSPHRASE = b"a passphrase for the backup"
CHEAP = 1 << 10
"""For each guess, in place of half a second: one test pays the real price."""


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_COST", CHEAP)


@pytest.fixture(scope="session")
def made_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("backup") / "home"
    with State.open(home / "state.db") as state:
        authority = Authority.open(home, state, clock=Clock())
        request = check_request(make_signing_request("org.example.app").csr_pem)
        for number in range(20):
            authority.issue(request, Principal("org.example.app", f"device-{number}", Proof.ADB))
    (home / "config.toml").write_text("[serve]\nsecure-port = 9000\n")
    (home / "plugins" / "deep").mkdir(parents=True)
    (home / "plugins" / "deep" / "large.bin").write_bytes(bytes(range(256)) * 9000)
    (home / "plugins" / "mine.py").write_text("# a plugin\n")
    return home


@pytest.fixture
def home(made_home: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made_home, tmp_path / "home")


def contents(home: Path) -> dict[str, bytes]:
    """Every file of a home but the database, which has no fixed bytes."""
    return {
        path.relative_to(home).as_posix(): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and not path.name.startswith("state.db")
    }


def serials(home: Path) -> set[int]:
    with State.open(home / "state.db") as state:
        return {each.serial for each in Authority.open(home, state, clock=Clock(), create=False).certificates()}


__all__ = ["PASSPHRASE", "START", "contents", "serials"]
