import json
import os
import signal
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker.cli.diagnosis import Level, check_home
from tests.cli.conftest import Start
from tests.emulated_device.server import free_port
from tests.end_to_end.processes import clean_environment, program

Symptoms = dict[str, dict[str, Any]]


def examined(home: Path, **environment: str) -> tuple[int, Symptoms, str]:
    """Exit code, findings by what was looked at, stderr. adb is looked for where there is none, ports are any."""
    own = {
        "ANDROID_ADB_SERVER_PORT": str(free_port()),
        "RSOCKET_BROKER_SERVE_INSECURE_PORT": "0",
        "RSOCKET_BROKER_SERVE_SECURE_PORT": "0",
    }
    done = subprocess.run(
        program(home, "doctor", "--json"),
        capture_output=True,
        text=True,
        timeout=30,
        env=clean_environment() | own | environment,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, {each["what"]: each for each in json.loads(done.stdout)}, done.stderr


def config(home: Path, text: str) -> None:
    home.mkdir(mode=0o700, exist_ok=True)
    (home / "config.toml").write_text(text)
    (home / "config.toml").chmod(0o600)


@pytest.mark.row("A-55")
def test_a_new_home_is_fine_and_stays_untouched(tmp_path: Path) -> None:
    code, found, _ = examined(tmp_path / "home")
    assert code == 0
    assert found["adb"]["level"] == "warning"
    assert {each["level"] for what, each in found.items() if what != "adb"} == {"ok"}
    assert not (tmp_path / "home").exists()


def test_a_used_home_and_a_running_broker_are_fine(start: Start) -> None:
    broker = start()
    code, found, _ = examined(broker.home)
    assert code == 0
    assert found["broker"]["detail"] == f"runs here (pid {broker.process.pid})"
    assert str(broker.secure_port) in found["ports"]["detail"]
    broker.stop()
    assert examined(broker.home)[0] == 0


@pytest.mark.row("A-55")
def test_each_fault_is_named_and_the_exit_code_says_so(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "plugins").mkdir(parents=True)
    home.chmod(0o700)
    (home / "plugins" / "bad.py").write_text("import nothing_of_this_name\n")
    (home / "policy.toml").write_text("version = 1\n[[rule]]\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, found, err = examined(home, RSOCKET_BROKER_SERVE_SECURE_PORT=str(port))
    assert code == 1
    assert "bad.py, line 1" in found["plugins"]["detail"]
    assert "policy.toml:2: a rule without an id" in found["policy"]["detail"]
    assert f"process {os.getpid()}" in found["secure port"]["detail"]
    assert found["insecure port"]["level"] == "ok"
    assert "3 of " in err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[serve\n", "not TOML"),
        ("[serve]\nsecure_port = 1\n", 'Did you mean "secure-port"?'),
        ("[clients.list]\njsn = true\n", 'Did you mean "json"?'),
        ("[server]\n", 'Did you mean "serve"?'),
        ("[plugins]\nEcho = 1\n", "must be a table"),
    ],
)
def test_a_wrong_config_is_one_finding_among_others(tmp_path: Path, text: str, words: str) -> None:
    """Also in tables of commands that nobody has run yet."""
    config(tmp_path / "home", text)
    code, found, _ = examined(tmp_path / "home")
    assert code == 1
    assert words in found["config.toml"]["detail"]
    assert found["broker"]["level"] == "ok"


def test_values_that_make_no_sense_are_findings_too(tmp_path: Path) -> None:
    config(tmp_path / "home", '[serve]\nadb = "sometimes"\n[plugins.nobody]\nx = 1\n')
    code, found, _ = examined(tmp_path / "home")
    assert code == 1
    assert "auto, off or HOST:PORT" in found["adb"]["detail"]
    assert "nobody" in found["plugins"]["detail"]
    config(tmp_path / "home", '[serve]\ndevice-ports = "1"\n')
    code, found, _ = examined(tmp_path / "home")
    assert code == 1
    assert "--device-ports" in found["settings"]["detail"]


@pytest.mark.row("A-55")
def test_what_a_killed_broker_left_is_told(start: Start) -> None:
    broker = start()
    broker.stop(signal.SIGKILL)
    code, found, _ = examined(broker.home)
    assert code == 0
    assert found["broker"]["level"] == "warning"
    assert "ports.json" in found["broker"]["detail"]
    assert start().stop() == 0
    assert examined(broker.home)[1]["broker"]["level"] == "ok"


def test_the_table_is_for_people(tmp_path: Path) -> None:
    environment = clean_environment() | {"ANDROID_ADB_SERVER_PORT": str(free_port())}
    done = subprocess.run(
        program(tmp_path / "home", "doctor"), capture_output=True, text=True, timeout=30, env=environment
    )
    assert "WHAT" in done.stdout.splitlines()[0]
    assert "medium drivers" in done.stdout


def test_a_fault_is_told_once_and_names_its_option(tmp_path: Path) -> None:
    home = tmp_path / "home"
    config(home, "")
    (home / "state.db").write_text("no database")
    (home / "state.db").chmod(0o600)
    code, found, _ = examined(home)
    assert code == 1
    details = [each["detail"] for each in found.values() if "state.db cannot be used" in each["detail"]]
    assert len(details) == 1
    config(home, "[serve]\nmax-sessions = 0\n")
    assert "'--max-sessions'" in examined(home)[1]["settings"]["detail"]


def test_a_home_that_cannot_be_made_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    (symptom,) = check_home(tmp_path / "no" / "home", datetime.now(UTC))
    assert symptom.level is Level.PROBLEM
    assert f"may not write in {tmp_path}." in symptom.detail


@pytest.mark.row("M-4")
def test_what_a_home_is_by_itself_is_not_fit_for_production(tmp_path: Path) -> None:
    home = tmp_path / "home"
    subprocess.run(program(home, "ca", "init"), check=True, capture_output=True, env=clean_environment())
    command = program(home, "doctor", "--production")
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=clean_environment())
    assert done.returncode == 1
    musts = [line.split("  ")[0] for line in done.stdout.splitlines() if line.startswith("must")]
    assert len(musts) == 3
    assert "Error: 3 of" in done.stderr
    found = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=30, env=clean_environment())
    assert {each["what"] for each in json.loads(found.stdout) if each["level"] == "must"} == {
        "CA key",
        "enrolment",
        "policy",
    }


def test_what_cannot_be_judged_is_a_must(tmp_path: Path) -> None:
    config(tmp_path / "home", "[serve]\nmax-sessions = 0\n")
    command = program(tmp_path / "home", "doctor", "--production", "--json")
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=clean_environment())
    (found,) = json.loads(done.stdout)
    assert (done.returncode, found["level"]) == (1, "must")
    assert "--max-sessions" in found["detail"]
