"""`clients record` of an app, and `clients replay` when the app has long gone."""

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker import client
from tests.cli.beside import connected_app
from tests.end_to_end.processes import BrokerProcess, clean_environment, program, start_broker

APP = "com.example.shop"


class Network(client.AppPlugin):
    id = "Network"

    @client.method("buy")
    def buy(self, params: dict[str, Any]) -> dict[str, Any]:
        if params.get("item") == "moon":
            raise client.ApplicationError("not for sale")
        self.emit("newRequest", {"id": "1", "timestamp": 1, "method": "POST", "url": "https://shop/buy", "headers": []})
        self.emit("newResponse", {"id": "1", "timestamp": 2, "status": 201, "headers": [], "data": "e30="})
        return {"bought": params["item"]}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    running = start_broker(tmp_path_factory.mktemp("record") / "home")
    yield running
    running.stop()


def shop(broker: BrokerProcess, folder: Path) -> AbstractContextManager[object]:
    """The app, connected."""
    return connected_app(broker, folder, app_id=APP, app="Shop", plugins=[Network()])


@contextlib.contextmanager
def command(broker: BrokerProcess, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on until Ctrl-C."""
    process = subprocess.Popen(
        program(broker.home, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def interrupted(process: subprocess.Popen[str]) -> str:
    """What it says on stderr when it ends by Ctrl-C."""
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    return said


def buy(broker: BrokerProcess, who: str, item: str) -> subprocess.CompletedProcess[str]:
    return broker.command("clients", "call", who, "Network", "buy", json.dumps({"item": item}))


def traffic(broker: BrokerProcess, who: str) -> list[Any]:
    done = broker.command("app", "network", "list", "--client", who, "--json")
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)["exchanges"]
    return found


def until(broker: BrokerProcess, who: str, many: int) -> list[Any]:
    for _ in range(100):
        if len(found := traffic(broker, who)) >= many:
            return found
    raise AssertionError(found)


@pytest.fixture(scope="module")
def recording(broker: BrokerProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A purchase, one that was refused, and a file that tells of them."""
    folder = tmp_path_factory.mktemp("recording")
    path = folder / "shop.jsonl"
    with shop(broker, folder / "app"), command(broker, "clients", "record", APP, str(path)) as process:
        while not path.exists() or b'"answer"' not in path.read_bytes():  # until it has begun nobody writes it down
            assert buy(broker, APP, "tea").returncode == 0
        assert "not for sale" in buy(broker, APP, "moon").stderr
        said = interrupted(process)
    assert f"in {path}" in said
    return path


def test_a_recording_is_private_and_says_whose_it_is(recording: Path) -> None:
    assert recording.stat().st_mode & 0o777 == 0o600
    header, *entries = map(json.loads, recording.read_text().splitlines())
    assert (header["recording"], header["app_id"], header["plugins"]) == (1, APP, ["Network"])
    kinds = {(entry["direction"], entry["kind"]) for entry in entries}
    assert {("in", "event"), ("out", "call"), ("in", "answer"), ("in", "error")} <= kinds
    (refused,) = [entry["content"] for entry in entries if entry["kind"] == "error"]
    assert refused == {"params": {"item": "moon"}, "error": "not for sale"}


def test_that_it_was_written_down_stands_in_the_audit(broker: BrokerProcess, recording: Path) -> None:
    listed = json.loads(broker.command("audit", "list", "--event", "record", "--json").stdout)
    assert listed[0]["facts"]["app_id"] == APP


def test_a_recording_is_served_with_no_app_there(broker: BrokerProcess, recording: Path) -> None:
    with command(broker, "clients", "replay", str(recording), "--speed", "0", "--json") as process:
        assert process.stdout is not None
        connected = json.loads(process.stdout.readline())
        assert json.loads(process.stdout.readline()) == {"event": "over"}
        who = connected["client"]
        assert connected["app"] == "Shop"
        first, *_ = until(broker, who, 1)
        assert (first["method"], first["url"], first["status"]) == ("POST", "https://shop/buy", 201)
        assert json.loads(buy(broker, who, "tea").stdout) == {"bought": "tea"}
        assert "not for sale" in buy(broker, who, "moon").stderr
        assert "no answer of Network.buy" in buy(broker, who, "sugar").stderr
        (listed,) = json.loads(broker.command("clients", "list", "--json").stdout)
        assert (listed["proof"], listed["app"]) == ("unverified", "Shop")
        interrupted(process)
    assert json.loads(broker.command("clients", "list", "--json").stdout) == []


def test_once_it_leaves_when_everything_is_said(broker: BrokerProcess, recording: Path) -> None:
    done = broker.command("clients", "replay", str(recording), "--speed", "0", "--once")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == ["everything is said"]


def test_a_file_that_is_there_is_left_as_it_is(broker: BrokerProcess, recording: Path, tmp_path: Path) -> None:
    before = recording.read_bytes()
    with shop(broker, tmp_path / "app"):
        done = broker.command("clients", "record", APP, str(recording))
    assert (done.returncode, recording.read_bytes()) == (1, before)
    assert "exists already" in done.stderr


def test_who_is_not_there_leaves_no_file(broker: BrokerProcess, tmp_path: Path) -> None:
    done = broker.command("clients", "record", "com.example.nobody", str(tmp_path / "nobody.jsonl"))
    assert done.returncode == 1
    assert "com.example.nobody" in done.stderr
    assert not (tmp_path / "nobody.jsonl").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "line 1"), ("{}\n", "no recording"), ('{"recording": 9}\n', "version 9"), ("HEADER{\n", "line 2")],
)
def test_what_is_no_recording_is_refused(
    broker: BrokerProcess, recording: Path, tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text.replace("HEADER", recording.read_text().splitlines()[0] + "\n"))
    done = broker.command("clients", "replay", str(path))
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
