"""Clients on other people's libraries against a running broker, over mutual TLS: the same steps for each of them."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.processes import BrokerProcess, start_broker
from tests.interop.libraries import LIBRARIES, OVER_WEBSOCKET, Program
from tests.interop.lossy import lossy_line
from tests.interop.scenario import Step, read_scenario

HERE = Path(__file__).parent
SCENARIO = read_scenario()
RUN_WITHIN = 150.0
LARGE = ("stream-fragments", "app-response-large")
"""Left out over WebSocket: some libraries take seconds for a payload of 16 MiB, and fragments are the same there."""
FRAGMENTS = {
    "rsocket-py": (True, True),
    "rsocket-js-1": (True, False),
    "rsocket-js-0": (False, False),
    "rsocket-java": (True, True),
    "rsocket-rust": (True, True),
}
"""Whether a library sends its requests in fragments, and its answers."""
LOST_AFTER = 1_000_000
"""Bytes of a stream of three times as many."""
Told = dict[str, Any]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    home = tmp_path_factory.mktemp("interop") / "home"
    running = start_broker(home, "--plugin", "echo", "--plugin", str(HERE / "interop_plugin.py"))
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.fixture(scope="module")
def short_of_leases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A broker that lets each client make five requests in ten seconds, if it asks for leases."""
    running = start_broker(tmp_path_factory.mktemp("leases") / "home", "--plugin", "echo", "--lease-requests", "5")
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A broker that writes the frames of every client into its log."""
    options = ["--plugin", "echo", "--plugin", str(HERE / "interop_plugin.py")]
    options += [option for name in LIBRARIES for option in ("--trace-frames", f"org.example.{name}")]
    running = start_broker(tmp_path_factory.mktemp("traced") / "home", *options)
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.fixture(scope="module", params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def told(library: str, broker: BrokerProcess, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    """What the client of a library told of each step."""
    program = LIBRARIES[library]()
    folder = issued(broker, library, tmp_path_factory.mktemp(library) / "app")
    url = f"tls://localhost:{broker.secure_port}"
    return {one["step"]: one for steps in SCENARIO.runs(library) for one in run(program, url, folder, steps)}


def issued(broker: BrokerProcess, library: str, folder: Path) -> Path:
    """A folder with a key and a certificate of the broker's authority."""
    done = broker.command("ca", "issue", "--app-id", f"org.example.{library}", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


def run(program: Program, url: str, folder: Path, steps: list[str]) -> list[Told]:
    done = subprocess.run(
        [*program.command, url, folder, *steps],
        env={**os.environ, **program.environment},
        capture_output=True,
        text=True,
        timeout=RUN_WITHIN,
        check=False,
    )
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [one["step"] for one in told] == steps, done.stderr
    return told


@pytest.mark.row("F-2", "A-37", "A-45", "A-46")
@pytest.mark.timeout(400)  # the first run builds the client
@pytest.mark.parametrize("step", SCENARIO.steps, ids=lambda step: step.name)
def test_a_step(step: Step, library: str, told: dict[str, Told]) -> None:
    assert told[step.name]["detail"] in SCENARIO.expected(library, step), step.does


@pytest.mark.row("F-2", "A-37")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("library", OVER_WEBSOCKET, indirect=True)
def test_the_same_over_websocket(library: str, broker: BrokerProcess, tmp_path: Path) -> None:
    steps = [name for name in SCENARIO.working(library) if name not in LARGE]
    url = f"wss://localhost:{broker.ports['ws_secure_port']}/rsocket"
    told = run(LIBRARIES[library](), url, issued(broker, library, tmp_path / "app"), steps)
    expected = {step.name: step.detail for step in SCENARIO.steps}
    assert {one["step"]: one["detail"] for one in told} == {name: expected[name] for name in steps}


@pytest.mark.row("F-2")
@pytest.mark.timeout(400)
def test_fragments_are_seen_on_the_line(library: str, traced: BrokerProcess, tmp_path: Path) -> None:
    url = f"tls://localhost:{traced.secure_port}"
    folder = issued(traced, library, tmp_path / "app")
    run(LIBRARIES[library](), url, folder, ["response-fragments", "app-response-fragments"])
    seen = re.findall(rf"org\.example\.{library}@\S* .*<- (\w+) stream=(\d+) flags=\S*FOLLOWS", traced.log.read_text())
    requests, answers = FRAGMENTS[library]
    assert ("REQUEST_RESPONSE" in {kind for kind, _ in seen}) == requests
    assert any(int(stream) % 2 == 0 for _, stream in seen) == answers


@pytest.mark.row("F-2", "A-44")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("library", SCENARIO.extras["lease"].libraries, indirect=True)
def test_leases(library: str, short_of_leases: BrokerProcess, tmp_path: Path) -> None:
    url = f"tls://localhost:{short_of_leases.secure_port}?lease"
    (told,) = run(LIBRARIES[library](), url, issued(short_of_leases, library, tmp_path / "app"), ["lease"])
    assert told["detail"] in SCENARIO.expected(library, SCENARIO.extras["lease"])


@pytest.mark.row("F-2", "A-41")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("library", SCENARIO.extras["resume"].libraries, indirect=True)
def test_resumption(library: str, broker: BrokerProcess, tmp_path: Path) -> None:
    folder = issued(broker, library, tmp_path / "app")
    with lossy_line(broker.secure_port, LOST_AFTER) as line:
        (told,) = run(LIBRARIES[library](), f"tls://localhost:{line.port}?resume", folder, ["resume"])
    assert told["detail"] in SCENARIO.expected(library, SCENARIO.extras["resume"])
    assert line.connections == 2


def test_what_is_said_of_a_library_is_about_a_library_and_a_step() -> None:
    names = {step.name for step in SCENARIO.steps} | set(SCENARIO.extras)
    for library, steps in SCENARIO.failing.items():
        assert library in LIBRARIES
        assert names.issuperset(steps)


def test_the_howto_shows_lines_of_these_clients() -> None:
    text = (HERE.parent.parent / "docs" / "howto" / "connect-an-app.md").read_text()
    section = text[text.index("## Any RSocket library") : text.index("## A driver of your own")]
    sources = [*HERE.rglob("client.*"), *HERE.rglob("*.java"), *HERE.rglob("*.rs")]
    lines = {line.strip() for source in sources for line in source.read_text().splitlines()}
    blocks = re.findall(r"```(?:java|js|python|rust)\n(.*?)```", section, re.DOTALL)
    assert len(blocks) > len(LIBRARIES)
    assert [line for block in blocks for line in block.splitlines() if line.strip() not in lines] == []
