"""Who a peer is: a frozen value read from a verified certificate, or marked as proved by nothing at all."""

import enum
from datetime import UTC, datetime
from typing import Final

import attrs

NO_DEVICE = "-"
"""How a client without a device is written behind its app id and an @."""

UNVERIFIED_NAME: Final = "unverified:"
"""What the names of clients that have proved nothing begin with: no app id has a colon."""

NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)
"""When an identity without a certificate ends by itself."""


class Proof(enum.Enum):
    """What the broker saw before it signed. Part of the identity: one proof never stands in for another."""

    __hash__ = object.__hash__  # one of a kind: to hash its name instead costs a call each time

    ADB = "adb"
    FILESYSTEM = "filesystem"
    UPLOAD = "upload"
    PAIRING = "pairing"
    OPERATOR = "operator"
    """Issued by hand with `ca issue`: the operator vouches for it."""
    UNVERIFIED = "unverified"
    """Nothing: a browser or Node app that says who it is. Never stands in a certificate."""


@attrs.frozen(slots=True)
class Principal:
    """The part of an identity that stays the same when its certificate is renewed: what 'the same client' means."""

    app_id: str
    device_id: str
    proof: Proof

    @property
    def certified(self) -> bool:
        """Whether a certificate says so, and not the client alone."""
        return self.proof is not Proof.UNVERIFIED

    @property
    def names(self) -> tuple[str, str]:
        """By what others address the client: its app id, and that with its device. Nobody comes by the names of a
        certified client without a certificate."""
        mark = "" if self.certified else UNVERIFIED_NAME
        return f"{mark}{self.app_id}", f"{mark}{self.app_id}@{self.device_id}"

    def __str__(self) -> str:
        return f"{self.app_id}@{self.device_id or NO_DEVICE} ({self.proof.value})"


@attrs.frozen(slots=True)
class Identity:
    """A client certificate that has been verified, or `unverified`.

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


def unverified(app_id: str, device_id: str) -> Identity:
    """What stands in the place of a certificate's identity where there is none: two labels that prove nothing.

    The serial number, the generation and the fingerprint are those of no certificate.
    """
    return Identity(Principal(app_id, device_id, Proof.UNVERIFIED), "", 0, "", 0, NEVER)
