"""All benchmarks in one command: a table with ratios and reaches on the terminal, all figures in build/bench.json.

python benchmarks/run.py [--only calls,relay] [--rounds 5] [--quick] [--full]
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import calls
import enrolments
import flows
import latency
import sessions
from measures import Result, Scale, Workshop

try:
    import uvloop
except ImportError:  # the generator is then slower, and the same for all
    uvloop = None

RESULT = Path(__file__).parent.parent / "build" / "bench.json"
QUICK = Scale(rounds=3, size=0.2)
TINY = Scale(rounds=1, size=0.002, warm=False)
NORMAL = Scale()

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
    "start": sessions.measure_start,
}

COLUMNS = {
    "rate": ("rate/s", "{:.0f}"),
    "cpu": ("CPU us", "{:.2f}"),
    "p50": ("p50 ms", "{:.3f}"),
    "p99": ("p99 ms", "{:.2f}"),
    "kib": ("KiB each", "{:.1f}"),
    "mb": ("MB", "{:.1f}"),
    "seconds": ("s", "{:.3f}"),
    "times": ("x unloaded", "{:.1f}"),
    "refused": ("refused", "{:.0f}"),
    "resumed": ("resumed", "{:.0%}"),
}
"""Figures in the order of their columns, with what stands above and how they are written."""


def shown(found: Result) -> str:
    """One measure as lines of text: its contestants, then its reaches."""
    keys = [key for key in COLUMNS if any(key in figures for figures in found.figures.values())]
    ratio = next((key for key in ("cpu", "kib", "p99", "seconds", "rate") if key in keys), keys[0])
    lines = [f"\n{found.name}" + (f"   ({found.note})" if found.note else "")]
    lines.append(f"  {'':22}" + "".join(f"{COLUMNS[key][0]:>12}" for key in keys) + f"{'ratio':>9}   spread")
    ours = found.figures.get("broker")
    for name, figures in found.figures.items():
        cells = "".join(f"{COLUMNS[key][1].format(figures[key]) if key in figures else '':>12}" for key in keys)
        lines.append(f"  {name:22}{cells}{ratio_of(ratio, ours, figures):>9}   {spread(found, name, ratio)}".rstrip())
    lines += [f"  {'+' if verdict.met else '-'} {verdict.text}" for verdict in found.verdicts]
    return "\n".join(lines)


def ratio_of(key: str, ours: object, theirs: object) -> str:
    """How many times better the broker is by the figure to trust; below 1 it is behind."""
    if (
        not isinstance(ours, dict)
        or not isinstance(theirs, dict)
        or ours is theirs
        or key not in ours
        or key not in theirs
    ):
        return ""
    better = ours[key] / theirs[key] if key == "rate" else theirs[key] / ours[key]
    return f"{better:.2f}"


def spread(found: Result, name: str, key: str) -> str:
    """How far apart the rounds were, as a share of their median: the noise of the machine."""
    values = [one[key] for one in found.rounds.get(name, ()) if key in one]
    middle = statistics.median(values) if values else 0
    return f"{(max(values) - min(values)) / middle:.0%}" if middle and len(values) > 1 else ""


def machine() -> str:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, load before {load}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"groups, with commas between: {','.join(GROUPS)}")
    parser.add_argument("--match", default="", help="only measures with this text in their names")
    parser.add_argument("--rounds", type=int, help="rounds of each measure; 5, or 3 with --quick")
    parser.add_argument("--quick", action="store_true", help="a fifth of the work: for a look while developing")
    parser.add_argument("--full", action="store_true", help="also what takes minutes: 10,000 idle sessions")
    parser.add_argument("--tiny", action="store_true", help="hardly any work: whether it runs, not how fast")
    parser.add_argument("--out", type=Path, default=RESULT, help="the file for the figures")
    return parser.parse_args()


def main() -> int:
    chosen = arguments()
    names = chosen.only.split(",") if chosen.only else list(GROUPS)
    if unknown := [name for name in names if name not in GROUPS]:
        raise SystemExit(f"no such group: {', '.join(unknown)}. There are: {', '.join(GROUPS)}")
    scale = attrs.evolve(
        TINY if chosen.tiny else QUICK if chosen.quick else NORMAL, full=chosen.full, match=chosen.match
    )
    scale = attrs.evolve(scale, rounds=chosen.rounds or scale.rounds)
    if uvloop is not None:
        uvloop.install()
    about = machine()
    print(f"{about}; medians of {scale.rounds}; ratio: how many times better the broker is, by the last figure")
    results: list[Result] = []
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        Workshop(Path(folder), lambda text: print(f"  {text}", flush=True)) as workshop,
    ):
        for name in names:
            for found in GROUPS[name](workshop, scale):
                results.append(found)
                print(shown(found), flush=True)
    write(chosen.out, about, scale, results)
    verdicts = [verdict for found in results for verdict in found.verdicts]
    met = sum(verdict.met for verdict in verdicts)
    print(f"\n{met} of {len(verdicts)} reaches met, in {time.monotonic() - started:.0f} s. Figures: {chosen.out}")
    return 0


def write(path: Path, about: str, scale: Scale, results: list[Result]) -> None:
    measures = [
        {
            "name": found.name,
            "note": found.note,
            "figures": found.figures,
            "rounds": found.rounds,
            "reaches": [attrs.asdict(verdict) for verdict in found.verdicts],
        }
        for found in results
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": about, "scale": attrs.asdict(scale), "measures": measures}, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
