"""Connecting to a server of RSocket over WebSocket: the opening request, and what must come back (RFC 6455 4.1)."""

import asyncio
import re
import ssl

from websockets.client import ClientProtocol
from websockets.uri import WebSocketURI

from rsocket_broker.transports.base import Receiver, Transport
from rsocket_broker.transports.http_request import END, MAX_HEAD
from rsocket_broker.transports.tcp import connect_tcp
from rsocket_broker.transports.tls import connect_tls
from rsocket_broker.transports.tls_handshake import HANDSHAKE_TIMEOUT
from rsocket_broker.transports.websocket import SUBPROTOCOL, WebSocketTransport
from rsocket_broker.transports.websocket_control import logger
from rsocket_broker.transports.websocket_frames import MAX_MESSAGE, Framing

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})\b")


async def connect_websocket(
    host: str,
    port: int,
    receiver: Receiver,
    *,
    path: str = "/rsocket",
    context: ssl.SSLContext | None = None,
    timeout: float = HANDSHAKE_TIMEOUT,
) -> WebSocketTransport:
    """A WebSocket at `path`, over TLS where there is a `context`; plain ones are for loopback alone.

    `receiver` has had `transport_ready` when it returns. Raises as `connect_tls` and `connect_tcp` do, and
    ConnectionRefusedError when the server speaks no WebSocket there.
    """
    opening = _Opening(WebSocketURI(context is not None, host, port, path, ""), receiver)
    async with asyncio.timeout(timeout):
        lower: Transport
        if context is None:
            lower = await connect_tcp(host, port, opening, timeout=timeout)
        else:
            lower = await connect_tls(host, port, context, opening, timeout=timeout)
        try:
            return await opening.done
        except BaseException:
            lower.abort()
            raise


class _Opening:
    """The Receiver of a connection until the server has agreed."""

    def __init__(self, uri: WebSocketURI, receiver: Receiver) -> None:
        self._protocol = ClientProtocol(uri, subprotocols=[SUBPROTOCOL], max_size=MAX_MESSAGE, logger=logger)
        self._receiver = receiver
        self._received = bytearray()
        self._transport: Transport
        self.done: asyncio.Future[WebSocketTransport] = asyncio.get_running_loop().create_future()

    def transport_ready(self, transport: Transport) -> None:
        self._transport = transport
        self._protocol.send_request(self._protocol.connect())
        transport.write(self._protocol.data_to_send())

    def data_received(self, data: bytes | memoryview) -> None:
        if self.done.done():
            return
        self._received += data
        end = self._received.find(END) + len(END)
        if end < len(END):
            if len(self._received) > MAX_HEAD:
                self._fail(ConnectionRefusedError("the server answers with endless headers"))
            return
        self._answered(bytes(self._received[:end]), bytes(self._received[end:]))

    def eof_received(self) -> None:
        self._fail(ConnectionResetError("the server closed the connection during the WebSocket handshake"))

    def writing_paused(self) -> None:
        """One short request is all that is written."""

    def writing_resumed(self) -> None:
        """See writing_paused."""

    def transport_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionResetError("the connection ended during the WebSocket handshake"))

    def _answered(self, head: bytes, rest: bytes) -> None:
        status = _STATUS.match(head)
        if status is None or status[1] != b"101":
            said = "nothing that is HTTP" if status is None else status[1].decode()
            self._fail(ConnectionRefusedError(f"the server takes no WebSocket at this address: it says {said}"))
            return
        self._protocol.receive_data(head)
        if self._protocol.handshake_exc is not None:
            self._fail(
                ConnectionRefusedError(f"the server's WebSocket handshake is wrong: {self._protocol.handshake_exc}")
            )
            return
        self._protocol.events_received()
        transport = WebSocketTransport(self._transport, Framing(self._protocol), self._receiver)
        self.done.set_result(transport)
        transport.start()
        if rest:
            transport.data_received(rest)

    def _fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self._transport.close()
