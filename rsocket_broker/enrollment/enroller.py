"""The one road from a request to a certificate in the app's container. Its order is what makes it safe:

    rates -> message -> clock -> request -> mode -> driver -> turn -> PROOF -> sign -> journal -> deploy -> answer

Nothing is signed before the driver has read the very same request back out of the app's container. Of an asker that
answers nonces, a first request goes up to there and a second one, over the same line, from there on. Where no driver
can see the container, somebody has to vouch for the request before the mode: a token, or the operator. Up to there the
work is dropped when its peer goes away; from there on it is brought to an end, so that no container stays half-done.
"""

import asyncio
import base64
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping
from datetime import datetime
from sqlite3 import Connection
from typing import TYPE_CHECKING

import attrs

from rsocket_broker.audit import Event
from rsocket_broker.authority.authority import Authority
from rsocket_broker.authority.issuing import Issued
from rsocket_broker.authority.requests import CheckedRequest
from rsocket_broker.authority.revocation import Block
from rsocket_broker.claims import Claims, shown
from rsocket_broker.enrollment.containers import Containers, Sighting
from rsocket_broker.enrollment.delivery import Delivery
from rsocket_broker.enrollment.exchange import (
    PAIR_METHODS,
    PICKUP_METHODS,
    Acknowledgement,
    PairMessage,
    PickupMessage,
    SignRequest,
    Step,
    Voucher,
    check_clock,
    log_lines,
    parse_message,
)
from rsocket_broker.enrollment.journal import Journal
from rsocket_broker.enrollment.leaf import Leaf
from rsocket_broker.enrollment.mediums.base import Bundle, Container, JournalEntry, Medium, unproven
from rsocket_broker.enrollment.mediums.paths import claimed_app_id
from rsocket_broker.enrollment.mediums.registry import Mediums
from rsocket_broker.enrollment.modes import PORTS, Gate, Mode, Passage
from rsocket_broker.enrollment.nonce import Challenge, Line, Nonces
from rsocket_broker.enrollment.outcomes import Course, Outcomes, with_cause
from rsocket_broker.enrollment.pending import Exchange, Pending
from rsocket_broker.enrollment.throttle import EnrollmentLimits, RateLimiter, too_often
from rsocket_broker.errors import EnrollmentRefused
from rsocket_broker.moments import utc_now
from rsocket_broker.threads import Threads
from rsocket_broker.transports.base import Channel

if TYPE_CHECKING:
    from rsocket_broker.enrollment.approvals import Approvals
    from rsocket_broker.enrollment.pairing import Pairings

_UNREACHED = (Step.MEDIUM, Step.PROOF, Step.DEPLOY)
"""Where an app's folder was not reached: it may be let in by a fallback then, where one is offered."""
_SIGNERS = Threads("enrolments", 8)
"""While one flush to the disk serves those who wait for it, the next ones sign. Many more would only fight over
Python's lock, which is held while a signature is made."""

log = logging.getLogger(__name__)


@attrs.frozen(slots=True)
class _Asker:
    """Who asks, over which line, and the nonce that this request is to answer, if there is one."""

    claims: Claims
    peer: str
    line: Line
    challenge: Challenge | None


class Enroller:
    """Serves the messages of the certificate exchange, whatever line they came on. One per broker."""

    def __init__(
        self,
        authority: Authority,
        mediums: Mediums,
        journal: Journal,
        containers: Containers,
        limits: EnrollmentLimits | None = None,
        *,
        gate: Gate | None = None,
        require_nonce: bool = False,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """`gate` says who may ask at all, by default everybody. With `require_nonce` nobody enrols through files who
        answers no nonce. `clock` measures rates (seconds); `now` is the time of day (aware) that devices' clocks are
        compared with."""
        self._authority = authority
        self._mediums = mediums
        self._limits = limits or EnrollmentLimits()
        self.gate = gate or Gate()
        self._clock = clock
        self._now = now
        self._overall = RateLimiter(self._limits.overall)
        self._per_peer = RateLimiter(self._limits.per_peer)
        self._per_app = RateLimiter(self._limits.per_app)
        self.outcomes = Outcomes(authority.audit, clock)
        """What became of requests, in the log and in numbers."""
        self.delivery = Delivery(
            mediums,
            journal,
            containers,
            self._limits,
            now=now,
            audit=authority.audit,
            arrived=authority.arrived_with,
        )
        self.nonces = Nonces(mediums, journal, self.delivery.keep, clock=clock, now=now, required=require_nonce)
        self.pairings: Pairings | None = None
        """The codes for pairing; None while there were none."""
        self._approvals: Approvals | None = None
        self.pending = Pending()
        """The exchanges that are under way."""

    @property
    def approvals(self) -> "Approvals":
        """Requests that wait for an operator. Loaded with the first of them: most brokers never have one."""
        if self._approvals is None:
            from rsocket_broker.enrollment.approvals import Approvals

            self._approvals = Approvals(self._authority.audit, self._clock)
        return self._approvals

    @property
    def known_os(self) -> tuple[str, ...]:
        """The values of `os` that may ask."""
        return self._mediums.known_os

    async def serve(self, message: bytes, claims: Claims, peer: str, line: Line | None = None) -> dict[str, object]:
        """The answer to one message (JSON) of a peer: `{"deviceId": …}`, `{"nonce": NAME}` where the peer is to answer
        that over the same `line` next, or empty for an acknowledgement.

        `peer` is the address that rates are counted for, with no port; without a `line` nothing can be asked back.
        Cancelling drops the work unless the proof is done. Raises EnrollmentRefused, already logged.
        """
        line = line or Line()
        with self.outcomes.reported(claims, peer), self.outcomes.counted() as course, self._answered(line) as challenge:
            if challenge is None:
                self._admit(peer)
            request = parse_message(message, claims)
            if isinstance(request, PairMessage):
                return await self._pair(request, _Asker(claims, peer, line, None), course)
            if isinstance(request, PickupMessage):
                course.counts = False
                return await self._pick_up(request, line, peer)
            _log_device_lines(request, claims)
            if isinstance(request, Acknowledgement):
                self.outcomes.acknowledged(request, claims)
                course.counts = False
                return {}
            if challenge is not None and not request.proof:
                challenge = None  # it begins anew
                self._admit(peer)
            return await self._enrol(request, _Asker(claims, peer, line, challenge), course)

    async def _pair(self, message: PairMessage, asker: _Asker, course: Course) -> dict[str, object]:
        """One step of a pairing; the last one waits for the operator, and then goes the road that all others go."""
        begin, reveal, _confirm = PAIR_METHODS
        pairings, course.medium, course.counts = self.pairings, "pairing", False
        if pairings is None or asker.line.nonces is None:
            raise EnrollmentRefused(
                Step.PAIRING,
                "nobody pairs here at present.",
                "Ask the operator for a code: rsocket-broker enrollment pair",
            )
        if message.method == begin:
            if asker.line.pairing is not None:
                asker.line.pairing.leave()
            asker.line.pairing, answer = pairings.begin(message, asker.peer)
            return answer
        exchange = asker.line.pairing
        if exchange is None:
            raise EnrollmentRefused(Step.PAIRING, "no pairing has begun over this connection.", "Begin with pairBegin.")
        if message.method == reveal:
            return await pairings.reveal(exchange, message, asker.claims)
        course.counts = True
        request = await pairings.confirmed(exchange, message)
        try:
            answer = await self._enrol(request, attrs.evolve(asker, claims=request.claims), course)
        except EnrollmentRefused as refusal:
            pairings.fail(exchange, refusal.reason)
            raise
        return pairings.finish(exchange, request, answer)

    @contextlib.contextmanager
    def _answered(self, line: Line) -> Iterator[Challenge | None]:
        """The nonce that a request is to answer; its file goes in any case."""
        challenge = line.take()
        try:
            yield challenge
        finally:
            if challenge is not None:
                self.nonces.withdraw(challenge)

    async def _enrol(self, request: SignRequest, asker: _Asker, course: Course) -> dict[str, object]:
        claims, peer = asker.claims, asker.peer
        check_clock(request, self._now())
        checked = self._authority.check_request(request.csr)  # here: Python's lock is held for it on a thread as well
        app_id = claimed_app_id(request, checked.common_name)
        if asker.challenge is None:
            self._admit_app(peer, app_id, claims.device)
        self._check_block(self._authority.revocations.blocked_app(app_id))
        driver = None if asker.challenge is not None else self._mediums.voucher_driver(request)
        if driver is not None:
            return await self._vouched(driver, request, checked, app_id, asker, course)
        try:
            return await self._through(request, checked, app_id, asker, course)
        except EnrollmentRefused as refusal:
            driver = self._mediums.fallback(request) if refusal.step in _UNREACHED else None
            if driver is None or asker.challenge is not None:
                raise
            self.outcomes.report(claims, peer, f"{with_cause(refusal)} An operator may let it in by {driver.name}.")
        return await self._vouched(driver, request, checked, app_id, asker, course)

    async def _vouched(
        self,
        driver: Medium,
        request: SignRequest,
        checked: CheckedRequest,
        app_id: str,
        asker: _Asker,
        course: Course,
    ) -> dict[str, object]:
        """By a driver that sees nothing of the asker: a token's proof, or else an operator's word, stands in for it."""
        course.medium = driver.name
        self.gate.check_waiting(PORTS[asker.line.web])
        if (known := await driver.answered(checked)) is not None:
            return await self._vouching(request, known, asker)
        if not driver.fallback and (request.grant or self.gate.mode is Mode.TOKEN):
            by_token = attrs.evolve(request, voucher=Voucher(checked.csr_pem, "token"))
            return await self._vouching(
                request, await self._through(by_token, checked, app_id, asker, course, driver), asker
            )
        voucher = await self.approvals.voucher(checked, app_id, asker.claims, asker.peer, driver)
        issued = False
        try:
            approved = attrs.evolve(request, voucher=voucher)
            answer = await self._through(approved, checked, app_id, asker, course, driver)
            issued = True
            return {**answer, **voucher.answer}
        except asyncio.CancelledError:
            issued = voucher.signing  # nobody waits for it any more, and it goes on
            raise
        finally:
            self.approvals.used(checked, issued=issued)

    async def _vouching(self, request: SignRequest, answer: Mapping[str, object], asker: _Asker) -> dict[str, object]:
        """The answer, with what shows whoever has the token that the anchors which it fetches are ours."""
        trust_pem = self._authority.web_trust_pem if asker.line.web else self._authority.trust_pem
        return {**answer, **await self.gate.answer(request, str(answer["deviceId"]), trust_pem)}

    async def _through(
        self,
        request: SignRequest,
        checked: CheckedRequest,
        app_id: str,
        asker: _Asker,
        course: Course,
        vouched_for: Medium | None = None,
    ) -> dict[str, object]:
        """From the gate to the answer, by `vouched_for` or by the driver that the request itself is for."""
        claims, peer = asker.claims, asker.peer
        by_grant = request.voucher is not None and request.voucher.by == "token"
        with (
            self.pending.track(app_id) as exchange,
            await self.gate.enter(request, app_id, peer, PORTS[asker.line.web], by_grant=by_grant) as passage,
        ):
            driver = vouched_for or self._mediums.select(request)
            course.medium = driver.name
            async with self.delivery.turns.admitted((app_id, claims.os, claims.device)):
                container = await self._proven(driver, request, checked, asker)
                exchange.principal = container.principal
                passage.check(container)
                if asker.challenge is None and self.nonces.wanted(driver, request, checked, asker.line):
                    self._check_block(self._authority.revocations.blocked(container.principal))
                    course.counts = False
                    return await self._challenge(driver, container, checked, asker.line)
                if request.voucher is not None:
                    request.voucher.signing = True
                work = self._finish(driver, checked, container, passage, exchange, web=asker.line.web)
                return await self._finish_for(claims, peer, work, passage)

    async def _pick_up(self, message: PickupMessage, line: Line, peer: str) -> dict[str, object]:
        """A challenge, or for its answer what was left here for that device id. One try for each challenge."""
        begun, line.pickup = line.pickup, None
        if message.method == PICKUP_METHODS[0]:
            for driver in self._mediums.offered.values():
                if (challenge := await driver.begin_pickup(message.device_id)) is not None:
                    line.pickup = driver, message.device_id, challenge
                    return {"challenge": base64.b64encode(challenge).decode()}
            raise EnrollmentRefused(Step.PICKUP, "nothing is fetched from this broker.", "Ask its operator where.")
        if begun is None or begun[1] != message.device_id:
            raise EnrollmentRefused(
                Step.PICKUP, "no challenge was given for that id over this connection.", "Begin with pickupBegin."
            )
        driver, device_id, challenge = begun
        found = dict(await driver.pick_up(device_id, challenge, message.proof))
        self._authority.audit.note(Event.DEPLOYED, action="fetched", device_id=device_id, medium=driver.name, peer=peer)
        return found

    async def _proven(self, driver: Medium, request: SignRequest, checked: CheckedRequest, asker: _Asker) -> Container:
        """The container that holds the request: found now, or when the nonce that this one answers was put there."""
        if asker.challenge is None:
            if request.proof:
                raise unproven("no nonce is waiting for an answer on this connection.", "Begin anew without a proof.")
            return await self._prove(driver, request, checked)
        if asker.challenge.container.medium != driver.name:
            raise unproven("the nonce was written for another medium.", "Send the same request with the proof.")
        asker.challenge.check(request, checked, self._clock())
        return asker.challenge.container

    async def _challenge(
        self, driver: Medium, container: Container, checked: CheckedRequest, line: Line
    ) -> dict[str, object]:
        async with self._in_time(driver):
            challenge = await self.nonces.ask(driver, container, checked.csr_pem)
        line.expect(challenge)
        return {"nonce": challenge.name}

    async def serve_to_end(self, message: bytes, claims: Claims, peer: str) -> dict[str, object]:
        """Like `serve`, for a peer that awaits no answer: cancelling stops the waiting only, not the work."""
        return await asyncio.shield(self.delivery.keep(self.serve(message, claims, peer)))

    async def settle(self, mediums: Collection[str] | None = None) -> list[JournalEntry]:
        """Bring deployments that were cut off to their end, and nonces that were left; see `Delivery.settle`."""
        await self.nonces.settle(mediums)
        return await self.delivery.settle(mediums)

    async def drain(self, timeout_s: float) -> None:
        """Wait for the work that nobody may cut short, at most so long. The rest is settled at the next start."""
        self.nonces.withdraw_all()
        await self.delivery.drain(timeout_s)

    def _admit(self, peer: str) -> None:
        now = self._clock()
        if wait := self._per_peer.take(peer, now):
            raise too_often("this address", wait)
        if wait := self._overall.take(None, now):
            raise too_often("all apps together", wait)

    def _admit_app(self, peer: str, app_id: str, device: str) -> None:
        if wait := self._per_app.take((peer, app_id, device), self._clock()):
            raise too_often(app_id, wait)

    async def _prove(self, driver: Medium, request: SignRequest, checked: CheckedRequest) -> Container:
        async with self._in_time(driver):
            return await driver.prove(request, checked)

    @contextlib.asynccontextmanager
    async def _in_time(self, driver: Medium) -> AsyncIterator[None]:
        """For what a driver does before anything is signed. Raises EnrollmentRefused (step "proof") when it lasts."""
        try:
            async with asyncio.timeout(self._limits.prove_s):
                yield
        except TimeoutError:
            raise unproven(
                f"the driver {driver.name} did not find the app's container within {self._limits.prove_s:.0f} s.",
                "Check that the device answers, and try again.",
            ) from None

    async def _finish_for(
        self, claims: Claims, peer: str, work: Coroutine[object, object, dict[str, object]], passage: Passage
    ) -> dict[str, object]:
        """Await work that runs to its end even when the peer has gone; then the log hears how it ended."""
        finish = self.delivery.keep(work)
        passage.hold_for(finish)
        try:
            answer = await asyncio.shield(finish)
        except asyncio.CancelledError:
            finish.add_done_callback(functools.partial(self.outcomes.unheard, claims, peer))
            raise
        self.outcomes.enrolled(claims, peer)
        return answer

    def _check_block(self, block: Block | None) -> None:
        """Raises EnrollmentRefused (step "block list") for a client that was revoked, in words that say whom to ask."""
        if block is not None:
            raise block.refusal()

    async def _finish(
        self,
        driver: Medium,
        checked: CheckedRequest,
        container: Container,
        passage: Passage,
        exchange: Exchange,
        *,
        web: bool,
    ) -> dict[str, object]:
        """Sign and deploy."""
        principal = container.principal
        async with self.delivery.alone(container):
            issued, entry = await _SIGNERS.run(self._sign, checked, container, passage, web=web)
            exchange.serial = issued.serial
            passage.issued()
            await self.delivery.deploy(driver, entry)
        log.info("enrolled %s, serial %x", principal, issued.serial)
        return {**container.answer, "deviceId": principal.device_id}

    def _sign(
        self, checked: CheckedRequest, container: Container, passage: Passage, *, web: bool
    ) -> tuple[Issued, JournalEntry]:
        """The certificate and the journal entry for its deployment, which are recorded in one step."""
        entries: list[JournalEntry] = []
        known = self.delivery.containers.find(container)
        one_anchor = web or (known is not None and known.knows_one_anchor)
        trust_pem = self._authority.web_trust_pem if one_anchor else self._authority.trust_pem

        def record(issued: Issued, database: Connection) -> None:
            bundle = Bundle(csr=checked.csr_pem, trust_pem=trust_pem, certificate_pem=issued.certificate_pem)
            entries.append(self.delivery.journal.write(database, container, bundle, self._now(), Leaf.of(issued)))

        use = functools.partial(passage.use, container=container)
        issued = self._authority.issue(checked, container.principal, alongside=record, condition=use)
        if web:  # before it opens a session: a rotation may reach the container first
            self.delivery.containers.seen({issued.serial: Sighting(Channel.WSS.value, self_renewing=False)})
        return issued, entries[-1]


def _log_device_lines(message: SignRequest | Acknowledgement, claims: Claims) -> None:
    if log.isEnabledFor(logging.DEBUG):
        for level, text in log_lines(message.logs):
            log.debug("%s on %s says (%s): %s", shown(claims.app, 80), shown(claims.device, 80), level, text)
