"""All benchmarks in one command: a table with ratios and reaches on the terminal, all figures in build/bench.json.

python benchmarks/run.py [--only calls,relay] [--match TEXT] [--rounds 5] [--quick] [--full]
"""

import argparse
import contextlib
import os
import platform
import pstats
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import bystander
import calls
import decisions
import enrolments
import flows
import latency
import revocations
import rotation
import sessions
from measures import Result, Scale, Workshop
from report import as_json, shown

try:
    import uvloop
except ImportError:  # the generator is then slower, and the same for all
    uvloop = None

RESULT = Path(__file__).parent.parent / "build" / "bench.json"
NORMAL = Scale()
QUICK = Scale(rounds=3, size=0.2)
TINY = Scale(rounds=1, size=0.002, warm=False)

PROFILED_LINES = 30

GROUPS: dict[str, Callable[[Workshop, Scale], Iterator[Result]]] = {
    "calls": calls.measure,
    "events": flows.measure_events,
    "streams": flows.measure_streams,
    "app-calls": flows.measure_app_calls,
    "relay": flows.measure_relay,
    "handshakes": sessions.measure_handshakes,
    "memory": sessions.measure_memory,
    "enrolments": enrolments.measure,
    "latency": latency.measure,
    "bystanders": bystander.measure,
    "revocations": revocations.measure,
    "rotation": rotation.measure,
    "policy": decisions.measure,
    "start": sessions.measure_start,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"groups, with commas between: {','.join(GROUPS)}")
    parser.add_argument("--match", default="", help="only measures with this text in their names")
    parser.add_argument("--rounds", type=int, help="rounds of each measure; 5, or 3 with --quick")
    parser.add_argument("--quick", action="store_true", help="a fifth of the work: for a look while developing")
    parser.add_argument("--full", action="store_true", help="also what takes minutes: 10,000 idle sessions")
    parser.add_argument("--tiny", action="store_true", help="hardly any work: whether it runs, not how fast")
    parser.add_argument("--profile", action="store_true", help="say where the broker's time goes; it is slower then")
    parser.add_argument("--out", type=Path, default=RESULT, help="the file for the figures")
    return parser.parse_args()


def chosen_scale(chosen: argparse.Namespace) -> Scale:
    scale = TINY if chosen.tiny else QUICK if chosen.quick else NORMAL
    return attrs.evolve(scale, rounds=chosen.rounds or scale.rounds, full=chosen.full, match=chosen.match)


def machine() -> str:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, load before {load}"


def take_all_files() -> None:
    """Ten thousand sessions need as many open files on each side; servers have our limit from us."""
    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run(names: list[str], workshop: Workshop, scale: Scale) -> tuple[list[Result], list[str]]:
    """Measure these groups, and print each measure when it is done: the results, and the groups that failed."""
    results, failed = [], []
    for name in names:
        try:
            for found in GROUPS[name](workshop, scale):
                results.append(found)
                print(shown(found), flush=True)
        except Exception:
            failed.append(name)
            print(f"\n{name} failed:\n{traceback.format_exc()}", flush=True)
    return results, failed


def main() -> int:
    chosen = arguments()
    names = chosen.only.split(",") if chosen.only else list(GROUPS)
    if unknown := [name for name in names if name not in GROUPS]:
        raise SystemExit(f"no such group: {', '.join(unknown)}. There are: {', '.join(GROUPS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the contestants end with us
    scale, about, started = chosen_scale(chosen), machine(), time.monotonic()
    take_all_files()
    if uvloop is not None:
        uvloop.install()
    print(f"{about}; medians of {scale.rounds}; ratio: how many times better the broker is")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        with Workshop(Path(folder), lambda text: print(f"  {text}", flush=True), profiled=chosen.profile) as workshop:
            results, failed = run(names, workshop, scale)
        for path in workshop.profiles:
            pstats.Stats(str(path)).strip_dirs().sort_stats("tottime").print_stats(PROFILED_LINES)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(as_json(about, scale, results), encoding="utf-8")
    verdicts = [verdict for found in results for verdict in found.verdicts]
    met = sum(verdict.met for verdict in verdicts)
    print(f"\n{met} of {len(verdicts)} reaches met, in {time.monotonic() - started:.0f} s. Figures: {chosen.out}")
    if failed:
        print(f"failed, and without figures: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
