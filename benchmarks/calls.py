"""Request-response through a plugin handler over mutual TLS: the broker, rsocket-py's server, and the floor."""

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
from load import Call, Outcome, client_context, measure

HERE = Path(__file__).parent
ROUNDS = 5
OPAQUE = Call("bench.echo", b"x" * 64, b"x" * 64)
JSON = Call("bench.add", b'{"a":20,"b":22}', b'{"sum":42}')
JSON_FLOOR = attrs.evolve(JSON, answer=JSON.data)


@attrs.frozen
class Contestant:
    name: str
    port: int
    pid: int
    calls_per_round: int


def broker_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rsocket_broker", *arguments]


@contextlib.contextmanager
def running(*command: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and the first line that it prints; ended when the block ends."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.terminate()


@contextlib.contextmanager
def broker(home: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    command = broker_command(
        "--home", str(home), "serve", "--adb", "off", "--insecure-port", "0", "--secure-port", "0", *options
    )
    with running(*command) as (process, ready):
        assert ready.startswith("ready"), ready
        yield process, json.loads((home / "run" / "ports.json").read_text())


def make_credentials(home: Path, directory: Path) -> None:
    """A client certificate of this home's own authority, and the server's files where the references read them."""
    issue = ["--home", str(home), "ca", "issue", "--app-id", "org.example.bench", "--out", str(directory)]
    subprocess.run(broker_command(*issue), check=True, capture_output=True)
    for name in ("server.crt", "server.key"):
        (directory / name).write_bytes((home / "server" / name).read_bytes())
    (directory / "trust.crt").write_bytes((directory / "sonarCA.crt").read_bytes())


async def rounds(contestants: list[Contestant], credentials: Path, call: Call, window: int) -> dict[str, Outcome]:
    """Contestants take turns, so that a busy minute of the machine falls on all of them."""
    context = client_context(credentials)
    found: dict[str, list[Outcome]] = {contestant.name: [] for contestant in contestants}
    for _ in range(ROUNDS):
        for contestant in contestants:
            job = JSON_FLOOR if contestant.name == "floor" and call is JSON else call
            total = contestant.calls_per_round // (8 if window == 1 else 1)
            found[contestant.name].append(await measure(contestant.port, contestant.pid, context, job, window, total))
    return {
        name: Outcome(*map(statistics.median, zip(*map(attrs.astuple, all_), strict=True)))
        for name, all_ in found.items()
    }


def measure_calls(work: Path) -> dict[str, dict[str, Outcome]]:
    """measure name → contestant → median outcome."""
    home, credentials = work / "home", work / "credentials"
    home.mkdir(mode=0o700)
    with contextlib.ExitStack() as stack:
        process, ports = stack.enter_context(broker(home, "--plugin", str(HERE / "bench_plugin.py")))
        make_credentials(home, credentials)
        contestants = [Contestant("broker", ports["secure_port"], process.pid, 40_000)]
        for name, amount in (("rsocket-py", 5_000), ("floor", 60_000)):
            reference, port = stack.enter_context(
                running(sys.executable, str(HERE / "contestants.py"), name, str(credentials))
            )
            contestants.append(Contestant(name, int(port), reference.pid, amount))
        return {
            label: asyncio.run(rounds(contestants, credentials, call, window))
            for label, call, window in (
                ("opaque, window 64", OPAQUE, 64),
                ("JSON, window 64", JSON, 64),
                ("opaque, window 1", OPAQUE, 1),
            )
        }
