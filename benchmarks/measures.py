"""What a measure is: figures of each contestant by name, reaches that they are held to, and rounds that take turns."""

import contextlib
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs
from servers import APP_ID, FAR_APP_ID, Contestant, Unavailable, broker, issue, make_home, reference

Figures = Mapping[str, float]
"""One contestant's figures: `rate` (operations a second), `cpu` (microseconds of server CPU for each), `ns`
(nanoseconds of CPU for each), `p50` and `p99` (milliseconds), `kib` (KiB for each session), `mb` (MB), `seconds`,
`resumed` (a share), `refused` (how many)."""

LESS_IS_BETTER = ("cpu", "ns")
"""Of the figures by which one outdoes another."""

SLOW = {"rsocket-py": 8}
"""Contestants that get this many times less to do, so that their rounds do not take minutes."""


WARM_UPS = {"node": 4}
"""Unseen rounds before those that count, one for most: a compiler at run time needs more of them to do its best."""


@attrs.frozen
class Scale:
    """How much is measured. `size` multiplies the operations of a round, `match` is in the names of what is wanted.

    Without `warm` there are no unseen rounds: for a look whether it runs.
    """

    rounds: int = 5
    size: float = 1.0
    full: bool = False
    match: str = ""
    warm: bool = True

    def wants(self, name: str) -> bool:
        return self.match.lower() in name.lower()

    def amount(self, normal: int, contestant: str = "", least: int = 16) -> int:
        return max(least, int(normal * self.size) // SLOW.get(contestant, 1))


@attrs.frozen
class Verdict:
    text: str
    met: bool


@attrs.frozen
class Outdo:
    """The broker does `factor` times what `against` does: by rate, and by work for the same server CPU."""

    factor: float
    against: str
    figures: tuple[str, ...] = ("cpu", "rate")

    def judge(self, found: Mapping[str, Figures]) -> Verdict | None:
        if self.against not in found:
            return None
        ours, theirs = found["broker"], found[self.against]
        ratios = {
            name: theirs[name] / ours[name] if name in LESS_IS_BETTER else ours[name] / theirs[name]
            for name in self.figures
        }
        shown = ", ".join(f"{ratio:.2f} by {name}" for name, ratio in ratios.items())
        met = [name for name, ratio in ratios.items() if ratio >= self.factor]
        word = "met" if len(met) == len(ratios) else f"met by {met[0]} only" if met else "missed"
        return Verdict(f">= {self.factor:g} x {self.against}: {shown}: {word}", len(met) == len(ratios))


@attrs.frozen
class Limit:
    """A figure of the broker stays below `bound`, or below so many times that of `against`."""

    figure: str
    bound: float
    unit: str = ""
    against: str | None = None

    def judge(self, found: Mapping[str, Figures]) -> Verdict | None:
        if self.against is not None and self.against not in found:
            return None
        value = found["broker"][self.figure]
        if self.against is not None:
            value /= found[self.against][self.figure]
        limit = f"{self.bound:g} x {self.against}" if self.against else f"{self.bound:g} {self.unit}"
        met = value <= self.bound
        return Verdict(f"{self.figure} <= {limit}: {value:.2f}: {'met' if met else 'missed'}", met)


Reach = Outdo | Limit


@attrs.frozen
class Result:
    """One row block of the table. `rounds` has every single figure, for the JSON."""

    name: str
    figures: Mapping[str, Figures]
    reaches: Sequence[Reach] = ()
    note: str = ""
    rounds: Mapping[str, Sequence[Figures]] = attrs.field(factory=dict)

    @property
    def verdicts(self) -> list[Verdict]:
        return [verdict for reach in self.reaches if (verdict := reach.judge(self.figures)) is not None]


Round = Callable[[Contestant], Figures]


def take_turns(contestants: Sequence[Contestant], scale: Scale, job: Round) -> dict[str, list[Figures]]:
    """The rounds, the contestants one after the other in each, so that a busy minute falls on all of them."""
    if scale.warm:
        for contestant in contestants:
            for _ in range(WARM_UPS.get(contestant.name, 1)):
                job(contestant)
    found: dict[str, list[Figures]] = {contestant.name: [] for contestant in contestants}
    for _ in range(scale.rounds):
        for contestant in contestants:
            found[contestant.name].append(job(contestant))
    return found


def result(name: str, rounds: Mapping[str, Sequence[Figures]], reaches: Sequence[Reach] = (), note: str = "") -> Result:
    """The medians of the rounds, figure by figure."""
    medians = {
        contestant: {key: statistics.median(one[key] for one in all_) for key in all_[0]}
        for contestant, all_ in rounds.items()
    }
    return Result(name, medians, reaches, note, rounds)


class Workshop(contextlib.ExitStack):
    """A folder to work in, with an authority whose certificates all contestants use.

    Contestants are started when they are first wanted, and run until the workshop is left: one that has nothing to do
    costs the others nothing.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], *, profiled: bool = False) -> None:
        """With `profiled`, brokers run under cProfile, and what they did is in `profiles` once they have ended."""
        super().__init__()
        self.folder, self.say = folder, say
        self.profiles: list[Path] = []
        self._profiled = profiled
        self._home = make_home(folder / "home")
        self.secrets = issue(self._home, folder / "secrets", APP_ID)
        self.far_secrets = issue(self._home, folder / "far-secrets", FAR_APP_ID)
        self._running: dict[tuple[str, tuple[str, ...]], Contestant | None] = {}

    def contestants(self, *names: str, options: tuple[str, ...] = ()) -> list[Contestant]:
        """Those of them that can run on this machine; the broker with these options of `serve`."""
        found = [self._kept(name, options if name == "broker" else ()) for name in names]
        return [one for one in found if one is not None]

    def _kept(self, name: str, options: tuple[str, ...]) -> Contestant | None:
        if (name, options) not in self._running:
            try:
                self._running[name, options] = self.enter_context(self.fresh(name, options))
            except Unavailable as error:
                if name == "broker":
                    raise
                self.say(f"without {name}: {error}")
                self._running[name, options] = None
        return self._running[name, options]

    def fresh(self, name: str, options: tuple[str, ...] = ()) -> contextlib.AbstractContextManager[Contestant]:
        """A contestant of its own. Each broker has a copy of the home: the same keys, and nobody else's sessions."""
        if name != "broker":
            return reference(name, self.secrets)
        home = self.copied_home()
        if not self._profiled:
            return broker(home, self.secrets, *options)
        self.profiles.append(home.parent / "profile")
        return broker(home, self.secrets, *options, profile=self.profiles[-1])

    def copied_home(self) -> Path:
        """A home with the same authority and no broker on it."""
        return shutil.copytree(self._home, Path(tempfile.mkdtemp(dir=self.folder)) / "home")
