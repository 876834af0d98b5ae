"""Takes in an rsocket-py `RequestHandler` or `RequestRouter` as a plugin, unchanged.

    plugin = mount(router, "legacy")              # @router.response("add") answers the route legacy.add
    plugin = mount(MyHandler, "files")            # one handler for each session, as rsocket-py makes them

Every interaction whose route begins with `<id>.` goes to it. A handler that routes by itself sees the route without
the plugin's id in front; any other sees each message as it came. Its publishers are asked for one payload at a time,
each when the caller has asked us; its subscribers get what they ask for and no more.

An exception of its own stays here, as with any plugin. To tell the caller something, it raises `ApplicationError`, or
rsocket-py's `RSocketProtocolError` or `RSocketApplicationError`, whose text goes out.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

import attrs
from reactivestreams.publisher import Publisher
from reactivestreams.subscriber import Subscriber
from reactivestreams.subscription import Subscription
from rsocket.exceptions import RSocketApplicationError, RSocketProtocolError, RSocketUnknownRoute
from rsocket.request_handler import RequestHandler
from rsocket.routing.request_router import RequestRouter
from rsocket.routing.routing_request_handler import RoutingRequestHandler

from rsocket_broker.errors import ApplicationError, Invalid, RequestFailed
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api.app import App
from rsocket_broker.plugin_api.handlers import Finish, Handler, Model, Shape, Start, WholePlugin, encode_raw
from rsocket_broker.plugin_api.inspection import location
from rsocket_broker.plugin_api.plugin import CONCURRENCY, DEADLINE, Kind

logger = logging.getLogger(__name__)

MAX_UNASKED = 1024
"""Payloads that a publisher may give beyond what was asked for. Good ones give none, bad ones must not fill memory."""

COMPOSITE = b"message/x.rsocket.composite-metadata.v0"
_ROUTING = b"message/x.rsocket.routing.v0"
_ROUTING_ID = 0x7E

Mountable = RequestHandler | RequestRouter | Callable[[], RequestHandler]


def mount(mountable: Mountable, plugin_id: str, *, concurrency: int = CONCURRENCY) -> "Mounted":
    """A plugin `plugin_id` that is served by a handler, by a new handler for each session (a class or a function that
    makes them), or by the routes of a router."""
    cls = type("Mounted", (Mounted,), {"id": plugin_id, "concurrency": concurrency, "__module__": __name__})
    plugin: Mounted = cls(mountable)
    return plugin


class Mounted(WholePlugin):
    """The plugin that `mount` makes."""

    def __init__(self, mountable: Mountable) -> None:
        self._mountable = mountable
        self._handlers: dict[App, RequestHandler] = {}

    def routes(self) -> "_MountedRoutes":
        return _MountedRoutes(self)

    async def on_connect(self, app: App) -> None:
        handler = self._make()
        await handler.on_setup(app.data_mime.encode(), COMPOSITE, Payload(b"", None))
        self._handlers[app] = handler

    async def on_disconnect(self, app: App) -> None:
        await self._handlers.pop(app).on_close(None)

    def _make(self) -> RequestHandler:
        if isinstance(self._mountable, RequestRouter):
            return RoutingRequestHandler(self._mountable)
        return self._mountable if isinstance(self._mountable, RequestHandler) else self._mountable()

    def where(self) -> str:
        """`file:line` of what is mounted, as near as can be told."""
        value = self._mountable
        return location(None, value if isinstance(value, type) else type(value))

    def _for(self, app: App, payload: Payload) -> tuple[RequestHandler, Payload]:
        handler = self._handlers[app]
        if isinstance(handler, RoutingRequestHandler) and payload.metadata:
            payload = Payload(payload.data, strip_route(bytes(payload.metadata), f"{self.id}.".encode()))
        return handler, payload

    async def response(self, app: App, payload: Payload) -> Payload:
        """Serve a request-response."""
        handler, payload = self._for(app, payload)
        with _translating():
            answer: Payload = _whole(await (await handler.request_response(payload)))
            return answer

    async def fire(self, app: App, payload: Payload) -> None:
        """Serve a fire-and-forget."""
        handler, payload = self._for(app, payload)
        await handler.request_fire_and_forget(payload)

    async def push(self, app: App, payload: Payload) -> None:
        """Serve a metadata push; `payload` has metadata only."""
        handler, payload = self._for(app, payload)
        await handler.on_metadata_push(payload)

    async def stream(self, app: App, payload: Payload) -> AsyncGenerator[Payload, None]:
        """Serve a request-stream."""
        handler, payload = self._for(app, payload)
        with _translating():
            async with aclosing(_Pull().run(await handler.request_stream(payload))) as values:
                async for value in values:
                    yield value

    async def channel(
        self, app: App, payload: Payload, incoming: AsyncIterator[Payload]
    ) -> AsyncGenerator[Payload, None]:
        """Serve a request-channel. When the publisher has ended, the subscriber still gets what it has asked for."""
        handler, payload = self._for(app, payload)
        pull, credit = _Pull(), _Credit()
        feeder: asyncio.Task[None] | None = None
        try:
            with _translating():
                publisher, subscriber = await handler.request_channel(payload)
                if subscriber is not None:
                    feeder = asyncio.get_running_loop().create_task(_feed(subscriber, credit, incoming))
                    feeder.add_done_callback(pull.fail_with)
                if publisher is not None:
                    async with aclosing(pull.run(publisher)) as values:
                        async for value in values:
                            yield value
                    credit.end_when_idle()
                if feeder is not None:
                    await feeder
        finally:
            if feeder is not None:
                feeder.cancel()


class _MountedRoutes:
    """Whatever is asked for, by whichever interaction, is there: the mounted handler decides."""

    def __init__(self, plugin: Mounted) -> None:
        self._plugin = plugin
        where = plugin.where()

        def one(kind: Kind, shape: Shape, start: Start, deadline: float | None, finish: Finish = encode_raw) -> Handler:
            return Handler("*", f"{plugin.id}.*", kind, shape, deadline, where, start, None, None, finish)

        channel = one(Kind.METHOD, Shape.ASYNC_GENERATOR, plugin.stream, None)
        self._by_model = {
            Model.RESPONSE: one(Kind.METHOD, Shape.COROUTINE, plugin.response, DEADLINE),
            Model.FIRE: one(Kind.EVENT, Shape.COROUTINE, plugin.fire, DEADLINE),
            Model.PUSH: one(Kind.EVENT, Shape.COROUTINE, plugin.push, DEADLINE),
            Model.STREAM: one(Kind.METHOD, Shape.ASYNC_GENERATOR, plugin.stream, None),
            Model.CHANNEL: attrs.evolve(channel, start=None, start_channel=plugin.channel),
        }

    def handlers(self) -> Sequence[Handler]:
        return ()

    def find(self, name: str, model: Model) -> Handler:
        return attrs.evolve(self._by_model[model], name=name, route=f"{self._plugin.id}.{name}")


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        translated = _translated(error)
        if translated is error:
            raise
        raise translated from error


def _translated(error: Exception) -> Exception:
    """What rsocket-py's own errors mean to a caller; any other error as it is, for the host to keep inside."""
    if isinstance(error, RSocketUnknownRoute):
        return Invalid(f'There is no route "{str(error.route_id)[:100]}".')
    if isinstance(error, RSocketProtocolError):
        return RequestFailed(error.data or "", int(error.error_code))
    if isinstance(error, RSocketApplicationError):
        return ApplicationError(str(error))
    return error


def _whole(value: Any) -> Any:
    """A payload as this broker wants it: its data is bytes, even when there are none."""
    if isinstance(value, Payload) and not isinstance(value.data, bytes):
        data: Any = value.data
        return Payload(data.encode() if isinstance(data, str) else bytes(data or b""), value.metadata)
    return value


class _Pull(Subscriber):
    """A publisher read as an async generator: one payload is asked for at a time, when one is wanted."""

    def __init__(self) -> None:
        self._subscription: Subscription | None = None
        self._waiting: deque[Payload] = deque()
        self._ended = False
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    def on_subscribe(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._changed.set()

    def on_next(self, value: Payload, is_complete: bool = False) -> None:
        bare_end = is_complete and value.data is None and value.metadata is None  # how rsocket-py ends generators
        if not bare_end and not self._ended:
            self._waiting.append(value)
        if len(self._waiting) > MAX_UNASKED:
            self._waiting.clear()
            self.on_error(RuntimeError("the publisher gives more payloads than were asked for"))
        self._ended = self._ended or is_complete
        self._changed.set()

    def on_error(self, exception: Exception) -> None:
        self._error = self._error or exception
        self._ended = True
        self._changed.set()

    def on_complete(self) -> None:
        self._ended = True
        self._changed.set()

    def fail_with(self, task: asyncio.Task[None]) -> None:
        """A task that belongs to this stream is done; if it failed, so does the stream."""
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self.on_error(error)

    async def run(self, publisher: Publisher) -> AsyncGenerator[Payload, None]:
        """The publisher's payloads. Raises what it fails with; cancels it when closed early."""
        publisher.subscribe(self)
        try:
            await self._until(lambda: self._subscription is not None or self._ended)
            while await self._more():
                yield _whole(self._waiting.popleft())
        finally:
            self._cancel_unless_ended()
        if self._error is not None:
            raise self._error

    async def _more(self) -> bool:
        if not self._waiting and not self._ended:
            assert self._subscription is not None
            self._subscription.request(1)
            await self._until(lambda: bool(self._waiting) or self._ended)
        return bool(self._waiting)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _cancel_unless_ended(self) -> None:
        if (self._ended and self._error is None) or self._subscription is None:
            return
        try:
            self._subscription.cancel()  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001 - a foreign publisher; one of rsocket-py's fails before it has begun
            logger.debug("a mounted publisher failed when it was cancelled: %r", error)


class _Credit(Subscription):
    """How many payloads a subscriber has asked for, and whether it still wants any."""

    def __init__(self) -> None:
        self._left = 0
        self._cancelled = False
        self._ending = False
        self._changed = asyncio.Event()

    def request(self, n: int) -> None:
        self._left += n
        self._changed.set()

    def cancel(self) -> None:
        self._cancelled = True
        self._changed.set()

    def end_when_idle(self) -> None:
        """Do not wait for more to be asked for: the other half of the channel is over."""
        self._ending = True
        self._changed.set()

    async def take(self) -> bool:
        """Wait until one more is wanted. False: none will be."""
        while not self._left and not self._cancelled and not self._ending:
            self._changed.clear()
            await self._changed.wait()
        if self._cancelled or not self._left:
            return False
        self._left -= 1
        return True


async def _feed(subscriber: Subscriber, credit: _Credit, incoming: AsyncIterator[Payload]) -> None:
    """Give `subscriber` what comes in, as it asks for it, and the end or the error of it."""
    subscriber.on_subscribe(credit)
    while await credit.take():
        try:
            payload = await anext(incoming)
        except StopAsyncIteration:
            subscriber.on_complete()  # type: ignore[no-untyped-call]
            return
        except RequestFailed as error:
            subscriber.on_error(error)
            return
        subscriber.on_next(payload, False)  # type: ignore[no-untyped-call]


def strip_route(metadata: bytes, prefix: bytes) -> bytes:
    """Composite metadata whose first route tag has lost `prefix`; every other byte as it was.

    An entry is a MIME type (one byte with its top bit set for a well-known one; else the length less one, and the
    name), a length of three bytes, and the content (Extensions/CompositeMetadata.md). A route's content is tags, each
    behind a byte with its length (Extensions/Routing.md).
    """
    position = 0
    while position < len(metadata):
        first = metadata[position]
        name_end = position + 1 if first & 0x80 else position + 2 + first
        start = name_end + 3
        end = start + int.from_bytes(metadata[name_end:start])
        routes = first == 0x80 | _ROUTING_ID or metadata[position + 1 : name_end] == _ROUTING
        if routes and metadata[start + 1 : start + 1 + metadata[start]].startswith(prefix):
            tag = metadata[start + 1 + len(prefix) : start + 1 + metadata[start]]
            content = bytes((len(tag),)) + tag + metadata[start + 1 + metadata[start] : end]
            return metadata[:name_end] + len(content).to_bytes(3) + content + metadata[end:]
        position = end
    return metadata
