"""Accepting: a listener owns its sockets and knows how many of the connections it accepted are still there."""

import asyncio
import socket
from collections.abc import Callable

import attrs

from rsocket_broker.transports.base import Channel, Receiver
from rsocket_broker.transports.sockets import SocketTransport

MAX_CONNECTIONS = 2048
"""Open connections of one listener. Far above what one host's apps open, far below what a process can afford."""
ACCEPT_BATCH = 64
"""Connections accepted in one turn of the loop; more would let a flood of connects hold up everyone else."""


@attrs.define(slots=True)
class Counters:
    """What has happened on a listener since it opened. The last four stay 0 where there is no TLS."""

    accepted: int = 0
    turned_away: int = 0
    """Closed at once, since the cap was reached."""
    handshakes: int = 0
    refused: int = 0
    """Handshakes that one side refused with an alert, or bytes that were no TLS."""
    timed_out: int = 0
    displaced: int = 0
    """Unfinished handshakes dropped, the oldest first, to make room for newcomers."""


class Listener:
    """Listening sockets and the connections accepted through them.

    `port` is the number on every host in `hosts` (0 and the path for a Unix socket). `open` counts the connections
    accepted here that have not ended yet.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        channel: Channel,
        receiver_factory: Callable[[], Receiver],
        *,
        backlog: int,
        cap: int,
        counters: Counters | None = None,
    ) -> None:
        names = [listening.getsockname() for listening in sockets]
        self.port: int = 0 if channel is Channel.UNIX else names[0][1]
        self.hosts: tuple[str, ...] = tuple(name if channel is Channel.UNIX else name[0] for name in names)
        self.counters = counters or Counters()
        self._sockets = sockets
        self._channel = channel
        self._receiver_factory = receiver_factory
        self._backlog = backlog
        self._cap = cap
        self._servers: list[asyncio.Server] = []
        self._connections: set[SocketTransport] = set()
        self._closed = False
        self._all_gone = asyncio.Event()
        self._closing_callbacks: list[Callable[[], None]] = []

    @property
    def open(self) -> int:
        return len(self._connections)

    async def start(self) -> None:
        """Begins to accept; called once."""
        loop = asyncio.get_running_loop()
        create = loop.create_unix_server if self._channel is Channel.UNIX else loop.create_server
        for listening in self._sockets:
            self._servers.append(await create(self._accept, sock=listening, backlog=ACCEPT_BATCH))
            listening.listen(self._backlog)  # asyncio has one number for the batch and the queue, and just set both

    def on_close(self, callback: Callable[[], None]) -> None:
        """Runs `callback` when the listener closes."""
        self._closing_callbacks.append(callback)

    def close(self) -> None:
        """Stops accepting at once: whoever connects now is refused by the kernel. Accepted connections live on."""
        if self._closed:
            return
        self._closed = True
        for server in self._servers:
            server.close()
        for callback in self._closing_callbacks:
            callback()
        self._check_all_gone()

    def abort(self) -> None:
        """Closes, and drops every connection accepted here."""
        self.close()
        for connection in list(self._connections):
            connection.abort()

    async def wait_closed(self) -> None:
        """Waits until the listener is closed and every connection accepted here has ended."""
        await self._all_gone.wait()

    def _accept(self) -> asyncio.BaseProtocol:
        if self._closed or len(self._connections) >= self._cap:
            self.counters.turned_away += 1
            return _TurnedAway()
        self.counters.accepted += 1
        connection = SocketTransport(self._receiver_factory(), self._channel, self._forget)
        self._connections.add(connection)
        return connection

    def _forget(self, connection: SocketTransport) -> None:
        self._connections.discard(connection)
        self._check_all_gone()

    def _check_all_gone(self) -> None:
        if self._closed and not self._connections:
            self._all_gone.set()


class _TurnedAway(asyncio.Protocol):
    """Serves a connection for which there is no room: it ends at once, before it costs anything."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.abort()
