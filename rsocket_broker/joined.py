"""A connection among others: requests that are passed on between peers, and who waits for whom. `Connection` is the
class to use."""

import abc
import asyncio
from collections.abc import Callable
from typing import Final, Self

from rsocket_broker.lasting import Lasting
from rsocket_broker.pressure import RELAY_QUEUE, Pressure
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.protocol.relay import Find, Relaying
from rsocket_broker.serving import Handlers

DRAIN_STEP: Final = 0.02
"""Seconds between two looks at streams that other connections end."""


class Joined(Lasting):
    """The storey that other connections see, where the protocol is a Relaying: it is the Outlet of that."""

    def __init__(self, protocol: Protocol, handlers: Handlers, clock: Callable[[], float]) -> None:
        super().__init__(protocol, handlers, clock)
        self.pressure = Pressure(clock, self._choose_reading)
        """Who stalls whom."""
        self._relaying = protocol if isinstance(protocol, Relaying) else None
        if self._relaying is not None:
            self._relaying.outlet = self

    @abc.abstractmethod
    def _choose_reading(self) -> None:
        """Reads from the peer, or does not, as things stand."""

    @property
    def bytes_waiting(self) -> int:
        """Bytes that are ready for the peer and that it has not taken."""
        transport = self._transport
        waiting = self._protocol.queued + self._protocol.retained + self._waiting
        return waiting + (0 if transport is None else transport.queued)

    @property
    def streams_waiting(self) -> int:
        """Streams on which nothing can be sent until the peer asks for more."""
        waiting = sum(not self._protocol.credit(stream_id) for stream_id in self._gates)
        return waiting + (0 if self._relaying is None else self._relaying.ways_without_credit())

    @property
    def relaying(self) -> Relaying | None:
        """The protocol, where it can pass requests on."""
        return self._relaying

    @property
    def partners(self) -> set[str]:
        """The names of the clients with which the peer has streams now: those that feed it, and those that it feeds."""
        return set() if self._relaying is None else self._relaying.partners()

    def relay(self, name: str, find: Find | None) -> None:
        """From now on the peer's requests that have an address go where `find` says; the peer is known as `name`.

        None of `find`: the peer may be sent the requests of others, and sends none.
        """
        if self._relaying is not None:
            self._relaying.name = self.pressure.name = name
            self._relaying.relay(find)

    def wake(self) -> None:
        """For Relaying: another connection has queued something here."""
        self._flush_soon()

    def make_room(self, feeder: Self, size: int) -> bool:
        """For Relaying: whether `feeder` may bring more for a peer that is slow to read. Pauses it for a while.

        For a peer that is away, too much would be the end of its session: so the frame itself counts there.
        """
        self.pressure.hold(feeder.pressure)
        if self._protocol.suspended:
            return self.bytes_waiting + size <= min(RELAY_QUEUE, self._protocol.limits.resume_bytes // 2)
        return self.bytes_waiting <= RELAY_QUEUE and self.holding.bears(size)

    def _note_pressure(self, *, behind: bool) -> None:
        if self._relaying is not None:
            self._relaying.blocked = behind
        if behind:
            self.pressure.begin()
        else:
            self.pressure.end()

    async def _drain_relays(self, timeout: float) -> None:
        """Passes no more requests of the peer on, and waits for those under way, at most `timeout` seconds."""
        relaying = self._relaying
        if relaying is None:
            return
        relaying.relay(None)
        deadline = self._loop.time() + timeout
        while relaying.relays_open and self._loop.time() < deadline:  # noqa: ASYNC110  # others end these streams
            await asyncio.sleep(DRAIN_STEP)
