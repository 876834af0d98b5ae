import itertools
import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker.audit import Audit, Event
from rsocket_broker.cli.main import run
from rsocket_broker.state import State
from tests.end_to_end.processes import clean_environment, program

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a record of four things, and nothing else."""
    home = tmp_path / "home"
    with State.open(home / "state.db") as state:
        moments = map(datetime.fromtimestamp, itertools.count(datetime.now().timestamp() - 60))
        audit = Audit(state, lambda: next(moments))
        with state.transaction() as database:
            audit.write(database, Event.ISSUED, serial="1a", app_id="com.example.app", device_id="one")
            audit.write(database, Event.REVOKED, serial="1a", app_id="com.example.app", device_id="one", reason="lost")
            audit.write(database, Event.LISTENER, name="http", state="closed", ports=[1, 2])
        audit.note(Event.CALL_REFUSED, app_id="com.example.app", device_id="two", method="x.y\x1b[31m")
        audit.close()
    return home


@pytest.fixture
def audit(home: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs `rsocket-broker audit …` on the test's home: exit code, stdout, stderr."""

    def call(*arguments: str | Path, home: Path = home) -> tuple[int, str, str]:
        code = run(["--home", str(home), "audit", *map(str, arguments)])
        return code, *capfd.readouterr()

    return call


def listed(audit: Command, *arguments: str) -> list[dict[str, Any]]:
    code, out, err = audit("list", "--json", *arguments)
    assert (code, err) == (0, "")
    found: list[dict[str, Any]] = json.loads(out)
    return found


def spoil(home: Path, sql: str) -> None:
    with sqlite3.connect(home / "state.db") as database:
        database.execute(sql)
    database.close()


@pytest.mark.row("D-14")
def test_the_record_is_listed(audit: Command) -> None:
    code, out, _ = audit("list")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["TIME", "EVENT", "CLIENT", "FACTS"]
    assert lines[2][1:] == ["revoke", "com.example.app@one", "reason=lost", "serial=1a"]
    assert lines[3][1:] == ["listener", "-", "name=http", "ports=1,2", "state=closed"]
    assert "\x1b" not in out, "a peer's words move no cursor"
    assert [each["event"] for each in listed(audit)] == ["issue", "revoke", "listener", "call-refused"]
    assert len(listed(audit)[0]["hash"]) == 64


def test_the_list_may_be_narrowed(audit: Command) -> None:
    assert [each["event"] for each in listed(audit, "--event", "revoke", "--event", "issue")] == ["issue", "revoke"]
    assert [each["event"] for each in listed(audit, "--client", "com.example.app")] == [
        "issue",
        "revoke",
        "call-refused",
    ]
    assert [each["event"] for each in listed(audit, "--client", "com.example.app@two")] == ["call-refused"]
    assert [each["event"] for each in listed(audit, "--limit", "1")] == ["call-refused"]
    assert len(listed(audit, "--since", "1h")) == 4
    assert len(listed(audit, "--since", "2026-01-01")) == 4
    assert listed(audit, "--since", "9999-01-01T00:00Z") == []
    _, out, err = audit("list", "--event", "policy")
    assert (out, err) == ("", "There is no such record.\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "--since", "soon"), "neither a date"),
        (("list", "--event", "nothing"), "nothing"),
        (("list", "--limit", "0"), "limit"),
        (("verify", "--mark", "changes:1"), "BOOK:NUMBER:HASH"),
    ],
)
def test_wrong_usage_is_named(audit: Command, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = audit(*arguments)
    assert code == 2
    assert said in err


@pytest.mark.parametrize("command", ["list", "verify", "export"])
def test_without_a_home_nothing_is_made(audit: Command, tmp_path: Path, command: str) -> None:
    code, _, err = audit(command, home=tmp_path / "none")
    assert code == 1
    assert "holds no record yet" in err
    assert not (tmp_path / "none").exists()


@pytest.mark.row("D-14")
@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("UPDATE audit SET body = replace(body, 'lost', 'lose')", "FAIL  record 2 of changes: its text or its hash"),
        ("DELETE FROM audit WHERE event = 'listener'", "FAIL  record 3 of changes: it is missing"),
        ("DELETE FROM audit WHERE book = 'traffic'", "FAIL  record 1 of traffic: it is missing"),
    ],
)
def test_verify_names_the_record(audit: Command, home: Path, sql: str, named: str) -> None:
    code, out, _ = audit("verify")
    assert code == 0
    assert [line.split()[:4] for line in out.splitlines()] == [
        ["ok", "changes:", "3", "records;"],
        ["ok", "traffic:", "1", "records;"],
    ]
    spoil(home, sql)
    code, out, _ = audit("verify")
    assert code == 1
    assert named in out
    code, out, _ = audit("verify", "--json")
    assert code == 1
    assert json.loads(out)["sound"] is False


@pytest.mark.row("D-14")
def test_an_export_is_verified_without_the_home(audit: Command, tmp_path: Path) -> None:
    code, out, err = audit("export", "--out", tmp_path / "a.jsonl")
    assert (code, out) == (0, "")
    assert "Wrote 6 lines" in err
    assert (tmp_path / "a.jsonl").stat().st_mode & 0o777 == 0o600
    _, same, _ = audit("export")
    assert same == (tmp_path / "a.jsonl").read_text()
    code, told, _ = audit("verify", tmp_path / "a.jsonl", home=tmp_path / "none")
    assert code == 0
    assert told == audit("verify")[1]
    lines = same.splitlines(keepends=True)
    (tmp_path / "b.jsonl").write_text("".join(lines[:2] + lines[3:]))
    code, told, _ = audit("verify", tmp_path / "b.jsonl")
    assert code == 1
    assert "FAIL  record 2 of changes: it is missing" in told
    (tmp_path / "c.jsonl").write_text("something else")
    code, _, err = audit("verify", tmp_path / "c.jsonl")
    assert code == 1
    assert "no exported audit" in err
    code, _, err = audit("verify", tmp_path / "d.jsonl")
    assert code == 1
    assert "cannot be read" in err
    code, _, err = audit("export", "--out", tmp_path / "no" / "e.jsonl")
    assert code == 1
    assert "cannot be written" in err


@pytest.mark.row("D-14")
def test_a_mark_kept_elsewhere_is_held_against_a_record_written_anew(audit: Command, home: Path) -> None:
    mark = audit("verify")[1].split()[5]
    assert mark.startswith("changes:3:")
    assert audit("verify", "--mark", mark)[0] == 0
    (home / "state.db").unlink()
    with State.open(home / "state.db") as state:
        forger = Audit(state)
        with state.transaction() as database:
            for _ in range(3):
                forger.write(database, Event.ISSUED, serial="1a")
    assert audit("verify")[0] == 0, "a forger who writes all of it makes no mistake"
    code, out, _ = audit("verify", "--mark", mark)
    assert code == 1
    assert "FAIL  record 3 of changes: it is not the one that the mark names" in out


def test_verify_reads_stdin(audit: Command, home: Path, tmp_path: Path) -> None:
    _, exported, _ = audit("export")
    done = subprocess.run(
        program(home, "audit", "verify", "-"), input=exported, capture_output=True, text=True, env=clean_environment()
    )
    assert (done.returncode, done.stdout) == (0, audit("verify")[1])


def test_follow_shows_what_comes(home: Path) -> None:
    following = subprocess.Popen(
        program(home, "audit", "list", "--follow", "--json", "--limit", "1"),
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    assert following.stdout is not None
    with following.stdout as stdout:
        assert json.loads(stdout.readline())["event"] == "call-refused"
        with State.open(home / "state.db") as state, state.transaction() as database:
            Audit(state).write(database, Event.POLICY, digest="1")
        assert json.loads(stdout.readline())["event"] == "policy"
        os.kill(following.pid, signal.SIGINT)
        assert following.wait(10) == 0
