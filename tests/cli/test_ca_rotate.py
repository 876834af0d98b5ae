"""`ca rotate`: on a home alone, by a broker that runs, and what it says."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from rsocket_broker import client
from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.cli.ca_rotate import Show, listed, round_line
from rsocket_broker.cli.main import run
from tests.cli.conftest import Ca, Start


def status(ca: Ca) -> dict[str, Any]:
    code, out, err = ca("rotate", "status", "--json")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


# On the home alone


@pytest.mark.row("A-15")
def test_step_by_step_without_a_broker(ca: Ca, home: Path) -> None:
    assert status(ca)["phase"] == "steady"
    for step, word, phase in (
        ("prepare", "prepared  generation 2 is made and certified by generation 1", "prepared"),
        ("switch", "switched  generation 2 signs now; generation 1 is still accepted", "switched"),
        ("rollback", "took back generation 1 signs again; generation 2 is still accepted", "prepared"),
        ("switch", "switched  generation 2 signs now", "switched"),
        ("finish", "finished  generation 2 is alone", "steady"),
        ("prepare", "prepared  generation 3 is made", "prepared"),
        ("rollback", "took back generation 2 is alone again", "steady"),
    ):
        code, out, err = ca("rotate", step)
        assert (code, err) == (0, ""), step
        assert out.startswith(word)
        assert status(ca)["phase"] == phase
        assert ca("verify")[0] == 0, step
    assert [path.name for path in (home / "ca").iterdir()] == ["2"]
    assert not (home / "run" / "lock").exists()


def test_whoever_stops_it_is_told_how_to_go_on(ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(show: Show, event: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Show, "__call__", interrupted)
    code, _, err = ca("rotate", "--auto")
    assert code == 1 and "stopped. What was done stays" in err and "ca rotate --auto" in err
    monkeypatch.undo()
    assert status(ca)["phase"] == "prepared"
    assert ca("rotate", "--auto")[0] == 0


@pytest.mark.row("A-16")
def test_who_is_left_is_named_and_can_be_given_up(ca: Ca, tmp_path: Path) -> None:
    assert ca("issue", "--app-id", "org.example.tool", "--out", tmp_path / "tool")[0] == 0
    code, out, err = ca("rotate", "--auto")
    assert code == 1
    assert [line.split()[0] for line in out.splitlines()] == ["prepared", "switched"]
    assert "1 client holds only certificates of generation 1: org.example.tool@- (operator)" in err
    assert "ca rotate finish --without CLIENT" in err
    found = status(ca)
    assert [each["client"] for each in found["left"]] == ["org.example.tool@- (operator)"]
    assert "org.example.tool@- (operator)" in ca("rotate", "status")[1]
    assert ca("rotate", "finish", "--without", "org.example.other")[0] == 1
    assert ca("rotate", "finish", "--without", "org.example.tool@-")[0] == 0
    rows = json.loads(ca("list", "--app", "org.example.tool", "--json")[1])
    assert [row["status"] for row in rows] == ["dropped"]
    code, out, _ = ca("verify", tmp_path / "tool" / "device.crt")
    assert code == 1 and "Generation 1 of the CA, which signed it, was replaced." in out


def test_all_the_steps_at_once_where_nobody_holds_anything(ca: Ca) -> None:
    code, out, err = ca("rotate", "--auto")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["prepared", "switched", "finished"]


def test_several_generations_are_shown(ca: Ca) -> None:
    ca("rotate", "prepare")
    found = json.loads(ca("show", "--json")[1])
    assert (found["generation"], found["phase"]) == (1, "prepared")
    assert [text.split()[0] for text in found["trusted"]] == ["2", "1"]
    pem = ca("export")[1]
    assert len(x509.load_pem_x509_certificates(pem.encode())) == 2


def test_the_names_of_the_endpoint_stay(ca: Ca, home: Path, start: Start) -> None:
    broker = start("--host", "127.0.0.1", home=home)
    assert broker.stop() == 0
    before = names_of(home)
    ca("rotate", "prepare")
    ca("rotate", "switch")
    assert names_of(home) == before


def names_of(home: Path) -> list[x509.GeneralName]:
    leaf = x509.load_pem_x509_certificates((home / "server" / "server.crt").read_bytes())[0]
    return list(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)


@pytest.mark.row("A-24")
def test_an_encrypted_key_needs_its_passphrase(ca: Ca, tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    assert ca("passphrase", "set", "--passphrase-file", secret)[0] == 0
    code, _, err = ca("rotate", "prepare")
    assert code == 1 and "--passphrase-file" in err
    for step in ("prepare", "switch", "finish"):
        assert ca("rotate", step, "--passphrase-file", secret)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rotate",), "Name a step"),
        (("rotate", "--auto", "prepare"), "leave the step out"),
        (("rotate", "--auto", "--patience", "-1"), "patience"),
    ],
)
def test_wrong_usage(ca: Ca, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = ca(*arguments)
    assert code == 2 and said in err


def test_without_a_ca_the_next_step_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for step in ("status", "prepare", "finish"):
        assert run(["--home", str(tmp_path / "none"), "ca", "rotate", step]) == 1
        assert "ca init" in capfd.readouterr().err


def test_two_commands_on_one_home_do_not_mix(ca: Ca, home: Path) -> None:
    folder = RunFolder(home)
    folder.acquire()
    try:
        code, _, err = ca("rotate", "prepare")
    finally:
        folder.release()
    assert (code == 1 and "no broker runs" in err.lower()) or "already runs" in err


# By a broker that runs


@pytest.mark.row("A-14", "A-16", "D-1")
async def test_a_broker_that_runs_brings_its_clients_along(start: Start, tmp_path: Path) -> None:
    broker = start()
    app = client.connect(
        app_id="org.example.app",
        app="App",
        directory=tmp_path / "app",
        insecure_port=broker.insecure_port,
        secure_port=broker.secure_port,
    )
    async with app as session:
        done = await asyncio.to_thread(broker.command, "ca", "rotate", "--auto")
        assert (done.returncode, done.stderr) == (0, "")
        words = [line.split()[0] for line in done.stdout.splitlines()]
        assert words == ["prepared", "clients", "switched", "clients", "finished", "clients"]
        assert "certificates: 1 done" in done.stdout
        assert await session.request("echo.request", 7) == 7
        said = await asyncio.to_thread(broker.command, "ca", "rotate", "status")
        assert "sessions by generation          2: 1" in said.stdout
    refused = await asyncio.to_thread(broker.command, "ca", "rotate", "finish")
    assert refused.returncode == 1 and "No rotation is under way" in refused.stderr


# What is shown


def test_progress_is_for_terminals_and_faults_are_named(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    part = {"what": "anchors", "done": 3, "later": 0, "failed": 1, "faults": ["app@device (adb): no room\x1b[2J"]}
    under_way = {"event": "round", "parts": [part], "over": False}
    plain = Show()
    plain(under_way)
    assert capfd.readouterr() == ("", "")
    plain({**under_way, "over": True})
    out, err = capfd.readouterr()
    assert out == "clients   anchors: 3 done, 1 failed\n"
    assert "failed: app@device (adb): no room" in err and "\x1b" not in err
    plain({"event": "left", "count": 2, "clients": ["a", "b"]})
    assert capfd.readouterr().out == "waiting   for 2 clients: a, b\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    terminal = Show()
    terminal(under_way)
    terminal({"event": "left", "count": 2, "clients": ["a", "b"]})
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("\r\x1b[K") and "waiting   for 2 clients" in err


def test_long_lists_are_cut() -> None:
    assert listed([str(number) for number in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
    assert listed([]) == ""
    assert round_line([{"what": "anchors", "done": 0, "later": 0, "failed": 0}]) == "all of them have what they need"
