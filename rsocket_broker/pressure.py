"""Who stalls whom: a peer that is slow to read, and the connections whose peers bring what waits for it.

Two connections are joined by what is passed on between their peers. When one peer reads slowly, the other is no longer
read from, so that its own network tells it to wait: that is what back-pressure is. But it holds up everything else
that this other peer sends, and a peer that stops reading altogether could so bring others to a standstill. Therefore:

1. A feeder is paused only when it brings something while the slow peer is behind, and each time for at most
   FEEDER_PAUSE: with a peer that reads, however slowly, the pauses are as short as its buffer is small.
2. A feeder that has been paused that long is not paused again for the same peer until that peer has caught up. What
   it brings in the meantime is queued, up to RELAY_QUEUE.
3. What comes beyond that costs the stream that it came on, and nothing else: not the connection of the slow peer, not
   that of the feeder, and not their other streams.

Streams with credit hardly come this far: a consumer that asks for what it can take has no more than that in its queue.

A peer may also have to wait for itself: while all lines of its identity hold as much as they may (see `quota`), those
that would add to it are not read from, for ROOM_PAUSE at most.
"""

import asyncio
from collections.abc import Callable
from typing import Final

FEEDER_PAUSE: Final = 0.5
"""Seconds for which a connection may go unread for the sake of one slow peer. Longer than a collector's pause or a
retransmission; far shorter than any timeout of the calls that share the connection."""

RELAY_QUEUE: Final = 4 * 1024 * 1024
"""Bytes that may wait for a peer when another client's frame is to be added to them: eight times the mark at which
its feeders are paused, and a small part of `Limits.outgoing`, so that relaying alone never costs a connection."""

ROOM_PAUSE: Final = 5.0
"""Seconds for which a connection may go unread until its identity's quota has room. What a message of 60 MB takes over
a slow network, and less than clients wait for answers to their keepalives."""


class Pressure:
    """One connection's part in it: as the slow one, and as a feeder."""

    __slots__ = (
        "_clock",
        "_crowded",
        "_feeders",
        "_held",
        "_held_since",
        "_reconsider",
        "_since",
        "_slow",
        "_spared",
        "_sparing",
        "_stalled",
        "name",
    )

    def __init__(self, clock: Callable[[], float], reconsider: Callable[[], None]) -> None:
        """`reconsider` is called when `held` has changed."""
        self.name = ""
        """For people: who the peer is."""
        self._clock = clock
        self._reconsider = reconsider
        self._since: float | None = None
        self._stalled = 0.0
        self._held_since: float | None = None
        self._held = 0.0
        self._feeders: dict[Pressure, asyncio.TimerHandle] = {}
        """Paused for our peer's sake."""
        self._spared: dict[Pressure, None] = {}
        """Have been paused long enough while our peer does not read."""
        self._slow: dict[Pressure, None] = {}
        """Those for whose peers' sake we are paused."""
        self._crowded: asyncio.TimerHandle | None = None
        """There is no room for what the peer sends; this rings when that has gone on for too long."""
        self._sparing: dict[Pressure, None] = {}
        """Those that have us among their `_spared`."""

    @property
    def stalled_seconds(self) -> float:
        """How long, in all, the peer kept us from writing."""
        return self._stalled + (0.0 if self._since is None else self._clock() - self._since)

    @property
    def held_seconds(self) -> float:
        """How long, in all, the peer was not read from for the sake of slower ones that it feeds."""
        return self._held + (0.0 if self._held_since is None else self._clock() - self._held_since)

    @property
    def held(self) -> bool:
        """Whether the peer is not to be read from now."""
        return bool(self._slow) or self._crowded is not None

    @property
    def held_by(self) -> list[str]:
        """The names of those for whose sake the peer is not read from now."""
        return [slow.name for slow in self._slow]

    @property
    def feeders(self) -> list[str]:
        """The names of those that feed the peer more than it reads, now or since it fell behind."""
        return [feeder.name for feeder in (*self._feeders, *self._spared)]

    def begin(self) -> None:
        """The peer is behind in reading."""
        if self._since is None:
            self._since = self._clock()

    def end(self) -> None:
        """The peer has caught up, or is gone: nobody waits for it any more."""
        if self._since is not None:
            self._stalled += self._clock() - self._since
            self._since = None
        for spared in self._spared:
            del spared._sparing[self]
        self._spared.clear()
        for feeder in tuple(self._feeders):
            self._release(feeder)

    def hold(self, feeder: "Pressure") -> None:
        """Our peer is behind, and `feeder` has brought more for it."""
        if self._since is None or feeder is self or feeder in self._feeders or feeder in self._spared:
            return
        self._feeders[feeder] = asyncio.get_running_loop().call_later(FEEDER_PAUSE, self._spare, feeder)
        feeder._slow[self] = None
        feeder._look_again()

    def crowd(self, give_up: Callable[[], None]) -> None:
        """There is no room for what the peer sends. `give_up` is called if that goes on for too long."""
        if self._crowded is None:
            self._crowded = asyncio.get_running_loop().call_later(ROOM_PAUSE, give_up)
            self._look_again()

    def relax(self) -> None:
        """There is room again."""
        if self._crowded is not None:
            self._crowded.cancel()
            self._crowded = None
            self._look_again()

    def close(self) -> None:
        """The connection has ended."""
        self.end()
        self.relax()
        for sparing in self._sparing:
            del sparing._spared[self]
        self._sparing.clear()
        for slow in tuple(self._slow):
            slow._release(self)

    def _spare(self, feeder: "Pressure") -> None:
        self._spared[feeder] = feeder._sparing[self] = None
        self._release(feeder)

    def _release(self, feeder: "Pressure") -> None:
        self._feeders.pop(feeder).cancel()
        del feeder._slow[self]
        feeder._look_again()

    def _look_again(self) -> None:
        """Tells whether the peer is to be read from, if that has changed."""
        if self.held and self._held_since is None:
            self._held_since = self._clock()
            self._reconsider()
        elif not self.held and self._held_since is not None:
            self._held += self._clock() - self._held_since
            self._held_since = None
            self._reconsider()
