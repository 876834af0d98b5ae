"""Medium 2: nothing of the app is looked at, and its certificates are left where it can fetch them, sealed for its key.

Off unless the configuration has [mediums.upload]. Somebody has to vouch for each request: a token, or the operator.
The certificate carries the proof `upload`; the device id follows from the key, and is a new one for each new key.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from rsocket_broker.authority.keys import accept
from rsocket_broker.authority.requests import check_request, same_request
from rsocket_broker.enrollment.exchange import UPLOAD, SignRequest, Step
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
from rsocket_broker.enrollment.uploaders import UploadFailed, load_uploader
from rsocket_broker.enrollment.uploads import Uploads
from rsocket_broker.errors import ApplicationError, EnrollmentRefused
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.moments import utc_now
from rsocket_broker.nonce_proof import PICKUP_PURPOSE, is_signed
from rsocket_broker.sealed_bundle import Unsealed, check_key, seal

if TYPE_CHECKING:
    from rsocket_broker.authority.requests import CheckedRequest

DEVICE_KIND: Final = "upload"
CHALLENGE_BYTES: Final = 32


class UploadMedium(Medium):
    """Apps that nothing reaches, but that reach the operator's service, or this broker."""

    name: ClassVar[str] = "upload"
    number: ClassVar[int] = UPLOAD
    needs_destination: ClassVar[bool] = False
    needs_voucher: ClassVar[bool] = True

    def __init__(self, context: MediumContext) -> None:
        super().__init__(context)
        self._uploader = load_uploader(context.settings)
        self._uploads = Uploads(context.devices.state)
        self._decoy = ec.generate_private_key(ec.SECP256R1()).public_key()
        """What a proof for an id that never was is compared with, so that it takes as long as for any other."""

    def handles(self, request: SignRequest) -> bool:
        return True

    async def answered(self, checked: "CheckedRequest") -> Mapping[str, object] | None:
        check_key(checked.public_key)
        device_id = await asyncio.to_thread(self._uploads.answered, checked.csr_pem, utc_now())
        return None if device_id is None else {"deviceId": device_id}

    async def prove(self, request: SignRequest, checked: "CheckedRequest") -> Container:
        check_key(checked.public_key)
        voucher = request.voucher
        if voucher is None or not same_request(voucher.csr, checked.csr_pem):
            raise unproven("nobody has vouched for this request.", "Ask the operator for a token, or to approve it.")
        device_id = await asyncio.to_thread(self.context.devices.device_id, DEVICE_KIND, checked.key_fingerprint)
        principal = Principal(claimed_app_id(request, checked.common_name), device_id, Proof.UPLOAD)
        return Container(medium=self.name, principal=principal, location={"upload": device_id})

    async def deploy(self, container: Container, bundle: Bundle) -> None:
        device_id = container.principal.device_id
        content = Unsealed(device_id, bundle.certificate_pem, bundle.trust_pem)
        spki, sealed = await asyncio.to_thread(_sealed, bundle.csr, content)
        try:
            await self._uploader.upload(device_id, sealed)
            lying = sealed if self._uploader.keeps_here else None
            await asyncio.to_thread(self._uploads.put, device_id, bundle.csr, spki, lying, utc_now())
        except (UploadFailed, ApplicationError) as error:
            raise undelivered(
                "the certificates could not be left where the app fetches them.",
                "Ask again in some minutes; the log of the broker says what is wrong.",
            ) from error

    async def settle(self, entry: JournalEntry) -> Settled | StillPending:
        """Whoever was waiting asks again: what was left is remembered by its request, and nothing else has to go.

        What lies here is left now, where it was not: a token was used up for it. A service is not called once more.
        """
        known = await asyncio.to_thread(self._uploads.answered, entry.bundle.csr, utc_now())
        if known is None and self._uploader.keeps_here:
            with contextlib.suppress(EnrollmentRefused):
                await self.deploy(entry.container, entry.bundle)
                return Settled(Outcome.FINISHED)
        return Settled(Outcome.UNDONE if known is None else Outcome.FINISHED)

    async def begin_pickup(self, device_id: str) -> bytes | None:
        """Whatever the id: who guesses learns nothing from being given a challenge."""
        return secrets.token_bytes(CHALLENGE_BYTES) if self._uploader.keeps_here else None

    async def pick_up(self, device_id: str, challenge: bytes, proof: str) -> Mapping[str, object]:
        bundle = await asyncio.to_thread(self._pick_up, device_id, challenge, proof)
        if bundle is None:
            raise EnrollmentRefused(
                Step.PICKUP,
                "nothing lies here for that id and that key.",
                "It is given once, within a day, to the key of the request. Enrol anew.",
            )
        return {"bundle": bundle.decode()}

    def _pick_up(self, device_id: str, challenge: bytes, proof: str) -> bytes | None:
        found = self._uploads.lying(device_id, utc_now())
        key = self._decoy if found is None else accept(load_der_public_key(found[0]))
        signed = is_signed(key, challenge, device_id, proof, PICKUP_PURPOSE)
        if found is None or not signed or not self._uploads.take(device_id, found[1]):
            return None
        return found[1]


def _sealed(csr: str, content: Unsealed) -> tuple[bytes, bytes]:
    """(the request's key, SPKI in DER; the bundle for it)."""
    key = check_request(csr).public_key
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), seal(key, csr, content)
