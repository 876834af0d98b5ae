"""A service that decides for a policy's hook: a real HTTP server, which answers as it is told."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

Decide = Callable[[dict[str, Any]], bool]


@attrs.define
class Decider:
    """`asked` are the questions so far; `answer` gives the raw answer to one, in place of a proper one."""

    url: str
    decide: Decide
    answer: Callable[[dict[str, Any]], bytes] | None = None
    gate: asyncio.Event = attrs.field(factory=asyncio.Event)
    """Nothing is answered before this is set."""
    asked: list[dict[str, Any]] = attrs.field(factory=list)
    heads: list[str] = attrs.field(factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            length = next(int(line.split(":")[1]) for line in head.splitlines() if line.startswith("Content-Length"))
            question = json.loads(await reader.readexactly(length))
            self.asked.append(question)
            await self.gate.wait()
            writer.write(self.answer(question) if self.answer else http({"allow": self.decide(question)}))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.at_once -= 1
            writer.close()


def http(body: object, status: str = "200 OK") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n\r\n".encode() + data


@asynccontextmanager
async def deciding(decide: Decide = lambda question: True, socket: Path | None = None) -> AsyncIterator[Decider]:
    decider = Decider("", decide)
    decider.gate.set()
    if socket is not None:
        server: asyncio.Server = await asyncio.start_unix_server(decider.serve, socket)
        decider.url = f"unix:{socket}"
    else:
        server = await asyncio.start_server(decider.serve, "127.0.0.1", 0)
        decider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/decide?x=1"
    async with server:
        yield decider
        decider.gate.set()
        server.close()
