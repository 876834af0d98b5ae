"""A real `rsocket-broker serve` in a process of its own."""

import contextlib
import io
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import attrs

START_TIMEOUT = 20.0
"""Seconds; a start on a cold home makes keys, and the machine may be busy with other tests."""
STOP_TIMEOUT = 10.0


@attrs.define
class BrokerProcess:
    """One run of `serve` on `home`. `ready` is the line it printed; its stderr is in `log`."""

    home: Path
    process: subprocess.Popen[str]
    ready: str
    ports: dict[str, Any]
    log: Path

    @property
    def insecure_port(self) -> int:
        return int(self.ports["insecure_port"])

    @property
    def secure_port(self) -> int:
        return int(self.ports["secure_port"])

    def rss(self) -> int:
        """Bytes of memory that the process has in use now."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise ProcessLookupError("the broker has ended")

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))  # noqa: PTH208

    def command(self, *arguments: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
        """`rsocket-broker ARGUMENTS` on the same home."""
        return run_command(self.home, *arguments, timeout=timeout)

    def clients(self) -> list[dict[str, Any]]:
        done = self.command("clients", "list", "--json")
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends the process and returns its exit code; a second call does nothing more."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


def program(home: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "rsocket_broker", "--home", str(home), *arguments]


def clean_environment() -> dict[str, str]:
    """Ours without the settings that would reach the broker through it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RSOCKET_BROKER_")}


def run_command(home: Path, *arguments: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        program(home, *arguments), capture_output=True, text=True, timeout=timeout, env=clean_environment(), check=False
    )


def run_here(home: Path, *arguments: str) -> tuple[int, str]:
    """The same in this process, which is much faster: exit code, and all that it said. One at a time."""
    from rsocket_broker.cli.main import run

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run(["--home", str(home), *arguments])
    return code, said.getvalue()


def start_broker(home: Path, *options: str, insecure_port: int = 0, secure_port: int = 0) -> BrokerProcess:
    """Starts `serve` and waits for its `ready` line. Fails with what the broker said on stderr."""
    home.parent.mkdir(parents=True, exist_ok=True)
    log = home.parent / f"{home.name}.log"
    arguments = ["serve", "--insecure-port", str(insecure_port), "--secure-port", str(secure_port), "--adb", "off"]
    with log.open("a") as errors:
        process = subprocess.Popen(
            program(home, *arguments, *options),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=clean_environment(),
        )
    ready = _first_line(process)
    if not ready.startswith("ready"):
        process.kill()
        process.communicate()
        raise AssertionError(f"the broker did not start: {ready!r}\n{log.read_text()}")
    ports = json.loads((home / "run" / "ports.json").read_text())
    return BrokerProcess(home, process, ready, ports, log)


def _first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    stdout = process.stdout
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
    with contextlib.suppress(queue.Empty):
        return lines.get(timeout=START_TIMEOUT)
    return ""
