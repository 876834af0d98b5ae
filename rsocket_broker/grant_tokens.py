"""The token of an enrolment grant, and what is shown of it on a port that anybody may listen on.

A token is `ID.SECRET`. It never crosses the wire: a request for a certificate carries `ID.PROOF`, which holds for that
very request alone. docs/reference/wire.md has the recipe for other clients.
"""

import base64
import hashlib
import hmac
import re
from typing import Self

import attrs

from rsocket_broker.credentials import clean
from rsocket_broker.errors import ConfigurationError

ID_BYTES, SECRET_BYTES = 6, 32
SHAPE = re.compile(r"([0-9a-f]{12})\.([A-Za-z0-9_-]{43})", re.ASCII)
"""Of a token and of a proof, which follows from those: both end in 32 bytes of base64url without padding."""
MAX_TEXT = 256
"""Characters that are looked at, of a token and of a request's grant; ours have 56."""
PURPOSE = b"rsocket_broker grant 1\0"
"""What is proven begins with it, so that nothing that is made with the same key for another purpose is a proof."""
ANSWER_PURPOSE = b"rsocket_broker grant answer 1\0"
"""The same for what a broker shows of a token, with the anchors that it gives out for it."""


@attrs.frozen(slots=True)
class GrantToken:
    """A token of the right shape; whether any broker knows it is another question."""

    id: str
    secret: str = attrs.field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ConfigurationError, which does not repeat the text, for what is no token."""
        found = SHAPE.fullmatch(text)
        if found is None:
            raise ConfigurationError("that is no token of a grant. Check that the whole of it was copied.")
        return cls(found[1], found[2])

    def grant_for(self, csr: str) -> str:
        """What the request with that CSR (PEM) shows: `ID.PROOF`."""
        return f"{self.id}.{prove(proof_key(self.secret), csr)}"

    def is_answered(self, shown: object, csr: str, device_id: str, trust_pem: bytes) -> bool:
        """Whether `shown` comes from the broker that made the token, for these anchors and that request."""
        expected = prove_answer(proof_key(self.secret), csr, device_id, trust_pem)
        return isinstance(shown, str) and hmac.compare_digest(shown.encode("utf-8", "replace"), expected.encode())


def proof_key(secret: str) -> bytes:
    """The key (32 bytes) that proofs of a token are made and checked with; the token cannot be had from it."""
    return hashlib.sha256(secret.encode()).digest()


def prove(key: bytes, csr: str) -> str:
    """The proof for a CSR (PEM), whatever its line ends and the white space around it."""
    return _proof(key, PURPOSE + _digest(csr))


def prove_answer(key: bytes, csr: str, device_id: str, trust_pem: bytes) -> str:
    """The broker's proof, where the anchors are not put into the app's own folder: that they are its own."""
    device, trust = device_id.encode("utf-8", "surrogatepass"), trust_pem.strip()
    return _proof(key, ANSWER_PURPOSE + _digest(csr) + hashlib.sha256(device).digest() + hashlib.sha256(trust).digest())


def _digest(csr: str) -> bytes:
    return hashlib.sha256(clean(csr).encode("utf-8", "surrogatepass")).digest()


def _proof(key: bytes, text: bytes) -> str:
    return base64.urlsafe_b64encode(hmac.digest(key, text, "sha256")).rstrip(b"=").decode()
