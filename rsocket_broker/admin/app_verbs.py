"""`app.call` and `app.follow`: the operator asks a plugin of this broker about one client.

They run the plugin's own handler with that client's `App`, as a route `<plugin>.<method>` of the client's would. No
policy stands between the operator and the plugin; what the plugin then asks of the app is a call to a client, held to
the policy and recorded as `clients call` is.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

from rsocket_broker import jsontext
from rsocket_broker.admin.endpoint import Kinds, Params, Stream, Verb
from rsocket_broker.errors import Invalid
from rsocket_broker.payload import Payload
from rsocket_broker.routing.seat import Seat
from rsocket_broker.routing.session import Session
from rsocket_broker.sessions.live import LiveSessions

_NEEDED: Kinds = {"client": str, "plugin": str, "method": str}


def app_verbs(sessions: LiveSessions[Session]) -> dict[str, Verb | Stream]:
    """The verbs on the plugins of one client. Each raises RequestFailed, in words for the operator."""

    async def seat_for(params: Params) -> Seat:
        seat = await sessions.find(params["client"]).plugins.seat_of(params["plugin"])
        if not seat.is_method(params["method"]):
            raise Invalid(f"{params['plugin']}.{params['method']} is what an app tells, and no method.")
        return seat

    async def call(params: Params) -> Any:
        seat = await seat_for(params)
        answer = await seat.answers.to_json(params["method"], params.get("params", {}))
        return jsontext.parse(answer.data or b"null")

    async def follow(params: Params) -> AsyncGenerator[Any, None]:
        seat = await seat_for(params)
        values = seat.streams.stream(params["method"], Payload(jsontext.dump(params.get("params", {})), None))
        async with aclosing(_each(values)) as each:
            async for value in each:
                yield jsontext.parse((value if isinstance(value, bytes) else value.data) or b"null")

    optional: Kinds = {"params": object}
    return {"app.call": Verb(call, _NEEDED, optional), "app.follow": Stream(follow, _NEEDED, optional)}


async def _each(
    values: AsyncIterator[Payload] | Iterator[Payload | bytes],
) -> AsyncGenerator[Payload | bytes, None]:
    if not isinstance(values, AsyncIterator):
        for one in values:
            yield one
        return
    try:
        async for payload in values:
            yield payload
    finally:
        if isinstance(values, AsyncGenerator):
            await values.aclose()
