"""What may be set, and the strict reading of HOME/config.toml.

A table of the file belongs to a command and holds its options under their long names (`[serve]`, `[clients.list]`),
except `[plugins.ID]`, which is handed to the plugin ID. Nothing is ignored: an unknown name is an error that
offers the nearest known one, a wrong type an error that says which type is wanted.
"""

import ipaddress
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from rsocket_broker.enrollment.modes import Mode
from rsocket_broker.enrollment.throttle import EnrollmentLimits
from rsocket_broker.errors import ConfigurationError
from rsocket_broker.files import read_owned
from rsocket_broker.protocol.limits import LEASE_REQUESTS, RESUME_BYTES, RESUME_SECONDS
from rsocket_broker.quota import ALL, PER_IDENTITY
from rsocket_broker.sessions.live import DuplicateRule, SessionLimits
from rsocket_broker.spelling import nearest as nearest

LOCALHOST = "localhost"
EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  compared with, never bound to unasked
INSECURE_PORT = 8089
SECURE_PORT = 8088
WS_INSECURE_PORT = 9089
WS_SECURE_PORT = 9088
BROWSER_PORT = 8333
"""The numbers that are built into shipped SDKs."""

CONFIG_LIMIT = 1024 * 1024
"""Bytes of config.toml that are read: a hundred times what anyone writes by hand."""


@attrs.frozen(slots=True)
class Wanted:
    """The type that a key must have. `words` is how a message names it; `item` the type of a list's items.

    `choices` are the only strings for a key that is one; `also` are strings that stand beside the values of its type.
    """

    kind: type
    words: str
    item: type = str
    choices: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    def accepts(self, value: object) -> bool:
        if isinstance(value, str) and value in self.also:
            return True
        if self.kind is list:
            return isinstance(value, list) and all(_is(item, self.item) for item in value)
        return _is(value, self.kind) and (not self.choices or value in self.choices)

    def misfit(self, value: object) -> str:
        """What a value that is not accepted is, for a message: of a list, its first item that does not belong there."""
        if self.kind is list and isinstance(value, list):
            return "a list with " + next(_described(item) for item in value if not _is(item, self.item))
        return _described(value)


def _is(value: object, kind: type) -> bool:
    """True and false are whole numbers to Python, but not to the one who wrote the file."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def check_table(table: Mapping[str, object], known: Mapping[str, Wanted], where: str) -> None:
    """Raises ConfigurationError for the first key that is unknown or of a wrong type; `where` names the table."""
    for key, value in table.items():
        if key not in known:
            raise ConfigurationError(f'{where}: unknown key "{key}". {nearest(key, known)}')
        if not known[key].accepts(value):
            found = known[key].misfit(value)
            raise ConfigurationError(f'{where}: "{key}" must be {known[key].words}, not {found}.')


def _described(value: object) -> str:
    names: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
    names |= {list: "a list", dict: "a table"}
    kind = names.get(type(value), "a date or time")
    return f"{kind} ({value!r})" if isinstance(value, bool | int | float | str) else kind


@attrs.frozen(slots=True)
class Config:
    """HOME/config.toml as written. `path` is for messages."""

    path: Path
    tables: Mapping[str, object] = attrs.field(factory=dict)

    def where(self, keys: tuple[str, ...]) -> str:
        return f"{self.path} [{'.'.join(keys)}]"

    def options(self, keys: tuple[str, ...]) -> Mapping[str, object]:
        """The table at `keys`, empty where there is none. Raises ConfigurationError where it is not a table."""
        table: object = self.tables
        for depth, key in enumerate(keys):
            table = table.get(key, {}) if isinstance(table, Mapping) else table
            if not isinstance(table, Mapping):
                raise ConfigurationError(f"{self.where(keys[: depth + 1])} must be a table, not {_described(table)}.")
        return table if isinstance(table, Mapping) else {}

    def check_names(self, keys: tuple[str, ...], known: Iterable[str]) -> None:
        """Raises ConfigurationError for a name below `keys` that is none of `known`."""
        names = set(known)
        where = self.where(keys) if keys else str(self.path)
        for name, value in self.options(keys).items():
            if name not in names:
                raise ConfigurationError(f'{where}: unknown table "{name}". {nearest(name, names)}')
            if not isinstance(value, Mapping):
                raise ConfigurationError(f'{where}: "{name}" must be a table, not {_described(value)}.')


def read_config(path: Path) -> Config:
    """The file at `path`, or an empty Config where there is none.

    Raises ConfigurationError for text that is not TOML (with its line), HomeError for a file that is unreadable,
    absurdly large, or can be changed by other users: they could make this broker load their code.
    """
    if not os.path.lexists(path):
        return Config(path)
    import tomllib  # most brokers have no such file, and start 10 ms sooner

    text = read_owned(path, CONFIG_LIMIT)
    try:
        return Config(path, tomllib.loads(text.decode()))
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}.") from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`. A name other than localhost may mean anything."""
    try:
        return host == LOCALHOST or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@attrs.frozen(slots=True, kw_only=True)
class ListenSettings:
    """Where the broker listens; port 0 is any free one, None none at all.

    `insecure_host` None is `host` where that is loopback, else localhost: strangers from the network may ask for
    certificates only where the operator says so. `names` are further names under which clients reach the broker,
    for the server's certificate. `http_port` and `browser_port` are on loopback whatever the hosts say; pages of
    localhost, and of the hosts in `browser_origins`, may use the latter. `ws_secure_port` is the well-known
    one beside the well-known `secure_port`, else any free one, so that two brokers on other ports never meet there;
    likewise `ws_insecure_port`, which listens where `insecure_port` does.
    """

    host: str = LOCALHOST
    insecure_host: str | None = None
    insecure_port: int = INSECURE_PORT
    secure_port: int = SECURE_PORT
    http_port: int | None = None
    browser_port: int | None = None
    browser_origins: tuple[str, ...] = ()
    ws_secure_port: int | None = attrs.field()
    ws_insecure_port: int | None = attrs.field()
    names: tuple[str, ...] = ()

    @ws_secure_port.default
    def _beside(self) -> int:
        return WS_SECURE_PORT if self.secure_port == SECURE_PORT else 0

    @ws_insecure_port.default
    def _beside_the_plain(self) -> int:
        return WS_INSECURE_PORT if self.insecure_port == INSECURE_PORT else 0

    @property
    def plain_host(self) -> str:
        if self.insecure_host is not None:
            return self.insecure_host
        return self.host if is_loopback(self.host) else LOCALHOST

    @property
    def on_loopback(self) -> bool:
        """Whether sessions are served on loopback, be it among other addresses."""
        return is_loopback(self.host) or self.host in EVERY_ADDRESS

    @property
    def certificate_hosts(self) -> tuple[str, ...]:
        """The names that the server's certificate must carry besides those of loopback."""
        own = [] if self.on_loopback else [self.host]
        return tuple(dict.fromkeys([*own, *self.names]))


@attrs.frozen(slots=True, kw_only=True)
class Settings:
    """Everything that one broker is told.

    `enrollment_mode` None is the choice of `mode`. With `require_nonce` nobody enrols through files who does not sign a
    nonce that was put into the app's folder. `duplicate` None leaves the rule to the kind of the session. `allow_relay`
    lets clients send requests to each other, as far as the policy does not say no; `vendor_policy` is the file with the
    rules that stand above the operator's. A session whose line is lost waits `resume_seconds` for its client (0: not at
    all) and retains `resume_bytes` for it. All lines of one identity together may make us hold `identity_bytes`, and
    all of all `total_bytes` before it is asked who has more than a share. A client with leases may send
    `lease_requests` in each period. `adb` is auto, off or HOST:PORT. `plugins` are paths or names of plugins to load.
    `plugin_tables` and `medium_tables` are as written in the config, by id and name. `device_ports` are the numbers
    that apps on devices dial for enrolment and for sessions, `device_web_ports` those that they dial over WebSocket.
    `passphrase` opens the CA's key where that is encrypted.
    """

    home: Path
    listen: ListenSettings = attrs.field(factory=ListenSettings)
    sessions: SessionLimits = attrs.field(factory=SessionLimits)
    enrollment: EnrollmentLimits = attrs.field(factory=EnrollmentLimits)
    enrollment_mode: Mode | None = None
    require_nonce: bool = False
    duplicate: DuplicateRule | None = None
    allow_relay: bool = False
    vendor_policy: Path | None = None
    resume_seconds: float = RESUME_SECONDS
    resume_bytes: int = RESUME_BYTES
    lease_requests: int = LEASE_REQUESTS
    identity_bytes: int = PER_IDENTITY
    total_bytes: int = ALL
    adb: str = "auto"
    plugins: tuple[str, ...] = ()
    plugin_tables: Mapping[str, Mapping[str, object]] = attrs.field(factory=dict)
    medium_tables: Mapping[str, Mapping[str, object]] = attrs.field(factory=dict)
    device_ports: tuple[int, int] = (INSECURE_PORT, SECURE_PORT)
    device_web_ports: tuple[int, int] = (WS_INSECURE_PORT, WS_SECURE_PORT)
    passphrase: bytes | None = attrs.field(default=None, repr=False)
    trace_frames: tuple[str, ...] = ()
    """Whose frames go into the log: app_id, app_id@device_id, the id of a session, or all."""

    @property
    def mode(self) -> Mode:
        """How apps enrol: unless it is said, whoever reaches a plain port on loopback may, and elsewhere nobody
        before the operator opens a window."""
        if self.enrollment_mode is not None:
            return self.enrollment_mode
        return Mode.OPEN if is_loopback(self.listen.plain_host) else Mode.WINDOW
