"""The certificate exchange as values: what an app asks for, read from its message without touching anything.

    {"method": "signCertificate", "csr": PEM, "destination": PATH, "medium": 1, "timestamp": ms, "logs": [line, …],
     "grant": "ID.PROOF", "nonce": 1, "proof": BASE64}
    {"method": "pickupBegin", "deviceId": ID}      {"method": "pickup", "deviceId": ID, "proof": BASE64}
    {"method": "signCertificateAck", "isError": false, "hasRequiredFiles": true, "config": {…}, "logs": [line, …]}
    {"method": "pairBegin" | "pairReveal" | "pairConfirm", …}      see `rsocket_broker.pairing_sides`

`destination` is checked by the driver that understands it; all but `method` and `csr` may be missing.
"""

import enum
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import attrs

from rsocket_broker.claims import MAX_PATH_TEXT, MAX_REQUEST_TEXT, Claims, shown, whole_number
from rsocket_broker.credentials import clean
from rsocket_broker.errors import EnrollmentRefused
from rsocket_broker.grant_tokens import MAX_TEXT
from rsocket_broker.jsontext import JsonError, parse_object
from rsocket_broker.nonce_proof import LEVEL, MAX_SIGNATURE

FILE_SYSTEM_ACCESS = 1
"""The medium of a request that names none."""
NO_EXCHANGE = 3
"""What an SDK sends for "no exchange of certificates": there is nothing to sign for it."""
UPLOAD = 2
"""The medium of requests whose certificates are left where the app can fetch them."""
PAIRING = 4
"""The medium of requests that were confirmed on both sides: the certificate goes back over the same line."""

CLOCK_TOLERANCE = timedelta(hours=6)
"""How far a device's clock may be off. Certificates are dated back further than this, so that TLS works at either end
of it; a comparison of calendar days would refuse honest devices around midnight and across time zones."""
MAX_MEDIUM = 1_000_000
MAX_TIMESTAMP_MS = 32_503_680_000_000
"""The year 3000: beyond it a number is no date, and `datetime` has an end."""
MAX_DEVICE_TEXT = 256
"""Characters of the device id that a pickup names; ours have some 25."""
MAX_LOG_LINES = 512
"""As many as an SDK keeps between two messages."""
MAX_LOG_LINE = 500
"""Characters shown of one line."""

_SIGN = "signCertificate"
ACKNOWLEDGE = "signCertificateAck"
PAIR_METHODS = ("pairBegin", "pairReveal", "pairConfirm")
PICKUP_METHODS = ("pickupBegin", "pickup")
_LOG_LINE = re.compile(r"(\d{1,16}):(info|warning|error):(.*)", re.DOTALL)


class Step(enum.StrEnum):
    """Where an exchange can fail. The name is what the app is told."""

    MESSAGE = "message"
    CLOCK = "clock"
    LIMITS = "limits"
    REQUEST = "signing request"
    WINDOW = "window"
    TOKEN = "token"  # noqa: S105  a word, not a secret
    MEDIUM = "medium"
    PAIRING = "pairing"
    APPROVAL = "approval"
    PICKUP = "pickup"
    PROOF = "proof"
    SIGN = "sign"
    DEPLOY = "deploy"


class Confirmed:
    """A request that people have confirmed on both sides of a pairing: `csr` is its text, `name` one of our own.

    `files` is what is delivered for it, certificate and anchors (PEM), once it was signed.
    """

    __slots__ = ("__weakref__", "csr", "files", "name")

    def __init__(self, name: str, csr: str) -> None:
        self.name = name
        self.csr = csr
        self.files: tuple[bytes, bytes] | None = None


class Voucher:
    """Who has vouched for a request, where no device can be asked: `by` is "token" or "operator", `csr` its text.

    `key`: what the operator shows to the device, to encrypt with; b"" without one. `answer` is what the driver adds to
    what the app is told, once the certificate is there. `signing`: what it vouches for is being signed, whether or not
    somebody still waits for that.
    """

    __slots__ = ("__weakref__", "answer", "by", "csr", "key", "signing")

    def __init__(self, csr: str, by: str, key: bytes = b"") -> None:
        self.csr = csr
        self.by = by
        self.key = key
        self.answer: dict[str, object] = {}
        self.signing = False


class PickupMessage(NamedTuple):
    """A step of a pickup: one of PICKUP_METHODS. `proof` is "" for the first."""

    method: str
    device_id: str
    proof: str


class PairMessage(NamedTuple):
    """A step of a pairing: one of PAIR_METHODS, and the fields as they came."""

    method: str
    fields: Mapping[str, object]


@attrs.frozen(slots=True, kw_only=True)
class SignRequest:
    """One request for a certificate, as the app made it; nothing in it has been proven.

    `csr` is cleaned text (see `clean`); `destination`, `grant` and `proof` are "" when absent; `timestamp` is the clock
    of the device. `answers_nonces`: the asker can, and `proof` is its answer to one (see `nonce_proof`).
    `confirmed` and `voucher` are never of the message: the broker sets them, for medium 4 and for drivers that cannot
    see for themselves who asks.
    """

    csr: str = attrs.field(repr=False)
    claims: Claims
    destination: str = ""
    medium: int = FILE_SYSTEM_ACCESS
    timestamp: datetime | None = None
    logs: tuple[str, ...] = attrs.field(default=(), repr=False)
    grant: str = attrs.field(default="", repr=False)
    answers_nonces: bool = False
    proof: str = attrs.field(default="", repr=False)
    confirmed: Confirmed | None = attrs.field(default=None, repr=False)
    voucher: Voucher | None = attrs.field(default=None, repr=False)


@attrs.frozen(slots=True, kw_only=True)
class Acknowledgement:
    """What the app found after the exchange. `has_required_files` is None when it did not say."""

    is_error: bool
    has_required_files: bool | None
    logs: tuple[str, ...] = attrs.field(default=(), repr=False)


def parse_message(data: bytes, claims: Claims) -> SignRequest | Acknowledgement | PairMessage | PickupMessage:
    """The message in `data`, from a peer whose SETUP said `claims`.

    Raises EnrollmentRefused (step "message") that names the field at fault, or says that this port only signs.
    """
    try:
        fields = parse_object(data)
    except JsonError as error:
        raise only_signs(f"the request is {error}") from None
    method = fields.get("method")
    if method == _SIGN:
        return _sign_request(fields, claims)
    if method == ACKNOWLEDGE:
        return _acknowledgement(fields)
    if isinstance(method, str) and method in PAIR_METHODS:
        return PairMessage(method, fields)
    if isinstance(method, str) and method in PICKUP_METHODS:
        return PickupMessage(method, _text(fields, "deviceId", MAX_DEVICE_TEXT), _text(fields, "proof", MAX_SIGNATURE))
    raise only_signs(f"{shown(method, 60)} is not served here" if isinstance(method, str) else "it names no method")


def only_signs(reason: str) -> EnrollmentRefused:
    """The refusal of whatever is not enrolment."""
    return EnrollmentRefused(
        Step.MESSAGE,
        f"{reason}.",
        f"This port only signs certificates (method {_SIGN}); everything else is for the secure port.",
    )


def check_clock(request: SignRequest, now: datetime) -> None:
    """Refuse a device whose clock is further from `now` (aware) than CLOCK_TOLERANCE: TLS would fail on it, silently.

    A request with no timestamp passes. Raises EnrollmentRefused (step "clock") that names both clocks.
    """
    if request.timestamp is None or abs(request.timestamp - now) <= CLOCK_TOLERANCE:
        return
    difference = abs(request.timestamp - now)
    ahead = "ahead of" if request.timestamp > now else "behind"
    raise EnrollmentRefused(
        Step.CLOCK,
        f"the clock of the device says {_date(request.timestamp)}, the clock of the broker says {_date(now)}: "
        f"the device is {_duration(difference)} {ahead} the broker.",
        "Set the date and time of the one that is wrong.",
    )


def log_lines(logs: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(level, text) of each well-formed line `MILLISECONDS:LEVEL:TEXT`, fit for a log; other lines are left out."""
    for line in logs:
        if found := _LOG_LINE.fullmatch(line):
            yield found[2], shown(found[3], MAX_LOG_LINE)


def _sign_request(fields: dict[str, object], claims: Claims) -> SignRequest:
    _refuse_token(fields)
    csr = clean(_text(fields, "csr", MAX_REQUEST_TEXT))
    if not csr:
        raise _malformed("the field csr is missing or empty")
    return SignRequest(
        csr=csr,
        claims=claims,
        destination=_text(fields, "destination", MAX_PATH_TEXT),
        medium=_medium(fields, claims),
        timestamp=_timestamp(fields),
        logs=_logs(fields),
        grant=_text(fields, "grant", MAX_TEXT),
        answers_nonces=_answers_nonces(fields),
        proof=_text(fields, "proof", MAX_SIGNATURE),
    )


def _refuse_token(fields: dict[str, object]) -> None:
    """What crosses this port can be listened to: whoever sends a token here must hear that it is no secret any more."""
    if "token" in fields:
        raise EnrollmentRefused(
            Step.MESSAGE,
            "the field token is not taken, since whoever listens would have the token.",
            'Send its proof for this request, "grant": "ID.PROOF", as the reference of the wire has it, '
            "and with a token of a new grant: withdraw the grant of this one.",
        )


def _acknowledgement(fields: dict[str, object]) -> Acknowledgement:
    has_files = fields.get("hasRequiredFiles")
    if has_files is not None and not isinstance(has_files, bool):
        raise _malformed("the field hasRequiredFiles must be true or false")
    is_error = fields.get("isError", False)
    if not isinstance(is_error, bool):
        raise _malformed("the field isError must be true or false")
    return Acknowledgement(is_error=is_error, has_required_files=has_files, logs=_logs(fields))


def _text(fields: dict[str, object], name: str, limit: int) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _malformed(f"the field {name} must be text")
    if len(value) > limit:
        raise _malformed(f"the field {name} is longer than {limit} characters")
    return value


def _medium(fields: dict[str, object], claims: Claims) -> int:
    """The message's own word, else what SETUP said, else file-system access."""
    value = fields.get("medium")
    if value is None:
        return FILE_SYSTEM_ACCESS if claims.medium is None else claims.medium
    medium = whole_number(value, MAX_MEDIUM)
    if medium is None:
        raise _malformed("the field medium must be a whole number")
    return medium


def _answers_nonces(fields: dict[str, object]) -> bool:
    value = fields.get("nonce")
    if value is None:
        return False
    level = whole_number(value, MAX_MEDIUM)
    if level is None:
        raise _malformed("the field nonce must be a whole number")
    return level >= LEVEL


def _timestamp(fields: dict[str, object]) -> datetime | None:
    value = fields.get("timestamp")
    if value is None:
        return None
    milliseconds = whole_number(value, MAX_TIMESTAMP_MS)
    if milliseconds is None:
        raise _malformed("the field timestamp must be the milliseconds since 1970, as a whole number")
    return datetime.fromtimestamp(milliseconds // 1000, UTC)


def _logs(fields: dict[str, object]) -> tuple[str, ...]:
    value = fields.get("logs")
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _malformed("the field logs must be a list of lines")
    return tuple(line for line in value[:MAX_LOG_LINES] if isinstance(line, str))


def _malformed(reason: str) -> EnrollmentRefused:
    return EnrollmentRefused(Step.MESSAGE, f"{reason}.", "The app's SDK must send the message as documented.")


def _date(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _duration(difference: timedelta) -> str:
    hours = difference.total_seconds() / 3600
    return f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"
