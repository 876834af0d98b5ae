"""W3C trace context through the broker, with OpenTelemetry, for programs that have set it up; free for the others.

The context travels in composite metadata, as two entries whose types are `traceparent` and `tracestate` (text as in
the HTTP headers of these names), which is what RSocket clients in Java write. Between a request and what its handler
asks of others it travels in a context variable, as OpenTelemetry always has it.

Nothing here imports OpenTelemetry before the program has: without an SDK there is nobody to tell.
"""

import asyncio
import inspect
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rsocket_broker import __version__
from rsocket_broker.errors import BrokerError, Invalid, RequestFailed
from rsocket_broker.flow import as_async, close_source
from rsocket_broker.payload import ErrorCode, Payload
from rsocket_broker.protocol.metadata import Entry, Mime, build_composite, first_content
from rsocket_broker.work import abandon

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanKind, Tracer

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
MARK: Final = TRACEPARENT.encode()
"""Metadata without these bytes carries no context; metadata with them differs from request to request."""
LONGEST: Final = 512
"""Bytes of either entry that are read: as much as W3C asks everyone to pass on. What is longer is left alone."""

SYSTEM: Final = "rsocket"
INTERNAL: Final = "internal"
"""The type of an error that nobody foresaw. What it says stays in our log."""
CUSTOM: Final = "custom"
"""The type of an error with a code of an app's own. There are four thousand million of them: too many for a label."""

_API: Final = "opentelemetry.trace"
_MIMES: Final = {name: Mime(name, None) for name in (TRACEPARENT, TRACESTATE)}

T = TypeVar("T")


class _End:
    """Nothing more comes."""


_END: Final = _End()

_found: "tuple[object, Tracer] | None" = None


def tracer() -> "Tracer | None":
    """What makes spans in this program; None where no OpenTelemetry SDK has been set up."""
    global _found
    api = sys.modules.get(_API)
    if api is None:
        return None
    provider = api.get_tracer_provider()
    if isinstance(provider, api.ProxyTracerProvider | api.NoOpTracerProvider):
        return None
    if _found is None or _found[0] is not provider:
        _found = provider, provider.get_tracer("rsocket_broker", __version__)
    return _found[1]


def carrier() -> bytes:
    """The current context as entries of composite metadata, to stand behind a route; b"" where there is none."""
    if _API not in sys.modules:
        return b""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    found: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(found)
    return build_composite(Entry(_MIMES[name], text.encode("ascii", "ignore")) for name, text in found.items())


def context_of(metadata: bytes | bytearray | None) -> "Context | None":
    """The context that came with a request. None where there is none, or one that cannot be read."""
    if not metadata or MARK not in metadata or _API not in sys.modules:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    found: dict[str, str] = {}
    for name in (TRACEPARENT, TRACESTATE):
        try:
            content = first_content(bytes(metadata), name)
        except Invalid:
            return None
        if content is not None and len(content) <= LONGEST and content.isascii():
            found[name] = content.decode("ascii")
    return TraceContextTextMapPropagator().extract(found) if found else None


class Tracing:
    """The spans of one session. `attributes` are those that all of them have.

    A span has the name of the route, attributes after OpenTelemetry's conventions for remote calls, and of an error
    its kind and the words that the peer gets; never what was asked or answered.
    """

    def __init__(self, tracer: "Tracer", attributes: Mapping[str, str]) -> None:
        from opentelemetry import context, trace

        self._tracer = tracer
        self._attributes = attributes
        self._trace = trace
        self._context = context

    # ---- what a peer asks --------------------------------------------------------------------------------------------

    def answer(
        self, plugin: str, method: str, work: Callable[[Payload], Payload | Awaitable[Payload]], payload: Payload
    ) -> Payload | Awaitable[Payload]:
        """What `work(payload)` gives, at once or later, within a span that belongs to the caller's trace."""
        span, context = self._serve(plugin, method, "request-response", payload.metadata)
        with self._within(span, context):
            result = work(payload)
        if isinstance(result, Payload):
            span.end()
            return result
        return _Followed(self._follow(span, context, result), result, span)

    def awaited(
        self,
        plugin: str,
        method: str,
        work: Awaitable[T],
        metadata: bytes | bytearray | None = None,
        interaction: str = "request-response",
    ) -> Awaitable[T]:
        """As `answer`, for work that begins when it is awaited. An app that speaks Flipper's JSON has no metadata."""
        span, context = self._serve(plugin, method, interaction, metadata)
        return _Followed(self._follow(span, context, work), work, span)

    def fire(
        self, plugin: str, method: str, metadata: bytes | bytearray | None
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Wraps what handles a one-way message, whenever its turn comes."""

        def wrap(start: Callable[..., Any]) -> Callable[..., Any]:
            def followed(*arguments: Any) -> Any:
                span, context = self._serve(plugin, method, "fire-and-forget", metadata)
                with self._within(span, context):
                    result = start(*arguments)
                if inspect.isawaitable(result):
                    return self._follow(span, context, result)
                span.end()
                return result

            return followed

        return wrap

    async def stream(
        self,
        plugin: str,
        method: str,
        interaction: str,
        metadata: bytes | bytearray | None,
        values: AsyncIterator[Payload] | Iterator[Payload | bytes],
    ) -> AsyncGenerator[Payload, None]:
        """The payloads of a stream, within a span that lasts as long. To be iterated by a task of its own."""
        source = values if isinstance(values, AsyncIterator) else as_async(values)
        span, context = self._serve(plugin, method, interaction, metadata)
        self._context.attach(context)  # for good: the task and its context end with the stream
        try:
            async for payload in source:
                yield payload
        except BaseException as error:
            self._fail(span, error)
            raise
        finally:
            span.end()
            await close_source(source)

    # ---- what we ask of a peer ---------------------------------------------------------------------------------------

    @contextmanager
    def calling(self, plugin: str, method: str, interaction: str) -> Generator[None, None, None]:
        """A span around a call to the app; `carrier` gives its context meanwhile."""
        span = self._start(plugin, method, interaction, self._trace.SpanKind.CLIENT, None)
        with self._within(span, self._trace.set_span_in_context(span)):
            yield
        span.end()

    async def streamed(
        self, plugin: str, method: str, interaction: str, values: AsyncGenerator[T, None]
    ) -> AsyncGenerator[T, None]:
        """A span around what the app streams. Only the first step, which asks, has its context: others may take over
        the generator after it."""
        span = self._start(plugin, method, interaction, self._trace.SpanKind.CLIENT, None)
        try:
            token = self._context.attach(self._trace.set_span_in_context(span))
            try:
                value = await anext(values, _END)
            finally:
                self._context.detach(token)
            while not isinstance(value, _End):
                yield value
                value = await anext(values, _END)
        except BaseException as error:
            self._fail(span, error)
            raise
        finally:
            span.end()
            await values.aclose()

    # ---- spans -------------------------------------------------------------------------------------------------------

    def _serve(
        self, plugin: str, method: str, interaction: str, metadata: bytes | bytearray | None
    ) -> "tuple[Span, Context]":
        parent = context_of(metadata) or self._context.Context()
        span = self._start(plugin, method, interaction, self._trace.SpanKind.SERVER, parent)
        return span, self._trace.set_span_in_context(span, parent)

    def _start(self, plugin: str, method: str, interaction: str, kind: "SpanKind", parent: "Context | None") -> "Span":
        attributes = {
            "rpc.system": SYSTEM,
            "rpc.service": plugin,
            "rpc.method": method,
            "rsocket.interaction": interaction,
            **self._attributes,
        }
        return self._tracer.start_span(f"{plugin}.{method}", parent, kind, attributes)

    @contextmanager
    def _within(self, span: "Span", context: "Context") -> Generator[None, None, None]:
        """Makes a span the current one. Ends it with an error that gets through, and only then."""
        token = self._context.attach(context)
        try:
            yield
        except BaseException as error:
            self._fail(span, error)
            span.end()
            raise
        finally:
            self._context.detach(token)

    async def _follow(self, span: "Span", context: "Context", work: Awaitable[T]) -> T:
        with self._within(span, context):
            result = await work
        span.end()
        return result

    def _fail(self, span: "Span", error: BaseException) -> None:
        """Writes down the kind of an error, and what its peer is told of it."""
        if isinstance(error, GeneratorExit):
            return  # whoever asked has had enough, which is no error
        span.set_attribute("error.type", kind_of(error))
        if isinstance(error, asyncio.CancelledError):
            return  # told, but nobody's fault
        words = error.public if isinstance(error, BrokerError) else None
        span.set_status(self._trace.StatusCode.ERROR, words)


def kind_of(error: BaseException) -> str:
    """The name of an error's code on the wire, `custom` for an app's own, `internal` for one that nobody foresaw."""
    if isinstance(error, asyncio.CancelledError):
        return ErrorCode.CANCELED.name
    if isinstance(error, RequestFailed):
        try:
            return ErrorCode(error.code).name
        except ValueError:
            return CUSTOM
    return INTERNAL


class _Followed(Coroutine[Any, Any, T]):
    """Work with a span around it, which ends also when nobody ever awaits the work."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], work: Awaitable[T], span: "Span") -> None:
        self._coroutine = coroutine
        self._work = work
        self._span = span

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine.throw(*error)

    def close(self) -> None:
        begun = inspect.getcoroutinestate(self._coroutine) != inspect.CORO_CREATED
        self._coroutine.close()
        if not begun:
            abandon(self._work)
            self._span.end()
