"""The phases in which one generation of the authority takes another's place. Pure: a table, and what follows from it.

    steady ──prepare──> prepared ──switch──> switched ──finish──> steady, one generation on
       ^                 │    ^                 │
       └────rollback─────┘    └────rollback─────┘

In `prepared` the old generation still signs, and the new one is made known. In `switched` the new one signs. In both
each is trusted, so a step back from `switched` refuses nobody; only `finish` and the rollback of `prepared` drop one.
"""

import enum
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

import attrs

from rsocket_broker.errors import AuthorityError


class Phase(enum.Enum):
    STEADY = "steady"
    PREPARED = "prepared"
    SWITCHED = "switched"


class Step(enum.Enum):
    PREPARE = "prepare"
    SWITCH = "switch"
    FINISH = "finish"
    ROLLBACK = "rollback"


TABLE: Mapping[tuple[Phase, Step], Phase] = MappingProxyType(
    {
        (Phase.STEADY, Step.PREPARE): Phase.PREPARED,
        (Phase.PREPARED, Step.SWITCH): Phase.SWITCHED,
        (Phase.PREPARED, Step.ROLLBACK): Phase.STEADY,
        (Phase.SWITCHED, Step.FINISH): Phase.STEADY,
        (Phase.SWITCHED, Step.ROLLBACK): Phase.PREPARED,
    }
)
"""Every step that there is. What is not here is refused."""

_REFUSED: Mapping[tuple[Phase, Step], str] = MappingProxyType(
    {
        (Phase.STEADY, Step.SWITCH): "Nothing is prepared. Run: rsocket-broker ca rotate prepare",
        (Phase.STEADY, Step.FINISH): "No rotation is under way. Begin one: rsocket-broker ca rotate prepare",
        (Phase.STEADY, Step.ROLLBACK): "No rotation is under way, so there is nothing to take back.",
        (Phase.PREPARED, Step.PREPARE): "A rotation is prepared already. Go on: rsocket-broker ca rotate switch",
        (Phase.PREPARED, Step.FINISH): "The new generation does not sign yet. Run: rsocket-broker ca rotate switch",
        (Phase.SWITCHED, Step.PREPARE): "A rotation is under way. End it: rsocket-broker ca rotate finish",
        (Phase.SWITCHED, Step.SWITCH): "The new generation signs already. Go on: rsocket-broker ca rotate finish",
    }
)


@attrs.frozen(slots=True)
class Rotation:
    """Where a home stands. `current` is the generation that signs; `next` exists in `prepared` only, `previous` in
    `switched` only. `since` is when the phase began, aware and in UTC."""

    phase: Phase
    current: int
    since: datetime
    next: int | None = None
    previous: int | None = None

    @property
    def other(self) -> int | None:
        """The generation that is trusted beside the current one."""
        return self.next if self.phase is Phase.PREPARED else self.previous

    @property
    def trusted(self) -> tuple[int, ...]:
        """The generations whose certificates are accepted, the newest first."""
        return tuple(sorted(filter(None, (self.current, self.other)), reverse=True))

    def accepts(self, generation: int) -> bool:
        """Whether certificates of this generation are accepted."""
        return generation in (self.current, self.next, self.previous)

    def check(self, step: Step) -> None:
        """Raises AuthorityError, which names the step to take instead, unless `step` is one of this phase."""
        if (self.phase, step) not in TABLE:
            raise AuthorityError(_REFUSED[self.phase, step])

    def dropped_by(self, step: Step) -> int | None:
        """The generation that `step` would drop; None when both stay."""
        return self.other if TABLE.get((self.phase, step)) is Phase.STEADY else None

    def after(self, step: Step, now: datetime, made: int | None = None) -> "Rotation":
        """Where the home stands after `step`. `made` is the number of the generation that `prepare` made.

        Raises AuthorityError when the phase has no such step.
        """
        self.check(step)
        match step:
            case Step.PREPARE:
                assert made is not None
                return Rotation(Phase.PREPARED, self.current, now, next=made)
            case Step.SWITCH:
                assert self.next is not None
                return Rotation(Phase.SWITCHED, self.next, now, previous=self.current)
            case Step.ROLLBACK if self.phase is Phase.SWITCHED:
                assert self.previous is not None
                return Rotation(Phase.PREPARED, self.previous, now, next=self.current)
            case Step.FINISH | Step.ROLLBACK:
                return Rotation(Phase.STEADY, self.current, now)
