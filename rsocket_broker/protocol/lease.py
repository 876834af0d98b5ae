"""How many requests a side may send, and when (RSocket 1.0, "LEASE Frame", "Lease Semantics"). Times in seconds.

The client's SETUP says whether leases hold, and then they hold for both sides: each lets the other ask so much in each
period, and asks nothing before it was let.
"""

from typing import Any, Final

from rsocket_broker.errors import Rejected
from rsocket_broker.protocol.codes import MAX_31, ErrorCode, Interaction
from rsocket_broker.protocol.events import Event, LeaseReceived, SetupReceived
from rsocket_broker.protocol.frames import lease, read_lease
from rsocket_broker.protocol.limits import Limits
from rsocket_broker.protocol.line import Handler
from rsocket_broker.protocol.runs import Runs
from rsocket_broker.protocol.states import ConnectionState

VALIDITY: Final = 1.5
"""A lease is valid for so many periods, and a new one is sent after each: one that is late by half a period stops
nobody."""
GRACE: Final = 2.0
"""A request may be so long on its way: the peer counts from when the lease reached it, and we from when it left."""
_REQUESTS: Final = frozenset(map(int, Interaction))
_ESTABLISHED: Final = frozenset({ConnectionState.SERVING, ConnectionState.JOINED})
_GRANTING: Final = _ESTABLISHED | {ConnectionState.JOINING}


class Grant:
    """What we let the peer ask: `number` requests in each period."""

    __slots__ = ("_expires", "_left", "_number", "_period", "due")

    def __init__(self, number: int, period: float, now: float) -> None:
        self._number = number
        self._period = period
        self._left = 0
        self._expires = now
        self.due = now
        """When the next lease is to be sent."""

    def renew(self, now: float) -> bytes:
        """The LEASE to send. What is left of the one before may be on its way to us, and is honoured too."""
        self._left = self._number + min(self._left, self._number)
        self.due = now + self._period
        valid = self._period * VALIDITY
        self._expires = now + valid + GRACE
        return lease(max(1, min(int(valid * 1000), MAX_31)), self._number)

    def spend(self, now: float) -> bool:
        """A request has come. False when it may not."""
        if self._left < 1 or now >= self._expires:
            return False
        self._left -= 1
        return True


class Allowance:
    """What the peer lets us ask."""

    __slots__ = ("_left", "_until")

    def __init__(self) -> None:
        self._left = 0
        self._until = 0.0

    def granted(self, ttl_ms: int, number: int, now: float) -> None:
        """A LEASE has come. It takes the place of the one before."""
        self._left = number if ttl_ms else 0
        self._until = now + ttl_ms / 1000

    def revoke(self) -> None:
        """The line is another one: leases do not carry over."""
        self._left = 0

    def left(self, now: float) -> int:
        """How many requests may be sent now."""
        if now >= self._until:
            self._left = 0
        return self._left

    def spend(self) -> bool:
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Leasing(Runs):
    """Leases of both sides. `Protocol` is the class to use."""

    def __init__(self, limits: Limits, state: ConnectionState, now: float) -> None:
        super().__init__(limits, state, now)
        self._grant: Grant | None = None
        self._allowance: Allowance | None = None

    @property
    def leased(self) -> bool:
        """Whether leases hold on this connection."""
        return self._allowance is not None

    def may_request(self, now: float) -> bool:
        """Whether a request may be sent now, as far as leases go."""
        return self._allowance is None or self._allowance.left(now) > 0

    def next_timer(self) -> float | None:
        when = super().next_timer()
        if self._grant is None or self._state not in _GRANTING:
            return when
        return self._grant.due if when is None else min(when, self._grant.due)

    def handle_timer(self, now: float) -> list[Event]:
        if self._grant is not None and self._state in _GRANTING and now >= self._grant.due:
            self._send(self._grant.renew(now))
        return super().handle_timer(now)

    def _established(self, setup: SetupReceived) -> None:
        super()._established(setup)
        if setup.lease:
            self._begin_leases()

    def _begin_leases(self) -> None:
        """From now on leases hold, and the peer gets its first."""
        self._grant = Grant(self.limits.lease_requests, self.limits.lease_period, self._now)
        self._allowance = Allowance()
        self._send(self._grant.renew(self._now))

    def _spend_allowance(self) -> None:
        """We are about to send a request. Raises Rejected when the peer has not let us."""
        if self._allowance is not None and not self._allowance.spend():
            raise Rejected("the peer's lease allows no request at present")

    def _on_lease(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> None:
        ttl_ms, number = read_lease(data, begin, end)
        if not stream_id and self._allowance is not None:
            self._allowance.granted(ttl_ms, number, self._now)
            self._events.append(LeaseReceived(ttl_ms, number))

    def _is_within_lease(self, stream_id: int) -> bool:
        """Counts a request of the peer. If it may not be sent, the peer is told."""
        if self._grant is None or self._grant.spend(self._now):
            return True
        if self._may_open(stream_id):
            self._refuse(stream_id, ErrorCode.REJECTED, "the lease does not allow this request")
        return False

    def _enter(self, state: ConnectionState) -> None:
        super()._enter(state)
        if self._grant is not None:
            self.answer_at_once = None  # every request is counted, each on its own
            if state in _ESTABLISHED:
                handlers = enumerate(self._dispatch)
                self._dispatch = tuple(_counted(one) if kind in _REQUESTS else one for kind, one in handlers)


def _counted(handler: Handler) -> Handler:
    """`handler` of a request, for a connection with leases."""

    def count(self: Any, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> int | None:
        return handler(self, stream_id, flags, data, begin, end) if self._is_within_lease(stream_id) else None

    return count
