"""The floor: the least that a server in Python must do. A bare frame loop on `asyncio.Protocol`, and nothing beside it.

`python floor.py CREDENTIALS` prints three ports. On `port` each request is answered with its own data; on `json_port`
its data are parsed and the sum is written as JSON (orjson both times); `relay_port` takes requests to another client.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any, ClassVar

import orjson
from listening import announce, server_context
from wire import COMPLETE, METADATA, PAYLOAD, SETUP, SIZED_HEADER, WHOLE

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


class Relay(Echo):
    """Sends a request on to the client that its route names, and the answers back, by changing the stream id."""

    clients: ClassVar[dict[bytes, "Relay"]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.next_id, self.out = 2, []
        self.began: dict[int, tuple[Relay, int]] = {}

    def data_received(self, data: bytes) -> None:
        if self.rest:
            data = self.rest + data
        at, end, touched = 0, len(data), {self}
        unpack, pack = SIZED_HEADER.unpack_from, SIZED_HEADER.pack
        while end - at >= 9:
            high, low, stream_id, kind = unpack(data, at)
            after = at + 3 + (high << 16 | low)
            if after > end:
                break
            if kind >> 10 == PAYLOAD:
                other, other_id = self.began.pop(stream_id) if kind & COMPLETE else self.began[stream_id]
            elif kind >> 10 == SETUP:
                self.clients[orjson.loads(data[data.index(b"{", at) : after])["app_id"].encode()] = self
                at = after
                continue
            else:
                name = data[at + 17 : at + 17 + data[at + 16]]
                if not name.startswith(CLIENT):
                    self.take(
                        stream_id, data[at + 12 + int.from_bytes(data[at + 9 : at + 12], "big") : after], self.out
                    )
                    at = after
                    continue
                other = self.clients[name[7:]]
                other_id, other.next_id = other.next_id, other.next_id + 2
                other.began[other_id] = self, stream_id
            other.out += (pack(high, low, other_id, kind), data[at + 9 : after])
            touched.add(other)
            at = after
        self.rest = data[at:]
        for one in touched:
            if one.out:
                one.transport.write(b"".join(one.out))
                one.out.clear()


async def main(home: Path) -> None:
    loop, context = asyncio.get_running_loop(), server_context(home)
    server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=context)
    json_server = await loop.create_server(Add, "127.0.0.1", 0, ssl=context)
    relay = await loop.create_server(Relay, "127.0.0.1", 0, ssl=context)
    ports = {"json_port": json_server, "relay_port": relay}
    announce(server, **{name: one.sockets[0].getsockname()[1] for name, one in ports.items()})
    await asyncio.gather(*(one.serve_forever() for one in (server, json_server, relay)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
