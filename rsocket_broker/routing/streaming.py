"""What a plugin streams to one session: for a stream, and for a channel."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

from rsocket_broker.errors import RequestFailed
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api.handlers import Handler, Model, Shape, encode, encode_data
from rsocket_broker.routing.apart import arguments_of_payload, fits, parses, steps_of
from rsocket_broker.routing.deadline import DeadlinePassed, limited
from rsocket_broker.routing.greeting import State
from rsocket_broker.routing.handling import FAILURES, Handling


class Streaming:
    """Of one plugin to one session."""

    __slots__ = ("_handling",)

    def __init__(self, handling: Handling) -> None:
        self._handling = handling

    def stream(self, name: str, payload: Payload) -> AsyncIterator[Payload] | Iterator[Payload | bytes]:
        """What `<plugin>.<name>` streams. Raises RequestFailed, now or when it is read."""
        handling = self._handling
        handler = handling.host.routes.find(name, Model.STREAM)
        start = handler.start
        assert start is not None
        if parses(handler) and not fits(payload):
            return self._each_apart(handler, payload)
        if handling.greeting.state is State.CONNECTED and handler.shape is Shape.GENERATOR:
            return self._each_now(handler, handling.guarded(handler, start, payload))
        return self._each(handler, lambda: start(handling.app, payload))

    def channel(self, name: str, payload: Payload, incoming: AsyncIterator[Payload]) -> AsyncGenerator[Payload, None]:
        """What `<plugin>.<name>` gives for a channel. Raises RequestFailed, now or when it is read."""
        handler = self._handling.host.routes.find(name, Model.CHANNEL)
        start = handler.start_channel
        assert start is not None
        return self._each(handler, lambda: start(self._handling.app, payload, incoming))

    async def _each_apart(self, handler: Handler, payload: Payload) -> AsyncGenerator[Payload, None]:
        handling, call = self._handling, steps_of(handler).call
        with handling.noted(handler):
            arguments = await arguments_of_payload(handling.host.aside, handler, payload)
        async with aclosing(self._each(handler, lambda: call(handling.app, arguments))) as payloads:
            async for one in payloads:
                yield one

    def _each_now(self, handler: Handler, values: Any) -> Iterator[Payload | bytes]:
        """A plain generator, driven by request-n without a task."""
        handling, gate = self._handling, self._handling.host.gate
        finish: Callable[[Any], Payload | bytes] = encode_data if handler.finish is encode else handler.finish
        gate.enter_now(handling.owner)
        task = asyncio.current_task()
        assert task is not None
        handling.running[task] = handler.name
        ends = None if handler.deadline is None else asyncio.get_running_loop().time() + handler.deadline
        try:
            for value in values:
                if ends is not None and asyncio.get_running_loop().time() > ends:
                    raise handling.late(handler)
                yield value if type(value) is Payload else finish(value)
            handling.host.calls.untimed += 1
        except RequestFailed as error:
            handling.host.calls.fail(error)
            raise
        except FAILURES as error:
            raise handling.failed(handler, error) from error
        finally:
            handling.running.pop(task, None)
            gate.leave(handling.owner)
            if hasattr(values, "close"):
                values.close()

    async def _each(self, handler: Handler, start: Callable[[], Any]) -> AsyncGenerator[Payload, None]:
        handling, task = self._handling, asyncio.current_task()
        assert task is not None
        handling.running[task] = handler.name
        try:
            await handling.greeting.over()
            await handling.host.gate.enter(handling.owner)
        except BaseException:
            handling.running.pop(task, None)
            raise
        loop = asyncio.get_running_loop()
        ends = None if handler.deadline is None else loop.time() + handler.deadline
        try:
            async with aclosing(_as_async(start())) as values:
                while True:
                    left = None if ends is None else max(0.0, ends - loop.time())
                    try:
                        value = await limited(_next(values), left)
                    except StopAsyncIteration:
                        handling.host.calls.untimed += 1
                        return
                    except DeadlinePassed:
                        raise handling.late(handler) from None
                    yield value if type(value) is Payload else handler.finish(value)
        except RequestFailed as error:
            handling.host.calls.fail(error)
            raise
        except (Exception, SystemExit) as error:
            raise handling.failed(handler, error) from error
        finally:
            handling.running.pop(task, None)
            handling.host.gate.leave(handling.owner)


async def _next(values: AsyncGenerator[Any, None]) -> Any:
    return await anext(values)


async def _as_async(result: Any) -> AsyncGenerator[Any, None]:
    """An async iterator, an iterator, or a coroutine with one value (None: no value), as an async generator."""
    if inspect.isawaitable(result):
        value = await result
        if value is not None:
            yield value
        return
    try:
        if hasattr(result, "__anext__") or hasattr(result, "__aiter__"):
            async for value in result:
                yield value
        else:
            for value in result:
                yield value
    finally:
        if hasattr(result, "aclose"):
            await result.aclose()
        elif hasattr(result, "close"):
            result.close()
