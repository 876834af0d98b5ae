"""Measures as text: blocks for the terminal while they run, and one Markdown table of ratios for the documentation.

python benchmarks/report.py [build/bench.json]
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from measures import Figures, Result, Scale

COLUMNS = {
    "rate": ("rate/s", "{:.0f}"),
    "cpu": ("CPU us", "{:.2f}"),
    "ns": ("CPU ns", "{:.0f}"),
    "p50": ("p50 ms", "{:.3f}"),
    "p99": ("p99 ms", "{:.2f}"),
    "kib": ("KiB each", "{:.1f}"),
    "mb": ("MB", "{:.1f}"),
    "seconds": ("s", "{:.3f}"),
    "times": ("x alone", "{:.1f}"),
    "refused": ("refused", "{:.0f}"),
    "resumed": ("resumed", "{:.0%}"),
}
"""Figures in the order of their columns, with what stands above and how they are written."""

MORE_IS_BETTER = ("rate",)
DECIDES = ("cpu", "ns", "p50", "kib", "p99", "seconds", "rate")
"""The figure by which contestants are compared: the first of these that a measure has, unless it has a better one."""


def deciding(name: str, figures: Mapping[str, Figures]) -> str:
    if name.endswith("window 1"):
        return "p50"
    if "calls/s" in name:
        return "p99"
    if name.startswith(("new sessions", "enrolments")):
        return "rate"
    return next(key for key in DECIDES if key in figures["broker"])


def better(key: str, ours: Figures, theirs: Figures) -> float | None:
    """How many times better `ours` is; below 1 it is behind."""
    if not ours.get(key) or not theirs.get(key):
        return None
    return ours[key] / theirs[key] if key in MORE_IS_BETTER else theirs[key] / ours[key]


def spread(values: Sequence[float]) -> str:
    """How far apart rounds were, as a share of their median: the noise of the machine."""
    middle = statistics.median(values) if values else 0
    return f"{(max(values) - min(values)) / middle:.0%}" if middle and len(values) > 1 else ""


def shown(found: Result) -> str:
    """One measure as lines of text: its contestants, then its reaches."""
    keys = [key for key in COLUMNS if any(key in figures for figures in found.figures.values())]
    key = deciding(found.name, found.figures)
    lines = [f"\n{found.name}" + (f"   ({found.note})" if found.note else "")]
    heads = "".join(f"{COLUMNS[one][0]:>11}" for one in keys)
    lines.append(f"  {'':14}{heads}   ratio by {COLUMNS[key][0]}, spread")
    for name, figures in found.figures.items():
        cells = "".join(f"{COLUMNS[one][1].format(figures[one]) if one in figures else '':>11}" for one in keys)
        ratio = better(key, found.figures["broker"], figures) if name != "broker" else None
        noise = spread([one[key] for one in found.rounds.get(name, ()) if key in one])
        lines.append(f"  {name:14}{cells}   {f'{ratio:.2f}' if ratio else '':>6} {noise:>6}".rstrip())
    lines += [f"  {'+' if verdict.met else '-'} {verdict.text}" for verdict in found.verdicts]
    return "\n".join(lines)


def as_json(about: str, scale: Scale, results: Sequence[Result]) -> str:
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
    return json.dumps({"machine": about, "scale": attrs.asdict(scale), "measures": measures}, indent=1) + "\n"


def markdown(told: Mapping[str, Any]) -> str:
    """The table for the documentation: the broker's own figure, and how many times better it is than each reference."""
    lines = ["| measure | the broker | better than the references, times | reaches |", "|---|---|---|---|"]
    for measure in told["measures"]:
        figures = measure["figures"]
        key = deciding(measure["name"], figures)
        ours = ", ".join(
            f"{form.format(figures['broker'][one])} {head}"
            for one, (head, form) in COLUMNS.items()
            if one in (key, "cpu", "rate", "kib", "mb") and one in figures["broker"]
        )
        ratios = {name: better(key, figures["broker"], theirs) for name, theirs in figures.items() if name != "broker"}
        compared = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items() if ratio)
        met = [verdict["met"] for verdict in measure["reaches"]]
        lines.append(f"| {measure['name']} | {ours} | {compared} | {f'{sum(met)} of {len(met)}' if met else ''} |")
    return "\n".join(lines)


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "build/bench.json")
    print(markdown(json.loads(path.read_text(encoding="utf-8"))))
