"""Serving a peer: what its requests set going, and how that ends. `Connection` is the class to use."""

import abc
import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any, Final, cast
from typing import Protocol as Interface

from rsocket_broker.errors import (
    ApplicationError,
    BrokerError,
    Canceled,
    ProtocolViolation,
    Rejected,
    RequestFailed,
)
from rsocket_broker.flow import RequestedStream, close_source, parts, payload_size
from rsocket_broker.payload import ErrorCode, Payload
from rsocket_broker.protocol.codes import Interaction
from rsocket_broker.protocol.events import MetadataPushReceived, RequestNReceived, RequestReceived
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.protocol.runs import Shortcuts
from rsocket_broker.quiet_log import QuietLog
from rsocket_broker.quota import FULL, STEP, Kind, counted
from rsocket_broker.work import Work, abandon

CHANNEL_WINDOW: Final = 32
"""Payloads in flight from the requester of a channel, which wait here for a handler."""
TURN: Final = 64
"""Payloads that one stream may send before others get their turn, when its source never waits."""
RUN: Final = 128
"""The same for a source that is plain, whose payloads cost a fraction of that each."""
NO_MORE: Final = "no new requests are taken here"
STOPPED: Final = "the work was stopped before it was done"
INTERNAL: Final = "internal error"
"""All that a peer learns of an exception that nobody foresaw."""

_END: Final[Any] = object()
_bare: Final = object.__new__
"""Makes a Payload without its __init__, which costs more than the rest of a small request."""

_failures: Final = QuietLog(logging.getLogger(__name__))
"""Shared by all connections: a peer that can bring a failure about once can do so over and over, on new lines too."""


class Handlers(Interface):
    """What answers requests. Every method may raise a BrokerError, whose public text the peer gets.

    A method that returns its result at once costs no task; a coroutine runs as a task and delays nobody. Work for a
    peer that cancels or goes away is cancelled.
    """

    def request_response(self, payload: Payload) -> Payload | Awaitable[Payload]: ...

    def fire_and_forget(self, payload: Payload) -> Awaitable[None] | None: ...

    def request_stream(self, payload: Payload) -> AsyncIterator[Payload] | Iterator[Payload | bytes]:
        """Driven by request-n: the iterator is asked for at most one payload more than the peer has asked for.

        Bytes from a plain iterator are data without metadata.
        """

    def request_channel(self, payload: Payload, incoming: AsyncIterator[Payload]) -> AsyncIterator[Payload]:
        """`payload` came with the request and is not repeated in `incoming`."""

    def metadata_push(self, metadata: bytes) -> None: ...


class Serving(abc.ABC):
    """The lower storey of a connection: requests of the peer, the work that they start, payloads on their way out."""

    def __init__(self, protocol: Protocol, handlers: Handlers) -> None:
        self._protocol = protocol
        self._handlers = handlers
        self.holding = protocol.holding
        """What the peer makes us hold."""
        self._outgoing = 0
        """What the holding knows of what waits for the peer."""
        self._loop = asyncio.get_running_loop()
        self._incoming: dict[int, RequestedStream] = {}
        self._gates: dict[int, asyncio.Event] = {}
        self._work = Work(self._loop, protocol.limits.streams, protocol.holding)
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._refusing = False
        self._served = 0
        self._waiting = 0
        """Bytes of payloads that are ready, each on its own stream, while the peer does not take them."""
        protocol.answer_at_once = self._answer_at_once
        protocol.finish_answer = self._finish_answer

    @property
    def shortcuts(self) -> Shortcuts:
        """What answers requests that repeat the metadata of others. For the handlers, who keep it true."""
        return self._protocol.shortcuts

    @abc.abstractmethod
    async def drain(self) -> None:
        """Waits while the peer is slow to read. Raises ConnectionClosed when it is gone."""

    @property
    @abc.abstractmethod
    def bytes_unwritten(self) -> int:
        """Bytes for the peer that the kernel has not taken yet; 0 once the line has gone."""

    @abc.abstractmethod
    def _flush_soon(self) -> None:
        """What is queued is written before this turn of the loop ends."""

    @abc.abstractmethod
    def _whom(self) -> str:
        """The peer, for the log."""

    # ---- requests of the peer --------------------------------------------------------------------------------

    def _on_request(self, event: RequestReceived) -> None:
        if self._refusing:
            self._protocol.send_error(event.stream_id, ErrorCode.REJECTED, NO_MORE)
            return
        self._served += 1
        try:
            _SERVE[event.interaction](self, event)
        except Exception as error:  # noqa: BLE001  # a handler's bug must not reach the connection
            self._fail(event.stream_id, error)
        except asyncio.CancelledError:  # of something that the handler has looked at: a call is not cancelled
            self._fail(event.stream_id, Canceled(STOPPED))

    def _answer_at_once(self, stream_id: int, data: bytes, metadata: bytes | None) -> Payload | None:
        """The fast lane of Protocol: an answer that is there costs no event, no stream state, no task."""
        payload = _bare(Payload)
        payload.data = data
        payload.metadata = metadata
        try:
            answer: object = self._handlers.request_response(payload)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # as in _on_request
            answer = error if isinstance(error, Exception) else Canceled(STOPPED)
        return self._finish_answer(stream_id, answer)

    def _finish_answer(self, stream_id: int, found: object) -> Payload | None:
        """Of what a handler gave: a payload is sent at once, an error is told, and anything else is waited for."""
        if isinstance(found, Payload):
            try:
                parts(found)
            except TypeError as error:
                found = error
            else:
                return found
        if not self._protocol.owe(stream_id):
            abandon(found)
        elif isinstance(found, Exception):
            self._fail(stream_id, found)
        else:
            self._start(stream_id, found, self._answer(stream_id, cast("Awaitable[Payload]", found)))
        return None

    def _serve_response(self, event: RequestReceived) -> None:
        answer = self._handlers.request_response(Payload(event.data, event.metadata))
        if isinstance(answer, Payload):
            data, metadata = parts(answer)
            if len(data) >= STEP:
                self._need_quota(len(data))
            self._protocol.send_payload(event.stream_id, data, metadata, complete=True)
        else:
            self._start(event.stream_id, answer, self._answer(event.stream_id, answer))

    async def _answer(self, stream_id: int, awaitable: Awaitable[Payload]) -> None:
        try:
            answer = await awaitable
            if not self._may_write.is_set():
                with self._in_hand(answer):
                    await self.drain()
            data, metadata = parts(answer)
            if len(data) >= STEP:
                self._need_quota(len(data))
            self._protocol.send_payload(stream_id, data, metadata, complete=True)
        except Exception as error:  # noqa: BLE001  # as in _on_request
            self._fail(stream_id, error)
        except asyncio.CancelledError:
            self._fail(stream_id, Canceled(STOPPED))
            raise
        finally:
            self._work.done(stream_id)
        self._flush_soon()

    def _serve_fire_and_forget(self, event: RequestReceived) -> None:
        answer = self._handlers.fire_and_forget(Payload(event.data, event.metadata))
        if answer is not None:
            self._start(event.stream_id, answer, self._forgotten(event.stream_id, answer))

    async def _forgotten(self, stream_id: int, awaitable: Awaitable[None]) -> None:
        try:
            await awaitable
        except Exception as error:  # noqa: BLE001  # as in _on_request
            self._fail(stream_id, error)
        finally:
            self._work.done(stream_id)

    def _serve_stream(self, event: RequestReceived) -> None:
        source = self._handlers.request_stream(Payload(event.data, event.metadata))
        self._start(event.stream_id, source, self._pump(event.stream_id, source))

    def _serve_channel(self, event: RequestReceived) -> None:
        incoming = self._listen(event.stream_id, CHANNEL_WINDOW)
        if event.complete:
            incoming.end(None)
        else:
            self._protocol.send_request_n(event.stream_id, CHANNEL_WINDOW)
        source = self._handlers.request_channel(Payload(event.data, event.metadata), incoming)
        self._start(event.stream_id, source, self._pump(event.stream_id, source))

    def _on_metadata_push(self, event: MetadataPushReceived) -> None:
        try:
            self._handlers.metadata_push(event.metadata)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # as in _on_request
            self._explain(error)

    # ---- work for the peer -----------------------------------------------------------------------------------

    def _start(self, stream_id: int, source: object, work: Coroutine[Any, Any, None]) -> None:
        if not self._work.start(stream_id, source, work):
            self._fail(stream_id, Rejected("too much is running for this connection"))

    async def _pump(self, stream_id: int, source: AsyncIterator[Payload] | Iterator[Payload | bytes]) -> None:
        """Sends what `source` yields while the peer has asked for more and reads what it gets."""
        gate = self._gates[stream_id] = asyncio.Event()
        send = self._send_each if isinstance(source, AsyncIterator) else self._send_runs
        try:
            if await send(stream_id, source, gate):
                self._protocol.send_payload(stream_id, b"", next=False, complete=True)
        except Exception as error:  # noqa: BLE001  # as in _on_request
            self._fail(stream_id, error)
        except asyncio.CancelledError:
            self._fail(stream_id, Canceled(STOPPED))
            raise
        finally:
            self._gates.pop(stream_id, None)
            if self._is_theirs(stream_id) and (incoming := self._incoming.pop(stream_id, None)) is not None:
                incoming.close()
            self._flush_soon()
            try:
                await close_source(source)
            except Exception as error:  # noqa: BLE001  # as in _on_request
                self._explain(error)
            finally:
                self._work.done(stream_id)

    async def _send_each(self, stream_id: int, source: Any, gate: asyncio.Event) -> bool:
        """Of an async iterator, one by one. False when the stream was cancelled before its end."""
        sent = 0
        async for payload in source:
            if (not self._protocol.credit(stream_id) or not self._may_write.is_set()) and not await self._hold(
                stream_id, payload, gate
            ):
                return False
            data, metadata = parts(payload)
            if len(data) >= STEP:
                self._need_quota(len(data))
            self._protocol.send_payload(stream_id, data, metadata)
            self._flush_soon()
            sent += 1
            if not sent % TURN:
                await asyncio.sleep(0)
        return True

    async def _send_runs(self, stream_id: int, source: Any, gate: asyncio.Event) -> bool:
        """The same for a plain iterator: all that may be sent now in one go, for it never waits."""
        protocol, payload = self._protocol, None
        while True:
            if protocol.credit(stream_id) and self._may_write.is_set():
                ended, payload = protocol.send_items(stream_id, source, RUN)
                if ended:
                    return True
                self._flush_soon()
                if payload is None:
                    await asyncio.sleep(0)
                    continue
            else:
                payload = next(source, _END)
                if payload is _END:
                    return True
                if not await self._hold(stream_id, payload, gate):
                    return False
            data, metadata = parts(payload)
            if len(data) >= STEP:
                self._need_quota(len(data))
            protocol.send_payload(stream_id, data, metadata)
            self._flush_soon()

    async def _hold(self, stream_id: int, payload: Payload | bytes, gate: asyncio.Event) -> bool:
        """Until the peer takes the payload. False when it never will: it was cancelled, and yields all the same."""
        with self._in_hand(payload):
            await self._turn_to_send(stream_id, gate)
        return self._protocol.may_send(stream_id)

    async def _turn_to_send(self, stream_id: int, gate: asyncio.Event) -> None:
        """Until the peer takes another payload, or never will."""
        protocol = self._protocol
        while protocol.may_send(stream_id) and not (protocol.credit(stream_id) and self._may_write.is_set()):
            gate.clear()
            await gate.wait()

    @contextlib.contextmanager
    def _in_hand(self, payload: Payload | bytes) -> Iterator[None]:
        """While a payload waits for its peer it counts. Raises Rejected when too much of that waits already."""
        size, limits = payload_size(payload), self._protocol.limits
        most = limits.resume_bytes if self._protocol.suspended else limits.outgoing
        if self._waiting and self._waiting + size > most:
            raise Rejected(f"more than {most} bytes wait for a peer that does not take them")
        if size >= STEP:
            self._need_quota(size)
        self._waiting += size
        if self._waiting - self._outgoing >= STEP:
            self._count_outgoing()
        try:
            yield
        finally:
            self._waiting -= size
            if self._outgoing:
                self._count_outgoing()

    def _need_quota(self, size: int) -> None:
        """Raises Rejected when all lines of the peer hold too much for so many bytes more."""
        if not self.holding.bears(size):
            raise Rejected(FULL)

    def _count_outgoing(self) -> None:
        """Counts what waits for the peer, where that is much, or was."""
        size = self._waiting + self.bytes_unwritten
        if abs(size - self._outgoing) >= STEP or (self._outgoing and size < STEP):
            self._outgoing = counted(size)
            self.holding.note(Kind.OUTGOING, self._outgoing)

    def end_work(self, refused: Mapping["asyncio.Task[Any]", RequestFailed]) -> None:
        """Ends what these tasks do for the peer: it is told why, and nothing that one still says goes out."""
        for stream_id, task in self._work.streams_of(refused):
            self._fail(stream_id, refused[task])
            self._work.stop(stream_id)

    def _on_request_n(self, event: RequestNReceived) -> None:
        gate = self._gates.get(event.stream_id)
        if gate is not None:
            gate.set()

    def _fail(self, stream_id: int, error: Exception) -> None:
        """Ends a stream with what the peer may know of `error`, and with all of it on our side.

        A peer that wants no more of what we send on a channel is told nothing, and goes on sending.
        """
        code, text = self._explain(error)
        self._protocol.send_error(stream_id, code, text)
        if not self._protocol.is_live(stream_id):
            self._end_incoming(stream_id, error)
        self._flush_soon()

    def _explain(self, error: BaseException) -> tuple[int, str]:
        """Code and text for the peer. What nobody foresaw goes into our log, whole."""
        if isinstance(error, RequestFailed):
            return error.code, error.public
        if isinstance(error, BrokerError) and not isinstance(error, ProtocolViolation):
            return ApplicationError.wire_code, error.public
        _failures.write(logging.ERROR, _place(error), "a handler failed while serving %s", self._whom(), error=error)
        return ApplicationError.wire_code, INTERNAL

    # ---- streams ---------------------------------------------------------------------------------------------

    def _listen(self, stream_id: int, window: int) -> RequestedStream:
        stream = self._incoming[stream_id] = RequestedStream(self, stream_id, window, self._protocol.holding)
        self._flush_soon()
        return stream

    def grant(self, stream_id: int, n: int) -> None:
        """For RequestedStream: the peer may send `n` payloads more."""
        self._protocol.send_request_n(stream_id, n)
        self._flush_soon()

    def leave(self, stream_id: int) -> None:
        """For RequestedStream: we want no more of what the peer sends on this stream."""
        self._incoming.pop(stream_id, None)
        if not self._is_theirs(stream_id):
            self._work.stop(stream_id)
        self._protocol.send_cancel(stream_id)
        self._flush_soon()

    def _cut(self, stream_id: int, incoming: RequestedStream, why: str = "") -> None:
        """A consumer that does not keep up loses its stream, and nobody else notices."""
        most = self._protocol.limits.incoming
        incoming.end(Rejected(why or f"more than {most} bytes wait for a consumer that does not take them"))
        del self._incoming[stream_id]
        self._work.stop(stream_id)
        self.leave(stream_id)

    def _is_theirs(self, stream_id: int) -> bool:
        return stream_id % 2 == self._protocol.is_server

    def _end_incoming(self, stream_id: int, error: BaseException) -> None:
        incoming = self._incoming.pop(stream_id, None)
        if incoming is not None:
            incoming.end(error)


def _place(error: BaseException) -> str:
    """What was raised and where: failures of one kind for the log, so that one defect does not hide another."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = "" if at is None else f" at {at.tb_frame.f_code.co_name}:{at.tb_lineno}"
    return f"{type(error).__name__}{where}"


_SERVE: Final[dict[Interaction, Callable[[Serving, RequestReceived], None]]] = {
    Interaction.REQUEST_RESPONSE: Serving._serve_response,
    Interaction.FIRE_AND_FORGET: Serving._serve_fire_and_forget,
    Interaction.REQUEST_STREAM: Serving._serve_stream,
    Interaction.REQUEST_CHANNEL: Serving._serve_channel,
}
