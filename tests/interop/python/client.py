"""A client on rsocket-py: `python client.py tls://localhost:8088 DIRECTORY STEP...`; scenario.toml lists the steps.

The URL may also be wss://localhost:9088/rsocket; with ?lease at its end the session has leases. DIRECTORY has
privateKey.pem, device.crt and sonarCA.crt. The first half makes requests, the second half answers those of the broker.
"""

import asyncio
import collections
import itertools
import json
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import websockets
from reactivestreams.publisher import Publisher
from reactivestreams.subscriber import Subscriber
from reactivestreams.subscription import Subscription
from rsocket.exceptions import RSocketProtocolError
from rsocket.extensions.composite_metadata import CompositeMetadata
from rsocket.extensions.helpers import composite, require_route, route
from rsocket.extensions.mimetypes import WellKnownMimeTypes
from rsocket.frame import MAX_REQUEST_N
from rsocket.helpers import single_transport_provider
from rsocket.payload import Payload
from rsocket.request_handler import BaseRequestHandler
from rsocket.rsocket_client import RSocketClient
from rsocket.transports.tcp import TransportTCP
from rsocket.transports.transport import Transport
from rsocket.transports.websockets_transport import WebsocketsTransport

FRAGMENT = 1024
LARGE = 200_000
STEP_LIMIT = 40.0
APPLICATION_ERROR = 0x201
NO = "the client says no"


def to(path: str, data: bytes = b"") -> Payload:
    return Payload(data, composite(route(path)))


def route_of(metadata: bytes) -> str:
    parsed = CompositeMetadata()
    parsed.parse(metadata)
    return str(require_route(parsed))


def failure(error: Exception) -> dict[str, Any]:
    if isinstance(error, RSocketProtocolError):
        return {"code": error.error_code.value, "text": error.data}
    return {"code": APPLICATION_ERROR, "text": str(error)}


class Taker(Subscriber):
    """Takes a stream: asks for `credit` payloads at a time, and cancels after `limit`."""

    def __init__(self, credit: int = MAX_REQUEST_N, limit: int | None = None) -> None:
        self.values: list[bytes] = []
        self._credit = credit
        self._limit = limit
        self._ended = asyncio.get_running_loop().create_future()

    def on_subscribe(self, subscription: Any) -> None:
        self.subscription = subscription

    def on_next(self, value: Payload, is_complete: bool = False) -> None:
        self.values.append(value.data)
        if is_complete:
            self.on_complete()
        elif len(self.values) == self._limit:
            self.subscription.cancel()
            self.on_complete()
        elif self._limit is None and len(self.values) % self._credit == 0:
            self.subscription.request(self._credit)

    def on_error(self, exception: Exception) -> None:
        self._ended.set_exception(exception)

    def on_complete(self) -> None:
        self._ended.set_result(None)

    async def all(self) -> list[bytes]:
        await self._ended
        return self.values


class Source(Publisher, Subscription):
    """Sends what an async iterator yields, as it is asked for. (The library's own StreamFromAsyncGenerator loses what
    it has not sent yet when the generator raises.)"""

    def __init__(self, values: AsyncIterator[bytes], on_cancel: Callable[[], None] = lambda: None) -> None:
        self._values = values
        self._on_cancel = on_cancel
        self._credit = asyncio.Semaphore(0)

    def subscribe(self, subscriber: Subscriber) -> None:
        subscriber.on_subscribe(self)
        self._task = asyncio.create_task(self._send(subscriber))

    async def _send(self, subscriber: Subscriber) -> None:
        try:
            while await self._credit.acquire():
                subscriber.on_next(Payload(await anext(self._values)))
                await asyncio.sleep(0)
        except StopAsyncIteration:
            subscriber.on_complete()
        except Exception as error:
            subscriber.on_error(error)

    def request(self, n: int) -> None:
        for _ in range(n):
            self._credit.release()

    def cancel(self) -> None:
        self._task.cancel()
        self._on_cancel()


async def each(*values: bytes) -> AsyncIterator[bytes]:
    for value in values:
        yield value


# --- requests of the client ------------------------------------------------------------------------------------------


class Steps:
    def __init__(self, client: RSocketClient) -> None:
        self._client = client

    def all(self) -> dict[str, Callable[[], Awaitable[dict[str, Any]]]]:
        own = {name: getattr(self, name) for name in vars(Steps) if not name.startswith("_") and name != "all"}
        return {name.replace("_", "-"): step for name, step in own.items()}

    async def _ask(self, path: str, value: object) -> Any:
        return json.loads((await self._client.request_response(to(path, json.dumps(value).encode()))).data)

    async def _heard(self, name: str) -> Any:
        return await self._ask("interop.heard", {"name": name})

    async def _stream(self, request: Payload, credit: int = MAX_REQUEST_N, limit: int | None = None) -> Taker:
        taker = Taker(credit, limit)
        self._client.request_stream(request).initial_request_n(credit).subscribe(taker)
        return taker

    async def _channel(self, path: str, *values: bytes, credit: int = 2, limit: int | None = None) -> Taker:
        taker = Taker(credit, limit)
        more = Source(each(*values[1:])) if values[1:] else None
        self._client.request_channel(to(path, values[0]), more).initial_request_n(credit).subscribe(taker)
        return taker

    async def _failing(self, taker: Taker) -> dict[str, Any]:
        try:
            return {"received": len(await taker.all())}
        except Exception as error:
            return {"received": len(taker.values), **failure(error)}

    async def response(self) -> dict[str, Any]:
        answer = await self._client.request_response(to("echo.request", b"\x00\xffhello"))
        return {"data": answer.data.hex(), "route": route_of(answer.metadata)}

    async def response_empty(self) -> dict[str, Any]:
        return {"size": len((await self._client.request_response(to("echo.request"))).data or b"")}

    async def response_error(self) -> dict[str, Any]:
        try:
            return {"answer": str(await self._client.request_response(to("echo.error")))}
        except Exception as error:
            return failure(error)

    async def response_invalid(self) -> dict[str, Any]:
        try:
            return {"answer": str(await self._client.request_response(to("echo.nowhere")))}
        except Exception as error:
            return {"code": failure(error)["code"]}

    async def response_fragments(self) -> dict[str, Any]:
        data = bytes(range(250)) * (LARGE // 250)
        answer = await self._client.request_response(to("echo.request", data))
        return {"size": len(answer.data), "same": answer.data == data}

    async def response_cancel(self) -> dict[str, Any]:
        answer = self._client.request_response(to("interop.never"))
        await self._ask("echo.request", {})  # the other request is on its way by now
        answer.cancel()
        return {"stopped": await self._heard("never")}

    async def fire(self) -> dict[str, Any]:
        await self._client.fire_and_forget(to("interop.fired"))
        return {"heard": await self._heard("fired")}

    async def fire_fragments(self) -> dict[str, Any]:
        await self._client.fire_and_forget(to("interop.fired", bytes(LARGE)))
        return {"heard": await self._heard("fired")}

    async def push(self) -> dict[str, Any]:
        await self._client.metadata_push(composite(route("interop.pushed")))
        return {"heard": await self._heard("pushed")}

    async def stream(self) -> dict[str, Any]:
        taker = await self._stream(to("echo.stream", b"7:100"), credit=2)
        return {"sizes": [len(data) for data in await taker.all()]}

    async def stream_credit(self) -> dict[str, Any]:
        taker = Taker()
        self._client.request_stream(to("interop.numbers")).initial_request_n(3).subscribe(taker)
        first = await self._settled(taker, 3)
        taker.subscription.request(4)
        then = await self._settled(taker, 7)
        taker.subscription.cancel()
        return {"first": first, "then": then, "stopped": await self._heard("numbers")}

    async def _settled(self, taker: Taker, count: int) -> int:
        """How many payloads have come, when `count` have and what might have been sent behind them has too."""
        while len(taker.values) < count:
            await self._ask("echo.request", {})
        await self._ask("echo.request", {})
        return len(taker.values)

    async def stream_cancel(self) -> dict[str, Any]:
        received = await (await self._stream(to("interop.numbers"), credit=5, limit=5)).all()
        return {"received": len(received), "stopped": await self._heard("numbers")}

    async def stream_error(self) -> dict[str, Any]:
        return await self._failing(await self._stream(to("echo.stream-error", b"3:10")))

    async def stream_fragments(self) -> dict[str, Any]:
        taker = await self._stream(to("echo.stream", b"1:16777215"))
        return {"sizes": [len(data) for data in await taker.all()]}

    async def channel(self) -> dict[str, Any]:
        taker = await self._channel("echo.channel", b"one", b"two", b"three")
        return {"data": [data.decode() for data in await taker.all()]}

    async def channel_credit(self) -> dict[str, Any]:
        numbers = [str(number).encode() for number in range(100)]
        received = await (await self._channel("echo.channel", *numbers)).all()
        return {"received": len(received), "in_order": received == numbers}

    async def channel_fragments(self) -> dict[str, Any]:
        received = await (await self._channel("echo.channel", bytes(LARGE), bytes(LARGE))).all()
        return {"sizes": [len(data) for data in received]}

    async def channel_error(self) -> dict[str, Any]:
        return await self._failing(await self._channel("interop.once", b"one", b"two"))

    async def channel_fails(self) -> dict[str, Any]:
        async def failing() -> AsyncIterator[bytes]:
            yield b"two"
            yield b"three"
            raise RuntimeError(NO)

        request = self._client.request_channel(to("interop.listen", b"one"), Source(failing()))
        request.initial_request_n(10).subscribe(Taker())
        return {"heard": await self._heard("listen")}

    async def channel_cancel(self) -> dict[str, Any]:
        received = await (await self._channel("interop.chat", b"one", credit=3, limit=3)).all()
        return {"received": len(received), "stopped": await self._heard("numbers")}

    async def lease(self) -> dict[str, Any]:
        requests = [asyncio.ensure_future(self._client.request_response(to("echo.request"))) for _ in range(8)]
        done, _ = await asyncio.wait(requests, timeout=0.5)
        return {"answered": len(done)}


# --- requests of the broker ------------------------------------------------------------------------------------------


class Responder(BaseRequestHandler):
    def __init__(self) -> None:
        self._heard = collections.defaultdict(asyncio.Event)
        self._made = 0

    async def request_response(self, payload: Payload) -> Awaitable[Payload]:
        answer = asyncio.get_running_loop().create_future()
        path = route_of(payload.metadata)
        if path == "interop.never":
            answer.add_done_callback(lambda _: self._heard["never"].set())
        elif path == "interop.heard":
            return asyncio.ensure_future(self._when_heard(json.loads(payload.data)))
        elif path == "interop.fail":
            answer.set_exception(RuntimeError(NO))
        else:
            answer.set_result(Payload(self._answer(path, payload.data or b"")))
        return answer

    async def _when_heard(self, name: str) -> Payload:
        await self._heard[name].wait()
        return Payload(b"true")

    def _answer(self, path: str, data: bytes) -> bytes:
        match path:
            case "interop.same":
                return data
            case "interop.add":
                return json.dumps(sum(json.loads(data).values())).encode()
            case "interop.size":
                return json.dumps(len(data)).encode()
            case "interop.made":
                return json.dumps(self._made).encode()
        raise RuntimeError(f"no {path} here")

    async def request_fire_and_forget(self, payload: Payload) -> None:
        self._heard[route_of(payload.metadata).removeprefix("interop.")].set()

    async def on_metadata_push(self, payload: Payload) -> None:
        self._heard[route_of(payload.metadata).removeprefix("interop.")].set()

    async def request_stream(self, payload: Payload) -> Publisher:
        match route_of(payload.metadata):
            case "interop.count":
                return Source(self._count(json.loads(payload.data)))
            case "interop.fails":
                return Source(self._fails(json.loads(payload.data)))
        return Source(self._numbers(), self._heard["numbers"].set)

    async def _count(self, last: int) -> AsyncIterator[bytes]:
        for number in range(1, last + 1):
            yield json.dumps(number).encode()

    async def _fails(self, after: int) -> AsyncIterator[bytes]:
        async for number in self._count(after):
            yield number
        raise RuntimeError(NO)

    async def _numbers(self) -> AsyncIterator[bytes]:
        for self._made in itertools.count(1):
            yield json.dumps(self._made).encode()

    async def request_channel(self, payload: Payload) -> tuple[Publisher, Subscriber]:
        incoming = Incoming(payload.data)
        once = route_of(payload.metadata) == "interop.once"
        return Source(self._once(incoming) if once else self._double(incoming)), incoming

    async def _double(self, incoming: "Incoming") -> AsyncIterator[bytes]:
        async for data in incoming.values():
            yield json.dumps(2 * json.loads(data)).encode()

    async def _once(self, incoming: "Incoming") -> AsyncIterator[bytes]:
        async for data in incoming.values():
            yield data
            raise RuntimeError(NO)


class Incoming(Subscriber):
    """What the broker sends on a channel; two at a time are asked for."""

    def __init__(self, first: bytes) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._queue.put_nowait(first)
        self._received = 0

    def on_subscribe(self, subscription: Any) -> None:
        self._subscription = subscription
        subscription.request(2)

    def on_next(self, value: Payload, is_complete: bool = False) -> None:
        self._queue.put_nowait(value.data)
        self._received += 1
        if is_complete:
            self.on_complete()
        elif self._received % 2 == 0:
            self._subscription.request(2)

    def on_error(self, exception: Exception) -> None:
        self.on_complete()

    def on_complete(self) -> None:
        self._queue.put_nowait(None)

    async def values(self) -> AsyncIterator[bytes]:
        while (data := await self._queue.get()) is not None:
            yield data


# --- the program -----------------------------------------------------------------------------------------------------


async def connect(url: str, directory: Path) -> RSocketClient:
    return RSocketClient(
        single_transport_provider(await open_transport(url, directory)),
        handler_factory=Responder,
        metadata_encoding=WellKnownMimeTypes.MESSAGE_RSOCKET_COMPOSITE_METADATA,
        data_encoding=WellKnownMimeTypes.APPLICATION_OCTET_STREAM,
        keep_alive_period=timedelta(seconds=10),
        fragment_size_bytes=FRAGMENT,
        honor_lease=url.endswith("?lease"),
    )


async def open_transport(url: str, directory: Path) -> Transport:
    context = ssl.create_default_context(cafile=directory / "sonarCA.crt")
    context.load_cert_chain(directory / "device.crt", directory / "privateKey.pem")
    if url.startswith("wss:"):
        transport = WebsocketsTransport()
        transport.task = asyncio.create_task(transport.handler(await websockets.connect(url, ssl=context)))
        return transport
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port, ssl=context)
    return TransportTCP(reader, writer, read_buffer_size=64 * 1024)


async def main(url: str, directory: Path, steps: list[str]) -> None:
    async with await connect(url, directory) as client:
        own = Steps(client)
        for name in steps:
            step = own.all().get(name) or (lambda name=name: own._ask("interop.drive", {"step": name}))
            try:
                async with asyncio.timeout(STEP_LIMIT):
                    told = {"ok": True, "detail": await step()}
            except Exception as error:
                told = {"ok": False, "detail": f"{type(error).__name__}: {error}"}
            print(json.dumps({"step": name, **told}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
