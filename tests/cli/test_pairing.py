"""The operator's command and the app's, in processes of their own, with people who answer."""

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from rsocket_broker.cli.pairing import show_code
from rsocket_broker.client.folder import AppFolder
from tests.cli.conftest import Start, say
from tests.end_to_end.processes import BrokerProcess, clean_environment, program

DEMO = "org.example.demo"


@attrs.define
class Typed:
    """A command that is answered while it runs."""

    process: subprocess.Popen[str]

    @classmethod
    def run(cls, home: Path, *arguments: str) -> "Typed":
        pipe = subprocess.PIPE
        return cls(
            subprocess.Popen(
                program(home, *arguments), stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=clean_environment()
            )
        )

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def event(self, name: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == name:
                return event
        raise AssertionError(f"no {name} before the end: {self.end()}")

    def end(self) -> tuple[int, str, str]:
        out, errors = self.process.communicate(timeout=20)
        return self.process.returncode, out, errors


@pytest.fixture
def broker(start: Start) -> BrokerProcess:
    return start("--enrollment", "window", "--ws-secure-port", "off")


@pytest.fixture
def operator(broker: BrokerProcess) -> Iterator[Typed]:
    typed = Typed.run(broker.home, "enrollment", "pair", "--app", DEMO, "--for", "1m", "--json")
    yield typed
    typed.process.kill()
    typed.process.communicate()


def app(tmp_path: Path, *more: str) -> Typed:
    return Typed.run(
        tmp_path / "elsewhere", "enroll", DEMO, "--medium", "pairing", "--into", str(tmp_path / "app"), *more
    )


@pytest.mark.row("M-5", "D-10", "F-12")
def test_two_people_pair_an_app_while_nobody_else_can_enrol(
    broker: BrokerProcess, operator: Typed, tmp_path: Path
) -> None:
    offer = operator.event("open")
    refused = broker.command("enroll", "org.example.other", "--into", str(tmp_path / "other"))
    assert refused.returncode == 1 and "window: enrolment is closed" in refused.stderr
    typed = app(tmp_path, "--code-file", "-", "--json")
    typed.type(offer["text"])
    compared = operator.event("compare")
    operator.type("y")
    typed.type("y")
    code, out, errors = typed.end()
    assert code == 0, errors
    assert f"Do both show {compared['digits']}? [y/N]" in errors
    assert "waiting for the broker's side to confirm" in errors
    enrolled = AppFolder(tmp_path / "app").load()
    assert json.loads(out)["device_id"] == enrolled.device_id
    assert operator.event("enrolled")["device_id"] == enrolled.device_id
    assert operator.end()[0] == 0
    closed = broker.command("enrollment", "status", "--json")
    assert json.loads(closed.stdout)["insecure_port"] is None, "the port was open for the code alone"


@pytest.mark.row("M-5", "D-10", "A-13")
def test_a_no_and_an_end_enrol_nothing_and_say_so(broker: BrokerProcess, operator: Typed, tmp_path: Path) -> None:
    offer = operator.event("open")
    file = tmp_path / "code"
    file.write_text(offer["text"])
    file.chmod(0o600)
    typed = app(tmp_path, "--code-file", str(file))
    operator.event("compare")
    operator.type("n")
    typed.type("y")
    code, _out, errors = typed.end()
    assert code == 1 and "pairing: the operator has seen other digits, or has said no." in errors
    assert operator.event("failed")
    operator.process.terminate()
    operator.end()
    late = app(tmp_path, "--code-file", str(file))
    code, _out, errors = late.end()
    assert code == 1 and "no broker answers where the code leads to" in errors
    assert not (tmp_path / "app").exists()


@pytest.mark.row("A-13")
def test_commands_without_what_they_need_say_what(broker: BrokerProcess, tmp_path: Path) -> None:
    nobody = app(tmp_path)
    code, _out, errors = nobody.end()
    assert code == 1 and "--code-file" in errors
    damaged = app(tmp_path, "--code-file", "-")
    damaged.type("rsocket-broker:pair?v=1")
    code, _out, errors = damaged.end()
    assert code == 1 and "no text for pairing" in errors
    for options, words in (
        (["--for", "2h"], "good for up to 1h"),
        (["--app", "no id"], "no app id"),
    ):
        done = broker.command("enrollment", "pair", *options)
        assert done.returncode == 1 and words in done.stderr
    assert say(tmp_path / "none", "enrollment", "pair").returncode == 1
    for options, words in (
        (["--medium", "pairing", "--host", "broker.example"], "--host means nothing"),
        (["--medium", "pairing", "--insecure-port", "1"], "--insecure-port means nothing"),
        (["--code-file", "-"], "--code-file is for --medium pairing"),
    ):
        wrong = say(tmp_path / "none", "enroll", DEMO, *options)
        assert wrong.returncode == 2 and words in wrong.stderr


def test_a_code_is_drawn_where_there_is_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    show_code("rsocket-broker:pair?v=1", 300)
    said = capsys.readouterr()
    assert said.out == "rsocket-broker:pair?v=1\n" and "for 5m" in said.err
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        show_code("rsocket-broker:pair?v=1", 300)
        terminal.flush()
        drawn = b""
        while b"rsocket-broker:pair?v=1" not in drawn:
            drawn += os.read(master, 65536)
    os.close(master)
    assert "█" in drawn.decode()
