"""What is done with a large message beside the loop: its parameters made arguments, answers made text and values.

Each of these is the same as what `plugin_api.inspection` does with a small one in a single step.
"""

from collections.abc import Callable
from typing import Any

from rsocket_broker import jsonpieces
from rsocket_broker.errors import ApplicationError, Invalid
from rsocket_broker.jsonpieces import Read, Turn
from rsocket_broker.jsontext import JsonError
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api.handlers import Handler, Steps, plain
from rsocket_broker.quota import Holding, Kind
from rsocket_broker.routing.app_side import AppSide
from rsocket_broker.routing.aside import BRIEF, Aside, is_large
from rsocket_broker.routing.flipper import Message

Arguments = dict[str, Any]
"""What a handler is called with: see `Steps.call`."""


def parses(handler: Handler) -> bool:
    """Whether it takes JSON, so that a large message with its route is to be read here."""
    return handler.steps is not None and handler.steps.raw is None


def fits(payload: Payload) -> bool:
    """Whether a message is small enough to be parsed in one go."""
    data = payload.data or b""
    return len(data) <= BRIEF or not is_large(data)


def steps_of(handler: Handler) -> Steps:
    assert handler.steps is not None
    return handler.steps


async def arguments_of_text(aside: Aside, handler: Handler, text: bytes) -> Arguments:
    """From the parameters of one of Flipper's messages. Raises JsonError, Invalid."""
    steps = steps_of(handler)
    if steps.raw is not None:
        await aside.run(lambda turn: jsonpieces.check(text, turn))
        return _raw(steps, text)
    return await _checked(aside, steps, lambda turn: _or_empty(jsonpieces.parse(text, turn)))


async def arguments_of_payload(aside: Aside, handler: Handler, payload: Payload) -> Arguments:
    """From a message with a route. Raises Invalid."""
    data = bytes(payload.data or b"")
    try:
        return await _checked(aside, steps_of(handler), lambda turn: jsonpieces.parse(data, turn))
    except JsonError as error:
        raise Invalid(f"The data is {error}.") from error


async def arguments_of_value(aside: Aside, handler: Handler, value: object) -> Arguments:
    """From parameters that are parsed already. Raises Invalid."""
    steps, check = steps_of(handler), steps_of(handler).check
    if check is None:
        return _raw(steps, await aside.run(lambda turn: jsonpieces.write(value, turn)))
    return await aside.run(lambda turn: check(value))


async def message_in(aside: Aside, data: bytes, of: Callable[[object], Message]) -> Message:
    """The whole message. Raises Invalid."""
    try:
        read = await aside.run(lambda turn: jsonpieces.parse(data, turn))
    except JsonError as error:
        raise Invalid(f"The message is {error}.") from error
    aside.hand_out(read)
    return of(read.value)


async def answer_apart(aside: Aside, side: AppSide, data: bytes | bytearray, holding: Holding) -> Any:
    """The value of an app's answer, which counts in the `holding` of its line meanwhile: many may wait for their turn.
    Raises ApplicationError; Rejected when too many do."""
    try:
        with holding.keeping(Kind.LARGE, len(data)):
            read = await aside.run(lambda turn: jsonpieces.parse(bytes(data), turn))
    except JsonError as error:
        raise ApplicationError(f"The app's answer is {error}.") from error
    aside.hand_out(read)
    return side.value_of(read.value)


async def written_apart(aside: Aside, value: object) -> bytes:
    """A large value as JSON text. Raises JsonError."""
    return await aside.run(lambda turn: jsonpieces.write(value, turn))


async def encoded(aside: Aside, result: object) -> Payload:
    """As `handlers.encode`, for what is heavy. Raises JsonError."""
    data = await aside.run(lambda turn: _encoded(result, turn))
    aside.hand_out(Read(result, frozenset({id(result)})))
    return Payload(data, None)


async def is_json(aside: Aside, data: bytes) -> bool:
    """Whether large bytes that a handler has made itself are JSON."""
    try:
        await aside.run(lambda turn: jsonpieces.check(data, turn))
    except JsonError:
        return False
    return True


def _encoded(result: object, turn: Turn) -> bytes:
    try:
        return jsonpieces.write(result, turn)
    except JsonError:
        return jsonpieces.write(plain(result), turn)


async def _checked(aside: Aside, steps: Steps, read: Callable[[Turn], Read]) -> Arguments:
    check = steps.check
    assert check is not None

    def both(turn: Turn) -> tuple[Read, Arguments]:
        found = read(turn)
        return found, check(found.value)

    found, arguments = await aside.run(both)
    aside.hand_out(found, *arguments.values())
    return arguments


def _raw(steps: Steps, text: bytes) -> Arguments:
    return {steps.name: text if steps.raw is bytes else Payload(text, None)}


def _or_empty(read: Read) -> Read:
    return Read({}, frozenset()) if read.value is None else read
