"""Pairing without files: two sides that share no secret yet, and a person who compares what both of them show.

    broker shows OFFER (QR code, text): where it is, a code, the fingerprint of its key

    app                                             broker
     │ pairBegin    a commitment ───────────────────▶ │  to its key, a nonce and the request
     │ ◀─────────────────── its key, a commitment     │  to a nonce
     │ pairReveal   key, nonce, request ────────────▶ │  and proof that it knows the code
     │ ◀───────────────────────────── the nonce       │  and proof that it knows the code
     │                                                │
     │          both show the same digits             │  a person compares, and says yes on both sides
     │                                                │
     │ pairConfirm  proof that its side said yes ───▶ │  waits for its own side's yes; signs
     │ ◀─────────── certificate and anchors, sealed   │

The digits are made of everything that was said. Whoever stands between has to commit to all that it will say to one
side before that side opens its own commitment: it cannot search for values that give the same digits on both sides, and
guesses, once in each try, with one chance in 10^8. The broker's nonce comes last, so that a try which was not seen to
fail cannot be made. The seal's key comes out of the two keys that the digits vouch for, so that certificate and anchors
are the broker's own.

Bytes in and out, and chance as an argument for tests: nothing here waits, sends or asks a clock.
"""

import base64
import binascii
import enum
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Self
from urllib.parse import parse_qsl, urlencode

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from rsocket_broker.claims import MAX_REQUEST_TEXT, MAX_TEXT
from rsocket_broker.credentials import clean
from rsocket_broker.errors import ConfigurationError, EnrollmentRefused
from rsocket_broker.jsontext import JsonError, dump, parse_object

STEP = "pairing"
BEGIN, REVEAL, CONFIRM = "pairBegin", "pairReveal", "pairConfirm"
METHODS = (BEGIN, REVEAL, CONFIRM)

DIGITS = 8
"""Shown on both sides: whoever stands between has one chance in 10^8, less than 2^-26, in each try."""
ID_BYTES, SECRET_BYTES, KEY_BYTES, NONCE_BYTES = 6, 16, 32, 32
"""Nobody guesses the secret of a code, 128 bits, in the minutes for which it is good."""
MAX_OFFER = 1024
"""Characters of an offer that are looked at; ours have some 140."""
MAX_SEALED = 256 * 1024
"""Characters of the sealed answer: a certificate, its chain and a few anchors take a tenth."""
PURPOSE = b"rsocket_broker pairing 1\0"
"""All that is hashed begins with it, so that nothing that is made for another purpose is taken for this."""

_SCHEME = "rsocket-broker:pair?"
_ID = re.compile(r"[0-9a-f]{12}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_.:-]{1,253}", re.ASCII)
_FROM_THE_BEGINNING = "Begin anew on both sides, with a new code."


def refused(reason: str, remedy: str = _FROM_THE_BEGINNING) -> EnrollmentRefused:
    """The refusal of a pairing."""
    return EnrollmentRefused(STEP, reason, remedy)


@attrs.frozen(slots=True, kw_only=True)
class Offer:
    """What the broker shows. `secret` and `fingerprint` are base64url; who has the text may ask to be paired."""

    host: str
    insecure_port: int
    secure_port: int
    code: str
    secret: str = attrs.field(repr=False)
    fingerprint: str

    def text(self) -> str:
        """As the QR code has it."""
        fields = {
            "v": 1,
            "h": self.host,
            "p": self.insecure_port,
            "s": self.secure_port,
            "c": f"{self.code}.{self.secret}",
            "k": self.fingerprint,
        }
        return _SCHEME + urlencode(fields, safe=":.")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ConfigurationError, which does not repeat the text, for what is no offer."""
        if len(text) > MAX_OFFER or not text.startswith(_SCHEME):
            raise _no_offer(f"it must begin with {_SCHEME}")
        fields = dict(parse_qsl(text.removeprefix(_SCHEME), keep_blank_values=True))
        if fields.get("v") != "1":
            raise _no_offer("it is of a version that this package does not know")
        code, _, secret = fields.get("c", "").partition(".")
        offer = cls(
            host=fields.get("h", ""),
            insecure_port=_port(fields.get("p", "")),
            secure_port=_port(fields.get("s", "")),
            code=code,
            secret=secret,
            fingerprint=fields.get("k", ""),
        )
        if not (_HOST.fullmatch(offer.host) and _ID.fullmatch(code)):
            raise _no_offer("its address or its code is damaged")
        if len(_from_url(secret)) != SECRET_BYTES or len(_from_url(offer.fingerprint)) != KEY_BYTES:
            raise _no_offer("its code or its fingerprint is damaged")
        return offer


@attrs.frozen(slots=True, kw_only=True)
class Opening:
    """What the app commits to: its key and nonce, and all that it asks for. `csr` is cleaned PEM."""

    key: bytes
    nonce: bytes = attrs.field(repr=False)
    csr: str = attrs.field(repr=False)
    app_id: str
    device: str
    os: str

    def encoded(self) -> bytes:
        """One text for each opening, and no two openings with the same text."""
        words = (self.csr, self.app_id, self.device, self.os)
        return _joined((self.key, self.nonce, *(word.encode("utf-8", "surrogatepass") for word in words)))

    def commitment(self, code: str) -> bytes:
        return _hash(b"commitment", code.encode(), self.encoded())


@attrs.frozen(slots=True)
class Paired:
    """What the app is given in the end. Certificates are PEM."""

    device_id: str
    certificate_pem: bytes
    trust_pem: bytes


class State(enum.Enum):
    """Of either side. DIGITS: both can be compared now. OWN, PEER: one side has said yes; BOTH: both have."""

    NEW = enum.auto()
    BEGUN = enum.auto()
    REVEALED = enum.auto()
    DIGITS = enum.auto()
    OWN = enum.auto()
    PEER = enum.auto()
    BOTH = enum.auto()
    DONE = enum.auto()
    FAILED = enum.auto()


class Act(enum.Enum):
    """What moves a side on; each at most once in a pairing."""

    BEGIN = enum.auto()
    REVEAL = enum.auto()
    COMPARE = enum.auto()
    OWN_YES = enum.auto()
    PEER_YES = enum.auto()
    FINISH = enum.auto()


APP: Mapping[tuple[State, Act], State] = {
    (State.NEW, Act.BEGIN): State.BEGUN,
    (State.BEGUN, Act.REVEAL): State.REVEALED,
    (State.REVEALED, Act.COMPARE): State.DIGITS,
    (State.DIGITS, Act.OWN_YES): State.OWN,
    (State.OWN, Act.FINISH): State.DONE,
}
BROKER: Mapping[tuple[State, Act], State] = {
    (State.NEW, Act.BEGIN): State.BEGUN,
    (State.BEGUN, Act.REVEAL): State.DIGITS,
    (State.DIGITS, Act.OWN_YES): State.OWN,
    (State.DIGITS, Act.PEER_YES): State.PEER,
    (State.OWN, Act.PEER_YES): State.BOTH,
    (State.PEER, Act.OWN_YES): State.BOTH,
    (State.BOTH, Act.FINISH): State.DONE,
}
"""A missing row ends the pairing, for good."""


class _Side:
    """What both sides have: a state, and the keys once everything was said."""

    def __init__(self, table: Mapping[tuple[State, Act], State], key: X25519PrivateKey) -> None:
        self.state = State.NEW
        self._table = table
        self._key = key
        self._said = b""
        """Everything but the broker's nonce, which comes last."""
        self._transcript = b""
        self._shared = b""

    def fail(self) -> None:
        """Somebody said no, or did not say yes in time. Nothing brings this side on any more."""
        self.state = State.FAILED

    def _step(self, act: Act) -> None:
        state = self._table.get((self.state, act))
        if state is None:
            self.fail()
            raise refused("a message has come out of its turn.")
        self.state = state

    def _fail(self, reason: str, remedy: str = _FROM_THE_BEGINNING) -> EnrollmentRefused:
        self.fail()
        return refused(reason, remedy)

    def _agree(self, code: str, broker_key: bytes, broker_commitment: bytes, opening: Opening, other: bytes) -> None:
        """All but the broker's nonce was said: what that comes to, and what both keys give."""
        self._said = _hash(b"said", code.encode(), broker_key, broker_commitment, opening.encoded())
        try:
            self._shared = self._key.exchange(X25519PublicKey.from_public_bytes(other))
        except ValueError as error:
            raise self._fail("the other side's key is none.") from error

    @property
    def digits(self) -> str:
        """What both sides show: `1234 5678`. Raises EnrollmentRefused before everything was said."""
        if self.state in (State.NEW, State.BEGUN, State.REVEALED, State.FAILED):
            raise refused("there is nothing to compare.")
        number = int.from_bytes(_hash(b"digits", self._transcript)[:16]) % 10**DIGITS
        text = f"{number:0{DIGITS}}"
        return f"{text[: DIGITS // 2]} {text[DIGITS // 2 :]}"

    def _end_transcript(self, broker_nonce: bytes) -> None:
        self._transcript = _hash(b"transcript", self._said, broker_nonce)

    def _code_proof(self, secret: str, role: bytes) -> bytes:
        """The app's comes before the broker's nonce, the broker's with it."""
        return hmac.digest(_from_url(secret), _joined((PURPOSE, b"code", role, self._said, self._transcript)), "sha256")

    def _derived(self, role: bytes) -> bytes:
        """A key of our own, for one use, that nobody has who has none of the two private keys."""
        return HKDF(hashes.SHA256(), 32, self._transcript, PURPOSE + role).derive(self._shared)

    def _confirmation(self) -> bytes:
        return hmac.digest(self._derived(b"app confirms"), self._transcript, "sha256")

    def _cipher(self) -> ChaCha20Poly1305:
        return ChaCha20Poly1305(self._derived(b"broker seals"))


class AppSide(_Side):
    """The app's side of one pairing. Each method takes the broker's answer, and gives the next message."""

    def __init__(
        self,
        offer: Offer,
        *,
        csr: str,
        app_id: str,
        device: str,
        os: str,
        key: X25519PrivateKey | None = None,
        nonce: bytes | None = None,
    ) -> None:
        super().__init__(APP, key or X25519PrivateKey.generate())
        self._offer = offer
        self._opening = Opening(
            key=self._key.public_key().public_bytes_raw(),
            nonce=nonce or secrets.token_bytes(NONCE_BYTES),
            csr=clean(csr),
            app_id=app_id,
            device=device,
            os=os,
        )
        self._commitment = b""

    def begin(self) -> dict[str, object]:
        self._step(Act.BEGIN)
        commitment = self._opening.commitment(self._offer.code)
        return {"method": BEGIN, "code": self._offer.code, "commitment": _text(commitment)}

    def reveal(self, answer: Mapping[str, object]) -> dict[str, object]:
        """Raises EnrollmentRefused for another broker than the one whose offer we have; it learns nothing more then."""
        self._step(Act.REVEAL)
        broker_key = self._bytes(answer, "key", KEY_BYTES)
        self._commitment = self._bytes(answer, "commitment", 32)
        if not hmac.compare_digest(fingerprint(broker_key), self._offer.fingerprint):
            raise self._fail(
                "the broker's key is not the one in the code: somebody may stand between the two.",
                "Do not go on over this network. Begin anew on both sides over another one.",
            )
        self._agree(self._offer.code, broker_key, self._commitment, self._opening, broker_key)
        opening = self._opening
        return {
            "method": REVEAL,
            "key": _text(opening.key),
            "nonce": _text(opening.nonce),
            "csr": opening.csr,
            "app_id": opening.app_id,
            "device": opening.device,
            "os": opening.os,
            "proof": _text(self._code_proof(self._offer.secret, b"app")),
        }

    def compare(self, answer: Mapping[str, object]) -> str:
        """The digits to show. Raises EnrollmentRefused for a broker that shows another nonce than it committed to, or
        does not know the code."""
        self._step(Act.COMPARE)
        nonce = self._bytes(answer, "nonce", NONCE_BYTES)
        if not hmac.compare_digest(_hash(b"nonce", nonce), self._commitment):
            raise self._fail("what the broker shows is not what it has committed to.")
        self._end_transcript(nonce)
        if not hmac.compare_digest(self._bytes(answer, "proof", 32), self._code_proof(self._offer.secret, b"broker")):
            raise self._fail("the broker does not know the code that was given.")
        return self.digits

    def confirm(self) -> dict[str, object]:
        """A person has seen the same digits on both sides."""
        self._step(Act.OWN_YES)
        return {"method": CONFIRM, "confirmation": _text(self._confirmation())}

    def complete(self, answer: Mapping[str, object]) -> Paired:
        """What the broker has sealed for us. Raises EnrollmentRefused for what it has not."""
        self._step(Act.FINISH)
        sealed = answer.get("sealed")
        if not isinstance(sealed, str) or len(sealed) > MAX_SEALED:
            raise self._fail("the broker's answer holds no certificate.")
        try:
            plain = self._cipher().decrypt(bytes(12), _from_text(sealed), self._transcript)
            return _paired(parse_object(plain))
        except (InvalidTag, JsonError) as error:
            raise self._fail("the certificate is not from the broker that was paired with.") from error

    def _bytes(self, fields: Mapping[str, object], name: str, length: int) -> bytes:
        try:
            return _bytes(fields, name, length)
        except EnrollmentRefused:
            self.fail()
            raise


class BrokerSide(_Side):
    """The broker's side of one pairing. Each method takes the app's message, and gives the answer."""

    def __init__(self, code: str, secret: str, key: X25519PrivateKey, nonce: bytes | None = None) -> None:
        super().__init__(BROKER, key)
        self._code = code
        self._secret = secret
        self._nonce = nonce or secrets.token_bytes(NONCE_BYTES)
        self._commitment = b""
        self.opening: Opening | None = None
        """What the app asks for, once it has been revealed."""

    def begin(self, message: Mapping[str, object]) -> dict[str, object]:
        """Our key, now that the app has committed to its own, and a commitment to our nonce."""
        self._step(Act.BEGIN)
        self._commitment = self._bytes(message, "commitment", 32)
        return {"key": _text(self._key.public_key().public_bytes_raw()), "commitment": _text(self._own_commitment())}

    def reveal(self, message: Mapping[str, object]) -> dict[str, object]:
        """Our nonce, and our proof of the code.

        Raises EnrollmentRefused for an app that shows something else than it committed to, or does not know the code.
        """
        self._step(Act.REVEAL)
        opening, proof = self._opening_in(message), self._bytes(message, "proof", 32)
        if not hmac.compare_digest(opening.commitment(self._code), self._commitment):
            raise self._fail("what the app shows is not what it has committed to.")
        own = self._key.public_key().public_bytes_raw()
        self._agree(self._code, own, self._own_commitment(), opening, opening.key)
        if not hmac.compare_digest(proof, self._code_proof(self._secret, b"app")):
            raise self._fail("the code is wrong.", "Scan or copy the whole of what the operator's terminal shows.")
        self.opening = opening
        self._end_transcript(self._nonce)
        return {"nonce": _text(self._nonce), "proof": _text(self._code_proof(self._secret, b"broker"))}

    def app_confirms(self, message: Mapping[str, object]) -> None:
        """Raises EnrollmentRefused unless it is the app that was shown the digits."""
        self._step(Act.PEER_YES)
        if not hmac.compare_digest(self._bytes(message, "confirmation", 32), self._confirmation()):
            raise self._fail("the confirmation is not of the app that was compared.")

    def operator_confirms(self) -> None:
        """The person at the broker has seen the same digits on both sides."""
        self._step(Act.OWN_YES)

    @property
    def confirmed(self) -> bool:
        return self.state is State.BOTH

    def seal(self, paired: Paired) -> dict[str, object]:
        """The certificate and the anchors, for that app alone. Raises EnrollmentRefused unless both have said yes."""
        self._step(Act.FINISH)
        plain = dump(
            {
                "deviceId": paired.device_id,
                "certificate": paired.certificate_pem.decode("ascii"),
                "trust": paired.trust_pem.decode("ascii"),
            }
        )
        # One key, one message: the key comes out of this exchange's own nonces, and so this nonce is never used twice.
        return {"sealed": _text(self._cipher().encrypt(bytes(12), plain, self._transcript))}

    def _own_commitment(self) -> bytes:
        return _hash(b"nonce", self._nonce)

    def _opening_in(self, message: Mapping[str, object]) -> Opening:
        try:
            return Opening(
                key=_bytes(message, "key", KEY_BYTES),
                nonce=_bytes(message, "nonce", NONCE_BYTES),
                csr=clean(_word(message, "csr", MAX_REQUEST_TEXT)),
                app_id=_word(message, "app_id", MAX_TEXT),
                device=_word(message, "device", MAX_TEXT),
                os=_word(message, "os", MAX_TEXT),
            )
        except EnrollmentRefused:
            self.fail()
            raise

    def _bytes(self, fields: Mapping[str, object], name: str, length: int) -> bytes:
        try:
            return _bytes(fields, name, length)
        except EnrollmentRefused:
            self.fail()
            raise


def new_code() -> tuple[str, str]:
    """(id, secret) of a new code."""
    return secrets.token_hex(ID_BYTES), _url(secrets.token_bytes(SECRET_BYTES))


def fingerprint(key: bytes) -> str:
    """Of a public key (32 bytes), as offers have it."""
    return _url(_hash(b"fingerprint", key))


def _paired(fields: Mapping[str, object]) -> Paired:
    words = [fields.get(name) for name in ("deviceId", "certificate", "trust")]
    device_id, certificate, trust = (word if isinstance(word, str) else "" for word in words)
    return Paired(device_id, certificate.encode("ascii", "replace"), trust.encode("ascii", "replace"))


def _word(fields: Mapping[str, object], name: str, limit: int) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value or len(value) > limit:
        raise refused(f"the field {name} must be text of up to {limit} characters.", "Send it as documented.")
    return value


def _bytes(fields: Mapping[str, object], name: str, length: int) -> bytes:
    value = fields.get(name)
    found = _from_text(value) if isinstance(value, str) and len(value) <= 2 * length else b""
    if len(found) != length:
        raise refused(f"the field {name} must be {length} bytes in base64.", "Send it as documented.")
    return found


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536):
        raise _no_offer("a port in it is none")
    return int(text)


def _no_offer(reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"that is no text for pairing: {reason}.\n"
        "Copy the whole line that `rsocket-broker enrollment pair` shows below its QR code."
    )


def _hash(role: bytes, *parts: bytes) -> bytes:
    return hashlib.sha256(_joined((PURPOSE, role, *parts))).digest()


def _joined(parts: Iterable[bytes]) -> bytes:
    """Each with its length before it, so that nothing can be cut in another way."""
    return b"".join(len(part).to_bytes(4) + part for part in parts)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _from_text(text: str) -> bytes:
    """b"" for what is no base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _from_url(text: str) -> bytes:
    """b"" for what is no base64url without padding."""
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text, re.ASCII):
        return b""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""
