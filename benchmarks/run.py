"""All benchmarks in one command: a table of ratios on the terminal, figures in build/bench.json."""

import json
import os
import platform
import tempfile
from pathlib import Path

import attrs
from calls import measure_calls
from enrolments import measure_enrolments

RESULT = Path(__file__).parent.parent / "build" / "bench.json"


def noise() -> str:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, load before the run {load}"


def main() -> None:
    print(f"machine: {noise()}")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        calls = measure_calls(work)
        enrolments = measure_enrolments(work)
    print(
        f"\n{'measure':20}{'contestant':12}{'calls/s':>10}{'CPU µs':>9}{'p50 ms':>9}{'rate ratio':>12}{'CPU ratio':>11}"
    )
    for label, outcomes in calls.items():
        ours = outcomes["broker"]
        for name, outcome in outcomes.items():
            ratios = f"{ours.rate / outcome.rate:11.2f}x{outcome.cpu / ours.cpu:10.2f}x" if name != "broker" else ""
            print(f"{label:20}{name:12}{outcome.rate:10.0f}{outcome.cpu:9.1f}{outcome.p50:9.2f}{ratios}")
    print("\n(ratios: how many times better the broker is than that contestant; below 1 it is behind)")
    for name, rate in enrolments.items():
        ratio = "" if name == "broker" else f"   broker / this: {enrolments['broker'] / rate:.2f}"
        print(f"enrolments/s  {name:22}{rate:8.1f}{ratio}")
    RESULT.parent.mkdir(exist_ok=True)
    figures = {label: {name: attrs.asdict(outcome) for name, outcome in each.items()} for label, each in calls.items()}
    RESULT.write_text(json.dumps({"machine": noise(), "calls": figures, "enrolments": enrolments}, indent=2) + "\n")


if __name__ == "__main__":
    main()
