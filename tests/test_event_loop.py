"""The loop that a broker runs on, with uvloop and without."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rsocket_broker import event_loop

HIDING = "import sys; sys.modules |= {name: None for name in sys.argv.pop(1).split(',')}\n"
"""Makes the modules that the first argument names impossible to import."""
SERVE = "from rsocket_broker.cli.main import main; main()"


async def its_loop() -> str:
    return type(asyncio.get_running_loop()).__module__


def test_the_broker_runs_on_uvloop_where_it_is_installed() -> None:
    pytest.importorskip("uvloop", reason="needs uvloop")
    assert event_loop.run(its_loop()) == "uvloop"


def test_without_uvloop_it_runs_on_asyncios_own_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert event_loop.factory() is None
    assert event_loop.run(its_loop()).startswith("asyncio")


@pytest.mark.parametrize("hidden", ["uvloop", "orjson", "uvloop,orjson"])
def test_a_broker_without_its_fast_libraries_starts_and_stops_as_usual(tmp_path: Path, hidden: str) -> None:
    options = ["--adb", "off", "--insecure-port", "0", "--secure-port", "0"]
    command = [sys.executable, "-c", HIDING + SERVE, hidden, "--home", str(tmp_path / "home"), "serve", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as broker:
        assert broker.stdout is not None
        line = broker.stdout.readline()
        ports = json.loads((tmp_path / "home" / "run" / "ports.json").read_text()) if line else None
        broker.terminate()
        _, log = broker.communicate(timeout=30)
    assert line.startswith("ready"), log
    assert ports is not None
    assert ports["secure_port"] > 0
    assert broker.returncode == 0
