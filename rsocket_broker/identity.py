"""Who a peer is: a frozen value read from a verified certificate, and from nothing else."""

import enum
from datetime import datetime

import attrs

NO_DEVICE = "-"
"""How a client without a device is written behind its app id and an @."""


class Proof(enum.Enum):
    """What the broker saw before it signed. Part of the identity: one proof never stands in for another."""

    ADB = "adb"
    FILESYSTEM = "filesystem"
    UPLOAD = "upload"
    PAIRING = "pairing"
    OPERATOR = "operator"
    """Issued by hand with `ca issue`: the operator vouches for it."""


@attrs.frozen(slots=True)
class Principal:
    """The part of an identity that stays the same when its certificate is renewed: what 'the same client' means."""

    app_id: str
    device_id: str
    proof: Proof

    def __str__(self) -> str:
        return f"{self.app_id}@{self.device_id or NO_DEVICE} ({self.proof.value})"


@attrs.frozen(slots=True)
class Identity:
    """A client certificate that has been verified.

    `serial` is the certificate's serial number, `key_fingerprint` the SHA-256 of its SubjectPublicKeyInfo in hex,
    `generation` the number of the CA generation that signed it, `not_after` an aware datetime in UTC.
    """

    principal: Principal
    profile: str
    serial: int
    key_fingerprint: str
    generation: int
    not_after: datetime

    @property
    def app_id(self) -> str:
        return self.principal.app_id

    @property
    def device_id(self) -> str:
        return self.principal.device_id

    @property
    def proof(self) -> Proof:
        return self.principal.proof
