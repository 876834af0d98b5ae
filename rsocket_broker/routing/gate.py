"""How many handlers of one plugin may be under way at once, and who waits."""

import asyncio
from collections import deque
from collections.abc import Hashable

from rsocket_broker.errors import Rejected

MAX_WAITING = 1024
"""Requests that wait for one plugin. Each may hold a large message, so there is an end to them."""
MAX_WAIT = 5.0
"""Seconds that a request waits before it is turned away: longer, and its caller has given up on it."""
RESERVE = 8
"""One place in so many is out of reach of whoever holds all the others, so that one session never shuts out the rest.
A plugin with fewer places than that keeps none back."""


class Gate:
    """A counted lock whose places are handed on in order. `owner` is whoever the place is for: a session."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._share = limit - limit // RESERVE
        self._held: dict[Hashable, int] = {}
        self._total = 0
        self._waiting: deque[tuple[Hashable, asyncio.Future[None]]] = deque()

    @property
    def held(self) -> int:
        """Places taken."""
        return self._total

    @property
    def waiting(self) -> int:
        """Who waits for a place."""
        return len(self._waiting)

    def try_enter(self, owner: Hashable) -> bool:
        """Take a place if there is one."""
        if not self._has_room(owner):
            return False
        self._take(owner)
        return True

    def enter_now(self, owner: Hashable) -> None:
        """Take a place. Raises Rejected when there is none."""
        if not self.try_enter(owner):
            raise Rejected(f'The plugin "{self._name}" is busy: {self._total} of its handlers are running.')

    async def enter(self, owner: Hashable, *, patient: bool = False) -> None:
        """Take a place, waiting for one. Raises Rejected when too many wait or it takes too long, unless `patient`."""
        if self.try_enter(owner):
            return
        if not patient and len(self._waiting) >= MAX_WAITING:
            raise Rejected(f'The plugin "{self._name}" is busy, and {MAX_WAITING} requests are waiting for it.')
        turn = asyncio.get_running_loop().create_future()
        entry = (owner, turn)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(None if patient else MAX_WAIT):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave(owner)  # the place came in the moment in which we gave up
            else:
                self._waiting.remove(entry)
            if isinstance(error, TimeoutError):
                raise Rejected(f'The plugin "{self._name}" was busy for {MAX_WAIT:g} s.') from None
            raise

    def leave(self, owner: Hashable) -> None:
        """Give a place back; the first who may have it gets it."""
        self._total -= 1
        if self._held[owner] == 1:
            del self._held[owner]
        else:
            self._held[owner] -= 1
        for entry in self._waiting:
            if self._has_room(entry[0]) and not entry[1].done():
                self._waiting.remove(entry)
                self._take(entry[0])
                entry[1].set_result(None)
                return

    def _has_room(self, owner: Hashable) -> bool:
        return self._total < self._limit and self._held.get(owner, 0) < self._share

    def _take(self, owner: Hashable) -> None:
        self._total += 1
        self._held[owner] = self._held.get(owner, 0) + 1
