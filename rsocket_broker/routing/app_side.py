"""How the broker talks to an app: by Flipper's JSON messages, or by routes.

Both sides offer the same few calls, and a session has one of them at a time (`Sides`): an app that says in its SETUP
that it speaks Flipper's JSON, but does not answer getPlugins, is spoken to by routes from then on.
"""

import abc
import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

from rsocket_broker.errors import ApplicationError, Canceled, Invalid, RequestFailed
from rsocket_broker.flow import RequestedStream
from rsocket_broker.jsontext import OPTIONS, JsonError, dump, parse, write
from rsocket_broker.line import Line
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api.handlers import plain
from rsocket_broker.protocol.metadata import COMPOSITE, route
from rsocket_broker.routing import flipper
from rsocket_broker.routing.aside import BRIEF, is_large

logger = logging.getLogger(__name__)

LIST_TIMEOUT = 5.0
LIST_PAUSES = (0.2, 0.4, 0.8, 1.6, 3.2)
"""getPlugins: seconds for each try, and between them. An app that is starting up may be too busy for the first."""
START_LIMIT = 30.0
"""Seconds for everything that is asked before the first plugin is started."""
CHECK_TIMEOUT = 5.0
"""Seconds for isMethodSupported, which an app answers from a table."""


Begun = Callable[[RequestedStream], object]
"""Is given what the app's payloads come in, before the first of them has."""
Large = Callable[[bytes | bytearray], Awaitable[Any]]
"""From the text of a value that would hold everybody up to the value."""


class AppSide(abc.ABC):
    """One way to talk to an app. Each call raises RequestFailed, with words for the caller, or ConnectionClosed."""

    @abc.abstractmethod
    def question(self, plugin: str, method: str, params: object) -> tuple[bytes, bytes | None]:
        """Data and metadata of a request-response that calls a method of the app's side of a plugin. That side is
        started first if need be."""

    @staticmethod
    @abc.abstractmethod
    def value(data: bytes | bytearray | None) -> Any:
        """The JSON in the answer to a `question`. Raises ApplicationError."""

    @staticmethod
    @abc.abstractmethod
    def value_of(message: object) -> Any:
        """The same for an answer that is parsed already."""

    @abc.abstractmethod
    def send(self, plugin: str, method: str, params: object) -> None:
        """One way: no answer, no error."""

    @abc.abstractmethod
    async def supports(self, plugin: str, method: str) -> bool:
        """Whether the app says that it has `method`; true when it cannot be asked."""


def too_late(plugin: str, method: str, timeout: float | None) -> Canceled:
    """The error for an answer that did not come in time."""
    limit = "in time" if timeout is None else f"within {timeout:g} s"
    return Canceled(f"The app did not answer {plugin}.{method} {limit}.")


def as_json(params: object) -> bytes:
    """Parameters as JSON; None is `{}`. Raises Invalid: they come from a plugin or an operator, not from the app."""
    try:
        return dump({} if params is None else params)
    except JsonError:
        pass
    try:
        return dump(plain(params))
    except JsonError as error:
        raise Invalid(f"The parameters {error}.") from error


class RoutedSide(AppSide):
    """Requests with a route, for plain RSocket clients. Any of the interactions will do, if the client takes routes."""

    def __init__(self, connection: Line, carrier: Callable[[], bytes] | None = None) -> None:
        """`carrier` gives what stands in the metadata behind the route."""
        self._connection = connection
        self._carrier = carrier

    @property
    def possible(self) -> bool:
        """Whether the client reads routes at all: its SETUP says so by its metadata type."""
        return self._connection.metadata_mime == COMPOSITE

    def question(self, plugin: str, method: str, params: object) -> tuple[bytes, bytes | None]:
        return as_json(params), self._route(plugin, method)

    @staticmethod
    def value(data: bytes | bytearray | None) -> Any:
        try:
            return parse(data) if data else None
        except JsonError as error:
            raise ApplicationError(f"The app's answer is {error}.") from error

    @staticmethod
    def value_of(message: object) -> Any:
        return message

    def send(self, plugin: str, method: str, params: object) -> None:
        self._connection.fire_and_forget(self._payload(plugin, method, params))

    async def supports(self, plugin: str, method: str) -> bool:
        return True

    def push(self, plugin: str, method: str) -> None:
        """The route alone, as a metadata push."""
        self._connection.metadata_push(self._route(plugin, method))

    async def stream(
        self,
        plugin: str,
        method: str,
        params: object,
        begun: Begun = lambda stream: None,
        large: Large | None = None,
    ) -> AsyncGenerator[Any, None]:
        """The JSON values that the app streams. `large` reads those that would hold everybody up."""
        async with self._connection.request_stream(self._payload(plugin, method, params)) as answers:
            begun(answers)
            async for payload in answers:
                data = payload.data or b""
                if large is None or len(data) <= BRIEF or not is_large(data):
                    yield self.value(data)
                else:
                    yield await large(data)

    async def channel(
        self,
        plugin: str,
        method: str,
        values: AsyncIterable[object],
        begun: Begun = lambda stream: None,
        large: Large | None = None,
    ) -> AsyncGenerator[Any, None]:
        """The JSON values that come back for `values`, the first of which carries the route; `large` as for a
        stream."""
        source = aiter(values)
        try:
            first = self._payload(plugin, method, await anext(source))
        except StopAsyncIteration:
            return
        async with self._connection.request_channel(first, _payloads(source)) as answers:
            begun(answers)
            async for payload in answers:
                data = payload.data or b""
                if large is None or len(data) <= BRIEF or not is_large(data):
                    yield self.value(data)
                else:
                    yield await large(data)

    def _payload(self, plugin: str, method: str, params: object) -> Payload:
        return Payload(as_json(params), self._route(plugin, method))

    def _route(self, plugin: str, method: str) -> bytes:
        if not self.possible:
            raise ApplicationError(
                f"This client cannot be sent {plugin}.{method}: its SETUP does not declare composite metadata, so it "
                "reads no routes."
            )
        tag = route(f"{plugin}.{method}")
        return tag if self._carrier is None else tag + self._carrier()


async def _payloads(values: AsyncIterator[object]) -> AsyncGenerator[Payload, None]:
    async for value in values:
        yield Payload(as_json(value), None)


MAX_ABOUT: Final = 256 * 1024
"""Bytes of an app's answer about its plugins, which is read where everybody waits, and which an app can make us ask for
over and over. The longest list that is taken has 1000 names of 128 characters."""


class FlipperSide(AppSide):
    """Flipper's JSON protocol: data without metadata, answers on their own streams."""

    def __init__(self, connection: Line, level: int) -> None:
        self._connection = connection
        self._level = level
        self._numbers = flipper.numbers()
        self._started: set[str] = set()

    def question(self, plugin: str, method: str, params: object) -> tuple[bytes, bytes | None]:
        if plugin not in self._started:
            self.init(plugin)
        number = next(self._numbers)
        try:
            text = write({} if params is None else params, None, OPTIONS)
        except (TypeError, JsonError):
            text = b"null"
        if b"null" in text:  # which stands for what is no JSON as well
            text = as_json(params)
        return b'{"id":%d,%b%b}}' % (number, flipper.around(plugin, method), text), None

    value = staticmethod(flipper.answer)
    value_of = staticmethod(flipper.answer_of)

    def send(self, plugin: str, method: str, params: object) -> None:
        self.init(plugin)
        self._tell(flipper.execute_text(plugin, method, as_json(params)))

    async def supports(self, plugin: str, method: str) -> bool:
        if self._level < flipper.SUPPORT_LEVEL:
            return True
        self.init(plugin)
        question = flipper.request("isMethodSupported", {"api": plugin, "method": method}, next(self._numbers))
        return flipper.is_supported(await self._ask(question, plugin, "isMethodSupported", CHECK_TIMEOUT))

    @property
    def started(self) -> Sequence[str]:
        """The plugins that were sent `init`, and no `deinit` since."""
        return tuple(self._started)

    def init(self, plugin: str) -> None:
        """Start the app's side of a plugin, unless that was done."""
        if plugin not in self._started:
            self._started.add(plugin)
            self._tell(flipper.request("init", {"plugin": plugin}))

    def deinit(self, plugin: str) -> None:
        """Stop the app's side of a plugin, if it was started."""
        if plugin in self._started:
            self._started.discard(plugin)
            self._tell(flipper.request("deinit", {"plugin": plugin}))

    async def lists(self) -> tuple[list[str], list[str]]:
        """All plugins of the app, and those of them that it wants started. Raises RequestFailed."""
        try:
            async with asyncio.timeout(START_LIMIT):
                plugins = await self._plugins()
                return plugins, await self._background() if self._level >= flipper.BACKGROUND_LEVEL else []
        except TimeoutError:
            raise Canceled(f"The app did not list its plugins within {START_LIMIT:g} s.") from None

    async def _plugins(self) -> list[str]:
        for pause in LIST_PAUSES:
            try:
                return flipper.plugin_names(await self._list("getPlugins", LIST_TIMEOUT))
            except Canceled:
                await asyncio.sleep(pause)
        return flipper.plugin_names(await self._list("getPlugins", LIST_TIMEOUT))

    async def _background(self) -> list[str]:
        try:
            return flipper.plugin_names(await self._list("getBackgroundPlugins", START_LIMIT))
        except RequestFailed as error:
            logger.info("an app that should know getBackgroundPlugins did not answer it: %s", error.public)
            return []

    async def _list(self, method: str, timeout: float) -> Any:
        return await self._ask(flipper.request(method, None, next(self._numbers)), "the app", method, timeout)

    async def _ask(self, message: bytes, plugin: str, method: str, timeout: float | None) -> Any:
        try:
            answer = await self._connection.request_response(Payload(message, None), timeout)
        except TimeoutError:
            raise too_late(plugin, method, timeout) from None
        if len(answer.data or b"") > MAX_ABOUT:
            raise ApplicationError(f"The app's answer to {method} has more than {MAX_ABOUT} bytes.")
        return flipper.answer(answer.data)

    def _tell(self, message: bytes) -> None:
        self._connection.fire_and_forget(Payload(message, None))


class Sides:
    """Both ways to talk to one app, and which of them is in use. For an app that says that it speaks Flipper's JSON
    that is known when it has answered in it, or has not."""

    def __init__(self, connection: Line, level: int | None, carrier: Callable[[], bytes] | None = None) -> None:
        """`level` is the `sdk_version` of an app that speaks Flipper's JSON, None for any other client. `carrier` gives
        what stands in the metadata behind a route."""
        self.routed = RoutedSide(connection, carrier)
        self.flipper = None if level is None else FlipperSide(connection, level)
        self.now: AppSide = self.flipper or self.routed
        self.are_known = self.flipper is None
        self._known = None if self.are_known else asyncio.Event()

    @property
    def spoken(self) -> FlipperSide | None:
        """Flipper's JSON, where that is in use."""
        return self.flipper if self.now is self.flipper else None

    def settle(self) -> None:
        """What is in use now is known to be it; or the session has ended, and nobody need wait."""
        self.are_known = True
        if self._known is not None:
            self._known.set()

    async def known(self) -> None:
        """Until it is."""
        if self._known is not None:
            await self._known.wait()

    async def wait_known(self, plugin: str, method: str, timeout: float | None) -> None:
        """The same before `method` is called. Raises Canceled after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self.known()
        except TimeoutError:
            raise too_late(plugin, method, timeout) from None
