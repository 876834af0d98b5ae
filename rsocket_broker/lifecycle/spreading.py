"""Brings every client what a phase of a rotation, or the age of its certificate, asks for, and goes on doing so.

Sessions of our SDK are told over their lines; containers are reached by their drivers. What cannot be reached now is
tried again: when its session comes, when its device is back, and from time to time.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from datetime import datetime
from weakref import WeakKeyDictionary

from rsocket_broker.authority import Authority
from rsocket_broker.enrollment.containers import Containers, Kept, Sighting, digest, next_try
from rsocket_broker.lifecycle.pushing import Pusher
from rsocket_broker.lifecycle.renewal import Need, Renewer
from rsocket_broker.lifecycle.spreader import Informed, Outcome, Spread, Which
from rsocket_broker.routing.session import Session

AT_ONCE = 16
"""Clients that are seen to at the same time: each may cost a signature, a device's time, or a wait for an answer."""

LOOK_S = 60.0
"""Seconds from one look for what is due to the next. Certificates live for days."""
GATHER_S = 0.5
"""Seconds in which new sessions are gathered, so that ten thousand that come together cost twenty looks into the
database and not ten thousand."""

log = logging.getLogger(__name__)

Work = Callable[[], Coroutine[object, object, Spread | None]]


class ClientSpreader:
    """`lifecycle.spreader.Spreader`, and the renewals of every day. `sessions` gives the live ones; see `run`."""

    def __init__(
        self,
        authority: Authority,
        containers: Containers,
        renewer: Renewer,
        pusher: Pusher,
        sessions: Callable[[], Iterable[Session]],
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._authority = authority
        self._containers = containers
        self._renewer = renewer
        self._pusher = pusher
        self._sessions = sessions
        self._now = now
        self._came: dict[str, Session] = {}
        """Sessions that have come, or come back, and may have missed something, by their ids."""
        self._unseen: dict[str, Session] = {}
        """Those of which nothing is written down yet."""
        self._later: dict[str, tuple[Session, datetime]] = {}
        """Those that could not be told something, and since when they may be told again, by their ids."""
        self._failures: WeakKeyDictionary[Session, int] = WeakKeyDictionary()
        """How often in a row a session was reached in vain. Each time may have cost a certificate."""
        self._anyone = asyncio.Event()
        self._wake = asyncio.Event()

    # --- as a Spreader -----------------------------------------------------------------------------------------------

    async def spread_trust(self) -> AsyncGenerator[Spread, None]:
        """See `Spreader.spread_trust`."""
        wanted = digest(self._authority.trust_pem)
        live, kept = await self._known()
        work: list[Work] = []
        for session in live:
            held = kept.get(session.identity.serial)
            if held is None or held.trust != wanted:
                work.append(_of(self._tell, session, self._pusher.trust))
        stale = await asyncio.to_thread(self._renewer.stale, waiting=True)
        work += [_of(self._renewer.bring, each, Need(trust=True)) for each in stale if not each.knows_one_anchor]
        async with contextlib.aclosing(_each(work)) as spreads:
            async for spread in spreads:
                yield spread

    async def spread_pairs(self, which: Which) -> AsyncGenerator[Spread, None]:
        """See `Spreader.spread_pairs`."""
        work: list[Work] = []
        await self._note_seen()  # or a WebSocket app that has just come would be taken for another
        stale = await asyncio.to_thread(self._renewer.stale, waiting=True)
        if which is Which.WEB:
            work = [_of(self._renewer.bring, each) for each in stale if each.knows_one_anchor]
        else:
            live = [each for each in self._sessions() if self._pusher.can(each)]
            late = [each for each in live if each.identity.generation != self._authority.generation]
            work = [_of(self._tell, session, self._pusher.certificate) for session in late]
            work += [_of(self._renewer.bring, each) for each in stale]
        async with contextlib.aclosing(_each(work)) as spreads:
            async for spread in spreads:
                yield spread

    async def informed(self) -> Informed:
        """See `Spreader.informed`."""
        authority = self._authority
        wanted = {digest(authority.trust_pem), digest(authority.web_trust_pem)}
        return Informed(*await asyncio.to_thread(self._containers.informed, self._now(), sorted(wanted)))

    async def _known(self) -> tuple[list[Session], dict[int, Kept]]:
        """The live sessions that can be told, and what is kept of their containers."""
        await self._note_seen()
        live = [session for session in self._sessions() if self._pusher.can(session)]
        serials = [session.identity.serial for session in live]
        return live, await asyncio.to_thread(self._containers.by_serial, serials)

    # --- every day ---------------------------------------------------------------------------------------------------

    def came(self, session: Session) -> None:
        """A session has been let in, has come back, or has another certificate now."""
        if not session.is_child and session.identity.principal.certified:
            self._came[session.id] = self._unseen[session.id] = session
            self._anyone.set()

    def live_serials(self) -> Collection[int]:
        """The certificates whose holders are connected and renew over their sessions."""
        return {each.identity.serial for each in self._sessions() if self._pusher.can(each)}

    async def reachable(self, mediums: Collection[str]) -> None:
        """What these drivers could not reach may be back."""
        await asyncio.to_thread(self._containers.retry_now, mediums)
        self._wake.set()

    async def run(self) -> None:
        """Sees to newcomers and to what is due, until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._see_to_newcomers(), name="newcomers")
            tasks.create_task(self._see_to_what_is_due(), name="renewals")

    async def _see_to_newcomers(self) -> None:
        while True:
            await self._anyone.wait()
            await asyncio.sleep(GATHER_S)
            await _unharmed(self._catch_up())

    async def _catch_up(self) -> None:
        """What has changed while they were away."""
        self._anyone.clear()
        newcomers, self._came = self._came.values(), {}
        await self._note_seen()
        able = [session for session in newcomers if self._pusher.can(session) and session.connection.closing is None]
        kept = await asyncio.to_thread(self._containers.by_serial, [each.identity.serial for each in able])
        wanted, generation = digest(self._authority.trust_pem), self._authority.generation
        work: list[Work] = []
        for session in able:
            held = kept.get(session.identity.serial)
            if session.identity.generation != generation:
                work.append(_of(self._tell, session, self._pusher.certificate))
            elif held is None or held.trust != wanted:
                work.append(_of(self._tell, session, self._pusher.trust))
        await _all(work)

    async def _tell(self, session: Session, push: Callable[[Session], Awaitable[Spread | None]]) -> Spread | None:
        spread = await push(session)
        if spread is None or spread.outcome is Outcome.DONE:
            self._failures.pop(session, None)
        elif session.connection.closing is None:
            self._later[session.id] = session, self._when_again(session, spread.outcome)
        return spread

    def _when_again(self, session: Session, outcome: Outcome) -> datetime:
        if outcome is Outcome.LATER:
            return self._now()
        failures = self._failures.get(session, 0)
        self._failures[session] = failures + 1
        return next_try(failures, self._now())

    async def _note_seen(self) -> None:
        """Write down on which ports newcomers were seen, and whether they renew over their sessions."""
        unseen, self._unseen = self._unseen.values(), {}
        if unseen:
            seen = {
                each.identity.serial: Sighting(each.connection.peer.channel.value, self._pusher.can(each))
                for each in unseen
            }
            await asyncio.to_thread(self._containers.seen, seen)

    async def _see_to_what_is_due(self) -> None:
        while True:
            await _unharmed(self._renew_due())
            self._tell_again()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            self._wake.clear()

    def _tell_again(self) -> None:
        now = self._now()
        ripe = {name: session for name, (session, due) in self._later.items() if due <= now}
        if ripe:
            self._came = ripe | self._came
            self._later = {name: each for name, each in self._later.items() if name not in ripe}
            self._anyone.set()

    async def _renew_due(self) -> None:
        await asyncio.to_thread(self._containers.expire, self._now())
        stale = await asyncio.to_thread(self._renewer.stale)
        await _all([_of(self._renewer.bring, kept) for kept in stale])


def _of(function: Callable[..., Coroutine[object, object, Spread | None]], *arguments: object) -> Work:
    return lambda: function(*arguments)


async def _each(work: Sequence[Work]) -> AsyncGenerator[Spread, None]:
    """What becomes of each, as it comes; AT_ONCE at the same time. Closing it stops what has not been begun."""
    left = iter(work)
    under_way: set[asyncio.Task[Spread | None]] = set()
    try:
        while True:
            for one in left:
                under_way.add(asyncio.ensure_future(one()))
                if len(under_way) >= AT_ONCE:
                    break
            if not under_way:
                return
            done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                spread = task.result()
                if spread is not None:
                    yield spread
    finally:
        for task in under_way:
            task.cancel()


async def _all(work: Sequence[Work]) -> None:
    async with contextlib.aclosing(_each(work)) as spreads:
        async for spread in spreads:
            if spread.outcome is Outcome.FAILED:
                log.warning("%s was not brought up to date: %s", spread.client, spread.reason)


async def _unharmed(work: Coroutine[object, object, None]) -> None:
    """One failure must not end what is done every day."""
    try:
        await work
    except Exception:
        log.exception("a look at what is to be renewed failed")
