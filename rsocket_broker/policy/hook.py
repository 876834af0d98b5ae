"""The table `[hook]`: whom to ask where a rule's effect is "ask".

url          http://127.0.0.1:PORT/PATH on this machine, https://HOST/PATH anywhere, or unix:/PATH/OF/SOCKET
timeout      seconds until no answer is a no
ttl          seconds for which an answer holds for the same question; 0: only for the call that it was asked for
concurrency  questions under way at once; those beyond wait, at most `timeout`
"""

import ipaddress
from collections.abc import Mapping
from typing import Self
from urllib.parse import SplitResult, urlsplit

import attrs

from rsocket_broker.errors import ConfigurationError
from rsocket_broker.spelling import nearest

TIMEOUT_S, MAX_TIMEOUT_S = 2.0, 60.0
"""A client waits for its call meanwhile, and most give up after some seconds."""
TTL_S, MAX_TTL_S = 30.0, 86_400.0
"""How stale a yes may be: as long as it takes an operator to wonder why."""
CONCURRENCY, MAX_CONCURRENCY = 16, 1024
"""A small service of one process answers so many at once."""
UNIX = "unix:"

_NUMBERS: Mapping[str, tuple[float, float]] = {
    "timeout": (0.01, MAX_TIMEOUT_S),
    "ttl": (0, MAX_TTL_S),
    "concurrency": (1, MAX_CONCURRENCY),
}


@attrs.frozen(slots=True, kw_only=True)
class HookSettings:
    """Whom to ask, and how patiently."""

    url: str
    timeout: float = TIMEOUT_S
    ttl: float = TTL_S
    concurrency: int = CONCURRENCY

    @classmethod
    def parse(cls, table: Mapping[str, object], where: str) -> Self:
        """Raises ConfigurationError naming the key that is missing, unknown or wrong; `where` names the table."""
        known = ("url", *_NUMBERS)
        for key in table:
            if key not in known:
                raise ConfigurationError(f'{where}: unknown key "{key}". {nearest(key, known)}')
        url = table.get("url")
        if not isinstance(url, str):
            raise ConfigurationError(f"{where}: url must say whom to ask, as a string.")
        _check_url(url, where)
        numbers = {key: _number(table[key], key, where) for key in _NUMBERS if key in table}
        return cls(url=url, **numbers)  # type: ignore[arg-type]  # a whole concurrency is checked for


def _number(value: object, key: str, where: str) -> float | int:
    least, most = _NUMBERS[key]
    wanted = int if key == "concurrency" else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted) or not least <= value <= most:
        raise ConfigurationError(f"{where}: {key} must be a number from {least:g} to {most:g}, not {value!r:.40}.")
    return value


def _check_url(url: str, where: str) -> None:
    if url.startswith(UNIX):
        if not url.removeprefix(UNIX).startswith("/"):
            raise ConfigurationError(f"{where}: url must have the whole path of the socket: unix:/run/decide.sock")
        return
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"{where}: url is none: {error}.") from None
    if parts.scheme not in ("http", "https") or not host or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError(f"{where}: url must be http://, https:// or unix:/, not {url[:80]!r}.")
    if parts.username is not None or parts.fragment:
        raise ConfigurationError(f"{where}: url must hold no user, no password and no fragment.")
    if parts.scheme == "http" and not _on_loopback(parts):
        raise ConfigurationError(
            f"{where}: what goes to {host} must not be readable on the way there: use https://, or an address of this "
            "machine such as 127.0.0.1."
        )


def _on_loopback(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
