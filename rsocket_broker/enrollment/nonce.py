"""Nonces in containers: an asker shows that it reads its container, and has the key of its request, before we sign.

    no challenge  --a request that can be asked: the file is written, its name is the answer-->  challenged
    challenged    --the next request of that connection, its end, NONCE_S, our stop: the file goes-->  no challenge

Each file is in the journal before it is written and until it has gone, so that a crash leaves none behind.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection, Coroutine
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs

from rsocket_broker.authority.requests import CheckedRequest, same_request
from rsocket_broker.claims import shown
from rsocket_broker.enrollment.exchange import FILE_SYSTEM_ACCESS, SignRequest
from rsocket_broker.enrollment.journal import KEEP, Journal
from rsocket_broker.enrollment.mediums.base import Container, Medium, StillPending, unproven
from rsocket_broker.enrollment.mediums.registry import Mediums
from rsocket_broker.nonce_proof import NONCE_BYTES, is_signed

if TYPE_CHECKING:
    from rsocket_broker.enrollment.pairing import PairExchange

NONCE_S = 30.0
"""Seconds for the asker to read the nonce and come back. It lies in the asker's own folder; a slow phone takes one."""
REMOVE_S = 60.0
"""Seconds for a device to let the file be removed; after that, it is tried again when the device is back."""

log = logging.getLogger(__name__)


@attrs.frozen(slots=True, kw_only=True, eq=False)
class Challenge:
    """A nonce that was put into `container`, which had been proven to hold `csr`. `until`: seconds of the clock."""

    name: str
    nonce: bytes = attrs.field(repr=False)
    csr: str = attrs.field(repr=False)
    container: Container
    until: float

    def check(self, request: SignRequest, checked: CheckedRequest, now: float) -> None:
        """Raises EnrollmentRefused (step "proof") unless the request answers this challenge."""
        if now > self.until:
            raise unproven(f"the nonce was good for {NONCE_S:.0f} s.", "Try again.")
        if not same_request(self.csr, checked.csr_pem):
            raise unproven("the nonce was for another signing request.", "Send the same request with the proof.")
        if not is_signed(checked.public_key, self.nonce, checked.csr_pem, request.proof):
            raise unproven(
                "the nonce in the app's folder was not signed with the key of the signing request.",
                "Only the app that owns the folder and the key can enrol.",
            )


class Line:
    """What is known of one connection between its requests. `nonces` None: nothing more can come over it. `web`: it is
    a WebSocket, as apps have that read one anchor alone and will open their session over WebSocket too."""

    def __init__(self, nonces: "Nonces | None" = None, *, web: bool = False) -> None:
        self.nonces = nonces
        self.web = web
        self.pairing: PairExchange | None = None
        """The pairing that goes on over it."""
        self.pickup: tuple[Medium, str, bytes] | None = None
        """What is to be fetched over it next: where, the device id, and the challenge that is to be signed."""
        self._challenge: Challenge | None = None

    def expect(self, challenge: Challenge) -> None:
        """The next request is to answer this, and nothing else that was asked for."""
        self._drop()
        self._challenge = challenge

    def take(self) -> Challenge | None:
        """What the request that has come is to answer. One try: it counts for this request alone."""
        challenge, self._challenge = self._challenge, None
        return challenge

    def close(self) -> None:
        """The connection has ended."""
        if self.pairing is not None:
            self.pairing.leave()
        self._drop()

    def _drop(self) -> None:
        if (challenge := self.take()) is not None and self.nonces is not None:
            self.nonces.withdraw(challenge)


class Nonces:
    """The nonces of one broker. Lives on its loop. `required`: whoever enrols by medium 1 must answer one."""

    def __init__(
        self,
        mediums: Mediums,
        journal: Journal,
        keep: Callable[[Coroutine[Any, Any, None]], object],
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        required: bool = False,
    ) -> None:
        """`keep` holds a task that may outlive its asker."""
        self._mediums = mediums
        self._journal = journal
        self._keep = keep
        self._clock = clock
        self._now = now
        self._required = required
        self._live: dict[Challenge, asyncio.TimerHandle] = {}

    def wanted(self, driver: Medium, request: SignRequest, checked: CheckedRequest, line: Line) -> bool:
        """Whether this request is to be answered with a nonce.

        A request that was made by an SDK which answers nonces says so in what it has signed, so that nobody gets it
        signed by keeping quiet about that. Raises EnrollmentRefused (step "proof") where a nonce is needed and cannot
        be had.
        """
        if not (self._required or request.answers_nonces or checked.wants_nonce):
            return False
        if not driver.writes_nonces:
            if self._required and driver.number == FILE_SYSTEM_ACCESS and not driver.needs_voucher:
                raise unproven(
                    f"this broker signs only what answers a nonce, and its driver {driver.name} can write none.",
                    "Use a driver that can, or start the broker without --require-nonce.",
                )
            return False
        if line.nonces is None or not request.answers_nonces:
            raise unproven(
                "the request must be proven by a nonce in the app's folder, and the asker answers none.",
                "Use an SDK that answers nonces, as this broker's own; Flipper's do not, and need a broker that is "
                "started without --require-nonce.",
            )
        return True

    async def ask(self, driver: Medium, container: Container, csr: str) -> Challenge:
        """Puts a new nonce into the container. Raises EnrollmentRefused (step "proof") when that cannot be done."""
        nonce, name = secrets.token_bytes(NONCE_BYTES), f"nonce-{secrets.token_hex(8)}"
        challenge = Challenge(name=name, nonce=nonce, csr=csr, container=container, until=self._clock() + NONCE_S)
        await asyncio.to_thread(self._journal.begin_nonce, container, name, self._now())
        self._live[challenge] = asyncio.get_running_loop().call_later(NONCE_S, self.withdraw, challenge)
        try:
            await driver.write_nonce(container, name, nonce.hex().encode())
        except BaseException:
            self.withdraw(challenge)
            raise
        return challenge

    def withdraw(self, challenge: Challenge) -> None:
        """It was answered, or never will be: its file goes, in a task of its own."""
        timer = self._live.pop(challenge, None)
        if timer is not None:
            timer.cancel()
            self._keep(self._remove(challenge.container, challenge.name))

    def withdraw_all(self) -> None:
        """Nobody comes back any more."""
        for challenge in list(self._live):
            self.withdraw(challenge)

    async def settle(self, mediums: Collection[str] | None = None) -> None:
        """Remove the files that a crash, or a device that went away, has left in containers of these drivers."""
        live = {challenge.name for challenge in self._live}
        for container, name, written in await asyncio.to_thread(self._journal.nonces):
            if name not in live and (mediums is None or container.medium in mediums):
                await self._remove(container, name, self._now() - written)

    async def _remove(self, container: Container, name: str, age: timedelta = timedelta(0)) -> None:
        driver = self._mediums.offered.get(container.medium)
        if driver is None:
            problem = "its driver is not offered"
        else:
            problem = await self._removed(driver, container, name)
        if problem and age < KEEP:
            log.info("a nonce for %s is left for later: %s", container.principal, shown(problem))
            return
        await asyncio.to_thread(self._journal.end_nonce, name)

    async def _removed(self, driver: Medium, container: Container, name: str) -> str:
        """Why not; "" when it has gone."""
        try:
            async with asyncio.timeout(REMOVE_S):
                left = await driver.remove_nonce(container, name)
        except TimeoutError:
            return "the device does not answer"
        except Exception:
            log.exception("the driver %s failed to remove a nonce of %s", driver.name, container.principal)
            return "the driver failed"
        return left.reason if isinstance(left, StillPending) else ""
