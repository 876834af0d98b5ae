"""What an app holds: its line to the broker, whichever connection carries it at the moment."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping, Sequence
from typing import Any

from rsocket_broker import tracing
from rsocket_broker.client.app_plugin import AppPlugin
from rsocket_broker.connection import Connection
from rsocket_broker.errors import BrokerError, ConfigurationError, ConnectionClosed
from rsocket_broker.jsontext import JsonError, dump, parse
from rsocket_broker.payload import Payload
from rsocket_broker.protocol import metadata

CALL_TIMEOUT = 30.0
"""Seconds that a request may take when the caller does not say, the wait for a lost broker to come back included."""

STREAM_CREDIT = 128
"""Payloads that a stream may send ahead of its consumer when the caller does not say."""


@contextlib.asynccontextmanager
async def _within(timeout: float | None, failure: str) -> AsyncIterator[None]:
    """As `asyncio.timeout`, whose TimeoutError has no words: this one says what has not happened."""
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if timeout is None or not limit.expired():
            raise
        raise TimeoutError(f"{failure} within {timeout:g} s") from error


class Session:
    """A session that outlives its connections. Made by `connect`; all of it belongs to one event loop.

    Requests made while the broker is away wait for it, within their time limit. Those under way when a line is lost go
    on when the connection is resumed over another one; nothing is lost and nothing comes twice. Where that cannot be,
    they raise ConnectionClosed, for only the caller knows whether they may be sent again.
    """

    def __init__(self, plugins: Mapping[str, AppPlugin]) -> None:
        self._plugins = plugins
        self._connection: Connection | None = None
        self._accepted = asyncio.Event()
        self._ended: BrokerError | None = None
        self._device_id = ""
        self._connections = 0

    @property
    def connected(self) -> bool:
        """True while the broker has accepted us and the line holds, as far as we know."""
        line = self._connection
        return self._accepted.is_set() and line is not None and line.closing is None and not line.suspended

    @property
    def connections(self) -> int:
        """How many times the broker has accepted us so far."""
        return self._connections

    @property
    def device_id(self) -> str:
        """The name that the broker gave this device when it enrolled."""
        return self._device_id

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Returns when connected. Raises TimeoutError after `timeout` seconds, or the reason if the session is over."""
        async with _within(timeout, "not connected"):
            await self._line()

    async def request(self, route: str, value: object = None, *, timeout: float | None = CALL_TIMEOUT) -> Any:
        """Calls the method at `route` (`<plugin>.<method>`) with one JSON value; its answer, None if it is empty.

        Raises RequestFailed (ApplicationError and its siblings) with the broker's text, ConnectionClosed when the line
        is lost meanwhile, TimeoutError after `timeout` seconds, JsonError when `value` or the answer is not JSON.
        """
        return _value(await self.request_payload(route, _payload(value), timeout=timeout))

    async def request_payload(self, route: str, payload: Payload, *, timeout: float | None = CALL_TIMEOUT) -> Payload:
        """Like `request`, with bytes both ways. `payload.metadata` (composite metadata) follows the route."""
        async with _within(timeout, f"{route} was not answered"):
            connection = await self._line()
            return await connection.request_response(_routed(route, payload))

    async def send(self, route: str, value: object = None, *, timeout: float | None = CALL_TIMEOUT) -> None:
        """Sends one JSON value to `route` and expects no answer. Returns once it is on its way."""
        await self.send_payload(route, _payload(value), timeout=timeout)

    async def send_payload(self, route: str, payload: Payload, *, timeout: float | None = CALL_TIMEOUT) -> None:
        """Like `send`, with bytes."""
        async with _within(timeout, f"{route} could not be sent"):
            connection = await self._line()
            await connection.turn_to_ask()
            connection.fire_and_forget(_routed(route, payload))
            await connection.drain()

    async def push(self, route: str, *, timeout: float | None = CALL_TIMEOUT) -> None:
        """Sends the bare route as a metadata push: a signal without parameters. Returns once it is on its way."""
        async with _within(timeout, f"{route} could not be sent"):
            connection = await self._line()
            connection.metadata_push(bytes(_routed(route, Payload(b"", None)).metadata or b""))
            await connection.drain()

    async def stream(
        self, route: str, value: object = None, *, credit: int = STREAM_CREDIT
    ) -> AsyncGenerator[Any, None]:
        """The JSON values that `route` answers with. Stop early with `aclosing`: that cancels the stream at once."""
        async with contextlib.aclosing(self.stream_payloads(route, _payload(value), credit=credit)) as answers:
            async for answer in answers:
                yield _value(answer)

    async def stream_payloads(
        self, route: str, payload: Payload, *, credit: int = STREAM_CREDIT
    ) -> AsyncGenerator[Payload, None]:
        """Like `stream`, with bytes. Raises as `request` does; there is no time limit."""
        connection = await self._line()
        await connection.turn_to_ask()
        async with connection.request_stream(_routed(route, payload), credit) as answers:
            async for answer in answers:
                yield answer

    async def channel(
        self, route: str, values: AsyncIterable[object], *, credit: int = STREAM_CREDIT
    ) -> AsyncGenerator[Any, None]:
        """Sends `values` to `route`, no faster than it takes them, and yields what it answers meanwhile."""
        outgoing = (_payload(value) async for value in values)
        async with contextlib.aclosing(self.channel_payloads(route, outgoing, credit=credit)) as answers:
            async for answer in answers:
                yield _value(answer)

    async def channel_payloads(
        self, route: str, payloads: AsyncIterator[Payload], *, credit: int = STREAM_CREDIT
    ) -> AsyncGenerator[Payload, None]:
        """Like `channel`, with bytes. The channel is opened with the first of `payloads`; without one, nothing is."""
        connection = await self._line()
        first = await anext(payloads, None)
        if first is None:
            return
        await connection.turn_to_ask()
        async with connection.request_channel(_routed(route, first), payloads, credit) as answers:
            async for answer in answers:
                yield answer

    def send_event(self, plugin: str, method: str, params: object = None) -> bool:
        """Sends an event of one of our plugins, as its `emit` does. False, and nothing sent, while it is not in use.

        Raises ConfigurationError when there is no such plugin here, JsonError when `params` is not JSON.
        """
        if plugin not in self._plugins:
            known = ", ".join(sorted(self._plugins)) or "none"
            raise ConfigurationError(f"this app has no plugin {plugin!r}; it has: {known}")
        return self._plugins[plugin].emit(method, params)

    # What follows is for the SDK itself.

    def emit(self, plugin: str, method: str, params: object) -> bool:
        """The way out of a plugin's events (`app_plugin.Line`)."""
        return self.tell({"method": "execute", "params": {"api": plugin, "method": method, "params": params}})

    def tell(self, message: Mapping[str, object]) -> bool:
        """Sends one message of Flipper's protocol one way; False when there is no line to send it on."""
        data = dump(message)
        if self._connection is None:
            return False
        try:
            self._connection.fire_and_forget(Payload(data))
        except ConnectionClosed:
            return False
        return True

    def opened(self, connection: Connection, device_id: str) -> None:
        """There is a line; the broker may use it before we know that it has accepted us."""
        self._connection = connection
        self._device_id = device_id

    def accepted(self) -> None:
        """The broker has taken us: our own requests may go out."""
        self._connections += 1
        self._accepted.set()

    def interrupted(self) -> None:
        """The connection has lost its line, and may go on over another."""
        if self._ended is None:
            self._accepted.clear()

    def resumed(self) -> None:
        """It goes on."""
        self._accepted.set()

    def lost(self) -> None:
        """The line has gone; another will follow, unless the session has ended."""
        self._connection = None
        if self._ended is None:
            self._accepted.clear()

    def end(self, reason: BrokerError) -> None:
        """No line will follow: everything that waits, or comes later, raises `reason`."""
        self._ended = self._ended or reason
        self._connection = None
        self._accepted.set()  # wakes those who wait

    async def _line(self) -> Connection:
        while True:
            await self._accepted.wait()
            if self._ended is not None:
                raise self._ended.with_traceback(None)  # it is raised to everyone who asks
            if self.connected:
                assert self._connection is not None
                return self._connection
            self._accepted.clear()  # it has just been lost, and nobody has told us yet


def _payload(value: object) -> Payload:
    return Payload(b"" if value is None else dump(value))


def _value(payload: Payload) -> Any:
    try:
        return parse(payload.data) if payload.data else None
    except JsonError as error:
        raise JsonError(f"the broker's answer is {error}; use the calls for bytes (…_payload)") from error


def _routed(route: str, payload: Payload) -> Payload:
    """Behind the route stands the trace context of the caller, unless the metadata brings one of its own."""
    more = payload.metadata or b""
    context = b"" if tracing.MARK in more else tracing.carrier()
    return Payload(payload.data, metadata.route(*_tags(route)) + context + more)


def _tags(route: str) -> Sequence[str]:
    """An address of another client (`client:APP_ID/PLUGIN.METHOD`) is a tag of its own, for the broker; what follows
    is for that client."""
    return route.split("/", 1) if route.startswith(metadata.CLIENT) else (route,)
