"""The reference in Python: rsocket-py's server doing the same jobs.

`python rsocket_py.py CREDENTIALS` prints its port as JSON.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from listening import announce, server_context
from rsocket.helpers import create_future
from rsocket.payload import Payload
from rsocket.routing.request_router import RequestRouter
from rsocket.routing.routing_request_handler import RoutingRequestHandler
from rsocket.rsocket_server import RSocketServer
from rsocket.streams.stream_from_generator import StreamFromGenerator
from rsocket.transports.tcp import TransportTCP

ITEM = b"x" * 64
FIRST = 1_000_000


def dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class Jobs:
    """What one session's requests lead to."""

    def __init__(self) -> None:
        self.server: Any = None
        self.count = self.sum = 0
        self.plugins: dict[str, dict[str, Callable[[dict[str, Any]], Any]]] = {
            "bench": {"add": self.add, "note": self.note, "noted": self.noted}
        }

    def add(self, params: dict[str, int]) -> dict[str, int]:
        return {"sum": params["a"] + params["b"]}

    def note(self, params: dict[str, int]) -> None:
        self.count += 1
        self.sum += params["n"]

    def noted(self, params: dict[str, Any]) -> dict[str, int]:
        return {"count": self.count, "sum": self.sum}

    def execute(self, data: bytes) -> Any:
        """Flipper's message to a plugin."""
        message = json.loads(data)
        assert message["method"] == "execute"
        params = message["params"]
        return self.plugins[params["api"]][params["method"]](params["params"])

    async def drive(self, count: int, window: int) -> dict[str, int]:
        numbers = iter(range(FIRST, FIRST + count))

        async def caller() -> int:
            total = 0
            for n in numbers:
                params = {"api": "bench", "method": "double", "params": {"n": n}}
                message = dump({"id": n - FIRST, "method": "execute", "params": params})
                total += json.loads((await self.server.request_response(Payload(message))).data)["success"]["n"]
            return total

        return {"calls": count, "sum": sum(await asyncio.gather(*(caller() for _ in range(window))))}

    async def driven(self, count: int, window: int) -> Payload:
        return Payload(dump(await self.drive(count, window)))


def routes(jobs: Jobs) -> RequestRouter:
    router = RequestRouter()

    @router.response("bench.echo")
    async def echo(payload: Payload) -> Payload:
        return Payload(payload.data)

    @router.response("bench.add")
    async def add(payload: Payload) -> Payload:
        return Payload(dump(jobs.add(json.loads(payload.data))))

    @router.response("bench.noted")
    async def noted(payload: Payload) -> Payload:
        return Payload(dump(jobs.noted({})))

    @router.response("bench.drive")
    async def drive(payload: Payload) -> asyncio.Future[Payload]:
        # A task of its own: the library reads no further frame before this function has returned.
        return asyncio.ensure_future(jobs.driven(**json.loads(payload.data)))

    @router.stream("bench.items")
    async def items(payload: Payload) -> Any:
        count = json.loads(payload.data)["count"]
        return stream(count, lambda n: ITEM)

    @router.stream("bench.numbers")
    async def numbers(payload: Payload) -> Any:
        count = json.loads(payload.data)["count"]
        return stream(count, lambda n: dump({"n": FIRST + n}))

    return router


def stream(count: int, make: Callable[[int], bytes]) -> StreamFromGenerator:
    def payloads() -> Iterator[tuple[Payload, bool]]:
        for n in range(count):
            yield Payload(make(n)), n + 1 == count

    return StreamFromGenerator(payloads)


class Session(RoutingRequestHandler):
    """Routed requests go to the router; those without metadata are Flipper's messages."""

    def __init__(self, jobs: Jobs) -> None:
        super().__init__(routes(jobs))
        self.jobs = jobs

    async def request_response(self, payload: Payload) -> Any:
        if payload.metadata:
            return await super().request_response(payload)
        return create_future(Payload(dump({"success": self.jobs.execute(payload.data)})))

    async def request_fire_and_forget(self, payload: Payload) -> None:
        self.jobs.execute(payload.data)


async def main(home: Path) -> None:
    def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        jobs = Jobs()
        jobs.server = RSocketServer(TransportTCP(reader, writer), handler_factory=lambda: Session(jobs))

    server = await asyncio.start_server(session, "127.0.0.1", 0, ssl=server_context(home))
    announce(server)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
