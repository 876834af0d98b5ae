"""Whose pages may connect: the `Origin` header, read strictly and compared host by host. Pure.

A browser names in `Origin` the site whose script opens a WebSocket, and no script can change that. So a page from
elsewhere is told apart by its host alone, whatever name it has resolved to this machine. What is no browser may write
there what it likes: it runs on this machine anyhow. js-flipper's users in Node set `localhost:`, without a scheme.

Not let in: no Origin at all, `null` (files and sandboxed frames), several hosts, any scheme but http and https, and
hosts that only look like one that is listed (`localhost.example.org`, `localhost@example.org`).
"""

import ipaddress
import re
from collections.abc import Collection
from typing import Final

from rsocket_broker.errors import ConfigurationError

LOCALHOST: Final = "localhost"
"""Pages of a developer's own machine. Always listed."""
MAX_HOST: Final = 253
"""Characters of a host name (RFC 1035 2.3.4, without its last dot)."""

_NAME: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST: Final = rf"{_NAME}(?:\.{_NAME})*|\[[0-9A-Fa-f:.]{{2,45}}\]"
_ORIGIN: Final = re.compile(rf"(?:https?://)?({_HOST})(?::[0-9]{{0,5}})?", re.ASCII)


def host_of(origin: str | None) -> str | None:
    """The host in an origin, in the one way in which it is compared; None for what names none."""
    found = None if origin is None or len(origin) > 2 * MAX_HOST else _ORIGIN.fullmatch(origin)
    return None if found is None else _plain(found[1])


def is_allowed(origin: str | None, hosts: Collection[str]) -> bool:
    """Whether pages of this origin may connect. `hosts` are as `listed_host` gives them; any port will do."""
    host = host_of(origin)
    return host is not None and (host == LOCALHOST or host in hosts)


def listed_host(text: str) -> str:
    """A host that an operator lists, by its name or address. Raises ConfigurationError, in words for the operator."""
    bare = f"[{text}]" if ":" in text and not text.startswith("[") else text
    host = _plain(bare) if len(text) <= MAX_HOST and re.fullmatch(_HOST, bare, re.ASCII) else None
    if host is None:
        raise ConfigurationError(
            f"{text[:MAX_HOST]!r} is no host: give its name or address alone, such as dev.example.org, without "
            "http://, port, path or *."
        )
    return host


def _plain(host: str) -> str | None:
    """In lower case, an IPv6 address in its shortest form; None for brackets around something else."""
    if not host.startswith("["):
        return host.lower() if len(host) <= MAX_HOST else None
    try:
        return f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]"
    except ValueError:
        return None
