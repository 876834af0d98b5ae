"""The table in scenario.toml, read."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

HERE = Path(__file__).parent


@attrs.frozen
class Step:
    """One thing that every client does. `detail` is what it must see."""

    name: str
    does: str
    detail: Any
    libraries: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    """For a step that not every library has: those that do."""


@attrs.frozen
class Failing:
    """A step that a library cannot take: `reason` says why that is its own doing, `detail` what comes of it instead."""

    reason: str
    detail: Any
    always: bool = True


@attrs.frozen
class Scenario:
    """All steps in their order; those of some libraries; and by the name of a library those that fail with it."""

    steps: tuple[Step, ...]
    extras: Mapping[str, Step]
    failing: Mapping[str, Mapping[str, Failing]]

    def expected(self, library: str, step: Step) -> list[Any]:
        """What the step may come to; one thing, as a rule."""
        found = self.failing.get(library, {}).get(step.name)
        if found is None:
            return [step.detail]
        return [found.detail] if found.always else [found.detail, step.detail]

    def runs(self, library: str) -> list[list[str]]:
        """The names of the steps of each run: one for all that work, and one for each that does not, which may well
        end the connection."""
        failing = self.failing.get(library, {})
        return [self.working(library), *([step.name] for step in self.steps if step.name in failing)]

    def working(self, library: str) -> list[str]:
        failing = self.failing.get(library, {})
        return [step.name for step in self.steps if step.name not in failing]


def read_scenario() -> Scenario:
    table = tomllib.loads((HERE / "scenario.toml").read_text())
    failing = {
        library: {step: Failing(**fields) for step, fields in steps.items()}
        for library, steps in table.get("library", {}).items()
    }
    extras = {step["name"]: Step(**step) for step in table["extra"]}
    return Scenario(tuple(Step(**step) for step in table["step"]), extras, failing)
