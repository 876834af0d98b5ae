"""Figures of an app's traffic: how much, how fast, how well, by host."""

from collections import Counter
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from rsocket_broker.plugins.network.messages import size
from rsocket_broker.plugins.network.traffic import Exchange

MAX_HOSTS = 50
"""Hosts that are listed, those with the most exchanges first."""


def statistics(exchanges: Iterable[Exchange]) -> dict[str, Any]:
    """Times in milliseconds, sizes in bytes of what travelled to us."""
    found = list(exchanges)
    by_host: dict[str, list[Exchange]] = {}
    for one in found:
        by_host.setdefault(_host(one), []).append(one)
    busiest = sorted(by_host.items(), key=lambda item: len(item[1]), reverse=True)[:MAX_HOSTS]
    return {**_figures(found), "hosts": [{"host": host, **_figures(theirs)} for host, theirs in busiest]}


def _figures(exchanges: list[Exchange]) -> dict[str, Any]:
    times = sorted(one.duration for one in exchanges if one.duration is not None)
    statuses = Counter(f"{one.head.status // 100}xx" for one in exchanges if one.head is not None)
    return {
        "exchanges": len(exchanges),
        "unanswered": sum(one.state == "open" for one in exchanges),
        "statuses": dict(sorted(statuses.items())),
        "request_bytes": sum(size(one.request.body) for one in exchanges if one.request is not None),
        "response_bytes": sum(one.received for one in exchanges),
        "median": _quantile(times, 0.5),
        "p95": _quantile(times, 0.95),
        "slowest": times[-1] if times else None,
    }


def _quantile(times: list[float], share: float) -> float | None:
    """The smallest time that `share` of all do not exceed."""
    return times[max(0, -int(-len(times) * share // 1) - 1)] if times else None


def _host(exchange: Exchange) -> str:
    if exchange.request is None:
        return ""
    try:
        return urlsplit(exchange.request.url).hostname or ""
    except ValueError:
        return ""
