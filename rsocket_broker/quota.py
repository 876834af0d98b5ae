"""What peers make us hold, in bytes, counted by who they are.

A line has budgets for each kind of thing that its peer can make it hold. A client may have many lines, and so budgets
of lines alone would be multiplied. Here they draw from one quota: all lines of one identity, those of the sessions
below it too, share a `Quota`, and all quotas share the `House`. A line counts in a `Holding`, by absolute amounts: what
it forgets to give back in one place is put right by its next word, and its end gives back everything.

    House ── Quota of an identity ── Holding of a line ── bytes, by Kind
          ── Quota of strangers (lines whose peers have not been let in), of those who prove nothing

Only what is large is counted, in steps of STEP: a call of a few bytes comes by here never.

What a quota does not bear is refused where it was asked for, with the error that the line's own budget has. Where the
peer can be made to wait instead, it is: the line is `crowded` until there is room, or its patience ends.
"""

import contextlib
import enum
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from typing import Final

from rsocket_broker.errors import Rejected

STEP: Final = 64 * 1024
"""Bytes by which an amount must change to be counted anew. Messages of everyday's size stay below it, so that they are
not slowed down; sixteen such amounts of a line are a megabyte."""
PER_IDENTITY: Final = 256 * 1024 * 1024
"""Bytes of one identity: two of the largest budgets of a line (128 MiB), so that one line alone hardly ever feels it,
and 32 sessions with 32 children together hold no more than two of them did."""
ALL: Final = 2 * 1024 * 1024 * 1024
"""Bytes of all together, up to which nobody is asked for a share: eight identities that hold all they may."""
STRANGERS: Final = 64 * 1024 * 1024
"""Bytes of all lines whose peers have not been let in, and again of all sessions that prove nothing. What honest ones
say there is shorter than a STEP, or a message or two of a page."""
MODEST: Final = 256 * 1024
"""Bytes that each identity may hold whatever the others do: what ordinary calls need."""

FULL: Final = "all lines of this client together hold as much as they may"
"""What a peer is told."""


def counted(size: int) -> int:
    """Of an amount, what counts."""
    return size if size >= STEP else 0


class Kind(enum.Enum):
    """What is held. The values are for people, and for the page of metrics."""

    FRAME = "frame"
    """A frame that has not come to its end."""
    MESSAGE = "message"
    """A message of WebSocket that has not come to its end."""
    FRAGMENTS = "fragments"
    """Messages whose fragments are still coming."""
    REQUESTS = "requests"
    """Requests that are being served and are not light."""
    WORK = "work"
    """Tasks that serve the peer, with their light requests."""
    PAYLOADS = "payloads"
    """Payloads of streams that wait for whoever reads them here."""
    OUTGOING = "outgoing"
    """What the peer has not taken."""
    RETAINED = "retained"
    """What was sent, and is kept for a peer that may come back."""
    STALLED = "stalled"
    """What was read, and waits until the peer reads."""
    EVENTS = "events"
    """Events that wait for their plugins."""
    LARGE = "large"
    """Large messages that are being read beside the loop, or wait for that."""


class Quota:
    """The bytes of one identity."""

    __slots__ = ("_crowded", "_house", "_key", "limit", "lines", "used")

    def __init__(self, house: "House", limit: int, key: Hashable = None) -> None:
        self.limit = limit
        self.used = 0
        self.lines = 0
        """Holdings that count here."""
        self._house = house
        self._key = key
        self._crowded: dict[Holding, None] = {}

    def bears(self, more: int = 0) -> bool:
        """Whether so many bytes more may be held."""
        size = self.used + more
        if size > self.limit or size <= MODEST:
            return size <= self.limit
        return self._house.bears(more, size, newcomer=self.used <= MODEST)

    def add(self, kind: Kind, by: int) -> None:
        """Counts bytes, or gives them back."""
        before, self.used = self.used, self.used + by
        self._house.add(kind, by, (self.used > MODEST) - (before > MODEST))

    def join(self) -> None:
        self.lines += 1

    def leave(self, holding: "Holding") -> None:
        self.relaxed(holding)
        self.lines -= 1
        self.end_if_idle()

    def end_if_idle(self) -> None:
        """An identity without lines is forgotten."""
        if not self.lines and self._key is not None:
            self._house.forget(self._key)

    def crowd(self, holding: "Holding") -> None:
        self._crowded[holding] = self._house.waiting[self] = None
        self._house.crowded_total += 1

    def let_in(self) -> None:
        """Those who wait for room go on, as far as there is some now, whoever has waited longest first."""
        while self._crowded:
            first = next(iter(self._crowded))
            if not self.bears(first.wanted):
                break
            first.let_in()

    def relaxed(self, holding: "Holding") -> None:
        self._crowded.pop(holding, None)
        if not self._crowded:
            self._house.waiting.pop(self, None)

    @property
    def crowded(self) -> int:
        """Lines that wait for room."""
        return len(self._crowded)


class House:
    """All quotas of one broker. Not thread-safe: it lives on the event loop."""

    def __init__(self, per_identity: int = PER_IDENTITY, most: int = ALL) -> None:
        self.per_identity = per_identity
        self.most = most
        self.used = 0
        self.by_kind: Counter[Kind] = Counter()
        self.crowded_total = 0
        """How often a line was made to wait."""
        self.strangers = Quota(self, min(STRANGERS, per_identity))
        self.unproven = Quota(self, min(STRANGERS, per_identity))
        self.waiting: dict[Quota, None] = {}
        """Those with crowded lines, whoever has waited longest first: few of thousands."""
        self._by_key: dict[Hashable, Quota] = {}
        self._holding = 0
        """Quotas that hold more than is modest."""

    def of(self, key: Hashable) -> Quota:
        """The quota of an identity. One that no line counts on any more is forgotten."""
        quota = self._by_key.get(key)
        if quota is None:
            quota = self._by_key[key] = Quota(self, self.per_identity, key)
        return quota

    def __len__(self) -> int:
        """Identities that have lines."""
        return len(self._by_key)

    @property
    def crowded(self) -> int:
        """Lines that wait for room now."""
        return sum(quota.crowded for quota in self.waiting)

    def bears(self, more: int, size: int, *, newcomer: bool) -> bool:
        """Whether one quota may hold `size` bytes, `more` than now. Up to `most` in all, anyone may; beyond, whoever
        has no more than an equal share; and no more than twice that in any case."""
        used = self.used + more
        return used <= self.most or (size * (self._holding + newcomer) <= self.most and used <= 2 * self.most)

    def add(self, kind: Kind, by: int, holding: int) -> None:
        self.used += by
        self.by_kind[kind] += by
        self._holding += holding
        if by < 0 and self.waiting:
            for quota in tuple(self.waiting):
                quota.let_in()

    def forget(self, key: Hashable) -> None:
        self._by_key.pop(key, None)


class Holding:
    """What one line holds. Without a quota it counts for itself alone, and is never refused anything."""

    __slots__ = ("_closed", "_held", "_quota", "_wanted", "changed", "crowded", "size")

    def __init__(self, quota: Quota | None = None) -> None:
        self.size = 0
        self.crowded = False
        """The peer is to wait: it is not to be read from."""
        self.changed: Callable[[], None] | None = None
        """Called when `crowded` has changed, by those who can make the peer wait."""
        self._held: dict[Kind, int] | None = None  # most lines never hold anything that counts
        self._closed = False
        self._wanted: tuple[Kind, int] | None = None
        """What is to be held as soon as there is room, while the peer waits for that."""
        self._quota = quota
        if quota is not None:
            quota.join()

    @property
    def quota(self) -> Quota | None:
        return self._quota

    def describe(self) -> dict[str, int]:
        """What is held now, by the names of its kinds, as JSON."""
        return {} if self._held is None else {kind.value: size for kind, size in self._held.items() if size}

    def held(self, kind: Kind) -> int:
        return 0 if self._held is None else self._held.get(kind, 0)

    def bears(self, more: int = 0) -> bool:
        """Whether so many bytes more may be held."""
        return self._quota is None or self._quota.bears(more)

    def note(self, kind: Kind, size: int) -> None:
        """`size` bytes are held as `kind` from now on, whether or not they should be."""
        if self._wanted is not None and self._wanted[0] is kind:
            self._wanted = None  # it has come all the same, or is wanted no more
        self.change(kind, size - self.held(kind))

    def reserve(self, kind: Kind, size: int) -> bool:
        """As `note`, unless that is more than may be held: then nothing is changed, and this is False."""
        by = size - self.held(kind)
        if by > 0 and not self.bears(by):
            return False
        self.change(kind, by)
        return True

    def change(self, kind: Kind, by: int) -> None:
        """So many bytes more are held as `kind`, or fewer: for what is held in several places of a line."""
        if not by or self._closed:
            return
        held = self._held
        if held is None:
            held = self._held = {}
        held[kind] = held.get(kind, 0) + by
        self.size += by
        if self._quota is not None:
            self._quota.add(kind, by)

    @property
    def wanted(self) -> int:
        """Bytes that the peer waits to send, where that is known."""
        return 0 if self._wanted is None else self._wanted[1] - self.held(self._wanted[0])

    @contextlib.contextmanager
    def keeping(self, kind: Kind, size: int) -> Iterator[None]:
        """So many bytes more are held as `kind` meanwhile. Raises Rejected where that is more than may be."""
        if not self.bears(size):
            raise Rejected(FULL)
        self.change(kind, size)
        try:
            yield
        finally:
            self.change(kind, -size)

    def take(self, kind: Kind, size: int, here: int | None = None) -> bool:
        """As `reserve`, for what the peer sends: where it can be made to wait, it is, and then this is True.

        `here` says how much of it is here already, and so is counted in any case; all, unless given.
        """
        if self.reserve(kind, size):
            return True
        if self.changed is None or self._quota is None:
            return False
        self.note(kind, size if here is None else here)
        self._wanted = None if here is None else (kind, size)
        if not self.crowded:
            self.crowded = True
            self._quota.crowd(self)
            self.changed()
        return True

    def let_in(self) -> None:
        """There is room for what the peer waits to send."""
        if self._wanted is not None:
            kind, size = self._wanted
            self._wanted = None  # first: to count it is no reason to look who else may be let in
            self.note(kind, size)
        self.relax()

    def relax(self) -> None:
        """The peer need not wait any more."""
        self._wanted = None
        if self.crowded:
            self.crowded = False
            if self._quota is not None:
                self._quota.relaxed(self)
            if self.changed is not None:
                self.changed()

    def belong_to(self, quota: Quota) -> None:
        """It is known whose line this is: what it holds counts there from now on."""
        if self._closed:
            quota.end_if_idle()
        if self._closed or quota is self._quota:
            return
        held = [] if self._held is None else list(self._held.items())
        self._leave()
        self._quota = quota
        quota.join()
        for kind, size in held:
            quota.add(kind, size)

    def close(self) -> None:
        """The line is gone, and nothing that it held is there any more."""
        if not self._closed:
            self._leave()
            self._closed = True
            self._held, self._quota, self.changed, self.size = None, None, None, 0

    def _leave(self) -> None:
        quota = self._quota
        if quota is None:
            return
        self.relax()
        for kind, size in ({} if self._held is None else self._held).items():
            quota.add(kind, -size)
        quota.leave(self)
