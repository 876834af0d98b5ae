"""The floor: the least that a server in Python must do. A bare frame loop on `asyncio.Protocol`, and nothing beside it.

`python floor.py CREDENTIALS` prints two ports. On `port` each request is answered with its own data, or relayed when
its route says so; on `json_port` its data are parsed, and the sum is written as JSON (orjson both times).
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import orjson
from listening import announce, server_context
from wire import METADATA, SETUP, SIZED_HEADER, WHOLE

CLIENT = b"client:"


class Echo(asyncio.Protocol):
    """Cuts frames; answers each with its own data."""

    transport: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.rest = transport, b""

    def data_received(self, data: bytes) -> None:
        if self.rest:
            data = self.rest + data
        at, end, out = 0, len(data), []
        unpack = SIZED_HEADER.unpack_from
        while end - at >= 9:
            high, low, stream_id, kind = unpack(data, at)
            after = at + 3 + (high << 16 | low)
            if after > end:
                break
            if kind >> 10 != SETUP:
                start = at + 12 + int.from_bytes(data[at + 9 : at + 12], "big") if kind & METADATA else at + 9
                self.take(stream_id, data[start:after], out)
            else:
                self.set_up(data[at + 3 : after])
            at = after
        self.rest = data[at:]
        if out:
            self.transport.write(b"".join(out))

    def set_up(self, frame: bytes) -> None:
        """The floor lets everybody in."""

    def take(self, stream_id: int, data: bytes, out: list[bytes]) -> None:
        size = len(data) + 6
        out.append(SIZED_HEADER.pack(size >> 16, size & 0xFFFF, stream_id, WHOLE))
        out.append(data)


class Add(Echo):
    """Parses the data and answers with the sum."""

    def take(self, stream_id: int, data: bytes, out: list[bytes]) -> None:
        values = orjson.loads(data)
        super().take(stream_id, orjson.dumps({"sum": values["a"] + values["b"]}), out)


async def main(home: Path) -> None:
    loop, context = asyncio.get_running_loop(), server_context(home)
    server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=context)
    json_server = await loop.create_server(Add, "127.0.0.1", 0, ssl=context)
    announce(server, json_port=json_server.sockets[0].getsockname()[1])
    await asyncio.gather(server.serve_forever(), json_server.serve_forever())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
