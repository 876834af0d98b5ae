#!/usr/bin/env python3
"""Coverage-guided fuzzing: `python tests/fuzz/fuzz.py --target=NAME [libFuzzer options] [CORPUS…]`.

    python tests/fuzz/fuzz.py --target=frames -runs=1000000 tests/fuzz/corpus/frames
    python tests/fuzz/fuzz.py --target=frames -merge=1 tests/fuzz/corpus/frames FOUND
        keeps what adds coverage (in an activated environment: a merge starts this file itself)

An input that breaks a promise is written to a file `crash-…`: mend the cause and keep the file in the corpus.
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))
with atheris.instrument_imports(include=["rsocket_broker"]):
    from tests.fuzz.targets import TARGETS

MAX_LENGTH = 4096


def main() -> None:
    # An option with two dashes means nothing to libFuzzer, and it hands it on to the processes that a merge starts.
    name = next((one.removeprefix("--target=") for one in sys.argv if one.startswith("--target=")), "")
    if name not in TARGETS:
        sys.exit(f"{__doc__}\nNAME is one of: {', '.join(TARGETS)}")
    atheris.Setup([*sys.argv, f"-max_len={MAX_LENGTH}"], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
