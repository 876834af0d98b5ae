"""Leaks as the two versions of LeakCanary tell of them.

    reportLeak    {"leaks": ["text", …]}                                        version 1
    reportLeak2   {"leaks": [{"title", "root", "elements": {ID: {…}}, "retainedSize", "details"}, …]}

Every event carries all leaks so far. In version 2 each element has at most one child: the elements are a path from
what holds the memory to what leaks.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from rsocket_broker.plugin_api import Invalid
from rsocket_broker.plugin_api.lenient import fields, items, text

MAX_LEAKS = 500
"""Leaks of one report: an app with as many is not going to run for long."""
MAX_TITLE = 1000
MAX_DETAILS = 64 * 1024
"""Characters of the text of one leak: a path of a hundred references with their labels has 20 thousand."""
MAX_PATH = 200
"""References of a path."""
MAX_WORDS = 100
"""Characters of what is said of one object besides its name."""

_TITLE: Final = r"(?m)^.*\bhas leaked.*$"
_STEP: Final = r"(?m)^\* ((?:GC ROOT|references|leaks|↳).*)$"
_RETAINED: Final = r"(?m)^\* Retaining: (.{1,100}?)\.?[ \t\r]{0,10}$"


class Element(NamedTuple):
    """One object on the path. `leaking` is "Y", "N" or "?"; `retaining` is text such as `120 bytes (3 objects)`."""

    name: str
    leaking: str
    retaining: str


class Leak(NamedTuple):
    """One leak. `version` is LeakCanary's; `path` goes from what holds the memory to what leaks."""

    version: int
    title: str
    retained: str
    details: str
    path: tuple[Element, ...]

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        steps = (250 + len(one.name) + len(one.leaking) + len(one.retaining) for one in self.path)
        return 300 + len(self.title) + len(self.details) + sum(steps)


def old_reports(params: Mapping[str, Any]) -> list[Leak]:
    """All leaks of a `reportLeak`. Raises Invalid."""
    return [_old(one) for one in items(params.get("leaks"), "leaks", MAX_LEAKS)]


def new_reports(params: Mapping[str, Any]) -> list[Leak]:
    """All leaks of a `reportLeak2`. Raises Invalid."""
    return [_new(fields(one, "leaks")) for one in items(params.get("leaks"), "leaks", MAX_LEAKS)]


def _old(report: object) -> Leak:
    if not isinstance(report, str):
        raise Invalid("leaks: wanted text.")
    details = report[:MAX_DETAILS]
    found = re.search(_TITLE, details)
    title = found[0] if found else next((line for line in details.splitlines() if line.strip()), "a leak")
    retained = re.search(_RETAINED, details)
    path = tuple(Element(step[:MAX_TITLE], "?", "") for step in re.findall(_STEP, details)[:MAX_PATH])
    return Leak(1, title.strip("* \t\r").removesuffix(":")[:MAX_TITLE], retained[1] if retained else "", details, path)


def _new(report: Mapping[str, Any]) -> Leak:
    title = text(report, "title", MAX_TITLE)
    if not title:
        raise Invalid("leaks: wanted a title.")
    elements = fields(report.get("elements"), "elements")
    retained = text(report, "retainedSize", 100)
    return Leak(2, title, retained, text(report, "details", MAX_DETAILS), _path(report, elements))


def _path(report: Mapping[str, Any], elements: Mapping[str, Any]) -> tuple[Element, ...]:
    found: list[Element] = []
    seen: set[str] = set()
    at = text(report, "root", MAX_TITLE)
    while at in elements and at not in seen and len(found) < MAX_PATH:
        seen.add(at)
        element = fields(elements[at], "elements")
        about = {
            text(one, "name", MAX_WORDS): text(one, "value", MAX_WORDS)
            for one in items(element.get("attributes"), "attributes", 100)
            if isinstance(one, dict)
        }
        found.append(Element(text(element, "name", MAX_TITLE), about.get("leaking", "?"), about.get("retaining", "")))
        children = items(element.get("children"), "children", MAX_LEAKS)
        at = children[0] if children and isinstance(children[0], str) else ""
    return tuple(found)


def fresh(known: Sequence[int], told: Sequence[Leak]) -> list[Leak]:
    """Those of a full list that are new: what follows the known ones, given by their hashes. When the list is another
    one altogether, as after a restart of the app, all of it that was not known."""
    if [hash(leak) for leak in told[: len(known)]] == list(known):
        return list(told[len(known) :])
    before = set(known)
    return [leak for leak in told if hash(leak) not in before]
