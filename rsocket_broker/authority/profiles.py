"""Certificate profiles, read from `rsocket_broker.certs`: what each kind of certificate may be."""

import enum
import functools
from collections.abc import Callable, Mapping
from datetime import timedelta

import attrs

from rsocket_broker.authority.keys import MADE_HERE
from rsocket_broker.errors import ConfigurationError

ROOT, BROKER, CLIENT, OPERATOR = "root", "broker", "client", "operator"
CROSS = "cross"
"""Not a profile but a kind of its own in the inventory: a CA certificate of one generation for the key of another."""
CLIENT_PROFILES = (CLIENT, OPERATOR)
"""The profiles whose certificates make an identity."""

KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)
EXTENDED_KEY_USAGES = ("server_auth", "client_auth")
MAX_VALIDITY_DAYS = 36500
MAX_BACKDATE_HOURS = 24 * 7


class Names(enum.Enum):
    """What stands among the alternative names."""

    NONE = "none"
    HOSTS = "hosts"
    IDENTITY = "identity"


@attrs.frozen(slots=True)
class Profile:
    """One kind of certificate. `subject` is its common name with {common_name}, {generation}, {key_id} filled in;
    `key` the kind of key we make for it, or None where the requester brings one."""

    name: str
    subject: str
    names: Names
    key: str | None
    validity: timedelta
    backdate: timedelta
    ca: bool
    key_usage: frozenset[str]
    extended_key_usage: tuple[str, ...]


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a text")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _whole(low: int, high: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return check


def _kind(value: object) -> str:
    if value not in MADE_HERE:
        raise ValueError(f"must be one of {', '.join(MADE_HERE)}")
    return str(value)


def _some_of(choices: tuple[str, ...]) -> Callable[[object], tuple[str, ...]]:
    def check(value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or any(item not in choices for item in value):
            raise ValueError(f"must be a list with some of {', '.join(choices)}")
        return tuple(value)

    return check


_KEYS: dict[str, Callable[[object], object]] = {
    "subject": _text,
    "names": Names,
    "key": _kind,
    "validity_days": _whole(1, MAX_VALIDITY_DAYS),
    "backdate_hours": _whole(0, MAX_BACKDATE_HOURS),
    "ca": _flag,
    "key_usage": _some_of(KEY_USAGES),
    "extended_key_usage": _some_of(EXTENDED_KEY_USAGES),
}
_OPTIONAL = {"key"}


def parse_profile(name: str, table: Mapping[str, object]) -> Profile:
    """The profile that a TOML table describes. Raises ConfigurationError naming the profile and the key at fault."""
    for key in table:
        if key not in _KEYS:
            raise ConfigurationError(f"Profile {name}: there is no key {key!r}; known are {', '.join(_KEYS)}.")
    found: dict[str, object] = {}
    for key, check in _KEYS.items():
        if key not in table:
            if key in _OPTIONAL:
                continue
            raise ConfigurationError(f"Profile {name}: the key {key!r} is missing.")
        try:
            found[key] = check(table[key])
        except ValueError as error:
            raise ConfigurationError(f"Profile {name}: {key} {error}.") from error
    return _build(name, found)


def _build(name: str, found: dict[str, object]) -> Profile:
    days, hours = found.pop("validity_days"), found.pop("backdate_hours")
    usage = found.pop("key_usage")
    assert isinstance(days, int)
    assert isinstance(hours, int)
    assert isinstance(usage, tuple)
    return Profile(
        name=name,
        validity=timedelta(days=days),
        backdate=timedelta(hours=hours),
        key_usage=frozenset(usage),
        **{"key": None} | found,  # type: ignore[arg-type]  # each value was checked by its row in _KEYS
    )


@functools.cache
def load_profile(name: str) -> Profile:
    """The bundled profile `name`. Raises ConfigurationError when there is none, or it is malformed."""
    import importlib.resources  # needed where a certificate is made, which is at no usual start
    import tomllib

    source = importlib.resources.files("rsocket_broker.certs").joinpath("profiles", f"{name}.toml")
    try:
        table = tomllib.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"There is no certificate profile {name!r}.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"Profile {name}: {error}.") from error
    return parse_profile(name, table)
