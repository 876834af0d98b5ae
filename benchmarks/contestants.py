"""The references, each a server of its own: `python contestants.py rsocket-py|floor CREDENTIALS` prints its port."""

import asyncio
import json
import ssl
import struct
import sys
from pathlib import Path

from load import HEADER, METADATA
from rsocket.extensions.mimetypes import WellKnownMimeTypes
from rsocket.payload import Payload
from rsocket.routing.request_router import RequestRouter
from rsocket.routing.routing_request_handler import RoutingRequestHandler
from rsocket.rsocket_server import RSocketServer
from rsocket.transports.tcp import TransportTCP

PAYLOAD_WHOLE = (0x0A << 10) | 0x60
SETUP = 0x01


def server_context(home: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home / "server.crt", home / "server.key")
    context.load_verify_locations(home / "trust.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class Floor(asyncio.Protocol):
    """The least that any server in Python must do: cut frames, answer each with its own data."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        buffer, position, out = self.buffer + data, 0, []
        end = len(buffer)
        while end - position >= 3:
            size = int.from_bytes(buffer[position : position + 3], "big")
            if end - position < 3 + size:
                break
            stream_id, kind = HEADER.unpack_from(buffer, position + 3)
            if kind >> 10 != SETUP:
                skip = 9 + int.from_bytes(buffer[position + 9 : position + 12], "big") if kind & METADATA else 6
                answer = buffer[position + 3 + skip : position + 3 + size]
                out.append(struct.pack(">I", len(answer) + 6)[1:] + HEADER.pack(stream_id, PAYLOAD_WHOLE) + answer)
            position += 3 + size
        self.buffer = buffer[position:]
        self.transport.write(b"".join(out))


def routes() -> RequestRouter:
    router = RequestRouter()

    @router.response("bench.echo")
    async def echo(payload: Payload) -> Payload:
        return Payload(payload.data)

    @router.response("bench.add")
    async def add(payload: Payload) -> Payload:
        values = json.loads(payload.data)
        return Payload(json.dumps({"sum": values["a"] + values["b"]}, separators=(",", ":")).encode())

    return router


async def serve(name: str, home: Path) -> None:
    context = server_context(home)
    if name == "floor":
        server = await asyncio.get_running_loop().create_server(Floor, "127.0.0.1", 0, ssl=context)
    else:
        router = routes()

        def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            RSocketServer(TransportTCP(reader, writer), handler_factory=lambda: RoutingRequestHandler(router))

        server = await asyncio.start_server(session, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


assert WellKnownMimeTypes  # the router insists on composite metadata; the generator's SETUP names it

if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
