"""Pairing windows: the operator shows a code, an app comes with it, and both sides are asked if they see the same.

    window      open  --paired, its time over, too many tries, closed by the operator-->  closed
    exchange    begun --revealed, with the code: it takes the window's one seat--> compared --both say yes--> signed

An exchange that fails, once it has shown a code, is one of the window's tries, whoever's fault it was. Windows live in
memory alone.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import attrs
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from rsocket_broker.audit import Audit, Event
from rsocket_broker.authority.requests import check_request
from rsocket_broker.claims import Claims, shown
from rsocket_broker.durations import show_duration
from rsocket_broker.enrollment.exchange import PAIR_METHODS, PAIRING, Confirmed, PairMessage, SignRequest, Step
from rsocket_broker.enrollment.mediums.paths import claimed_app_id
from rsocket_broker.errors import ApplicationError, ConfigurationError, EnrollmentRefused
from rsocket_broker.pairing_sides import BrokerSide, Offer, Paired, fingerprint, new_code, refused

MAX_WINDOWS = 8
"""Open at once: each has an operator in front of it."""
MAX_LIFE = timedelta(hours=1)
"""A code is to be scanned from a screen; one that lies about for longer is a password."""
MAX_TRIES = 5
"""Pairings of one window that may fail. A guess at the digits is one in 10^8, so that five are nothing; and a person
who has seen other digits five times should find out why."""
MAX_BEGUN = 16
"""Of one window, exchanges that have shown no code yet."""
COMPARE_S = 120.0
"""Seconds in which both sides must have said yes, once both can see the digits: time to carry a phone to a desk."""

BEGIN, REVEAL, _CONFIRM = PAIR_METHODS
_ASK_ANEW = "Ask the operator for a new code: rsocket-broker enrollment pair"

T = TypeVar("T")

log = logging.getLogger(__name__)


@attrs.define(slots=True, kw_only=True, eq=False)
class Window:
    """One code. `until`: seconds of the clock. `events` are for whoever shows it to the operator; None ends them."""

    offer: Offer
    app_id: str
    until: float
    key: X25519PrivateKey = attrs.field(repr=False)
    events: "asyncio.Queue[dict[str, object] | None]" = attrs.field(factory=asyncio.Queue)
    begun: "set[PairExchange]" = attrs.field(factory=set)
    seat: "PairExchange | None" = None
    tries: int = 0
    numbers: int = 0
    timer: asyncio.TimerHandle | None = None
    closed: bool = False


class PairExchange:
    """One app that has come to a window, over one connection."""

    def __init__(self, pairings: "Pairings", window: Window, peer: str) -> None:
        self.window = window
        self.peer = peer
        self.side = BrokerSide(window.offer.code, window.offer.secret, window.key)
        self.number = 0
        """By which the operator's answer names it; given when it takes the seat."""
        self.app_id = ""
        self.claims = Claims()
        self.timer: asyncio.TimerHandle | None = None
        self.decided: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the operator has said yes; an exception says why nobody will."""
        self.decided.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.revealed = False
        """It has shown a code, good or not: what fails from then on is a try."""
        self.signing = False
        self._pairings = pairings

    def leave(self) -> None:
        """Its connection has ended."""
        self._pairings.fail(self, "the app has gone away.")

    def request(self) -> SignRequest:
        """What was confirmed on both sides, to be signed. Raises EnrollmentRefused where it has ended since."""
        opening = self.side.opening
        if opening is None or not self.side.confirmed:
            raise refused("it has ended before it could be signed.")
        confirmed = Confirmed(f"{self.window.offer.code}-{self.number}", opening.csr)
        return SignRequest(csr=opening.csr, claims=self.claims, medium=PAIRING, confirmed=confirmed)


class Pairings:
    """The pairing windows of one broker. Lives on its loop; `clock` gives seconds."""

    def __init__(self, audit: Audit | None, clock: Callable[[], float]) -> None:
        self._audit = audit
        self._clock = clock
        self._windows: dict[str, Window] = {}

    # --- the operator ------------------------------------------------------------------------------------------------

    def open(self, *, life: timedelta, host: str, insecure_port: int, secure_port: int, app_id: str = "") -> Window:
        """A new window with a code of its own; `app_id` "" is any app.

        Raises ConfigurationError for a life that is none, ApplicationError when there are too many windows.
        """
        if not timedelta(0) < life <= MAX_LIFE:
            raise ConfigurationError(f"a code for pairing is good for up to {show_duration(MAX_LIFE)}.")
        if len(self._windows) >= MAX_WINDOWS:
            raise ApplicationError(f"{MAX_WINDOWS} codes for pairing are shown already. End one of those commands.")
        key, (code, secret) = X25519PrivateKey.generate(), new_code()
        offer = Offer(
            host=host,
            insecure_port=insecure_port,
            secure_port=secure_port,
            code=code,
            secret=secret,
            fingerprint=fingerprint(key.public_key().public_bytes_raw()),
        )
        window = Window(offer=offer, app_id=app_id, until=self._clock() + life.total_seconds(), key=key)
        self._windows[code] = window
        window.timer = asyncio.get_running_loop().call_later(
            life.total_seconds(), self.close, window, "its time was over"
        )
        ends = datetime.now(UTC) + life
        self._tell("pairing opened", code=code, app_id=app_id, ends=ends)
        window.events.put_nowait(
            {
                "event": "open",
                "code": code,
                "text": offer.text(),
                "host": host,
                "insecure_port": insecure_port,
                "seconds": life.total_seconds(),
            }
        )
        return window

    def close(self, window: Window, reason: str) -> None:
        """Nobody comes in any more; only what is being signed goes on."""
        if window.closed:
            return
        window.closed = True
        self._windows.pop(window.offer.code, None)
        if window.timer is not None:
            window.timer.cancel()
        for exchange in list(window.begun):
            if not exchange.signing:
                self.fail(exchange, f"the code is no longer good: {reason}.")
        self._tell("pairing closed", code=window.offer.code, reason=reason)
        window.events.put_nowait({"event": "closed", "reason": reason})
        window.events.put_nowait(None)

    def close_all(self, reason: str) -> None:
        for window in list(self._windows.values()):
            self.close(window, reason)

    def decide(self, code: str, number: int, *, yes: bool) -> None:
        """The operator's answer to the question whether both show the same. Raises ApplicationError when too late."""
        window = self._windows.get(code)
        exchange = None if window is None else window.seat
        if exchange is None or exchange.number != number or exchange.decided.done():
            raise ApplicationError("That pairing is over already.")
        if not yes:
            self.fail(exchange, "the operator has seen other digits, or has said no.")
            return
        exchange.side.operator_confirms()
        exchange.decided.set_result(None)

    # --- the app -----------------------------------------------------------------------------------------------------

    def begin(self, message: PairMessage, peer: str) -> tuple[PairExchange, dict[str, object]]:
        """A new exchange, and the answer. Raises EnrollmentRefused for a code that is not good (any more)."""
        code = message.fields.get("code")
        window = self._windows.get(code) if isinstance(code, str) else None
        if window is None:
            raise refused("the code is of no pairing that goes on here at present.", _ASK_ANEW)
        if len(window.begun) >= MAX_BEGUN:
            raise EnrollmentRefused(Step.LIMITS, "too many apps try that code at once.", "Try again in some seconds.")
        exchange = PairExchange(self, window, peer)
        window.begun.add(exchange)
        exchange.timer = asyncio.get_running_loop().call_later(
            COMPARE_S, self.fail, exchange, "it has not gone on in time."
        )
        return exchange, self._or_fail(exchange, lambda: exchange.side.begin(message.fields))

    async def reveal(self, exchange: PairExchange, message: PairMessage, claims: Claims) -> dict[str, object]:
        """The answer; from then on both sides can be compared. Raises EnrollmentRefused, and the exchange has ended."""
        window = exchange.window
        if window.seat not in (None, exchange):
            raise EnrollmentRefused(
                Step.LIMITS, "another app is being paired with that code.", "Wait until that has ended."
            )
        exchange.revealed = True
        answer = self._or_fail(exchange, lambda: exchange.side.reveal(message.fields))
        window.seat = exchange
        try:
            await self._look_at(exchange, claims)
        except EnrollmentRefused as refusal:
            self.fail(exchange, refusal.reason)
            raise
        if exchange.decided.done():  # the window was closed meanwhile
            exchange.decided.result()
        window.numbers += 1
        exchange.number = window.numbers
        exchange.timer = self._again(exchange)
        opening = exchange.side.opening
        assert opening is not None
        window.events.put_nowait(
            {
                "event": "compare",
                "number": exchange.number,
                "digits": exchange.side.digits,
                "app_id": exchange.app_id,
                "device": shown(opening.device),
                "os": shown(opening.os, 40),
                "peer": exchange.peer,
            }
        )
        return answer

    async def confirmed(self, exchange: PairExchange, message: PairMessage) -> SignRequest:
        """What is to be signed, once the operator has said yes too. Raises EnrollmentRefused when nobody will."""
        if exchange not in exchange.window.begun:
            exchange.decided.result()  # why it has ended meanwhile
        self._or_fail(exchange, lambda: exchange.side.app_confirms(message.fields))
        exchange.window.events.put_nowait({"event": "app_confirmed", "number": exchange.number})
        await asyncio.shield(exchange.decided)
        request = exchange.request()
        exchange.signing = True
        if exchange.timer is not None:
            exchange.timer.cancel()
        return request

    def finish(self, exchange: PairExchange, request: SignRequest, answer: Mapping[str, object]) -> dict[str, object]:
        """The certificate that was signed, sealed for the app; the window has done its work."""
        confirmed = request.confirmed
        assert confirmed is not None and confirmed.files is not None
        certificate_pem, trust_pem = confirmed.files
        device_id = str(answer["deviceId"])
        sealed = exchange.side.seal(Paired(device_id, certificate_pem, trust_pem))
        exchange.window.events.put_nowait({"event": "enrolled", "app_id": exchange.app_id, "device_id": device_id})
        exchange.window.begun.discard(exchange)
        self.close(exchange.window, "an app was paired")
        return sealed

    def fail(self, exchange: PairExchange, reason: str) -> None:
        """The exchange has ended, and the window has one try less. Nothing happens to one that had ended before."""
        window = exchange.window
        if exchange not in window.begun:
            return
        window.begun.discard(exchange)
        exchange.side.fail()
        if exchange.timer is not None:
            exchange.timer.cancel()
        if not exchange.decided.done():
            exchange.decided.set_exception(refused(reason))
        if window.seat is exchange:
            window.seat = None
            window.events.put_nowait({"event": "failed", "number": exchange.number, "reason": reason})
            self._tell("pairing failed", code=window.offer.code, reason=reason, peer=exchange.peer)
        window.tries += exchange.revealed
        if window.tries >= MAX_TRIES:
            self.close(window, "too many tries have failed")

    # -----------------------------------------------------------------------------------------------------------------

    async def _look_at(self, exchange: PairExchange, claims: Claims) -> None:
        """What is asked for, before a person is asked about it. Raises EnrollmentRefused."""
        opening = exchange.side.opening
        assert opening is not None
        checked = await asyncio.to_thread(check_request, opening.csr)
        # What the digits vouch for, and not what the connection said before.
        exchange.claims = attrs.evolve(claims, app_id=opening.app_id, device=opening.device, os=opening.os)
        asked = SignRequest(csr=opening.csr, claims=exchange.claims)
        exchange.app_id = claimed_app_id(asked, checked.common_name)
        wanted = exchange.window.app_id
        if wanted and exchange.app_id != wanted:
            raise refused(
                f"the code is for another app than {exchange.app_id}.", "Ask the operator for one of this app."
            )

    def _again(self, exchange: PairExchange) -> asyncio.TimerHandle:
        """The time for both to say yes begins."""
        if exchange.timer is not None:
            exchange.timer.cancel()
        late = "not both sides have said yes in time."
        return asyncio.get_running_loop().call_later(COMPARE_S, self.fail, exchange, late)

    def _or_fail(self, exchange: PairExchange, act: Callable[[], T]) -> T:
        try:
            return act()
        except EnrollmentRefused as refusal:
            self.fail(exchange, refusal.reason)
            raise

    def _tell(self, action: str, **facts: Any) -> None:
        log.info("%s: %s", action, facts.get("reason") or facts["code"])
        if self._audit is not None:
            self._audit.note(Event.WINDOW, action=action, **facts)
