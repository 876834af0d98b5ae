"""`enrollment …` and `serve --enrollment`, against brokers in processes of their own."""

import json
import stat
import time
from pathlib import Path

import pytest

from rsocket_broker.client.folder import AppFolder
from tests.cli.conftest import Start, say
from tests.cli.test_listeners import refused
from tests.end_to_end.processes import BrokerProcess

APP_ID = "com.example.app"


def ports(broker: BrokerProcess) -> dict[str, int | None]:
    found: dict[str, int | None] = json.loads((broker.home / "run" / "ports.json").read_text())
    return found


@pytest.mark.row("A-11", "M-24")
def test_a_window_from_opening_to_its_last_use(start: Start, tmp_path: Path) -> None:
    broker = start("--enrollment", "window")
    assert "insecure-port" not in broker.ready and broker.ports["insecure_port"] is None
    closed = say(broker, "enroll", APP_ID, "--into", str(tmp_path / "app"))
    assert closed.returncode == 1 and "enrollment open --for 10m" in closed.stderr

    opened = say(broker, "enrollment", "open", "--for", "10m", "--uses", "1")
    port = ports(broker)["insecure_port"]
    web = json.loads((broker.home / "run" / "ports.json").read_text())["ws_insecure_port"]
    assert port and opened.stderr == (
        f"Enrolment is open on port {port} and {web} (WebSocket) for 10m, for 1 certificate.\n"
    )
    shown = say(broker, "enrollment", "status").stdout
    assert "closes in" in shown and "0 of 1" in shown and str(port) in shown

    done = say(broker, "enroll", APP_ID, "--into", str(tmp_path / "app"))
    assert done.returncode == 0, done.stderr
    status = json.loads(say(broker, "enrollment", "status", "--json").stdout)
    assert (status["mode"], status["window"], status["insecure_port"]) == ("window", None, None)
    assert refused(port) and ports(broker)["insecure_port"] is None
    assert "No window was open" in say(broker, "enrollment", "close").stderr
    assert "closed: insecure (by window)" in say(broker, "doctor").stdout


@pytest.mark.row("A-11")
def test_a_window_closes_by_hand_and_by_time(start: Start) -> None:
    broker = start("--enrollment", "window")
    say(broker, "enrollment", "open", "--for", "1h")
    port = ports(broker)["insecure_port"]
    assert port and not refused(port)
    assert say(broker, "enrollment", "close").stderr == "Enrolment is closed.\n"
    assert refused(port)
    say(broker, "enrollment", "open", "--for", "1s")
    deadline = time.monotonic() + 10
    while ports(broker)["insecure_port"] is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert refused(port)


@pytest.mark.row("A-07", "A-13")
def test_a_token_from_the_grant_to_its_last_use(start: Start, tmp_path: Path) -> None:
    broker = start("--enrollment", "token")
    missing = say(broker, "enroll", APP_ID, "--into", str(tmp_path / "app"))
    assert missing.returncode == 1 and "enrols by token, and the request has none" in missing.stderr

    file = tmp_path / "token"
    made = say(broker, "enrollment", "grant", "--app", APP_ID, "--for", "30m", "--out", str(file))
    assert made.returncode == 0 and made.stdout == "" and "good once, for 30m" in made.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = file.read_text().strip()
    done = say(broker, "enroll", APP_ID, "--into", str(tmp_path / "app"), "--token-file", str(file))
    assert done.returncode == 0, done.stderr
    enrolled = AppFolder(tmp_path / "app").load()

    again = say(broker, "enroll", APP_ID, "--into", str(tmp_path / "app"), "--token-file", str(file))
    assert again.returncode == 1 and "the token was used already" in again.stderr
    assert AppFolder(tmp_path / "app").load() == enrolled
    listed = say(broker, "enrollment", "grants")
    assert "used up" in listed.stdout
    told = broker.log.read_text() + listed.stdout + again.stderr + say(broker, "audit", "list", "--json").stdout
    assert token not in told and token.split(".")[1] not in told


def test_grants_are_made_and_withdrawn_also_while_no_broker_runs(start: Start, tmp_path: Path) -> None:
    home = tmp_path / "home"
    nothing = say(home, "enrollment", "grants")
    assert nothing.returncode == 1 and "no home yet" in nothing.stderr
    start().stop()
    assert "There are no grants" in say(home, "enrollment", "grants").stderr
    made = say(home, "enrollment", "grant", "--app", APP_ID, "--json")
    grant = json.loads(made.stdout)
    assert grant["state"] == "open" and len(grant["token"]) == 56
    text = say(home, "enrollment", "grant", "--app", APP_ID, "--device", "phone", "--uses", "2")
    assert len(text.stdout.strip()) == 56 and "good 2 times, for 1h" in text.stderr
    (listed, other) = json.loads(say(home, "enrollment", "grants", "--json").stdout)
    assert {listed["id"], other["id"]} > {grant["id"]} and "token" not in listed
    withdrawn = say(home, "enrollment", "withdraw", grant["id"])
    assert withdrawn.stderr == f"Withdrew the grant {grant['id']} of {APP_ID}.\n"
    again = say(home, "enrollment", "withdraw", grant["id"])
    assert again.returncode == 1 and "withdrawn already" in again.stderr

    broker = start("--enrollment", "token")
    (tmp_path / "token").write_text(grant["token"])
    (tmp_path / "token").chmod(0o600)
    refusal = say(broker, "enroll", APP_ID, "--into", str(tmp_path / "app"), "--token-file", str(tmp_path / "token"))
    assert "was withdrawn" in refusal.stderr


def test_a_grant_whose_token_could_not_be_written_is_worth_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = say(home, "enrollment", "grant", "--app", APP_ID, "--out", str(tmp_path / "missing" / "token"))
    assert done.returncode == 1 and "cannot be written" in done.stderr
    (grant,) = json.loads(say(home, "enrollment", "grants", "--json").stdout)
    assert grant["state"] == "withdrawn"


def test_a_token_that_nobody_asks_for_is_warned_of(start: Start) -> None:
    broker = start()
    made = say(broker, "enrollment", "grant", "--app", APP_ID)
    assert made.returncode == 0 and "Warning: the broker runs with --enrollment open" in made.stderr
    for command in (["open", "--for", "1m"], ["close"]):
        done = say(broker, "enrollment", *command)
        assert done.returncode == 1 and "has no window" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["open"], 2, "--for"),
        (["open", "--for", "10"], 2, "90s, 10m, 1h or 2d"),
        (["open", "--for", "10m", "--uses", "0"], 2, "--uses"),
        (["grant", "--app", "no id"], 1, "not an app id: use 1 to 255 letters"),
        (["grant", "--app", "a.b", "--device", ""], 2, "leave --device out for any"),
        (["grant", "--app", "a.b", "--for", "2y"], 2, "not a duration"),
        (["grant", "--app", "a.b", "--for", "400d"], 1, "365d"),
        (["grant"], 2, "--app"),
        (["status"], 1, "no broker runs"),
    ],
)
def test_what_makes_no_sense_is_told(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    done = say(tmp_path / "home", "enrollment", *arguments)
    assert done.returncode == code and words in done.stderr, done.stderr


def test_the_mode_comes_from_the_file_the_environment_or_the_flag(start: Start, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    config = home / "config.toml"
    config.write_text('[serve]\nenrollment = "token"\n')
    config.chmod(0o600)
    broker = start()
    assert json.loads(say(broker, "enrollment", "status", "--json").stdout)["mode"] == "token"
    broker.stop()
    broker = start("--enrollment", "open")
    assert json.loads(say(broker, "enrollment", "status", "--json").stdout)["mode"] == "open"
    broker.stop()
    config.write_text('[serve]\nenrollment = "widow"\n')
    done = say(home, "serve")
    assert done.returncode == 1 and '"window"' in done.stderr
