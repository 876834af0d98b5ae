"""The corpus is replayed, and the fuzzers go on from it for a while: longer in a soak."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

HERE = Path(__file__).parent
RUNS_PER_PORTION = 200
PORTIONS = 100


def seeds(name: str) -> list[Path]:
    return sorted((HERE / "corpus" / name).iterdir())


@pytest.mark.row("D-12", "A-31", "A-35")
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_of_the_corpus_breaks_a_promise(name: str) -> None:
    assert len(seeds(name)) > 10
    for path in seeds(name):
        try:
            TARGETS[name](path.read_bytes())
        except Exception as error:
            error.add_note(f"input: {path}")
            raise


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.row("D-12", "A-31")
@pytest.mark.parametrize("name", TARGETS)
def test_fuzzing_finds_nothing(name: str, portion: Callable[[int], list[int]], tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris has no build for this platform")
    portions = portion(PORTIONS)
    runs = RUNS_PER_PORTION * len(portions) // (4 if name == "connection" else 1)
    command = [sys.executable, str(HERE / "fuzz.py"), f"--target={name}", f"-runs={runs}", f"-seed={portions[0] + 1}"]
    done = subprocess.run(
        [*command, f"-artifact_prefix={tmp_path}/", str(tmp_path), str(HERE / "corpus" / name)],
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert f"Done {runs} runs" in done.stderr
