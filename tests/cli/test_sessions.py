"""`sessions …` against a broker in its own process, an app of ours, and a page that borrows its session."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from rsocket_broker.cli.sessions import rows
from rsocket_broker.sessions.tokens import PREFIX
from tests.cli.beside import connected_app
from tests.cli.conftest import say
from tests.end_to_end.processes import BrokerProcess, start_broker

APP = "com.example.app"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    running = start_broker(tmp_path_factory.mktemp("sessions") / "home", "--http-port", "0")
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.fixture(scope="module")
def app(broker: BrokerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An app that stays connected while the tests' commands run."""
    with connected_app(broker, tmp_path_factory.mktemp("app") / "app"):
        yield


def listed(broker: BrokerProcess, *options: str) -> list[dict[str, Any]]:
    done = say(broker, "sessions", "list", "--json", *options)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.usefixtures("app")
@pytest.mark.row("W-2", "W-4", "A-60")
def test_the_operator_makes_a_session_sees_it_and_ends_it(broker: BrokerProcess) -> None:
    made = say(
        broker, "sessions", "login", APP, "--name", "bench", "--for", "1h", "--scope", "echo.*", "--user", "anna"
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith(PREFIX)
    assert "echo.*" in made.stderr
    assert PREFIX not in made.stderr
    root, child = listed(broker)
    assert (root["kind"], child["kind"], child["parent"], child["user"]) == ("device", "cli", root["id"], "anna")
    deeper = json.loads(say(broker, "sessions", "login", child["id"], "--name", "deep", "--json").stdout)
    assert deeper["scope"] == ["echo.*"]
    assert deeper["token"].startswith(PREFIX)

    lines = say(broker, "sessions", "list").stdout.splitlines()
    assert lines[0].split() == ["SESSION", "KIND", "NAME", "USER", "CLIENT", "AUDIENCE", "LINE", "EXPIRES"]
    assert [line.split()[:3] for line in lines[1:]] == [
        [root["id"], "device", "Example"],
        [child["id"], "cli", "bench"],
        [deeper["id"], "cli", "deep"],
    ]
    assert [len(line) - len(line.lstrip()) for line in lines[1:]] == [0, 2, 4]

    receipt = json.loads(say(broker, "sessions", "revoke", child["id"], "--json").stdout)
    assert receipt["sessions"] == [deeper["id"], child["id"]]
    assert len(listed(broker)) == 1
    table = say(broker, "sessions", "list", "--all").stdout
    assert "the operator ended it" in table
    assert "the session above it has ended" in table
    assert not [one for one in listed(broker, "--all") if "token" in one]


@pytest.mark.usefixtures("app")
@pytest.mark.row("M-10")
def test_a_user_is_logged_out(broker: BrokerProcess) -> None:
    for name in ("one", "two"):
        assert say(broker, "sessions", "login", APP, "--name", name, "--user", "bert").returncode == 0
    done = say(broker, "sessions", "revoke", "--user", "bert")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].split() == ["sessions", "ended", "2"]
    again = say(broker, "sessions", "revoke", "--user", "bert")
    assert (again.returncode, again.stdout) == (1, "")
    assert "No session belongs to the user bert" in again.stderr


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("revoke",), 2, "Name a SESSION"),
        (("revoke", "c1", "--user", "anna"), 2, "Name a SESSION"),
        (("revoke", "s-nobody"), 1, "s-nobody"),
        (("login", "nobody", "--name", "x"), 1, "nobody"),
        (("login", APP), 2, "--name"),
        (("login", APP, "--name", "x", "--for", "soon"), 2, "duration"),
        (("login", APP, "--name", "x", "--scope", "a*b"), 1, "star"),
        (("login", APP, "--name", "x", "--kind", "device"), 2, "device"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(
    broker: BrokerProcess, arguments: tuple[str, ...], code: int, text: str
) -> None:
    done = say(broker, "sessions", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.row("W-4")
def test_a_ring_in_what_is_listed_does_not_hang_the_list() -> None:
    nothing = dict.fromkeys(("kind", "name", "user", "client", "audience", "line", "expires", "ended", "reason"), "x")
    found = [{**nothing, "id": "a", "parent": "b"}, {**nothing, "id": "b", "parent": "a"}]
    assert [row[0] for row in rows(found, everything=True)] == ["a", "  b"]
