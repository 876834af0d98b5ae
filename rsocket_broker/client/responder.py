"""What an app answers to its broker: Flipper's JSON where there is no route, its plugins' methods where there is."""

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from rsocket_broker.client.app_plugin import AppMethod, AppPlugin
from rsocket_broker.client.flipper import FlipperApp
from rsocket_broker.errors import ApplicationError, ConnectionClosed, Invalid, Rejected, RequestFailed
from rsocket_broker.jsontext import JsonError, dump, parse, parse_object
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.events import SetupReceived
from rsocket_broker.protocol.metadata import CLIENT, all_tags, first_tag
from rsocket_broker.routing.tasks import Tasks
from rsocket_broker.tracing import Tracing, tracer


class Refuser:
    """A Responder that serves nothing: for a line on which only we ask."""

    def setup(self, connection: object, setup: SetupReceived) -> None:
        """Never called: the protocol core takes no SETUP from a server."""

    async def request_response(self, payload: Payload) -> Payload:
        raise Rejected("this client serves no requests")

    async def fire_and_forget(self, payload: Payload) -> None:
        """Nothing to do, and nobody to tell."""

    def request_stream(self, payload: Payload) -> AsyncIterator[Payload]:
        raise Rejected("this client serves no requests")

    def request_channel(self, payload: Payload, incoming: AsyncIterator[Payload]) -> AsyncIterator[Payload]:
        raise Rejected("this client serves no requests")

    def metadata_push(self, metadata: bytes) -> None:
        """Nothing to do."""

    def closed(self, error: ConnectionClosed) -> None:
        """Whoever opened the line waits for its end there."""


MAX_PUSHES = 256
"""Metadata pushes at work at once: nothing holds their sender back, so more of them are dropped."""

logger = logging.getLogger(__name__)


class AppResponder(Refuser):
    """Serves one connection with the plugins of the app. `tell` sends a message of Flipper's protocol one way."""

    def __init__(
        self,
        plugins: Mapping[str, AppPlugin],
        flipper: FlipperApp,
        tell: Callable[[Mapping[str, object]], object],
        own: AppPlugin | None = None,
    ) -> None:
        """`own` is a plugin of the SDK's, which serves the broker itself and no other client."""
        self._plugins = plugins
        self._own = own
        self._flipper = flipper
        self._tell = tell
        self._pushes = Tasks()
        found = tracer()
        self._tracing = None if found is None else Tracing(found, {})

    async def request_response(self, payload: Payload) -> Payload:
        route = _route(payload)
        if route is None:
            return _payload(await self._flipper.answer(_message(payload)))
        plugin, method = self._find(route, payload)
        if method.streams:
            raise Invalid(f"{route} answers with a stream: ask it with request-stream or request-channel")
        work = _settled(lambda: method.call(plugin, _parameters(payload)))
        if self._tracing is not None:
            return _payload(await self._tracing.awaited(*_names(route), work, payload.metadata))
        return _payload(await work)

    async def fire_and_forget(self, payload: Payload) -> None:
        route = _route(payload)
        if route is None:
            await self._told(_message(payload))
        else:
            plugin, method = self._find(route, payload)
            if method.streams:
                raise Invalid(f"{route} answers with a stream: it cannot be told one way")
            work = _settled(lambda: method.call(plugin, _parameters(payload)))
            if self._tracing is not None:
                await self._tracing.awaited(*_names(route), work, payload.metadata, "fire-and-forget")
            else:
                await work

    def metadata_push(self, metadata: bytes) -> None:
        """A route alone: its method is called without parameters, and nobody is answered."""
        if len(self._pushes) < MAX_PUSHES:
            self._pushes.spawn(self._pushed(Payload(b"", metadata)))

    async def _pushed(self, payload: Payload) -> None:
        if _route(payload) is not None:
            try:
                await self.fire_and_forget(payload)
            except RequestFailed as error:
                logger.info("a push of the broker led nowhere: %s", error.public)

    def closed(self, error: ConnectionClosed) -> None:
        self._pushes.cancel()

    def request_stream(self, payload: Payload) -> AsyncIterator[Payload]:
        return self._traced(payload, "request-stream", self._answers(payload, _nothing()))

    def request_channel(self, payload: Payload, incoming: AsyncIterator[Payload]) -> AsyncIterator[Payload]:
        values = (_parameters(one) async for one in incoming)
        return self._traced(payload, "request-channel", self._answers(payload, values))

    def _traced(self, payload: Payload, interaction: str, answers: AsyncIterator[Payload]) -> AsyncIterator[Payload]:
        if self._tracing is None or (route := _route(payload)) is None:
            return answers
        return self._tracing.stream(*_names(route), interaction, payload.metadata, answers)

    async def _answers(self, payload: Payload, incoming: AsyncIterator[object]) -> AsyncIterator[Payload]:
        route = _route(payload)
        if route is None:
            raise Invalid("a stream needs a route: metadata with a routing entry")
        plugin, method = self._find(route, payload)
        answers = method.call(plugin, _parameters(payload), incoming)
        if inspect.isasyncgen(answers):
            try:
                async for value in answers:
                    yield _payload(value)
            finally:
                await answers.aclose()
        elif inspect.isgenerator(answers):
            try:
                for value in answers:
                    yield _payload(value)
            finally:
                answers.close()
        else:
            yield _payload(await _settled(lambda: answers))

    async def _told(self, message: Mapping[str, object]) -> None:
        """A one-way message is answered only if it has an id, or if it failed: by a message of ours."""
        answer = await self._flipper.answer(message)
        if "id" in message:
            self._tell({"id": message["id"], **answer})
        elif "error" in answer:
            self._tell(answer)

    def _find(self, route: str, payload: Payload) -> tuple[AppPlugin, AppMethod]:
        """The method at `<plugin>.<method>`; plugin ids may hold dots themselves, method names do not."""
        plugin_id, _, name = route.rpartition(".")
        plugin = self._plugins.get(plugin_id)
        if self._own is not None and plugin_id == self._own.id and not _of_another_client(payload):
            plugin = self._own
        method = plugin.methods.get(name) if plugin is not None else None
        if plugin is None or method is None:
            raise ApplicationError(f"this app has no method {route}")
        return plugin, method


async def _settled(call: Callable[[], Any]) -> Any:
    value = call()
    return await value if inspect.isawaitable(value) else value


def _names(route: str) -> tuple[str, str]:
    plugin, _, method = route.rpartition(".")
    return plugin, method


async def _nothing() -> AsyncIterator[object]:
    return
    yield


def _route(payload: Payload) -> str | None:
    """The first tag, or the one behind it where the first is our own address: another client has sent that."""
    if not payload.metadata:
        return None
    metadata = bytes(payload.metadata)
    route = first_tag(metadata)
    if route is None or not route.startswith(CLIENT):
        return route
    return next(iter(all_tags(metadata)[1:]), "")


def _of_another_client(payload: Payload) -> bool:
    """Whether the broker has only passed it on."""
    route = first_tag(bytes(payload.metadata or b""))
    return route is None or route.startswith(CLIENT)


def _message(payload: Payload) -> Mapping[str, object]:
    try:
        return parse_object(payload.data or b"")
    except JsonError as error:
        raise Invalid(f"a message without a route must be a JSON object; this is {error}") from error


def _parameters(payload: Payload) -> object:
    try:
        return parse(payload.data) if payload.data else {}
    except JsonError as error:
        raise Invalid(f"the parameters are {error}") from error


def _payload(value: object) -> Payload:
    try:
        return Payload(dump(value))
    except JsonError as error:
        raise TypeError(f"an app plugin answered with what JSON cannot express: {error}") from error
