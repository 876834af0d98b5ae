"""What the judge asks of a server beyond `echo`: to be seen from the inside, and to call its client.

The servers of the other libraries in `servers/` have the same routes.

    probe.wait       request-response that is never answered; counts those that were cancelled
    probe.metadata   request-response that answers with the metadata of the request, as data
    probe.flow       an endless stream of "0", "1", ...; counts what it made and whether it was cancelled
    probe.collect    a channel that takes everything and answers once: [[length of data, length of metadata or -1], ...]
    probe.fail       a channel that fails with an application error at the second payload
    probe.seen       {"waits_cancelled", "flows_cancelled", "made", "pushed"} so far
    push.count       not a request but the route in a metadata push: counted as "pushed"
    call.response    calls the client by request-response, with the data that it was given
    call.fire        by fire-and-forget
    call.stream      by request-stream; the data says after how many payloads it cancels, 0 for never
    call.channel     by request-channel, with as many payloads as the data says
                     All four answer with the JSON list of what came back; an error as {"error": text}.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator

from rsocket.request_handler import BaseRequestHandler

from rsocket_broker.plugin_api import App, ApplicationError, Payload, Plugin, RequestFailed, method
from rsocket_broker.plugin_api.mount import mount


class Probe(Plugin):
    id = "probe"
    concurrency = 1024

    def __init__(self) -> None:
        self.waits_cancelled = 0
        self.flows_cancelled = 0
        self.made = 0

    @method("wait", deadline=None)
    async def wait(self, app: App, payload: Payload) -> Payload:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.waits_cancelled += 1
        return payload

    @method("metadata")
    def metadata(self, app: App, payload: Payload) -> Payload:
        return Payload(payload.metadata)

    @method("flow", deadline=None)
    async def flow(self, app: App, payload: Payload) -> AsyncGenerator[Payload, None]:
        number = 0
        try:
            while True:
                self.made += 1
                yield Payload(str(number).encode())
                number += 1
        finally:
            self.flows_cancelled += 1

    @method("collect", deadline=None)
    async def collect(self, app: App, incoming: AsyncIterator[Payload]) -> AsyncGenerator[Payload, None]:
        sizes = [
            [len(payload.data or b""), -1 if payload.metadata is None else len(payload.metadata)]
            async for payload in incoming
        ]
        yield Payload(json.dumps(sizes).encode())

    @method("fail", deadline=None)
    async def fail(self, app: App, incoming: AsyncIterator[Payload]) -> AsyncGenerator[Payload, None]:
        yield await anext(incoming)
        await anext(incoming)
        raise ApplicationError("probe.fail fails at the second payload.")

    @method("seen")
    def seen(self, app: App) -> dict[str, int]:
        return {
            "waits_cancelled": self.waits_cancelled,
            "flows_cancelled": self.flows_cancelled,
            "made": self.made,
            "pushed": PushCounter.pushed,
        }


class Call(Plugin):
    id = "call"

    @method("response")
    async def response(self, app: App, payload: Payload) -> list[object]:
        try:
            return [await app.call("it", _parsed(payload), timeout=10)]
        except RequestFailed as error:
            return [{"error": error.public}]

    @method("fire")
    async def fire(self, app: App, payload: Payload) -> list[object]:
        await app.send("it", _parsed(payload))
        return []

    @method("stream")
    async def stream(self, app: App, payload: Payload) -> list[object]:
        return await _taken(app.stream("it", {}), int(payload.data or b"0"))

    @method("channel")
    async def channel(self, app: App, payload: Payload) -> list[object]:
        async def values() -> AsyncGenerator[object, None]:
            for number in range(int(payload.data or b"0")):
                yield number

        return await _taken(app.channel("it", values()), 0)


async def _taken(answers: AsyncGenerator[object, None], count: int) -> list[object]:
    found: list[object] = []
    try:
        async for answer in answers:
            found.append(answer)
            if len(found) == count:
                break
    except RequestFailed as error:
        found.append({"error": error.public})
    finally:
        await answers.aclose()
    return found


def _parsed(payload: Payload) -> object:
    return json.loads(payload.data or b"{}")


class PushCounter(BaseRequestHandler):
    """Only a mounted handler of rsocket-py is given metadata pushes."""

    pushed = 0

    async def on_metadata_push(self, payload: Payload) -> None:
        PushCounter.pushed += 1


pushes = mount(PushCounter, "push")
