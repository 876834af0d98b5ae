"""What one app has sent and received, put together from its events and kept within bounds. Time is passed in.

    Exchange   a request and its response, as far as they are known
    Traffic    the exchanges of one app's session, oldest first
    Shelf      what all apps together take; the oldest exchange of all makes room when it is full

An exchange goes through these states:

    open        a request without a response, perhaps for ever: an app tells nothing of a request that failed
    partial     the response has begun, and parts of its body are missing
    done        the response is there
    orphan      a response, or a part of it, whose request the app never told: its buffer was full
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from rsocket_broker.plugins.network.messages import Body, Encoded, Head, Part, Request, size

MAX_EXCHANGES = 2000
"""Exchanges of one app: four times what an SDK keeps for us, and a long test's worth."""
MAX_BYTES = 32 * 1024 * 1024
"""Bytes of one app's exchanges: a few hundred pages with their pictures."""
MAX_TOTAL = 256 * 1024 * 1024
"""Bytes of all apps' exchanges together."""
PART = 100
"""Bytes that a part of a body takes besides what is in it."""
OVERHEAD = 600
"""Bytes that an exchange takes besides its texts and bodies; about what Python needs for the objects."""

Watcher = Callable[[str, "Exchange | None"], object]
"""Is told of "request" and "response" with the exchange, and of "end" when the app has gone; must not raise."""


class Seen(NamedTuple):
    """An exchange as it stood at one moment, for what takes time. Fields as in Exchange."""

    key: str
    number: int
    state: str
    time: float
    duration: float | None
    missing: int
    request: Request | None
    head: Head | None
    parts: tuple[Body, ...]


class Exchange:
    """A request and its response, as far as they are known. `number` counts the exchanges of a session from 1."""

    __slots__ = ("_in_parts", "_parts", "head", "key", "number", "request", "size", "started", "total")

    def __init__(self, key: str, number: int, started: float) -> None:
        self.key = key
        self.number = number
        self.started = started
        """When it was first heard of here, in milliseconds since 1970."""
        self.request: Request | None = None
        self.head: Head | None = None
        self.total = 1
        self.size = OVERHEAD
        self._parts: dict[int, Body] = {}
        self._in_parts = 0
        """Bytes that they take: to count them again for each would take longer with every one that comes."""

    @property
    def state(self) -> str:
        """One of open, partial, done, orphan."""
        if self.request is None:
            return "orphan"
        if self.head is None and not self._parts:
            return "open"
        return "done" if self.complete else "partial"

    @property
    def complete(self) -> bool:
        """Whether all of the response is there."""
        return self.head is not None and self.missing == 0

    @property
    def missing(self) -> int:
        """Parts of the response's body that are not there."""
        return self.total - len(self._parts) if self.total > 1 else 0

    @property
    def parts(self) -> tuple[Body, ...]:
        """The response's body, as far as it is there, in its order; nothing for none."""
        return tuple(self._parts[at] for at in sorted(self._parts))

    @property
    def received(self) -> int:
        """Bytes of the response's body that are there."""
        return sum(map(size, self._parts.values()))

    @property
    def time(self) -> float:
        """When it began, in milliseconds since 1970, by the device's clock where the app tells."""
        told = self.request.time if self.request is not None else self.head.time if self.head is not None else 0
        return told or self.started

    @property
    def duration(self) -> float | None:
        """Milliseconds from the request to the response's head, by the device's clock; None while one is unknown."""
        if self.request is None or self.head is None or not self.request.time or not self.head.time:
            return None
        return max(0.0, self.head.time - self.request.time)

    def ask(self, request: Request) -> None:
        """The request, or more of it: apps tell of one several times, with more each time."""
        before = self.request
        if before is not None:
            request = request._replace(
                time=before.time or request.time,
                headers=request.headers or before.headers,
                body=before.body if request.body is None else request.body,
            )
        self.request = request
        self._measure()

    def answer(self, part: Part) -> None:
        """The response, or a part of it. A whole one takes the place of all that was there."""
        if part.total == 1 or part.total != self.total:
            self._parts.clear()
            self._in_parts = 0
            self.head = None if part.head is None and part.total != self.total else self.head
        self.total = part.total
        self.head = part.head or self.head
        if part.body is not None or part.total > 1:
            before = self._parts.get(part.at)
            self._in_parts -= 0 if before is None else PART + _kept(before)
            self._parts[part.at] = part.body or b""
            self._in_parts += PART + _kept(part.body)
        self._measure()

    def seen(self) -> Seen:
        """How it stands now."""
        told = self.key, self.number, self.state, self.time, self.duration, self.missing
        return Seen(*told, self.request, self.head, self.parts)

    def summary(self) -> dict[str, Any]:
        """One line of a list, as JSON. Times in milliseconds, sizes in bytes of what travelled here."""
        request, head = self.request, self.head
        return {
            "id": self.key,
            "number": self.number,
            "state": self.state,
            "method": None if request is None else request.method,
            "url": None if request is None else request.url,
            "status": head.status if head is not None else None,
            "reason": head.reason if head is not None else None,
            "time": self.time,
            "duration": self.duration,
            "request_bytes": size(request.body) if request is not None else None,
            "response_bytes": self.received,
            "mock": head is not None and head.mock,
        }

    def _measure(self) -> None:
        self.size = OVERHEAD + _weight(self.request) + _weight(self.head) + self._in_parts


def _weight(told: Request | Head | None) -> int:
    """Bytes of what was told of a request or a response; of a response without its body."""
    if told is None:
        return 0
    weight = sum(len(name) + len(value) + 150 for name, value in told.headers)
    return weight + (len(told.url) + _kept(told.body) if isinstance(told, Request) else len(told.reason))


def _kept(body: Body | None) -> int:
    """Bytes of memory."""
    return len(body.text) if isinstance(body, Encoded) else size(body)


class Shelf:
    """What all apps' exchanges take together. One per plugin."""

    def __init__(self, most: int = MAX_TOTAL) -> None:
        self.most = most
        self.bytes = 0
        self.order: dict[Exchange, Traffic] = {}
        """Every exchange, oldest first."""

    def oldest(self) -> "tuple[Exchange, Traffic]":
        """The exchange that has to go first, and whose it is."""
        return next(iter(self.order.items()))


class Traffic:
    """The exchanges of one app's session."""

    def __init__(self, shelf: Shelf, most: int = MAX_BYTES, count: int = MAX_EXCHANGES) -> None:
        self._shelf = shelf
        self._most = most
        self._count = count
        self._by_key: dict[str, Exchange] = {}
        self._number = 0
        self.bytes = 0
        self.dropped = 0
        """Exchanges that had to go, in all."""
        self.watchers: list[Watcher] = []
        self.definitions: dict[str, Any] = {}
        """Protobuf definitions, by the URL that services begin with."""
        self.ended = False
        """The app has gone: nothing more will come."""

    @property
    def newest(self) -> int:
        """The number of the newest exchange, 0 for none."""
        return self._number

    def __iter__(self) -> Iterator[Exchange]:
        """Oldest first."""
        return iter(tuple(self._by_key.values()))

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: str) -> Exchange | None:
        return self._by_key.get(key)

    def add_request(self, request: Request, now: float) -> Exchange:
        """`now` in milliseconds since 1970."""
        exchange = self._exchange(request.key, now)
        self._change(exchange, lambda: exchange.ask(request))
        self._tell("request", exchange)
        return exchange

    def add_response(self, part: Part, now: float) -> Exchange:
        """The same for a response, or a part of one. Watchers are told once it is complete."""
        exchange = self._exchange(part.key, now)
        self._change(exchange, lambda: exchange.answer(part))
        if exchange.complete:
            self._tell("response", exchange)
        return exchange

    def clear(self) -> int:
        """Forgets everything; how many exchanges that was."""
        count = len(self._by_key)
        for exchange in self:
            self.remove(exchange)
        return count

    def end(self) -> None:
        """The app has gone."""
        self.ended = True
        self._tell("end", None)
        self.clear()

    def remove(self, exchange: Exchange) -> None:
        """Forgets one."""
        del self._by_key[exchange.key]
        self._shelf.order.pop(exchange, None)
        self.bytes -= exchange.size
        self._shelf.bytes -= exchange.size

    def _exchange(self, key: str, now: float) -> Exchange:
        found = self._by_key.get(key)
        if found is None:
            self._number += 1
            found = self._by_key[key] = Exchange(key, self._number, now)
            self._shelf.order[found] = self
            self._grow(found.size)
        return found

    def _change(self, exchange: Exchange, change: Callable[[], object]) -> None:
        before = exchange.size
        change()
        self._grow(exchange.size - before)
        while self._by_key and (self.bytes > self._most or len(self._by_key) > self._count):
            self._drop(next(iter(self._by_key.values())))
        while self._shelf.bytes > self._shelf.most:
            oldest, owner = self._shelf.oldest()
            owner._drop(oldest)

    def _grow(self, size: int) -> None:
        self.bytes += size
        self._shelf.bytes += size

    def _drop(self, exchange: Exchange) -> None:
        self.dropped += 1
        self.remove(exchange)

    def _tell(self, what: str, exchange: Exchange | None) -> None:
        for watcher in tuple(self.watchers):
            watcher(what, exchange)
