"""The broker's end of the admin line: a table of verbs, asked in JSON over RSocket.

A request's data is `{"verb": NAME, "params": {...}}`; the answer, or each item of a stream, is one JSON value. On a
Unix socket the file system says who may ask (mode 0600 in a folder of 0700). Over loopback TCP anyone on the machine
can connect, so the SETUP data must be `{"token": TOKEN}` with the secret that only the broker's user can read.
"""

import hmac
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import attrs

from rsocket_broker import jsontext
from rsocket_broker.connection import Connection
from rsocket_broker.errors import ConnectionClosed, Invalid, SetupRefused
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.events import SetupReceived

Params = Mapping[str, Any]


Kinds = Mapping[str, type | tuple[type, ...]]
"""Parameters of a verb and their types in JSON; `object` is any."""


@attrs.frozen(slots=True)
class Verb:
    """Something that is answered once. `run` gets checked parameters and gives a JSON value, at once or awaited."""

    run: Callable[[Params], object]
    required: Kinds = attrs.field(factory=dict)
    optional: Kinds = attrs.field(factory=dict)


@attrs.frozen(slots=True)
class Stream:
    """Something that is answered with many values. Closing what `run` gives ends the work."""

    run: Callable[[Params], AsyncIterator[object]]
    required: Kinds = attrs.field(factory=dict)
    optional: Kinds = attrs.field(factory=dict)


class AdminEndpoint:
    """Serves one connection of the admin line; a Responder. Make one per connection."""

    def __init__(self, verbs: Mapping[str, Verb | Stream], token: str | None = None) -> None:
        self._verbs = verbs
        self._token = token

    def setup(self, connection: Connection, setup: SetupReceived) -> None:
        """Raises SetupRefused unless the peer shows the token, where one is wanted."""
        if self._token is None:
            return
        try:
            shown = jsontext.parse_object(setup.data).get("token")
        except jsontext.JsonError:
            shown = None
        text = shown if isinstance(shown, str) else ""
        # Compared as bytes, in a time that does not tell how much of it was right.
        if not hmac.compare_digest(text.encode("utf-8", "replace"), self._token.encode()):
            raise SetupRefused("the admin token is missing or wrong")

    def request_response(self, payload: Payload) -> Awaitable[Payload]:
        verb, params = self._find(payload)
        if not isinstance(verb, Verb):
            raise Invalid("this verb answers with a stream")
        return _answer(verb, params)

    def request_stream(self, payload: Payload) -> AsyncIterator[Payload]:
        verb, params = self._find(payload)
        if not isinstance(verb, Stream):
            raise Invalid("this verb answers once")
        return _items(verb, params)

    def fire_and_forget(self, payload: Payload) -> None:
        """Ignored: every verb has an answer, and nobody would get it."""

    def request_channel(self, payload: Payload, incoming: AsyncIterator[Payload]) -> AsyncIterator[Payload]:
        raise Invalid("the admin line has no channels")

    def metadata_push(self, metadata: bytes) -> None:
        """Ignored: the admin line needs no metadata."""

    def closed(self, error: ConnectionClosed) -> None:
        """Nothing to take down: what a verb held, the connection has cancelled."""

    def _find(self, payload: Payload) -> tuple[Verb | Stream, Params]:
        """Raises Invalid naming what is wrong with the request."""
        try:
            request = jsontext.parse_object(payload.data or b"")
        except jsontext.JsonError as error:
            raise Invalid(f"the request is {error}") from error
        name, params = request.get("verb"), request.get("params", {})
        verb = self._verbs.get(name) if isinstance(name, str) else None
        if verb is None:
            raise Invalid("no such verb; is the broker older than this command?")
        if not isinstance(params, dict):
            raise Invalid("params must be an object")
        check_params(verb, params)
        return verb, params


def check_params(verb: Verb | Stream, params: Params) -> None:
    """Raises Invalid naming the parameter that is missing, unknown or of a wrong type."""
    for name in verb.required:
        if name not in params:
            raise Invalid(f"{name} is missing")
    known = {**verb.required, **verb.optional}
    for name, value in params.items():
        if name not in known:
            raise Invalid(f"{name} is unknown")
        kind = known[name]
        if kind is not object and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise Invalid(f"{name} is of a wrong type")


async def _answer(verb: Verb, params: Params) -> Payload:
    result = verb.run(params)
    return Payload(jsontext.dump(await result if inspect.isawaitable(result) else result))


async def _items(verb: Stream, params: Params) -> AsyncIterator[Payload]:
    async for item in verb.run(params):
        yield Payload(item if isinstance(item, bytes) else jsontext.dump(item))
