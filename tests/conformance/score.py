"""The score table: the suite against every server, as docs/reference/conformance.md.

    python tests/conformance/score.py             all of them; takes some minutes
    python tests/conformance/score.py rsocket-js  one of them, shown only

A rule is a test function; it is kept when every case of it passes. Rules that do not apply to a server (resumption,
where it has none) are left out of its totals.
"""

import ast
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from tests.conformance.deviations import DEVIATIONS, LENIENT  # noqa: E402
from tests.conformance.targets import FOREIGN  # noqa: E402

PAGE = ROOT / "docs" / "reference" / "conformance.md"
BROKER = "broker"
TITLES = {BROKER: "this broker", **{name: one.title for name, one in FOREIGN.items()}}
WAITS = (1, 3)
"""Seconds for an answer: a server that does not give it makes every such rule take that long. What fails is tried once
more, with more time: this machine may have had other work."""
TOO_LONG = 3600

ORDER = (
    "framing",
    "setup",
    "connection_establishment",
    "error",
    "lease",
    "keepalive",
    "request_response",
    "fire_and_forget",
    "request_stream",
    "request_n",
    "request_channel",
    "cancel",
    "payload",
    "metadata_push",
    "ext",
    "stream_ids",
    "fragmentation",
    "resume",
    "unexpected",
    "requester",
    "composite_metadata",
    "hostile",
)
"""The modules, in about the specification's order."""


@attrs.frozen
class Section:
    """One module of the suite. `rules`: test functions, each with whether it is for servers that lack something."""

    module: str
    title: str
    rules: dict[str, bool]


@attrs.frozen
class Verdict:
    """What became of one rule: cases that passed, and all that were tried."""

    passed: int
    tried: int


Case = tuple[str, str]
"""Module, and the test's name with its parameters."""
Verdicts = dict[tuple[str, str], Verdict]
"""By module and rule."""


def sections() -> list[Section]:
    """All modules with a SECTION, without running them."""
    return [_section(module) for module in ORDER]


def _section(module: str) -> Section:
    tree = ast.parse((HERE / f"test_{module}.py").read_text(encoding="utf-8"))
    title = ""
    rules = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SECTION":
            title = ast.literal_eval(node.value)
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            rules[node.name] = any("mark.lacks(" in ast.unparse(one) for one in node.decorator_list)
    return Section(module, title, rules)


def judge(name: str) -> Verdicts:
    """Runs the suite against one server. Raises RuntimeError when it could not be run at all."""
    print(f"{TITLES[name]} …", file=sys.stderr, flush=True)
    cases: dict[Case, bool] = {}
    for wait in WAITS:
        failed = [f"{HERE}/test_{module}.py::{case}" for (module, case), good in cases.items() if not good]
        if not cases or failed:
            cases |= _run(name, wait, failed or [f"{HERE}/test_{module}.py" for module in ORDER])
    verdicts: Verdicts = {}
    for (module, case), good in cases.items():
        rule = (module, case.partition("[")[0])
        so_far = verdicts.get(rule, Verdict(0, 0))
        verdicts[rule] = Verdict(so_far.passed + good, so_far.tried + 1)
    return verdicts


def _run(name: str, wait: int, tests: list[str]) -> dict[Case, bool]:
    """Whether each case of `tests` passes."""
    environment = {**os.environ, "CONFORMANCE_TARGET": name, "CONFORMANCE_WAIT": str(wait)}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
        ran = subprocess.run(
            command, cwd=ROOT, env=environment, timeout=TOO_LONG, capture_output=True, text=True, check=False
        )
        if not report.exists():
            raise RuntimeError(f"the suite did not run against {name}:\n{ran.stdout}\n{ran.stderr}")
        return _read(report)


def _read(report: Path) -> dict[Case, bool]:
    found: dict[Case, bool] = {}
    for case in ET.parse(report).getroot().iter("testcase"):
        key = (case.attrib["classname"].rpartition("test_")[2], case.attrib["name"])
        skipped = case.find("skipped")
        if skipped is not None and "xfail" not in skipped.attrib.get("type", ""):
            reason = skipped.attrib.get("message", "")
            if "not applicable" not in reason:
                raise RuntimeError(f"not judged: {reason}")
            continue
        good = all(case.find(what) is None for what in ("failure", "error", "skipped"))
        found[key] = good and found.get(key, True)  # what fails in its teardown too is reported twice
    return found


# ---- the page --------------------------------------------------------------------------------------------------------


def words(rule: str) -> str:
    """The name of a test as a sentence."""
    return rule.removeprefix("test_").replace("_", " ")


def kept(section: Section, verdicts: Verdicts) -> tuple[int, int]:
    """Rules of a section that are kept, and that apply."""
    found = [verdicts[section.module, rule] for rule in section.rules if (section.module, rule) in verdicts]
    return sum(one.passed == one.tried for one in found), len(found)


def page(results: dict[str, Verdicts]) -> str:
    """docs/reference/conformance.md."""
    return "\n".join([*_head(), *_table(results), *_deviations(), *_failures(results)]) + "\n"


def _head() -> list[str]:
    return [
        "# Conformance",
        "",
        "Every rule of RSocket 1.0 that shows on the wire, and of the extensions that travel in metadata, is a test",
        "in `tests/conformance/`, named after the rule. The tests speak raw bytes to a server in a process of its own:",
        "the broker over mutual TLS (and its plain endpoint over TCP, as far as it goes), other libraries over TCP,",
        "each in a small server with the same routes. Made by `make scores`; every run of the tests holds the broker",
        "to it.",
        "",
        "Rules kept, of those that apply. A rule is kept when every case of it passes.",
        "",
    ]


def _table(results: dict[str, Verdicts]) -> list[str]:
    names = list(results)
    lines = [f"| section | {' | '.join(TITLES[name] for name in names)} |", "|---|" + "---|" * len(names)]
    totals = {name: [0, 0] for name in names}
    for section in sections():
        cells = []
        for name in names:
            good, applying = kept(section, results[name])
            totals[name][0] += good
            totals[name][1] += applying
            cells.append(f"{good}/{applying}" if applying else "–")
        lines.append(f"| {section.title} | {' | '.join(cells)} |")
    sums = " | ".join(f"**{good}/{applying}**" for good, applying in totals.values())
    return [*lines, f"| **all** | {sums} |", ""]


def _deviations() -> list[str]:
    lines = ["## What the broker does otherwise, and why", ""]
    lines += [f"- *{words(rule)}*: {reason}" for rule, reason in DEVIATIONS.items()]
    lines += ["", "Where the specification leaves room, or real peers need some:", ""]
    return [*lines, *(f"- {text}" for text in LENIENT), ""]


def _failures(results: dict[str, Verdicts]) -> list[str]:
    lines = []
    for name, verdicts in results.items():
        lines += [f"## Rules that {TITLES[name]} does not keep", ""]
        for section in sections():
            broken = list(_broken(section, verdicts))
            if broken:
                lines += [f"**{section.title}**", "", *broken, ""]
    return lines[:-1]


def _broken(section: Section, verdicts: Verdicts) -> Iterable[str]:
    for rule in section.rules:
        one = verdicts.get((section.module, rule))
        if one is not None and one.passed < one.tried:
            some = f" ({one.tried - one.passed} of {one.tried} cases)" if one.tried > 1 else ""
            yield f"- {words(rule)}{some}"


def main(chosen: list[str]) -> None:
    names = chosen or list(TITLES)
    with ThreadPoolExecutor() as pool:  # they wait for answers most of the time
        results = dict(zip(names, pool.map(judge, names), strict=True))
    text = page(results)
    if chosen:
        print(text, end="")
    else:
        PAGE.write_text(text, encoding="utf-8")
        print("\n".join(_table(results)))


if __name__ == "__main__":
    main(sys.argv[1:])
