"""Medium 4: no files, no device access. Two people, or one with two screens, say that both sides show the same.

The driver signs for nobody who just asks: only what `enrollment.pairing` has confirmed on both sides gets this far.
What it delivers goes back over the line on which the app waits, sealed for it.
"""

import asyncio
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakValueDictionary

from rsocket_broker.authority.requests import same_request
from rsocket_broker.enrollment.exchange import PAIRING, Confirmed, SignRequest
from rsocket_broker.enrollment.mediums.base import (
    Bundle,
    Container,
    JournalEntry,
    Medium,
    MediumContext,
    Outcome,
    Settled,
    StillPending,
    undelivered,
    unproven,
)
from rsocket_broker.enrollment.mediums.paths import claimed_app_id
from rsocket_broker.identity import Principal, Proof

if TYPE_CHECKING:
    from rsocket_broker.authority.requests import CheckedRequest

DEVICE_KIND = "paired"


class PairingMedium(Medium):
    """Release builds, and devices that nothing but the network reaches."""

    name: ClassVar[str] = "pairing"
    number: ClassVar[int] = PAIRING
    needs_destination: ClassVar[bool] = False

    def __init__(self, context: MediumContext) -> None:
        super().__init__(context)
        self._waiting: WeakValueDictionary[str, Confirmed] = WeakValueDictionary()

    def handles(self, request: SignRequest) -> bool:
        return True

    async def prove(self, request: SignRequest, checked: "CheckedRequest") -> Container:
        confirmed = request.confirmed
        if confirmed is None or not same_request(confirmed.csr, checked.csr_pem):
            raise unproven(
                "medium 4 is for requests that were confirmed on both sides, and this one was not.",
                "Ask the operator for a code (rsocket-broker enrollment pair), and give it to the app's SDK.",
            )
        # A device that pairs anew has a new key, and is a new one: what it says of itself proves nothing.
        device_id = await asyncio.to_thread(self.context.devices.device_id, DEVICE_KIND, checked.key_fingerprint)
        principal = Principal(claimed_app_id(request, checked.common_name), device_id, Proof.PAIRING)
        self._waiting[confirmed.name] = confirmed
        return Container(medium=self.name, principal=principal, location={"pairing": confirmed.name})

    async def deploy(self, container: Container, bundle: Bundle) -> None:
        confirmed = self._waiting.get(container.location["pairing"])
        if confirmed is None:
            raise undelivered("the app has gone.", "Begin anew on both sides.")
        confirmed.files = bundle.certificate_pem, bundle.trust_pem

    async def settle(self, entry: JournalEntry) -> Settled | StillPending:
        """Whoever was waiting has heard of it or has gone, and begins anew."""
        return Settled(Outcome.UNDONE)
