"""`clients …` against a broker in its own process and an app in ours."""

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker import client
from rsocket_broker.cli.clients import as_tree
from rsocket_broker.cli.clients_tail import show_message
from tests.cli.beside import connected_app
from tests.end_to_end.processes import BrokerProcess, clean_environment, program, run_command, start_broker


class Counter(client.AppPlugin):
    id = "Counter"

    @client.method("add")
    def add(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"sum": params["a"] + params["b"]}

    @client.method("fail")
    def fail(self, params: dict[str, Any]) -> None:
        raise client.ApplicationError("no such counter \x1b[2J")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    running = start_broker(tmp_path_factory.mktemp("clients") / "home")
    yield running
    running.stop()


@pytest.fixture
def app(broker: BrokerProcess, tmp_path: Path) -> Iterator[None]:
    """An app that stays connected while the test's commands run."""
    with connected_app(broker, tmp_path / "app", app="Exämple \x1b[2J", plugins=[Counter()]):
        yield
    while broker.clients():  # the next test begins with nobody
        pass


def test_sessions_below_a_client_stand_below_it() -> None:
    found = [
        {"id": "c1", "node": "c1", "parent": None},
        {"id": "c2", "node": "c2", "parent": None},
        {"id": "c3", "node": "s-a", "parent": "c1"},
        {"id": "c4", "node": "s-c", "parent": "s-b"},
    ]
    assert [row["id"] for row in as_tree(found)] == ["c1", "  c3", "c2", "c4"]


def test_nobody_is_no_error(broker: BrokerProcess) -> None:
    done = broker.command("clients", "list")
    assert (done.returncode, done.stdout) == (0, "")
    assert "No client" in done.stderr
    done = broker.command("clients", "list", "--json")
    assert json.loads(done.stdout) == []


@pytest.mark.usefixtures("app")
def test_the_table_is_for_people(broker: BrokerProcess) -> None:
    done = broker.command("clients", "list")
    header, row = done.stdout.splitlines()
    assert header.split() == "ID APP APP_ID DEVICE DEVICE_ID PROOF TRANSPORT STATE PLUGINS SINCE".split()  # noqa: SIM905
    assert "com.example.app" in row
    assert "Exämple \\x1b[2J" in row


@pytest.mark.usefixtures("app")
def test_show_and_call_and_kick(broker: BrokerProcess) -> None:
    shown = json.loads(broker.command("clients", "show", "com.example.app", "--json").stdout)
    assert shown["app_id"] == "com.example.app"
    assert "certificate_until" in broker.command("clients", "show", shown["id"]).stdout
    called = broker.command("clients", "call", "com.example.app", "Counter", "add", '{"a": 1, "b": 2}')
    assert json.loads(called.stdout) == {"sum": 3}
    kicked = broker.command("clients", "kick", shown["id"])
    assert kicked.returncode == 0
    assert "com.example.app" in kicked.stderr


@pytest.mark.usefixtures("app")
def test_an_error_of_the_app_is_its_own_words_and_exit_1(broker: BrokerProcess) -> None:
    done = broker.command("clients", "call", "com.example.app", "Counter", "fail")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: no such counter \\x1b[2J\n"


@pytest.mark.usefixtures("app")
def test_a_tail_is_followed_until_ctrl_c(broker: BrokerProcess) -> None:
    tail = subprocess.Popen(
        program(broker.home, "clients", "tail", "com.example.app"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    assert tail.stdout is not None
    assert tail.stderr is not None
    first: list[str] = []
    reading = threading.Thread(target=lambda: first.append(tail.stdout.readline()))  # type: ignore[union-attr]
    reading.start()
    while reading.is_alive():  # until the tail has begun, there is nobody to see it
        broker.command("clients", "call", "com.example.app", "Counter", "add", '{"a": 1, "b": 2}')
        reading.join(0.1)
    assert "Counter.add" in first[0]
    assert "->" in first[0]
    tail.send_signal(2)
    assert tail.wait(5) == 0
    assert "Traceback" not in tail.stderr.read()
    tail.stdout.close()
    tail.stderr.close()


def test_no_such_client_is_named_with_the_next_step(broker: BrokerProcess) -> None:
    for command in (["show"], ["kick"], ["tail"]):
        done = broker.command("clients", *command, "nobody")
        assert done.returncode == 1
        assert 'No client "nobody" is connected. `rsocket-broker clients list`' in done.stderr


@pytest.mark.parametrize("params", ["{", "nonsense", "NaN"])
def test_parameters_that_are_no_json_are_wrong_usage(tmp_path: Path, params: str) -> None:
    done = run_command(tmp_path, "clients", "call", "x", "P", "m", params)
    assert done.returncode == 2
    assert "JSON" in done.stderr


@pytest.mark.parametrize("command", [["list"], ["show", "x"], ["call", "x", "P", "m"], ["tail", "x"], ["kick", "x"]])
def test_where_no_broker_runs_the_next_step_is_said(tmp_path: Path, command: list[str]) -> None:
    done = run_command(tmp_path / "home", "clients", *command)
    assert done.returncode == 1
    assert f"no broker runs on {tmp_path / 'home'}" in done.stderr
    assert "rsocket-broker serve" in done.stderr
    assert done.stderr.count("\n") <= 2


def test_a_message_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    message = {"direction": "in", "kind": "event", "plugin": "P", "method": "m\n\x1b", "bytes": 5}
    show_message(message, as_json=False)
    show_message({"dropped": 3}, as_json=False)
    show_message(message, as_json=True)
    captured = capsys.readouterr()
    people, program_line = captured.out.splitlines()
    assert people.endswith("<-  event     P.m\\x0a\\x1b  5 bytes")
    assert json.loads(program_line) == message
    assert "3 messages were left out" in captured.err
