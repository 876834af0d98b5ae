"""Each kind of thing that is recorded, done once over the command line on a live broker, and then looked for."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker import client
from rsocket_broker.audit import Event
from rsocket_broker.authority import Authority
from rsocket_broker.state import State
from tests.end_to_end.conftest import QUICK
from tests.end_to_end.processes import BrokerProcess, run_here, start_broker

APP = "com.example.story"
POLICY = """version = 1
[[rule]]
id = "echo"
effect = "allow"
method = ["echo.request", "sessions.login"]
[[rule]]
id = "no-stream"
effect = "deny"
method = "echo.stream"
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    must(tmp_path / "home", "ca", "init")
    (tmp_path / "home" / "policy.toml").write_text(POLICY)
    (tmp_path / "home" / "policy.toml").chmod(0o600)
    (tmp_path / "passphrase").write_text("a passphrase for the end")
    (tmp_path / "passphrase").chmod(0o600)
    running = start_broker(tmp_path / "home", "--plugin", "echo", "--enrollment", "window", "--http-port", "0")
    yield running
    running.stop()


def must(home: Path, *arguments: object) -> str:
    code, said = run_here(home, *map(str, arguments))
    assert code == 0, f"{arguments}: {said}"
    return said


async def do(home: Path, *arguments: object) -> str:
    """As `must`, while the apps of this process go on: they have a part in it."""
    return await asyncio.to_thread(must, home, *arguments)


async def open_window(broker: BrokerProcess) -> None:
    await do(broker.home, "enrollment", "open", "--for", "10m", "--uses", "3")
    broker.ports = json.loads((broker.home / "run" / "ports.json").read_text())


def records(home: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(must(home, "audit", "list", "--limit", "1000", "--json"))
    return found


def facts(home: Path, event: Event) -> list[dict[str, Any]]:
    """What is told of one kind, the oldest first."""
    return [each["facts"] for each in records(home) if each["event"] == event.value]


def an_app(broker: BrokerProcess, folder: Path, app_id: str = APP) -> Any:
    return client.connect(
        app_id=app_id,
        app="Demo",
        directory=folder,
        insecure_port=broker.insecure_port,
        secure_port=broker.secure_port,
        backoff=QUICK,
        timeout=20,
    )


@pytest.mark.row("D-14", "A-57")
@pytest.mark.timeout(180)
async def test_each_kind_of_record_is_written_when_its_thing_is_done(broker: BrokerProcess, tmp_path: Path) -> None:
    home = broker.home
    await open_window(broker)
    async with an_app(broker, tmp_path / "app") as session:
        await session.request("echo.request", {})
        with pytest.raises(client.Rejected):
            await session.request("echo.stream", {})
        child = json.loads(await do(home, "sessions", "login", APP, "--name", "bench", "--json"))
        await do(home, "sessions", "revoke", child["id"])
        await do(home, "ca", "rotate", "prepare")
        await do(home, "ca", "rotate", "switch")
        await do(home, "ca", "rotate", "finish", "--without", APP)
        await do(home, "listeners", "close", "http")
        await do(home, "listeners", "open", "http")
        await do(home, "ca", "revoke", "--app", APP, "--reason", "the story ends")
    with pytest.raises(client.EnrollmentRefused):
        await client.enroll(app_id=APP, app="Demo", directory=tmp_path / "again", insecure_port=broker.insecure_port)
    await do(home, "ca", "unblock", "--app", APP)
    await do(home, "enrollment", "close")
    await do(home, "home", "backup", "--out", tmp_path / "backup")
    assert broker.stop() == 0
    must(home, "ca", "passphrase", "set", "--passphrase-file", tmp_path / "passphrase")
    must(home, "ca", "passphrase", "remove", "--passphrase-file", tmp_path / "passphrase")
    must(tmp_path / "restored", "home", "restore", tmp_path / "backup")
    must(home, "ca", "verify")
    later = datetime.now(UTC) + timedelta(days=27)
    with State.open(home / "state.db") as state:
        Authority.open(home, state, clock=lambda: later).serving()
    told: dict[Event, list[dict[str, Any]]] = {event: [] for event in Event}
    for each in records(home):
        told[Event(each["event"])].append(each["facts"])
    never = {event.value for event, found in told.items() if not found}
    assert never == {"grant", "record", "restore", "trim", "drop"}, "these are for other tests"
    assert facts(tmp_path / "restored", Event.RESTORED)
    must(home, "audit", "verify")
    assert told[Event.CALL_REFUSED][0] | {"app_id": APP, "rule": "no-stream"} == told[Event.CALL_REFUSED][0]
    assert [each["step"] for each in told[Event.ROTATED]] == ["prepare", "switch", "finish"]
    assert told[Event.REVOKED][0]["reason"] == "the story ends"


async def test_a_client_that_is_refused_again_and_again_fills_no_disk(broker: BrokerProcess, tmp_path: Path) -> None:
    await open_window(broker)
    async with an_app(broker, tmp_path / "app") as session:
        for number in range(600):
            with pytest.raises(client.Rejected):
                await session.request("echo.stream" if number % 2 else f"echo.no{number}", {})
    assert broker.stop() == 0
    found = facts(broker.home, Event.CALL_REFUSED)
    assert 50 <= len(found) <= 52
    assert sum(each.get("count", 1) for each in found) >= 300
    (dropped,) = facts(broker.home, Event.DROPPED)
    assert dropped["of"] == "call-refused"
    assert dropped["app_id"] == APP
    assert sum(each.get("count", 1) for each in [*found, dropped]) == 600
