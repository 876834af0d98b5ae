"""A server on rsocket-py with the routes that the judge asks for: `python server.py PORT LEASE_PORT`.

Plain TCP on loopback.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

from reactivestreams.publisher import Publisher
from reactivestreams.subscriber import DefaultSubscriber, Subscriber
from reactivestreams.subscription import Subscription
from rsocket.awaitable.collector_subscriber import CollectorSubscriber
from rsocket.extensions.composite_metadata import CompositeMetadata
from rsocket.extensions.helpers import composite, route
from rsocket.extensions.routing import RoutingMetadata
from rsocket.lease import SingleLeasePublisher
from rsocket.payload import Payload
from rsocket.request_handler import BaseRequestHandler
from rsocket.rsocket_server import RSocketServer
from rsocket.transports.tcp import TransportTCP

FRAGMENT = 1 << 20
TURN = 64
LEASE_REQUESTS = 5
CREDIT = 32

seen = {"waits_cancelled": 0, "flows_cancelled": 0, "made": 0, "pushed": 0}
fired = {"count": 0}


def count(table: dict[str, int], name: str) -> None:
    table[name] += 1


class Source(Publisher, Subscription):
    """Payloads of an iterator, as many as were asked for, then the end or an error."""

    def __init__(self, items: Iterator[Payload], fails: str = "", cancelled: Callable[[], None] = lambda: None) -> None:
        self._items = items
        self._fails = fails
        self._cancelled = cancelled
        self._asked = 0
        self._done = False
        self._running = False
        self._ahead: Payload | None = None

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        subscriber.on_subscribe(self)
        if self._ahead is None:
            self._look_ahead()

    def _look_ahead(self) -> None:
        self._ahead = next(self._items, None)

    def request(self, n: int) -> None:
        self._asked += n
        if not self._running:
            self._running = True
            self._run()

    def _run(self) -> None:
        for _ in range(TURN):
            if self._done or (self._ahead is not None and not self._asked):
                self._running = False
                return
            payload = self._ahead
            if payload is None:
                self._done = True
                if self._fails:
                    self._subscriber.on_error(RuntimeError(self._fails))
                else:
                    self._subscriber.on_complete()
                return
            self._asked -= 1
            self._look_ahead()
            self._subscriber.on_next(payload)
        asyncio.get_running_loop().call_soon(self._run)

    def cancel(self) -> None:
        if not self._done:
            self._done = True
            self._cancelled()


class Echo(Publisher, Subscription, DefaultSubscriber):
    """What comes in goes out: demand is passed on upstream. `fails` after so many."""

    def __init__(self, first: Payload, fails_at: int = 0) -> None:
        super().__init__()
        self._waiting = [first]
        self._asked = 0
        self._count = 0
        self._fails_at = fails_at
        self._ended = False
        self._done = False
        self._out: Subscriber | None = None

    def subscribe(self, subscriber: Subscriber) -> None:
        self._out = subscriber
        subscriber.on_subscribe(self)

    def on_subscribe(self, subscription: Subscription) -> None:
        super().on_subscribe(subscription)
        subscription.request(CREDIT)

    def request(self, n: int) -> None:
        self._asked += n
        self._push()

    def cancel(self) -> None:
        self._done = True

    def on_next(self, value: Payload, is_complete: bool = False) -> None:
        self._waiting.append(value)
        self._ended = self._ended or is_complete
        self._push()

    def on_complete(self) -> None:
        self._ended = True
        self._push()

    def on_error(self, exception: Exception) -> None:
        self._done = True

    def _push(self) -> None:
        while self._out is not None and not self._done and self._asked and self._waiting:
            self._count += 1
            if self._count == self._fails_at:
                self._done = True
                self._out.on_error(RuntimeError("probe.fail fails at the second payload."))
                return
            self._asked -= 1
            payload = self._waiting.pop(0)
            if self._count > 1 and self.subscription is not None and not self._ended:
                self.subscription.request(1)
            self._out.on_next(Payload(payload.data, payload.metadata))
        if self._ended and not self._waiting and not self._done and self._out is not None:
            self._done = True
            self._out.on_complete()


class Collect(Echo):
    """Takes everything, answers once."""

    def __init__(self, first: Payload) -> None:
        super().__init__(first)
        self._sizes: list[list[int]] = []
        self._note(first)
        self._waiting = []

    def _note(self, value: Payload) -> None:
        self._sizes.append([len(value.data or b""), -1 if value.metadata is None else len(value.metadata)])

    def on_next(self, value: Payload, is_complete: bool = False) -> None:
        self._note(value)
        if is_complete:
            self.on_complete()
        elif self.subscription is not None:
            self.subscription.request(1)

    def on_complete(self) -> None:
        if not self._ended:
            self._waiting = [Payload(json.dumps(self._sizes).encode())]
            super().on_complete()


def route_of(payload: Payload) -> str:
    metadata = CompositeMetadata()
    metadata.parse(payload.metadata or b"")
    for item in metadata.items:
        if isinstance(item, RoutingMetadata):
            return bytes(item.tags[0]).decode()
    raise RuntimeError("no route")


def plan(payload: Payload) -> Iterator[Payload]:
    number, size = (payload.data or b"").decode().split(":")
    return (Payload(bytes(int(size))) for _ in range(int(number)))


def flow() -> Iterator[Payload]:
    number = 0
    while True:
        seen["made"] += 1
        yield Payload(str(number).encode())
        number += 1


class Handler(BaseRequestHandler):
    server: RSocketServer

    async def request_response(self, payload: Payload) -> Awaitable[Payload]:
        return asyncio.ensure_future(self._answer(route_of(payload), payload))

    async def _answer(self, name: str, payload: Payload) -> Payload:
        if name == "echo.request":
            return Payload(payload.data, payload.metadata)
        if name == "probe.metadata":
            return Payload(payload.metadata)
        if name == "echo.slow":
            await asyncio.sleep(int(payload.data or b"0") / 1000)
            return Payload(payload.data, payload.metadata)
        if name == "echo.error":
            raise RuntimeError("echo.error always fails.")
        if name in ("echo.never", "probe.wait"):
            await self._never(name)
        if name == "echo.fired":
            return Payload(json.dumps(fired).encode())
        if name == "probe.seen":
            return Payload(json.dumps(seen).encode())
        if name.startswith("call."):
            return Payload(json.dumps(await self._call(name, payload)).encode())
        raise RuntimeError(f"no route {name}")

    async def _never(self, name: str) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if name == "probe.wait":
                count(seen, "waits_cancelled")
            raise

    async def request_fire_and_forget(self, payload: Payload) -> None:
        if route_of(payload) == "echo.fire":
            count(fired, "count")

    async def on_metadata_push(self, payload: Payload) -> None:
        if route_of(payload) == "push.count":
            count(seen, "pushed")

    async def request_stream(self, payload: Payload) -> Publisher:
        name = route_of(payload)
        if name == "echo.stream":
            return Source(plan(payload))
        if name == "echo.stream-error":
            return Source(plan(payload), "echo.stream-error fails.")
        if name == "probe.flow":
            return Source(flow(), cancelled=lambda: count(seen, "flows_cancelled"))
        raise RuntimeError(f"no route {name}")

    async def request_channel(self, payload: Payload) -> tuple[Publisher, Subscriber]:
        name = route_of(payload)
        both: Any = {"echo.channel": Echo, "probe.collect": Collect, "probe.fail": lambda one: Echo(one, 2)}[name]
        made = both(payload)
        return made, made

    async def _call(self, name: str, payload: Payload) -> list[Any]:
        metadata = composite(route("call.it"))
        if name == "call.response":
            return await collected(self._response(Payload(payload.data, metadata)))
        if name == "call.fire":
            await self.server.fire_and_forget(Payload(payload.data, metadata))
            return []
        number = int(payload.data or b"0")
        values: list[Any] = []
        subscriber = Collector(values, number if name == "call.stream" else 0)
        if name == "call.stream":
            self.server.request_stream(Payload(b"{}", metadata)).initial_request_n(CREDIT).subscribe(subscriber)
        else:
            rest = Source(Payload(str(one).encode()) for one in range(1, number))
            first = Payload(b"0", metadata)
            self.server.request_channel(first, rest).initial_request_n(CREDIT).subscribe(subscriber)
        try:
            await subscriber.run()
        except Exception as error:
            values.append({"error": str(error)})
        return values

    async def _response(self, payload: Payload) -> list[Any]:
        return [parsed(await self.server.request_response(payload))]


class Collector(CollectorSubscriber):
    """Keeps what came although an error came after it."""

    def __init__(self, into: list[Any], limit: int) -> None:
        super().__init__(CREDIT, limit or None)
        self._into = into

    def on_next(self, value: Payload, is_complete: bool = False) -> None:
        if value is not None and value.data is not None:
            self._into.append(parsed(value))
        super().on_next(value, is_complete)


def parsed(payload: Payload) -> Any:
    return json.loads(payload.data) if payload.data else None


async def collected(answer: Awaitable[list[Any]]) -> list[Any]:
    try:
        return await answer
    except Exception as error:
        return [{"error": str(error)}]


def session(*, leases: bool) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = Handler()
        publisher = SingleLeasePublisher(LEASE_REQUESTS, timedelta(minutes=1)) if leases else None
        handler.server = RSocketServer(
            TransportTCP(reader, writer),
            handler_factory=lambda: handler,
            fragment_size_bytes=FRAGMENT,
            lease_publisher=publisher,
            honor_lease=leases,
        )

    return begin


async def main(port: int, lease_port: int) -> None:
    servers = [
        await asyncio.start_server(session(leases=False), "127.0.0.1", port),
        await asyncio.start_server(session(leases=True), "127.0.0.1", lease_port),
    ]
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
