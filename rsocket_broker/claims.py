"""What a peer says of itself in its SETUP data. Claims are for display and diagnosis; a certificate says who it is.

The data is one JSON object. Over WebSocket the query of the address stands for it, where everything is text, and `csr`
is in base64. Fields, with the type that they have in JSON:

    os, device, app           text; a Flipper SDK sends all three
    device_id, app_id         text; "" and "unknown" say nothing
    sdk_version, medium       whole numbers, also accepted as decimal text
    csr, csr_path             text: the PEM request and the folder that the app keeps it in
    identity                  a whole number: 1 says that the client renews its certificate over its session

Unknown fields are ignored, and null is the same as absent.
"""

import base64
import binascii
from collections.abc import Collection, Mapping
from typing import Final, Self
from urllib.parse import parse_qsl

import attrs

from rsocket_broker.credentials import FALLBACK_COMMON_NAME
from rsocket_broker.errors import SetupRefused
from rsocket_broker.identity import Identity, Principal
from rsocket_broker.jsontext import JsonError, parse_object

KNOWN_OS = ("Android", "iOS", "MacOS", "Windows", "Linux")
"""The systems that the bundled medium drivers know; a driver may name more."""

MAX_TEXT = 1024
"""Characters of a name or an id. Real ones stay below 100; what is longer is no name, and would fill lists and logs."""
MAX_REQUEST_TEXT = 64 * 1024
"""Characters of `csr`: the size up to which a signing request is looked at."""
MAX_PATH_TEXT = 4096
"""Characters of `csr_path`: PATH_MAX of Linux, the longest of the systems served."""
MAX_NUMBER = 1_000_000
"""Upper end of `sdk_version`, `medium` and `identity`, whose real values are below 10."""

_NUMBERS = ("sdk_version", "medium", "identity")
_TEXT_LIMITS = {
    "os": MAX_TEXT,
    "device": MAX_TEXT,
    "device_id": MAX_TEXT,
    "app": MAX_TEXT,
    "app_id": MAX_TEXT,
    "csr": MAX_REQUEST_TEXT,
    "csr_path": MAX_PATH_TEXT,
}
_NEEDED = ("os", "device", "app")
MAX_FIELDS: Final = 64
"""Fields of one query: SDKs send nine."""
_SETUP: Final = "SETUP data"
_QUERY: Final = "query"
_SAYS_NOTHING = ("", "unknown")


@attrs.frozen(slots=True, kw_only=True)
class Claims:
    """The claims of one connection. Text that was absent is ""; `sdk_version` is then 0 and `medium` None."""

    os: str = ""
    device: str = ""
    device_id: str = ""
    app: str = ""
    app_id: str = ""
    sdk_version: int = 0
    medium: int | None = None
    csr: str = attrs.field(default="", repr=False)
    csr_path: str = ""
    identity: bool = False
    """It serves `identity.trust` and `identity.renew`, and asks for `identity.renew` itself."""

    @classmethod
    def parse(cls, data: bytes, *, required: bool, known_os: Collection[str] = KNOWN_OS) -> Self:
        """The claims in SETUP data (UTF-8 JSON, or nothing at all).

        `required` asks for `os` (one of `known_os`), `device` and `app`, as the plain endpoint does.
        Raises SetupRefused, whose text names the field at fault.
        """
        if not data and not required:
            return cls()
        return cls._of(_fields(data), _SETUP, known_os if required else None, required=required)

    @classmethod
    def from_query(cls, query: str, *, required: bool = True, known_os: Collection[str] | None = None) -> Self:
        """The claims in the query of a WebSocket's address (form encoding: + is a space).

        `required` asks for `os`, `device` and `app`, and for one of `known_os` where those are given.
        Raises SetupRefused, whose text names the field at fault.
        """
        fields: dict[str, object] = dict(query_fields(query))
        for name in _NUMBERS:
            if fields.get(name) == "":
                del fields[name]
        fields.pop("identity", None)  # what it promises is asked for by route
        if "csr" in fields:
            fields["csr"] = _request_text(str(fields["csr"]))
        return cls._of(fields, _QUERY, known_os, required=required)

    @classmethod
    def _of(cls, fields: Mapping[str, object], where: str, known_os: Collection[str] | None, *, required: bool) -> Self:
        texts = {name: _text(fields, name, limit, where) for name, limit in _TEXT_LIMITS.items()}
        numbers = {name: _number(fields, name, where) for name in _NUMBERS}
        if required:
            _check_needed(texts, known_os, where)
        return cls(
            **texts,
            sdk_version=numbers["sdk_version"] or 0,
            medium=numbers["medium"],
            identity=bool(numbers["identity"]),
        )

    @property
    def is_flipper(self) -> bool:
        """Whether the peer presents itself as a Flipper SDK does."""
        return bool(self.os and self.device and self.app)


def contradiction(claims: Claims, identity: Identity | Principal) -> str | None:
    """What in the claims cannot be true of `identity`, as a sentence that names the field; None when nothing is.

    A claim counts when it is present, not empty and not "unknown", and the identity says something on the matter.
    `app` is a label that every app may choose, and `com.flipper` stands for whatever package was proven.
    """
    if claims.app_id not in (*_SAYS_NOTHING, FALLBACK_COMMON_NAME, identity.app_id):
        return f"app_id is {shown(claims.app_id)}, but the certificate is for {identity.app_id}."
    if identity.device_id and claims.device_id not in (*_SAYS_NOTHING, identity.device_id):
        return f"device_id is {shown(claims.device_id)}, but the certificate is for {identity.device_id}."
    return None


def shown(text: str, limit: int = 200) -> str:
    """Text of a peer made fit for a log line or a message: one line, no control characters, at most `limit` long."""
    cut = text if len(text) <= limit else f"{text[:limit]}…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in cut)


def query_fields(query: str) -> dict[str, str]:
    """The fields of a query, decoded, blank ones too. Raises SetupRefused."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except UnicodeDecodeError:
        raise SetupRefused("The query is not UTF-8.") from None
    except ValueError:
        raise SetupRefused(f"The query has more than {MAX_FIELDS} fields.") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(name for name in fields if sum(name == other for other, _ in pairs) > 1)
        raise SetupRefused(f"The field {shown(twice, 80)} of the query is there twice.")
    return fields


def _request_text(encoded: str) -> str:
    """The PEM text in the `csr` of a query: base64 of which SDKs cut off the last character, whatever that is.

    Without padding that loses the end of the last byte, which is the last line's end. Raises SetupRefused.
    """
    bare = "".join(encoded.replace(" ", "+").split()).rstrip("=")
    if len(bare) % 4 == 1:
        bare = bare[:-1]
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise SetupRefused("The field csr of the query is not a signing request in base64.") from None


def _fields(data: bytes) -> dict[str, object]:
    if not data:
        return {}
    try:
        return parse_object(data)
    except JsonError as error:
        raise SetupRefused(
            f"The data of SETUP is {error}: it must be one JSON object with the client's claims."
        ) from None


def _text(fields: Mapping[str, object], name: str, limit: int, where: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise SetupRefused(f"The field {name} of the {where} must be text.")
    if len(value) > limit:
        raise SetupRefused(f"The field {name} of the {where} is longer than {limit} characters.")
    return value


def _number(fields: Mapping[str, object], name: str, where: str) -> int | None:
    value = whole_number(fields.get(name), MAX_NUMBER)
    if value is None and fields.get(name) is not None:
        raise SetupRefused(f"The field {name} of the {where} must be a whole number from 0 to {MAX_NUMBER}.")
    return value


def whole_number(value: object, highest: int) -> int | None:
    """`value` as a number from 0 to `highest`, where it is one or its decimal text; otherwise None."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(highest)):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= highest:
        return value
    return None


def _check_needed(texts: Mapping[str, str], known_os: Collection[str] | None, where: str) -> None:
    for name in _NEEDED:
        if not texts[name]:
            raise SetupRefused(f"The field {name} is missing in the {where}.")
    if known_os is not None and texts["os"] not in known_os:
        raise SetupRefused(f"The field os of the {where} is {shown(texts['os'])}, not one of {', '.join(known_os)}.")
