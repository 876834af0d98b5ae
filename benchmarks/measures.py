"""What a measure is: figures of each contestant by name, reaches that they are held to, and rounds that take turns."""

import contextlib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
from servers import Contestant, Unavailable, broker, issue, make_home, reference

Figures = Mapping[str, float]
"""One contestant's figures: `rate` (operations a second), `cpu` (microseconds of server CPU for each), `p50` and `p99`
(milliseconds), `kib` (KiB for each session), `mb` (MB), `seconds`, `resumed` (a share),
`refused` (how many)."""

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
class AtLeast:
    """The broker does `factor` times what `against` does: by rate, and by work for the same server CPU."""

    factor: float
    against: str
    figures: tuple[str, ...] = ("cpu", "rate")

    def judge(self, found: Mapping[str, Figures]) -> Verdict | None:
        if self.against not in found:
            return None
        ours, theirs = found["broker"], found[self.against]
        ratios = {
            name: theirs[name] / ours[name] if name == "cpu" else ours[name] / theirs[name] for name in self.figures
        }
        shown = ", ".join(f"{ratio:.2f} by {name}" for name, ratio in ratios.items())
        met = [name for name, ratio in ratios.items() if ratio >= self.factor]
        word = "met" if len(met) == len(ratios) else f"met by {met[0]} only" if met else "missed"
        return Verdict(f">= {self.factor:g} x {self.against}: {shown}: {word}", len(met) == len(ratios))


@attrs.frozen
class AtMost:
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


Reach = AtLeast | AtMost


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


@attrs.define
class Workshop:
    """A folder to work in, with an authority whose certificates all contestants use."""

    folder: Path
    say: Callable[[str], None]
    home: Path = attrs.field(init=False)
    secrets: Path = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.home = make_home(self.folder / "home")
        self.secrets = self.folder / "secrets"

    def secrets_for(self, app_id: str) -> Path:
        """The certificates of a further app, made when they are first wanted."""
        folder = self.folder / app_id
        return folder if folder.exists() else issue(self.home, folder, app_id)

    @contextlib.contextmanager
    def contestants(self, *names: str, options: Sequence[str] = ()) -> Iterator[list[Contestant]]:
        """Those of them that can run on this machine; the broker with these options of `serve`.

        The broker runs first whenever the certificates are still to be made.
        """
        with contextlib.ExitStack() as stack:
            found = []
            for name in names:
                try:
                    found.append(stack.enter_context(self._one(name, options)))
                except Unavailable as error:
                    if name == "broker":
                        raise
                    self.say(f"without {name}: {error}")
            yield found

    def _one(self, name: str, options: Sequence[str]) -> contextlib.AbstractContextManager[Contestant]:
        return broker(self.home, self.secrets, *options) if name == "broker" else reference(name, self.secrets)
