"""How a plugin answers the requests of one session: the way for each of them, and the shortcuts for those that repeat.

A shortcut gives what the long way gives, limits, errors, counts and logs included, in fewer steps.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from rsocket_broker.errors import RequestFailed
from rsocket_broker.jsontext import SHORT, skim
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api.direct import StartSkimmed
from rsocket_broker.plugin_api.handlers import Handler, Model, Shape, encode, encode_data
from rsocket_broker.protocol.runs import Shortcut
from rsocket_broker.routing.apart import Arguments, arguments_of_payload, fits, parses, steps_of
from rsocket_broker.routing.aside import BRIEF, is_large
from rsocket_broker.routing.greeting import State
from rsocket_broker.routing.handling import FAILURES, Handling

Answer = Callable[[Payload], Payload | Awaitable[Payload]]


class Answers:
    """Of one plugin to one session. What is kept of it holds while the greeting is CONNECTED."""

    __slots__ = ("_handling",)

    def __init__(self, handling: Handling) -> None:
        self._handling = handling

    # --- the long way ------------------------------------------------------------------------------------------------

    def to(self, name: str) -> Answer:
        """What answers `<plugin>.<name>`. Raises Invalid."""
        handling = self._handling
        handler = handling.host.routes.find(name, Model.RESPONSE)
        if handling.greeting.state is not State.CONNECTED:
            return lambda payload: self._when_ready(handler, payload)
        small: Answer = lambda payload: handling.run(handler, handler.start, payload)  # noqa: E731
        if handler.shape is Shape.PLAIN:
            small = self._plain(handler)
        if not parses(handler):
            return small
        return lambda payload: small(payload) if fits(payload) else self._apart(handler, payload)

    def to_json(self, name: str, value: object) -> Awaitable[Payload]:
        """The answer of `<plugin>.<name>` to parameters that are parsed already. Raises Invalid."""
        return self._to_json(self._handling.host.json_handler(name, Model.RESPONSE), value)

    async def to_arguments(self, handler: Handler, arguments: Arguments) -> Payload:
        """The same, where the arguments are there already. Raises RequestFailed."""
        with self._handling.noted(handler):
            await self._handling.greeting.over()
        return await self._handling.run(handler, steps_of(handler).call, arguments)

    async def _to_json(self, handler: Handler, value: object) -> Payload:
        with self._handling.noted(handler):
            await self._handling.greeting.over()
        return await self._handling.run(handler, handler.start_json, value)

    async def _apart(self, handler: Handler, payload: Payload) -> Payload:
        """Of a large request with a route, for a handler that takes JSON."""
        handling = self._handling
        with handling.noted(handler):
            await handling.greeting.over()
            arguments = await arguments_of_payload(handling.host.aside, handler, payload)
        return await handling.run(handler, steps_of(handler).call, arguments)

    async def _when_ready(self, handler: Handler, payload: Payload) -> Payload:
        if parses(handler) and not fits(payload):
            return await self._apart(handler, payload)
        with self._handling.noted(handler):
            await self._handling.greeting.over()
        return await self._handling.run(handler, handler.start, payload)

    def _plain(self, handler: Handler) -> Answer:
        """The short way: no task, no future, no place taken; it is done before anything else can begin."""
        handling, start, finish = self._handling, handler.start, handler.finish
        app, calls = handling.app, handling.host.calls
        assert start is not None

        def answer(payload: Payload) -> Payload:
            try:
                result = start(app, payload)
                if type(result) is not Payload:
                    result = finish(result)
            except RequestFailed as error:
                calls.fail(error)
                raise
            except FAILURES as error:
                raise handling.failed(handler, error) from error
            calls.untimed += 1
            return result

        return answer

    # --- shortcuts ---------------------------------------------------------------------------------------------------

    def shortcut(self, name: str, metadata: bytes) -> Shortcut:
        """As `to`, from the data of requests that all have this metadata to their answers' data. Raises Invalid.

        What it gives is the data, or what else came of it: a payload, an error, or an awaitable of a payload.
        """
        handler = self._handling.host.routes.find(name, Model.RESPONSE)
        if handler.shape is not Shape.PLAIN:
            return self._in_a_task(handler, metadata)
        if handler.start_skimmed is not None and handler.finish is encode:
            return self._json_in_json_out(handler, handler.start_skimmed)
        if parses(handler):
            return self._parsed(handler, metadata)
        return self._unparsed(handler, metadata)

    def _in_a_task(self, handler: Handler, metadata: bytes) -> Shortcut:
        parsed, run = parses(handler), self._handling.run

        def shortcut(data: bytes) -> object:
            payload = Payload(data, metadata)
            if parsed and len(data) > BRIEF and is_large(data):
                return self._apart(handler, payload)
            return run(handler, handler.start, payload)

        return shortcut

    def _parsed(self, handler: Handler, metadata: bytes) -> Shortcut:
        small = self._unparsed(handler, metadata)
        return lambda data: (
            self._apart(handler, Payload(data, metadata)) if len(data) > BRIEF and is_large(data) else small(data)
        )

    def _unparsed(self, handler: Handler, metadata: bytes) -> Shortcut:
        handling, calls, start = self._handling, self._handling.host.calls, self._for_data(handler, metadata)
        finish: Callable[[Any], bytes | Payload] = encode_data if handler.finish is encode else handler.finish

        def shortcut(data: bytes) -> object:
            try:
                result = start(data)
                answer = result if type(result) is Payload else finish(result)
            except RequestFailed as error:
                calls.fail(error)
                return error
            except FAILURES as error:
                return handling.failed(handler, error)
            calls.untimed += 1
            return answer if type(answer) is bytes else _data_alone(answer)

        return shortcut

    def _json_in_json_out(self, handler: Handler, start: StartSkimmed) -> Shortcut:
        """The shortcut of most handlers, written for the number of steps."""
        handling, app, calls = self._handling, self._handling.app, self._handling.host.calls

        def shortcut(data: bytes) -> object:
            if len(data) > BRIEF and is_large(data):
                return self._apart(handler, Payload(data, None))
            try:
                value = skim(data) if len(data) <= SHORT else None
            except ValueError:
                value = None  # which no parameters are: they are looked at again, and thoroughly
            try:
                answer = encode_data(start(app, value, data))
            except RequestFailed as error:
                calls.fail(error)
                return error
            except FAILURES as error:
                return handling.failed(handler, error)
            calls.untimed += 1
            return answer if type(answer) is bytes else _data_alone(answer)

        return shortcut

    def _for_data(self, handler: Handler, metadata: bytes) -> Callable[[bytes], Any]:
        app, start, start_data = self._handling.app, handler.start, handler.start_data
        if start_data is not None:
            return partial(start_data, app)
        assert start is not None

        return lambda data: start(app, Payload(data, metadata))

    def skims(self, name: str) -> bool:
        """Whether the shortcut for a method takes parameters as text, and looks at nothing else. Raises Invalid."""
        handler = self._handling.host.routes.find(name, Model.RESPONSE)
        return handler.shape is Shape.PLAIN and handler.start_skimmed is not None and handler.finish is encode

    def json_shortcut(self, name: str) -> Callable[[object], bytes | Payload] | None:
        """As `to_json`; None where that takes a task.

        What it gives is JSON as bytes, or the payload of a handler that makes its own. It raises RequestFailed.
        """
        handling = self._handling
        handler = handling.host.routes.find(name, Model.RESPONSE)
        start, finish, app, calls = handler.start_json, handler.finish, handling.app, handling.host.calls
        if handler.shape is not Shape.PLAIN or start is None:
            return None
        encoded: Callable[[Any], bytes | Payload] = encode_data if finish is encode else finish

        def shortcut(value: object) -> bytes | Payload:
            try:
                answer = encoded(start(app, value))
            except RequestFailed as error:
                calls.fail(error)
                raise
            except FAILURES as error:
                raise handling.failed(handler, error) from error
            calls.untimed += 1
            return answer

        return shortcut


def _data_alone(answer: Any) -> object:
    """A payload's data, where there is nothing else."""
    return answer.data if type(answer) is Payload and answer.metadata is None else answer
