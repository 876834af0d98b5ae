"""What is asked of a peer, and what comes back. `Connection` is the class to use."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from typing import Any, Final
from weakref import WeakValueDictionary

from rsocket_broker.errors import Rejected, request_error
from rsocket_broker.expiries import Expiries, no_answer
from rsocket_broker.flow import RequestedStream, parts, payload_size
from rsocket_broker.joined import Joined
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.codes import Interaction
from rsocket_broker.protocol.events import AnswersReceived, ErrorReceived, PayloadReceived
from rsocket_broker.protocol.frames import Octets
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.quota import FULL, STEP
from rsocket_broker.serving import Handlers

FLUSH_AT: Final = 256 * 1024
"""Bytes that one turn of the loop may queue before they are written: about what one read can bring."""
WINDOW: Final = 128
"""Payloads in flight towards a consumer that says nothing else; it is topped up when half is used."""
LAST_WORDS: Final = 1.0
"""Seconds for the handler of a channel whose peer has failed it: to take in what came before, and the error."""
LAST_BYTES: Final = 16 * 1024
"""What may have come before: with more than that, a peer that fails channels over and over would have it kept."""


class Asking(Joined):
    """The storey of our own requests, and of what the peer's channels bring."""

    def __init__(self, protocol: Protocol, handlers: Handlers, clock: Callable[[], float]) -> None:
        super().__init__(protocol, handlers, clock)
        self._expiries = Expiries(self._loop)
        self._answers = self._expiries.waits
        """Who waits for the answer to which request."""
        self._channels: WeakValueDictionary[int, RequestedStream] = WeakValueDictionary()
        """What the peer's channels bring, for as long as somebody may take it: the peer may have sent all long ago."""
        self._uncounted = 0
        self._flushing = False
        """What is queued now is written in this turn of the loop anyhow."""

    # ---- requests to the peer --------------------------------------------------------------------------------

    async def request_response(self, payload: Payload, timeout: float | None = None) -> Payload:
        """The peer's one answer. An empty answer is an empty payload.

        Raises RequestFailed, ConnectionClosed, or TimeoutError after `timeout` seconds. A caller that stops waiting
        (a timeout, a cancelled task) cancels the request at the peer.
        """
        ends = None if self.may_ask else await self.wait_to_ask(timeout)
        stream_id, answer = self.ask(*parts(payload), timeout, ends)
        try:
            found = await answer
        except BaseException:
            self.unask(stream_id)
            raise
        return Payload(found, None) if isinstance(found, bytes) else found

    async def wait_to_ask(self, timeout: float | None) -> float | None:
        """As `turn_to_ask`. Raises TimeoutError after `timeout` seconds; returns when they are over (see `ask`)."""
        ends = None if timeout is None else self._loop.time() + timeout
        try:
            async with asyncio.timeout_at(ends):
                await self.turn_to_ask()
        except TimeoutError:
            raise no_answer(timeout) from None
        return ends

    def ask(
        self,
        data: Octets,
        metadata: Octets | None,
        timeout: float | None,
        ends: float | None = None,
        about: object = None,
    ) -> "tuple[int, asyncio.Future[Payload | bytes]]":
        """Sends a request-response when it `may_ask`: for those who save themselves the coroutine `request_response`.

        Returns its stream id, and a future for the answer: bytes are data without metadata. It fails as described
        there after `timeout` seconds, which are over at `ends` if they began before now. That is by the loop's clock:
        uvloop's goes on while a Mac is asleep, and `time.monotonic` does not. Whatever keeps the caller from awaiting
        the future to its end, it calls `unask`. `about` is what `asked` tells of it.
        """
        protocol = self._protocol
        stream_id = protocol.ask(data, metadata)
        answer: asyncio.Future[Payload | bytes] = self._loop.create_future()
        if timeout is None:
            self._answers[stream_id] = (answer, math.inf, None, about)
        else:
            if ends is None:
                ends = self._loop.time() + timeout
            if ends < self._expiries.rings:
                self._expiries.add(stream_id, answer, ends, timeout, about)
            else:
                self._answers[stream_id] = (answer, ends, timeout, about)
        if not self._flushing or protocol.queued > FLUSH_AT:
            self._flush_soon()
        return stream_id, answer

    def asked(self) -> "list[tuple[asyncio.Future[Payload | bytes], Any]]":
        """What is asked of the peer and not answered yet, with what it is about; without that, it is not told of."""
        return [(answer, about) for answer, _, _, about in self._answers.values() if about is not None]

    def unask(self, stream_id: int) -> None:
        """Nobody waits for this answer any more: one that has not come is cancelled at the peer."""
        if self._answers.pop(stream_id, None) is not None:
            self.leave(stream_id)

    def fire_and_forget(self, payload: Payload) -> None:
        """Sends without an answer. Raises Rejected when too much waits for a peer that does not read, or is away."""
        self._need_room(payload_size(payload))
        self._protocol.request(Interaction.FIRE_AND_FORGET, *parts(payload))
        self._flush_soon()

    def request_stream(self, payload: Payload, initial_n: int = WINDOW) -> RequestedStream:
        """The peer's answers; at most `initial_n` are on their way or waiting here at any time."""
        self._need_room(payload_size(payload))
        stream_id = self._protocol.request(Interaction.REQUEST_STREAM, *parts(payload), initial_n)
        return self._listen(stream_id, initial_n)

    def request_channel(
        self, payload: Payload, outgoing: AsyncIterator[Payload], initial_n: int = WINDOW
    ) -> RequestedStream:
        """As `request_stream`, and sends what `outgoing` yields as fast as the peer asks for it.

        An exception in `outgoing` fails the channel on both sides.
        """
        self._need_room(payload_size(payload))
        stream_id = self._protocol.request(Interaction.REQUEST_CHANNEL, *parts(payload), initial_n)
        incoming = self._listen(stream_id, initial_n)
        self._start(stream_id, outgoing, self._pump(stream_id, outgoing))
        return incoming

    def metadata_push(self, metadata: bytes) -> None:
        """Sends metadata about the whole connection. Raises Rejected as `fire_and_forget`."""
        self._need_room(len(metadata))
        self._protocol.metadata_push(metadata)
        self._flush_soon()

    async def drain(self) -> None:
        """Waits while the peer is slow to read. Raises ConnectionClosed when it is gone."""
        while not self._may_write.is_set():
            await self._may_write.wait()
        if self.closing is not None:
            raise self._closed_error()

    # ---- what comes back -------------------------------------------------------------------------------------

    def _on_payload(self, event: PayloadReceived) -> None:
        stream_id, data, metadata, has_next, complete = event
        wait = self._answers.pop(stream_id, None)
        if wait is not None:
            if not wait[0].done():
                wait[0].set_result(Payload(data, metadata))
            return
        incoming = self._incoming.get(stream_id)
        if incoming is None:
            return
        if has_next:
            if incoming.held >= self._protocol.limits.incoming:
                self._cut(stream_id, incoming)
                return
            if not incoming.put(Payload(data, metadata)):
                self._cut(stream_id, incoming, FULL)
                return
            if self._is_theirs(stream_id):
                self._bound_channels(len(data) + (0 if metadata is None else len(metadata)))
        if complete:
            incoming.end(None)
            self._incoming.pop(stream_id, None)

    def _on_answers(self, event: AnswersReceived) -> None:
        take = self._answers.pop
        for stream_id, data in event.answers:
            wait = take(stream_id, None)
            if wait is not None and not wait[0].done():
                wait[0].set_result(data)

    def _listen(self, stream_id: int, window: int) -> RequestedStream:
        stream = super()._listen(stream_id, window)
        if self._is_theirs(stream_id):
            self._channels[stream_id] = stream
        return stream

    def _bound_channels(self, size: int) -> None:
        """Cuts the fullest channels of the peer when all of them together hold too much."""
        limit = self._protocol.limits.incoming_all
        self._uncounted += size
        if self._uncounted < limit // 8:
            return
        self._uncounted = 0
        channels = sorted(self._channels.items(), key=lambda channel: channel[1].held)
        held = sum(stream.held for _, stream in channels)
        while held > limit:
            stream_id, fullest = channels.pop()
            held -= fullest.held
            if stream_id in self._incoming:
                self._cut(stream_id, fullest)
            else:
                self._work.stop(stream_id)
            fullest.close()

    def _on_error(self, event: ErrorReceived) -> None:
        error = request_error(event.code, event.text)
        wait = self._answers.pop(event.stream_id, None)
        if wait is not None and not wait[0].done():
            wait[0].set_exception(error)
        incoming = self._incoming.get(event.stream_id)
        self._end_incoming(event.stream_id, error)
        if incoming is not None and incoming.held <= LAST_BYTES and self._is_theirs(event.stream_id):
            self._work.stop_later(event.stream_id, LAST_WORDS)
        else:
            self._work.stop(event.stream_id)

    def _end_requests(self) -> None:
        """Tells those who wait for the peer that nothing will come."""
        for answer, *_ in self._answers.values():
            if not answer.done():
                answer.set_exception(self._closed_error())
        for stream in self._incoming.values():
            stream.end(self._closed_error())
        self._expiries.clear()
        self._incoming.clear()

    # ---- bounds ----------------------------------------------------------------------------------------------

    def _need_room(self, size: int) -> None:
        """Raises what keeps a request of that size from being sent now."""
        if self.closing is not None:
            raise self._closed_error()
        if self._lease_came is not None:
            self._protocol.may_request(self._clock())  # one that has run out is known to have
        protocol, limits = self._protocol, self._protocol.limits
        if protocol.suspended and protocol.queued + protocol.retained + size > limits.resume_bytes // 2:
            raise Rejected("too much is waiting for a peer that is away")  # half is left for what cannot be refused
        waiting = protocol.queued + (0 if self._transport is None else self._transport.queued)
        if waiting > limits.outgoing:
            raise Rejected("too much is waiting for a peer that does not read")
        if waiting > STEP and not self.holding.bears(size):
            raise Rejected(FULL)
