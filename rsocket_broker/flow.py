"""Payloads in flight on one stream: what a peer sends, as an async iterator; what we send, from any iterator."""

import asyncio
import collections
import contextlib
import inspect
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Final, Protocol, Self

from rsocket_broker.payload import Payload
from rsocket_broker.quota import STEP, Holding, Kind, counted


class Owner(Protocol):
    """What a RequestedStream asks of its connection."""

    def grant(self, stream_id: int, n: int) -> None:
        """Let the peer send `n` payloads more."""

    def leave(self, stream_id: int) -> None:
        """We want no more of what the peer sends."""


class RequestedStream:
    """The payloads that a peer sends on one stream, as an async iterator. Leave it with `aclose` or `async with`.

    Raises RequestFailed when the peer fails the stream and ConnectionClosed when the connection ends under it.
    Credit is topped up as payloads are taken out, so a consumer that stops taking stops the producer.
    """

    def __init__(self, owner: "Owner", stream_id: int, window: int, holding: Holding | None = None) -> None:
        """`holding` is that of the line."""
        self._owner = owner
        self._stream_id = stream_id
        self._window = window
        self._taken = 0
        self._payloads: collections.deque[Payload] = collections.deque()
        self._held = 0
        self._holding = Holding() if holding is None else holding
        self._counted = 0
        """What the holding knows of the bytes that wait."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """Known once something counts."""
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._error: BaseException | None = None

    @property
    def held(self) -> int:
        """Bytes that wait to be taken."""
        return self._held

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Payload:
        while not self._payloads:
            if self._ended:
                error, self._error = self._error, None
                raise StopAsyncIteration if error is None else error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        payload = self._payloads.popleft()
        self._held -= payload_size(payload)
        if self._counted and (self._held < STEP or self._counted - self._held >= STEP):
            self._count()
        self._taken += 1
        if self._taken * 2 >= self._window and not self._ended:
            self._owner.grant(self._stream_id, self._taken)
            self._taken = 0
        return payload

    async def aclose(self) -> None:
        """Asks the peer to stop. What has come and was not taken is dropped."""
        self.close()

    def close(self) -> None:
        """As `aclose`, which has nothing to wait for."""
        self._drop()
        if not self._ended:
            self.end(None)
            self._owner.leave(self._stream_id)

    def fail(self, error: BaseException) -> None:
        """Ends it for its consumer with `error`, without what has come and was not taken, and asks the peer to stop."""
        self._drop()
        if not self._ended:
            self.end(error)
            self._owner.leave(self._stream_id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def put(self, payload: Payload) -> bool:
        """The connection brings a payload. False when all that waits is more than the holding bears."""
        if not self._ended:
            self._payloads.append(payload)
            self._held += payload_size(payload)
            self._wake()
            if self._held - self._counted >= STEP:
                self._count()
                return self._holding.bears()
        return True

    def _count(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        size = counted(self._held)
        self._holding.change(Kind.PAYLOADS, size - self._counted)
        self._counted = size

    def _drop(self) -> None:
        """What has come and was not taken is of no use to anybody."""
        self._payloads.clear()
        self._held = 0
        if self._counted:
            self._count()

    def __del__(self) -> None:
        """Whoever had it has let it go, and what it held. The collector may find that on any thread, and while the loop
        is counting: so the loop is told."""
        if self._counted and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._holding.change, Kind.PAYLOADS, -self._counted)

    def end(self, error: BaseException | None) -> None:
        """The connection says that nothing more will come, and why if it is not for good reasons."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


_OCTETS: Final = (bytes, bytearray)


def parts(payload: Payload | bytes) -> tuple[bytes | bytearray, bytes | bytearray | None]:
    """Data and metadata to send. Raises TypeError for what is not bytes, before a frame is begun."""
    if isinstance(payload, bytes):
        return payload, None
    data, metadata = payload.data, payload.metadata
    if type(data) is bytes and metadata is None:
        return data, None
    if data is None:
        data = b""
    if not isinstance(data, _OCTETS) or not (metadata is None or isinstance(metadata, _OCTETS)):
        raise TypeError(f"a payload holds bytes, not {type(data).__name__} with {type(metadata).__name__}")
    return data, metadata


def payload_size(payload: Payload | bytes) -> int:
    """Bytes of data and metadata."""
    if isinstance(payload, bytes):
        return len(payload)
    return len(payload.data or b"") + len(payload.metadata or b"")


async def as_async(source: Iterator[Payload | bytes]) -> AsyncIterator[Payload]:
    """A plain iterator as an async one, bytes in it as payloads; closing it closes a generator."""
    try:
        for payload in source:
            yield Payload(payload, None) if isinstance(payload, bytes) else payload
    finally:
        if inspect.isgenerator(source):
            source.close()


async def close_source(source: AsyncIterator[Payload] | Iterator[Payload | bytes]) -> None:
    """Runs the clean-up of a generator that is left early; other iterators have none."""
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        await aclose()
    elif inspect.isgenerator(source):
        source.close()
