"""Medium 4 from the app's side: the text that the operator's terminal shows, digits to compare, and a certificate that
comes back over the same line. No file of the app is looked at by anybody.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import attrs

from rsocket_broker.client.folder import AppFolder, Enrolled
from rsocket_broker.client.line import Address
from rsocket_broker.client.profile import MEDIUM_PAIRING, AppProfile
from rsocket_broker.client.questions import ask, asking
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.errors import AuthorityError, EnrollmentRefused, HomeError

if TYPE_CHECKING:
    from rsocket_broker.pairing_sides import Offer

STEP_TIMEOUT = 30.0
"""Seconds for an answer that no person has to give."""
PEOPLE_TIMEOUT = 300.0
"""Seconds for one that somebody at the broker has to give; the broker gives up sooner, and says so."""

Confirm = Callable[[str], bool | Awaitable[bool]]
"""Is shown the digits; True when a person says that the broker shows the same."""
Tell = Callable[[str], object]


def parse_offer(text: str) -> "Offer":
    """Raises ConfigurationError for what is no text of `enrollment pair`."""
    from rsocket_broker.pairing_sides import Offer  # what it needs is loaded slowly, and most apps never pair

    return Offer.parse(text.strip())


@attrs.frozen(slots=True)
class Pairing:
    """How an app is paired: `code` is the text that `rsocket-broker enrollment pair` shows, good once; None where the
    app was paired before, and is to be told when that is over.

    `confirm` is called, or awaited, with the digits: whether somebody says that the broker shows the same.
    Raises ConfigurationError for a text that is no code.
    """

    code: str | None = attrs.field(repr=False)
    confirm: Confirm

    def __attrs_post_init__(self) -> None:
        if self.code is not None:
            parse_offer(self.code)


async def pair(profile: AppProfile, folder: AppFolder, pairing: Pairing, tell: Tell = lambda step: None) -> Enrolled:
    """Pairs with the broker that the code leads to. What lay in the folder stays until the end.

    `tell` hears of each step. Raises EnrollmentRefused when either side says no, or is not what it says that it is, and
    where there is no code; HomeError, OSError and ConnectionClosed as `enroll`.
    """
    from rsocket_broker.pairing_sides import AppSide

    if pairing.code is None:
        raise EnrollmentRefused(
            "pairing",
            "there is no certificate, and no code to get one with.",
            "Ask the operator for one: rsocket-broker enrollment pair",
        )
    offer = parse_offer(pairing.code)
    address = Address(offer.host, offer.insecure_port)
    tell(f"connecting to {address}")
    claims = attrs.evolve(profile, medium=MEDIUM_PAIRING).plain_claims()
    async with asking(address, claims, "pairing") as connection:
        request = await asyncio.to_thread(make_signing_request, profile.app_id)
        side = AppSide(
            offer,
            csr=request.csr_pem.decode(),
            app_id=profile.app_id,
            device=profile.device_name,
            os=profile.os,
        )
        begun = await ask(connection, side.begin(), STEP_TIMEOUT)
        digits = side.compare(await ask(connection, side.reveal(begun), STEP_TIMEOUT))
        tell("waiting for somebody to compare the digits on both sides")
        if not await _confirmed(pairing.confirm, digits):
            raise EnrollmentRefused("pairing", "it was not confirmed on this side.", "Begin anew on both sides.")
        tell("waiting for the broker's side to confirm")
        paired = side.complete(await ask(connection, side.confirm(), PEOPLE_TIMEOUT))
    tell("storing the certificate")
    try:
        return await asyncio.to_thread(
            folder.adopt, request, paired.certificate_pem, paired.trust_pem, paired.device_id, MEDIUM_PAIRING
        )
    except (AuthorityError, HomeError) as error:
        raise EnrollmentRefused("pairing", "what the broker has sent cannot be stored.", error.public) from error


async def _confirmed(confirm: Confirm, digits: str) -> bool:
    answer = confirm(digits)
    return await answer if inspect.isawaitable(answer) else answer
