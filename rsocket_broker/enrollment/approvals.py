"""Requests that wait for an operator: nothing is signed for them before somebody here has said yes to that very key.

    waiting   --approved by its fingerprint-->  approved   --its certificate is signed-->  gone
    waiting   --refused-->  refused   --LIFE since then-->  gone
    others    --LIFE since they were asked last-->  gone

An app waits on its line for HOLD_S, and may ask again with the same request after that: what was said holds for it.
What it says of itself is shown, and proves nothing. Approvals live in memory alone. The module is loaded with the
first request that needs one.
"""

import asyncio
import base64
import enum
import logging
import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from rsocket_broker.audit import Audit, Event
from rsocket_broker.authority.requests import CheckedRequest, same_request
from rsocket_broker.claims import Claims, shown
from rsocket_broker.enrollment.exchange import Step, Voucher
from rsocket_broker.enrollment.mediums.base import Medium
from rsocket_broker.errors import ApplicationError, EnrollmentRefused
from rsocket_broker.moments import timestamp

MAX_WAITING: Final = 32
"""In all: more than an operator looks through. Whoever comes then is told to come later. A refusal makes room."""
MAX_OF_PEER: Final = 8
"""Of one address, so that a stranger does not take every place."""
LIFE: Final = 600.0
"""Seconds that a request is remembered after it was asked last, whatever was said."""
HOLD_S: Final = 120.0
"""Seconds that an app is kept waiting on its line: an app that makes a new key at each try must hear it on that one."""
MIN_PREFIX: Final = 16
"""Hex digits of a fingerprint that name a request: 64 bits, which nobody finds a second key for while it waits."""
KEY_BYTES: Final = 32
"""Of AES-256."""
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{16,64}", re.ASCII)

log = logging.getLogger(__name__)


class Standing(enum.Enum):
    """What was said about a request so far."""

    WAITING = "waiting"
    APPROVED = "approved"
    REFUSED = "refused"


class Asked:
    """One request that waits. `key` is what its certificates are to be encrypted with, which the operator shows to the
    device; b"" where the app needs none, or nobody has said yes yet."""

    def __init__(self, checked: CheckedRequest, app_id: str, claims: Claims, peer: str, driver: Medium) -> None:
        self.fingerprint = checked.key_fingerprint
        self.csr = checked.csr_pem
        self.app_id = app_id
        self.claims = claims
        self.peer = peer
        self.medium = driver.name
        self.needs_key = driver.shows_key
        self.standing = Standing.WAITING
        self.key = b""
        self.asked = 0.0
        self.first = datetime.now(UTC)
        self.decided = asyncio.Event()
        self.listeners = 0
        """How many lines wait for it at this moment."""
        self.signing = False

    def is_for(self, checked: CheckedRequest, app_id: str, driver: Medium) -> bool:
        """Whether it is the very same that the operator sees. The app's id is not always in the request: a long one is
        a claim, and a yes to one must not become a certificate for another."""
        return (self.medium, self.app_id) == (driver.name, app_id) and same_request(self.csr, checked.csr_pem)

    def touch(self, now: float) -> None:
        """It was asked again. Whoever was refused cannot hold on to a place by asking on and on."""
        if self.standing is not Standing.REFUSED:
            self.asked = now

    def describe(self, now: float) -> dict[str, object]:
        """As JSON, without the key. Nothing in it but the fingerprint and the address is proven."""
        return {
            "id": self.fingerprint,
            "app_id": self.app_id,
            "app": shown(self.claims.app, 80),
            "device": shown(self.claims.device, 80),
            "os": shown(self.claims.os, 40),
            "peer": self.peer,
            "medium": self.medium,
            "state": self.standing.value,
            "on_the_line": self.listeners > 0,
            "asked": timestamp(self.first),
            "seconds_left": round(max(0.0, self.asked + LIFE - now), 1),
        }


class Approvals:
    """Those of one broker, on its loop. `clock` gives seconds."""

    def __init__(self, audit: Audit | None, clock: Callable[[], float], hold_s: float = HOLD_S) -> None:
        self._audit = audit
        self._clock = clock
        self._hold_s = hold_s
        self._asked: dict[str, Asked] = {}

    # --- the app -----------------------------------------------------------------------------------------------------

    async def voucher(self, checked: CheckedRequest, app_id: str, claims: Claims, peer: str, driver: Medium) -> Voucher:
        """Waits until the operator has said yes. Raises EnrollmentRefused (step "approval", or "limits") when the
        answer is no, or there is none in time; whoever asks again with the same request takes up where it was."""
        asked = self._ask(checked, app_id, claims, peer, driver)
        asked.listeners += 1
        try:
            async with asyncio.timeout(self._hold_s):
                await asked.decided.wait()
        except TimeoutError:
            raise _not_yet(asked) from None
        finally:
            asked.listeners -= 1
            asked.touch(self._clock())
        if asked.standing is Standing.REFUSED:
            raise EnrollmentRefused(Step.APPROVAL, "the operator has refused it.", "Ask the operator why.")
        if asked.signing or self._asked.get(asked.fingerprint) is not asked:
            raise EnrollmentRefused(
                Step.APPROVAL, "the approval is being used, or was used already.", "Try again in some seconds."
            )
        asked.signing = True
        return Voucher(asked.csr, "operator", asked.key)

    def used(self, checked: CheckedRequest, *, issued: bool) -> None:
        """What was vouched for was signed, and the approval is used up; or it was not, and it still holds."""
        asked = self._asked.get(checked.key_fingerprint)
        if asked is not None:
            asked.signing = False
            if issued:
                del self._asked[asked.fingerprint]

    def _ask(self, checked: CheckedRequest, app_id: str, claims: Claims, peer: str, driver: Medium) -> Asked:
        now = self._clock()
        self._forget(now)
        asked = self._asked.get(checked.key_fingerprint)
        if asked is not None and asked.is_for(checked, app_id, driver):
            asked.touch(now)
            return asked
        if asked is not None:
            raise EnrollmentRefused(
                Step.APPROVAL, "another request with that key waits already.", "Make a new key and a new request."
            )
        held = [one.peer for one in self._asked.values() if one.standing is not Standing.REFUSED]
        if len(held) >= MAX_WAITING or held.count(peer) >= MAX_OF_PEER:
            raise EnrollmentRefused(
                Step.LIMITS, "too many requests wait for the operator already.", "Try again in some minutes."
            )
        asked = Asked(checked, app_id, claims, peer, driver)
        asked.asked = now
        self._asked[asked.fingerprint] = asked
        log.warning(
            "%s from %s waits for you. To see it: rsocket-broker enrollment approvals list; "
            "to let it in: rsocket-broker enrollment approvals approve %s",
            app_id,
            peer,
            asked.fingerprint[:MIN_PREFIX],
        )
        return asked

    def _forget(self, now: float) -> None:
        ended = [one for one in self._asked.values() if not one.listeners and now - one.asked > LIFE]
        for one in ended:
            if not one.signing:
                del self._asked[one.fingerprint]

    # --- the operator ------------------------------------------------------------------------------------------------

    def list(self) -> list[dict[str, object]]:
        """Those that are remembered, the oldest first, as JSON."""
        now = self._clock()
        self._forget(now)
        return [asked.describe(now) for asked in self._asked.values()]

    def approve(self, fingerprint: str, *, can_show_key: bool) -> dict[str, object]:
        """Lets the request with that fingerprint (or the first 16 digits, or more, of it) be signed. `can_show_key`:
        whoever asks can show a key to the device; the answer has it then (base64) where the app needs one.

        Raises ApplicationError where there is no such request, it was decided already, or a key cannot be shown.
        """
        asked = self._find(fingerprint)
        if asked.needs_key and not can_show_key:
            raise ApplicationError(
                "That app has to be shown a key. Run the same command with --show-qr where its camera sees the screen."
            )
        if asked.needs_key:
            asked.key = secrets.token_bytes(KEY_BYTES)
        self._decide(asked, Standing.APPROVED)
        return {**asked.describe(self._clock()), "key": base64.b64encode(asked.key).decode() or None}

    def refuse(self, fingerprint: str) -> dict[str, object]:
        """Nothing is signed for that request. Raises ApplicationError as `approve`."""
        asked = self._find(fingerprint)
        self._decide(asked, Standing.REFUSED)
        return asked.describe(self._clock())

    def _find(self, fingerprint: str) -> Asked:
        wanted = fingerprint.replace(":", "").lower()
        if not _FINGERPRINT.fullmatch(wanted):
            raise ApplicationError(f"A request is named by {MIN_PREFIX} or more hex digits of its fingerprint.")
        self._forget(self._clock())
        found = [one for one in self._asked.values() if one.fingerprint.startswith(wanted)]
        if len(found) != 1:
            raise ApplicationError(
                "No request with that fingerprint waits here. See: rsocket-broker enrollment approvals list"
                if not found
                else "Several requests begin like that: give the whole fingerprint."
            )
        return found[0]

    def _decide(self, asked: Asked, standing: Standing) -> None:
        if asked.standing is not Standing.WAITING:
            raise ApplicationError(f"That request is {asked.standing.value} already.")
        asked.standing = standing
        asked.asked = self._clock()
        self._tell(asked)
        asked.decided.set()

    def _tell(self, asked: Asked) -> None:
        log.info("the request of %s is %s", asked.app_id, asked.standing.value)
        if self._audit is not None:
            self._audit.note(
                Event.GRANT,
                action=f"request {asked.standing.value}",
                app_id=asked.app_id,
                device=shown(asked.claims.device, 80),
                peer=asked.peer,
                key=asked.fingerprint,
            )


def _not_yet(asked: Asked) -> EnrollmentRefused:
    return EnrollmentRefused(
        Step.APPROVAL,
        "the operator has not approved it yet.",
        f"Ask for it (rsocket-broker enrollment approvals approve {asked.fingerprint[:MIN_PREFIX]}), and try again "
        "with the same signing request.",
    )
