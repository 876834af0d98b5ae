import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rsocket_broker.cli.demo import SCENES, Unverified, verify
from tests.end_to_end.processes import clean_environment


@pytest.mark.row("F-7", "F-10", "F-17", "F-22", "M-1", "M-11", "A-14", "A-21", "A-26")
def test_the_whole_story_is_told_and_verified(tmp_path: Path) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "rsocket_broker", "--home", str(tmp_path / "untouched"), "demo"],
        capture_output=True,
        text=True,
        timeout=30,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 10
    steps = re.findall(r"^(\d+)\. ", done.stdout, re.MULTILINE)
    assert steps == [str(number) for number in range(1, len(SCENES) + 11)]
    assert done.stdout.count("✓") >= len(steps)
    assert "Every step was verified" in done.stdout
    assert "PRIVATE KEY" not in done.stdout + done.stderr
    assert not (tmp_path / "untouched").exists()


def test_a_step_that_does_not_hold_ends_the_story() -> None:
    verify(True, "fine")
    with pytest.raises(Unverified, match="this should be true and is not: the sky is green"):
        verify(False, "the sky is green")
