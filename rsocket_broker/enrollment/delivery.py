"""Deployments into containers, from their journal entry to their end, whoever begins them: an exchange or a renewal.

Each is on the disk before the first file is touched. One that does not reach its end is settled at once, at the next
start, or when its device is back. Where it has reached it, the container is kept for renewals, in the same step.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Collection, Coroutine, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from sqlite3 import Connection
from typing import Any, Protocol, TypeVar

from rsocket_broker.audit import Audit, Event
from rsocket_broker.claims import shown
from rsocket_broker.enrollment.containers import Containers
from rsocket_broker.enrollment.journal import Journal
from rsocket_broker.enrollment.leaf import delivered
from rsocket_broker.enrollment.mediums.base import (
    Bundle,
    Container,
    JournalEntry,
    Medium,
    Outcome,
    Settled,
    StillPending,
    undelivered,
)
from rsocket_broker.enrollment.mediums.registry import Mediums
from rsocket_broker.enrollment.securing import Securing
from rsocket_broker.enrollment.throttle import EnrollmentLimits, Turns

SECURED_S = 10.0
"""Seconds that somebody waits for a deployment to be on the disk before going on without. A busy disk takes one."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class _Put(Protocol):
    """`deploy` or `place` of a driver."""

    async def __call__(self, container: Container, bundle: Bundle, /) -> None: ...


class Delivery:
    """The deployments of one broker. Lives on the event loop."""

    def __init__(
        self,
        mediums: Mediums,
        journal: Journal,
        containers: Containers,
        limits: EnrollmentLimits,
        *,
        now: Callable[[], datetime],
        audit: Audit,
        arrived: Callable[[Connection, int], object],
    ) -> None:
        """`arrived` is told the serial number of each certificate that has reached its place, in the transaction that
        records it, on whatever thread."""
        self.mediums = mediums
        self.journal = journal
        self.containers = containers
        self.turns = Turns(limits)
        self._limits = limits
        self._now = now
        self._audit = audit
        self._arrived = arrived
        self._unfinished: set[asyncio.Task[Any]] = set()
        self._ending: dict[Hashable, tuple[int, asyncio.Event]] = {}
        """By container: what has been put there, and is on its way to the disk."""
        self._securing = Securing(self._secured, self.keep)

    def keep(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """The work as a task that `drain` waits for, and that is not lost while nobody else holds on to it."""
        task = asyncio.ensure_future(work)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        return task

    def alone(self, container: Container) -> AbstractAsyncContextManager[None]:
        """Nothing else is put into `container` meanwhile. Raises EnrollmentRefused when the wait is too long."""
        return self.turns.alone(_key(container))

    async def deploy(self, driver: Medium, entry: JournalEntry) -> None:
        """Put what the app has asked for in place. Raises EnrollmentRefused (step "deploy")."""
        await self._put(driver, entry, driver.deploy)

    async def place(self, driver: Medium, entry: JournalEntry) -> None:
        """As `deploy`, where no app has asked."""
        await self._put(driver, entry, driver.place)

    async def _put(self, driver: Medium, entry: JournalEntry, put: _Put) -> None:
        try:
            async with asyncio.timeout(self._limits.deploy_s):
                await put(entry.container, entry.bundle)
        except Exception as error:
            if await self._settle(driver, entry) is Outcome.FINISHED:
                return
            if isinstance(error, TimeoutError):
                raise undelivered("it took too long.", "Check that the device answers, and try again.") from None
            raise
        if driver.secures_later:
            self._ending[_key(entry.container)] = entry.number, asyncio.Event()
            self._securing.add(driver, entry)
        else:
            await asyncio.to_thread(self._end, entry)

    async def secured(self, container: Container) -> None:
        """Returns when what was put into `container` last is on the disk and kept, or there is no hope that it will."""
        _number, event = self._ending.get(_key(container), (0, None))
        if event is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SECURED_S):
                    await event.wait()

    async def _secured(self, *entries: JournalEntry) -> None:
        try:
            await asyncio.to_thread(self._end, *entries)
        finally:
            for entry in entries:
                number, event = self._ending.get(_key(entry.container), (0, None))
                if event is not None and number == entry.number:
                    event.set()
                    del self._ending[_key(entry.container)]

    def _end(self, *entries: JournalEntry) -> None:
        """These have reached their places for good. Waits for the disk."""
        self.journal.end(*entries, alongside=functools.partial(self._record, entries))

    def _record(self, entries: Sequence[JournalEntry], database: Connection) -> None:
        for entry in entries:
            self.containers.keep(database, entry)
            if (leaf := delivered(entry)) is not None:
                self._arrived(database, leaf.serial)
        self._audit.write_all(database, [(Event.DEPLOYED, _told(entry)) for entry in entries])

    async def settle(self, mediums: Collection[str] | None = None) -> list[JournalEntry]:
        """Bring deployments that were cut off to their end; those that still cannot be are returned.

        To be awaited before the listeners open, and again with a driver's name when a device of its kind is back.
        """
        for entry in await asyncio.to_thread(self.journal.expire, self._now()):
            log.warning("gave up a deployment to %s begun %s", entry.container.principal, entry.started)
        pending = await asyncio.to_thread(self.journal.pending)
        wanted = [entry for entry in pending if mediums is None or entry.container.medium in mediums]
        settled = await asyncio.gather(*(self._settle_in_turn(entry) for entry in wanted))
        return [entry for entry, done in zip(wanted, settled, strict=True) if done is None]

    async def drop(self, serials: Collection[int]) -> int:
        """These certificates were revoked: forget whatever waits to bring them somewhere, and the containers that hold
        them. Returns how many deployments there were; one that is at work comes to its end all the same."""
        arrived = self._securing.numbers

        def forget() -> int:
            pending = [entry for entry in self.journal.pending() if entry.number not in arrived]
            dead = [entry for entry in pending if _serial(entry) in serials]
            if dead:
                self.journal.end(*dead)
            self.containers.withdraw(serials)
            return len(dead)

        return await asyncio.to_thread(forget)

    async def drain(self, timeout_s: float) -> None:
        """Wait for the work that nobody may cut short, at most so long. The rest is settled at the next start."""
        self._securing.hurry()
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self._unfinished and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._unfinished, timeout=left)  # what it ends with may have to be secured

    async def _settle_in_turn(self, entry: JournalEntry) -> Outcome | None:
        driver = self.mediums.offered.get(entry.container.medium)
        if driver is None:
            log.warning("a deployment to %s waits for the driver %s", entry.container.principal, entry.container.medium)
            return None
        async with self.alone(entry.container):
            if entry.number not in {known.number for known in await asyncio.to_thread(self.journal.pending)}:
                return Outcome.UNDONE  # a new exchange has taken its place meanwhile
            return await self._settle(driver, entry)

    async def _settle(self, driver: Medium, entry: JournalEntry) -> Outcome | None:
        """How the deployment ended, or None when it could not be ended now; its journal entry is kept then."""
        principal = entry.container.principal
        try:
            async with asyncio.timeout(self._limits.deploy_s):
                found: Settled | StillPending = await driver.settle(entry)
        except TimeoutError:
            found = StillPending("the device does not answer")
        except Exception:
            log.exception("the driver %s failed to settle a deployment to %s", driver.name, principal)
            return None
        if isinstance(found, StillPending):
            log.warning("a deployment to %s is half-done, to be settled later: %s", principal, shown(found.reason))
            return None
        finished = found.outcome is Outcome.FINISHED
        await asyncio.to_thread(self._end if finished else self.journal.end, entry)
        log.info("a deployment to %s that was cut off is %s", principal, found.outcome.value)
        return found.outcome


def _told(entry: JournalEntry) -> dict[str, object]:
    """A deployment that has reached its place, as the audit records it."""
    principal, serial = entry.container.principal, _serial(entry)
    return {
        "app_id": principal.app_id,
        "device_id": principal.device_id,
        "proof": principal.proof,
        "medium": entry.container.medium,
        "files": [name for name, _ in entry.bundle.files()],
        "serial": None if serial is None else f"{serial:x}",
    }


def _serial(entry: JournalEntry) -> int | None:
    """Of the certificate that it brings."""
    leaf = delivered(entry)
    return None if leaf is None else leaf.serial


def _key(container: Container) -> Hashable:
    return (container.medium, *sorted(container.location.items()))
