"""Mock routes: what an app answers itself in place of its server (Android, where the app was built for it).

The app takes the whole list at a time, forgets it with its session, and looks at no `enabled`: so the list is kept
here for each client, and is sent anew, without the routes that are off, whenever the client is back.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from rsocket_broker.plugin_api import Invalid

MAX_ROUTES = 200
"""Routes of one client: the app compares each request with all of them."""
MAX_BYTES = 4 * 1024 * 1024
"""Characters of all routes of one client together: they are sent in one message, and SDKs take 16 MiB."""
MAX_CLIENTS = 64
"""Clients that have routes. They are kept while the broker runs, also for clients that never come back."""
MAX_URL = 2000
"""Characters of a route's address."""

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


class Mock(NamedTuple):
    """A request whose URL contains `url` is answered so. `body` is text: the app serves nothing else."""

    url: str
    method: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: str
    enabled: bool

    def shown(self) -> dict[str, object]:
        """As JSON, for people."""
        return {**self._asdict(), "headers": dict(self.headers)}

    @property
    def size(self) -> int:
        return len(self.url) + len(self.body) + sum(len(name) + len(value) for name, value in self.headers)


Mocks = tuple[Mock, ...]


def mock(url: str, method: str, status: int, headers: Mapping[str, str], body: str, *, enabled: bool) -> Mock:
    """A checked route. Raises Invalid."""
    if not url or len(url) > MAX_URL:
        raise Invalid(f"url: wanted a part of the address, of 1 to {MAX_URL} characters. There are no wildcards.")
    if method.upper() not in METHODS:
        raise Invalid(f"method: wanted one of {', '.join(METHODS)}.")
    if not 100 <= status <= 599:
        raise Invalid("status: wanted a number from 100 to 599.")
    for name, value in headers.items():
        if not name or not f"{name}{value}".isprintable() or ":" in name:
            raise Invalid("headers: wanted names and values without line ends.")
    return Mock(url, method.upper(), status, tuple(headers.items()), body, enabled)


def added(mocks: Mocks, new: Mock) -> Mocks:
    """With one more, which takes the place of that for the same address and method. Raises Invalid."""
    others = tuple(one for one in mocks if (one.url, one.method) != (new.url, new.method))
    found = (*others, new)
    if len(found) > MAX_ROUTES or sum(one.size for one in found) > MAX_BYTES:
        raise Invalid(f"A client has up to {MAX_ROUTES} mock routes, of {MAX_BYTES} characters together.")
    return found


def removed(mocks: Mocks, url: str, method: str) -> Mocks:
    """Without those for an address, and a method where one is given. Raises Invalid where there is none."""
    kept = tuple(one for one in mocks if one.url != url or (method and one.method != method.upper()))
    if len(kept) == len(mocks):
        raise Invalid("There is no such mock route.")
    return kept


def wire(mocks: Iterable[Mock]) -> dict[str, object]:
    """As the app takes them: always with data, statuses as text, none that is off, and only the first of those whose
    address holds the same text."""
    return {
        "routes": [
            {
                "requestUrl": one.url,
                "method": one.method,
                "data": one.body,
                "headers": [{"key": name, "value": value} for name, value in one.headers],
                "status": str(one.status),
                "enabled": True,
            }
            for one in mocks
            if one.enabled
        ]
    }


def overlapping(mocks: Iterable[Mock]) -> list[str]:
    """In words: routes of which one request may fit several. The app looks at them in no order that can be told."""
    live = [one for one in mocks if one.enabled]
    return [
        f"{one.method} {one.url} and {other.url}: a request that fits both gets either answer"
        for index, one in enumerate(live)
        for other in live[index + 1 :]
        if one.method == other.method and (one.url in other.url or other.url in one.url)
    ]
