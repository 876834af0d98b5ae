"""Which exchanges are meant: by method, URL, status or state, and age."""

from typing import NamedTuple

from rsocket_broker.plugin_api import Invalid
from rsocket_broker.plugins.network.traffic import Exchange

STATES = ("open", "partial", "done", "orphan")
STAR = "*"


class Wanted(NamedTuple):
    """What is asked for; a field that is empty holds for all. Made by `wanted`."""

    method: str
    url: str
    statuses: tuple[range | str, ...]
    after: int

    def fits(self, exchange: Exchange) -> bool:
        """Whether the exchange is meant."""
        request = exchange.request
        return (
            exchange.number > self.after
            and (not self.method or (request is not None and request.method == self.method))
            and (not self.url or (request is not None and matches(self.url, request.url)))
            and (not self.statuses or any(_has(exchange, one) for one in self.statuses))
        )

    @property
    def words(self) -> str:
        """What is asked for, for a message."""
        statuses = ",".join(one if isinstance(one, str) else _spelt(one) for one in self.statuses)
        said = (self.method or "exchange", self.url and f"of {self.url}", statuses and f"with status {statuses}")
        return " ".join(filter(None, said))


def wanted(method: str = "", url: str = "", status: str | int = "", after: int = 0) -> Wanted:
    """What these stand for. `url` is a part of the URL or, with a star in it, the pattern of all of it; `status` a
    number, 2xx, 200-299, a state, or several of these with commas. Raises Invalid."""
    parts = [part.strip().lower() for part in str(status).split(",")]
    return Wanted(method.upper(), url, tuple(_status(part) for part in parts if part), after)


def matches(pattern: str, url: str) -> bool:
    """Whether a URL holds the pattern, or is all of it where there is a star in that, for any text."""
    first, *others = pattern.split(STAR)
    if not others:
        return pattern in url
    *middle, last = others
    if not url.startswith(first) or not url.endswith(last) or len(url) < len(first) + len(last):
        return False
    at, end = len(first), len(url) - len(last)
    for piece in middle:
        found = url.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _status(text: str) -> range | str:
    if text in STATES:
        return text
    if len(text) == 3 and text[0].isdigit() and text.endswith("xx"):
        return range(int(text[0]) * 100, int(text[0]) * 100 + 100)
    low, dash, high = text.partition("-")
    if low.isdecimal() and len(low) <= 3 and (not dash or (high.isdecimal() and len(high) <= 3)):
        return range(int(low), int(high or low) + 1)
    raise Invalid(f"status: wanted a number, 2xx, 200-299 or one of {', '.join(STATES)}, with commas between several.")


def _has(exchange: Exchange, wanted: range | str) -> bool:
    if isinstance(wanted, str):
        return exchange.state == wanted
    return exchange.head is not None and exchange.head.status in wanted


def _spelt(numbers: range) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
