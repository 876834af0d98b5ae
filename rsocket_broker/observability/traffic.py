"""What went over the lines of each port, those that are gone included: read when somebody asks, counted by nobody else.

A connection counts its own bytes anyway. So all that is done here is to look at those that live, and to add up what
one has carried when it goes.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar
from weakref import WeakSet

import attrs

from rsocket_broker.line import Line

TURN: Final = 64
"""Connections or sessions that are looked at in one turn of the loop: less than a millisecond, at 5 to 10 microseconds
each, cold caches included. Ten thousand at once would hold up everybody for a tenth of a second."""

T = TypeVar("T")


@attrs.define(slots=True)
class Sums:
    """Totals over connections. Times in seconds; `stalled` and `held` as `Pressure` means them."""

    bytes_in: int = 0
    bytes_out: int = 0
    frames_in: int = 0
    frames_out: int = 0
    requests: int = 0
    stalled: float = 0.0
    held: float = 0.0
    resumed: int = 0
    relayed: int = 0
    relays_failed: int = 0

    def add(self, connection: Line) -> None:
        self.bytes_in += connection.bytes_in
        self.bytes_out += connection.bytes_out
        self.frames_in += connection.frames_in
        self.frames_out += connection.frames_out
        self.requests += connection.requests_served
        self.stalled += connection.pressure.stalled_seconds
        self.held += connection.pressure.held_seconds
        self.resumed += connection.times_resumed
        relaying = connection.relaying
        if relaying is not None:
            self.relayed += relaying.relayed
            self.relays_failed += relaying.relays_failed


@attrs.define(slots=True)
class Levels:
    """How it stands now."""

    connections: int = 0
    suspended: int = 0
    streams: int = 0
    waiting: int = 0
    """Bytes that are ready for peers that have not taken them."""
    relay_ends: int = 0
    """Streams that go on to another client, as each of their two ends sees them."""

    def add(self, connection: Line) -> None:
        self.connections += 1
        self.suspended += connection.suspended
        self.streams += connection.streams_open
        self.waiting += connection.bytes_waiting
        self.relay_ends += 0 if connection.relaying is None else connection.relaying.relays_open


class Traffic:
    """The connections of one port."""

    def __init__(self) -> None:
        self._live: WeakSet[Line] = WeakSet()
        self._gone = Sums()

    def follow(self, connection: Line) -> None:
        """Counts a connection from now on, to its end and beyond."""
        self._live.add(connection)
        connection.when_lost(self._lost)

    def _lost(self, connection: Line) -> None:
        self._live.discard(connection)
        self._gone.add(connection)

    async def read(self) -> tuple[Sums, Levels]:
        """One look at every connection. Whoever ends meanwhile counts once all the same."""
        sums, levels = attrs.evolve(self._gone), Levels()
        async for connection in in_turns(list(self._live)):
            sums.add(connection)
            if connection.closing is None:
                levels.add(connection)
        return sums, levels


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """`items`, letting others have the loop now and then."""
    for number, item in enumerate(items, 1):
        yield item
        if not number % TURN:
            await asyncio.sleep(0)
