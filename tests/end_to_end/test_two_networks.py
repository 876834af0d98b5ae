"""Enrolment and a session between two networks that lead nowhere else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end import two_networks
from tests.end_to_end.processes import clean_environment

ROOT = Path(__file__).parent.parent.parent
ALONE = ("unshare", "--map-root-user", "--net")


@pytest.fixture(scope="module", autouse=True)
def _networks() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("networks of one's own are a thing of Linux")
    for program, package in (("unshare", "util-linux"), ("nsenter", "util-linux"), ("ip", "iproute2")):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: apt-get install {package}")
    if subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody make a network of one's own (unshare --map-root-user --net)")


@pytest.mark.row("M-2", "M-13", "M-19")
def test_a_session_between_two_networks_that_lead_nowhere_else(tmp_path: Path) -> None:
    done = subprocess.run(
        [*ALONE, sys.executable, two_networks.__file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=55,
        env={**clean_environment(), "PYTHONPATH": os.fspath(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["told"] == two_networks.WORDS
    for routes in found["routes"]:
        assert routes, "there is a way to the other"
        assert not any(line.startswith("default") for line in routes), "and none to anywhere else"
