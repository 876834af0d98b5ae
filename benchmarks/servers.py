"""The contestants as processes: started, looked at from outside (CPU, memory), and ended."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

HERE = Path(__file__).parent
CONTESTANTS = HERE / "contestants"
NODE = CONTESTANTS / "node"
CACHE = HERE.parent / "build" / "node-contestant"
"""The packages of the Node contestant are installed here once, outside of what git knows."""

APP_ID = "org.example.bench"
FAR_APP_ID = "org.example.bench.far"
"""The client that calls, and the one that a relayed call goes to."""
STOPS_WITHIN = 10.0
PAGE = os.sysconf("SC_PAGE_SIZE")


class Unavailable(Exception):
    """A contestant cannot run on this machine; the text says what is wanting."""


@attrs.frozen
class Contestant:
    """A server that runs. Most have one port for everything; others have one for JSON, or for the relay."""

    name: str
    pid: int
    port: int
    json_port: int
    relay_port: int
    secrets: Path
    """The folder with the client's certificates."""


def broker_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rsocket_broker", *arguments]


@contextlib.contextmanager
def running(command: list[str], env: dict[str, str] | None = None) -> Iterator[tuple[int, str]]:
    """A server process: its pid and the first line that it prints. Ended when the block ends.

    What it logs is written to a file, as a service's log is. Raises Unavailable, with the end of that, where it ends
    without a word.
    """
    environment = os.environ | (env or {})
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                log.seek(0)
                raise Unavailable(f"`{' '.join(command)}` did not start: {log.read().strip()[-500:]}")
            yield process.pid, line
        finally:
            process.terminate()
            try:
                process.wait(STOPS_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()


def make_home(home: Path) -> Path:
    """A home with an authority and the endpoint's certificate, which a first start makes."""
    with serving(home):
        return home


@contextlib.contextmanager
def serving(home: Path, *options: str, profile: Path | None = None) -> Iterator[tuple[int, dict[str, int]]]:
    """A broker on free ports: its pid, and what its ports.json says. `profile` is where cProfile is to write."""
    ports = ["--adb", "off", "--insecure-port", "0", "--secure-port", "0"]
    command = broker_command("--home", str(home), "serve", *ports, *options)
    if profile is not None:
        command[1:1] = ["-m", "cProfile", "-o", str(profile)]
    with running(command) as (pid, ready):
        assert ready.startswith("ready"), ready
        yield pid, json.loads((home / "run" / "ports.json").read_text())


def issue(home: Path, folder: Path, app_id: str) -> Path:
    """A client certificate of this home's own authority, and the server's files where the references read them."""
    arguments = ["--home", str(home), "ca", "issue", "--app-id", app_id, "--out", str(folder)]
    subprocess.run(broker_command(*arguments), check=True, capture_output=True)
    for name in ("server.crt", "server.key"):
        (folder / name).write_bytes((home / "server" / name).read_bytes())
    (folder / "trust.crt").write_bytes((folder / "sonarCA.crt").read_bytes())
    return folder


@contextlib.contextmanager
def broker(home: Path, folder: Path, *options: str, profile: Path | None = None) -> Iterator[Contestant]:
    """The product, with the plugin under measure and everything else as it is by default."""
    plugin = ["--plugin", str(CONTESTANTS / "bench_plugin.py")]
    with serving(home, *plugin, *options, profile=profile) as (pid, ports):
        port = ports["secure_port"]
        yield Contestant("broker", pid, port, port, port, folder)


@contextlib.contextmanager
def reference(name: str, folder: Path) -> Iterator[Contestant]:
    """A named reference with the certificates in `folder`. Raises Unavailable where it cannot run."""
    if name == "node":
        command, env = ["node", str(NODE / "server.js"), str(folder)], {"NODE_PATH": str(node_packages())}
    else:
        script = CONTESTANTS / f"{name.replace('-', '_')}.py"
        command, env = [sys.executable, str(script), str(folder)], {"PYTHONPATH": str(HERE)}
    with running(command, env) as (pid, line):
        ports = json.loads(line)
        port = ports["port"]
        yield Contestant(name, pid, port, ports.get("json_port", port), ports.get("relay_port", port), folder)


def node_packages() -> Path:
    """The folder of the Node contestant's packages, installed by npm if they are not there yet."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            raise Unavailable(f"needs {tool}: apt-get install nodejs npm")
    wanted, done = (NODE / "package.json").read_text(), CACHE / "installed"
    if not done.exists() or done.read_text() != wanted:
        CACHE.mkdir(parents=True, exist_ok=True)
        (CACHE / "package.json").write_text(wanted)
        command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        ran = subprocess.run(command, cwd=CACHE, capture_output=True, text=True, timeout=300, check=False)
        if ran.returncode:
            raise Unavailable(f"needs the packages of {NODE / 'package.json'}: {ran.stderr.strip()[-300:]}")
        done.write_text(wanted)
    return CACHE / "node_modules"


# --- from outside ----------------------------------------------------------------------------------------------------


def family(pid: int) -> list[int]:
    """A process and all that it has started, as far as it still runs."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [pid]
    for one in found:
        found.extend(parents.get(one, ()))
    return found


class CpuMeter:
    """Seconds of CPU that a server uses from now on: all its threads, and its children as they are now.

    /proc/PID/stat counts in ticks of 10 ms. The kernel has the same count in nanoseconds, as the CPU clock of a
    process, which is asked here, so that a round of a tenth of a second is enough.
    """

    def __init__(self, pid: int) -> None:
        self._pids = family(pid)
        self._before = self._used()

    def _used(self) -> float:
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in self._pids)

    def seconds(self) -> float:
        return self._used() - self._before


def resident(pid: int) -> int:
    """Bytes of memory that a process and its children hold (RSS)."""
    return sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) * PAGE for one in family(pid))
