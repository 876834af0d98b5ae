"""Keeps what lies in apps' containers good, by the drivers: for apps that cannot change it over their session.

The request that an app enrolled with is signed again, but only once its driver has read the very same request back out
of the container, as it was before the first signature; then one file, or both, are put in place.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime
from sqlite3 import Connection

import attrs

from rsocket_broker.authority import Authority
from rsocket_broker.authority.issuing import Issued
from rsocket_broker.enrollment.containers import Kept, digest, next_try
from rsocket_broker.enrollment.delivery import Delivery
from rsocket_broker.enrollment.leaf import Leaf
from rsocket_broker.enrollment.mediums.base import Bundle, JournalEntry, Medium, StillPending
from rsocket_broker.errors import BrokerError
from rsocket_broker.lifecycle.spreader import Outcome, Spread

HOLDS_S = 60.0
"""Seconds in which a driver must have looked into a container. Drivers limit each device; this is for one that does
not."""

MAX_PROBLEM = 500
"""Characters that are kept of what went wrong with a container."""

CANNOT = "the driver {0} cannot reach containers by itself: the app gets a new certificate when it asks for one"
GONE = "the container has gone, or its app has begun to enrol again"

log = logging.getLogger(__name__)


@attrs.frozen(slots=True)
class Need:
    """Which files of a container are to be replaced."""

    trust: bool = False
    certificate: bool = False

    def __bool__(self) -> bool:
        return self.trust or self.certificate


class Renewer:
    """What lies in containers, against what should. `live` gives the serial numbers of those whose apps are connected
    and renew over their session; they are left to that."""

    def __init__(
        self,
        authority: Authority,
        delivery: Delivery,
        live: Callable[[], Collection[int]],
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._authority = authority
        self._delivery = delivery
        self._containers = delivery.containers
        self._live = live
        self._now = now
        self.results: Counter[str] = Counter()
        """How many tries to renew a certificate had each Outcome; new anchors alone are not counted."""

    def stale(self, *, waiting: bool = False) -> list[Kept]:
        """The containers that need something, and may be tried now; with `waiting` also those that could not be reached
        a short time ago. Reads the disk."""
        now, authority = self._now(), self._authority
        wanted = {digest(authority.trust_pem), digest(authority.web_trust_pem)}
        live = self._live()
        found = self._containers.stale(now, authority.generation, sorted(wanted), waiting=waiting)
        return [kept for kept in found if self.need(kept) and (kept.leaf.serial not in live or kept.due <= now)]

    def need(self, kept: Kept) -> Need:
        """An app of the WebSocket port, which knows one anchor only, gets both files in one step or none."""
        trust = kept.trust != digest(self._trust(kept))
        certificate = kept.leaf.generation != self._authority.generation or kept.due <= self._now()
        return Need(trust, certificate)

    def _trust(self, kept: Kept) -> bytes:
        return self._authority.web_trust_pem if kept.knows_one_anchor else self._authority.trust_pem

    async def bring(self, kept: Kept, only: Need | None = None) -> Spread | None:
        """Put what a container needs in place, or of that only the kinds in `only`; None when it needs nothing by now.

        Runs to its end even when it is cancelled: no container stays half-done.
        """
        return await asyncio.shield(self._delivery.keep(self._counted(kept, only)))

    async def _counted(self, kept: Kept, only: Need | None) -> Spread | None:
        renews = _cut(self.need(kept), only).certificate
        spread = await self._bring(kept, only)
        if renews and spread is not None:
            self.results[spread.outcome.value] += 1
        return spread

    async def _bring(self, kept: Kept, only: Need | None) -> Spread | None:
        client = str(kept.principal)
        try:
            async with self._delivery.alone(kept.container):
                await self._delivery.secured(kept.container)
                current = await asyncio.to_thread(self._containers.find, kept.container)
                need = Need() if current is None else _cut(self.need(current), only)
                if current is None or not need:
                    return None
                return await self._replace(current, need)
        except BrokerError as error:
            return Spread(client, Outcome.FAILED, await self._failed(kept, error.public))
        except Exception:
            log.exception("what lies in the container of %s was not replaced", client)
            return Spread(client, Outcome.FAILED, await self._failed(kept, "the log of the broker says why"))

    async def _replace(self, kept: Kept, need: Need) -> Spread:
        client, name = str(kept.principal), kept.container.medium
        driver = self._delivery.mediums.offered.get(name)
        if driver is None or not driver.places:
            reason = f"the driver {name} is not offered" if driver is None else CANNOT.format(name)
            return Spread(client, Outcome.LATER, await self._failed(kept, reason))
        held = await self._holds(driver, kept)
        if isinstance(held, StillPending):
            return Spread(client, Outcome.LATER, await self._failed(kept, held.reason))
        if not held:
            await asyncio.to_thread(self._containers.forget, kept)
            return Spread(client, Outcome.LATER, GONE)
        entry = await asyncio.to_thread(self._prepare, kept, need)
        await self._delivery.place(driver, entry)
        log.info("put %s into the container of %s", " and ".join(name for name, _ in entry.bundle.files()), client)
        return Spread(client, Outcome.DONE)

    @staticmethod
    async def _holds(driver: Medium, kept: Kept) -> bool | StillPending:
        try:
            async with asyncio.timeout(HOLDS_S):
                return await driver.holds(kept.container, kept.csr)
        except TimeoutError:
            return StillPending("the device does not answer")

    def _prepare(self, kept: Kept, need: Need) -> JournalEntry:
        """Sign, and journal what is to be deployed, in one step. Blocks."""
        trust_pem = self._trust(kept) if need.trust else b""
        journal = self._delivery.journal
        if not need.certificate:
            bundle = Bundle(csr=kept.csr, trust_pem=trust_pem, certificate_pem=b"")
            return journal.begin(kept.container, bundle, self._now())
        entries: list[JournalEntry] = []

        def record(issued: Issued, database: Connection) -> None:
            bundle = Bundle(csr=kept.csr, trust_pem=trust_pem, certificate_pem=issued.certificate_pem)
            entries.append(journal.write(database, kept.container, bundle, self._now(), Leaf.of(issued)))

        authority, serial = self._authority, kept.leaf.serial
        authority.issue(authority.check_request(kept.csr), kept.principal, renews=serial, alongside=record)
        return entries[-1]

    async def _failed(self, kept: Kept, reason: str) -> str:
        short = reason[:MAX_PROBLEM]
        again = next_try(kept.failures, self._now())
        await asyncio.to_thread(self._containers.failed, kept, short, again)
        if kept.problem != short:  # a device that is away for a week is worth one line
            log.warning("what lies in the container of %s cannot be replaced: %s", kept.principal, short)
        return short


def _cut(need: Need, only: Need | None) -> Need:
    return need if only is None else Need(need.trust and only.trust, need.certificate and only.certificate)
