"""Sessions end when their certificates do. One timer for all of them, set to the next end.

A session that was renewed, or resumed with another certificate, is noted again; what was noted before is found to be
out of date when its turn comes.
"""

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final
from weakref import ref

from rsocket_broker.moments import utc_now
from rsocket_broker.routing.session import Session

LONGEST_SLEEP: Final = 30.0
"""Seconds between two looks: the clock of the machine may be set, or stand still while it sleeps."""
SLACK: Final = 1024
"""Ends of sessions that have gone, kept beside those to come: they are cleared when they are the most."""
TICK: Final = timedelta(seconds=1)
"""A certificate is good through the second in which it ends."""

_log = logging.getLogger(__name__)


class Expiry:
    """One per broker, on its event loop."""

    def __init__(
        self,
        end: Callable[[Session, str], object],
        sessions: Callable[[], Iterable[Session]],
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """`end` ends a session, with a reason. `sessions` are those that are there."""
        self._end = end
        self._sessions = sessions
        self._clock = clock
        self._order = itertools.count()
        self._due: list[tuple[datetime, int, ref[Session]]] = []
        self._live = 0
        """Sessions at the last clearing."""
        self._timer: asyncio.TimerHandle | None = None
        self._rings: datetime | None = None
        self._stopped = False

    def watch(self, session: Session) -> None:
        """A session was let in, or has another certificate now. Those below another end with that."""
        if session.is_child or self._stopped or not session.identity.principal.certified:
            return
        self._note(session)
        if len(self._due) > 2 * self._live + SLACK:
            self._clear()
        if self._rings is None or self._due[0][0] < self._rings:
            self._set_timer()

    def stop(self) -> None:
        """Nothing is ended any more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _note(self, session: Session) -> None:
        heapq.heappush(self._due, (session.identity.not_after + TICK, next(self._order), ref(session)))

    def _clear(self) -> None:
        """Keeps what is noted of the sessions that are there."""
        here = [one for one in self._sessions() if not one.is_child and one.identity.principal.certified]
        self._due = [(one.identity.not_after + TICK, next(self._order), ref(one)) for one in here]
        heapq.heapify(self._due)
        self._live = len(here)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._rings = None
        if self._due and not self._stopped:
            self._rings = self._due[0][0]
            wait = min(max(0.0, (self._rings - self._clock()).total_seconds()), LONGEST_SLEEP)
            self._timer = asyncio.get_running_loop().call_later(wait, self._look)

    def _look(self) -> None:
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            session = heapq.heappop(self._due)[2]()
            if session is None or session.connection.closing is not None:
                continue
            if session.identity.not_after + TICK <= now:
                _log.info("%s (%s) ends with its certificate", session.id, session.identity.principal)
                self._end(session, f"its certificate ended on {session.identity.not_after:%Y-%m-%d %H:%M} UTC")
        self._set_timer()
