"""Where an iOS device cannot be reached: its certificates travel in the answer, under a key that its camera reads.

Flipper's SDK for iOS (0.250 and later) knows this form: AES-256-CBC of a zip, the IV before it, in base64. Nothing in
it protects against changes on the way; the app then finds files that it cannot use, and enrols anew. Off unless the
configuration has [mediums.qr_bundle]. The proof is the operator, who has approved this very key at the terminal.
"""

import asyncio
import base64
import io
import secrets
from typing import TYPE_CHECKING, ClassVar, Final
from weakref import WeakValueDictionary

from rsocket_broker.authority.requests import same_request
from rsocket_broker.enrollment.exchange import FILE_SYSTEM_ACCESS, SignRequest, Voucher
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
from rsocket_broker.errors import ConfigurationError
from rsocket_broker.identity import Principal, Proof

if TYPE_CHECKING:
    from rsocket_broker.authority.requests import CheckedRequest

DEVICE_KIND: Final = "qr"
IV_BYTES: Final = 16
BLOCK_BITS: Final = 128
FIRST_DATE: Final = (1980, 1, 1, 0, 0, 0)
"""Of the files in the zip: the earliest that its form knows, since the true one is nobody's business."""


class QrBundleMedium(Medium):
    """Physical iOS devices that no tool here reaches."""

    name: ClassVar[str] = "qr_bundle"
    number: ClassVar[int] = FILE_SYSTEM_ACCESS
    systems: ClassVar[frozenset[str]] = frozenset({"iOS"})
    needs_destination: ClassVar[bool] = False
    needs_voucher: ClassVar[bool] = True
    shows_key: ClassVar[bool] = True
    fallback: ClassVar[bool] = True

    def __init__(self, context: MediumContext) -> None:
        super().__init__(context)
        if dict(context.settings) != {"enabled": True}:
            raise ConfigurationError("[mediums.qr_bundle] has one setting: enabled = true. Leave it out for off.")
        self._waiting: WeakValueDictionary[str, Voucher] = WeakValueDictionary()

    async def prove(self, request: SignRequest, checked: "CheckedRequest") -> Container:
        voucher = request.voucher
        if voucher is None or not voucher.key or not same_request(voucher.csr, checked.csr_pem):
            raise unproven("no operator has approved this request.", "Ask the operator to approve it.")
        device_id = await asyncio.to_thread(self.context.devices.device_id, DEVICE_KIND, checked.key_fingerprint)
        principal = Principal(claimed_app_id(request, checked.common_name), device_id, Proof.OPERATOR)
        self._waiting[device_id] = voucher
        return Container(medium=self.name, principal=principal, location={"bundle": device_id})

    async def deploy(self, container: Container, bundle: Bundle) -> None:
        voucher = self._waiting.get(container.principal.device_id)
        if voucher is None:
            raise undelivered("the app has gone.", "Let it ask anew.")
        sealed = await asyncio.to_thread(seal_for_camera, voucher.key, bundle)
        voucher.answer["certificates"] = base64.b64encode(sealed).decode()

    async def settle(self, entry: JournalEntry) -> Settled | StillPending:
        """Whoever was waiting has heard of it or has gone, and makes a new key."""
        return Settled(Outcome.UNDONE)


def seal_for_camera(key: bytes, bundle: Bundle) -> bytes:
    """IV (16 bytes) and AES-256-CBC, padded by PKCS #7, of a zip with both files; `key` has 32 bytes."""
    import zipfile  # most brokers never need it

    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.padding import PKCS7

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in bundle.files():
            archive.writestr(zipfile.ZipInfo(name, FIRST_DATE), content, zipfile.ZIP_DEFLATED)
    padder, iv = PKCS7(BLOCK_BITS).padder(), secrets.token_bytes(IV_BYTES)
    plain = padder.update(packed.getvalue()) + padder.finalize()
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).encryptor()
    return iv + encryptor.update(plain) + encryptor.finalize()
