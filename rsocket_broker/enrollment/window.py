"""The provisioning window: enrolment is possible for a time, or for so many apps, and then no more.

Only counting: time (seconds, of a clock that never jumps) is an argument, and nothing is opened or closed here.

    open  --time over, last certificate issued, closed by hand-->  closed      and never open again
"""

import attrs

from rsocket_broker.durations import SHAPE
from rsocket_broker.errors import ConfigurationError

MAX_USES = 1_000_000
"""More is no bound at all."""


@attrs.define(slots=True, kw_only=True)
class Window:
    """One window, from its opening on. `uses` None lets in as many as come within the time.

    An enrolment takes a place when it begins and gives it back when it fails, so that those under way and those done
    are together never more than `uses`, however many come at once. A place is used up by the certificate: whether
    that is delivered as well is not asked, since a bound on certificates is what was wanted.
    """

    until: float
    uses: int | None = None
    issued: int = 0
    under_way: int = 0
    shut: bool = False

    @classmethod
    def opened(cls, now: float, seconds: float, uses: int | None) -> "Window":
        """Raises ConfigurationError for no time, or no uses, at all."""
        if seconds <= 0:
            raise ConfigurationError(f"a window is open for some time: {SHAPE}.")
        if uses is not None and not 0 < uses <= MAX_USES:
            raise ConfigurationError(f"a window is for 1 to {MAX_USES} enrolments.")
        return cls(until=now + seconds, uses=uses)

    @property
    def used_up(self) -> bool:
        return self.uses is not None and self.issued >= self.uses

    def is_open(self, now: float) -> bool:
        """Whether an enrolment may begin, if there is a place."""
        return not self.shut and not self.used_up and now < self.until

    def has_place(self) -> bool:
        """Whether not all the places are used or held by enrolments that are under way."""
        return self.uses is None or self.issued + self.under_way < self.uses

    def begin(self, now: float) -> bool:
        """Takes a place; False where the window is closed, or has none at the moment."""
        if not self.is_open(now) or not self.has_place():
            return False
        self.under_way += 1
        return True

    def end(self, *, issued: bool) -> None:
        """An enrolment that began is over, its certificate issued or not. It may end long after the window."""
        self.under_way -= 1
        self.issued += issued

    def close(self) -> None:
        """No enrolment begins any more; those under way go on."""
        self.shut = True
