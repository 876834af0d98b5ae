"""What a plugin keeps of an app's events: the newest, within bounds, numbered, to be read, followed and waited for.

    history = History[Visit](count=500, size=1024 * 1024)
    number = history.add(visit, len(visit.uri))
    async for number, visit in history.follow(after=number): ...

A reader names the last number that it has seen, so it needs no queue of its own: one that is too slow finds the oldest
gone, and sees that by the gap in the numbers.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from itertools import islice
from typing import Generic, TypeVar

from rsocket_broker.errors import Canceled, ConnectionClosed, Invalid

MAX_WAIT = 600.0
"""Seconds that anybody may wait for one thing to happen: longer than any step of a test."""

Item = TypeVar("Item")


class History(Generic[Item]):
    """At most `count` items of `size` bytes together; the newest one is kept whatever its size. Numbers begin at 1."""

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size
        self._items: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self._closed = False
        self.newest = 0
        """The number of the newest item; 0 before the first."""

    def __len__(self) -> int:
        return len(self._items)

    @property
    def dropped(self) -> int:
        """Items that had to go to make room, or were cleared."""
        return self.newest - len(self._items)

    def add(self, item: Item, size: int) -> int:
        """Keep an item of about `size` bytes; its number."""
        self._items.append((item, size))
        self._bytes += size
        self.newest += 1
        while len(self._items) > 1 and (len(self._items) > self._count or self._bytes > self._size):
            self._bytes -= self._items.popleft()[1]
        self._wake()
        return self.newest

    def items(self, after: int = 0) -> list[tuple[int, Item]]:
        """What is kept of the items with a number above `after`, oldest first, with their numbers."""
        first = self.newest - len(self._items) + 1
        begin = max(0, after - first + 1)
        return [(first + begin + at, item) for at, (item, _) in enumerate(islice(self._items, begin, None))]

    def last(self) -> Item | None:
        """The newest item."""
        return self._items[-1][0] if self._items else None

    def clear(self) -> None:
        """Keep nothing; numbers go on."""
        self._items.clear()
        self._bytes = 0

    def close(self) -> None:
        """Nothing will be added any more: whoever follows is done when they have read what is here."""
        self._closed = True
        self._wake()

    async def follow(self, after: int = 0) -> AsyncGenerator[tuple[int, Item], None]:
        """The items with a number above `after`, those of the future too, until `close`."""
        while True:
            news = self._news
            for number, item in self.items(after):
                after = number
                yield number, item
            if news is self._news:
                if self._closed:
                    return
                await news.wait()

    async def wait(self, matches: Callable[[Item], bool], after: int, timeout: float, what: str) -> tuple[int, Item]:
        """The first item with a number above `after` that matches, one that is to come within `timeout` s included.

        Raises Canceled, which names `what`, when none comes, ConnectionClosed when none can come any more.
        """
        if not 0 <= timeout <= MAX_WAIT:
            raise Invalid(f"timeout: wanted 0 to {MAX_WAIT:g} seconds.")
        try:
            async with asyncio.timeout(timeout):
                async for number, item in self.follow(after):
                    if matches(item):
                        return number, item
        except TimeoutError:
            raise Canceled(f"There was no {what} within {timeout:g} s.") from None
        raise ConnectionClosed(f"There was no {what} before the app left.")

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
