"""What is asked of the app at the other end of one session: calls, messages one way, streams and channels."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import aclosing
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from rsocket_broker.errors import ApplicationError, BrokerError
from rsocket_broker.flow import RequestedStream
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api.app import CALL_TIMEOUT
from rsocket_broker.recording.entries import Written
from rsocket_broker.routing.apart import answer_apart, written_apart
from rsocket_broker.routing.app_side import AppSide, RoutedSide, Sides, too_late
from rsocket_broker.routing.aside import BRIEF, is_large
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.router import Router

if TYPE_CHECKING:
    from rsocket_broker.routing.session import Session

NOTHING_ASKED: Final = -1
"""The id of no request: Flipper's own numbers begin with 0."""

LATE: Final = "%s (%s): %s It may be stopped in a debugger or put to sleep; some methods of shipped SDKs never answer."


class AppCalls:
    """Of one session. The policy is asked before anything is sent, and again where sending had to wait."""

    def __init__(self, session: "Session", sides: Sides, router: Router) -> None:
        self._session = session
        self._sides = sides
        self._router = router
        self._connection = session.connection
        self._access = session.access
        self._followers = session.followers
        self._flows: WeakKeyDictionary[RequestedStream, tuple[str, str]] | None = None

    @property
    def waiting(self) -> "Mapping[asyncio.Future[Payload | bytes], tuple[str, str]]":
        """Calls that are under way: plugin and method of each."""
        return dict(self._connection.asked())

    @property
    def flows(self) -> Mapping[RequestedStream, tuple[str, str]]:
        """Streams of the app that plugins read: plugin and method of each."""
        return self._flows or {}

    def is_asked(self, plugin: str) -> bool:
        """Whether a call to the app's side of a plugin is under way."""
        return any(asked == plugin for asked, _ in self.waiting.values())

    # --- calls -------------------------------------------------------------------------------------------------------

    async def call(self, plugin: str, method: str, params: object = None, timeout: float | None = CALL_TIMEOUT) -> Any:
        """Call a method of the app's side of a plugin, which is started first if need be; the answer as JSON.

        Raises ApplicationError with the app's own text, Canceled after `timeout` seconds (which begin once the app
        has started up; for that it may take as long again), ConnectionClosed.
        """
        connection, access, sides, host = self._connection, self._access, self._sides, self._router.hosts.get(plugin)
        called = plugin, method
        if self._followers.all or called not in access.out or not sides.are_known:
            await self._prepare(plugin, method, params, timeout)
        side, began, stream_id = sides.now, monotonic(), NOTHING_ASKED
        if host is not None and not host.plugin.eager:
            self._session.plugins.use(host)
        try:
            data, metadata = side.question(plugin, method, params)
            ends = None
            if not connection.may_ask:
                version = access.version
                ends = await connection.wait_to_ask(timeout)
                if access.version != version:
                    await access.check_out(plugin, method)
            stream_id, waiting = connection.ask(data, metadata, timeout, ends, called)
            found = await waiting
            text = found if isinstance(found, bytes) else found.data or b""
            if len(text) > BRIEF and is_large(text):
                answer = await answer_apart(self._router.aside, side, text, connection.holding)
            else:
                answer = side.value(text)
        except TimeoutError:
            late = too_late(plugin, method, timeout)
            self._failed(late, host, (plugin, method, params), stream_id)
            self._tell_late(late)
            raise late from None
        except BaseException as error:
            self._failed(error, host, (plugin, method, params), stream_id)
            raise
        if host is not None:
            host.app_calls.seconds.observe(monotonic() - began)
        if self._followers.all:
            await self._note_answer(plugin, method, params, text, answer)
        return answer

    async def _note_answer(
        self, plugin: str, method: str, params: object, text: bytes | bytearray, answer: object
    ) -> None:
        """Before anybody can change it, it is told, and written down beside the loop where it is large."""
        if self._followers.writing and len(text) > BRIEF and is_large(text):
            answer = Written(await written_apart(self._router.aside, answer))
        self._session.note("in", "answer", plugin, method, len(text), {"params": params, "success": answer})

    async def _prepare(self, plugin: str, method: str, params: object, timeout: float | None) -> None:
        """What need not be done for a call like one before it."""
        if not self._sides.are_known:
            await self._sides.wait_known(plugin, method, timeout)
        if (plugin, method) not in self._access.out:
            await self._access.check_out(plugin, method)
        self._session.note("out", "call", plugin, method, None, params)

    def _failed(
        self, error: BaseException, host: PluginHost | None, asked: tuple[str, str, object], stream_id: int
    ) -> None:
        self._connection.unask(stream_id)
        if host is not None:
            host.app_calls.fail(error)
        if isinstance(error, BrokerError):
            plugin, method, params = asked
            self._session.note("in", "error", plugin, method, None, {"params": params, "error": error.public})

    def _tell_late(self, late: BrokerError) -> None:
        session = self._session
        session.log.write(logging.WARNING, "late answers", LATE, session.id, session.identity.app_id, late.public)

    # --- one way -----------------------------------------------------------------------------------------------------

    async def send(self, plugin: str, method: str, params: object = None) -> None:
        """Call a method one way."""
        side = await self._side(plugin, method)
        self._session.note("out", "send", plugin, method, None, params)
        self._session.plugins.use(self._router.hosts.get(plugin))
        side.send(plugin, method, params)
        await self._connection.drain()

    async def push(self, plugin: str, method: str) -> None:
        """Send the bare route one way; raises ApplicationError for an app that reads none."""
        routed = await self._routed(plugin, method)
        self._session.note("out", "push", plugin, method, None)
        routed.push(plugin, method)
        await self._connection.drain()

    async def supports(self, plugin: str, method: str) -> bool:
        """False only when the app says that its side of `plugin` has no `method`."""
        return await (await self._side(plugin, method)).supports(plugin, method)

    # --- streams -----------------------------------------------------------------------------------------------------

    async def stream(self, plugin: str, method: str, params: object = None) -> AsyncGenerator[Any, None]:
        """The JSON values that the app streams; raises ApplicationError for one that cannot."""
        routed = await self._routed(plugin, method)
        self._session.note("out", "stream", plugin, method, None)
        flow = routed.stream(
            plugin, method, params, lambda stream: self._flowing(stream, plugin, method), partial(self._large, routed)
        )
        async with aclosing(flow) as values:
            async for value in values:
                yield value

    async def channel(self, plugin: str, method: str, values: AsyncIterable[object]) -> AsyncGenerator[Any, None]:
        """The JSON values that come back while `values` go to the app."""
        routed = await self._routed(plugin, method)
        self._session.note("out", "channel", plugin, method, None)
        values = self._still_allowed(plugin, method, values)
        flow = routed.channel(
            plugin, method, values, lambda stream: self._flowing(stream, plugin, method), partial(self._large, routed)
        )
        async with aclosing(flow) as answers:
            async for value in answers:
                yield value

    async def _large(self, routed: RoutedSide, text: bytes | bytearray) -> Any:
        return await answer_apart(self._router.aside, routed, text, self._connection.holding)

    def _flowing(self, stream: RequestedStream, plugin: str, method: str) -> None:
        if self._flows is None:  # most sessions never have one
            self._flows = WeakKeyDictionary()
        self._flows[stream] = plugin, method

    async def _still_allowed(
        self, plugin: str, method: str, values: AsyncIterable[object]
    ) -> AsyncGenerator[object, None]:
        """The values of a channel, which begins with the first of them: the policy may have changed until it is there.

        Raises Rejected where it has, and nothing was sent yet.
        """
        version: int | None = self._access.version
        async for value in values:
            if version not in (None, self._access.version):
                await self._access.check_out(plugin, method)
            version = None
            yield value

    # --- how ---------------------------------------------------------------------------------------------------------

    async def _side(self, plugin: str, method: str) -> AppSide:
        """How to talk to the app, once that is known."""
        if not self._sides.are_known:
            await self._sides.wait_known(plugin, method, CALL_TIMEOUT)
        await self._access.check_out(plugin, method)
        return self._sides.now

    async def _routed(self, plugin: str, method: str) -> RoutedSide:
        await self._access.check_out(plugin, method)
        if not self._sides.routed.possible:
            raise ApplicationError(
                f"{plugin}.{method} can only be called or sent: Flipper's JSON, which the app speaks, has nothing else."
                if self._sides.flipper is not None
                else f"This client cannot be sent {plugin}.{method}: it reads no routes."
            )
        return self._sides.routed
